"""Which pixels of an image the user calls valid: an area, besides what the file itself says.

An area is known from its description: a mask file, the tissue of a slide, polygons. When a source is prepared
it becomes an `Inside`, which says of any box of pixels, at full resolution and in overviews, what lies in the
area. What lies outside has the weight 0, as any invalid pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urst_tiles.field import raster_at
from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count
from urst_tiles.progress import Progress
from urst_tiles.source.identity import Content
from urst_tiles.source.openers import Opener, Reader, reader_of
from urst_tiles.source.orient import as_stored, oriented, shown_box
from urst_tiles.source.thumbnail import Thumbnail
from urst_tiles.source.valid import Samples, combine, weight_dtype

Mask = NDArray[np.bool_]

#: The pixels of a cell that is read at once, and the bytes of memory for each while it is marked.
CELL_PIXELS, PIXEL_BYTES = 1 << 20, 6


class Inside(Protocol):
    """An area that is ready to be read; can be pickled.

    Attributes
    ----------
    finest : (height, width) of the raster that the area is told in, upright; None for exact borders.
    """

    @property
    def finest(self) -> tuple[int, int] | None: ...

    def inside(self, box: Box, shape: tuple[int, int]) -> Mask:
        """Which pixels of ``box`` lie in the area, bool, (h, w): those whose middle does.

        ``box`` is a box of the upright image, or of an overview of it, which has ``shape`` (height, width).
        """


class Area(Protocol):
    """What the user calls valid.

    Attributes
    ----------
    fingerprint : identifies the area: what it is, and the content of its file.
    files : the files that it is read from.
    outline : the smallest box of pixels of the upright image that holds all of it; None if that is not known.
    needs_thumbnail : whether it follows from the image itself.
    unpainted : whether what lies outside comes out as it is in the image, and not black.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def outline(self) -> Box | None: ...

    @property
    def needs_thumbnail(self) -> bool: ...

    @property
    def unpainted(self) -> bool: ...

    def saved_paths(self, folder: Path) -> Iterator[Path]:
        """The files that ``placed`` writes into ``folder``."""

    def placed(self, folder: Path | None, thumbnail: Thumbnail | None, progress: Progress) -> Inside:
        """The area ready to be read; what it needs is saved in ``folder``, or stays in memory if that is
        None. ``thumbnail`` is that of the image, upright, if ``needs_thumbnail``."""


@dataclass(frozen=True, eq=False)
class AreaOpener:
    """Opens an image through another opener, and marks what lies outside of areas as invalid.

    Attributes
    ----------
    opener : gives access to the pixels.
    areas : a pixel is valid if it lies inside all of them.
    orientation : 1 to 8, by which areas, which are upright, are turned as the pixels are stored.
    """

    opener: Opener
    areas: tuple[Inside, ...]
    orientation: int = 1

    @property
    def files(self) -> tuple[Path, ...]:
        return self.opener.files

    @property
    def content(self) -> Content | None:
        return self.opener.content

    @property
    def many(self) -> bool:
        return self.opener.many

    def with_content(self, content: Content) -> AreaOpener:
        return replace(self, opener=self.opener.with_content(content))

    def check(self) -> None:
        self.opener.check()

    def open(self) -> AreaReader:
        return AreaReader(reader_of(self.opener), self.areas, self.orientation)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        reader = self.open()
        for box, samples in self.opener.stream(rows):
            yield box, reader.marked(samples, box)


class AreaReader:
    """Reads the samples of another reader; the weight of what lies outside of the areas is 0.

    It has the overviews that are at least as fine as every area: in a coarser one a pixel may be valid in
    part, and its colour a mixture.
    """

    def __init__(self, reader: Reader, areas: tuple[Inside, ...], orientation: int) -> None:
        self._reader, self._areas, self._orientation = reader, areas, orientation
        self.shape, self.dtype, self.colours = reader.shape, reader.dtype, reader.colours
        self.cell_shape, self.alone, self.has_valid = reader.cell_shape, reader.alone, True
        self.levels = tuple(level for level in reader.levels if self._suits(level))
        self._numbers = [0, *(reader.levels.index(level) + 1 for level in self.levels)]

    def _suits(self, level: tuple[int, int]) -> bool:
        """Whether an overview is at least as fine as all areas."""
        h, w = oriented(level, self._orientation)
        finest = [area.finest for area in self._areas if area.finest is not None]
        return all(h >= rows and w >= columns for rows, columns in finest)

    def cell(self, box: Box, level: int = 0) -> Samples:
        return self.marked(self._reader.cell(box, self._numbers[level]), box, level)

    def marked(self, samples: Samples, box: Box, level: int = 0) -> Samples:
        """The samples of a box of the image, or of overview ``level - 1``, without what lies outside."""
        stored = self.shape if level == 0 else self.levels[level - 1]
        shape = oriented(stored, self._orientation)
        upright = shown_box(box, stored, self._orientation)
        inside: Any = True
        for area in self._areas:
            inside = area.inside(upright, shape) & inside
        valid = as_stored(inside, self._orientation)
        dtype = weight_dtype(samples.colour.dtype)
        return Samples(samples.colour, combine(samples.weight, valid, dtype))


def area_bytes(areas: tuple[Area, ...]) -> int:
    """Bytes of memory that marking what lies outside of areas takes at most: for each thread that reads, a
    cell's validity, what toggles it, and its weight."""
    return decoder_count() * CELL_PIXELS * PIXEL_BYTES if areas else 0


def lines(start: int, stop: int, length: int, count: int) -> NDArray[np.int64]:
    """For the middle of each line start..stop - 1 of ``length``, the line of a raster of ``count`` there."""
    return (2 * np.arange(start, stop, dtype=np.int64) + 1) * count // (2 * length)


@dataclass(frozen=True, eq=False)
class RasterInside:
    """An area told by a raster of any resolution that covers the whole image.

    Attributes
    ----------
    raster : bool or uint8, (h, w), 0 outside; or the path of a ``.npy`` file that holds it.
    """

    raster: NDArray[Any] | Path

    @property
    def finest(self) -> tuple[int, int]:
        height, width = self._open().shape
        return height, width

    def inside(self, box: Box, shape: tuple[int, int]) -> Mask:
        raster = self._open()
        rows = lines(box.y0, box.y1, shape[0], raster.shape[0])
        columns = lines(box.x0, box.x1, shape[1], raster.shape[1])
        top, left = int(rows[0]), int(columns[0])
        part = np.array(raster[top : rows[-1] + 1, left : columns[-1] + 1]) > 0
        return part[rows - top][:, columns - left]

    def _open(self) -> NDArray[Any]:
        return self.raster if isinstance(self.raster, np.ndarray) else raster_at(self.raster)
