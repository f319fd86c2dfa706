"""Access to the pixels of a source.

An opener is a small record that can be pickled and says how to reach the pixels. Each process makes one
reader from it, which all threads share.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count, decoders, in_order
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import (
    Content,
    content_of,
    file_fingerprint,
    stamps_of,
    tiff_fingerprint,
)
from urst_tiles.source.spool import Original, Shape, SpoolReader
from urst_tiles.source.tiff import TiffReader, mask_of, mask_page
from urst_tiles.source.valid import Samples, combine, full, samples_of, weight_dtype
from urst_tiles.source.vips import Place, VipsReader, stream
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.georeference import NO_BANDS, PamBands
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.segments import Segments
from urst_tiles.tiff.selection import select


class Reader(Protocol):
    """Reads samples of an image as the file stores them. Several threads may use it at the same time.

    Attributes
    ----------
    shape : (height, width) in pixels, as stored.
    dtype : dtype of the colours.
    colours : how many bands of colour there are, 1 or 3.
    has_valid : whether the samples come with a weight that says how valid each pixel is.
    cell_shape : (height, width) of the cells that are cheap to read; any other box works too.
    levels : (height, width) of each overview, as stored.
    alone : whether bands of rows should be read one after another, as they share large segments.

    A reader may also have ``into``, a function that reads a box of a level into an array (h, w, colours), or
    None where `cell` must be called: that saves a copy.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    colours: int
    has_valid: bool
    cell_shape: tuple[int, int]
    levels: tuple[tuple[int, int], ...]
    alone: bool

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box of the image (level 0), or of overview ``level - 1``.

        Raises
        ------
        DamagedFile : a part of the box cannot be decoded.
        """


class Opener(Protocol):
    """Makes a reader of an image in any process; can be pickled."""

    @property
    def many(self) -> bool:
        """Whether there may be thousands of files, over which the reader itself watches."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the pixels come from, and that other programs may change while they are read."""

    @property
    def content(self) -> Content | None:
        """The whole content of these files when the job began; None if nobody has read it yet."""

    def with_content(self, content: Content) -> Opener:
        """This opener, which knows the whole content that its files had when the job began."""

    def check(self) -> None:
        """Raise DamagedFile if the content of these files has changed since the source was opened."""

    def open(self) -> Reader:
        """Make the reader. This is cheap: only headers are read."""

    def __hash__(self) -> int:
        """Equal openers have one reader in a process."""

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """Yield (box, samples) for bands of ``rows`` rows and the full width, from top to bottom."""


class FileOpener:
    """What openers of files have in common: they read rows box by box, and see whether the content of their
    ``files``, the first of which is that with their name, is still that of their ``fingerprint``."""

    def with_content(self: Any, content: Content) -> Any:
        return replace(self, content=content)

    def check(self: Any) -> None:
        first, *more = self.files
        check_file(first)
        if not is_whole(self):
            check_same(self.path, self.fingerprint, file_fingerprint(first, more))

    def stream(self: Any, rows: int) -> Iterator[tuple[Box, Samples]]:
        yield from bands_of(self.open(), rows)
        self.check()


@dataclass(frozen=True)
class TiffOpener(FileOpener):
    """Opens a TIFF that tifffile decodes.

    Attributes
    ----------
    path : the file.
    choice : the page, and the channels or bands, that the user chose.
    sidecars : paths of all files that belong to the image.
    mask : path of the ``.msk`` sidecar, which is then among ``sidecars``, or None.
    fingerprint : the fingerprint of the file and its sidecars when the source was opened.
    pam : what GDAL's file beside it says about the bands.
    content : the whole content of these files when the job began; None outside of jobs.
    """

    path: Path
    choice: Choice
    sidecars: tuple[Path, ...]
    mask: Path | None
    fingerprint: str
    pam: PamBands = NO_BANDS
    content: Content | None = None
    many: ClassVar[bool] = False

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path, *self.sidecars)

    def check(self) -> None:
        check_file(self.path)
        if not is_whole(self):
            check_same(self.path, self.fingerprint, tiff_fingerprint(TiffFile(self.path), self.sidecars))

    def open(self) -> Reader:
        reader = TiffReader(self.path, self.choice, self.pam)
        check_same(self.path, self.fingerprint, tiff_fingerprint(reader.file, self.sidecars))
        return masked(reader, self.mask)


