"""Overlap-add: the weights are a partition of unity, and depend on geometry alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from urst_tiles.engine.blend import cores_touching, fade, ramp, weights
from urst_tiles.errors import BadPlan
from urst_tiles.geometry import Box, Grid


@st.composite
def blends(draw: st.DrawFn) -> Grid:
    """A small grid whose halo is at most half its core."""
    core = draw(st.sampled_from([8, 16, 32]))
    stride = draw(st.sampled_from([1, 2, 4]))
    halo = stride * draw(st.integers(0, core // 2 // stride))
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    return Grid(height, width, halo, stride, core, block=64, tile=32)


@given(blends())
def test_weights_sum_to_one_in_every_block(grid: Grid) -> None:
    for index in range(len(grid)):
        block = grid.block_box(index)
        total = sum(weights(grid, core, block) for core in cores_touching(grid, block))
        assert np.abs(total - 1).max() < 1e-12


@given(blends())
def test_no_window_is_asked_for_what_it_does_not_hold(grid: Grid) -> None:
    for core in cores_touching(grid, grid.image):
        reach = np.argwhere(weights(grid, core, grid.image) > 0)
        (y0, x0), (y1, x1) = reach.min(axis=0), reach.max(axis=0) + 1
        assert grid.window_box(core).contains(Box(int(y0), int(x0), int(y1), int(x1)))


@given(blends())
def test_no_core_is_left_out(grid: Grid) -> None:
    whole = cores_touching(grid, grid.image)
    assert whole == sorted(core for i in range(len(grid)) for core in grid.cores(grid.block_box(i)))
    for index in range(len(grid)):
        block = grid.block_box(index)
        touching = {core for core in whole if weights(grid, core, block).any()}
        assert touching <= set(cores_touching(grid, block))


@given(blends())
def test_a_pixels_weight_does_not_depend_on_the_box_asked_for(grid: Grid) -> None:
    core = cores_touching(grid, grid.image)[-1]
    whole = weights(grid, core, grid.image)
    for index in range(len(grid)):
        block = grid.block_box(index)
        assert np.array_equal(weights(grid, core, block), whole[block.slices])


def test_without_a_halo_it_is_a_hard_cut() -> None:
    grid = Grid(64, 64, 0, 1, 16, 32, 16)
    core = Box(16, 16, 32, 32)
    assert set(cores_touching(grid, core)) == {core}
    assert weights(grid, core, core).min() == 1


def test_the_ramp_is_a_raised_cosine() -> None:
    ramp = fade(np.arange(8, 24), 16, 64, 100, 8)
    assert np.all(np.diff(ramp) > 0)
    assert np.allclose(ramp + ramp[::-1], 1)
    assert np.allclose(ramp, np.sin(np.pi * (np.arange(16) + 0.5) / 32) ** 2)


def test_the_ends_of_the_line_do_not_fade() -> None:
    at = np.arange(100)
    assert fade(at, 0, 100, 100, 8).min() == 1
    assert fade(at[:50], 0, 64, 100, 8).min() == 1


def test_a_core_narrower_than_its_two_ramps_is_refused() -> None:
    grid = Grid(64, 64, 36, 1, 16, 32, 16)
    with pytest.raises(BadPlan, match="--tile of at least half of --halo 36, got 16"):
        cores_touching(grid, grid.image)


@pytest.mark.parametrize(("halo", "expected"), [(0, 0), (2, 1), (16, 4), (62, 16), (64, 16)])
def test_a_window_fades_over_a_quarter_of_its_halo(halo: int, expected: int) -> None:
    """Further out its pixels have less context, and are further from the exact result than the seam."""
    assert ramp(Grid(300, 300, halo=halo, stride=2, core=128, block=256, tile=128)) == expected
