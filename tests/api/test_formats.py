"""Outputs of every format: the pixels of the TIFF, whole or not there at all, and what they carry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import pyvips
import rasterio
import tifffile
import zarr
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.options import choices
from urst_tiles.pyramid import pixels
from urst_tiles.pyramid.deep_zoom import iiif_name
from urst_tiles.pyramid.formats import FORMATS, named_format

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "blocksize": 128, "thumbnail": 64}
FLAGS = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]

#: A name of each format.
NAMES = {
    "out.tif",
    "out.ome.tif",
    "out.ome.zarr",
    "out.dzi",
    "out.iiif",
    "out.png",
    "out.jpg",
    "out.webp",
    "out.jp2",
}
OTHERS = sorted(NAMES - {"out.tif"})

#: Further scenes, which all formats are tried with among the slow tests.
MORE = ("wide", "alpha", "alpha16", "nodata")
slow = pytest.mark.slow


def smooth(h: int, w: int) -> np.ndarray:
    """uint8 (h, w, 3) that JPEG and WebP keep well: smooth, with fine grain of grey."""
    grain = np.random.default_rng(3).normal(0, 9, (h, w, 1))
    y, x = (n[..., None] for n in np.mgrid[:h, :w])
    colours = np.sin(x / np.array([31.0, 57, 77])) + np.sin(y / np.array([43.0, 29, 61]))
    return np.clip(127 + 55 * colours + grain, 1, 255).astype(np.uint8)


def transparent(dtype: str) -> np.ndarray:
    """RGBA (300, 420): a hole, and an edge that is neither valid nor invalid."""
    image = np.dstack([smooth(300, 420), np.full((300, 420), 255, np.uint8)])
    image[40:200, 100:333, 3] = 0
    image[200:210, 100:333, 3] = 77
    return image if dtype == "uint8" else image.astype(np.uint16) * 257


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of each kind: rgb, wide (16 bits), alpha, alpha16, mask (GDAL's) and nodata (black)."""
    folder = tmp_path_factory.mktemp("scenes")
    geotiff(folder / "rgb.tif", smooth(300, 420))
    geotiff(folder / "wide.tif", smooth(300, 420).astype(np.uint16) * 200 + 7)
    for name, dtype in (("alpha", "uint8"), ("alpha16", "uint16")):
        geotiff(folder / f"{name}.tif", transparent(dtype), extrasamples=["unassalpha"])
    holes = smooth(300, 420)
    holes[30:90, 60:290] = 0
    with rasterio.open(
        folder / "mask.tif", "w", driver="GTiff", width=420, height=300, count=3, dtype="uint8",
        photometric="rgb", transform=rasterio.Affine(10, 0, 500000, 0, -10, 5200000), crs="EPSG:32632",
    ) as out:  # fmt: skip
        out.write(holes.transpose(2, 0, 1))
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            out.write_mask(holes.any(axis=-1))
    out_path = folder / "nodata.tif"
    geotiff(out_path, holes)
    with rasterio.open(out_path, "r+") as out:
        out.nodata = 0
    return folder


