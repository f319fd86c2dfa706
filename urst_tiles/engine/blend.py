"""Blending of windows by overlap-add with a raised cosine, for plans whose halo is too small for cropping.

Around each line between two cores, the window of one core fades out while that of the other fades in. The
weights are the ramp of the Hann window (Harris 1978, section V.C); they depend on geometry alone, and sum to
one everywhere. A window fades over a quarter of the halo to either side of the line, where its pixels still
have three quarters of their context. If it faded over the whole halo, the pixels at the very edge of a window
would count, and they are further from the exact result than the seam that they hide
(``benchmarks/seams.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadPlan
from urst_tiles.geometry import Box, Grid, ceil_div

Float = NDArray[np.float64]


def ramp(grid: Grid) -> int:
    """How far a window fades on either side of the edges of its core, in pixels."""
    return ceil_div(grid.halo, 4)


def cores_touching(grid: Grid, box: Box) -> list[Box]:
    """Every core whose faded window reaches into ``box``, clipped only to the image, row by row.

    Raises
    ------
    BadPlan : the cores are smaller than the strips over which windows fade.
    """
    if 2 * ramp(grid) > grid.core:
        raise BadPlan(f"blending needs --tile of at least half of --halo {grid.halo}, got {grid.core}")
    around = box.grow(ramp(grid)).clip(grid.image)
    return [
        Box(c.y0, c.x0, c.y0 + grid.core, c.x0 + grid.core).clip(grid.image)
        for c in (cell.align(grid.core) for cell in around.cells(grid.core))
    ]


def weights(grid: Grid, core: Box, box: Box) -> Float:
    """The weight of the window of ``core`` at each pixel of ``box``, float64, ``box.shape``, in [0, 1]."""
    rows = fade(np.arange(box.y0, box.y1), core.y0, core.y1, grid.height, ramp(grid))
    columns = fade(np.arange(box.x0, box.x1), core.x0, core.x1, grid.width, ramp(grid))
    return rows[:, None] * columns


def fade(at: NDArray[np.int64], first: int, last: int, length: int, reach: int) -> Float:
    """The weight at pixels ``at`` of the core [first, last) on a line of ``length`` pixels, float64 in [0,
    1].

    It fades over ``reach`` pixels to either side of ``first`` and ``last``, but not at the ends of the line.
    """
    weight = ((at >= first - reach) & (at < last + reach)).astype(np.float64)
    if reach and first > 0:
        weight *= _rise(at - first, reach)
    if reach and last < length:
        weight *= 1.0 - _rise(at - last, reach)
    return weight


def _rise(distance: NDArray[np.int64], reach: int) -> Float:
    """A raised cosine from 0, below -reach, to 1, from reach on; distances are those of pixel centres."""
    t = np.clip((distance + 0.5 + reach) / (2 * reach), 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * t)
