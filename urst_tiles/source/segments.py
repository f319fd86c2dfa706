"""One TIFF page: its tiles or strips, fetched with ``pread`` and decoded by tifffile.

This is the fast path: no lock, no cache that grows with the image, and every checksum of the format is checked (libtiff
stops before deflate's). Segments that are absent (offset and byte count 0) are GDAL's sparse tiles, told as not there.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.source.directory import Directory, Pread

#: tifffile reports what it tolerates; whoever wants to see it sets up logging, else it would be printed to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

#: Compressions decoded here: none, LZW, JPEG, deflate (both), PackBits, LERC, LZMA, zstd, WebP, JPEG 2000, JPEG XL.
COMPRESSIONS = (
    1,
    5,
    7,
    8,
    32946,
    32773,
    34887,
    34925,
    50000,
    50001,
    33003,
    33004,
    33005,
    34712,
    50002,
    52546,
)

#: Photometric interpretations understood: white is zero, black is zero, RGB, palette, mask, CMYK, and YCbCr inside JPEG.
PHOTOMETRICS = (0, 1, 2, 3, 4, 5)

#: One tile or strip may take this much decoded; a bigger one is refused before it is read.
MOST_BYTES = 1 << 30

#: Decoded segments larger than this are kept for the neighbouring cells that need them again.
KEEP_ABOVE_BYTES = 1 << 20
KEEP_BYTES = 32 << 20


class Undecodable(Exception):
    """This page is not for this reader (but perhaps for libvips)."""


class Segments:
    """The tiles or strips of one page.

    Parameters
    ----------
    path, pread, size : the file, how to read it, and its bytes.
    directory : the page's directory.
    page : the same as tifffile parsed it (only its decoder is used).

    Raises
    ------
    Undecodable : for what tifffile does not decode or this package does not interpret.
    DamagedFile : where the tables of offsets and byte counts do not describe this file.
    BadInput : for segments too large to decode at once.
    """

    def __init__(
        self, path: Path, pread: Pread, size: int, directory: Directory, page: tifffile.TiffPage
    ) -> None:
        self.path, self._pread = path, pread
        self.shape = directory.shape
        self.bands = directory.number(277, 1)
        self.photometric = int(page.photometric)
        self.compression = int(page.compression)
        self.is_tiled = 322 in directory.entries
        self.dtype = _dtype(directory, page)
        self.bits = int(page.bitspersample)
        self._planar = directory.number(284, 1) == 2 and self.bands > 1
        height, width = self.shape
        rows = min(directory.number(278, height) or height, height)
        self.segment = (directory.number(323), directory.number(322)) if self.is_tiled else (rows, width)
        if min(self.segment) < 1:
            raise DamagedFile(
                f"{path}: its tiles are {self.segment[1]} x {self.segment[0]} pixels; the file is damaged"
            )
        self._across = ceil_div(width, self.segment[1])
        self._down = ceil_div(height, self.segment[0])
        self._tables(directory, size)
        self._check_size()
        self._page, self._jpegtables = page, page.jpegtables
        page.decode  # noqa: B018  (a cached property, made before threads come)
        page.dataoffsets = page.databytecounts = ()
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def segment_bytes(self) -> int:
        """Size of one decoded segment."""
        return math.prod(self.segment) * (1 if self._planar else self.bands) * self.dtype.itemsize

    @property
    def has_sparse(self) -> bool:
        """Whether some segments are absent."""
        return bool((self.counts == 0).any())

    @property
    def kept_bytes(self) -> int:
        """Upper bound of what the cache holds."""
        return 0 if self.segment_bytes <= KEEP_ABOVE_BYTES else max(KEEP_BYTES, self.segment_bytes)

    def _tables(self, directory: Directory, size: int) -> None:
        need = self._across * self._down * (self.bands if self._planar else 1)
        offsets = directory.array(324 if 324 in directory.entries else 273).astype(np.uint64)
        counts = directory.array(325 if 325 in directory.entries else 279).astype(np.uint64)
        if not counts.size and self.compression == 1 and offsets.size == 1:
            counts = np.array([size - int(offsets[0])], np.uint64)
        if offsets.size < need or counts.size < need:
            raise DamagedFile(
                f"{self.path}: the image needs {need} tiles or strips, but its tables list {offsets.size} places "
                f"and {counts.size} sizes; the file is damaged"
            )
        offsets, counts = offsets[:need], counts[:need]
        beyond = (offsets > size) | (counts > size) | (offsets + counts > size)
        wrong = beyond | ((offsets == 0) & (counts > 0))
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise DamagedFile(
                f"{self.path}: {self._name(i)} should lie at bytes {offsets[i]} to {int(offsets[i]) + int(counts[i])}, "
                f"but the file has {size}; it is cut off or damaged"
            )
        self.offsets, self.counts = offsets, counts

    def _check_size(self) -> None:
        if self.segment_bytes > MOST_BYTES:
            kind = "tile" if self.is_tiled else "strip"
            raise BadInput(
                f"{self.path}: one {kind} of it is {self.segment[1]} x {self.segment[0]} pixels and would take "
                f"{self.segment_bytes / 1e9:.1f} GB at once (limit {MOST_BYTES / 1e9:.1f} GB); rewrite it with tiles, "
                "for example: gdal_translate -co TILED=YES -co BIGTIFF=YES IN OUT"
            )

    def _name(self, index: int) -> str:
        row, column = divmod(index % (self._across * self._down), self._across)
        kind = "tile" if self.is_tiled else "strip"
        return f"{kind} {index} (at row {row * self.segment[0]}, column {column * self.segment[1]})"

    def read(self, box: Box, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Samples (h, w, len(bands)) of ``box``, and bool (h, w), False where segments are absent (None: all there)."""
        out = np.zeros((*box.shape, len(bands)), self.dtype)
        there: NDArray[np.bool_] | None = None
        height, width = self.segment
        for row in range(box.y0 // height, ceil_div(box.y1, height)):
            for column in range(box.x0 // width, ceil_div(box.x1, width)):
                cell = Box(row * height, column * width, (row + 1) * height, (column + 1) * width)
                part = cell.clip(box)
                if self._copy(row * self._across + column, cell, part, out[part.within(box).slices], bands):
                    continue
                if there is None:
                    there = np.ones(box.shape, bool)
                there[part.within(box).slices] = False
        return out, there

    def _copy(self, index: int, cell: Box, part: Box, out: NDArray[Any], bands: Sequence[int]) -> bool:
        """Copy one cell's samples to ``out``; whether any of them is there."""
        if not self._planar:
            data = self.decoded(index)
            if data is None:
                return False
            inside = data[part.within(cell).slices]
            if inside.shape[:2] != part.shape:
                raise DamagedFile(
                    f"{self.path}: {self._name(index)} decodes to too few pixels; the file is damaged"
                )
            for k, band in enumerate(bands):
                out[..., k] = inside[..., band]
            return True
        found = False
        for k, band in enumerate(bands):
            data = self.decoded(index + band * self._across * self._down)
            if data is not None:
                found = True
                out[..., k] = data[part.within(cell).slices][..., 0]
        return found

    def decoded(self, index: int) -> NDArray[Any] | None:
        """One segment's samples (h, w, samples), or None where it is absent. Raises DamagedFile."""
        if self.segment_bytes <= KEEP_ABOVE_BYTES:
            return self._decode(index)
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        data = self._decode(index)
        if data is not None:
            with self._lock:
                self._kept[index] = data
                while len(self._kept) > max(1, KEEP_BYTES // self.segment_bytes):
                    self._kept.popitem(last=False)
        return data

    def _decode(self, index: int) -> NDArray[Any] | None:
        count = int(self.counts[index])
        if count == 0:
            return None
        data = self._pread(int(self.offsets[index]), count)
        if len(data) < count:
            raise DamagedFile(
                f"{self.path}: {self._name(index)} lies beyond the end of the file; it is cut off"
            )
        try:
            if self.compression == 7:
                _check_jpeg_end(data)
                decoded, _, _ = self._page.decode(data, index, jpegtables=self._jpegtables)
            else:
                decoded, _, _ = self._page.decode(data, index)
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedFile(
                f"{self.path}: {self._name(index)} cannot be decoded ({error}); the file is damaged, get a new copy of it"
            ) from error
        if decoded is None:
            raise DamagedFile(f"{self.path}: {self._name(index)} decodes to nothing; the file is damaged")
        return decoded[0]


def _check_jpeg_end(data: bytes) -> None:
    """libjpeg paints the missing rest of a cut stream grey; its end marker shows whether it is cut."""
    if data.rfind(b"\xff\xd9", max(0, len(data) - 1024)) < 0:
        raise ValueError("its JPEG stream ends early")


def _dtype(directory: Directory, page: tifffile.TiffPage) -> np.dtype[Any]:
    """The dtype in which tifffile hands out samples, or Undecodable."""
    photometric, compression = int(page.photometric), int(page.compression)
    if compression not in COMPRESSIONS or compression not in tifffile.TIFF.DECOMPRESSORS and compression != 1:
        raise Undecodable(f"compression {compression}")
    if photometric not in PHOTOMETRICS and not (
        photometric == 6 and compression in (7, 50001, 33003, 33004, 33005)
    ):
        raise Undecodable(f"photometric interpretation {photometric}")
    if page.dtype is None or not isinstance(page.bitspersample, int) or page.imagedepth != 1:
        raise Undecodable("sample layout")
    if page.dtype.kind not in "uifb" or (322 in directory.entries and page.tiledepth != 1):
        raise Undecodable(f"samples of type {page.dtype}")
    if page.is_subsampled and compression not in (7, 50001, 33003, 33004, 33005):
        raise Undecodable("subsampled chroma")
    return np.dtype(page.dtype)
