"""Which pixels the user calls valid: mask files of any kind, polygons, the tissue of a slide."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture
from rasterio.features import rasterize
from rasterio.warp import transform

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.source.areas import areas_of
from urst_tiles.source.orient import FLIPS, as_stored, shown, shown_box, stored_box
from urst_tiles.source.polygons import filled
from urst_tiles.source.tissue import otsu, tissue_of

SHAPE = (120, 160)
HOLE = np.zeros(SHAPE, bool)
HOLE[30:70, 50:130] = True


def read(source: Any, folder: Path) -> np.ndarray:
    prepared = source.prepare(folder, thumbnail=40)
    return prepared.read(Box(0, 0, *source.shape))


# --- orientation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", FLIPS)
def test_turning_back(orientation: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (7, 11, 3), np.uint8)
    turned = shown(pixels, orientation)
    np.testing.assert_array_equal(as_stored(turned, orientation), pixels)
    box = Box(1, 2, 5, 9)
    there = shown_box(box, (7, 11), orientation)
    assert stored_box(there, (7, 11), orientation) == box
    np.testing.assert_array_equal(turned[there.slices], shown(pixels[box.slices], orientation))


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_a_mask_is_upright_as_the_image_is_shown(tmp_path: Path, orientation: int) -> None:
    stored = as_stored(picture(*SHAPE), orientation)
    path, mask = tmp_path / "in.tif", tmp_path / "mask.png"
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(path, stored, tile=(64, 64), photometric="rgb", extratags=tags, metadata=None)
    mask.write_bytes(imagecodecs.png_encode((~HOLE).astype(np.uint8)))
    source = open_source(path)
    pixels = read(source.with_valid(*areas_of(source, mask)), tmp_path / "job")
    np.testing.assert_array_equal(pixels[..., 3], np.where(HOLE, 0, 255))
    np.testing.assert_array_equal(pixels[..., :3], picture(*SHAPE))


# --- mask files ---------------------------------------------------------------------------------------------


def as_file(folder: Path, kind: str) -> Path:
    """A picture that is 0 in the hole, in one of many forms."""
    valid, path = ~HOLE, folder / "mask.png"
    if kind == "rgb":
        pixels = np.where(HOLE[..., None], 0, np.array([0, 7, 0])).astype(np.uint8)
    elif kind == "rgba":
        pixels = np.dstack([np.full((*SHAPE, 3), 9, np.uint8), np.where(HOLE, 0, 255).astype(np.uint8)])
    elif kind == "uint16":
        pixels = np.where(valid, 65535, 0).astype(np.uint16)
    elif kind == "quarter":
        pixels = valid[::4, ::4].astype(np.uint8)
    else:
        path = folder / "mask.tif"
        pixels = {"float": np.where(valid, -0.5, np.nan).astype(np.float32), "bits": valid}[kind]
        tifffile.imwrite(path, pixels, photometric="minisblack")
        return path
    path.write_bytes(imagecodecs.png_encode(pixels))
    return path


@pytest.mark.parametrize("kind", ["rgb", "rgba", "uint16", "float", "bits", "quarter"])
def test_any_picture_says_what_is_valid(tmp_path: Path, kind: str) -> None:
    path = geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64))
    source = open_source(path)
    valid = source.with_valid(*areas_of(source, as_file(tmp_path, kind)))
    assert (valid.channels, valid.info.validity) == (4, "mask")
    pixels = read(valid, tmp_path / "job")
    # at a quarter of the resolution a pixel of the mask stands for 4 x 4 of the image
    expected = HOLE if kind != "quarter" else HOLE[::4, ::4].repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(pixels[..., 3] == 0, expected)
    np.testing.assert_array_equal(pixels[..., :3], picture(*SHAPE))


def test_the_files_own_validity_counts_too(tmp_path: Path) -> None:
    alpha = np.full(SHAPE, 255, np.uint8)
    alpha[:20] = 0
    alpha[100:, :50] = 90
    path = geotiff(
        tmp_path / "in.tif", np.dstack([picture(*SHAPE), alpha]), tile=(64, 64), extrasamples=["unassalpha"]
    )
    source = open_source(path)
    valid = source.with_valid(*areas_of(source, as_file(tmp_path, "rgb")))
    assert valid.info.validity == "alpha"
    pixels = read(valid, tmp_path / "job")
    np.testing.assert_array_equal(pixels[..., 3], np.where(HOLE, 0, alpha))


def test_a_spooled_file_and_its_thumbnail(tmp_path: Path) -> None:
    """Of strips and 16 bits: the stretch and the thumbnail know valid pixels alone."""
    values = np.full((*SHAPE, 3), 1000, np.uint16)
    values[HOLE] = 60000
    values[:, :40] = 2000
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, values, photometric="rgb", rowsperstrip=8)
    source = open_source(path, stretch="0%,100%")
    prepared = source.with_valid(*areas_of(source, as_file(tmp_path, "bits"))).prepare(
        tmp_path / "job", thumbnail=30
    )
    assert prepared.stretch == ((1000.0, 2000.0),) * 3
    thumbnail = prepared.thumbnail
    np.testing.assert_array_equal(thumbnail[..., 3] == 0, HOLE[2::4, 2::4] & HOLE[1::4, 1::4])
    assert set(np.unique(thumbnail[thumbnail[..., 3] > 0][:, :3])) == {0, 65535}


def test_overviews_serve_a_coarse_mask_and_not_a_fine_one(tmp_path: Path) -> None:
    pixels, path = picture(640, 800), tmp_path / "in.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, tile=(64, 64), photometric="rgb", subifds=1)
        file.write(pixels[::4, ::4], tile=(64, 64), photometric="rgb", subfiletype=1)
    fine, coarse = tmp_path / "fine.png", tmp_path / "coarse.png"
    fine.write_bytes(imagecodecs.png_encode(np.ones((640, 800), np.uint8)))
    coarse.write_bytes(imagecodecs.png_encode(np.ones((64, 80), np.uint8)))
    source = open_source(path)
    origins = {
        name: source.with_valid(*areas_of(source, mask))
        .prepare(tmp_path / name, thumbnail=32)
        .thumbnail_origin
        for name, mask in (("fine", fine), ("coarse", coarse))
    }
    assert origins == {"fine": "one streamed pass", "coarse": "overview 200 x 160 of the file"}


def test_a_mask_of_another_extent_is_refused(tmp_path: Path) -> None:
    source = open_source(geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64)))
    (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(np.ones((120, 120), np.uint8)))
    with pytest.raises(BadInput, match=r"mask.png is 120 x 120 and the image 160 x 120"):
        areas_of(source, tmp_path / "mask.png")


# --- polygons -----------------------------------------------------------------------------------------------

STAR = [
    [80 + (55, 20)[i % 2] * np.cos(np.pi * i / 7), 60 + (55, 20)[i % 2] * np.sin(np.pi * i / 7)]
    for i in range(14)
]
SQUARE = [[5.0, 5.0], [5.0, 25.0], [25.0, 25.0], [25.0, 5.0]]


def test_filling_is_gdals() -> None:
    star, hole = np.array([*STAR, STAR[0]]), np.array([[70, 50], [90, 52], [85, 71.3], [70, 50]])
    found = filled((star, hole), np.arange(160) + 0.5, np.arange(120) + 0.5)
    geometry = {"type": "Polygon", "coordinates": [star.tolist(), hole.tolist()]}
    np.testing.assert_array_equal(found, rasterize([geometry], SHAPE) == 1)
    assert 2000 < found.sum() < 6000


def test_middles_on_edges_are_gdals() -> None:
    ring = [[20.5, 10.5], [90.5, 10.5], [90.5, 50.5], [55, 80.5], [20.5, 40.5], [20.5, 10.5]]
    found = filled((np.array(ring),), np.arange(160) + 0.5, np.arange(120) + 0.5)
    geometry = {"type": "Polygon", "coordinates": [ring]}
    np.testing.assert_array_equal(found, rasterize([geometry], SHAPE) == 1)


def features(*rings: Any, **more: Any) -> str:
    """A collection of features, each a polygon of one ring."""
    found = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in rings
    ]
    return json.dumps({"type": "FeatureCollection", "features": found} | more)


def test_polygons_in_pixels_where_nothing_says_where_they_lie(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64), photometric="rgb")
    (tmp_path / "aoi.geojson").write_text(features(STAR, SQUARE))
    source = open_source(tmp_path / "in.tif")
    (area,) = areas_of(source, aoi=tmp_path / "aoi.geojson")
    assert area.outline == Box(5, 5, 114, 135)
    expected = rasterize(
        [{"type": "Polygon", "coordinates": [ring + ring[:1]]} for ring in (STAR, SQUARE)], SHAPE
    )
    pixels = read(source.with_valid(area), tmp_path / "job")
    np.testing.assert_array_equal(pixels[..., 3] > 0, expected == 1)
    for box in (Box(0, 0, 9, 160), Box(31, 57, 32, 58), Box(50, 60, 101, 133)):
        np.testing.assert_array_equal(area.inside(box, SHAPE), (expected == 1)[box.slices])


@pytest.mark.parametrize("crs", [None, "urn:ogc:def:crs:EPSG::32632", "EPSG:3857"])
def test_polygons_on_the_ground(tmp_path: Path, crs: str | None) -> None:
    path = geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64))
    ground = [(500000 + 10 * x, 5200000 - 10 * y) for x, y in STAR]
    wanted = {None: "EPSG:4326", "EPSG:3857": crs}.get(crs)
    if wanted:
        ground = list(zip(*transform("EPSG:32632", wanted, *zip(*ground, strict=True)), strict=True))
    member = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    (tmp_path / "aoi.geojson").write_text(features([list(place) for place in ground], **member))
    source = open_source(path)
    (area,) = areas_of(source, aoi=tmp_path / "aoi.geojson")
    expected = rasterize([{"type": "Polygon", "coordinates": [STAR + STAR[:1]]}], SHAPE) == 1
    assert (area.inside(Box(0, 0, *SHAPE), SHAPE) != expected).sum() <= 4  # pixels whose middle is on an edge


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no GeoJSON"),
        ("[1, 2]", "is no GeoJSON that can be read"),
        ('{"type": "Point", "coordinates": [1, 2]}', "holds no polygon"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}', "fewer than three positions"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [1, NaN]]]}', "no numbers"),
        ('{"type": "Topology"}', "'Topology'"),
        ('{"type": "FeatureCollection", "features": []}', "holds no polygon"),
        ("[" * 100000, "is no GeoJSON"),
    ],
)
def test_what_is_no_geojson_is_refused(tmp_path: Path, text: str, words: str) -> None:
    source = open_source(geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64)))
    (tmp_path / "aoi.geojson").write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        areas_of(source, aoi=tmp_path / "aoi.geojson")
    assert "aoi.geojson" in str(caught.value)


def geopackage(path: Path, blobs: list[bytes], srs: tuple[int, str, int]) -> None:
    """A GeoPackage with one table of polygons, as far as a reader of polygons needs it."""
    number, organization, code = srs
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER, organization TEXT,"
            " organization_coordsys_id INTEGER, definition TEXT);"
            "CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, geometry_type_name TEXT,"
            " srs_id INTEGER, z TINYINT, m TINYINT);"
            'CREATE TABLE "fields ""a""" (fid INTEGER PRIMARY KEY, geom BLOB);'
        )
        database.execute(
            "INSERT INTO gpkg_spatial_ref_sys VALUES ('x', ?, ?, ?, 'undefined')",
            (number, organization, code),
        )
        database.execute(
            "INSERT INTO gpkg_geometry_columns VALUES ('fields \"a\"', 'geom', 'MULTIPOLYGON', ?, 0, 0)",
            (number,),
        )
        database.executemany('INSERT INTO "fields ""a""" (geom) VALUES (?)', [(blob,) for blob in blobs])
        database.commit()


