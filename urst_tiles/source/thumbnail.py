"""The thumbnail: every valid pixel counts with the area it covers, never a strided pick.

One pass over cells in a fixed order; memory is the thumbnail's own and a few cells'. Sums are float32: of up to 2**24 / 255
uint8 pixels per thumbnail pixel they are exact, beyond that good to seven digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.progress import Progress, silent
from urst_tiles.source.pool import in_order
from urst_tiles.source.valid import Samples, full

#: An overview serves where both its sides are at least so many times the thumbnail's.
OVERVIEW_FACTOR = 4


class Thumbnail(NamedTuple):
    """Colour float32 (h, w, bands) in the file's own values, weight float32 (h, w) in 0..1 or None, and where from."""

    colour: NDArray[np.float32]
    weight: NDArray[np.float32] | None
    origin: str


def thumbnail_shape(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of the thumbnail: the short side becomes ``side``, the area at most 4 side^2, never enlarged."""
    height, width = shape
    short, long = min(shape), max(shape)
    if short <= side and short * long <= 4 * side * side:
        return shape
    new_short = min(short, side)
    new_long = max(1, round(long * new_short / short))
    if new_short * new_long > 4 * side * side:
        new_short = max(1, math.isqrt(4 * side * side * short // long))
        new_long = min(long, 4 * side * side // new_short, max(1, round(long * new_short / short)) if new_short > 1 else long)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def best_level(shape: tuple[int, int], levels: Iterable[tuple[int, int]]) -> int | None:
    """Index of the smallest overview that is at least four times the thumbnail on each side, or None."""
    fitting = [
        (h * w, i)
        for i, (h, w) in enumerate(levels)
        if h >= OVERVIEW_FACTOR * shape[0] and w >= OVERVIEW_FACTOR * shape[1]
    ]
    return min(fitting)[1] if fitting else None


class Average:
    """Area averages of an image of ``full_shape`` on a grid of ``shape``; cells are added one after another."""

    def __init__(self, full_shape: tuple[int, int], shape: tuple[int, int], bands: int, has_valid: bool) -> None:
        self.full_shape, self.shape = full_shape, shape
        self._sum = np.zeros((*shape, bands), np.float32)
        self._weight = np.zeros(shape, np.float32) if has_valid else None

    def reduce(self, box: Box, samples: Samples) -> tuple[Box, NDArray[np.float32], NDArray[np.float32] | None]:
        """What one cell contributes: the thumbnail box it touches, its weighted sums there, and its weights."""
        rows, y0 = _shares(box.y0, box.y1, self.full_shape[0], self.shape[0])
        columns, x0 = _shares(box.x0, box.x1, self.full_shape[1], self.shape[1])
        there = Box(y0, x0, y0 + rows.shape[0], x0 + columns.shape[0])
        colour = samples.colour.astype(np.float32)
        weight = None
        if samples.weight is not None:
            heavy = samples.weight.astype(np.float32) / np.float32(full(samples.weight.dtype))
            # 0 * inf would be nan: an invalid pixel's value does not count at all
            colour = np.where(heavy[..., None] > 0, colour, np.float32(0)) * heavy[..., None]
            weight = rows @ heavy @ columns.T
        h, w, bands = colour.shape
        lines = (rows @ colour.reshape(h, w * bands)).reshape(-1, w, bands)
        return there, np.ascontiguousarray(np.matmul(columns, lines)), weight

    def add(self, part: tuple[Box, NDArray[np.float32], NDArray[np.float32] | None]) -> None:
        """Add what ``reduce`` made. The order of calls fixes the last bit."""
        box, colour, weight = part
        self._sum[box.slices] += colour
        if self._weight is not None and weight is not None:
            self._weight[box.slices] += weight

    def result(self, origin: str) -> Thumbnail:
        """The averages of what was added."""
        if self._weight is None:
            area = np.float32(self.full_shape[0] / self.shape[0] * (self.full_shape[1] / self.shape[1]))
            return Thumbnail(self._sum / area, None, origin)
        area = np.float64(self.full_shape[0]) * self.full_shape[1] / (self.shape[0] * self.shape[1])
        some = self._weight > 0
        colour = self._sum / np.where(some, self._weight, np.float32(1))[..., None]
        return Thumbnail(colour, np.minimum(self._weight / np.float32(area), np.float32(1)), origin)


def _shares(start: int, stop: int, length: int, small: int) -> tuple[NDArray[np.float32], int]:
    """How much of pixels start..stop-1 falls into each cell they touch: float32 (cells, pixels), and the first cell.

    Pixel i covers [i, i + 1) and cell c covers [c, c + 1) * length / small; integers until the last division.
    """
    first, last = start * small // length, ((stop * small) - 1) // length
    cells = np.arange(first, last + 1, dtype=np.int64)[:, None]
    pixels = np.arange(start, stop, dtype=np.int64)[None, :]
    overlap = np.minimum((pixels + 1) * small, (cells + 1) * length) - np.maximum(pixels * small, cells * length)
    return (np.maximum(overlap, 0) / small).astype(np.float32), int(first)


def cells(shape: tuple[int, int], cell: tuple[int, int]) -> Iterator[Box]:
    """The cells of a lattice over an image, row by row, clipped to it."""
    image = Box(0, 0, *shape)
    for y in range(0, shape[0], cell[0]):
        for x in range(0, shape[1], cell[1]):
            yield Box(y, x, y + cell[0], x + cell[1]).clip(image)


def average(
    read: Callable[[Box], Samples],
    full_shape: tuple[int, int],
    shape: tuple[int, int],
    cell: tuple[int, int],
    *,
    bands: int,
    has_valid: bool,
    origin: str,
    progress: Progress = silent,
) -> Thumbnail:
    """One streamed pass: ``read`` is called for every cell, on threads; sums are made in order."""
    whole = Average(full_shape, shape, bands, has_valid)
    total, done = full_shape[0] * full_shape[1], 0

    def reduced(box: Box) -> Any:
        return box.area, whole.reduce(box, read(box))

    for area, part in in_order(reduced, cells(full_shape, cell)):
        whole.add(part)
        done += area
        progress("thumbnail", done, total)
    return whole.result(origin)
