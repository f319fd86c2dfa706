"""Thumbnails as area averages: every valid pixel counts with the area that it covers.

The image is read once, cell by cell in a fixed order, so that memory holds the thumbnail and a few cells. The
sums within a cell are exact for integers; the sums of cells are added as float32, which is good to seven
digits. (Matrix products would be shorter, but small ones on many threads make OpenBLAS wait for itself: ten
times slower, measured.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.machine import decoders, in_order
from urst_tiles.progress import Progress, silent
from urst_tiles.source.valid import Samples, full

#: A thumbnail is made from an overview only if the sides of the overview are at least this many times as
#: long.
OVERVIEW_FACTOR = 4


class Thumbnail(NamedTuple):
    """A thumbnail in the values of the file.

    Attributes
    ----------
    colour : float32, (h, w, bands).
    weight : float32, (h, w), in 0..1: the valid share of each pixel; None if all pixels are valid.
    origin : a phrase that says from what the thumbnail was made.
    """

    colour: NDArray[np.float32]
    weight: NDArray[np.float32] | None
    origin: str

    @property
    def is_invalid(self) -> bool:
        """Whether no pixel is valid, not even in part."""
        return self.weight is not None and not self.weight.any()


def thumbnail_shape(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of the thumbnail of an image of ``shape`` (height, width), in pixels.

    The shorter side becomes ``side`` pixels long, or less if the area would exceed 4 ``side``². The image is
    never enlarged.
    """
    height, width = shape
    short, long = min(shape), max(shape)
    if short <= side and short * long <= 4 * side * side:
        return shape
    new_short = min(short, side)
    new_long = max(1, round(long * new_short / short))
    if new_short * new_long > 4 * side * side:
        new_short = max(1, math.isqrt(4 * side * side * short // long))
        new_long = min(
            long,
            4 * side * side // new_short,
            max(1, round(long * new_short / short)) if new_short > 1 else long,
        )
    return (new_short, new_long) if height <= width else (new_long, new_short)


def best_level(shape: tuple[int, int], levels: Iterable[tuple[int, int]]) -> int | None:
    """The index of the smallest overview whose sides are at least four times those of the thumbnail.

    None if there is no overview of that size. ``shape`` is (height, width) of the thumbnail, ``levels`` are
    those of the overviews.
    """
    fitting = [
        (h * w, i)
        for i, (h, w) in enumerate(levels)
        if h >= OVERVIEW_FACTOR * shape[0] and w >= OVERVIEW_FACTOR * shape[1]
    ]
    return min(fitting)[1] if fitting else None


#: A box of the thumbnail, the weighted sums in it, (h, w, bands), and the sums of the weights, (h, w), or
#: None.
Part = tuple[Box, NDArray[np.float64], NDArray[np.float64] | None]


class Average:
    """Accumulates the area averages of an image, cell by cell.

    Parameters
    ----------
    full_shape : (height, width) of the image in pixels.
    shape : (height, width) of the thumbnail.
    bands : how many bands of colour there are.
    has_valid : whether the samples may have weights.
    """

    def __init__(
        self, full_shape: tuple[int, int], shape: tuple[int, int], bands: int, has_valid: bool
    ) -> None:
        self.full_shape, self.shape = full_shape, shape
        self._sum = np.zeros((*shape, bands), np.float32)
        self._weight = np.zeros(shape, np.float32) if has_valid else None

    def reduce(self, box: Box, samples: Samples) -> Part:
        """The contribution of a cell: the box of the thumbnail that it touches, and the sums in it."""
        values, heavy = _weighted(samples)
        rows = box.y0, box.y1, self.full_shape[0], self.shape[0]
        columns = box.x0, box.x1, self.full_shape[1], self.shape[1]
        colour = _sums(_sums(values, *rows).swapaxes(0, 1), *columns).swapaxes(0, 1)
        weight = None if heavy is None else _sums(_sums(heavy, *rows).T, *columns).T
        y0, x0 = rows[0] * rows[3] // rows[2], columns[0] * columns[3] // columns[2]
        return Box(y0, x0, y0 + colour.shape[0], x0 + colour.shape[1]), colour, weight

    def add(self, part: Part) -> None:
        """Add the contribution of a cell. The order of the calls determines the last bit of the result."""
        box, colour, weight = part
        self._sum[box.slices] += colour.astype(np.float32)
        if self._weight is not None and weight is not None:
            self._weight[box.slices] += weight.astype(np.float32)

    def result(self, origin: str) -> Thumbnail:
        """The averages of all cells that were added; ``Average`` cannot be used afterwards."""
        (h, w), (y, x) = self.full_shape, self.shape
        area = np.float32(h * w / (y * x))
        if self._weight is None:
            self._sum /= area  # in place to save memory: a long image has a large thumbnail
            return Thumbnail(self._sum, None, origin)
        some = np.where(self._weight > 0, self._weight, np.float32(1)).astype(np.float32)
        part = np.minimum(self._weight / area, np.float32(1)).astype(np.float32)
        self._sum /= some[..., None]
        return Thumbnail(self._sum, part, origin)


def _weighted(samples: Samples) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The values times their weights, and the weights in 0..1.

    Integers stay integers if every weight is either 0 or full.
    """
    colour, weight = samples
    if weight is None:
        return colour, None
    top = full(weight.dtype)
    seen = weight > 0
    if seen.all() and (weight == top).all():
        return colour, seen
    # Invalid values are replaced by 0, since 0 * nan would be nan.
    colour = np.where(seen[..., None], colour, colour.dtype.type(0))
    if (weight[seen] == top).all():
        return colour, seen
    part = weight / np.float64(top)
    return colour * part[..., None], part


def _sums(values: NDArray[Any], start: int, stop: int, length: int, small: int) -> NDArray[np.float64]:
    """Sums along axis 0 of the pixels ``start`` to ``stop`` - 1 of a line, by the cells into which they fall.

    The line has ``length`` pixels and ``small`` cells. Pixel i covers [i, i + 1), cell c covers
    [c, c + 1) * length / small. Each pixel is added to the cell in which it begins; the share of a pixel that
    lies across a border is then moved to the next cell. The sums of integers are exact.
    """
    first, last = start * small // length, (stop * small - 1) // length
    cells = np.arange(first, last + 1, dtype=np.int64)
    begin = np.maximum(-(-cells * length // small), start)
    out = _grouped(values, np.append(begin, stop) - start)
    for k in range(1, len(cells)):
        over = int(begin[k]) * small - int(cells[k]) * length
        if over > 0:
            moved = values[int(begin[k]) - 1 - start] * (over / small)
            out[k] += moved
            out[k - 1] -= moved
    return out


def _grouped(values: NDArray[Any], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 sums of values[edges[k] : edges[k + 1]] along axis 0; the last group may be empty."""
    count = len(edges) - 1
    out = np.zeros((count, *values.shape[1:]))
    if count == len(values) and edges[-2] < edges[-1]:
        out[...] = values
        return out
    small = values.dtype.itemsize <= 2 and len(values) <= 65536
    kinds = {"b": "u4", "u": "u4" if small else "u8", "i": "i8", "f": "f8"}
    kind = np.dtype(kinds[values.dtype.kind])
    for k in range(count):
        if edges[k] < edges[k + 1]:
            out[k] = np.add.reduce(values[edges[k] : edges[k + 1]], axis=0, dtype=kind)
    return out


def cells(shape: tuple[int, int], cell: tuple[int, int]) -> Iterator[Box]:
    """The cells of a lattice over an image, clipped to the image, row by row.

    ``shape`` and ``cell`` are (height, width) of the image and of a cell.
    """
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
    """Make a thumbnail in a single pass over the image.

    Parameters
    ----------
    read : returns the samples of a box; it is called for every cell, on several threads.
    full_shape, shape, cell : (height, width) of the image, of the thumbnail, and of a cell.
    bands : how many bands of colour the samples have.
    has_valid : whether the samples may have weights.
    origin : a phrase that says from what the thumbnail is made.
    progress : called with the stage "thumbnail" and numbers of pixels.
    """
    whole = Average(full_shape, shape, bands, has_valid)
    total, done = full_shape[0] * full_shape[1], 0

    def reduced(box: Box) -> Any:
        return box.area, whole.reduce(box, read(box))

    for area, part in in_order(decoders(), reduced, cells(full_shape, cell)):
        whole.add(part)
        done += area
        progress("thumbnail", done, total)
    return whole.result(origin)
