"""Masks that lie on the ground: rasters warped to the image, and polygons burnt with their numbers."""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, picture
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import reproject, transform_bounds

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import Source, mask, open_source
from urst_tiles.source.areas import areas_of
from urst_tiles.source.mask import AnyMask, open_mask, spool_mask
from urst_tiles.source.part import part_of

SHAPE = (120, 160)
UTM = "EPSG:32632"


def from_origin(west: float, north: float, width: float, height: float) -> Affine:
    return Affine(width, 0, west, 0, -height, north)


#: Where `helpers.geotiff` places its pixels.
PLACE = from_origin(500000, 5200000, 10, 10)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def image(tmp_path: Path) -> Source:
    return open_source(geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64)))


def raster(path: Path, pixels: np.ndarray, place: Affine = PLACE, crs: str | None = UTM, **more: Any) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    profile = {"driver": "GTiff", "count": len(bands), "dtype": bands.dtype, "crs": crs, "transform": place}
    with rasterio.open(path, "w", height=bands.shape[1], width=bands.shape[2], **profile | more) as file:
        file.write(bands)
    return path


def blobs(height: int, width: int, dtype: Any = np.uint8) -> np.ndarray:
    """Regions 1 to 5, or of larger numbers, without symmetry."""
    y, x = np.mgrid[:height, :width]
    return (1 + (x // 13 + 2 * (y // 9) + (x * y) // 700) % 5).astype(dtype)


def unpacked(found: AnyMask, folder: Path) -> np.ndarray:
    return np.load(spool_mask(found, folder / "unpacked.npy"))


def warped(path: Path, **more: Any) -> np.ndarray:
    with rasterio.open(path) as file:
        out = np.zeros(SHAPE, file.dtypes[0])
        reproject(
            rasterio.band(file, 1), out, dst_transform=PLACE, dst_crs=UTM, resampling=Resampling.nearest,
            **more,
        )  # fmt: skip
    return out


# --- rasters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["shifted", "coarse", "fine", "wide", "nodata", "uint16", "turned"])
def test_a_mask_in_the_same_system_lies_where_it_lies(
    tmp_path: Path, image: Source, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask, "STRIP_PIXELS", 160 * 7)  # strips of 7 rows
    place, shape, more = PLACE @ Affine.translation(37, -22), (120, 160), {}
    pixels = blobs(*shape)
    if case == "coarse":
        place, pixels = PLACE @ Affine.translation(-11, 30) @ Affine.scale(7, 5), blobs(19, 23)
    elif case == "fine":
        place, pixels = PLACE @ Affine.translation(3, 4) @ Affine.scale(0.21, 0.3), blobs(300, 500)
    elif case == "wide":
        place, pixels = PLACE @ Affine.translation(-200, -100), blobs(400, 600)
    elif case == "nodata":
        more = {"nodata": 9}
        pixels[40:60] = 9
    elif case == "uint16":
        pixels = blobs(*shape, np.uint16) * 9000
    elif case == "turned":
        place = PLACE @ Affine.translation(30, -10) @ Affine.rotation(25)
    path = raster(tmp_path / "mask.tif", pixels, place, **more)
    found = open_mask(path, image)
    assert found.shape == SHAPE and found.dtype == pixels.dtype.name
    made, expected = unpacked(found, tmp_path), warped(path)
    np.testing.assert_array_equal(made, expected)
    assert len(np.unique(made)) >= 5
    if case == "shifted":  # by hand, too
        np.testing.assert_array_equal(made[:98, 37:], pixels[22:, :123])
        assert not made[98:].any() and not made[:, :37].any()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "+proj=laea +lat_0=47 +lon_0=9 +datum=WGS84"])
def test_a_mask_in_another_system_is_warped(tmp_path: Path, image: Source, crs: str) -> None:
    left, bottom, right, top = transform_bounds(UTM, crs, 500000, 5198800, 501600, 5200000)
    place = from_origin(left, top, (right - left) / 90, (top - bottom) / 70)
    path = raster(tmp_path / "mask.tif", blobs(70, 70), place, crs)
    made = unpacked(open_mask(path, image), tmp_path)
    np.testing.assert_array_equal(made, warped(path))
    assert (made == 0).mean() > 0.1 and len(np.unique(made)) == 6


