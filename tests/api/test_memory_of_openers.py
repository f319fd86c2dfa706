"""Law 2 for every way of reading: what a job takes lies between 70 and 100 % of what ``plan`` promises, also
where GDAL, OpenSlide, zarr or libvips read, or many files are one image."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from format_files import Write, by_gdal, imagecodec, ome_zarr, plain_zarr, stac
from helpers import geotiff, peak_of, picture
from mosaics import cut
from PIL import Image
from scanner_files import write_mirax
from slide_files import write_dicom

from urst_tiles.source import open_source
from urst_tiles.source.containers import jp2_tile_bytes
from urst_tiles.source.gdal import CACHE_BYTES, LIBRARY_BYTES
from urst_tiles.source.headers import check_whole, webp_is_lossless

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

TILES = {"BLOCKXSIZE": "1024", "BLOCKYSIZE": "1024", "QUALITY": "25"}

#: Ways of reading, each with what writes such a file, or files.
OPENERS: dict[str, Write] = {
    "own reader": lambda folder, pixels: geotiff(folder / "a.tif", pixels),
    "JPEG 2000": by_gdal("JP2OpenJPEG", "a.jp2", **TILES),
    "VRT": by_gdal("VRT", "a.vrt"),
    "ENVI": by_gdal("ENVI", "a.dat"),
    "netCDF": by_gdal("netCDF", "a.nc"),
    "GeoPackage": by_gdal("GPKG", "a.gpkg", TILE_FORMAT="JPEG"),
    "DICOM": lambda folder, pixels: write_dicom(folder / "a.dcm", pixels, tile=512),
    "MIRAX": lambda folder, pixels: write_mirax(folder / "a.mrxs", pixels),
    "Zarr": plain_zarr,
    "OME-Zarr": ome_zarr("0.5"),
    "JPEG": imagecodec("jpeg8", "a.jpg"),
    "PNG": imagecodec("png", "a.png"),
    "WebP": imagecodec("webp", "a.webp"),
    "many files": lambda folder, pixels: cut(folder / "tiles", pixels, 4, 6),
    "a file for each band": stac,
}


@pytest.mark.slow
@pytest.mark.parametrize("opener", OPENERS)
def test_every_way_of_reading_keeps_to_its_plan(run: Callable, tmp_path: Path, opener: str) -> None:
    pixels = np.tile(picture(1024, 1024), (4, 4, 1))  # enough to fill the caches
    if opener == "netCDF":  # a single band, so of four times as many pixels
        pixels = np.tile(pixels[..., 0], (2, 2))
    path = OPENERS[opener](tmp_path, pixels)
    arguments = [
        str(path),
        str(tmp_path / "out.tif"),
        "--model",
        "identity",
        "--tile",
        "512",
        "--block",
        "2048",
    ]
    planned = run("plan", *arguments, "--json")
    assert planned.returncode == 0, planned.stderr
    formula = json.loads(planned.stdout)["peak_bytes"]
    taken = peak_of([sys.executable, "-m", "urst_tiles", "stylize", *arguments])
    assert 0.7 * formula <= taken <= formula, f"{taken >> 20} of {formula >> 20} MiB"


def test_the_tile_that_openjpeg_holds_is_counted(tmp_path: Path) -> None:
    """It decodes blocks of 1024 px, and holds the tile that they are a part of: often the whole image."""
    sides = {"one": "2048", "many": "256"}
    found = {}
    for name, side in sides.items():
        (tmp_path / name).mkdir()
        write = by_gdal("JP2OpenJPEG", "a.jp2", BLOCKXSIZE=side, BLOCKYSIZE=side, QUALITY="25")
        found[name] = write(tmp_path / name, np.tile(picture(256, 256), (4, 6, 1)))
    assert jp2_tile_bytes(found["one"]) == found["one"].stat().st_size
    assert jp2_tile_bytes(found["many"]) == found["many"].stat().st_size // 24
    raw = found["one"].read_bytes()
    (tmp_path / "a.j2k").write_bytes(raw[raw.index(b"\xff\x4f\xff\x51") :])
    assert jp2_tile_bytes(tmp_path / "a.j2k") == (tmp_path / "a.j2k").stat().st_size
    (tmp_path / "cut.jp2").write_bytes(raw[:60])
    assert jp2_tile_bytes(tmp_path / "cut.jp2") == 0


def test_libraries_and_caches_are_counted_once(tmp_path: Path) -> None:
    """Neither for each band in a file of its own, nor for the thumbnail again."""
    pixels = picture(300, 400)
    for number, name in enumerate(("B04", "B03", "B02")):
        (tmp_path / name).mkdir()
        by_gdal("ENVI", f"{name}.dat")(tmp_path / name, np.ascontiguousarray(pixels[..., number]))
        for file in (tmp_path / name).glob(f"{name}*"):
            file.rename(tmp_path / file.name)
    one = open_source(tmp_path / "B04.dat")
    three = open_source(tmp_path, bands=("B04.dat", "B03.dat", "B02.dat"))
    fixed = LIBRARY_BYTES + CACHE_BYTES
    assert one.reader_bytes > fixed and three.reader_bytes - fixed == 3 * (one.reader_bytes - fixed)
    for source in (one, three):
        assert 0 < source.returned_bytes <= source.reader_bytes - fixed
        assert source.prepare_bytes(10) < source.reader_bytes + source.returned_bytes + 100_000


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("pages", [1, 3])
def test_a_lossless_webp_is_held_twice(tmp_path: Path, lossless: bool, pages: int) -> None:
    pictures = [Image.fromarray(picture(30, 40, seed)) for seed in range(pages)]
    more = {"save_all": True, "append_images": pictures[1:]} if pages > 1 else {}
    pictures[0].save(tmp_path / "a.webp", lossless=lossless, xmp=b"seven..", **more)
    assert webp_is_lossless(tmp_path / "a.webp") == lossless
    assert check_whole(tmp_path / "a.webp", "webpload", (30, 40), 1, 3) == 30 * 40 * (8 if lossless else 4)
