"""How a source's pixels are reached: small records that pickle, each opened once per process."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count, decoders, in_order
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import file_fingerprint, tiff_fingerprint
from urst_tiles.source.spool import Shape, SpoolReader
from urst_tiles.source.tiff import TiffReader, mask_of
from urst_tiles.source.valid import Samples, combine, full, weight_dtype
from urst_tiles.source.vips import VipsReader, stream
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.segments import Segments, Undecodable


class Reader(Protocol):
    """Samples of an image as stored, cell by cell; thread-safe.

    Attributes
    ----------
    cell_shape : (height, width) of the cells that are cheap to read; any other box works too.
    levels : shapes of the overviews.
    alone : whether neighbouring bands of rows should not be read at once, as they share a large segment.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    colours: int
    has_valid: bool
    cell_shape: tuple[int, int]
    levels: tuple[tuple[int, int], ...]
    alone: bool

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box of the image (level 0) or of an overview. Raises DamagedFile."""


class Opener(Protocol):
    """Makes a reader, in any process."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What others may change while it is read."""

    def check(self) -> None:
        """Raise DamagedFile where these are no longer what they were."""

    def open(self) -> Reader:
        """The reader; cheap, only headers are read."""

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """Samples from top to bottom in bands of ``rows`` rows."""


@dataclass(frozen=True)
class TiffOpener:
    """A TIFF that tifffile decodes, and its ``.msk`` sidecar; ``fingerprint`` notices when it is no longer
    the same."""

    path: Path
    bands: tuple[int, ...] | None
    sidecars: tuple[Path, ...]
    mask: Path | None
    fingerprint: str

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Opener`."""
        return (self.path, *self.sidecars)

    def check(self) -> None:
        """See `Opener`."""
        check_file(self.path)
        _check_same(self.path, self.fingerprint, tiff_fingerprint(TiffFile(self.path), self.sidecars))

    def open(self) -> Reader:
        """See `Opener`."""
        reader = TiffReader(self.path, self.bands)
        _check_same(self.path, self.fingerprint, tiff_fingerprint(reader.file, self.sidecars))
        return _masked(reader, self.mask)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        yield from _bands(self.open(), rows)
        self.check()


@dataclass(frozen=True)
class VipsOpener:
    """A file that libvips reads, at random or from top to bottom."""

    path: Path
    loader: str
    bands: tuple[int, ...] | None
    nodata: str | None
    sidecars: tuple[Path, ...]
    mask: Path | None
    fingerprint: str

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Opener`."""
        return (self.path, *self.sidecars)

    def check(self) -> None:
        """See `Opener`."""
        check_file(self.path)
        _check_same(self.path, self.fingerprint, file_fingerprint(self.path, self.sidecars))

    def open(self) -> Reader:
        """See `Opener`."""
        self.check()
        return _masked(VipsReader(self.path, self.loader, self.bands, self.nodata), self.mask)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        self.check()
        mask = None if self.mask is None else open_mask(self.mask)
        for box, samples in stream(self.path, self.loader, self.bands, self.nodata, rows):
            yield box, samples if mask is None else _with_mask(samples, mask, box)
        self.check()


@dataclass(frozen=True)
class SpoolOpener:
    """What was spooled."""

    folder: Path
    what: Shape
    files: ClassVar[tuple[Path, ...]] = ()

    def check(self) -> None:
        """Nobody else writes there, and every chunk proves itself."""

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
    files: ClassVar[tuple[Path, ...]] = ()

    def check(self) -> None:
        """It is the caller's."""

    def open(self) -> Reader:
        """See `Opener`."""
        return ArrayReader(self.array)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """See `Opener`."""
        return _bands(self.open(), rows)


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


class MaskedReader:
    """A reader whose pixels a ``.msk`` sidecar makes invalid; its overviews have no such mask, hence none
    serves."""

    def __init__(self, reader: Reader, mask: Path) -> None:
        self._reader, self._mask = reader, open_mask(mask)
        self.shape, self.dtype, self.colours, self.has_valid = (
            reader.shape,
            reader.dtype,
            reader.colours,
            True,
        )
        self.cell_shape, self.alone = reader.cell_shape, reader.alone
        self.levels: tuple[tuple[int, int], ...] = ()

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box. Raises DamagedFile."""
        return _with_mask(self._reader.cell(box, level), self._mask, box)


def open_mask(path: Path) -> Segments:
    """The first page of a ``.msk`` file. Raises DamagedFile."""
    file = TiffFile(path)
    (page,) = file.segments(file.directories[:1])
    if isinstance(page, Undecodable):
        raise DamagedFile(
            f"{path} is no mask that can be read ({page}); remove it, or make it anew with GDAL"
        )
    return page


def _with_mask(samples: Samples, mask: Segments, box: Box) -> Samples:
    out, weight = weight_dtype(samples.colour.dtype), samples.weight
    if weight is None:
        weight = np.full(box.shape, full(out), out)
    return Samples(samples.colour, combine(weight, mask_of(mask, box), out))


def _masked(reader: Reader, mask: Path | None) -> Reader:
    return reader if mask is None else MaskedReader(reader, mask)


class Watch:
    """Notices that files changed while they are in use: size, time or inode tell that something happened,
    and the content whether it matters."""

    def __init__(self, opener: Opener) -> None:
        self._opener, self._seen = opener, _stamps(opener.files)

    def __call__(self) -> None:
        """Raise DamagedFile where something else is being read by now."""
        now = _stamps(self._opener.files)
        if now != self._seen:
            self._opener.check()
            self._seen = now


def _stamps(files: tuple[Path, ...]) -> list[tuple[int, int, int] | None]:
    """Size, time of change and inode of each; None for what is gone."""
    found = [os.stat(path) if path.exists() else None for path in files]
    return [one and (one.st_size, one.st_mtime_ns, one.st_ino) for one in found]


def _check_same(path: Path, expected: str, found: str) -> None:
    if expected != found:
        raise DamagedFile(
            f"{path} was changed while in use; put the old file back, or start anew with the new one"
        )


def _bands(reader: Reader, rows: int) -> Iterator[tuple[Box, Samples]]:
    height, width = reader.shape
    boxes = (Box(y, 0, min(y + rows, height), width) for y in range(0, height, rows))
    if reader.alone:
        return ((box, reader.cell(box)) for box in boxes)
    return in_order(decoders(), lambda box: (box, reader.cell(box)), boxes, ahead=decoder_count())


@functools.lru_cache(maxsize=16)
def _open_once(opener: TiffOpener | VipsOpener | SpoolOpener) -> tuple[Reader, Watch]:
    watch = Watch(opener)  # before it opens
    return opener.open(), watch


def reader_of(opener: Opener) -> Reader:
    """The reader of an opener, shared by all threads of this process."""
    if isinstance(opener, TiffOpener | VipsOpener | SpoolOpener):
        return _open_once(opener)[0]
    return opener.open()


def check_unchanged(opener: Opener) -> None:
    """Raise DamagedFile where the files of a reader in use are no longer what they were."""
    if isinstance(opener, TiffOpener | VipsOpener):
        _open_once(opener)[1]()
