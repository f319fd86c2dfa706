"""What GDAL's file NAME.aux.xml says of bands counts as GDAL counts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
import rasterio
from helpers import geotiff

from urst_tiles.geometry import Box
from urst_tiles.source import open_source

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NODATA = "<PAMRasterBand band='1'><NoDataValue>{}</NoDataValue></PAMRasterBand>"


def beside(path: Path, bands: str) -> Path:
    path.with_name(path.name + ".aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    return path


def pixels_of(path: Path) -> np.ndarray:
    source = open_source(path).prepare(path.parent / "job")
    return source.read(Box(0, 0, *source.shape))


def grey(bands: int = 1) -> np.ndarray:
    values = np.arange(40 * 50 * bands, dtype=np.uint8).reshape(40, 50, bands)
    return np.maximum(values, 1)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_nodata_value_marks_invalid_pixels_as_in_gdal(suffix: str, tmp_path: Path) -> None:
    pixels = grey()[..., 0]
    pixels[5:20, 7:30] = 9
    path = tmp_path / f"a{suffix}"
    pyvips.Image.new_from_array(pixels).write_to_file(str(path))
    beside(path, NODATA.format("9.000E+00"))
    with rasterio.open(path) as file:
        valid = file.dataset_mask() > 0
    found = pixels_of(path)
    assert not valid.all() and found.shape[2] == 4
    np.testing.assert_array_equal(found[..., 3] > 0, valid)


def test_it_comes_before_the_files_own_nodata_value(tmp_path: Path) -> None:
    pixels = np.repeat(grey(), 3, axis=2)
    path = beside(geotiff(tmp_path / "a.tif", pixels, extratags=[(42113, 2, 2, "5", True)]), NODATA.format(9))
    with rasterio.open(path) as file:
        assert file.nodata == 9
    assert open_source(path).info.nodata == "9"
    np.testing.assert_array_equal(pixels_of(path)[..., 3] == 0, (pixels == 9).all(axis=2))


def test_bands_have_the_names_and_colours_that_it_tells(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = grey(4)
    settings = {"driver": "GTiff", "height": 40, "width": 50, "count": 4, "dtype": "uint8"}
    with rasterio.open(path, "w", photometric="MINISBLACK", alpha="no", **settings) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    assert [word for word in open_source(path, bands=["3"]).info.chosen.split() if "3" in word]
    words = ["B8", "B4", "B3", "B2"]
    colours = ["Undefined", "Red", "Green", "Blue"]
    bands = "".join(
        f"<PAMRasterBand band='{k}'><Description>{word}</Description><ColorInterp>{colour}</ColorInterp>"
        "</PAMRasterBand>"
        for k, (word, colour) in enumerate(zip(words, colours, strict=True), 1)
    )
    beside(path, bands)
    with rasterio.open(path) as file:
        assert list(file.descriptions) == words
    np.testing.assert_array_equal(pixels_of(path), pixels[..., 1:])
    source = open_source(path, bands=["B2", "B8", "B4"]).prepare(tmp_path / "chosen")
    np.testing.assert_array_equal(source.read(Box(0, 0, 40, 50)), pixels[..., [3, 0, 1]])


def test_a_changed_file_beside_the_image_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pyvips.Image.new_from_array(grey()[..., 0]).write_to_file(str(path))
    beside(path, NODATA.format(9))
    first = open_source(path).fingerprint
    beside(path, NODATA.format(8))
    assert open_source(path).fingerprint != first
