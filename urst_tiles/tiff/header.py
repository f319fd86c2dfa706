"""The header of a TIFF or BigTIFF, in either byte order: the first bytes, which say how all others are read.

References: TIFF 6.0 (1992), section 2; BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from urst_tiles.errors import DamagedFile
from urst_tiles.tiff.bytes import FileBytes

#: Byte order, as struct and NumPy write it.
Order = Literal["<", ">"]


class Header(NamedTuple):
    """The header of a TIFF file.

    Attributes
    ----------
    order : byte order of all numbers in the file.
    big : whether the file is a BigTIFF, whose offsets and counts are twice as wide.
    first : position of the first directory in bytes; 0 where the file has no directory.
    """

    order: Order
    big: bool
    first: int

    @property
    def size(self) -> int:
        """Length of the header in bytes."""
        return 16 if self.big else 8

    @property
    def counting(self) -> str:
        """struct format of the number of entries, with which a directory begins."""
        return self.order + ("Q" if self.big else "H")

    @property
    def link(self) -> str:
        """struct format of an offset."""
        return self.order + ("Q" if self.big else "I")

    @property
    def entry(self) -> str:
        """struct format of an entry's tag code, data type and count; the value or its offset follows."""
        return self.order + ("HHQ" if self.big else "HHI")

    @property
    def whole(self) -> str:
        """struct format of an entry whose value, or its offset, stays bytes."""
        return f"{self.entry}{self.inline_bytes}s"

    @property
    def inline_bytes(self) -> int:
        """Length of an offset; a value that is no longer than this lies in the entry itself."""
        return 8 if self.big else 4

    @property
    def entry_bytes(self) -> int:
        """Length of an entry."""
        return struct.calcsize(self.entry) + self.inline_bytes


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins with these bytes (at least 4) is a TIFF or BigTIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_header(file: FileBytes) -> Header:
    """Read the header of a TIFF or BigTIFF.

    Raises
    ------
    DamagedFile : the file does not begin as a TIFF does, or ends within the header.
    """
    start = file.near(0, 16)
    if not is_tiff(start):
        raise DamagedFile(f"{file.path} is not a TIFF")
    header = Header("<" if start[:2] == b"II" else ">", b"+" in start[2:4], 0)
    if len(start) < header.size:
        raise DamagedFile(
            f"{file.path} is not a TIFF: its header ends after {len(start)} bytes; the file is cut off"
        )
    (first,) = struct.unpack_from(header.link, start, header.size - header.inline_bytes)
    return header._replace(first=first)
