"""`map_blocks`: a stylised image as a lazy dask array."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.opening import tell_choice
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.seen import paints_levels, seen_by
from urst_tiles.engine.threads import on_device
from urst_tiles.errors import BadPlan
from urst_tiles.geometry import Box, Grid, reflect, round_up
from urst_tiles.machine import cpu_count
from urst_tiles.nets import LocalNet
from urst_tiles.source import Source, array_source, open_source
from urst_tiles.source.levels import noise, windows_of


def map_blocks(stylizer: Kernel | LocalNet, source: Any, *, chunk: int = 1024) -> Any:
    """The stylised image as a lazy `dask.array.Array`, (H, W, 3), of the kernel's output dtype.

    The chunks together equal the result for the whole image.

    Parameters
    ----------
    stylizer : a frozen network, or a kernel that holds a frozen network on a device.
    source : a prepared `Source`, the path of a file with random access, or a zarr, NumPy or dask array,
        uint8 or uint16, (H, W, 3 or 4). The result has a task for each chunk, which reads the chunk and its
        halo. A dask array keeps its chunks, and each chunk depends only on the chunks around it.
    chunk : side of the chunks in pixels, a multiple of 16 and of the network's stride; unused for a dask
        array.

    Raises
    ------
    BadPlan : if the chunks of a dask array do not start at multiples of the network's stride, or are smaller
        than its halo; the message says how to rechunk.
    """
    import dask.array as da

    kernel = stylizer if isinstance(stylizer, Kernel) else Kernel(stylizer)
    if isinstance(source, da.Array):
        return _over_dask(kernel, source)
    if isinstance(source, str | os.PathLike):
        source = open_source(source)
        tell_choice(source)
    elif not isinstance(source, Source):
        source = array_source(source)
    net = kernel.net
    height, width = source.shape
    grid = Grid(height, width, net.halo, net.stride, chunk, chunk, chunk, net.minimum)
    reader = windows_of(seen_by(net.family, source))

    def make(block_info: Any = None) -> NDArray[Any]:
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        core = Box(y0, x0, y1, x1)
        window = grid.window_box(core)
        return _run(kernel, reader.padded(window)[0], window, core)

    chunks = (*(_cut(n, chunk) for n in source.shape), (3,))
    name = f"stylize-{os.urandom(8).hex()}"
    return da.map_blocks(make, chunks=chunks, dtype=kernel.out_dtype, meta=_meta(kernel), name=name)


def _over_dask(kernel: Kernel, x: Any) -> Any:
    """Stylise the dask array ``x``: each task takes a chunk, and its halo from the chunks around it."""
    import dask.array as da

    rows, columns = x.chunks[:2]
    _check_chunks(kernel, rows)
    _check_chunks(kernel, columns)
    image = Box(0, 0, *x.shape[:2])
    grid = Grid(
        *image.shape, 0, kernel.net.stride, kernel.net.stride, 16 * kernel.net.stride, 16, kernel.net.minimum
    )
    made: list[list[Any]] = []
    for y0, y1 in _spans(rows):
        made.append([])
        for x0, x1 in _spans(columns):
            core = Box(y0, x0, y1, x1)
            window = core.align(kernel.net.stride).grow(kernel.net.halo).clip(grid.padded)
            inside = window.clip(image)
            part = x[inside.slices].rechunk(-1)
            run = partial(_run_padded, kernel, inside, window, core, image)
            chunks = ((y1 - y0,), (x1 - x0,), (3,))
            name = f"stylize-{os.urandom(8).hex()}"
            made[-1].append(
                part.map_blocks(run, chunks=chunks, dtype=kernel.out_dtype, meta=_meta(kernel), name=name)
            )
    return da.concatenate([da.concatenate(row, axis=1) for row in made], axis=0)


def _run_padded(
    kernel: Kernel, inside: Box, window: Box, core: Box, image: Box, pixels: NDArray[Any]
) -> NDArray[Any]:
    """Stylise ``pixels``, which cover the box ``inside``.

    Where ``window`` reaches beyond the bottom or the right edge of the image, they are reflected.
    """
    rows = np.asarray(reflect(window.y0, window.y1, image.y1)) - inside.y0
    columns = np.asarray(reflect(window.x0, window.x1, image.x1)) - inside.x0
    pixels = pixels[..., :3]
    if paints_levels(kernel.net.family):
        pixels = np.dstack([pixels, noise(inside, 0, 0, pixels.dtype)])
    return _run(kernel, pixels[rows][:, columns], window, core)


def _run(kernel: Kernel, rgb: NDArray[Any], window: Box, core: Box) -> NDArray[Any]:
    return on_device(cpu_count(), kernel.run, rgb[None], [window], [core])[0]


def _check_chunks(kernel: Kernel, sizes: tuple[int, ...]) -> None:
    halo, stride = kernel.net.halo, kernel.net.stride
    good = round_up(max(halo, 1024), stride)
    if any(n % stride for n in sizes[:-1]):
        raise BadPlan(
            f"chunks must start on the network's stride {stride}, got {sizes[:4]}: rechunk to {good} px"
        )
    if any(n < halo + stride for n in sizes[:-1]):
        raise BadPlan(
            f"chunks must be larger than the network's halo {halo}, got {sizes[:4]}: rechunk to {good} px"
        )


def _spans(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _cut(length: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, length - start) for start in range(0, length, size))


def _meta(kernel: Kernel) -> NDArray[Any]:
    return np.empty((0, 0, 0), kernel.out_dtype)
