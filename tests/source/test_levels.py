"""The levels of a picture: halved images, noise by position, and windows that join what a network reads."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from helpers import noise_bits

from urst_tiles.geometry import Box
from urst_tiles.source import array_source, halves
from urst_tiles.source.halves import halves_of
from urst_tiles.source.levels import PaintedLevel, halved, level_above, noise, windows_of
from urst_tiles.source.mask import open_mask
from urst_tiles.source.windows import WindowReader
from urst_tiles.tiff.metadata import Info, Tag

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("dtype", "shift"), [("uint8", 24), ("uint16", 16)])
def test_noise_is_a_hash_of_position_level_and_seed(dtype, shift):
    got = noise(Box(5, 70000, 9, 70003), 3, 11, np.dtype(dtype))
    want = [[noise_bits(y, x, 3, 11) >> shift for x in range(70000, 70003)] for y in range(5, 9)]
    assert got.dtype == dtype and got.tolist() == want


def test_noise_of_a_window_is_that_of_the_whole_and_even():
    whole = noise(Box(0, 0, 200, 300), 1, 0, np.dtype(np.uint8))
    assert np.array_equal(noise(Box(40, 60, 90, 200), 1, 0, np.dtype(np.uint8)), whole[40:90, 60:200])
    assert not np.array_equal(whole, noise(Box(0, 0, 200, 300), 0, 0, np.dtype(np.uint8)))
    counts = np.bincount(whole.ravel(), minlength=256)
    assert abs(whole.mean() - 127.5) < 1 and counts.min() > 150 and counts.max() < 330


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [(46, 58), (35, 27), (1, 1), (1, 6)])
def test_halving_rounds_means_to_even(dtype, size):
    pixels = RNG.integers(0, np.iinfo(dtype).max, (*size, 3), dtype, endpoint=True)
    even = np.pad(pixels, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge").astype(float)
    means = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]) / 4
    assert halved(pixels).dtype == dtype and np.array_equal(halved(pixels), np.rint(means))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1), (1, 6)])
def test_halving_is_a_mean_over_valid_pixels(dtype, size):
    top = np.iinfo(dtype).max
    pixels = RNG.integers(0, top, (*size, 4)).astype(dtype)
    pixels[..., 3][RNG.random(size) < 0.4] = 0
    got = halved(pixels)
    assert got.dtype == dtype and got.shape == ((size[0] + 1) // 2, (size[1] + 1) // 2, 4)
    for i, j in np.ndindex(got.shape[:2]):
        rows = [min(2 * i + k, size[0] - 1) for k in (0, 1)]
        columns = [min(2 * j + k, size[1] - 1) for k in (0, 1)]
        cell = pixels[np.ix_(rows, columns)].reshape(4, 4).astype(float)
        weight = cell[:, 3]
        if not weight.any():
            assert got[i, j, 3] == 0
            continue
        assert np.abs(got[i, j, :3] - (cell[:, :3] * weight[:, None]).sum(0) / weight.sum()).max() <= 0.51
        assert abs(float(got[i, j, 3]) - max(1, weight.mean())) <= 0.51


def test_the_image_above_is_a_copy_that_stays_readable(tmp_path):
    pixels = RNG.integers(0, 255, (70, 90, 4)).astype(np.uint8)
    source = array_source(pixels).prepare(None)
    half = level_above(source, tmp_path / "half.zarr")
    again = pickle.loads(pickle.dumps(half))
    assert half.shape == (35, 45) and half.channels == 4 and half.fingerprint != source.fingerprint
    assert np.array_equal(again.read(Box(3, 5, 30, 44)), halved(pixels)[3:30, 5:44])


def test_polygons_in_pixels_lie_where_they_do_on_every_level(tmp_path):
    corners = [[8, 4], [40, 4], [40, 32], [8, 32], [8, 4]]
    feature = {"type": "Feature", "properties": {"region": 1}}
    feature["geometry"] = {"type": "Polygon", "coordinates": [corners]}
    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    whole = array_source(RNG.integers(0, 255, (71, 90, 3)).astype(np.uint8)).prepare(None)
    half = level_above(whole, tmp_path / "half.zarr")
    for source, times in ((whole, 1), (half, 2), (halves_of(whole), 2), (halves_of(half), 4)):
        (polygon,) = open_mask(path, source).polygons
        assert np.array_equal(polygon[0], np.array(corners) / times)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("box", [Box(0, 0, 36, 46), Box(3, 5, 30, 44), Box(35, 45, 36, 46)])
def test_what_is_halved_where_it_is_read_is_what_the_copy_holds(tmp_path, monkeypatch, channels, box):
    monkeypatch.setattr(halves, "READ_PIXELS", 500)
    monkeypatch.setattr(halves, "HALVED_ROWS", 4)
    pixels = RNG.integers(0, 255, (71, 91, channels)).astype(np.uint8)
    source = array_source(pixels).prepare(None)
    copy, read = level_above(source, tmp_path / "half.zarr"), halves_of(source)
    assert (read.shape, read.fingerprint, read.channels) == (copy.shape, copy.fingerprint, channels)
    assert np.array_equal(read.read(box), copy.read(box))
    assert np.array_equal(halves_of(read).read(Box(0, 0, 18, 23)), halved(halved(pixels)))


def level(size, channels=3, above=True):
    pixels = RNG.integers(0, 255, (*size, channels)).astype(np.uint8)
    coarse = RNG.integers(0, 255, ((size[0] + 1) // 2, (size[1] + 1) // 2, 3)).astype(np.uint8)
    picture = array_source(coarse).prepare(None) if above else None
    return PaintedLevel(array_source(pixels).prepare(None), 2, picture, seed=7), pixels, coarse


@pytest.mark.parametrize("size", [(40, 60), (41, 59)])
@pytest.mark.parametrize("box", [Box(0, 0, 40, 56), Box(3, 5, 20, 41), Box(8, 12, 9, 13)])
def test_windows_hold_image_noise_and_each_pixel_of_the_picture_above_four_times(size, box):
    image, pixels, coarse = level(size)
    got, valid = windows_of(image).padded(box)
    assert got.shape == (*box.shape, 7) and valid is None
    assert np.array_equal(got[..., :3], pixels[box.slices])
    assert np.array_equal(got[..., 3], noise(box, 2, 7, np.dtype(np.uint8)))
    for y, x in ((box.y0, box.x0), (box.y1 - 1, box.x1 - 1)):
        assert np.array_equal(got[y - box.y0, x - box.x0, 4:], coarse[y // 2, x // 2])


def test_the_coarsest_level_has_noise_and_no_picture_above():
    image, pixels, _ = level((40, 60), above=False)
    got, _ = windows_of(image).padded(Box(0, 0, 40, 60))
    assert got.shape == (40, 60, 4) and np.array_equal(got[..., :3], pixels)


def test_validity_comes_last_and_invalid_pixels_are_filled():
    image, pixels, _ = level((40, 60), channels=4)
    got, valid = windows_of(image).padded(Box(0, 0, 48, 64))
    assert got.shape == (48, 64, 7) and valid is not None
    assert np.array_equal(valid[:40, :60], pixels[..., 3])
    filled, _ = WindowReader(image.source).padded(Box(0, 0, 48, 64))
    assert np.array_equal(got[..., :3], filled)


def test_the_guide_has_no_dark_border_where_the_picture_above_is_invalid():
    coarse = np.full((20, 30, 4), 200, np.uint8)
    coarse[:, 15:] = 0
    image = PaintedLevel(
        array_source(np.full((40, 60, 4), 200, np.uint8)).prepare(None), 0, array_source(coarse).prepare(None)
    )
    got, _ = windows_of(image).padded(Box(0, 0, 40, 60))
    assert (got[..., 4:] >= 190).all()


def test_an_image_alone_is_read_as_it_is():
    source = array_source(RNG.integers(0, 255, (40, 60, 3)).astype(np.uint8)).prepare(None)
    assert type(windows_of(source)) is WindowReader


def test_the_image_above_lies_where_the_image_does(tmp_path):
    """So that a mask with a place of its own meets it there."""
    geo = (Tag(33550, 12, 3, (10.0, 20.0, 0.0)), Tag(33922, 12, 6, (0.0, 0.0, 0.0, 500.0, 900.0, 0.0)))
    source = array_source(np.zeros((40, 61, 3), np.uint8), info=Info(geo=geo)).prepare(None, thumbnail=8)
    half = level_above(source, tmp_path / "half.zarr")
    assert half.shape == (20, 31)
    assert [tag.value for tag in half.info.geo] == [(20.0, 40.0, 0.0), (0.0, 0.0, 0.0, 500.0, 900.0, 0.0)]
