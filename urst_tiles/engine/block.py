"""The main task of a job: to make one part of the output from one block of the source."""

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
from urst_tiles.source.levels import PaintedLevel, windows_of
from urst_tiles.source.windows import WindowReader
from urst_tiles.workers.run import check_stop

Pixels = NDArray[Any]


#: Held by the block that computes; meanwhile the next block is read and the last is written. If the windows
#: of several blocks were interleaved, the blocks would all end together and the device would wait for the
#: encoders.
_turn = threading.Lock()


@dataclass(frozen=True)
class StylizeBlock:
    """The task that stylises a block and writes its part file.

    Attributes
    ----------
    plan, source : the plan of the job, and the image, or the level of an image, that it reads.
    net : path of the frozen network.
    parts : the part files of the job.
    model : the user's "package.module:function" that the network may be made by: what the user named in this
        call, and never what a file of the job says.
    """

    plan: Plan
    source: Source | PaintedLevel
    net: Path
    parts: Parts
    model: str | None = None

    def __call__(self, index: int) -> dict[str, Any]:
        """Stylise block ``index``, and return a receipt.

        The receipt has the number of the block, how often the device ran out of memory (``splits``), and the
        seconds that computing and writing took.
        """
        kernel = kernel_of(self.net, self.plan, self.model)
        splits, started = kernel.splits, time.perf_counter()
        box, reader = self.plan.grid.block_box(index), windows_of(self.source)
        if self.plan.wants(index):
            pixels = stylize_block(kernel, reader, self.plan, box)
        else:
            pixels = mapped((*box.shape, self.plan.channels), self.plan.dtype)
        computed = time.perf_counter()
        self.parts.write(index, pixels)
        return {
            "block": index,
            "splits": kernel.splits - splits,
            "compute_seconds": computed - started,
            "write_seconds": time.perf_counter() - computed,
        }


def stylize_block(kernel: Kernel, reader: WindowReader, plan: Plan, box: Box) -> Pixels:
    """The stylised pixels of ``box``, (h, w, channels), in the dtype of the plan.

    A channel behind the colours is the validity of the source; pixels where it is 0 are black, or those of
    the source if that is to be left unpainted there.
    """
    grid, cores = plan.grid, cores_of(plan, box)
    around = grid.read_box(cores)
    rgb, valid = reader.padded(around)
    out = mapped((*box.shape, plan.colours + (valid is not None)), plan.dtype)
    if valid is not None:
        valid = valid[box.within(around).slices]
        out[..., -1] = rescale(valid, plan.dtype)
        if not valid.any():
            return unpainted(reader.source, box, valid, out)
    compute = _blended if plan.seam == "blend" else _cropped
    with _turn:
        compute(kernel, plan, cores, _Windows(grid, rgb, around), valid, box, out)
    if valid is not None:
        np.copyto(out[..., :-1], 0, where=(valid == 0)[..., None])  # an index would take 16 bytes for each
        return unpainted(reader.source, box, valid, out)
    return out


def cores_of(plan: Plan, box: Box) -> list[Box]:
    """The cores whose windows are computed for ``box``."""
    return blend.cores_touching(plan.grid, box) if plan.seam == "blend" else plan.grid.cores(box)


def unpainted(source: Source, box: Box, valid: Pixels, out: Pixels) -> Pixels:
    """``out`` with the colours of the source where ``valid`` is 0 and they are to stay as they are; maps of
    stains, which are no colours, have nothing there."""
    if source.unpainted and out.shape[-1] == source.channels and not valid.all():
        colours = rescale(source.read(box)[..., :-1], out.dtype.name)
        np.copyto(out[..., :-1], colours, where=(valid == 0)[..., None])
    return out


@dataclass(frozen=True)
class _Windows:
    """The windows of a block, cut from its pixels, which are read at once.

    Attributes
    ----------
    rgb : uint8 or uint16, (h, w, 3), the pixels of the box ``around`` of the padded image.
    """

    grid: Grid
    rgb: Pixels
    around: Box

    def of(self, cores: Sequence[Box]) -> tuple[Pixels, list[Box]]:
        """The windows of ``cores``, (n, h, w, 3), and their boxes in the padded image."""
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
    """Write each core into ``out``, cropped from the result of its window: exact if the halo suffices.

    Where the block has a part of a core, all of it is computed, as it is for the whole image: a network that
    computes no more than it is asked for may round otherwise over another box.
    """
    if valid is not None:
        cores = [core for core in cores if valid[core.within(box).slices].any()]
    for batch in _batches(cores, plan.batch):
        check_stop()
        whole = [plan.grid.whole_core(core) for core in batch]
        results = on_device(plan.threads, kernel.run, *windows.of(batch), whole)
        for core, made, result in zip(batch, whole, results, strict=True):
            out[..., : plan.colours][core.within(box).slices] = result[core.within(made).slices]


def _blended(
    kernel: Kernel,
    plan: Plan,
    cores: list[Box],
    windows: _Windows,
    valid: Pixels | None,
    box: Box,
    out: Pixels,
) -> None:
    """Write into ``out`` the weighted sum of all windows that reach into the block, in grid order."""
    total = mapped((*box.shape, plan.colours), np.float64)
    for core in cores:
        check_stop()
        pixels, boxes = windows.of([core])
        shared = core.grow(blend.ramp(plan.grid)).clip(box)
        result = on_device(plan.threads, kernel.run_float, pixels, boxes)[0]
        weight = blend.weights(plan.grid, core, shared)[..., None]
        total[shared.within(box).slices] += weight * result[shared.within(boxes[0]).slices]
    if plan.dtype != "float32":  # floats are neither scaled, nor clipped, nor rounded
        np.clip(total, 0.0, 1.0, out=total)
        total *= np.iinfo(plan.dtype).max
        np.rint(total, out=total)
    out[..., : plan.colours] = total


def _batches(cores: Sequence[Box], size: int) -> Iterator[list[Box]]:
    """Yield ``cores`` in lists of at most ``size``."""
    for start in range(0, len(cores), size):
        yield list(cores[start : start + size])


def rescale(validity: Pixels, dtype: str) -> Pixels:
    """Validity or alpha, uint8 or uint16, rescaled to the full range of ``dtype``, also uint8 or uint16.

    A value above 0 never becomes 0.
    """
    if validity.dtype == dtype:
        return validity
    if dtype == "float32":
        return (validity > 0).astype(np.float32)
    if dtype == "uint16":
        return validity.astype(np.uint16) * np.uint16(257)
    faint = (validity > 0) & (validity < 129)
    return np.where(faint, 1, (validity.astype(np.uint32) + 128) // 257).astype(np.uint8)
