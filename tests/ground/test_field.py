"""Fields: weights sum to 1 everywhere, and are the same in every window, to the bit."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from urst_tiles.errors import DamagedFile
from urst_tiles.field import Everywhere, Lattice, Regions, restored
from urst_tiles.geometry import Box


def regions_of(tmp_path, mask, shape, feather, labels=(1, 2)):
    np.save(tmp_path / "mask.npy", mask)
    return Regions(*shape, tmp_path / "mask.npy", labels, feather)


def whole(field, height, width, stride):
    """Every member's weights over a padded image, (members, h, w)."""
    box = Box(0, 0, -(-height // stride) * stride, -(-width // stride) * stride)
    members, weights = field.weights(box, stride)
    out = np.zeros((field.members, *weights.shape[1:]), np.float32)
    out[list(members)] = weights
    return out


def check(field, height, width, stride, box):
    """Sums to 1, and a window sees what the whole sees."""
    everything = whole(field, height, width, stride)
    np.testing.assert_allclose(everything.sum(0), 1.0, atol=1e-6)
    members, weights = field.weights(box, stride)
    assert list(members) == sorted(set(members))
    seen = np.zeros((field.members, *weights.shape[1:]), np.float32)
    seen[list(members)] = weights
    cells = Box(*(n // stride for n in (box.y0, box.x0, box.y1, box.x1)))
    np.testing.assert_array_equal(seen, everything[(slice(None), *cells.slices)])
    assert set(np.flatnonzero(seen.any((1, 2)))) <= set(field.active(box))


@given(
    st.integers(1, 200), st.integers(1, 200), st.integers(20, 200), st.sampled_from([1, 4, 8]),
    st.integers(0, 30), st.integers(0, 30),
)  # fmt: skip
def test_a_lattice_is_a_partition_of_unity(height, width, scale, stride, y, x):
    field = Lattice.of_scale(height, width, scale)
    h, w = (-(-n // stride) for n in (height, width))
    box = Box(min(y, h - 1) * stride, min(x, w - 1) * stride, h * stride, w * stride)
    check(field, height, width, stride, box)


def test_a_lattice_by_hand():
    field = Lattice.of_scale(100, 200, 100)
    assert (field.rows, field.columns) == (1, 2)
    weights = whole(field, 100, 200, 1)
    # places at columns 50 and 150: all of the first before 50, halves at the middle
    np.testing.assert_allclose(
        weights[0, 0, [0, 49, 99, 100, 149, 199]], [1, 1, 0.505, 0.495, 0.005, 0], atol=1e-6
    )


def test_an_image_smaller_than_the_scale_has_one_place():
    assert Lattice.of_scale(900, 1000, 2048).members == 1


@pytest.mark.parametrize("feather", [1, 8, 33])
@pytest.mark.parametrize("mask_shape", [(90, 120), (30, 40), (180, 240)])
def test_regions_are_a_partition_of_unity(tmp_path, feather, mask_shape):
    y, x = np.mgrid[: mask_shape[0], : mask_shape[1]]
    mask = (1 + (x * 3 > mask_shape[1]) + 6 * (y * 3 > 2 * mask_shape[0])).astype(np.uint8)
    field = regions_of(tmp_path, mask, (90, 120), feather)
    for stride, box in ((1, Box(13, 7, 61, 99)), (4, Box(8, 16, 60, 92)), (8, Box(40, 8, 96, 120))):
        check(field, 90, 120, stride, box)


def test_regions_by_hand(tmp_path):
    mask = np.ones((40, 100), np.uint16)
    mask[:, 50:] = 2
    mask[:, 90:] = 777
    field = regions_of(tmp_path, mask, (40, 100), 8)
    weights = whole(field, 40, 100, 1)
    # a box of 9 twice is a triangle of 17: 81 in all, 45 of them at an edge's own side
    np.testing.assert_allclose(
        weights[0, 20, [0, 41, 42, 49, 50, 58]], np.array([81, 81, 80, 45, 36, 0]) / 81, atol=1e-6
    )
    assert field.rest == 2 and weights[2, 20, 99] == 1
    assert field.active(Box(0, 0, 40, 40)) == (0,)
    assert field.active(Box(0, 0, 40, 48)) == (0, 1)
    members, alone = field.weights(Box(0, 0, 40, 40), 4)
    assert members == (0,) and alone.shape == (1, 10, 10) and (alone == 1).all()


def test_a_coarse_mask_has_no_steps(tmp_path):
    field = regions_of(tmp_path, np.array([[1, 2]], np.uint8), (64, 128), 1)
    along = whole(field, 64, 128, 1)[0, 10]
    assert np.abs(np.diff(along)).max() < 0.05 and along[0] > 0.99 and along[-1] < 0.01


def test_other_resolutions_and_back(tmp_path):
    field = regions_of(tmp_path, np.eye(4, dtype=np.uint8) + 1, (400, 400), 40)
    small = field.resized(100, 100)
    assert (small.height, small.feather) == (100, 10)
    coarse = whole(field, 400, 400, 4)
    assert np.abs(whole(small, 100, 100, 1) - coarse).max() < 0.1
    for one in (field, Lattice(50, 60, 2, 3), Everywhere()):
        assert restored(one.described()) == one


def test_of_a_mask_finer_than_the_image_no_more_is_read_than_is_needed(tmp_path):
    """The thumbnail of a gigapixel image, whose mask of polygons has a number for each pixel."""
    mask = np.lib.format.open_memmap(tmp_path / "mask.npy", "w+", np.uint8, (30000, 30000))
    mask[50::100, 20000:] = 1  # the middles of the lines of the thumbnail
    del mask
    field = Regions(30000, 30000, tmp_path / "mask.npy", (1,), 64).resized(300, 300)
    tracemalloc.start()
    weights = whole(field, 300, 300, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # all of it has 900 MB
    assert (weights[0, :, 51:] == 1).all() and (weights[1, :, :49] == 1).all()


def test_a_mask_that_is_none_is_told(tmp_path):
    (tmp_path / "mask.npy").write_bytes(b"no array")
    with pytest.raises(DamagedFile, match=r"mask\.npy"):
        Regions(8, 8, tmp_path / "mask.npy", (1,), 1).active(Box(0, 0, 8, 8))


def test_no_page_of_a_mask_stays_resident(tmp_path):
    """A mask is as large as its image: while it is mapped, memory grows with every window that was read."""
    field = regions_of(tmp_path, np.tile(np.array([[1, 2]], np.uint8), (500, 250)), (500, 500), 3)
    members, weights = field.weights(Box(100, 100, 200, 200), 1)
    assert members == (0, 1) and weights.shape == (2, 100, 100)
    assert str(tmp_path / "mask.npy") not in Path("/proc/self/maps").read_text()