def wkb(ring: list[Any], axes: int = 2) -> bytes:
    """A polygon of one ring in little-endian well-known binary."""
    closed = [[*place, *[0.0] * (axes - 2)] for place in [*ring, ring[0]]]
    numbers = [n for place in closed for n in place]
    head = struct.pack("<BIII", 1, 3 + 1000 * (axes - 2), 1, len(closed))
    return head + struct.pack(f"<{len(numbers)}d", *numbers)


def test_a_geopackage(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64))
    star, square = ([[500000 + 10 * x, 5200000 - 10 * y] for x, y in ring] for ring in (STAR, SQUARE))
    several = struct.pack("<BII", 1, 6, 2) + wkb(star) + wkb(square)
    envelope = b"GP\0" + bytes([0b0000011]) + struct.pack("<i4d", 32632, 0, 1, 0, 1)
    plain, empty = b"GP\0" + bytes([1]) + bytes(4), b"GP\0" + bytes([0b0010001]) + bytes(4)
    source = open_source(path)
    expected = rasterize([{"type": "Polygon", "coordinates": [r + r[:1]]} for r in (STAR, SQUARE)], SHAPE)
    for name, blobs in (
        ("several", [envelope + several]),
        ("two", [plain + wkb(star, 3), plain + wkb(square), empty]),
    ):
        geopackage(tmp_path / f"{name}.gpkg", blobs, (32632, "EPSG", 32632))
        (area,) = areas_of(source, aoi=tmp_path / f"{name}.gpkg")
        np.testing.assert_array_equal(area.inside(Box(0, 0, *SHAPE), SHAPE), expected == 1)
    geopackage(tmp_path / "none.gpkg", [], (-1, "NONE", -1))
    with pytest.raises(BadInput, match="holds no polygon"):
        areas_of(source, aoi=tmp_path / "none.gpkg")
    geopackage(tmp_path / "cut.gpkg", [(plain + wkb(star))[:-9]], (-1, "NONE", -1))
    with pytest.raises(BadInput, match="is no GeoPackage that can be read"):
        areas_of(source, aoi=tmp_path / "cut.gpkg")


