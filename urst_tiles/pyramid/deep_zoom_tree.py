"""Writing a Deep Zoom image of any picture whose boxes can be read, each pixel once, in bounded memory.

Its tiles are made as a tree, a corner of the picture with all levels above it before the next corner: what
waits for its neighbours are at most three tiles for each level.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box, ceil_div, halved
from urst_tiles.machine import decoder_count
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.deep_zoom import description, dzi_levels, encode
from urst_tiles.pyramid.formats import tiles_of_dzi
from urst_tiles.pyramid.reduce import halve

#: Side of a tile in pixels, and how often a box that is read at once is halved down to one tile.
TILE, HALVINGS = 512, 2


@dataclass(frozen=True)
class Picture:
    """A picture whose boxes can be read.

    Attributes
    ----------
    shape : (height, width) in pixels.
    read : the pixels, uint8, (h, w, 3 or 4), of a box.
    binary : whether its pixels are either valid or not, see `halve`.
    """

    shape: tuple[int, int]
    read: Callable[[Box], NDArray[np.uint8]]
    binary: bool = False


def tile_count(shape: tuple[int, int], side: int = TILE) -> int:
    """How many tiles a Deep Zoom image has, all levels together."""
    levels = (halved(shape, k) for k in range(dzi_levels(*shape)))
    return sum(ceil_div(h, side) * ceil_div(w, side) for h, w in levels)


def write_tree(path: Path, picture: Picture, quality: int, progress: Progress = silent) -> None:
    """Write the file ``path``, which ends in ``.dzi``, and the folder of its tiles beside it.

    Levels are means of 2 x 2 pixels, weighted by alpha. Tiles are JPEG of that quality, or PNG for a picture
    with alpha. ``progress`` is called with "writing" and numbers of pixels.

    Raises
    ------
    UrstError : the picture cannot be read.
    """
    with ThreadPoolExecutor(decoder_count(), "encode") as pool:
        tree = _Tree(path, picture, quality, progress, pool)
        tree.made(dzi_levels(*picture.shape) - 1, 0, 0)
    path.write_text(description(picture.shape, TILE, tree.kind))


class _Tree:
    """The tiles that are being written."""

    def __init__(
        self, path: Path, picture: Picture, quality: int, progress: Progress, pool: ThreadPoolExecutor
    ) -> None:
        self._folder, self._picture, self._quality = tiles_of_dzi(path), picture, quality
        self._progress, self._pool, self._done = progress, pool, 0
        self._top = dzi_levels(*picture.shape) - 1
        self.kind = ""

    def made(self, halvings: int, row: int, column: int) -> NDArray[np.uint8]:
        """The pixels of a tile, after it and all below it were written."""
        if halvings <= HALVINGS:
            return self._read(halvings, row, column)
        below = [
            [
                self.made(halvings - 1, y, x)
                for x in (2 * column, 2 * column + 1)
                if self._is(halvings - 1, y, x)
            ]
            for y in (2 * row, 2 * row + 1)
            if self._is(halvings - 1, y, 2 * column)
        ]
        pixels = halve(
            np.concatenate([np.concatenate(line, 1) for line in below]), binary=self._picture.binary
        )
        self._write(halvings, row, column, pixels)
        return pixels

    def _is(self, halvings: int, row: int, column: int) -> bool:
        """Whether there is such a tile."""
        h, w = halved(self._picture.shape, halvings)
        return row * TILE < h and column * TILE < w

    def _read(self, halvings: int, row: int, column: int) -> NDArray[np.uint8]:
        """As `made`, of a box that is read at once."""
        side = TILE << halvings
        box = Box(row * side, column * side, (row + 1) * side, (column + 1) * side)
        box = box.clip(Box(0, 0, *self._picture.shape))
        pixels = self._picture.read(box)
        for number in range(halvings + 1):
            pixels = halve(pixels, binary=self._picture.binary) if number else pixels
            self._cut(number, row << halvings - number, column << halvings - number, pixels)
        self._done += box.area
        self._progress("writing", self._done, self._picture.shape[0] * self._picture.shape[1])
        return pixels

    def _cut(self, halvings: int, row: int, column: int, pixels: NDArray[np.uint8]) -> None:
        """Write the tiles of a piece of a level whose first tile is that of ``row`` and ``column``."""
        cells = list(Box(0, 0, *pixels.shape[:2]).cells(TILE))

        def write(cell: Box) -> None:
            self._write(halvings, row + cell.y0 // TILE, column + cell.x0 // TILE, pixels[cell.slices])

        list(self._pool.map(write, cells))

    def _write(self, halvings: int, row: int, column: int, pixels: NDArray[np.uint8]) -> None:
        self.kind = "jpg" if pixels.shape[2] == 3 else "png"
        path = self._folder / str(self._top - halvings) / f"{column}_{row}.{self.kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels, self._quality))
