"""The weight of a pixel from nodata, alpha and masks, by hand-made values."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from urst_tiles.geometry import Box
from urst_tiles.source import open_source, valid

U8, U16, F32 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        (None, "uint8", None), ("", "uint8", None), ("none", "uint8", None), ("nan", "uint8", None),
        ("inf", "uint8", None), ("0", "uint8", 0), ("255", "uint8", 255), ("256", "uint8", None),
        ("-1", "uint8", None), (" 7 ", "uint8", 7), ("7.0", "uint8", 7), ("7,0", "uint8", 7),
        ("7.5", "uint8", 7),
        ("-32768", "int16", -32768), ("-32769", "int16", None), ("32767", "int16", 32767),
        ("32768", "int16", None),
        ("9007199254740993", "int64", 9007199254740993), ("1e3", "uint16", 1000),
        ("-9999", "float32", -9999.0), ("1e39", "float32", 1e39), ("inf", "float32", None),
        ("-3.40282347e+38", "float32", -3.40282347e38), ("0.1", "float32", 0.1),
    ],
)  # fmt: skip
def test_the_number_that_the_text_stands_for(text: str | None, dtype: str, value: Any) -> None:
    found = valid.nodata_value(text, np.dtype(dtype))
    assert found == value and type(found) is type(value)


def test_a_float_nodata_may_be_nan() -> None:
    assert math.isnan(valid.nodata_value("nan", F32) or 0)


def test_a_pixel_has_data_if_any_band_differs_and_all_are_finite() -> None:
    colour = np.array([[[7, 7, 7], [7, 7, 8], [0, 0, 0]]], np.uint8)
    assert valid.has_data(colour, 7).tolist() == [[False, True, True]]
    assert valid.has_data(colour, 0).tolist() == [[True, True, False]]
    assert valid.has_data(colour, None).all()
    floats = np.array([[[1, 1], [1, np.nan], [np.inf, 1], [-9, -9], [-9, 1]]], np.float32)
    assert valid.has_data(floats, -9.0).tolist() == [[True, False, False, False, True]]
    assert valid.has_data(floats, None).tolist() == [[True, False, False, True, True]]
    assert valid.has_data(floats, math.nan).tolist() == [[True, False, False, True, True]]
    assert valid.has_data(floats[:, :4], math.inf).tolist() == [[True, False, False, True]]


def test_alpha_is_scaled_from_its_own_range() -> None:
    eight = np.array([0, 1, 128, 255], np.uint8)
    assert valid.alpha_weight(eight, U8) is eight and valid.alpha_weight(eight, U8, 8) is eight
    assert valid.alpha_weight(eight, U16).tolist() == [0, 257, 32896, 65535]
    assert valid.alpha_weight(np.array([0, 1, 4095], np.uint16), U16, 12).tolist() == [0, 16, 65535]
    assert valid.alpha_weight(np.array([0, 1], np.uint8), U8, 1).tolist() == [0, 255]
    assert valid.alpha_weight(np.array([0, 128, 257, 65535], np.uint16), U8).tolist() == [0, 0, 1, 255]
    assert valid.alpha_weight(np.array([-5, 0, 127], np.int8), U8).tolist() == [0, 0, 255]
    floats = np.array([np.nan, -1, 0, 0.5, 1, 7, np.inf], np.float32)
    assert valid.alpha_weight(floats, U16).tolist() == [0, 0, 0, 32768, 65535, 65535, 65535]
    assert valid.alpha_weight(floats, U16).dtype == U16


def test_what_is_invalid_weighs_nothing_and_the_rest_stays() -> None:
    weight, mask = np.array([[9, 255]], np.uint8), np.array([[True, False]])
    assert valid.combine(None, None, U8) is None and valid.combine(weight, None, U8) is weight
    assert valid.combine(weight, mask, U8).tolist() == [[9, 0]]  # type: ignore[union-attr]
    alone = valid.combine(None, mask, U16)
    assert alone is not None and alone.dtype == U16 and alone.tolist() == [[65535, 0]]
    assert valid.full(U8) == 255 and valid.full(U16) == 65535
    assert valid.weight_dtype(U8) == U8 and valid.weight_dtype(U16) == U16 == valid.weight_dtype(F32)


def test_premultiplied_colours_are_divided_by_their_alpha() -> None:
    """Rounded; where alpha is 0 nothing is divided; what is brighter than its alpha is full."""
    colour = np.array([[[10, 0, 128], [100, 60, 3], [5, 0, 0], [200, 100, 255]]], np.uint8)
    weight = np.array([[128, 100, 0, 255]], np.uint8)
    expected = [[[20, 0, 255], [255, 153, 8], [255, 0, 0], [200, 100, 255]]]
    assert valid.unpremultiply(colour, weight).tolist() == expected
    assert valid.unpremultiply(np.full((1, 1, 3), 90, np.uint8), np.full((1, 1), 60, np.uint8)).tolist() == [
        [[255, 255, 255]]
    ]
    wide = valid.unpremultiply(np.full((1, 1, 3), 1000, np.uint16), np.full((1, 1), 32768, np.uint16))
    assert wide.dtype == U16 and wide.tolist() == [[[2000, 2000, 2000]]]
    floats = valid.unpremultiply(np.full((1, 2, 3), 0.25, np.float32), np.array([[32768, 65535]], np.uint16))
    assert floats.dtype == F32
    np.testing.assert_allclose(floats[0, :, 0], [0.25 * 65535 / 32768, 0.25], rtol=1e-7)
    bright = valid.unpremultiply(np.full((1, 1, 1), 0.75, np.float32), np.array([[32768]], np.uint16))
    assert bright[0, 0, 0] > 1.4, "floats have no largest value"


def test_alpha_mask_nodata_and_missing_tiles_count_together(tmp_path: Path) -> None:
    """A pixel is valid where all of them say so, and weighs what its alpha says."""
    path = tmp_path / "a.tif"
    colour = np.full((64, 96, 3), 90, np.uint8)
    colour[5:9, :50] = 7
    alpha = np.full((64, 96), 200, np.uint8)
    alpha[:, 20:24] = 0
    mask = np.full((64, 96), True)
    mask[40:44] = False
    options: dict[str, Any] = {"tile": (32, 32), "metadata": None, "compression": "zlib"}
    with tifffile.TiffWriter(path) as file:
        file.write(
            np.dstack([colour, alpha]), photometric="rgb", extrasamples=["unassalpha"],
            extratags=[(42113, 2, None, "7", True)], **options,
        )  # fmt: skip
        file.write(mask, subfiletype=4, **options)
    expected = np.where(mask & (colour[..., 0] != 7), alpha, 0)
    found = open_source(path).prepare(tmp_path / "job", thumbnail=8).read(Box(0, 0, 64, 96))
    np.testing.assert_array_equal(found[..., 3], expected)
    with tifffile.TiffFile(path) as opened:
        tables = [opened.pages.first.tags[code] for code in (324, 325)]
    data = bytearray(path.read_bytes())
    for tag in tables:  # the last tile is not stored
        form = {3: "<H", 4: "<I"}[int(tag.dtype)]
        struct.pack_into(form, data, tag.valueoffset + 5 * struct.calcsize(form), 0)
    path.write_bytes(data)
    expected[32:, 64:] = 0
    found = open_source(path).prepare(tmp_path / "sparse", thumbnail=8).read(Box(0, 0, 64, 96))
    np.testing.assert_array_equal(found[..., 3], expected)


def test_associated_alpha_of_a_file_is_divided_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.full((32, 32, 4), [30, 60, 100, 100], np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(32, 32), photometric="rgb", extrasamples=["assocalpha"], metadata=None
    )
    found = open_source(path).prepare(None, thumbnail=8).read(Box(0, 0, 32, 32))
    assert np.unique(found.reshape(-1, 4), axis=0).tolist() == [[76, 153, 255, 100]]


def test_pixels_that_are_no_numbers_are_invalid_without_any_nodata(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.full((32, 48, 3), 0.5, np.float32)
    pixels[3, 4, 1], pixels[5, 6, 0], pixels[7, 8] = np.nan, np.inf, -np.inf
    tifffile.imwrite(path, pixels, tile=(16, 16), photometric="rgb", metadata=None)
    source = open_source(path, stretch="0,1").prepare(tmp_path / "job", thumbnail=8)
    weight = source.read(Box(0, 0, 32, 48))[..., 3]
    assert np.argwhere(weight == 0).tolist() == [[3, 4], [5, 6], [7, 8]]
    assert np.unique(weight).tolist() == [0, np.iinfo(weight.dtype).max]
