"""Statistics of the bands of an output, as GDAL and QGIS keep them, so that 16 bits are shown stretched.

They are gathered from the seeds of one stage of parts: the pixels of an overview, kept without loss. It is
the smallest such overview of at least ``ENOUGH`` pixels, or else the largest. Of an overview they are
approximate, and say so: the extremes of means lie nearer to each other than those of pixels. Sums are whole
numbers, so they do not depend on any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.pyramid.parts import Parts

#: So many pixels suffice for statistics; GDAL takes 2500 of an overview.
ENOUGH = 1 << 20


@dataclass
class BandSums:
    """The valid pixels of one band: how many, the smallest, the largest, their sum and that of squares."""

    count: int = 0
    least: float = 0
    most: float = 0
    total: float = 0
    squares: float = 0

    def add(self, values: NDArray) -> None:
        """Add values of uint8, uint16 or float32, (n,), n at least 1."""
        low, high = values.min().item(), values.max().item()
        self.least = min(self.least, low) if self.count else low
        self.most = max(self.most, high) if self.count else high
        wide = values.astype(np.float64 if values.dtype.kind == "f" else np.uint64)
        self.count += values.size
        self.total += wide.sum().item()
        self.squares += (wide * wide).sum().item()

    def items(self) -> dict[str, str]:
        """The names and texts that GDAL has for them."""
        variance = (self.count * self.squares - self.total**2) / self.count**2
        return {
            "STATISTICS_MINIMUM": f"{self.least:.14g}",
            "STATISTICS_MAXIMUM": f"{self.most:.14g}",
            "STATISTICS_MEAN": f"{self.total / self.count:.14g}",
            "STATISTICS_STDDEV": f"{sqrt(max(variance, 0)):.14g}",
        }


def band_items(stages: Sequence[Parts]) -> list[tuple[str, int, str]]:
    """The items of GDAL's metadata (name, band counted from 0, text) about the bands of the output; empty if
    no pixel is valid."""
    stage = next((stage for stage in reversed(stages) if _seed_pixels(stage) >= ENOUGH), stages[0])
    sums, pixels = [BandSums() for _ in range(stage.encoding.colours)], 0
    for index in range(len(stage.grid)):
        seed = stage.read_level(index, stage.grid.block_overviews)
        pixels += seed.shape[0] * seed.shape[1]
        valid = seed[..., -1] > 0 if stage.encoding.alpha else np.full(seed.shape[:2], True)
        if valid.any():
            for band, one in enumerate(sums):
                one.add(seed[..., band][valid])
    if not sums[0].count:
        return []
    exact = stage.stage == 0 and stage.grid.block_overviews == 0
    more = {"STATISTICS_VALID_PERCENT": f"{100 * sums[0].count / pixels:.4g}"}
    more |= {} if exact else {"STATISTICS_APPROXIMATE": "YES"}
    return [(name, n, text) for n, one in enumerate(sums) for name, text in (one.items() | more).items()]


def _seed_pixels(stage: Parts) -> int:
    """How many pixels the seeds of a stage have together."""
    halved = 1 << stage.grid.block_overviews
    return ceil_div(stage.grid.height, halved) * ceil_div(stage.grid.width, halved)
