"""An image at a half, a quarter, an eighth ... of its size, to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box, halved
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.source.source import Source

#: Pixels that are read at most to reduce them to one box.
MOST_PIXELS = 1 << 24


class ScaledSource:
    """A prepared source at 1 / 2 ** ``number`` of its size, read like a source.

    A box comes from an overview of the file that has that size, else from the image or a larger overview,
    whose pixels are averaged; where that would take more than ``MOST_PIXELS``, from the thumbnail, enlarged.

    Attributes
    ----------
    shape : (height, width) in pixels: those of the source divided by 2 ** ``number``, rounded up.
    channels, colours, has_valid, unpainted, dtype : as in `Source`.
    """

    def __init__(self, source: Source, number: int) -> None:
        self._source, self._number = source, number
        self.channels, self.dtype = source.channels, source.dtype
        self.colours, self.has_valid, self.unpainted = source.colours, source.has_valid, source.unpainted
        self.shape = halved(source.shape, number)
        self._nearest = self._nearest_level()

    def _nearest_level(self) -> tuple[int, int]:
        """How often what is read was halved, and its number among the overviews, counted from 1; the image
        itself is (0, 0)."""
        for halvings in range(self._number, 0, -1):
            h, w = halved(self._source.shape, halvings)
            for number, (rows, columns) in enumerate(self._source.overviews, 1):
                if abs(rows - h) <= 1 and abs(columns - w) <= 1:
                    return halvings, number
        return 0, 0

    @property
    def thumbnail(self) -> NDArray[Any]:
        """The thumbnail of the source."""
        return self._source.thumbnail

    @property
    def saved_thumbnail(self) -> Path | None:
        """The file of that thumbnail; None if it is in memory."""
        return self._source.saved_thumbnail

    def read(self, box: Box) -> NDArray[Any]:
        """The pixels, (h, w, channels), of ``dtype``, of a box inside this image.

        Raises
        ------
        ValueError : the box is empty or reaches beyond the image.
        DamagedFile : as `Source.read`.
        """
        if box.area == 0 or not Box(0, 0, *self.shape).contains(box):
            raise ValueError(f"{box} does not lie inside an image of {self.shape[1]} x {self.shape[0]}")
        halvings, overview = self._nearest
        times = self._number - halvings
        if box.area << 2 * times > MOST_PIXELS:
            return self._from_thumbnail(box)
        h, w = self._source.overviews[overview - 1] if overview else self._source.shape
        inside = box.times(1 << times).clip(Box(0, 0, h, w)).at_least(1, Box(0, 0, h, w))
        pixels = self._source.read_overview(inside, overview) if overview else self._source.read(inside)
        reduced = [pixels, *levels_below(pixels, times)][-1]
        rows, columns = box.shape[0] - len(reduced), box.shape[1] - reduced.shape[1]
        if rows or columns:  # the overview is a pixel smaller than its halves rounded up
            reduced = np.pad(reduced, ((0, max(0, rows)), (0, max(0, columns)), (0, 0)), mode="edge")
        return reduced[: box.shape[0], : box.shape[1]]

    def _from_thumbnail(self, box: Box) -> NDArray[Any]:
        """The same box of the thumbnail, enlarged bilinearly."""
        small = self._source.thumbnail
        rows = _positions(box.y0, box.y1, self.shape[0], len(small))
        columns = _positions(box.x0, box.x1, self.shape[1], small.shape[1])
        top, bottom, down = rows
        left, right, across = columns
        down, across = down[:, None, None], across[None, :, None]
        upper = small[top][:, left] * (1 - across) + small[top][:, right] * across
        lower = small[bottom][:, left] * (1 - across) + small[bottom][:, right] * across
        return np.rint(upper * (1 - down) + lower * down).astype(self.dtype)


def _positions(start: int, stop: int, n: int, small: int) -> tuple[Any, Any, Any]:
    """For pixels start..stop-1 of a line of n pixels the two nearest of a line of ``small`` pixels, and the
    share of the second."""
    at = np.clip((np.arange(start, stop) + 0.5) * small / n - 0.5, 0, small - 1)
    first = np.floor(at).astype(int)
    return first, np.minimum(first + 1, small - 1), (at - first).astype(np.float32)
