"""The writer of TIFF directories: little-endian BigTIFF, written without a library.

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

TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325


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

    @property
    def value_bytes(self) -> int:
        """Length of what lies behind the directory: a long value, or the directory inside."""
        if self.inside:
            return directory_bytes(self.inside)
        return round_up(len(self.data), 8) if len(self.data) > 8 else 0


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


def array_fields(offsets: NDArray[np.uint64], sizes: NDArray[np.uint32]) -> list[DirectoryField]:
    """The fields TileOffsets and TileByteCounts; both arrays are in bytes, (tiles,)."""
    return [
        DirectoryField(TILE_OFFSETS, LONG8, offsets.size, offsets.astype("<u8").tobytes()),
        DirectoryField(TILE_BYTE_COUNTS, LONG, sizes.size, sizes.astype("<u4").tobytes()),
    ]


def directory_bytes(fields: Sequence[DirectoryField], tiles: int | None = None) -> int:
    """Length in bytes of a directory and its values, once ``array_fields`` of ``tiles`` tiles are added."""
    arrays = [] if tiles is None else [8 * tiles, 4 * tiles]
    values = sum(f.value_bytes for f in fields) + sum(round_up(n, 8) for n in arrays if n > 8)
    return 8 + 20 * (len(fields) + len(arrays)) + 8 + values


def directory(fields: Sequence[DirectoryField], position: int, following: int) -> Iterator[bytes]:
    """The bytes of a directory that will lie at ``position``, with its long values right behind it.

    ``following`` is the position of the next directory, or 0 after the last one.
    """
    fields = sorted(fields, key=lambda f: f.code)
    free = position + 8 + 20 * len(fields) + 8
    entries, values = [struct.pack("<Q", len(fields))], list[bytes]()
    for f in fields:
        if not f.value_bytes:
            value = f.data.ljust(8, b"\0")
        else:
            value = struct.pack("<Q", free)
            values += directory(f.inside, free, 0) if f.inside else [f.data, bytes(-len(f.data) % 8)]
            free += f.value_bytes
        entries.append(struct.pack("<HHQ", f.code, f.dtype, f.count) + value)
    yield b"".join([*entries, struct.pack("<Q", following)])
    yield from values


def header(first: int) -> bytes:
    """The first 16 bytes of a little-endian BigTIFF whose first directory lies at ``first``."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
