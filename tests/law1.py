"""What law 1 is tested with, on processors and on cards: a network run window by window, and on the whole."""

from __future__ import annotations

import numpy as np

from urst_tiles import nets
from urst_tiles.geometry import Grid, reflect

FAMILIES = tuple(nets.MODELS)
#: Those whose halo is smaller than the sizes above, so that windows lie inside the image.
SHORT = (
    "lite", "painter", "microast", "adain", "fast", "cin", "ghiasi", "msgnet", "linear-r31", "linear-r41",
    "wct-3",
)  # fmt: skip
TOLERANCE = 1e-4


def grid_of(net, size, core, halo=None):
    return Grid(*size, net.halo if halo is None else halo, net.stride, core, 8 * core, core, net.minimum)


def padded(image, grid):
    rows, columns = reflect(0, grid.padded.y1, len(image)), reflect(0, grid.padded.x1, image.shape[1])
    return image[np.ix_(list(rows), list(columns))]


def whole_float(kernel, image, grid):
    everything = padded(image, grid)
    return kernel.run_float(everything[None], [grid.padded])[0][: grid.height, : grid.width]


def tiled_float(kernel, image, grid, shift=0):
    """The cores cut from every window's float result; ``shift`` moves windows off the stride."""
    everything = padded(image, grid)
    out = np.full((grid.height, grid.width, 3), np.nan, np.float32)
    for core in grid.cores(grid.image):
        box = grid.window_box(core)
        if shift and box.x0 > 0 and box.x1 < grid.padded.x1:
            box = box.shift(0, shift)
        y = kernel.run_float(everything[box.slices][None], [box])[0]
        out[core.slices] = y[core.within(box).slices]
    return out
