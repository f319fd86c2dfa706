"""Overlap-add with a raised cosine, for plans whose halo is smaller than the network's reach.

Neighbouring windows overlap by twice the halo around each core line. Over that strip one fades out while the
other fades in, with weights that sum to one everywhere and depend on geometry alone (the Hann window's ramp;
Harris 1978, section V.C).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadPlan
from urst_tiles.geometry import Box, Grid

Float = NDArray[np.float64]


def cores_touching(grid: Grid, box: Box) -> list[Box]:
    """Every core (whole, clipped to the image) whose faded window reaches into ``box``, row by row."""
    if 2 * grid.halo > grid.core:
        raise BadPlan(f"blending needs --tile of at least twice --halo {grid.halo}, got {grid.core}")
    around = box.grow(grid.halo).clip(grid.image)
    return [
        Box(c.y0, c.x0, c.y0 + grid.core, c.x0 + grid.core).clip(grid.image)
        for c in (cell.align(grid.core) for cell in around.cells(grid.core))
    ]


def weights(grid: Grid, core: Box, box: Box) -> Float:
    """float64, ``box.shape``, in [0, 1]: how much the window of ``core`` counts at each pixel of ``box``."""
    rows = fade(np.arange(box.y0, box.y1), core.y0, core.y1, grid.height, grid.halo)
    columns = fade(np.arange(box.x0, box.x1), core.x0, core.x1, grid.width, grid.halo)
    return rows[:, None] * columns


def fade(at: NDArray[np.int64], first: int, last: int, length: int, halo: int) -> Float:
    """Weight at ``at`` of the core [first, last) on a line of ``length`` pixels, whose ends do not fade."""
    weight = ((at >= first - halo) & (at < last + halo)).astype(np.float64)
    if halo and first > 0:
        weight *= _rise(at - first, halo)
    if halo and last < length:
        weight *= 1.0 - _rise(at - last, halo)
    return weight


def _rise(distance: NDArray[np.int64], halo: int) -> Float:
    """0 below -halo, 1 from halo on, a raised cosine between (at pixel centres, hence the half)."""
    t = np.clip((distance + 0.5 + halo) / (2 * halo), 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * t)
