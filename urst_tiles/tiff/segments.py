"""The pixels of one TIFF page: its tiles or strips are read with ``pread`` and decoded by tifffile.

This is faster than libvips: reading needs no lock and no cache that grows with the image. Every checksum of
the format is verified (libtiff ignores the checksum of deflate). Tiles and strips together are called
segments. A segment whose offset and size are 0 is not stored in the file: GDAL leaves out empty tiles.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box, ceil_div, round_up
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.chroma import JPEG2000, Chroma, check_steps, is_ycbcr_stream, page_chroma
from urst_tiles.tiff.decodable import COMPRESSIONS, UNSHAPED, WITH_CHROMA, Undecodable, decoded_dtype
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.layout import read_layout
from urst_tiles.tiff.old_jpeg import OLD_JPEG, decode_old_jpeg
from urst_tiles.tiff.plain import FAX, GROUP_3, JPEG, RGB, YCBCR, first_bytes, photometric_of, plain_page
from urst_tiles.tiff.streams import Size, check_size, ended, jpeg_ends
from urst_tiles.tiff.tables import misplaced
from urst_tiles.tiff.transparency import (
    LERC,
    WITH_ALPHA,
    Segment,
    decode_lerc,
    holds_alpha,
    lerc_may_mask,
    lerc_most,
    lerc_stream,
    with_opaque,
)
from urst_tiles.tiff.types import LONG, SHORT
from urst_tiles.tiff.writing import DirectoryField, field, header
from urst_tiles.tiff.writing import directory as write_directory

#: tifffile logs every deviation that it tolerates; without a handler, logging would print that to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

#: Decodes a bilevel TIFF in memory to (h, w), 0 where its samples are 0; raises an error if it is damaged.
DecodeTiff = Callable[[bytes], NDArray[Any]]

#: Decoded segments larger than this stay in memory for the neighbouring boxes that need them again, together
#: at most ``KEEP_BYTES``, but at least one segment.
KEEP_ABOVE_BYTES = 1 << 20
KEEP_BYTES = 32 << 20

#: Up to so many bytes may follow the pixels of an unpacked segment: Photoshop's LZW leaves one.
SPARE_UNPACKED = 8


class Segments:
    """The tiles or strips of one page. Several threads may read from it at the same time.

    YCbCr becomes RGB here: what else is stored is returned as it is.

    Attributes
    ----------
    photometric : the meaning of the samples that are returned (tag 262).
    bands : how many bands there are. If ``stream_alpha``, the last of them is alpha that the streams hold and
        the directory does not list.
    marks_invalid : whether streams mark pixels as invalid in a mask of their own; floats are NaN instead.

    Parameters
    ----------
    file : the open file.
    directory : the page's directory.
    fax : decodes fax compressions; with None these are undecodable.

    Raises
    ------
    Undecodable : tifffile cannot decode the page, or this package cannot interpret its samples.
    DamagedFile : the tables of offsets and sizes do not describe this file.
    BadInput : segments are too large to be decoded at once.
    """

    def __init__(self, file: FileBytes, directory: Directory, fax: DecodeTiff | None = None) -> None:
        page = plain_page(file, directory)
        self.photometric, self.compression = photometric_of(directory), int(page.compression)
        is_jpeg = first_bytes(file, directory)[:2] == b"\xff\xd8"
        if 347 in directory.entries and self.compression != JPEG and is_jpeg:
            raise DamagedFile(
                f"{directory.path}: it has JPEG tables and streams, and compression {self.compression}; it is"
                " damaged"
            )
        self.dtype = decoded_dtype(directory, page, COMPRESSIONS if fax is None else COMPRESSIONS | FAX)
        self.bits = int(page.bitspersample)
        # Uncompressed samples of whole bytes in the usual bit order need no decoder.
        self._plain = self.compression == 1 and self.bits % 8 == 0 and int(page.fillorder) == 1
        self._plain = self._plain and self.bits == 8 * self.dtype.itemsize and int(page.predictor) == 1
        self._predicted = self.bits == 24 and int(page.predictor) == 3
        if self._predicted:
            page.predictor = 1  # tifffile has no such decoder
        self._stored = self.dtype.newbyteorder(directory.order)
        stored_chroma = self.photometric == YCBCR and self.compression not in WITH_CHROMA
        self._chroma = page_chroma(directory) if stored_chroma else None
        self._plain = self._plain and self._chroma is None
        self._shares_chroma = self._chroma is not None and self._chroma.is_subsampled
        if self._shares_chroma and int(page.predictor) != 1:
            raise Undecodable("subsampled chroma with a predictor")
        if self._chroma is not None or self.compression in JPEG2000 | {OLD_JPEG}:
            page.subsampling = (1, 1)
        pixel_bits = self.bits if self.compression == 1 and not self._shares_chroma else 0
        self.layout = read_layout(directory, file.size, self.dtype, pixel_bits, self._plain)
        self.path, self.shape, self.bands = directory.path, directory.shape, directory.bands
        self._file = file
        self._see_streams(directory)
        self._directory, self._strips = directory, self.layout
        if self.compression == OLD_JPEG and not directory.is_tiled:  # its strips are parts of one stream
            self.layout = self.layout.as_one()
        self._jpegtables = page.jpegtables
        self._fax, self._fax_tags = fax, _fax_tags(directory)
        self._fax_reversed = int(page.fillorder) == 2
        self._unpack = None
        if self.compression not in {1, *FAX}:
            self._unpack = tifffile.TIFF.DECOMPRESSORS[self.compression]
        self._reversed = self.compression in UNSHAPED and int(page.fillorder) == 2
        if self.compression in UNSHAPED:  # tifffile gets bytes that are already unpacked
            page.compression, page.fillorder = 1, 1
        self._decode_page = page.decode  # tifffile makes the decoder here, before there are several threads
        page.dataoffsets = page.databytecounts = ()
        self._cache: OrderedDict[int, Segment] = OrderedDict()
        self._lock = threading.Lock()

    def _see_streams(self, directory: Directory) -> None:
        """Learn from the streams what the directory does not say: masks, alpha and the colour space."""
        extra = directory.array(338).ravel()
        self._alpha_last = bool(extra.size) and int(extra[-1]) == 2
        self._behind_lerc = int((*directory.array(50674).ravel(), 0, 0)[1]) if self.compression == LERC else 0
        self.marks_invalid = (
            self.compression == LERC
            and self.dtype.kind in "ui"
            and lerc_may_mask(self._file, self.layout, self._behind_lerc)
        )
        self.stream_alpha = (
            self.compression in WITH_ALPHA
            and not extra.size
            and self.bands in (1, 3)
            and not self.layout.planar
            and holds_alpha(self._file, self.layout, self.compression)
        )
        if self.stream_alpha:
            self.bands += 1
            self.layout = replace(self.layout, samples=self.bands)
        # Aperio's compressions tell the colour space, whatever tag 262 says, as in OpenSlide.
        self._aperio = self.compression == 33003 and (directory.text(270) or "").startswith("Aperio")
        ycbcr = {33003: True, 33005: False}.get(self.compression, self.photometric == YCBCR)
        if self.compression in JPEG2000 and self.bands >= 3 and ycbcr:
            self._chroma = Chroma()
        if self._chroma is not None or self.photometric == YCBCR:
            self.photometric = RGB

    @property
    def keeps(self) -> int:
        """How many decoded segments stay in memory: none if small, at least one if large."""
        size = self.layout.segment_bytes
        return 0 if size <= KEEP_ABOVE_BYTES else max(1, KEEP_BYTES // size)

    def read(self, box: Box, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a box of the page.

        Returns
        -------
        samples : (h, w, len(bands)), 0 where the file stores no segment.
        stored : bool, (h, w): False where the file stores no segment, or where its stream marks pixels as
            invalid; None where all of the box holds data.

        Raises
        ------
        DamagedFile : a segment cannot be decoded.
        """
        parts = self._parts(box)
        if len(parts) == 1 and not self.layout.planar and list(bands) == list(range(self.bands)):
            data = self.decoded(parts[0][0])
            if data is not None:
                inside = box.within(parts[0][1])
                valid = None if data.valid is None else data.valid[inside.slices]
                return self._cut(data.samples, parts[0][0], inside), valid
        out = np.zeros((*box.shape, len(bands)), self.dtype)
        there: NDArray[np.bool_] | None = None
        for index, cell in parts:
            part = cell.clip(box)
            stored = self._copy(index, part.within(cell), out[part.within(box).slices], bands)
            if stored is True:
                continue
            if there is None:
                there = np.ones(box.shape, bool)
            there[part.within(box).slices] = stored
        return out, there

    def read_into(self, box: Box, out: NDArray[Any]) -> None:
        """Read all bands of a box into an array (h, w, bands), of any strides, without an array in between.

        The page has its bands side by side, stores all segments, and marks no pixel as invalid.

        Raises
        ------
        DamagedFile : a segment cannot be decoded.
        """
        for index, cell in self._parts(box):
            part, data = cell.clip(box), self.decoded(index)
            assert data is not None
            out[part.within(box).slices] = self._cut(data.samples, index, part.within(cell))

    def _parts(self, box: Box) -> list[tuple[int, Box]]:
        """The numbers and boxes of the segments that a box touches, in the first plane."""
        (height, width), across = self.layout.segment, self.layout.across
        return [
            (
                row * across + column,
                Box(row * height, column * width, (row + 1) * height, (column + 1) * width),
            )
            for row in range(box.y0 // height, ceil_div(box.y1, height))
            for column in range(box.x0 // width, ceil_div(box.x1, width))
        ]

    def _cut(self, data: NDArray[Any], index: int, inside: Box) -> NDArray[Any]:
        pixels = data[inside.slices]
        if pixels.shape[:2] != inside.shape:
            raise DamagedFile(
                f"{self.path}: {self.layout.name(index)} decodes to too few pixels; it is damaged"
            )
        return pixels

    def _copy(
        self, index: int, inside: Box, out: NDArray[Any], bands: Sequence[int]
    ) -> bool | NDArray[np.bool_]:
        """Copy a part of a segment to ``out``.

        Returns whether any of its planes is stored; an array, (h, w), where their streams mark pixels as
        invalid.
        """
        stored: bool | NDArray[np.bool_] = False
        if not self.layout.planar and list(bands) == list(range(self.layout.samples)):
            data = self.decoded(index)
            if data is None:
                return False
            out[...] = self._cut(data.samples, index, inside)  # whole rows, not band by band
            return True if data.valid is None else data.valid[inside.slices]
        for k, band in enumerate(bands):
            at = index + band * self.layout.per_plane if self.layout.planar else index
            if k == 0 or self.layout.planar:
                data = self.decoded(at)
            if data is not None:
                stored = stored if isinstance(stored, np.ndarray) else True
                out[..., k] = self._cut(data.samples, at, inside)[..., 0 if self.layout.planar else band]
                if data.valid is not None:
                    stored = stored & data.valid[inside.slices]
        return stored

    def decoded(self, index: int) -> Segment | None:
        """The samples of one segment, (h, w, samples); None where the file does not store it.

        Raises
        ------
        DamagedFile : the segment cannot be decoded.
        """
        if not self.keeps:
            return self._fetch(index)
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        data = self._fetch(index)
        if data is not None:
            with self._lock:
                self._cache[index] = data
                while len(self._cache) > self.keeps:
                    self._cache.popitem(last=False)
        return data

    def _fetch(self, index: int) -> Segment | None:
        count = int(self.layout.counts[index])
        if count == 0:
            return None
        data = self._file.exactly(int(self.layout.offsets[index]), count, self.layout.name(index))
        try:
            if self._plain:
                return Segment(self._as_stored(data, index))
            if self.compression == OLD_JPEG:
                tile = index if self.layout.is_tiled else None
                return Segment(decode_old_jpeg(self._file, self._directory, self._strips, tile))
            if self.compression == LERC:
                return self._decode_lerc(data)
            samples = self._decode(data, index)
            return Segment(samples if self._chroma is None else self._in_rgb(samples, data))
        except (MemoryError, BadInput):
            raise
        except Exception as error:
            if self.layout.trimmed[index]:
                raise DamagedFile(misplaced(self.layout, index)) from error
            raise DamagedFile(
                f"{self.path}: {self.layout.name(index)} cannot be decoded ({short(error)}); "
                "the file is damaged, get a new copy of it"
            ) from error

    def _decode(self, data: bytes, index: int) -> NDArray[Any]:
        if self.compression in FAX:
            return self._unfaxed(data, index)
        if self.compression not in UNSHAPED:
            check_size(
                self.compression, data, Size(*self.layout.segment, self.layout.samples), self._jpegtables
            )
        place = index % self.layout.per_plane  # every plane is decoded as a grey picture
        if self._shares_chroma:
            return self._unpacked_chroma(data, index)
        if self.compression in JPEG2000:
            check_steps(self.path, data)
        if self.stream_alpha:
            assert self._unpack is not None
            samples = np.asarray(self._unpack(data))
            samples = samples[..., None] if samples.ndim == 2 else samples
            decoded: NDArray[Any] | None = with_opaque(samples, self.bands)[None]
        elif self.compression == JPEG:
            _check_jpeg_end(data)
            decoded, _, _ = self._decode_page(data, place, jpegtables=self._jpegtables)
        else:
            unpacked = self._unpacked(data, index) if self.compression in UNSHAPED else data
            if self.bits == 24 and (self.dtype.kind == "u" or self._predicted):
                return self._of_24_bits(unpacked)
            decoded, _, _ = self._decode_page(unpacked, place)
        if decoded is None:
            raise ValueError("it decodes to nothing")
        if decoded.shape[-1] != self.layout.samples:
            raise ValueError(f"it has {decoded.shape[-1]} bands instead of {self.layout.samples}")
        if self.compression not in UNSHAPED and decoded.dtype != self.dtype:
            raise ValueError(f"its samples are {decoded.dtype} instead of {self.dtype}")
        return decoded[0]

    def _decode_lerc(self, data: bytes) -> Segment:
        """A segment in the compression LERC, with its mask."""
        stream = lerc_stream(data, self._behind_lerc, lerc_most(self.layout))
        check_size(LERC, stream, Size(*self.layout.segment, self.layout.samples))
        made = decode_lerc(stream, self.layout.samples, self._alpha_last, self._directory.order)
        if made.samples.shape[-1] != self.layout.samples or made.samples.dtype != self.dtype:
            raise ValueError(f"it has {made.samples.shape[-1]} band(s) of {made.samples.dtype}")
        return made

    def _in_rgb(self, samples: NDArray[Any], data: bytes) -> NDArray[Any]:
        """The samples of a segment whose page says that they are YCbCr, in RGB."""
        assert self._chroma is not None
        if self.compression in JPEG2000 and not is_ycbcr_stream(data, self._aperio):
            return samples
        return self._chroma.rgb(samples)

    def _unpacked_chroma(self, data: bytes, index: int) -> NDArray[Any]:
        """YCbCr, (h, w, 3), of a segment whose pixels share colour differences."""
        assert self._chroma is not None
        (height, width), rows = self.layout.segment, int(self.layout.rows(index))
        whole = self._chroma.stored_bytes(height, width)
        unpacked: bytes | bytearray = imagecodecs.bitorder_decode(data) if self._reversed else data
        if self._unpack is not None:
            unpacked = self._unpack(unpacked, out=whole + 1)
        rows = height if len(unpacked) == whole else rows
        need = self._chroma.stored_bytes(rows, width)
        if not need <= len(unpacked) <= need + SPARE_UNPACKED:
            raise ValueError(f"it has {len(unpacked)} bytes, and its pixels take {need}")
        return self._chroma.unpacked(bytes(unpacked), rows, width)

    def _unfaxed(self, data: bytes, index: int) -> NDArray[Any]:
        """The samples of a segment in a fax compression, (h, w, 1)."""
        (height, width), rows = self.layout.segment, int(self.layout.rows(index))
        rows = height if self.layout.is_tiled else rows
        assert self._fax is not None
        try:
            picture = self._fax(_bilevel_tiff(data, self.compression, rows, width, self._fax_tags))
        except ValueError:
            if self.compression == GROUP_3 and not self._begins_with_eol(data):
                raise BadInput(
                    f"{self.path}: the rows of its fax picture (TIFF compression 3) do not begin with the "
                    "code that T.4 asks for, so damage could not be told; write it anew, for example: "
                    "tiffcp -c g4 IN OUT"
                ) from None
            raise
        if picture.shape != (rows, width):
            raise ValueError(f"it decodes to {picture.shape[1]} x {picture.shape[0]} pixels")
        return (picture != 0)[..., None].astype(self.dtype)

    def _begins_with_eol(self, data: bytes) -> bool:
        """Whether a fax strip begins with the end of a line (ITU-T T.4, 4.1.2): eleven bits of 0 or more."""
        first = imagecodecs.bitorder_decode(data[:2]) if self._fax_reversed else data[:2]
        return int.from_bytes(first, "big") < 1 << 5

    def _unpacked(self, data: bytes, index: int) -> bytes | bytearray:
        """The unpacked bytes of those rows of a segment that lie inside the image."""
        (height, width), rows = self.layout.segment, int(self.layout.rows(index))
        row_bytes = ceil_div(width * self.layout.samples * self.bits, 8)
        unpacked: bytes | bytearray = imagecodecs.bitorder_decode(data) if self._reversed else data
        if self._unpack is not None:
            # Room for more bytes than may be: LZW fills its room and does not report what is left.
            unpacked = self._unspared(unpacked, (rows * row_bytes, height * row_bytes))
        whole = rows * row_bytes, height * row_bytes
        if not any(0 <= len(unpacked) - length <= SPARE_UNPACKED for length in whole):
            raise ValueError(f"it has {len(unpacked)} bytes, and its pixels take {whole[0]}")
        return unpacked[: rows * row_bytes]

    def _of_24_bits(self, data: bytes | bytearray) -> NDArray[Any]:
        """Whole numbers of 24 bits: as in GDAL, the highest byte comes first in a little-endian file.

        Or floats of 24 bits with the floating-point predictor (Adobe's TIFF technical note 3).
        """
        width, samples = self.layout.segment[1], self.layout.samples
        if self._predicted:
            rows = np.frombuffer(data, np.uint8).reshape(-1, width * 3, samples)
            planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(-1, 3, width * samples)
            whole = np.ascontiguousarray(planes.transpose(0, 2, 1)).tobytes()
            floats: NDArray[Any] = imagecodecs.float24_decode(whole, byteorder=">")
            return floats.reshape(-1, width, samples)
        each = np.frombuffer(data, np.uint8).reshape(-1, width, samples, 3).astype(self.dtype)
        high, middle, low = np.moveaxis(each if self._stored.byteorder != ">" else each[..., ::-1], -1, 0)
        return high << 16 | middle << 8 | low

    def _unspared(self, data: bytes | bytearray, lengths: tuple[int, int]) -> bytes | bytearray:
        """The unpacked bytes of a segment; what follows its end is looked for where it disturbs the decoder.

        ``lengths`` is how long the segment may be when unpacked: the rows inside the image, or all of them.
        """
        assert self._unpack is not None
        room, failed = max(lengths) + SPARE_UNPACKED + 1, ""
        try:
            unpacked: bytes | bytearray = self._unpack(data, out=room)
        except MemoryError:
            raise
        except Exception as error:
            failed = short(error)
        if failed or len(unpacked) not in lengths:
            whole = ended(self.compression, data, lengths)
            if len(whole) < len(data):
                return self._unpack(whole, out=room)
        if failed:
            raise ValueError(failed)
        return unpacked

    def _as_stored(self, data: bytes, index: int) -> NDArray[Any]:
        """The samples of an uncompressed segment; the last strip may have fewer rows."""
        height, width, samples = int(self.layout.rows(index)), self.layout.segment[1], self.layout.samples
        pixels = np.frombuffer(data, self._stored, height * width * samples).reshape(height, width, samples)
        return pixels.astype(self.dtype, copy=False)


def short(error: Exception) -> str:
    """The message of a library's error, cut short: some libraries quote the damaged content."""
    return " ".join(str(error).split())[:150]


def _check_jpeg_end(data: bytes) -> None:
    """Raises ValueError for a JPEG stream without end marker: libjpeg would paint the missing rest grey."""
    if not jpeg_ends(data):
        raise ValueError("its JPEG stream ends early")


def _fax_tags(directory: Directory) -> list[DirectoryField]:
    """The tags that fax decoders need: FillOrder, T4Options and T6Options."""
    codes = {266: SHORT, 292: LONG, 293: LONG}
    return [
        field(code, kind, directory.number(code)) for code, kind in codes.items() if code in directory.entries
    ]


def _bilevel_tiff(data: bytes, compression: int, rows: int, width: int, tags: list[DirectoryField]) -> bytes:
    """A TIFF whose only strip has these bytes, and samples of one bit, of which 0 is black."""
    numbers = {
        256: width,
        257: rows,
        258: 1,
        259: compression,
        262: 1,
        273: 16,
        277: 1,
        278: rows,
        279: len(data),
    }
    fields = [*(field(code, LONG, value) for code, value in numbers.items()), *tags]
    place = 16 + round_up(len(data), 8)
    return b"".join([header(place), data.ljust(place - 16, b"\0"), *write_directory(fields, place, 0)])