@dataclass(frozen=True)
class VipsOpener(FileOpener):
    """Opens a file that libvips decodes, at random or from top to bottom.

    Attributes
    ----------
    path : the file.
    loader : the libvips loader of the file, such as "jpegload".
    choice : the page, and the channels or bands, that the user chose.
    nodata : the nodata value as GDAL writes it, or None.
    sidecars : paths of all files that belong to the image.
    mask : path of the ``.msk`` sidecar, which is then among ``sidecars``, or None.
    fingerprint : the fingerprint of the file and its sidecars when the source was opened.
    masked : whether a page of the file, a TIFF, is the mask of its image.
    place : where libvips finds the page that is read, as `open_image` takes it.
    content : the whole content of these files when the job began; None outside of jobs.
    """

    path: Path
    loader: str
    choice: Choice
    nodata: str | None
    sidecars: tuple[Path, ...]
    mask: Path | None
    fingerprint: str
    masked: bool = False
    place: Place = None
    content: Content | None = None
    many: ClassVar[bool] = False

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path, *self.sidecars)

    def open(self) -> Reader:
        self.check()
        reader: Reader = VipsReader(self.path, self.loader, self.choice.wanted, self.nodata, self.place)
        for mask in self._masks():
            reader = MaskedReader(reader, mask)
        return reader

    def _masks(self) -> list[Segments]:
        """The masks inside and beside the file."""
        masks = [inner_mask(self.path, self.choice)] if self.masked else []
        return masks if self.mask is None else [*masks, open_mask(self.mask)]

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        self.check()
        masks = self._masks()
        bands = self.choice.wanted
        for box, samples in stream(self.path, self.loader, bands, self.nodata, rows, self.place):
            for mask in masks:
                samples = _with_mask(samples, mask, box)
            yield box, samples
        self.check()


@dataclass(frozen=True)
class SpoolOpener:
    """Opens a spool, that is, a copy of the samples that allows random access.

    Attributes
    ----------
    folder : the folder of the spool.
    what : the shape and the dtype of the samples in it.
    original : opens the file from which the spool was made; what is damaged is made again from it.
    files : empty, since only the job itself writes to its spool.
    """

    folder: Path
    what: Shape
    original: Original
    files: ClassVar[tuple[Path, ...]] = ()
    content: ClassVar[None] = None
    many: ClassVar[bool] = False

    def with_content(self, content: Content) -> SpoolOpener:
        """This opener: there is no content to know."""
        return self

    def check(self) -> None:
        """Check nothing: only the job itself writes to its spool, and every chunk has a checksum."""

    def open(self) -> Reader:
        return SpoolReader(self.folder, self.what, self.original)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        return bands_of(self.open(), rows)


@dataclass(frozen=True, eq=False)
class ArrayOpener:
    """Opens an array.

    Attributes
    ----------
    array : NumPy or zarr array, (H, W, channels), uint8 or uint16.
    colours : how many of the channels are colours; one more is the weight.
    files : empty, since the pixels come from no file.
    """

    array: Any
    colours: int = 3
    files: ClassVar[tuple[Path, ...]] = ()
    content: ClassVar[None] = None
    many: ClassVar[bool] = False

    def with_content(self, content: Content) -> ArrayOpener:
        """This opener: there is no content to know."""
        return self

    def check(self) -> None:
        """Check nothing: the caller answers for the content of the array."""

    def open(self) -> Reader:
        return ArrayReader(self.array, self.colours)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        return bands_of(self.open(), rows)


class ArrayReader:
    """Reads samples of a NumPy or zarr array, (H, W, channels); one behind the colours is the weight."""

    levels: tuple[tuple[int, int], ...] = ()
    cell_shape = (1024, 1024)
    alone = False

    def __init__(self, array: Any, colours: int = 3) -> None:
        self._array = array
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.dtype, self.colours = np.dtype(array.dtype), colours
        self.has_valid = array.shape[2] > colours

    def cell(self, box: Box, level: int = 0) -> Samples:
        return samples_of(np.asarray(self._array[box.slices]), self.colours)


class MaskedReader:
    """Reads the samples of another reader, and marks pixels as invalid where a mask says so.

    It has no overviews, since there are no masks for them.
    """

    def __init__(self, reader: Reader, mask: Segments) -> None:
        self._reader, self._mask = reader, mask
        self.shape, self.dtype, self.colours, self.has_valid = (
            reader.shape,
            reader.dtype,
            reader.colours,
            True,
        )
        self.cell_shape, self.alone = reader.cell_shape, reader.alone
        self.levels: tuple[tuple[int, int], ...] = ()

    def cell(self, box: Box, level: int = 0) -> Samples:
        return _with_mask(self._reader.cell(box, level), self._mask, box)