# --- tissue -------------------------------------------------------------------------------------------------


def slide(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (300, 400, 3): two pieces of stained tissue on glass, with dust, a gap, a black margin; and where
    the tissue is."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:300, :400]
    tissue = ((y - 140) / 90) ** 2 + ((x - 150) / 70) ** 2 < 1
    tissue |= ((y - 200) / 50) ** 2 + ((x - 310) / 40) ** 2 < 1
    pixels = np.where(tissue[..., None], [196, 120, 170], [238, 237, 240]) + random.normal(
        0, 4, (300, 400, 3)
    )
    pixels[138:140, 148:152] = 240  # a gap
    pixels[60:62, 330:332] = [90, 20, 20]  # dust
    pixels[:, 390:] = random.integers(0, 4, (300, 10, 3))  # a margin of noise
    return np.clip(pixels, 0, 255).astype(np.uint8), tissue


def test_tissue_is_found_and_glass_dust_and_margin_are_not() -> None:
    for seed in range(3):
        pixels, tissue = slide(seed)
        found = tissue_of(pixels.astype(np.float32))
        wrong = found != tissue
        assert wrong.mean() < 0.01
        assert not found[:, 385:].any() and not found[50:70, 320:340].any() and found[130:150, 140:160].all()


def test_the_unit_does_not_matter_and_invalid_pixels_are_no_tissue() -> None:
    pixels, _ = slide()
    valid = np.ones(pixels.shape[:2], bool)
    valid[:140] = False
    assert (tissue_of(pixels) == tissue_of(pixels.astype(np.float64) / 255)).all()
    found = tissue_of(np.where(valid[..., None], pixels, [255, 0, 0]).astype(np.uint8), valid)
    assert not found[:140].any() and found[150:200, 120:180].all()
    assert not tissue_of(pixels, np.zeros_like(valid)).any()


def test_a_slide_without_glass_is_all_tissue_and_one_without_tissue_is_all_glass() -> None:
    random = np.random.default_rng(3)
    full = np.clip(np.where(random.random((80, 90, 1)) < 0.5, [196, 120, 170], [120, 60, 130]), 0, 255)
    assert tissue_of(full).all()
    assert not tissue_of(np.clip(random.normal(240, 2, (80, 90, 3)), 0, 255)).any()


def test_otsu_parts_two_heaps() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0.1, 0.02, 3000), random.normal(0.5, 0.05, 1000)])
    assert 0.15 < otsu(np.clip(values, 0, 1).astype(np.float32)) < 0.4


def test_a_real_slide(inputs: Path, tmp_path: Path) -> None:
    source = open_source(inputs / "slide" / "libvips__CMU-1-Small-Region.svs")
    prepared = source.with_valid(*areas_of(source, "tissue")).prepare(tmp_path, thumbnail=512)
    thumbnail = prepared.thumbnail
    found = thumbnail[..., 3] > 0
    assert 0.2 < found.mean() < 0.95
    outside, within = thumbnail[~found][:, :3], thumbnail[found][:, :3]
    assert outside.mean() > 215 and within.mean() < outside.mean() - 20


def test_grey_has_no_tissue(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", picture(*SHAPE)[..., 0], tile=(64, 64))
    with pytest.raises(BadInput, match="grey"):
        areas_of(open_source(tmp_path / "in.tif"), "tissue")
