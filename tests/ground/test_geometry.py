"""Boxes, grids, reflection: integers only, so every statement here is exact."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from urst_tiles.errors import BadPlan
from urst_tiles.geometry import Box, Grid, ceil_div, overview_count, reflect, round_up

integers = st.integers(-200, 200)
lengths = st.integers(1, 300)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    y0, x0, height, width = draw(integers), draw(integers), draw(st.integers(0, 90)), draw(st.integers(0, 90))
    return Box(y0, x0, y0 + height, x0 + width)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any legal grid small enough to be painted."""
    tile = draw(st.sampled_from([16, 32, 48]))
    block = tile << draw(st.integers(0, 2))
    core = draw(st.sampled_from([n for n in range(2, block + 1) if block % n == 0]))
    stride = draw(st.sampled_from([n for n in range(1, 17) if core % n == 0]))
    halo = stride * draw(st.integers(0, 10))
    return Grid(draw(lengths), draw(lengths), halo, stride, core, block, tile, draw(st.integers(1, 120)))


@st.composite
def parts(draw: st.DrawFn) -> Grid:
    """A grid that makes a part of its image."""
    grid = draw(grids())
    y0, x0 = draw(st.integers(0, grid.height - 1)), draw(st.integers(0, grid.width - 1))
    y1, x1 = draw(st.integers(y0 + 1, grid.height)), draw(st.integers(x0 + 1, grid.width))
    return replace(grid, part=Box(y0, x0, y1, x1))


def painted(parts: list[Box], frame: Box) -> np.ndarray:
    """How often each pixel of ``frame`` lies in one of ``parts``."""
    canvas = np.zeros(frame.shape, int)
    for part in parts:
        assert frame.contains(part)
        canvas[part.within(frame).slices] += 1
    return canvas


def every_core(grid: Grid) -> list[Box]:
    return [core for index in range(len(grid)) for core in grid.cores(grid.block_box(index))]


# --- boxes --------------------------------------------------------------------------------------------------


@given(st.integers(-1000, 1000), st.integers(1, 50))
def test_ceil_div_and_round_up_are_the_smallest(a: int, b: int) -> None:
    assert b * (ceil_div(a, b) - 1) < a <= b * ceil_div(a, b)
    assert round_up(a, b) % b == 0
    assert a <= round_up(a, b) < a + b


@given(boxes(), boxes())
def test_clip_is_the_intersection(a: Box, b: Box) -> None:
    common = a.clip(b)
    frame = a.union(b)
    assert common.area == (painted([a], frame) * painted([b], frame)).sum()
    assert min(common.shape) >= 0
    if common.area:
        assert a.contains(common) and b.contains(common)


@given(boxes(), boxes(), integers, integers)
def test_moving_there_and_back(box: Box, outer: Box, dy: int, dx: int) -> None:
    assert box.shift(dy, dx).shift(-dy, -dx) == box
    assert box.within(outer).shift(outer.y0, outer.x0) == box
    assert box.within(box) == Box(0, 0, *box.shape)


@given(boxes(), st.integers(1, 40))
def test_align_is_the_smallest_aligned_box_around(box: Box, stride: int) -> None:
    aligned = box.align(stride)
    assert aligned.contains(box)
    assert all(side % stride == 0 for side in (aligned.y0, aligned.x0, aligned.y1, aligned.x1))
    assert box.y0 - aligned.y0 < stride and aligned.y1 - box.y1 < stride
    assert aligned.align(stride) == aligned


@given(boxes(), st.integers(1, 40))
@example(Box(5, 5, 5, 9), 4)
def test_cells_partition_a_box(box: Box, size: int) -> None:
    cells = list(box.cells(size))
    assert (painted(cells, box) == 1).all()
    assert cells == sorted(cells)
    for cell in cells:
        assert cell.area > 0
        assert (cell.y1 - 1) // size == cell.y0 // size and (cell.x1 - 1) // size == cell.x0 // size


def test_slices_cut_what_the_box_says() -> None:
    canvas = np.arange(20).reshape(4, 5)
    assert canvas[Box(1, 2, 3, 5).slices].tolist() == [[7, 8, 9], [12, 13, 14]]


# --- reflection ---------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 200))
@example(1, 3, 3)
@example(2, 50, 51)
def test_reflect_is_numpys(n: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(n), (before, after), mode="reflect")
    assert list(reflect(-before, n + after, n)) == expected.tolist()


def test_reflect_inside_the_line_is_a_range() -> None:
    assert reflect(10, 20, 10**9) == range(10, 20)


# --- grids --------------------------------------------------------------------------------------------------


@given(grids())
def test_blocks_partition_the_image(grid: Grid) -> None:
    blocks = [grid.block_box(index) for index in range(len(grid))]
    assert (painted(blocks, grid.image) == 1).all()
    assert blocks == sorted(blocks)
    assert all(block.y0 % grid.block == 0 and block.x0 % grid.block == 0 for block in blocks)


@given(grids())
def test_cores_partition_the_image(grid: Grid) -> None:
    cores = every_core(grid)
    assert [grid.whole_core(core) for core in cores] == cores
    assert (painted(cores, grid.image) == 1).all()
    assert len(cores) == grid.window_count


@given(grids())
def test_the_padded_image_is_the_smallest_that_fits(grid: Grid) -> None:
    for padded, length in zip(grid.padded.shape, grid.image.shape, strict=True):
        needed = max(length, grid.minimum)
        assert padded % grid.stride == 0 and needed <= padded < needed + grid.stride


