"""TIFF directories, read by their headers only (TIFF 6.0 section 2; BigTIFF as libtiff defines it).

Nothing is decoded here. A directory loop, an entry that points beyond the file, or a directory that ends early is told as
``DamagedFile`` before anything trusts the numbers in it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile

#: TIFF data type -> NumPy type; ASCII and UNDEFINED stay bytes, RATIONAL is a pair.
TYPES = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "S1", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8",
    13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip

#: Directories beyond this one are not looked at (a slide has ten, a multi-page OME-TIFF thousands).
MOST = 1024

Pread = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Entry:
    """One directory entry: data type, count, and where its value lies."""

    dtype: int
    count: int
    offset: int

    @property
    def value_bytes(self) -> int:
        """Size of the value."""
        pair = 2 if self.dtype in (5, 10) else 1
        return self.count * pair * np.dtype(TYPES[self.dtype]).itemsize


class Directory:
    """One image file directory; values are read when asked for."""

    def __init__(self, path: Path, pread: Pread, order: str, offset: int, entries: dict[int, Entry]) -> None:
        self.path, self.offset, self.entries = path, offset, entries
        self._pread, self._order = pread, order

    def raw(self, code: int) -> bytes:
        """The bytes of a tag's value as they lie in the file; empty when the tag is missing."""
        entry = self.entries.get(code)
        if entry is None:
            return b""
        data = self._pread(entry.offset, entry.value_bytes)
        if len(data) < entry.value_bytes:
            raise DamagedFile(
                f"{self.path}: TIFF tag {code} points beyond the end of the file; it is cut off or damaged"
            )
        return data

    def array(self, code: int) -> NDArray[np.generic]:
        """A tag's numbers in native byte order, (count,) or (count, 2) for rationals; empty when the tag is missing."""
        entry = self.entries.get(code)
        if entry is None:
            return np.zeros(0)
        kind = np.dtype(TYPES[entry.dtype]).newbyteorder(self._order)
        values = np.frombuffer(self.raw(code), kind)
        return (
            values.reshape(-1, 2)
            if entry.dtype in (5, 10)
            else values.astype(kind.newbyteorder("="), copy=False)
        )

    def number(self, code: int, default: int = 0) -> int:
        """The first number of a tag, or the default."""
        values = self.array(code)
        return int(values.flat[0]) if values.size else default

    def text(self, code: int) -> str | None:
        """An ASCII tag as text, without its closing zero; None when missing or empty."""
        text = self.raw(code).split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        return text or None

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.number(257), self.number(256)

    @property
    def subfile(self) -> int:
        """NewSubfileType: 1 reduced, 4 mask, 5 both."""
        return self.number(254)


def is_tiff(start: bytes) -> bool:
    """Whether a file that starts so is a TIFF or BigTIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def preader(descriptor: int) -> Pread:
    """``os.pread`` that goes on after short reads; returns less only at the end of the file."""

    def pread(offset: int, size: int) -> bytes:
        data = os.pread(descriptor, size, offset)
        while len(data) < size:
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    return pread


def read_directories(path: Path, pread: Pread, size: int) -> list[Directory]:
    """Every directory of the chain, then those that the first one names as SubIFDs (tag 330).

    Raises
    ------
    DamagedFile : a loop, a directory or an entry beyond the end of the file, an unknown layout, no directory at all.
    """
    head = pread(0, 16)
    order = "<" if head[:2] == b"II" else ">"
    big = len(head) > 3 and head[2 if order == "<" else 3] == 43
    if len(head) < (16 if big else 8):
        raise DamagedFile(f"{path}: the TIFF header ends after {len(head)} bytes; the file is cut off")
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    found: list[Directory] = []
    seen: set[int] = set()
    while offset and len(found) < MOST:
        if offset in seen:
            raise DamagedFile(
                f"{path}: its TIFF directories form a loop at byte {offset}; the file is damaged"
            )
        seen.add(offset)
        directory, offset = _read_directory(path, pread, size, order, big, offset)
        found.append(directory)
    if not found:
        raise DamagedFile(f"{path}: the TIFF holds no image directory")
    for child in found[0].array(330)[:64].tolist() if 330 in found[0].entries else []:
        if child and child not in seen:
            seen.add(child)
            found.append(_read_directory(path, pread, size, order, big, child)[0])
    return found


def _read_directory(
    path: Path, pread: Pread, size: int, order: str, big: bool, offset: int
) -> tuple[Directory, int]:
    head, each, fixed, link = (8, 20, "HHQ", "Q") if big else (2, 12, "HHI", "I")
    if offset + head > size:
        raise DamagedFile(
            f"{path}: a TIFF directory should lie at byte {offset}, but the file has only {size} bytes; it is cut off"
        )
    (count,) = struct.unpack(order + ("Q" if big else "H"), pread(offset, head))
    body_bytes = count * each + struct.calcsize(order + link)
    if count == 0 or count > 65535 or offset + head + body_bytes > size + struct.calcsize(order + link):
        raise DamagedFile(
            f"{path}: the TIFF directory at byte {offset} claims {count} entries; the file is damaged"
        )
    body = pread(offset + head, body_bytes)
    if len(body) < count * each:
        raise DamagedFile(f"{path}: the TIFF directory at byte {offset} ends early; the file is cut off")
    inline = 8 if big else 4
    entries: dict[int, Entry] = {}
    for i in range(count):
        code, kind, number = struct.unpack_from(order + fixed, body, i * each)
        if kind not in TYPES:
            continue  # TIFF 6.0, section 2: readers skip fields of a type they do not know
        at = offset + head + i * each + each - inline
        entry = Entry(kind, number, at)
        if entry.value_bytes > inline:
            (at,) = struct.unpack_from(order + link, body, i * each + each - inline)
            entry = Entry(kind, number, at)
        if entry.offset + entry.value_bytes > size:
            raise DamagedFile(
                f"{path}: TIFF tag {code} needs bytes up to {entry.offset + entry.value_bytes}, "
                f"but the file has only {size}; it is cut off or damaged"
            )
        entries.setdefault(code, entry)
    after = body[count * each :]
    following = struct.unpack(order + link, after)[0] if len(after) == struct.calcsize(order + link) else 0
    return Directory(path, pread, order, offset, entries), following
