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
from scanner_files import write_mirax
from slide_files import write_dicom

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
    pixels = np.tile(picture(1024, 1024), (2, 4, 1))
    if opener == "netCDF":
        pixels = np.ascontiguousarray(pixels[..., 0])
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