@pytest.fixture(scope="module")
def made(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The output of a name that a scene becomes, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("made")

    def make(scene: str, name: str, **options: Any) -> Path:
        own = folder / "-".join([scene, *map(str, options.values())])
        own.mkdir(exist_ok=True)
        if not (own / name).exists():
            ut.stylize(scenes / f"{scene}.tif", own / name, None, **SMALL, **options)
        return own / name

    return make


def read_zarr(path: Path) -> np.ndarray:
    return np.moveaxis(np.asarray(zarr.open_group(path, mode="r")["0"][:]), 0, -1)


def read_dzi(path: Path) -> np.ndarray:
    """The full resolution, joined from its tiles."""
    folder = max((path.parent / f"{path.stem}_files").iterdir(), key=lambda level: int(level.name))
    places = {tuple(map(int, tile.stem.split("_"))): tile for tile in folder.iterdir()}
    columns, rows = (1 + max(place[i] for place in places) for i in range(2))
    return np.vstack([np.hstack([read_vips(places[c, r]) for c in range(columns)]) for r in range(rows)])


def read_iiif(path: Path) -> np.ndarray:
    facts = json.loads((path / "info.json").read_text())
    side, kind = facts["tiles"][0]["width"], facts.get("preferredFormats", ["jpg"])[0]
    rows, columns = -(-facts["height"] // side), -(-facts["width"] // side)
    shape = facts["height"], facts["width"]

    def tile(row: int, column: int) -> np.ndarray:
        return read_vips(path / iiif_name(shape, side, 0, row, column) / f"default.{kind}")

    return np.vstack([np.hstack([tile(r, c) for c in range(columns)]) for r in range(rows)])


def read_vips(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path), fail_on="warning").numpy()


def read_gdal(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1)


READERS = {
    "out.tif": lambda path: tifffile.imread(path, key=0),
    "out.ome.tif": tifffile.imread,
    "out.ome.zarr": read_zarr,
    "out.dzi": read_dzi,
    "out.iiif": read_iiif,
    "out.jp2": read_gdal,
}


def read(path: Path) -> np.ndarray:
    return READERS.get(path.name, read_vips)(path)


def rgba_of_tiff(path: Path) -> np.ndarray:
    """What GDAL sees: colours, and its mask of the data set or alpha."""
    with rasterio.open(path) as file:
        bands = file.read().transpose(1, 2, 0)
        if file.count == 4:
            return bands
        top = np.iinfo(bands.dtype).max
        return np.dstack([bands, (file.dataset_mask() > 0).astype(bands.dtype) * top])


def test_the_table_has_every_word_of_the_option() -> None:
    assert ("auto", *FORMATS) == choices()["format"]
    assert {named_format(name).name for name in NAMES} == set(FORMATS)  # type: ignore[union-attr]


@pytest.mark.parametrize("scene", ["rgb", "mask", *(pytest.param(s, marks=slow) for s in MORE)])
@pytest.mark.parametrize("name", OTHERS)
def test_the_pixels_are_those_of_the_tiff(name: str, scene: str, made: Callable[..., Path]) -> None:
    wide = scene in ("wide", "alpha16")
    chosen = named_format(name)
    assert chosen is not None
    dtype = "uint16" if wide and chosen.sixteen_bit else "uint8"
    tiff, output = made(scene, "out.tif", dtype=dtype), made(scene, name)
    report = ut.validate(output)
    assert report.valid, report
    assert report.levels[0] == (300, 420)
    found, right = read(output), rgba_of_tiff(tiff)
    assert found.dtype == right.dtype
    if scene in ("rgb", "wide"):
        right = right[..., :3]
    if not chosen.alpha:
        right = np.rint(right[..., :3] * (right[..., 3:] / 255.0 if right.shape[-1] == 4 else 1.0))
    assert found.shape == right.shape
    is_lossy = chosen.lossy and not (chosen.name in ("dzi", "iiif") and right.shape[-1] == 4)
    if not is_lossy:
        moved = scene == "nodata" and name in (
            "out.ome.tif",
            "out.jp2",
        )  # black pixels that are valid stay black there
        same = np.abs(found.astype(int) - right) <= (1 if moved else 0)
        assert same[right[..., -1] > 0].all() and np.array_equal(found[..., 3:], right[..., 3:])
        return
    inside = right[..., 3] > 0 if right.shape[-1] == 4 else np.full(right.shape[:2], True)
    assert np.abs(found[inside][:, :3].astype(float) - right[inside][:, :3]).mean() < 12
    assert np.array_equal(found[..., 3:], right[..., 3:])


def test_levels_are_those_of_the_tiff(made: Callable[..., Path]) -> None:
    with tifffile.TiffFile(made("rgb", "out.tif", dtype="uint8")) as tif:
        levels = [page.asarray() for page in tif.pages]
    with tifffile.TiffFile(made("rgb", "out.ome.tif")) as tif:
        assert tif.is_ome and len(tif.pages) == 1 and len(tif.series) == 1
        assert tif.series[0].is_pyramidal
        ome = [level.asarray() for level in tif.series[0].levels]
    group = zarr.open_group(made("rgb", "out.ome.zarr"), mode="r")
    ngff = [np.moveaxis(group[str(n)][:], 0, -1) for n in range(len(levels))]
    for one in (ome, ngff):
        assert len(one) == len(levels)
        for level, right in zip(one, levels, strict=True):
            np.testing.assert_array_equal(level, right)


def test_ome_tiff_says_what_its_readers_need(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    tifffile.imwrite(
        source, smooth(300, 420), photometric="rgb", resolution=(20000, 40000), resolutionunit="CENTIMETER",
        description="a slide <of> something", metadata=None,
    )  # fmt: skip
    ut.stylize(source, tmp_path / "out.ome.tif", None, **SMALL)
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as tif:
        pixels_of = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]
        assert tif.pages[0].tags[330].count == 2
    assert pixels_of["Description"] == "a slide <of> something"
    found = pixels_of["Pixels"]
    assert (found["SizeX"], found["SizeY"], found["SizeC"]) == (420, 300, 3)
    assert found["PhysicalSizeX"] == 0.5 and found["PhysicalSizeY"] == 0.25
    assert found["PhysicalSizeXUnit"] == "µm" and found["Channel"]["SamplesPerPixel"] == 3
    again = ut.open_source(tmp_path / "out.ome.tif")
    assert again.shape == (300, 420) and again.info.microns_per_pixel == pytest.approx((0.25, 0.5))


def test_ome_zarr_says_what_its_readers_need(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    tifffile.imwrite(
        source, smooth(300, 420), photometric="rgb", resolution=(20000, 40000), resolutionunit="CENTIMETER"
    )
    ut.stylize(source, tmp_path / "out.ome.zarr", None, **SMALL)
    group = zarr.open_group(tmp_path / "out.ome.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    ome = group.attrs["ome"]
    (scales,) = ome["multiscales"]
    assert ome["version"] == "0.5" and [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in scales["axes"]] == [None, "micrometer", "micrometer"]
    steps = [one["coordinateTransformations"][0]["scale"] for one in scales["datasets"]]
    assert steps == [[1, 0.25 * 2**n, 0.5 * 2**n] for n in range(3)]
    assert [channel["color"] for channel in ome["omero"]["channels"]] == ["FF0000", "00FF00", "0000FF"]
    array = group["0"]
    assert array.shards == (3, 256, 256) and array.chunks == (1, 128, 128)


def test_deep_zoom_has_every_level_down_to_one_pixel(made: Callable[..., Path]) -> None:
    folder = made("rgb", "out.dzi").with_name("out_files")
    assert {level.name for level in folder.iterdir()} == {str(n) for n in range(10)}
    for level in range(10):
        rows = [read_vips(tile).shape[0] for tile in folder.glob(f"{level}/0_*.jpg")]
        columns = [read_vips(tile).shape[1] for tile in folder.glob(f"{level}/*_0.jpg")]
        assert (sum(rows), sum(columns)) == (-(-300 // 2 ** (9 - level)), -(-420 // 2 ** (9 - level)))


def test_iiif_has_the_names_that_viewers_ask_for(scenes: Path, tmp_path: Path) -> None:
    """Those of OpenSeadragon's IIIFTileSource for version 3, written out for one image."""
    ut.stylize(scenes / "rgb.tif", tmp_path / "out", None, **SMALL, format="iiif")
    made = {str(tile.parent.relative_to(tmp_path / "out")) for tile in tmp_path.glob("out/*/*/0/default.jpg")}
    assert {
        "0,0,128,128/128,128/0",
        "384,256,36,44/36,44/0",
        "256,256,164,44/82,22/0",
        "full/105,75/0",
    } < made
    assert len(made) == 12 + 4 + 1
    facts = json.loads((tmp_path / "out" / "info.json").read_text())
    assert facts["type"] == "ImageService3" and facts["tiles"][0]["scaleFactors"] == [1, 2, 4]


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp"])
@pytest.mark.parametrize("scene", ["rgb", "mask"])
def test_a_picture_lies_where_the_tiff_lies(name: str, scene: str, made: Callable[..., Path]) -> None:
    output = made(scene, name)
    with rasterio.open(made(scene, "out.tif", dtype="uint8")) as tiff, rasterio.open(output) as file:
        assert file.transform == tiff.transform and file.crs == tiff.crs and file.crs.to_epsg() == 32632
    (world,) = (path for path in FORMATS[output.suffix[1:]].sidecars(output) if path.suffix[-1] == "w")
    assert [float(line) for line in world.read_text().split()] == [10, 0, 0, -10, 500005, 5199995]
    again = ut.open_source(output).info.geo
    assert {tag.code for tag in again} >= {33550, 33922, 34735}


def test_a_picture_without_a_place_has_no_files_beside_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", picture(60, 80))
    ut.stylize(tmp_path / "in.tif", tmp_path / "out.png", None, **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"in.tif", "out.png"}


def test_points_and_areas_are_told_apart(tmp_path: Path) -> None:
    """A tiepoint of PixelIsPoint is the centre of a pixel."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32632)
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True),
        (34735, 3, len(keys), keys, True),
    ]
    geotiff(tmp_path / "in.tif", picture(60, 80), extratags=tags)
    ut.stylize(tmp_path / "in.tif", tmp_path / "out.png", None, **SMALL)
    with rasterio.open(tmp_path / "in.tif") as file, rasterio.open(tmp_path / "out.png") as out:
        assert out.transform == file.transform


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp"])
def test_a_picture_carries_what_it_can(name: str, tmp_path: Path) -> None:
    profile = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb")
    profile = profile.icc_transform("p3", input_profile="srgb").get("icc-profile-data")
    image = pyvips.Image.new_from_array(smooth(300, 420)).copy(
        interpretation="srgb", xres=11.811, yres=11.811
    )
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    for field, value in (("ifd0-Copyright", "somebody"), ("ifd2-FNumber", "56/10")):
        image.set_type(pyvips.GValue.gstr_type, f"exif-{field}", value)
    image.jpegsave(str(tmp_path / "in.jpg"), Q=100)
    ut.stylize(tmp_path / "in.jpg", tmp_path / name, None, **SMALL)
    out = pyvips.Image.new_from_file(str(tmp_path / name))
    assert out.get("icc-profile-data") == profile and out.get("xmp-data") == XMP
    assert "somebody" in out.get("exif-ifd0-Copyright") and "56/10" in out.get("exif-ifd2-FNumber")
    assert "urst-tiles" in out.get("exif-ifd0-Software")
    if name != "out.webp":
        assert out.xres == pytest.approx(11.811, rel=1e-3)
    again = ut.open_source(tmp_path / name).info
    assert again.icc == profile and {tag.code for tag in again.tags} >= {700, 33432}


XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="a"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


# What a format does not hold


@pytest.mark.parametrize(("name", "side"), [("out.jpg", 65536), ("out.webp", 16384), ("out.png", 1_000_001)])
@pytest.mark.parametrize("tall", [False, True])
def test_an_image_too_large_is_refused_before_any_work(
    run, name: str, side: int, tall: bool, tmp_path: Path
) -> None:
    shape = (side, 1, 3) if tall else (1, side, 3)
    tifffile.imwrite(tmp_path / "in.tif", np.zeros(shape, np.uint8), photometric="rgb", compression="deflate")
    done = run("stylize", tmp_path / "in.tif", tmp_path / name, *FLAGS)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert str(side - 1) in done.stderr and str(side) in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.tif"}


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("out.jpg", ["--dtype", "uint16"], "JPEG holds 8 bits only"),
        ("out.webp", ["--dtype", "uint16"], "WebP holds 8 bits only"),
        ("out.dzi", ["--dtype", "uint16"], "DZI holds 8 bits only"),
        ("out.png", ["--compression", "jpeg"], "--compression jpeg is for TIFFs"),
        ("out.png", ["--format", "jpg"], "out.png is the name of PNG"),
        ("out.ome.tif", ["--format", "tif"], "out.ome.tif is the name of OME-TIFF"),
        ("out.tif", ["--format", "gif"], "--format must be one of auto, tif"),
        ("out.gif", [], "convert it afterwards"),
        ("none/out.dzi", [], "no folder"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    run, name: str, flags: list[str], words: str, scenes: Path, tmp_path: Path
) -> None:
    done = run("stylize", scenes / "wide.tif", tmp_path / name, *FLAGS, *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "scene", "words"),
    [
        ("out.jpg", "mask", "JPEG does not hold which pixels are invalid (they are black)"),
        ("out.jpg", "alpha16", "which pixels are invalid (they are black), more than 8 bits"),
        ("out.dzi", "rgb", "DZI does not hold the georeference"),
        ("out.png", "alpha16", ""),
        ("out.ome.tif", "mask", ""),
    ],
)
def test_what_is_lost_is_said_in_one_line(
    run, name: str, scene: str, words: str, scenes: Path, tmp_path: Path
):
    done = run("stylize", scenes / f"{scene}.tif", tmp_path / name, *FLAGS)
    assert done.returncode == 0 and done.stderr.count("does not hold") == bool(words), done.stderr
    assert words in done.stderr


# Names


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("out.png", "out.dzi", "out.iiif") else slow) for n in OTHERS]
)
def test_what_exists_stays_unless_told_otherwise(name: str, scenes: Path, tmp_path: Path) -> None:
    output, scene = tmp_path / name, scenes / "mask.tif"
    ut.stylize(scene, output, None, **SMALL)
    before = tree(tmp_path)
    with pytest.raises(ut.BadInput, match="exists"):
        ut.stylize(scenes / "rgb.tif", output, None, **SMALL)
    assert tree(tmp_path) == before
    ut.stylize(scenes / "rgb.tif", output, None, **SMALL, overwrite=True)
    after = tree(tmp_path)
    assert ut.validate(output).valid and after != before
    ut.stylize(scene, output, None, **SMALL, overwrite=True)
    assert tree(tmp_path) == before


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_of_somebody_is_never_replaced(scenes: Path, tmp_path: Path) -> None:
    for name, flags in (("photos", {"format": "iiif"}), ("out.ome.zarr", {}), ("out_files", {})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
        output = tmp_path / (name if name != "out_files" else "out.dzi")
        with pytest.raises(ut.BadInput, match="something else"):
            ut.stylize(scenes / "rgb.tif", output, None, **SMALL, **flags, overwrite=True)
        assert (tmp_path / name / "mine.txt").read_text() == "mine"


def test_files_beside_a_picture_belong_to_it(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "out.pgw").write_text("theirs")
    with pytest.raises(ut.BadInput, match=r"out\.pgw exists"):
        ut.stylize(scenes / "rgb.tif", tmp_path / "out.png", None, **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"out.pgw"}
    tifffile.imwrite(tmp_path / "in.tif", picture(60, 80))
    ut.stylize(tmp_path / "in.tif", tmp_path / "out.png", None, **SMALL, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"in.tif", "out.png"}  # it would lie elsewhere


# Kills


KILL = """
import os, signal, sys
import urst_tiles as ut
from urst_tiles.pyramid import pixels
from urst_tiles.storage import folders, publish
read, left = pixels.StoredLevel.tile, [int(sys.argv[3])]
def tile(self, row, column):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, row, column)
pixels.StoredLevel.tile = tile
rename = folders._rename
def renamed(*arguments):
    rename(*arguments)
    if sys.argv[3] == "-1":
        os.kill(os.getpid(), signal.SIGKILL)
folders._rename = renamed
ut.stylize(sys.argv[1], sys.argv[2], None, model="identity", tile=128, block=256, blocksize=128, thumbnail=64)
"""


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("out.dzi", 9),
        ("out.ome.zarr", -1),
        pytest.param("out.png", 7, marks=slow),
        pytest.param("out.dzi", -1, marks=slow),
        pytest.param("out.ome.zarr", 9, marks=slow),
    ],
)
def test_a_kill_leaves_nothing_half_written(name: str, moment: int, scenes: Path, tmp_path: Path) -> None:
    output = tmp_path / name
    done = subprocess.run([sys.executable, "-c", KILL, scenes / "rgb.tif", output, str(moment)])
    assert done.returncode == -signal.SIGKILL
    assert not output.exists() or (moment == -1 and ut.validate(output).valid)
    report = ut.stylize(scenes / "rgb.tif", output, None, **SMALL)
    assert report.blocks_run == 0 and report.blocks_kept in (0, 4)
    assert ut.validate(output).valid
    names = {path.name for path in tmp_path.iterdir()}
    beside = {"out.png": {"out.pgw", "out.png.aux.xml", "out.prj"}, "out.dzi": {"out_files"}}.get(name, set())
    assert names == {name} | beside


# The validator


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damage_is_found(name: str, how: str, made: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / name
    for path in (made("rgb", name), *FORMATS[named_format(name).name].companions(made("rgb", name))):  # type: ignore[union-attr]
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    folder = tmp_path / "out_files" if name == "out.dzi" else output
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    target = max(files, key=lambda path: path.stat().st_size) if files else output
    if how == "gone" and files:
        target.unlink()
    elif how == "cut":
        os.truncate(target, target.stat().st_size // 2)
    else:
        data = bytearray(target.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
        target.write_bytes(data)
        if name in ("out.jpg", "out.webp", "out.jp2"):
            return  # without checksums nobody can tell
    report = ut.validate(output)
    assert not report.valid and len(report.problems) <= 8


def test_validate_knows_what_is_none_of_these(run, tmp_path: Path) -> None:
    assert run("validate", tmp_path).returncode == 2
    (tmp_path / "a.dzi").write_text("<Image/>")
    assert run("validate", tmp_path / "a.dzi").returncode == 1


def test_a_job_that_is_shared_ends_in_any_format(run, scenes: Path, tmp_path: Path) -> None:
    job, output = tmp_path / "JOB", tmp_path / "out.ome.zarr"
    assert run("plan", "--save", job, scenes / "rgb.tif", output, *FLAGS).returncode == 0
    assert run("work", job).returncode == 0
    refused = run("assemble", job, "--output", tmp_path / "other.png")
    assert refused.returncode == 1 and "planned for OME-Zarr" in refused.stderr, refused.stderr
    assert run("assemble", job).returncode == 0
    assert ut.validate(output).valid and not job.exists()


def test_a_tile_that_is_decoded_is_the_tile_that_was_encoded() -> None:
    from urst_tiles.pyramid.encode import Encoding, encode_tile

    for dtype, compression, predictor in (
        ("uint8", "deflate", True),
        ("uint16", "zstd", True),
        ("uint16", "lzw", False),
        ("uint8", "deflate", False),
    ):
        encoding = Encoding(
            compression, dtype=dtype, channels=4, validity="mask", tile=64, predictor=predictor
        )
        image = transparent(dtype)[30:94, 80:144]
        found = pixels.decode_tile(*encode_tile(image, encoding), encoding)
        valid = image[..., 3] > 0
        np.testing.assert_array_equal(found[valid][:, :3], image[valid][:, :3])
        np.testing.assert_array_equal(found[..., 3] > 0, valid)


def test_openslide_opens_the_ome_tiff(made: Callable[..., Path]) -> None:
    assert openslide.OpenSlide(str(made("rgb", "out.ome.tif"))).dimensions == (420, 300)


@slow
def test_bytes_do_not_depend_on_the_time(scenes: Path, tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in OTHERS:
            ut.stylize(scenes / "mask.tif", tmp_path / folder / name, None, **SMALL)
        found.append([data for _, data in sorted(tree(tmp_path / folder).items())])
        time.sleep(1.1)
    assert found[0] == found[1]


# Options of the TIFF


def test_statistics_are_those_of_the_pixels(scenes: Path, tmp_path: Path) -> None:
    """As GDAL reads them, of 16 bits with invalid pixels; exact where each block is one tile."""
    options = SMALL | {"block": 256, "blocksize": 256}
    ut.stylize(scenes / "alpha16.tif", tmp_path / "out.tif", None, **options)
    with rasterio.open(tmp_path / "out.tif") as file:
        bands, valid = file.read([1, 2, 3]).astype(float), file.read(4) > 0
        tags = [file.tags(band) for band in (1, 2, 3)]
    for band, said in zip(bands, tags, strict=True):
        values = band[valid]
        assert float(said["STATISTICS_MINIMUM"]) == values.min()
        assert float(said["STATISTICS_MAXIMUM"]) == values.max()
        assert float(said["STATISTICS_MEAN"]) == pytest.approx(values.mean(), rel=1e-12)
        assert float(said["STATISTICS_STDDEV"]) == pytest.approx(values.std(), rel=1e-9)
        assert float(said["STATISTICS_VALID_PERCENT"]) == pytest.approx(100 * valid.mean(), rel=1e-3)
        assert "STATISTICS_APPROXIMATE" not in said


def test_statistics_of_an_overview_are_called_approximate(made: Callable[..., Path]) -> None:
    with rasterio.open(made("wide", "out.tif")) as file:
        values, said = file.read(1).astype(float), file.tags(1)
    assert said["STATISTICS_APPROXIMATE"] == "YES"
    assert float(said["STATISTICS_MEAN"]) == pytest.approx(values.mean(), rel=0.01)
    assert float(said["STATISTICS_STDDEV"]) == pytest.approx(values.std(), rel=0.1)
    assert (
        values.min() <= float(said["STATISTICS_MINIMUM"]) < float(said["STATISTICS_MAXIMUM"]) <= values.max()
    )


@pytest.mark.parametrize("scene", ["rgb", pytest.param("mask", marks=slow)])
@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": "no"},
        {"bigtiff": "if-needed", "predictor": "no"},
        {"overview_resampling": "nearest"},
        {"overview_resampling": "lanczos", "compression": "lzw", "predictor": "no"},
    ],
    ids=str,
)
def test_options_of_a_tiff(options: dict[str, Any], scene: str, made: Callable[..., Path]) -> None:
    usual, output = made(scene, "out.tif", dtype="uint8"), made(scene, "out.tif", **options)
    report = ut.validate(output)
    assert report.valid, report
    with tifffile.TiffFile(output) as tif:
        assert tif.is_bigtiff == ("bigtiff" not in options)
        assert tif.pages[0].predictor == (1 if options.get("predictor") == "no" else 2)
        assert tif.pages[0].tile == (128, 128)
    with rasterio.open(usual) as right, rasterio.open(output) as file:
        np.testing.assert_array_equal(file.read(), right.read())
        np.testing.assert_array_equal(file.dataset_mask(), right.dataset_mask())
        assert file.transform == right.transform and file.crs == right.crs and file.tags(1) == file.tags(1)
    if scene == "rgb":
        np.testing.assert_array_equal(read_vips(output), read_vips(usual))
        assert ut.open_source(output).info.geo == ut.open_source(usual).info.geo


def test_overviews_are_made_as_told(made: Callable[..., Path]) -> None:
    found = {}
    for method in ("average", "nearest", "lanczos"):
        with tifffile.TiffFile(made("rgb", "out.tif", overview_resampling=method)) as tif:
            found[method] = tif.pages[1].asarray().astype(int)
            full = tif.pages[0].asarray()
    np.testing.assert_array_equal(found["nearest"], full[::2, ::2])
    sharp = pyvips.Image.new_from_array(full).reduce(2, 2, kernel="lanczos3").numpy().astype(int)
    inside = (slice(8, 120), slice(8, 120))  # of the first block, away from its edges
    assert np.abs(found["lanczos"][inside] - sharp[inside]).max() <= 4
    assert np.abs(found["average"][inside] - sharp[inside]).max() > 6


def test_lanczos_ignores_invalid_pixels(made: Callable[..., Path]) -> None:
    """Black that is invalid does not bleed into the overview."""
    with rasterio.open(made("mask", "out.tif", overview_resampling="lanczos"), overview_level=0) as file:
        colours, valid = file.read().astype(int), file.dataset_mask() > 0
    with rasterio.open(made("mask", "out.tif", dtype="uint8"), overview_level=0) as file:
        right = file.read().astype(int)
        assert np.array_equal(file.dataset_mask() > 0, valid)
    assert np.abs(colours - right)[:, valid].max() < 60


def test_a_tile_side_that_does_not_divide_the_block_is_refused(run, scenes: Path, tmp_path: Path) -> None:
    done = run(
        "stylize", scenes / "rgb.tif", tmp_path / "out.tif", "--model", "identity", "--blocksize", "100"
    )
    assert done.returncode == 2 and "multiple of 16" in done.stderr and done.stderr.count("\n") == 1


def test_plan_tells_the_size_and_a_jpeg_what_would_be_smaller(run, tmp_path: Path) -> None:
    pyvips.Image.new_from_array(smooth(600, 900)).jpegsave(str(tmp_path / "in.jpg"), Q=90)
    said = {}
    for name in ("out.tif", "out.jpg"):
        done = run("plan", tmp_path / "in.jpg", tmp_path / name, "--model", "identity", "--json")
        said[name] = json.loads(done.stdout)["expected_output_bytes"]
        assert done.stderr.count("--compression jpeg") == (name == "out.tif"), done.stderr
    assert said["out.jpg"] < said["out.tif"] / 2
    done = run(
        "plan", tmp_path / "in.jpg", tmp_path / "out.tif", "--model", "identity", "--compression", "jpeg"
    )
    assert "a guess" in done.stdout and not done.stderr