def test_a_mask_of_the_whole_world_serves_a_scene(tmp_path: Path, image: Source) -> None:
    path = raster(tmp_path / "world.tif", blobs(180, 360), from_origin(-180, 90, 1, 1), "EPSG:4326")
    made = unpacked(open_mask(path, image), tmp_path)
    np.testing.assert_array_equal(made, warped(path))
    assert made.min() > 0


def test_a_small_mask_lies_in_an_image_of_the_whole_world(tmp_path: Path) -> None:
    """Most of the image has no place in the system of the mask."""
    world, crs = from_origin(-180, 90, 2.25, 1.5), "EPSG:4326"
    pixels = np.moveaxis(picture(*SHAPE), -1, 0)
    image = open_source(
        raster(tmp_path / "in.tif", pixels, world, crs, tiled=True, blockxsize=64, blockysize=64)
    )
    path = raster(tmp_path / "mask.tif", blobs(90, 90), from_origin(200000, 6200000, 9000, 9000))
    expected = np.zeros(SHAPE, np.uint8)
    with rasterio.open(path) as file:
        reproject(rasterio.band(file, 1), expected, dst_transform=world, dst_crs=crs)
    np.testing.assert_array_equal(unpacked(open_mask(path, image), tmp_path), expected)
    assert 5 < (expected > 0).sum() < 200


def test_a_mask_that_is_cut_off_is_called_damaged(tmp_path: Path, image: Source) -> None:
    path = raster(tmp_path / "mask.tif", blobs(300, 300))
    path.write_bytes(path.read_bytes()[:40000])
    with pytest.raises(DamagedFile, match=r"mask\.tif"):
        open_mask(path, image)


@pytest.mark.parametrize("reduced", [1, 4])
def test_a_mask_with_the_corners_of_the_image_is_as_without_a_place(
    tmp_path: Path, image: Source, reduced: int
) -> None:
    pixels = blobs(*SHAPE)[::reduced, ::reduced]
    path = raster(tmp_path / "mask.tif", pixels, PLACE @ Affine.scale(reduced))
    tifffile.imwrite(tmp_path / "plain.tif", pixels)
    found = open_mask(path, image)
    np.testing.assert_array_equal(unpacked(found, tmp_path), pixels)
    assert found.shape == open_mask(tmp_path / "plain.tif", image).shape == pixels.shape
    np.testing.assert_array_equal(pixels.repeat(reduced, 0).repeat(reduced, 1), warped(path))


@pytest.mark.parametrize("placed", ["mask", "image", "neither"])
def test_without_a_place_of_either_it_is_proportions(tmp_path: Path, image: Source, placed: str) -> None:
    pixels, path = blobs(30, 40), tmp_path / "mask.tif"
    if placed == "mask":
        raster(path, pixels, from_origin(0, 0, 3, 3))
    else:
        tifffile.imwrite(path, pixels)
    if placed != "image":
        tifffile.imwrite(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64), photometric="rgb")
        image = open_source(tmp_path / "in.tif")
    np.testing.assert_array_equal(unpacked(open_mask(path, image), tmp_path), pixels)


@pytest.mark.parametrize("rows", [16, 300, 700])
def test_strips_of_any_height_are_decoded(tmp_path: Path, rows: int) -> None:
    """Also one strip of the whole, which libvips decodes by rows, and not a second time."""
    tifffile.imwrite(tmp_path / "in.tif", picture(700, 500), tile=(64, 64), photometric="rgb")
    tifffile.imwrite(tmp_path / "mask.tif", blobs(700, 500), rowsperstrip=rows)
    found = open_mask(tmp_path / "mask.tif", open_source(tmp_path / "in.tif"))
    np.testing.assert_array_equal(unpacked(found, tmp_path), blobs(700, 500))


def test_a_mask_with_a_colour_table_holds_numbers_wherever_it_lies(tmp_path: Path, image: Source) -> None:
    pixels = blobs(*SHAPE)
    for name, place in (("same", PLACE), ("moved", PLACE @ Affine.translation(5, 5))):
        path = raster(tmp_path / f"{name}.tif", pixels, place, photometric="palette")
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {n: (40 * n, 9, 9, 255) for n in range(6)})
        (tmp_path / name).mkdir()
        np.testing.assert_array_equal(unpacked(open_mask(path, image), tmp_path / name), warped(path))


