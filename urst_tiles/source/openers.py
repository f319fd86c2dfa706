"""How a source's pixels are reached: small records that pickle, each opened once per process."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from urst_tiles.geometry import Box
from urst_tiles.source.pool import THREADS, in_order
from urst_tiles.source.spool import Shape, SpoolReader
from urst_tiles.source.tiff import TiffFile, TiffReader, mask_of
from urst_tiles.source.valid import Samples, combine, full, weight_dtype
from urst_tiles.source.vips import VipsReader, stream


class Reader(Protocol):
    """Samples of an image as stored, cell by cell; thread-safe."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    colours: int
    has_valid: bool
    cell_shape: tuple[int, int]
    levels: tuple[tuple[int, int], ...]
    alone: bool  # whether neighbouring bands must not be read at once, as they share a large segment

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box of the image (level 0) or of an overview. Raises DamagedFile."""


class Opener(Protocol):
    """Makes a reader, in any process."""

    def open(self) -> Reader:
        """The reader; cheap, only headers are read."""

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """Samples from top to bottom in bands of ``rows`` rows."""


@dataclass(frozen=True)
class TiffOpener:
    """A TIFF that tifffile decodes; ``mask`` is its ``.msk`` sidecar."""

    path: Path
    bands: tuple[int, ...] | None
    mask: Path | None = None

    def open(self) -> Reader:
        """See `Opener`."""
        return masked(TiffReader(self.path, self.bands), self.mask)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        return _bands(self.open(), rows)


@dataclass(frozen=True)
class VipsOpener:
    """A file to which libvips has random access."""

    path: Path
    loader: str
    bands: tuple[int, ...] | None
    mask: Path | None = None

    def open(self) -> Reader:
        """See `Opener`."""
        return masked(VipsReader(self.path, self.loader, self.bands), self.mask)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        mask = None if self.mask is None else sidecar_mask(self.mask)
        for box, samples in stream(self.path, self.loader, self.bands, rows):
            yield box, samples if mask is None else with_mask(samples, mask, box)


@dataclass(frozen=True)
class SpoolOpener:
    """What was spooled."""

    folder: Path
    what: Shape

    def open(self) -> Reader:
        """See `Opener`."""
        return SpoolReader(self.folder, self.what)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        return _bands(self.open(), rows)


@dataclass(frozen=True, eq=False)
class ArrayOpener:
    """A NumPy or zarr array (H, W, 3 or 4), uint8 or uint16."""

    array: Any

    def open(self) -> Reader:
        """See `Opener`."""
        return ArrayReader(self.array)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        return _bands(self.open(), rows)


def _bands(reader: Reader, rows: int) -> Iterator[tuple[Box, Samples]]:
    height, width = reader.shape
    boxes = (Box(y, 0, min(y + rows, height), width) for y in range(0, height, rows))
    if reader.alone:
        return ((box, reader.cell(box)) for box in boxes)
    return in_order(lambda box: (box, reader.cell(box)), boxes, ahead=THREADS)


class ArrayReader:
    """Samples of an array in memory, or of a zarr array."""

    levels: tuple[tuple[int, int], ...] = ()
    cell_shape = (1024, 1024)
    alone = False

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.dtype, self.colours, self.has_valid = np.dtype(array.dtype), 3, array.shape[2] == 4

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box."""
        pixels = np.asarray(self._array[box.slices])
        return Samples(pixels[..., :3], pixels[..., 3] if self.has_valid else None)


class Masked:
    """A reader whose pixels a ``.msk`` sidecar makes invalid."""

    def __init__(self, reader: Reader, mask: Path) -> None:
        self._reader, self._mask = reader, sidecar_mask(mask)
        self.shape, self.dtype, self.colours, self.has_valid = (
            reader.shape,
            reader.dtype,
            reader.colours,
            True,
        )
        self.cell_shape, self.levels, self.alone = reader.cell_shape, (), reader.alone

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box. Raises DamagedFile."""
        return with_mask(self._reader.cell(box, level), self._mask, box)


def sidecar_mask(path: Path) -> Any:
    """The pages of a ``.msk`` file: a TIFF whose first page is the mask."""
    file = TiffFile(path)
    return file.segments(file.directories[:1])[0]


def with_mask(samples: Samples, mask: Any, box: Box) -> Samples:
    """Samples, invalid where the mask is."""
    out = weight_dtype(samples.colour.dtype)
    weight = samples.weight
    if weight is None:
        weight = np.full(box.shape, full(out), out)
    return Samples(samples.colour, combine(weight, mask_of(mask, box), out))


def masked(reader: Reader, mask: Path | None) -> Reader:
    """The reader, under its sidecar where it has one."""
    return reader if mask is None else Masked(reader, mask)


@functools.lru_cache(maxsize=16)
def _open_hashable(opener: Opener) -> Reader:
    return opener.open()


def reader_of(opener: Opener) -> Reader:
    """The reader of an opener, shared by all threads of this process."""
    return opener.open() if isinstance(opener, ArrayOpener) else _open_hashable(opener)
