"""An image at half its size that is halved where it is read, so that a place of it can be had without a copy
of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from urst_tiles.geometry import Box
from urst_tiles.machine import mapped
from urst_tiles.source.identity import Content
from urst_tiles.source.levels import halved, shape_above, source_above
from urst_tiles.source.openers import Reader, bands_of
from urst_tiles.source.source import Source
from urst_tiles.source.valid import Samples

#: How many pixels of the image are read at once, about, and how many rows of them are halved at once.
READ_PIXELS, HALVED_ROWS = 1 << 24, 128


class HalvesReader:
    """Reads an image at half its size: the very pixels that a copy of `level_above` has; the attributes are
    those of `Reader`."""

    def __init__(self, source: Source) -> None:
        what = shape_above(source)
        self._source = source
        self.shape, self.alone = what.shape, True
        self.levels: tuple[tuple[int, int], ...] = ()
        self.dtype, self.colours, self.has_valid = source.dtype, what.colours, what.has_valid
        self.cell_shape = what.shape  # of one cell: the image beneath shares the decoding out among threads

    def cell(self, box: Box, level: int = 0) -> Samples:
        out = mapped((*box.shape, self._source.channels), self.dtype)
        whole = Box(0, 0, *self._source.shape)
        rows = max(1, READ_PIXELS // (4 * box.shape[1]))
        for y in range(box.y0 // rows * rows, box.y1, rows):
            part = Box(y, box.x0, y + rows, box.x1).clip(box)
            pixels = self._source.read(part.times(2).clip(whole))
            into = out[part.within(box).slices]
            for row in range(0, len(pixels), HALVED_ROWS):
                into[row // 2 : (row + HALVED_ROWS) // 2] = halved(pixels[row : row + HALVED_ROWS])
        return Samples(out[..., :3], out[..., 3] if self.has_valid else None)


@dataclass(frozen=True)
class HalvesOpener:
    """Opens a prepared image at half its size.

    Attributes
    ----------
    source : the image.
    files : empty, since reading the image checks that its file has not changed.
    """

    source: Source
    files: ClassVar[tuple[Path, ...]] = ()
    content: ClassVar[None] = None
    many: ClassVar[bool] = False

    def with_content(self, content: Content) -> HalvesOpener:
        """This opener: there is no content to know."""
        return self

    def check(self) -> None:
        """Check nothing: reading the image does."""

    def open(self) -> Reader:
        return HalvesReader(self.source)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        return bands_of(self.open(), rows)


def halves_of(source: Source) -> Source:
    """The image at half its size, halved where it is read; otherwise as that of `level_above`.

    ``source`` is prepared, and so need not be what is returned unless pixels are invalid.
    """
    pixels = READ_PIXELS + 8 * HALVED_ROWS * source.shape[1]  # as they are read, and of a few rows as floats
    room = pixels * source.channels * np.dtype(source.dtype).itemsize
    return source_above(source, HalvesOpener(source), source.reader_bytes + room)