def test_a_virtual_raster_is_a_mask(tmp_path: Path, image: Source) -> None:
    path = raster(tmp_path / "mask.tif", blobs(*SHAPE), PLACE @ Affine.translation(9, 9))
    with rasterio.open(path) as file, rasterio.vrt.WarpedVRT(file, crs=UTM) as virtual:
        text = virtual.tags(ns="xml:VRT")["xml:VRT"]
    (tmp_path / "mask.vrt").write_text(text)
    made = unpacked(open_mask(tmp_path / "mask.vrt", image), tmp_path)
    np.testing.assert_array_equal(made, warped(path))


def test_a_mask_of_another_place_is_refused(tmp_path: Path, image: Source) -> None:
    for crs, place in ((UTM, PLACE @ Affine.translation(160, 0)), ("EPSG:4326", from_origin(20, 40, 1, 1))):
        path = raster(tmp_path / "mask.tif", blobs(*SHAPE), place, crs)
        for act in (open_mask, lambda path, image: areas_of(image, path)):
            with pytest.raises(BadInput, match=r"mask\.tif does not touch the image .*in\.tif; give"):
                act(path, image)


def test_what_holds_no_numbers_is_refused(tmp_path: Path, image: Source) -> None:
    path = raster(tmp_path / "mask.tif", np.ones((3, 9, 9), np.uint8))
    with pytest.raises(BadInput, match=r"mask\.tif has 3 band\(s\) of uint8; it must have one"):
        open_mask(path, image)
    path = raster(tmp_path / "mask.tif", np.ones((9, 9), np.complex64))
    with pytest.raises(BadInput, match=r"mask\.tif: its samples are complex"):
        open_mask(path, image)
    path = raster(tmp_path / "mask.tif", blobs(9, 9))
    with pytest.raises(BadInput, match="--mask-attribute is for polygons"):
        open_mask(path, image, "class")


def test_the_fingerprint_knows_the_place(tmp_path: Path, image: Source) -> None:
    """The place of a picture may lie in a file beside it."""
    path, found = tmp_path / "mask.png", []
    path.write_bytes(imagecodecs.png_encode(blobs(*SHAPE)))
    found.append(open_mask(path, image).fingerprint)
    for x in (500100, 500200):
        (tmp_path / "mask.pgw").write_text(f"10\n0\n0\n-10\n{x + 5}\n5199995\n")
        (tmp_path / "mask.png.aux.xml").write_text(f"<PAMDataset><SRS>{UTM}</SRS></PAMDataset>")
        found.append(open_mask(path, image).fingerprint)
    assert len(set(found)) == 3


@pytest.mark.parametrize("kind", ["grey", "rgb", "alpha", "float", "nodata"])
def test_a_valid_picture_is_placed_too(tmp_path: Path, image: Source, kind: str) -> None:
    """What lies outside of it is invalid."""
    place, more = PLACE @ Affine.translation(20, -30), {}
    valid = blobs(*SHAPE) > 2
    pixels: np.ndarray = valid.astype(np.uint8)
    if kind == "rgb":
        pixels = np.stack([0 * pixels, 7 * pixels, 0 * pixels])
    elif kind == "alpha":
        pixels = np.stack([np.full_like(pixels, 9), 255 * pixels])
    elif kind == "float":
        pixels = np.where(valid, -0.5, np.nan).astype(np.float32)
    elif kind == "nodata":
        pixels, more = np.where(valid, 3, 255).astype(np.uint8), {"nodata": 255}
    path = raster(tmp_path / "valid.tif", pixels, place, **more)
    if kind == "alpha":
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    expected = np.zeros(SHAPE, bool)
    expected[:90, 20:] = valid[30:, :140]
    masked = image.with_valid(*areas_of(image, path))
    pixels = masked.prepare(tmp_path / "job", thumbnail=40).read(Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(pixels[..., 3] > 0, expected)
    np.testing.assert_array_equal(pixels[..., :3], picture(*SHAPE))


def test_without_rasterio(tmp_path: Path, image: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    same = raster(tmp_path / "same.tif", blobs(*SHAPE))
    moved = raster(tmp_path / "moved.tif", blobs(*SHAPE), PLACE @ Affine.translation(5, 5))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    np.testing.assert_array_equal(unpacked(open_mask(same, image), tmp_path), blobs(*SHAPE))
    with pytest.raises(
        BadInput, match=r"--mask .*moved\.tif needs rasterio: pip install 'urst-tiles\[gdal\]'"
    ):
        open_mask(moved, image)


def test_an_image_that_no_transform_places_is_refused(tmp_path: Path) -> None:
    keys = (1, 1, 0, 1, 1024, 0, 1, 2)
    points = [n for x, y in ((0, 0), (160, 0), (0, 120), (160, 120)) for n in (x, y, 0, 9 + x, 47 - y, 0)]
    tags = [(33922, 12, 24, points, True), (34735, 3, len(keys), keys, True)]
    geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64), extratags=tags)
    path = raster(tmp_path / "mask.tif", blobs(*SHAPE))
    with pytest.raises(BadInput, match=r"in\.tif has ground control points .* alone, by which --mask"):
        open_mask(path, open_source(tmp_path / "in.tif"))