def open_mask(path: Path) -> Segments:
    """The first page of the ``.msk`` file ``path``. Raises DamagedFile if it cannot be decoded."""
    file = TiffFile(path)
    return mask_page(file, file.directories[0])


def check_mask(path: Path, mask: Path | None, shape: tuple[int, int]) -> None:
    """Raise BadInput if the ``.msk`` file of an image does not have its shape, (height, width)."""
    if mask is not None and open_mask(mask).shape != shape:
        raise BadInput(f"{mask} is a mask of another size than {path}; remove it, or make it anew")


def inner_mask(path: Path, choice: Choice) -> Segments:
    """The page of the TIFF ``path`` that is the mask of the image chosen there. Raises DamagedFile."""
    file = TiffFile(path)
    mask = select(file, choice).pages.mask
    if mask is None:
        raise DamagedFile(f"{path}: its mask is gone; the file was changed while in use")
    return mask_page(file, mask)


def _with_mask(samples: Samples, mask: Segments, box: Box) -> Samples:
    """The samples of ``box`` with weight 0 where ``mask`` says invalid."""
    out, weight = weight_dtype(samples.colour.dtype), samples.weight
    if weight is None:
        weight = np.full(box.shape, full(out), out)
    return Samples(samples.colour, combine(weight, mask_of(mask, box), out))


def masked(reader: Reader, mask: Path | None) -> Reader:
    """The reader, with the mask if there is a mask."""
    return reader if mask is None else MaskedReader(reader, open_mask(mask))


class FileWatch:
    """Notices that the files of an opener are changed while they are in use, or were since the job began.

    A new size, time or inode of a file is a reason to look; whether the content differs decides.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._seen = opener.content.stamps if opener.content else stamps_of(opener.files)

    def __call__(self) -> None:
        """Raise DamagedFile if the content of the files has changed."""
        now = stamps_of(self._opener.files)
        if now != self._seen:
            self._opener.check()
            self._seen = now


def is_whole(opener: Any) -> bool:
    """Whether an opener with a ``path`` knows the whole content of its files, and they still have it.

    Raises
    ------
    DamagedFile : they have another.
    """
    if opener.content is None:
        return False
    now = content_of(opener.files, opener.content)
    check_same(opener.path, opener.content.digest, now.digest)
    return True


def check_same(path: Path, expected: str, present: str) -> None:
    """Raise DamagedFile if two fingerprints of a file differ."""
    if expected != present:
        raise DamagedFile(
            f"{path} was changed while in use; put the old file back, or start anew with the new one"
        )


def bands_of(reader: Reader, rows: int) -> Iterator[tuple[Box, Samples]]:
    """Yield (box, samples) in bands of ``rows`` rows; several are decoded at the same time if that helps."""
    height, width = reader.shape
    boxes = (Box(y, 0, min(y + rows, height), width) for y in range(0, height, rows))
    if reader.alone:
        return ((box, reader.cell(box)) for box in boxes)
    return in_order(decoders(), lambda box: (box, reader.cell(box)), boxes, ahead=decoder_count())


@functools.lru_cache(maxsize=16)
def _open_once(opener: Opener) -> tuple[Reader, FileWatch]:
    """The reader of an opener and the watch over its files; a process remembers the last 16 of them."""
    watch = FileWatch(opener)  # made first, so that a change during the opening is noticed
    return opener.open(), watch


@functools.lru_cache(maxsize=1)  # it holds dozens of open files
def _open_many(opener: Opener) -> Reader:
    """The reader of an opener of many files, which watches over them itself."""
    return opener.open()


#: Held while files are opened; an opener that stands around another, as that of an area, opens that, too.
_opening = threading.RLock()


def reader_of(opener: Opener) -> Reader:
    """The reader of an opener. Files are opened once; all threads of the process share the reader."""
    if opener.many:
        with _opening:
            return _open_many(opener)
    return opener.open() if isinstance(opener, ArrayOpener) else _open_once(opener)[0]


def check_unchanged(opener: Opener) -> None:
    """Raise DamagedFile if the content of the files has changed; cheap while they look the same."""
    if not opener.many and opener.files:
        _open_once(opener)[1]()
