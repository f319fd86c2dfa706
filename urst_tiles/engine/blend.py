"""Overlap-add with a raised cosine, for plans whose halo is smaller than the network's reach.

Around each core line one window fades out while the other fades in, with weights that sum to one everywhere
and depend on geometry alone (the Hann window's ramp; Harris 1978, section V.C). The strip is a quarter of the
halo to either side: what a window shows there still has three quarters of its context. Over the whole halo,
the pixels at a window's very edge would count, which are further from the truth than the seam that they hide
(``benchmarks/seams.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadPlan
from urst_tiles.geometry import Box, Grid, ceil_div

Float = NDArray[np.float64]


def ramp(grid: Grid) -> int:
    """How far a window fades on either side of its core's lines, in pixels."""
    return ceil_div(grid.halo, 4)


def cores_touching(grid: Grid, box: Box) -> list[Box]:
    """Every core (whole, clipped to the image) whose faded window reaches into ``box``, row by row."""
    if 2 * ramp(grid) > grid.core:
        raise BadPlan(f"blending needs --tile of at least half of --halo {grid.halo}, got {grid.core}")
    around = box.grow(ramp(grid)).clip(grid.image)
    return [
        Box(c.y0, c.x0, c.y0 + grid.core, c.x0 + grid.core).clip(grid.image)
        for c in (cell.align(grid.core) for cell in around.cells(grid.core))
    ]


def weights(grid: Grid, core: Box, box: Box) -> Float:
    """float64, ``box.shape``, in [0, 1]: how much the window of ``core`` counts at each pixel of ``box``."""
    rows = fade(np.arange(box.y0, box.y1), core.y0, core.y1, grid.height, ramp(grid))
    columns = fade(np.arange(box.x0, box.x1), core.x0, core.x1, grid.width, ramp(grid))
    return rows[:, None] * columns


def fade(at: NDArray[np.int64], first: int, last: int, length: int, reach: int) -> Float:
    """Weight at ``at`` of the core [first, last) on a line of ``length`` pixels, whose ends do not fade."""
    weight = ((at >= first - reach) & (at < last + reach)).astype(np.float64)
    if reach and first > 0:
        weight *= _rise(at - first, reach)
    if reach and last < length:
        weight *= 1.0 - _rise(at - last, reach)
    return weight


def _rise(distance: NDArray[np.int64], reach: int) -> Float:
    """0 below -reach, 1 from reach on, a raised cosine between (at pixel centres, hence the half)."""
    t = np.clip((distance + 0.5 + reach) / (2 * reach), 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * t)
