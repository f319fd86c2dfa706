"""The task at the heart of the job: one block of the source becomes one part of the output."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.engine import blend
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import kernel_of
from urst_tiles.engine.threads import on_device
from urst_tiles.geometry import Box, Grid
from urst_tiles.machine import mapped
from urst_tiles.plan import Plan
from urst_tiles.pyramid.parts import Parts
from urst_tiles.source import Source
from urst_tiles.source.windows import WindowReader
from urst_tiles.workers.run import check_stop

Pixels = NDArray[Any]


#: One block computes at a time; meanwhile the next is read and the last is written. Were their windows
#: interleaved, all would end at once, and the device would wait for the encoders.
_turn = threading.Lock()


@dataclass(frozen=True)
class StylizeBlock:
    """Task: stylise block ``index`` and publish its part; returns a receipt with where the time went."""

    plan: Plan
    source: Source
    net: Path
    parts: Parts

    def __call__(self, index: int) -> dict[str, Any]:
        """Stylise block ``index``."""
        kernel = kernel_of(self.net, self.plan)
        splits, started = kernel.splits, time.perf_counter()
        box = self.plan.grid.block_box(index)
        pixels = stylize_block(kernel, WindowReader(self.source), self.plan, box)
        computed = time.perf_counter()
        self.parts.write(index, pixels)
        return {
            "block": index,
            "splits": kernel.splits - splits,
            "compute_seconds": computed - started,
            "write_seconds": time.perf_counter() - computed,
        }


def stylize_block(kernel: Kernel, reader: WindowReader, plan: Plan, box: Box) -> Pixels:
    """(h, w, channels), the plan's dtype: the stylised pixels of ``box``, with the source's validity as last
    channel."""
    grid = plan.grid
    cores = blend.cores_touching(grid, box) if plan.seam == "blend" else grid.cores(box)
    around = grid.read_box(cores)
    rgb, valid = reader.padded(around)
    out = mapped((*box.shape, reader.channels), plan.dtype)
    if valid is not None:
        valid = valid[box.within(around).slices]
        out[..., 3] = rescale(valid, plan.dtype)
        if not valid.any():
            return out
    compute = _blended if plan.seam == "blend" else _cropped
    with _turn:
        compute(kernel, plan, cores, _Windows(grid, rgb, around), valid, box, out)
    if valid is not None:
        out[..., :3][valid == 0] = 0
    return out


@dataclass(frozen=True)
class _Windows:
    """The windows of a block, cut from what was read at once."""

    grid: Grid
    rgb: Pixels
    around: Box

    def of(self, cores: Sequence[Box]) -> tuple[Pixels, list[Box]]:
        """(n, h, w, 3) and the windows' boxes."""
        boxes = [self.grid.window_box(core) for core in cores]
        cut = [self.rgb[box.within(self.around).slices] for box in boxes]
        return (cut[0][None] if len(cut) == 1 else np.stack(cut)), boxes


def _cropped(
    kernel: Kernel,
    plan: Plan,
    cores: list[Box],
    windows: _Windows,
    valid: Pixels | None,
    box: Box,
    out: Pixels,
) -> None:
    """Each core is cropped from its own window: exact where the halo suffices."""
    if valid is not None:
        cores = [core for core in cores if valid[core.within(box).slices].any()]
    for batch in _batches(cores, plan.batch):
        check_stop()
        results = on_device(plan.threads, kernel.run, *windows.of(batch), batch)
        for core, result in zip(batch, results, strict=True):
            out[..., :3][core.within(box).slices] = result


def _blended(
    kernel: Kernel,
    plan: Plan,
    cores: list[Box],
    windows: _Windows,
    valid: Pixels | None,
    box: Box,
    out: Pixels,
) -> None:
    """Overlap-add of every window that reaches into the block, in the order of the grid."""
    total = mapped((*box.shape, 3), np.float64)
    for core in cores:
        check_stop()
        pixels, boxes = windows.of([core])
        shared = core.grow(blend.ramp(plan.grid)).clip(box)
        result = on_device(plan.threads, kernel.run_float, pixels, boxes)[0]
        weight = blend.weights(plan.grid, core, shared)[..., None]
        total[shared.within(box).slices] += weight * result[shared.within(boxes[0]).slices]
    top = np.iinfo(plan.dtype).max
    out[..., :3] = np.rint(np.clip(total, 0.0, 1.0) * top)


def _batches(cores: Sequence[Box], size: int) -> Iterator[list[Box]]:
    for start in range(0, len(cores), size):
        yield list(cores[start : start + size])


def rescale(validity: Pixels, dtype: str) -> Pixels:
    """Validity or alpha from its own dtype's full range to that of ``dtype``, uint8 or uint16."""
    if validity.dtype == dtype:
        return validity
    if dtype == "uint16":
        return validity.astype(np.uint16) * np.uint16(257)
    faint = (validity > 0) & (validity < 129)
    return np.where(faint, 1, (validity.astype(np.uint32) + 128) // 257).astype(np.uint8)
