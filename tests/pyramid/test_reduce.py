"""Halving: against a definition in whole numbers, and block by block against the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from urst_tiles.pyramid.reduce import halve, levels_below


def by_definition(pixels, binary=False):
    """One pixel after the other, Python integers only."""
    h, w, channels = pixels.shape
    top = int(np.iinfo(pixels.dtype).max)
    out = np.zeros(((h + 1) // 2, (w + 1) // 2, channels), pixels.dtype)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            four = [
                [int(v) for v in pixels[min(2 * y + i, h - 1), min(2 * x + j, w - 1)]]
                for i in (0, 1)
                for j in (0, 1)
            ]
            weights = [1, 1, 1, 1]
            if channels == 4:
                alpha = [p[3] for p in four]
                weights = [int(a > 0) for a in alpha] if binary else alpha
                out[y, x, 3] = top * any(alpha) if binary else (sum(alpha) + 2) // 4
            if not any(weights):
                weights = [1, 1, 1, 1]
            total = sum(weights)
            for c in range(3):
                value = sum(a * p[c] for a, p in zip(weights, four, strict=True))
                out[y, x, c] = (value + total // 2) // total
    return out


@st.composite
def images(draw):
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.sampled_from([3, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    top = np.iinfo(dtype).max
    pixels = rng.integers(0, top, shape, dtype, endpoint=True)
    if shape[2] == 4:
        kinds = [
            lambda a: a,
            lambda a: a * 0,
            lambda a: a * 0 + top,
            lambda a: np.where(a > top // 2, top, 0),
        ]
        pixels[..., 3] = draw(st.sampled_from(kinds))(pixels[..., 3])
    return pixels


@given(images(), st.booleans())
def test_halving_is_what_it_says(pixels, binary):
    np.testing.assert_array_equal(halve(pixels, binary=binary), by_definition(pixels, binary))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("value", [0, 1, "top"])
def test_a_flat_image_stays_flat(dtype, value):
    """With the largest sums there are."""
    value = np.iinfo(dtype).max if value == "top" else value
    pixels = np.full((4, 6, 4), value, dtype)
    assert (halve(pixels) == value).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_opaque_rgba_equals_rgb(dtype):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (101, 77, 4), dtype)
    pixels[..., 3] = np.iinfo(dtype).max
    np.testing.assert_array_equal(halve(pixels)[..., :3], halve(pixels[..., :3]))


def test_strips_do_not_show():
    """An image of many strips equals its own small pieces."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (1501, 1203, 4), np.uint8)
    whole = halve(pixels)
    for y in range(0, 1501, 500):
        np.testing.assert_array_equal(whole[y // 2 : y // 2 + 250], halve(pixels[y : y + 500]))


@pytest.mark.parametrize("binary", [False, True])
def test_blocks_make_the_levels_of_the_whole(binary):
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 255, (150, 203, 4), np.uint8)
    pixels[40:90, 30:100, 3] = 0
    whole = levels_below(pixels, 3, binary=binary)
    for y in range(0, 150, 64):
        for x in range(0, 203, 64):
            block = levels_below(pixels[y : y + 64, x : x + 64], 3, binary=binary)
            for n, (part, level) in enumerate(zip(block, whole, strict=True), 1):
                h, w = part.shape[:2]
                np.testing.assert_array_equal(part, level[y >> n : (y >> n) + h, x >> n : (x >> n) + w])


def test_no_valid_pixel_is_lost_and_none_invented():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[37, 22] = 10, 20, 30, 255
    for n, level in enumerate(levels_below(pixels, 6, binary=True), 1):
        assert np.argwhere(level[..., 3]).tolist() == [[37 >> n, 22 >> n]]
        assert level[37 >> n, 22 >> n].tolist() == [10, 20, 30, 255]
