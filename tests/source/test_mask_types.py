"""Masks of any type: whole numbers are numbers of regions, what is negative or not a number is in none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, picture
from rasterio.transform import Affine

import urst_tiles as ut
from urst_tiles.source.areas import areas_of
from urst_tiles.source.mask import open_mask, spool_mask

SHAPE = (60, 80)
PLACE = Affine(10, 0, 500000, 0, -10, 5200000)
TYPES = ["int8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"]

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def numbers(dtype: str) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    out = ((x // 9 + y // 7) % 5).astype(np.int64) * (25 if dtype == "int8" else 300)
    return out.astype(dtype)


def image(folder: Path) -> ut.Source:
    path = folder / "image.tif"
    pixels = picture(*SHAPE).transpose(2, 0, 1)
    profile = {"count": 3, "dtype": "uint8", "crs": "EPSG:32632", "transform": PLACE}
    with rasterio.open(path, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], **profile) as file:
        file.write(pixels)
    return ut.open_source(path)


def raster(path: Path, values: np.ndarray, place: Affine | None = PLACE, **more: Any) -> Path:
    placed = {} if place is None else {"crs": "EPSG:32632", "transform": place}
    height, width = values.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "height": height, "width": width}
    with rasterio.open(path, "w", **profile, **placed, **more) as file:
        file.write(values, 1)
    return path


def unpacked(path: Path, source: ut.Source) -> np.ndarray:
    found = open_mask(path, source)
    made = np.load(spool_mask(found, path.with_suffix(".npy")))
    assert made.dtype.name == found.dtype and made.shape == found.shape
    return made


PLACES = {"nowhere": None, "same": PLACE, "warped": PLACE @ Affine.translation(5, -3)}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("dtype", TYPES)
def test_whole_numbers_of_any_type(tmp_path: Path, dtype: str, where: str) -> None:
    values = numbers(dtype)
    if np.dtype(dtype).kind != "u":
        values[10:20, 30:40] = -7
    if np.dtype(dtype).kind == "f":
        values[30:35, 50:60], values[30:35, 60:65] = np.nan, np.inf
    made = unpacked(raster(tmp_path / "mask.tif", values, PLACES[where]), image(tmp_path))
    expected = np.where((values > 0) & (values < np.inf), values, 0).astype(np.uint16)
    if where == "warped":
        np.testing.assert_array_equal(made[:-3, 5:], expected[3:, :-5])
        assert not made[:, :5].any() and not made[-3:].any()
    else:
        np.testing.assert_array_equal(made, expected)
    assert len(np.unique(made)) == 5


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(
    ("dtype", "nodata", "number"),
    [("int16", -9999, 0), ("int32", 2**31 - 1, 0), ("uint32", 2**32 - 1, 0), ("float32", -3.4e38, 0),
     ("float64", 1e20, 0), ("int16", 9, 9), ("float32", float("nan"), 0)],
)  # fmt: skip
def test_nodata_is_a_number_if_it_can_be(
    tmp_path: Path, dtype: str, nodata: float, number: int, where: str
) -> None:
    values = numbers(dtype)
    values[10:20, 30:40] = nodata
    made = unpacked(raster(tmp_path / "mask.tif", values, PLACES[where], nodata=nodata), image(tmp_path))
    hole = made[7:17, 35:45] if where == "warped" else made[10:20, 30:40]
    assert (hole == number).all()
    if where == "warped":  # outside of the mask is its nodata value, too
        assert (made[:, :5] == number).all()


@pytest.mark.parametrize("where", ["nowhere", "warped"])
@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 1.5), ("int32", 65536), ("uint32", 4_000_000_000), ("float64", 1e9)]
)
def test_what_is_no_number_of_a_region_is_named(tmp_path: Path, dtype: str, value: float, where: str) -> None:
    values = numbers(dtype)
    values[20, 30] = value
    found = open_mask(raster(tmp_path / "mask.tif", values, PLACES[where]), image(tmp_path))
    with pytest.raises(ut.BadInput, match=r"mask\.tif has the value .*, and a region has a whole number"):
        spool_mask(found, tmp_path / "mask.npy")
    assert not (tmp_path / "mask.npy").exists()


def test_several_bands_and_complex_samples_are_refused(tmp_path: Path) -> None:
    source = image(tmp_path)
    for pixels in (np.zeros((*SHAPE, 3), np.int32), np.zeros(SHAPE, np.complex64)):
        tifffile.imwrite(
            tmp_path / "mask.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack"
        )
        with pytest.raises(ut.UrstError, match=r"mask\.tif"):
            open_mask(tmp_path / "mask.tif", source)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -9999), ("int64", -1), ("float32", -3.4e38), ("uint8", 255), ("uint16", 7)],
)
def test_nodata_is_invalid(tmp_path: Path, dtype: str, nodata: float, where: str) -> None:
    values = (numbers(dtype) > 0).astype(dtype) * np.dtype(dtype).type(3)
    values[10:20, 30:40] = nodata
    source = image(tmp_path)
    (area,) = areas_of(source, raster(tmp_path / "valid.tif", values, PLACES[where], nodata=nodata))
    made = area.placed(None, None, lambda *_: None).inside(ut.Box(0, 0, *SHAPE), SHAPE)
    expected = values == 3
    if where == "warped":
        np.testing.assert_array_equal(made[:-3, 5:], expected[3:, :-5])
        assert not made[:, :5].any()
    else:
        np.testing.assert_array_equal(made, expected)


def test_negative_values_are_valid_and_a_nodata_value_beside_the_file_counts(tmp_path: Path) -> None:
    source, values = image(tmp_path), np.full(SHAPE, -5, np.int16)
    values[:9], values[30:] = 0, 44
    path = raster(tmp_path / "valid.tif", values, None)
    pam = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>44</NoDataValue></PAMRasterBand></PAMDataset>'

    def found() -> tuple[str, np.ndarray]:
        (area,) = areas_of(source, path)
        return area.fingerprint, area.placed(None, None, lambda *_: None).inside(ut.Box(0, 0, *SHAPE), SHAPE)

    before, plain = found()
    (tmp_path / "valid.tif.aux.xml").write_text(pam)
    after, without = found()
    np.testing.assert_array_equal(plain, values != 0)
    np.testing.assert_array_equal(without, values == -5)
    assert before != after


def test_a_job_with_a_mask_of_int32(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "in.tif", picture(*SHAPE), tile=(16, 16))
    values = np.where(np.arange(SHAPE[1]) < 40, 1, 70000)[None].repeat(SHAPE[0], 0).astype(np.int32)
    tifffile.imwrite(tmp_path / "mask.tif", values)
    styles = {1: "hokusai-wave", 300: "van-gogh-starry-night"}
    options: dict[str, Any] = {"mask": tmp_path / "mask.tif", "tile": 32, "block": 512, "device": "cpu"}
    with pytest.raises(ut.BadInput, match="value 70000"):
        ut.stylize(path, tmp_path / "out.tif", styles, **options)
    assert not list(tmp_path.glob("out.tif*"))
    made = []
    for dtype in ("int32", "uint16"):
        tifffile.imwrite(tmp_path / "mask.tif", np.where(values == 1, 1, 300).astype(dtype))
        ut.stylize(path, tmp_path / f"{dtype}.tif", styles, **options)
        made.append(tifffile.imread(tmp_path / f"{dtype}.tif", key=0))
    np.testing.assert_array_equal(*made)