# --- polygons -----------------------------------------------------------------------------------------------

STAR = [
    [80 + (55, 20)[i % 2] * np.cos(np.pi * i / 7), 60 + (55, 20)[i % 2] * np.sin(np.pi * i / 7)]
    for i in range(14)
]
SQUARES = [[[x, y], [x, y + 40], [x + 50, y + 40], [x + 50, y]] for x, y in ((30.2, 35.3), (120.4, -8.7))]


def polygons(path: Path, *values: Any, crs: str | None = UTM, **more: Any) -> Path:
    """The star and the squares with these attributes, on the ground unless ``crs`` is None."""
    found = []
    for ring, attributes in zip((STAR, *SQUARES), values, strict=True):
        places = [list(PLACE @ tuple(place)) if crs else place for place in (*ring, ring[0])]
        found.append({
            "type": "Feature", "properties": attributes,
            "geometry": {"type": "MultiPolygon", "coordinates": [[places]]},
        })  # fmt: skip
    member = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": found} | member | more))
    return path


def burnt(*numbers: int) -> np.ndarray:
    shapes = [
        ({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, number)
        for ring, number in zip((STAR, *SQUARES), numbers, strict=True)
    ]
    return rasterize(shapes, SHAPE, dtype="uint16")


def test_polygons_are_burnt_with_their_numbers(
    tmp_path: Path, image: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask, "STRIP_PIXELS", 160 * 7)
    values = [{"name": "a", "class": 3}, {"name": "b", "class": 300}, {"name": "c", "class": 2}]
    path = polygons(tmp_path / "regions.geojson", *values)
    found = open_mask(path, image)
    made = unpacked(found, tmp_path)
    np.testing.assert_array_equal(made, burnt(3, 300, 2))
    assert made.dtype == np.uint16 and set(np.unique(made)) == {0, 2, 3, 300}
    assert found.fingerprint == open_mask(path, image, "class").fingerprint


def test_polygons_in_degrees(tmp_path: Path, image: Source) -> None:
    values = [{"class": 3}, {"class": 4}, {"class": 2}]
    path = polygons(tmp_path / "utm.geojson", *values)
    found = json.loads(path.read_text())
    for feature in found["features"]:
        feature["geometry"] = rasterio.warp.transform_geom(UTM, "EPSG:4326", feature["geometry"])
    del found["crs"]
    (tmp_path / "degrees.geojson").write_text(json.dumps(found))
    made = unpacked(open_mask(tmp_path / "degrees.geojson", image), tmp_path)
    assert made.dtype == np.uint8 and (made != burnt(3, 4, 2)).sum() <= 6  # middles on edges


def test_polygons_in_pixels_where_nothing_says_where_they_lie(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", picture(*SHAPE), tile=(64, 64), photometric="rgb")
    path = polygons(tmp_path / "r.geojson", {"n": 1}, {"n": 2}, {"n": 3}, crs=None)
    found = open_mask(path, open_source(tmp_path / "in.tif"))
    np.testing.assert_array_equal(unpacked(found, tmp_path), burnt(1, 2, 3))


def test_the_attribute_is_chosen(tmp_path: Path, image: Source) -> None:
    rows = [{"a": n, "b": 9 - n, "ok": True, "share": n / 2, "whole": 2.0 * n} for n in (1, 2, 3)]
    path = polygons(tmp_path / "r.geojson", *rows)
    prints = set()
    for name, numbers in (("a", (1, 2, 3)), ("b", (8, 7, 6)), ("whole", (2, 4, 6))):
        (tmp_path / name).mkdir()
        found = open_mask(path, image, name)
        np.testing.assert_array_equal(unpacked(found, tmp_path / name), burnt(*numbers))
        prints.add(found.fingerprint)
    assert len(prints) == 3
    for attribute, words in (
        (None, r"several attributes that are integers \(a, b\)"),
        ("c", "no attribute c: its attributes are a, b, ok, share, whole"),
        ("share", r"polygon 1 has share = 0\.5"),
        ("ok", r"polygon 1 has ok = True"),
    ):
        with pytest.raises(BadInput, match=rf"r\.geojson.*{words}"):
            open_mask(path, image, attribute)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([{}, {}, {}], "no attribute that is an integer;"),
        ([{"name": "x"}] * 3, r"no attribute that is an integer \(its attributes are name\)"),
        ([{"n": 1}, {"n": None}, {"n": 2}], "polygon 2 has n = None"),
        ([{"n": 1}, {"n": 2}, {"n": 70000}], "polygon 3 has n = 70000.*from 0 to 65535"),
        ([{"n": 1}, {"n": -2}, {"n": 3}], "polygon 2 has n = -2"),
    ],
)
def test_polygons_without_numbers_are_refused(
    tmp_path: Path, image: Source, values: list[Any], words: str
) -> None:
    path = polygons(tmp_path / "r.geojson", *values)
    with pytest.raises(BadInput, match=rf"r\.geojson.*{words}"):
        open_mask(path, image)


