"""A block: which windows are computed, where their pixels go, and what becomes of invalid pixels."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from law1 import FAMILIES

from urst_tiles.engine.block import rescale, stylize_block
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box, Grid
from urst_tiles.source import array_source
from urst_tiles.source.windows import WindowReader

GRID = Grid(150, 200, halo=16, stride=2, core=32, block=64, tile=32)
PIXELS = np.random.default_rng(6).integers(1, 256, (150, 200, 3), np.uint8)
Y, X = np.mgrid[:150, :200]
#: Valid pixels: half of a block is a hole, with a single valid pixel in it, and faint ones elsewhere.
WEIGHT = np.where((Y + X) % 7 == 0, 3, np.where(X < 110, 0, 255)).astype(np.uint8)
WEIGHT[:, :64] = 0
WEIGHT[70, 20] = 1
SEAMS = ["crop", "blend", "cut"]


class PointKernel:
    """A network that looks at single pixels; it remembers the windows that it saw."""

    def __init__(self, function: Any = lambda pixels: pixels) -> None:
        self.function, self.seen, self.windows = function, list[Box](), list[np.ndarray]()

    def run(self, windows: np.ndarray, boxes: list[Box], cores: list[Box]) -> list[np.ndarray]:
        assert len(windows) == len(boxes) == len(cores)
        self.seen += cores
        self.windows += list(windows)
        made = [self.function(window) for window in windows]
        return [pixels[core.within(box).slices] for pixels, box, core in zip(made, boxes, cores, strict=True)]

    def run_float(self, windows: np.ndarray, boxes: list[Box]) -> np.ndarray:
        self.seen += boxes
        self.windows += list(windows)
        return np.asarray(self.function(windows.astype(np.float64) / np.iinfo(windows.dtype).max))


def reader_of(weight: np.ndarray | None = WEIGHT) -> WindowReader:
    pixels = PIXELS if weight is None else np.dstack([PIXELS, weight])
    return WindowReader(array_source(pixels).prepare(None, thumbnail=40))


def block(index: int, kernel: PointKernel, seam: str, weight: np.ndarray | None = WEIGHT, **more: Any) -> Any:
    plan = SimpleNamespace(
        **({"grid": GRID, "seam": seam, "dtype": "uint8", "batch": 1, "threads": 1, "colours": 3} | more)
    )
    box = GRID.block_box(index)
    return stylize_block(kernel, reader_of(weight), plan, box), box  # type: ignore[arg-type]


def white(pixels: np.ndarray) -> np.ndarray:
    return np.full_like(pixels, 255 if pixels.dtype == np.uint8 else 1.0)


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("index", range(len(GRID)))
def test_invalid_pixels_are_black_and_all_others_are_the_networks(seam: str, index: int) -> None:
    out, box = block(index, PointKernel(white), seam)
    weight = WEIGHT[box.slices]
    np.testing.assert_array_equal(out[..., 3], weight)
    assert (out[..., :3][weight == 0] == 0).all()
    assert (out[..., :3][weight > 0] == 255).all()


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_pixel_is_that_of_its_place(seam: str, batch: int) -> None:
    for index in range(len(GRID)):
        out, box = block(index, PointKernel(), seam, None, batch=batch)
        np.testing.assert_array_equal(out, PIXELS[box.slices])


@pytest.mark.parametrize("seam", SEAMS)
def test_a_block_without_a_valid_pixel_needs_no_network(seam: str) -> None:
    kernel = PointKernel(white)
    out, _ = block(0, kernel, seam)
    assert not kernel.seen and not out.any()


def test_windows_without_a_valid_pixel_are_left_out_and_no_others() -> None:
    for index in range(len(GRID)):
        kernel = PointKernel(white)
        _, box = block(index, kernel, "crop")
        assert kernel.seen == [core for core in GRID.cores(box) if WEIGHT[core.clip(box).slices].any()]
    kernel = PointKernel(white)
    block(4, kernel, "crop")  # the block of the single pixel, whose weight is 1
    assert len(kernel.seen) == 1


@pytest.mark.parametrize("seam", SEAMS)
def test_the_network_never_sees_an_invalid_pixel(seam: str) -> None:
    """Every valid pixel is 200, hence the fill is, and no border of another colour bleeds in."""
    kernel, index = PointKernel(white), 5
    pixels = np.where(WEIGHT[..., None] > 0, np.uint8(200), np.uint8(7)).repeat(3, axis=2)
    source = array_source(np.dstack([pixels, WEIGHT])).prepare(None, thumbnail=150)
    plan = SimpleNamespace(grid=GRID, seam=seam, dtype="uint8", batch=1, threads=1, colours=3)
    stylize_block(kernel, WindowReader(source), plan, GRID.block_box(index))  # type: ignore[arg-type]
    assert kernel.windows and all((np.abs(w.astype(int) - 200) <= 1).all() for w in kernel.windows)


def test_a_blend_is_clipped_and_rounded() -> None:
    for value, expected in ((-0.3, 0), (1.7, 255), (0.501, 128), (100.4 / 255, 100), (100.6 / 255, 101)):
        out, _ = block(5, PointKernel(lambda pixels, v=value: np.full_like(pixels, v)), "blend", None)
        assert (out == expected).all(), value
    out, _ = block(5, PointKernel(lambda pixels: np.full_like(pixels, 0.25)), "blend", None, dtype="uint16")
    assert out.dtype == np.uint16 and (out == 16384).all()


def test_validity_survives_another_depth() -> None:
    deep = np.arange(1 << 16, dtype=np.uint16)
    small = rescale(deep, "uint8")
    np.testing.assert_array_equal(small == 0, deep == 0)
    np.testing.assert_array_equal(small[129:], np.rint(deep[129:] / 257))
    assert (small[1:129] == 1).all() and small[-1] == 255
    np.testing.assert_array_equal(rescale(np.arange(256, dtype=np.uint8), "uint16"), np.arange(256) * 257)
    assert rescale(small, "uint8") is small and rescale(deep, "uint16") is deep


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_weight_of_a_block_has_the_depth_of_the_output(dtype: str) -> None:
    out, box = block(5, PointKernel(lambda pixels: pixels.astype(dtype)), "crop", dtype=dtype)
    np.testing.assert_array_equal(out[..., 3], rescale(WEIGHT[box.slices], dtype))


# --- a part of an image -------------------------------------------------------------------------------------


def test_a_part_of_a_core_is_computed_as_the_whole_core() -> None:
    kernel, part = PointKernel(), replace(GRID, part=Box(37, 50, 141, 160))
    plan = SimpleNamespace(grid=part, seam="crop", dtype="uint8", batch=2, threads=1, colours=3)
    for index in range(len(part)):
        box = part.block_box(index)
        made = stylize_block(kernel, reader_of(None), plan, box)  # type: ignore[arg-type]
        np.testing.assert_array_equal(made, PIXELS[box.slices])
    assert set(kernel.seen) <= set(GRID.cores(GRID.image))


@pytest.mark.parametrize("seam", ["crop", "blend"])
@pytest.mark.parametrize("model", FAMILIES)
def test_a_part_has_the_bytes_of_the_whole(model: str, seam: str, frozen: Any, picture: Any) -> None:
    net, pixels = frozen(model), picture(150, 210)
    kernel, reader = Kernel(net), WindowReader(array_source(pixels).prepare(None, thumbnail=40))
    halo = net.halo if seam == "crop" else net.halo // 2 // net.stride * net.stride
    core = 64 if seam == "crop" else max(64, 1 << (halo // 2).bit_length())
    grid = Grid(150, 210, halo, net.stride, core, max(128, core), 32, net.minimum)
    plan = SimpleNamespace(grid=grid, seam=seam, dtype="uint8", batch=1, threads=1, colours=3)

    def made() -> np.ndarray:
        out = np.zeros((*plan.grid.made.shape, 3), np.uint8)
        for index in range(len(plan.grid)):
            box = plan.grid.block_box(index)
            out[box.within(plan.grid.made).slices] = stylize_block(kernel, reader, plan, box)  # type: ignore
        return out

    whole = made()
    for part in (Box(33, 51, 131, 177), Box(64, 128, 128, 210)):
        plan.grid = replace(grid, part=part)
        np.testing.assert_array_equal(made(), whole[part.slices])
