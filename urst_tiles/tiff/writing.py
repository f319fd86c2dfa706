"""The writer of TIFF directories: little-endian, BigTIFF or classic TIFF, written without a library.

The value of every tag is given as bytes (or as a NumPy array of offsets), so the length of a directory is
known before any of the offsets in it is. A file can therefore be laid out before its first byte is written.

References: TIFF 6.0 (1992); BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import round_up
from urst_tiles.tiff.metadata import Tag
from urst_tiles.tiff.types import ASCII, IFD8, LONG, LONG8, RATIONAL, TYPES

TILE_OFFSETS, TILE_BYTE_COUNTS, SUB_DIRECTORIES = 324, 325, 330


@dataclass(frozen=True)
class TiffForm:
    """The numbers in which BigTIFF and classic TIFF differ.

    Attributes
    ----------
    counting : how the number of entries of a directory is written, for `struct`.
    entry : the code, type and count of an entry.
    word : an offset; a value of no more bytes lies in its entry.
    header_bytes : length of the header.
    """

    counting: str
    entry: str
    word: str
    header_bytes: int

    @property
    def word_bytes(self) -> int:
        """Bytes of an offset."""
        return struct.calcsize(self.word)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a directory without entries and values."""
        return struct.calcsize(self.counting) + self.word_bytes

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry."""
        return struct.calcsize(self.entry) + self.word_bytes


BIG = TiffForm("<Q", "<HHQ", "<Q", 16)
CLASSIC = TiffForm("<H", "<HHI", "<I", 8)


@dataclass(frozen=True)
class DirectoryField:
    """One entry of a directory that is to be written.

    Attributes
    ----------
    code : tag code.
    dtype : TIFF data type of the value.
    count : how many numbers, pairs or characters the value has.
    data : the value in little-endian bytes.
    inside : the entries of a directory, such as that of EXIF; the value of the field is then its offset.
    """

    code: int
    dtype: int
    count: int
    data: bytes
    inside: tuple[DirectoryField, ...] = ()

    def value_bytes(self, form: TiffForm = BIG) -> int:
        """Length of what lies behind the directory: a long value, or the directory inside."""
        if self.inside:
            return directory_bytes(self.inside, form=form)
        return round_up(len(self.data), 8) if len(self.data) > form.word_bytes else 0


def field(code: int, dtype: int, *values: float) -> DirectoryField:
    """A field that holds these numbers."""
    return DirectoryField(code, dtype, len(values), np.array(values, f"<{TYPES[dtype]}").tobytes())


def text(code: int, value: str) -> DirectoryField:
    """A field of text with a NUL at the end; text beyond ASCII is written as UTF-8, as GDAL does."""
    data = value.encode() + b"\0"
    return DirectoryField(code, ASCII, len(data), data)


def rational(code: int, value: float) -> DirectoryField:
    """A field that holds a positive number as the nearest fraction of two 32-bit integers, but for 0."""
    top = (1 << 32) - 1
    value = min(max(value, 1 / top), float(top))
    fraction = Fraction(value).limit_denominator(min(top, max(1, int(top / max(value, 1.0)))))
    return DirectoryField(code, RATIONAL, 1, struct.pack("<II", fraction.numerator, fraction.denominator))


def tag_field(tag: Tag) -> DirectoryField:
    """A field that repeats a tag which was read from another file."""
    if isinstance(tag.value, str):
        return text(tag.code, tag.value)
    if isinstance(tag.value, bytes):
        return DirectoryField(tag.code, tag.dtype, tag.count, tag.value)
    return field(tag.code, tag.dtype, *tag.value)


def directory_field(code: int, tags: Iterable[Tag]) -> DirectoryField:
    """A field that leads to a directory of its own, which holds these tags."""
    return DirectoryField(code, IFD8, 1, b"", tuple(tag_field(tag) for tag in tags))


def array_fields(
    offsets: NDArray[np.uint64], sizes: NDArray[np.uint32], form: TiffForm = BIG
) -> list[DirectoryField]:
    """The fields TileOffsets and TileByteCounts; both arrays are in bytes, (tiles,)."""
    kind, dtype = (LONG8, "<u8") if form is BIG else (LONG, "<u4")
    return [
        DirectoryField(TILE_OFFSETS, kind, offsets.size, offsets.astype(dtype).tobytes()),
        DirectoryField(TILE_BYTE_COUNTS, LONG, sizes.size, sizes.astype("<u4").tobytes()),
    ]


def sub_directories_field(offsets: Sequence[int], form: TiffForm = BIG) -> DirectoryField:
    """The field SubIFDs, which leads to further directories at these positions."""
    kind, dtype = (IFD8, "<u8") if form is BIG else (LONG, "<u4")
    return DirectoryField(SUB_DIRECTORIES, kind, len(offsets), np.array(offsets, dtype).tobytes())


def directory_bytes(fields: Sequence[DirectoryField], tiles: int | None = None, form: TiffForm = BIG) -> int:
    """Length in bytes of a directory and its values, once ``array_fields`` of ``tiles`` tiles are added."""
    arrays = [] if tiles is None else [form.word_bytes * tiles, 4 * tiles]
    values = sum(f.value_bytes(form) for f in fields)
    values += sum(round_up(n, 8) for n in arrays if n > form.word_bytes)
    return form.frame_bytes + form.entry_bytes * (len(fields) + len(arrays)) + values


def directory(
    fields: Sequence[DirectoryField], position: int, following: int, form: TiffForm = BIG
) -> Iterator[bytes]:
    """The bytes of a directory that will lie at ``position``, with its long values right behind it.

    ``following`` is the position of the next directory, or 0 after the last one.
    """
    fields = sorted(fields, key=lambda f: f.code)
    free = position + form.frame_bytes + form.entry_bytes * len(fields)
    entries, values = [struct.pack(form.counting, len(fields))], list[bytes]()
    for f in fields:
        length = f.value_bytes(form)
        if not length:
            value = f.data.ljust(form.word_bytes, b"\0")
        else:
            value = struct.pack(form.word, free)
            values += directory(f.inside, free, 0, form) if f.inside else [f.data, bytes(-len(f.data) % 8)]
            free += length
        kind = LONG if f.inside and form is CLASSIC else f.dtype
        entries.append(struct.pack(form.entry, f.code, kind, f.count) + value)
    yield b"".join([*entries, struct.pack(form.word, following)])
    yield from values


def header(first: int, form: TiffForm = BIG) -> bytes:
    """The header of a little-endian TIFF whose first directory lies at ``first``."""
    if form is CLASSIC:
        return struct.pack("<2sHI", b"II", 42, first)
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
