"""Polygons as the area of an image that is valid: a pixel lies inside if its middle does.

As in GDAL, a middle on an edge belongs to what lies to the left of the edge, or below it.

Holes are rings inside of rings (even-odd rule); what lies in any of several polygons is inside. The crossing
of an edge with a row of pixels follows from positions in the whole image alone, so any box gives the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.progress import Progress
from urst_tiles.source.area import Mask
from urst_tiles.source.thumbnail import Thumbnail

#: A ring of positions (x, y) in pixels of the upright image, float64, (n, 2); the last is the first again.
Ring = NDArray[np.float64]
#: The outer ring of a polygon, and its holes.
Polygon = tuple[Ring, ...]


@dataclass(frozen=True, eq=False)
class Polygons:
    """The area inside of polygons.

    Attributes
    ----------
    path : the file that they were read from.
    polygons : in pixels of the upright image.
    shape : (height, width) of the image.
    fingerprint : hex digest of the file.
    cuts : whether the box around the polygons is the part of the image that is made.
    named : where each feature of the file becomes an output: its name, and how many of the polygons, which
        are in the order of the features, are its own.
    named_by : what the names are taken from, as a phrase.
    """

    path: Path
    polygons: tuple[Polygon, ...]
    shape: tuple[int, int]
    fingerprint: str
    cuts: bool = True
    named: tuple[tuple[str, int], ...] = ()
    named_by: str = ""
    needs_thumbnail: ClassVar[bool] = False
    unpainted: ClassVar[bool] = False
    finest: ClassVar[tuple[int, int] | None] = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def outline(self) -> Box:
        """The smallest box of pixels that holds all polygons; it may reach beyond the image."""
        every = np.concatenate([polygon[0] for polygon in self.polygons])
        (x0, y0), (x1, y1) = every.min(0), every.max(0)
        left, top = math.floor(x0), math.floor(y0)
        return Box(top, left, max(top + 1, math.ceil(y1)), max(left + 1, math.ceil(x1)))

    def saved_paths(self, folder: Path) -> Iterator[Path]:
        return iter(())

    def placed(self, folder: Path | None, thumbnail: Thumbnail | None, progress: Progress) -> Polygons:
        return self

    def inside(self, box: Box, shape: tuple[int, int]) -> Mask:
        ys = _middles(box.y0, box.y1, self.shape[0], shape[0])
        xs = _middles(box.x0, box.x1, self.shape[1], shape[1])
        out = np.zeros(box.shape, bool)
        for _, part, inside in insides(self.polygons, reaches(self.polygons), xs, ys):
            out[part] |= inside
        return out


def _middles(start: int, stop: int, length: int, count: int) -> NDArray[np.float64]:
    """The positions of the middles of pixels start..stop - 1, of ``count``, on a line of ``length``."""
    return (np.arange(start, stop, dtype=np.float64) + 0.5) * (length / count)


def reaches(polygons: Sequence[Polygon]) -> NDArray[np.float64]:
    """The box around each polygon, x0, y0, x1, y1 in pixels, float64, (n, 4)."""
    found = [(*polygon[0].min(0), *polygon[0].max(0)) for polygon in polygons]
    return np.array(found, np.float64).reshape(-1, 4)


def insides(
    polygons: Sequence[Polygon],
    reach: NDArray[np.float64],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
) -> Iterator[tuple[int, tuple[slice, slice], Mask]]:
    """The polygons in whose box places of a lattice lie, in their order: of each its number, the rows and the
    columns of these places, and which of them lie inside, see `filled`.

    Parameters
    ----------
    reach : the boxes around the polygons, as `reaches` returns them.
    xs, ys : the positions of columns and rows, in ascending order.
    """
    x0, y0, x1, y1 = reach.T
    top, bottom = np.searchsorted(ys, y0), np.searchsorted(ys, y1)
    left, right = np.searchsorted(xs, x0), np.searchsorted(xs, x1, side="right")
    for number in np.flatnonzero((top < bottom) & (left < right)).tolist():
        rows, columns = slice(top[number], bottom[number]), slice(left[number], right[number])
        yield number, (rows, columns), filled(polygons[number], xs[columns], ys[rows])


def filled(rings: Sequence[Ring], xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Mask:
    """Which places of a lattice lie inside rings by the even-odd rule, bool, (rows, columns).

    ``xs`` and ``ys`` are the positions of columns and rows, in ascending order.
    """
    edges = np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in rings])
    down = edges[:, 1] <= edges[:, 3]
    x0, y0, x1, y1 = np.where(down[:, None], edges, edges[:, [2, 3, 0, 1]]).T
    first, last = np.searchsorted(ys, y0), np.searchsorted(ys, y1)
    counts = last - first
    edge = np.repeat(np.arange(len(edges)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    crossing = x0[edge] + (ys[row] - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    column = np.searchsorted(xs, crossing, side="right")
    toggles = np.zeros((len(ys), len(xs) + 1), np.uint8)
    np.add.at(toggles, (row, column), 1)
    return np.cumsum(toggles[:, :-1], axis=1, dtype=np.uint8) % 2 == 1
