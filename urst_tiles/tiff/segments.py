"""One TIFF page: its tiles or strips, fetched with ``pread`` and decoded by tifffile.

This is the fast path: no lock, no cache that grows with the image, and every checksum of the format is
checked (libtiff stops before deflate's). Segments that are absent (offset and byte count 0) are GDAL's
sparse tiles, told as not there.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.layout import read_layout

#: tifffile reports what it tolerates; without a handler, logging would print it to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

JPEG = 7

#: Codecs that undo YCbCr themselves: JPEG, WebP, JPEG 2000.
WITH_CHROMA = {JPEG, 50001, 33003, 33004, 33005, 34712}

#: Compressions decoded here: these, none, LZW, deflate (both), PackBits, LERC, LZMA, zstd, JPEG XL.
COMPRESSIONS = WITH_CHROMA | {1, 5, 8, 32946, 32773, 34887, 34925, 50000, 50002, 52546}

#: Of these, the ones whose bytes know nothing of the picture's shape: what they unpack to must have its size.
UNSHAPED = {1, 5, 8, 32946, 32773, 34925, 50000}

#: Photometric interpretations understood: white is zero, black is zero, RGB, palette, mask, CMYK. (YCbCr:
#: see above.)
PHOTOMETRICS = {0, 1, 2, 3, 4, 5}

#: Decoded segments larger than this are kept for the neighbouring cells that need them again.
KEEP_ABOVE_BYTES = 1 << 20
KEEP_BYTES = 32 << 20


class Undecodable(Exception):
    """This page is not for this reader (but perhaps for libvips)."""


class Segments:
    """The tiles or strips of one page; thread-safe.

    Parameters
    ----------
    file : the bytes.
    directory : the page's directory.
    page : the same as tifffile parsed it (only its decoder is used).

    Raises
    ------
    Undecodable : for what tifffile does not decode or this package does not interpret.
    DamagedFile : where the tables of offsets and byte counts do not describe this file.
    BadInput : for segments too large to decode at once.
    """

    def __init__(self, file: FileBytes, directory: Directory, page: tifffile.TiffPage) -> None:
        self.photometric, self.compression = int(page.photometric), int(page.compression)
        self.dtype = _dtype(directory, page)
        self.bits = int(page.bitspersample)
        # Stored as they are, in whole bytes and the usual bit order: no decoder is needed.
        self._plain = self.compression == 1 and self.bits % 8 == 0 and int(page.fillorder) == 1
        self._plain = self._plain and self.bits == 8 * self.dtype.itemsize and int(page.predictor) == 1
        self._stored = self.dtype.newbyteorder(directory.order)
        self.layout = read_layout(directory, file.size, self.dtype, self._plain)
        self.path, self.shape, self.bands = directory.path, directory.shape, directory.number(277, 1)
        self._file = file
        self._jpegtables = page.jpegtables
        self._unpack = None if self.compression == 1 else tifffile.TIFF.DECOMPRESSORS[self.compression]
        self._reversed = self.compression in UNSHAPED and int(page.fillorder) == 2
        if self.compression in UNSHAPED:  # tifffile gets them unpacked
            page.compression, page.fillorder = 1, 1
        self._decode_page = page.decode  # made once, before threads come
        page.dataoffsets = page.databytecounts = ()
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def keeps(self) -> int:
        """How many decoded segments are kept: none of small ones, at least one of large ones."""
        size = self.layout.segment_bytes
        return 0 if size <= KEEP_ABOVE_BYTES else max(1, KEEP_BYTES // size)

    def read(self, box: Box, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Samples (h, w, len(bands)) of ``box``, and bool (h, w), False where absent (None: all there)."""
        (height, width), across = self.layout.segment, self.layout.across
        parts = [
            (
                row * across + column,
                Box(row * height, column * width, (row + 1) * height, (column + 1) * width),
            )
            for row in range(box.y0 // height, ceil_div(box.y1, height))
            for column in range(box.x0 // width, ceil_div(box.x1, width))
        ]
        if len(parts) == 1 and not self.layout.planar and list(bands) == list(range(self.bands)):
            data = self.decoded(parts[0][0])
            if data is not None:
                return self._cut(data, parts[0][0], box.within(parts[0][1])), None
        out = np.zeros((*box.shape, len(bands)), self.dtype)
        there: NDArray[np.bool_] | None = None
        for index, cell in parts:
            part = cell.clip(box)
            if self._copy(index, part.within(cell), out[part.within(box).slices], bands):
                continue
            if there is None:
                there = np.ones(box.shape, bool)
            there[part.within(box).slices] = False
        return out, there

    def _cut(self, data: NDArray[Any], index: int, inside: Box) -> NDArray[Any]:
        pixels = data[inside.slices]
        if pixels.shape[:2] != inside.shape:
            raise DamagedFile(
                f"{self.path}: {self.layout.name(index)} decodes to too few pixels; it is damaged"
            )
        return pixels

    def _copy(self, index: int, inside: Box, out: NDArray[Any], bands: Sequence[int]) -> bool:
        """Copy a part of one segment to ``out``; whether it is there (with planes: any of them)."""
        found = False
        for k, band in enumerate(bands):
            at = index + band * self.layout.per_plane if self.layout.planar else index
            if k == 0 or self.layout.planar:
                data = self.decoded(at)
            if data is not None:
                found = True
                out[..., k] = self._cut(data, at, inside)[..., 0 if self.layout.planar else band]
        return found

    def decoded(self, index: int) -> NDArray[Any] | None:
        """One segment's samples (h, w, samples), or None where it is absent. Raises DamagedFile."""
        if not self.keeps:
            return self._fetch(index)
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        data = self._fetch(index)
        if data is not None:
            with self._lock:
                self._kept[index] = data
                while len(self._kept) > self.keeps:
                    self._kept.popitem(last=False)
        return data

    def _fetch(self, index: int) -> NDArray[Any] | None:
        count = int(self.layout.counts[index])
        if count == 0:
            return None
        data = self._file(int(self.layout.offsets[index]), count)
        if len(data) < count:
            raise DamagedFile(
                f"{self.path}: {self.layout.name(index)} lies beyond the end of the file; it is cut off"
            )
        try:
            return self._as_stored(data, index) if self._plain else self._decode(data, index)
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedFile(
                f"{self.path}: {self.layout.name(index)} cannot be decoded ({short(error)}); "
                "the file is damaged, get a new copy of it"
            ) from error

    def _decode(self, data: bytes, index: int) -> NDArray[Any]:
        if self.compression == JPEG:
            _check_jpeg_end(data)
            decoded, _, _ = self._decode_page(data, index, jpegtables=self._jpegtables)
        else:
            unpacked = self._unpacked(data, index) if self.compression in UNSHAPED else data
            decoded, _, _ = self._decode_page(unpacked, index)
        if decoded is None:
            raise ValueError("it decodes to nothing")
        if decoded.shape[-1] != self.layout.samples:
            raise ValueError(f"it has {decoded.shape[-1]} bands instead of {self.layout.samples}")
        if self.compression not in UNSHAPED and decoded.dtype != self.dtype:
            raise ValueError(f"its samples are {decoded.dtype} instead of {self.dtype}")
        return decoded[0]

    def _unpacked(self, data: bytes, index: int) -> bytes | bytearray:
        """The bytes of a segment's rows inside the image; the rows below it may be stored, or left out."""
        (height, width), rows = self.layout.segment, int(self.layout.rows(index))
        row_bytes = ceil_div(width * self.layout.samples * self.bits, 8)
        found: bytes | bytearray = imagecodecs.bitorder_decode(data) if self._reversed else data
        if self._unpack is not None:
            # One byte more than there should be: LZW fills what it is given and says nothing of the rest.
            found = self._unpack(found, out=height * row_bytes + 1)
        if len(found) not in (rows * row_bytes, height * row_bytes):
            raise ValueError(f"it has {len(found)} bytes, and its pixels take {rows * row_bytes}")
        return found[: rows * row_bytes]

    def _as_stored(self, data: bytes, index: int) -> NDArray[Any]:
        """Samples that are no further encoded; the last strip has fewer rows."""
        height, width, samples = int(self.layout.rows(index)), self.layout.segment[1], self.layout.samples
        pixels = np.frombuffer(data, self._stored, height * width * samples).reshape(height, width, samples)
        return pixels.astype(self.dtype, copy=False)


def short(error: Exception) -> str:
    """What a library says of damaged content, which it may quote at length."""
    return " ".join(str(error).split())[:150]


def _check_jpeg_end(data: bytes) -> None:
    """libjpeg paints the missing rest of a cut stream grey; its end marker shows whether it is cut."""
    if data.rfind(b"\xff\xd9", max(0, len(data) - 1024)) < 0:
        raise ValueError("its JPEG stream ends early")


def _dtype(directory: Directory, page: tifffile.TiffPage) -> np.dtype[Any]:
    """The dtype in which samples are handed out, or Undecodable."""
    photometric, compression = int(page.photometric), int(page.compression)
    if 262 not in directory.entries:
        raise DamagedFile(
            f"{directory.path}: nothing tells what its samples mean (TIFF tag 262); it is damaged"
        )
    if 347 in directory.entries and compression != JPEG:
        raise DamagedFile(
            f"{directory.path}: it has JPEG tables, and compression {compression}; it is damaged"
        )
    if compression not in COMPRESSIONS or (
        compression != 1 and compression not in tifffile.TIFF.DECOMPRESSORS
    ):
        raise Undecodable(f"compression {compression}")
    if photometric not in PHOTOMETRICS and not (photometric == 6 and compression in WITH_CHROMA):
        raise Undecodable(f"photometric interpretation {photometric}")
    if page.dtype is None or not isinstance(page.bitspersample, int) or page.imagedepth != 1:
        raise Undecodable("sample layout")
    if page.dtype.kind not in "uifb" or (322 in directory.entries and page.tiledepth != 1):
        raise Undecodable(f"samples of type {page.dtype}")
    if page.is_subsampled and compression not in WITH_CHROMA:
        raise Undecodable("subsampled chroma")
    return np.dtype(page.dtype)
