"""TIFF directories, read by their headers only (TIFF 6.0 section 2; BigTIFF as libtiff defines it).

Nothing is decoded here. A directory loop, an entry that points beyond the file, or a directory that ends
early is told as ``DamagedFile`` before anything trusts the numbers in it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.tiff.bytes import FileBytes

#: TIFF data type -> NumPy type; ASCII and UNDEFINED stay bytes, RATIONAL is a pair.
_FIRST = ("u1", "S1", "u2", "u4", "u4", "i1", "S1", "i2", "i4", "i4", "f4", "f8", "u4")
TYPES = dict(enumerate(_FIRST, 1)) | {16: "u8", 17: "i8", 18: "u8"}
RATIONALS = (5, 10)

#: Tags that every pixel depends on, all of whole numbers: those that hold one each, NewSubfileType to
#: TileLength, and the others: bits, compression, places, sizes, palette, what further bands are.
SINGLE = {254, 256, 257, 262, 266, 274, 277, 278, 284, 317, 322, 323}
WHOLE = SINGLE | {258, 259, 273, 279, 320, 324, 325, 338, 339}
WHOLE_TYPES = (3, 4, 16)

#: Directories beyond this one are not looked at (a slide has ten, a multi-page OME-TIFF thousands).
MOST = 1024

#: Byte order, as struct and NumPy write it.
Order = Literal["<", ">"]


class Form(NamedTuple):
    """How numbers lie in a TIFF: byte order, and the widths that BigTIFF has doubled."""

    order: Order
    big: bool

    @property
    def link(self) -> str:
        """struct format of an offset."""
        return self.order + ("Q" if self.big else "I")

    @property
    def entry(self) -> str:
        """struct format of code, data type and count of an entry; its value or offset follows."""
        return self.order + ("HHQ" if self.big else "HHI")

    @property
    def inline_bytes(self) -> int:
        """Size of an offset, and of values that need none."""
        return 8 if self.big else 4


@dataclass(frozen=True)
class Entry:
    """One directory entry: data type, count, and where its value lies."""

    dtype: int
    count: int
    offset: int

    @property
    def value_bytes(self) -> int:
        """Size of the value."""
        return self.count * (2 if self.dtype in RATIONALS else 1) * np.dtype(TYPES[self.dtype]).itemsize


class Directory:
    """One image file directory; values are read when asked for."""

    def __init__(self, file: FileBytes, order: Order, offset: int, entries: dict[int, Entry]) -> None:
        self._file, self.order, self.offset, self.entries = file, order, offset, entries

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def raw(self, code: int) -> bytes:
        """The bytes of a tag's value as they lie in the file; empty when the tag is missing."""
        entry = self.entries.get(code)
        if entry is None:
            return b""
        data = self._file(entry.offset, entry.value_bytes)
        if len(data) < entry.value_bytes:
            raise DamagedFile(
                f"{self.path}: TIFF tag {code} points beyond the end of the file; it is cut off"
            )
        return data

    def array(self, code: int) -> NDArray[Any]:
        """A tag's numbers in native byte order: (count,), rationals (count, 2); empty when the tag is
        missing."""
        entry = self.entries.get(code)
        if entry is None:
            return np.zeros(0)
        kind = np.dtype(TYPES[entry.dtype]).newbyteorder(self.order)
        values = np.frombuffer(self.raw(code), kind)
        if entry.dtype in RATIONALS:
            values = values.reshape(-1, 2)
        return values.astype(kind.newbyteorder("="), copy=False)

    def number(self, code: int, default: int = 0) -> int:
        """The first number of a tag, or the default."""
        values = self.array(code)
        return int(values.flat[0]) if values.size and values.dtype.kind in "ui" else default

    def text(self, code: int) -> str | None:
        """An ASCII tag as text, without its closing zero; None when missing or empty."""
        text = self.raw(code).split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        return text or None

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(first byte, end) of what must not be pixels: the header, the directory, and every tag's value."""
        values = [(entry.offset, entry.offset + entry.value_bytes) for entry in self.entries.values()]
        return [(0, 8), (self.offset, self.offset + 2), *values]

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