@given(grids())
def test_windows_keep_law_1(grid: Grid) -> None:
    for core in every_core(grid):
        window = grid.window_box(core)
        assert window.shape == grid.window
        assert grid.padded.contains(window)
        assert window.y0 % grid.stride == 0 and window.x0 % grid.stride == 0
        assert window.contains(core.grow(grid.halo).clip(grid.padded))
        assert min(window.shape) >= grid.minimum


@given(grids())
def test_a_part_of_a_core_has_the_cores_window(grid: Grid) -> None:
    for core in every_core(grid):
        last = Box(core.y1 - 1, core.x1 - 1, core.y1, core.x1)
        assert grid.window_box(last) == grid.window_box(core)


@given(grids())
def test_a_block_reads_the_union_of_its_windows(grid: Grid) -> None:
    for index in range(len(grid)):
        cores = grid.cores(grid.block_box(index))
        read = grid.read_box(cores)
        assert (painted([grid.window_box(core) for core in cores], read) >= 1).all()


@given(parts())
def test_blocks_of_a_part_are_those_of_an_image_of_its_size(grid: Grid) -> None:
    assert (grid.output.height, grid.output.width) == grid.made.shape and len(grid) == len(grid.output)
    assert (grid.overviews, grid.block_overviews) == (grid.output.overviews, grid.output.block_overviews)
    for index in range(len(grid)):
        assert grid.block_box(index).within(grid.made) == grid.output.block_box(index)


@given(parts())
def test_a_part_has_the_windows_of_the_whole(grid: Grid) -> None:
    whole, found = replace(grid, part=None), every_core(grid)
    assert (painted(found, grid.made) == 1).all()
    assert len(found) == grid.window_count
    cores = {core: whole.window_box(core) for core in whole.cores(whole.image)}
    for core in found:
        (home,) = [one for one in cores if one.contains(core)]
        assert grid.window_box(core) == cores[home] and grid.whole_core(core) == home


@given(parts() | grids())
def test_what_a_block_reads_is_known(grid: Grid) -> None:
    read = [grid.read_box(grid.cores(grid.block_box(index))).shape for index in range(len(grid))]
    sides = zip(*read, strict=True)
    for most, found, window, padded in zip(
        grid.read_shape, sides, grid.window, grid.padded.shape, strict=True
    ):
        assert max(found) <= most <= padded
        assert most < max(found) + window


@pytest.mark.parametrize("part", [Box(0, 0, 0, 5), Box(-1, 0, 5, 5), Box(0, 90, 5, 101)])
def test_a_part_that_is_none_is_refused(part: Box) -> None:
    with pytest.raises(BadPlan, match="no part of an image of 100 x 100 px"):
        Grid(100, 100, part=part)


@given(grids())
def test_overviews_end_in_one_tile(grid: Grid) -> None:
    sides = [max(grid.height, grid.width)]
    while sides[-1] > grid.tile:
        sides.append((sides[-1] + 1) // 2)
    assert grid.overviews == len(sides) - 1
    assert 0 <= grid.block_overviews <= grid.overviews
    assert grid.block >> grid.block_overviews >= grid.tile


@pytest.mark.parametrize(
    ("side", "count"), [(1, 0), (512, 0), (513, 1), (1024, 1), (1025, 2), (32768, 6), (32769, 7)]
)
def test_overview_count(side: int, count: int) -> None:
    assert overview_count(side, 1, 512) == overview_count(1, side, 512) == count


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_a_block_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=f"block {index} of 4"):
        Grid(8192, 8192).block_box(index)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"height": 0}, "at least one pixel, got 100 x 0"),
        ({"tile": 24}, "multiple of 16 px, got 24"),
        ({"tile": 0}, "multiple of 16 px, got 0"),
        ({"block": 1536}, "--block must be 512 px .* power of two, got 1536"),
        ({"block": 256}, "--block must be 512 px .* power of two, got 256"),
        ({"block": 0}, "--block must be 512 px .* power of two, got 0"),
        ({"core": 1020}, "--tile must be a multiple of the network's stride 8, got 1020"),
        ({"core": 0}, "--tile must be a multiple of the network's stride 8, got 0"),
        ({"core": 1536}, "--tile must divide --block 4096, got 1536"),
        ({"halo": 63}, "--halo must be a multiple of the network's stride 8, got 63"),
        ({"halo": -8}, "--halo must be a multiple of the network's stride 8, got -8"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_one_sentence(changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(BadPlan, match=sentence):
        replace(Grid(100, 100, halo=64, stride=8), **changes)


# --- how much work it is ------------------------------------------------------------------------------------


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Counts Python and C calls: work that no busy machine can blur."""
    count, before = [0], sys.getprofile()

    def tick(frame: object, event: str, argument: object) -> None:
        count[0] += event in ("call", "c_call")

    sys.setprofile(tick)
    try:
        yield count
    finally:
        sys.setprofile(before)


def plan_calls(side: int) -> int:
    """Calls it takes to lay out an image, and to know everything about its first, middle and last block."""
    with counted_calls() as count:
        grid = Grid(side, side, halo=64, stride=8, core=1024, minimum=64)
        assert grid.window_count and grid.overviews >= 0
        for index in (0, len(grid) // 2, len(grid) - 1):
            cores = grid.cores(grid.block_box(index))
            grid.read_box(cores)
    return count[0]


def test_a_terapixel_plans_as_fast_as_a_megapixel() -> None:
    assert len(Grid(10**6, 10**6)) == 245**2
    assert plan_calls(10**6) < 1.5 * plan_calls(3 * 4096) < 2000