def test_polygons_of_another_place_are_refused(tmp_path: Path, image: Source) -> None:
    ring = [[490000, 5100000], [490000, 5100100], [490100, 5100100], [490000, 5100000]]
    feature = {
        "type": "Feature",
        "properties": {"n": 1},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    member = {"type": "name", "properties": {"name": UTM}}
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], "crs": member}))
    for act in (open_mask, lambda path, image: areas_of(image, path)):
        with pytest.raises(BadInput, match=r"r\.geojson does not touch the image"):
            act(path, image)


def test_a_point_without_a_place_in_the_system_is_one_sentence(tmp_path: Path, image: Source) -> None:
    ring = [[8.9, 46.9], [9.1, 46.9], [99.5, 0.1], [8.9, 46.9]]
    feature = {
        "type": "Feature",
        "properties": {"n": 1},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (tmp_path / "r.geojson").write_text(json.dumps(feature))
    for act in (open_mask, lambda path, image: areas_of(image, aoi=path)):
        with pytest.raises(
            BadInput, match=r"r\.geojson: some of its coordinates have no place in the reference"
        ):
            act(tmp_path / "r.geojson", image)


def test_valid_polygons_make_no_part(tmp_path: Path, image: Source) -> None:
    path = polygons(tmp_path / "valid.geojson", {}, {}, {})
    (area,) = areas_of(image, path)
    np.testing.assert_array_equal(
        area.placed(None, None, print).inside(Box(0, 0, *SHAPE), SHAPE), burnt(1, 1, 1)
    )
    assert part_of(image.with_valid(area)) is None
    (drawn,) = areas_of(image, aoi=path)
    assert part_of(image.with_valid(drawn)).box == Box(0, 30, 114, 160)


def test_a_geopackage_of_regions(tmp_path: Path, image: Source) -> None:
    path, head = tmp_path / "r.gpkg", b"GP\0\1" + struct.pack("<i", 32632)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER, organization TEXT,"
            " organization_coordsys_id INTEGER, definition TEXT);"
            "CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, geometry_type_name TEXT,"
            " srs_id INTEGER, z TINYINT, m TINYINT);"
            "CREATE TABLE fields (fid INTEGER PRIMARY KEY, crop MEDIUMINT, geom BLOB, name TEXT,"
            " wet BOOLEAN);"
            "INSERT INTO gpkg_spatial_ref_sys VALUES ('x', 32632, 'EPSG', 32632, '');"
            "INSERT INTO gpkg_geometry_columns VALUES ('fields', 'geom', 'POLYGON', 32632, 0, 0);"
        )
        for number, ring in enumerate((STAR, *SQUARES), 4):
            places = [PLACE @ tuple(place) for place in (*ring, ring[0])]
            blob = head + struct.pack("<BIII", 1, 3, 1, len(places))
            blob += b"".join(struct.pack("<2d", *place) for place in places)
            database.execute("INSERT INTO fields VALUES (NULL, ?, ?, 'x', 1)", (number, blob))
        database.commit()
    np.testing.assert_array_equal(unpacked(open_mask(path, image), tmp_path), burnt(4, 5, 6))
    with pytest.raises(BadInput, match=r"no attribute id: its attributes are crop, name, wet"):
        open_mask(path, image, "id")