def read_directories(file: FileBytes) -> list[Directory]:
    """Every directory of the chain, then those that the first one names as SubIFDs (tag 330).

    Raises
    ------
    DamagedFile : a loop, a directory or an entry beyond the end of the file, or no directory at all.
    """
    head = file(0, 16)
    form = Form("<" if head[:2] == b"II" else ">", b"+" in head[2:4])
    start = 8 if form.big else 4
    if len(head) < start + form.inline_bytes:
        raise DamagedFile(f"{file.path}: the TIFF header ends after {len(head)} bytes; the file is cut off")
    (offset,) = struct.unpack_from(form.link, head, start)
    found: list[Directory] = []
    seen: set[int] = set()
    while offset and len(found) < MOST:
        if offset in seen:
            raise DamagedFile(
                f"{file.path}: its TIFF directories form a loop at byte {offset}; it is damaged"
            )
        seen.add(offset)
        directory, offset = _read_directory(file, form, offset)
        found.append(directory)
    if not found:
        raise DamagedFile(
            f"{file.path}: this TIFF holds no image directory; it was not finished or is damaged"
        )
    for child in found[0].array(330)[:64].astype(np.int64).tolist():
        if child > 0 and child not in seen:
            seen.add(child)
            found.append(_read_directory(file, form, child)[0])
    return found


def _read_directory(file: FileBytes, form: Form, offset: int) -> tuple[Directory, int]:
    """The directory at a place, and the place of the next one (0: none)."""
    width = 8 if form.big else 2
    if offset + width > file.size:
        raise DamagedFile(
            f"{file.path}: a TIFF directory should lie at byte {offset}, but the file has only "
            f"{file.size} bytes; it is cut off"
        )
    (count,) = struct.unpack(form.order + ("Q" if form.big else "H"), file(offset, width))
    each = struct.calcsize(form.entry) + form.inline_bytes
    body = file(offset + width, min(count, 65536) * each + form.inline_bytes)
    if count == 0 or count > 65535 or len(body) < count * each:
        raise DamagedFile(
            f"{file.path}: the TIFF directory at byte {offset} claims {count} entries, which are not there; "
            "the file is cut off or damaged"
        )
    entries: dict[int, Entry] = {}
    for i in range(count):
        code, kind, number = struct.unpack_from(form.entry, body, i * each)
        _check_whole(file.path, code, kind, number)
        if kind in TYPES:  # TIFF 6.0, section 2: readers skip fields of a type they do not know
            value = (i + 1) * each - form.inline_bytes
            entries.setdefault(
                code, _entry(file, form, code, Entry(kind, number, offset + width + value), body, value)
            )
    rest = body[count * each :]
    following = struct.unpack(form.link, rest)[0] if len(rest) == form.inline_bytes else 0
    return Directory(file, form.order, offset, entries), following


def _check_whole(path: Path, code: int, kind: int, count: int) -> None:
    """Raises DamagedFile where a tag that every pixel depends on holds something else than whole numbers."""
    if code in WHOLE and kind not in WHOLE_TYPES or code in SINGLE and count != 1:
        wanted = "one whole number" if code in SINGLE else "whole numbers"
        raise DamagedFile(
            f"{path}: TIFF tag {code} must hold {wanted}, not {count} value(s) of type {kind}; it is damaged"
        )


def _entry(file: FileBytes, form: Form, code: int, entry: Entry, body: bytes, value: int) -> Entry:
    """The entry with the place of its value, which must lie inside the file."""
    if entry.value_bytes > form.inline_bytes:
        entry = Entry(entry.dtype, entry.count, struct.unpack_from(form.link, body, value)[0])
    if entry.offset + entry.value_bytes > file.size:
        raise DamagedFile(
            f"{file.path}: TIFF tag {code} needs bytes up to {entry.offset + entry.value_bytes}, but the "
            f"file has only {file.size}; it is cut off or damaged"
        )
    return entry
