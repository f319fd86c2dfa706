"""The reader of TIFF directories: classic TIFF and BigTIFF, in either byte order.

An image file directory (IFD) describes one image of the file by tags: its size, its compression, where its
tiles lie, and so on. This module reads directories and the values of their tags, and decodes no pixels.
Values are NumPy arrays, so the tables of a million tiles take 12 MB instead of a million Python objects.
Every position is compared with the length of the file before it is followed.

References: TIFF 6.0 (1992), section 2; BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.tiff.budget import MOST_TEXT_BYTES, MOST_VALUE_BYTES
from urst_tiles.tiff.bytes import NEAR_BYTES, FileBytes
from urst_tiles.tiff.entries import SINGLE, TABLES, Entry, check_entry, is_one_number
from urst_tiles.tiff.header import Header, Order, read_header
from urst_tiles.tiff.types import RATIONALS, TYPES, WHOLE_LETTERS, WIDTHS

#: GDAL's structural metadata ends within so many bytes.
GHOST_BYTES = 512

#: `read_pages` ignores further directories (a slide has ten, a multi-page OME-TIFF thousands).
MOST_DIRECTORIES = 1024

#: A longer chain of directories counts as damage; recordings of microscopes have some hundred thousand pages.
LONGEST_CHAIN = 1 << 18

#: A classic TIFF cannot count more entries in one directory.
MOST_ENTRIES = 65535


class Directory:
    """One image file directory; the values of its tags are read from the file when they are asked for.

    Attributes
    ----------
    order : byte order of the file.
    offset : position of the directory in the file, in bytes.
    entries : the entries by tag code; of a tag that is there twice the first, as in libtiff.
    """

    def __init__(self, file: FileBytes, order: Order, offset: int, entries: dict[int, Entry]) -> None:
        self._file, self.order, self.offset, self.entries = file, order, offset, entries

    @property
    def file(self) -> FileBytes:
        """The open file that the directory lies in."""
        return self._file

    @property
    def path(self) -> Path:
        """The file that the directory lies in."""
        return self._file.path

    def raw(self, code: int, most: int | None = None) -> bytes:
        """The bytes of a tag's value as they lie in the file; empty where the directory lacks the tag.

        ``most`` is how many numbers of the value are wanted; None stands for all.

        Raises
        ------
        DamagedFile : the value lies beyond the end of the file.
        BadInput : the value is too long to be taken into memory.
        """
        entry = self.entries.get(code)
        if entry is None:
            return b""
        if most is not None and most < entry.count:
            entry = replace(entry, count=most)
        size = entry.value_bytes
        if MOST_VALUE_BYTES < size < self._file.size and code not in TABLES:
            raise BadInput(
                f"{self.path}: the value of TIFF tag {code} has {size} bytes (limit {MOST_VALUE_BYTES}); "
                f"remove the tag (tiffset -u {code} FILE)"
            )
        return self._file.exactly(entry.offset, size, f"the value of TIFF tag {code}", near=True)

    def pieces(self, code: int) -> Iterator[bytes]:
        """The bytes of a tag's value in pieces, whatever its length; the directory has the tag."""
        entry = self.entries[code]
        if entry.value_bytes <= NEAR_BYTES // 2:
            return iter([self._file.near(entry.offset, entry.value_bytes)])
        return self._file.pieces(entry.offset, entry.value_bytes)

    def array(self, code: int, most: int | None = None) -> NDArray[Any]:
        """The first ``most`` numbers of a tag, all of them with None, in native byte order.

        The shape is (count,), for rational numbers (count, 2); empty where the directory lacks the tag.

        Raises
        ------
        DamagedFile : the value lies beyond the end of the file.
        """
        entry = self.entries.get(code)
        if entry is None:
            return np.zeros(0)
        return numbers_in(self.raw(code, most), entry.dtype, self.order)

    def number(self, code: int, default: int = 0) -> int:
        """The first whole number of a tag; the default where the tag is missing or holds other values."""
        entry = self.entries.get(code)
        letter = "" if entry is None else WHOLE_LETTERS.get(entry.dtype, "")
        raw = self.raw(code) if letter else b""
        return int(struct.unpack_from(self.order + letter, raw)[0]) if raw else default

    def text(self, code: int) -> str | None:
        """A tag as text without its closing zero; None where it is missing or empty."""
        text = self.raw(code).split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        return text or None

    def has_short(self, code: int, most: int = MOST_TEXT_BYTES) -> bool:
        """Whether the directory has a tag, and its value at most ``most`` bytes."""
        return code in self.entries and self.entries[code].value_bytes <= most

    def short_text(self, code: int, most: int = MOST_TEXT_BYTES) -> str | None:
        """A tag as text; None where it is missing, empty, or of more than ``most`` bytes."""
        return self.text(code) if self.has_short(code, most) else None

    @property
    def segment_tables(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Offsets and sizes in bytes of all tiles, or of all strips where there are no tiles, as stored.

        Both are uint64, (count,).

        Raises
        ------
        DamagedFile : a table lies beyond the end of the file or does not hold whole numbers.
        """
        offsets, counts = self.table_codes
        return self.whole_numbers(offsets), self.whole_numbers(counts)

    @property
    def table_codes(self) -> tuple[int, int]:
        """The codes of the tags that hold the offsets and sizes of tiles, or of strips."""
        return 324 if 324 in self.entries else 273, 325 if 325 in self.entries else 279

    def whole_numbers(self, code: int, most: int | None = None) -> NDArray[np.uint64]:
        """The first ``most`` whole numbers of a tag, all of them with None; uint64, (count,).

        Empty where the directory lacks the tag.

        Raises
        ------
        DamagedFile : the value lies beyond the end of the file or does not hold whole numbers.
        """
        values = self.array(code, most)
        if values.size and (values.ndim != 1 or values.dtype.kind not in "ui"):
            raise DamagedFile(f"{self.path}: TIFF tag {code} must hold whole numbers; it is damaged")
        return values.astype(np.uint64)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(first byte, end) of all parts of the file that cannot be pixels: the header, the start of this
        directory, and the value of each of its tags."""
        values = [(entry.offset, entry.offset + entry.value_bytes) for entry in self.entries.values()]
        return [(0, 8), (self.offset, self.offset + 2), *values]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.number(257), self.number(256)

    @cached_property
    def bands(self) -> int:
        """How many samples a pixel has (tag 277).

        Where old-style JPEG lacks the tag, YCbCr and RGB have three, as in libtiff.
        """
        colours = self.number(259) == 6 and self.number(262, 6) in (2, 6)
        return self.number(277, 3 if colours else 1)

    @property
    def is_tiled(self) -> bool:
        """Whether the image lies in tiles; otherwise it lies in strips."""
        return 322 in self.entries

    @property
    def segment(self) -> tuple[int, int]:
        """(height, width) in pixels of a tile or strip; no strip is higher than the image."""
        if self.is_tiled:
            return self.number(323), self.number(322)
        height, width = self.shape
        return min(self.number(278, height) or height, height), width

    @cached_property
    def subfile(self) -> int:
        """NewSubfileType: 1 is an image of reduced size, 4 a mask, 5 the mask of a reduced image."""
        return self.number(254)

    @property
    def announces_mask(self) -> bool:
        """Whether GDAL's structural metadata, behind the header of the file, says that it has a mask."""
        return b"MASK_INTERLEAVED_WITH_IMAGERY=YES" in self._file.near(0, GHOST_BYTES)

    @property
    def is_mask(self) -> bool:
        """Whether NewSubfileType (tag 254) or the meaning of its samples (tag 262) says that it is a mask."""
        return bool(self.subfile & 4) or self.number(262) == 4


def numbers_in(raw: bytes, dtype: int, order: Order) -> NDArray[Any]:
    """The numbers in the value of a tag of this data type, (count,), for rational numbers (count, 2), in
    native byte order."""
    kind = np.dtype(TYPES[dtype]).newbyteorder(order)
    values = np.frombuffer(raw, kind)
    if dtype in RATIONALS:
        values = values.reshape(-1, 2)
    return values.astype(kind.newbyteorder("="), copy=False)


def read_chain(
    file: FileBytes, *, checked: bool = True, most_entries: int = MOST_ENTRIES
) -> Iterator[Directory]:
    """The directories of a TIFF in the order in which they name each other, each read when it is asked for.

    Parameters
    ----------
    file : the open TIFF.
    checked : whether every entry is checked when its directory is read. Without these checks, a value that
        lies beyond the end of the file is an error only when it is asked for.
    most_entries : a directory with more entries counts as damaged.

    Raises
    ------
    DamagedFile : the file is not a TIFF; the chain of directories is a loop or leaves the file; with
        ``checked`` also where a value lies beyond the end of the file, or a tag on which every pixel depends
        does not hold whole numbers.
    """
    header = read_header(file)
    for body in _bodies(file, header, most_entries):
        yield _directory(file, header, body, checked)


def check_chain(file: FileBytes) -> None:
    """Read all directories of a TIFF, however many, and see that they stay within the budget of the file.

    libtiff, which has no such limit, can then be asked to open the file.

    Raises
    ------
    DamagedFile : the file is not a TIFF; the chain of directories is a loop or leaves the file; or it is made
        to take all time or memory.
    """
    for _ in _bodies(file, read_header(file), MOST_ENTRIES):
        pass


class _Body(NamedTuple):
    """The bytes of the entries of a directory at byte ``offset``, and the offset of the next directory."""

    offset: int
    entries: bytes
    following: int


def _bodies(file: FileBytes, header: Header, most_entries: int) -> Iterator[_Body]:
    """The directories of the chain."""
    offset, seen = header.first, set[int]()
    while offset:
        if offset in seen or len(seen) >= LONGEST_CHAIN:
            raise DamagedFile(
                f"{file.path}: its TIFF directories form an endless chain at byte {offset}; it is damaged"
            )
        seen.add(offset)
        body = _read_body(file, header, offset, most_entries)
        yield body
        offset = body.following


def read_pages(file: FileBytes) -> list[Directory]:
    """The first ``MOST_DIRECTORIES`` directories of the chain, and those behind them that are masks.

    Raises
    ------
    DamagedFile : as `read_chain` with ``checked``; also where the file has no directory.
    """
    header = read_header(file)
    directories: list[Directory] = []
    for body in _bodies(file, header, MOST_ENTRIES):
        if len(directories) < MOST_DIRECTORIES:
            directories.append(_directory(file, header, body, True))
        elif _may_be_mask(header, body) and (mask := _directory(file, header, body, True)).is_mask:
            directories.append(mask)
    if not directories:
        raise DamagedFile(
            f"{file.path}: this TIFF holds no image directory; it was not finished or is damaged"
        )
    return directories


def read_children(file: FileBytes, parent: Directory, known: Iterable[int] = ()) -> list[Directory]:
    """The first 64 SubIFDs (tag 330) of a directory, without those at the offsets ``known``.

    Raises
    ------
    DamagedFile : as `read_chain` with ``checked``.
    """
    children: list[Directory] = []
    if 330 not in parent.entries:
        return children
    header, seen = read_header(file), set(known)
    for child in parent.whole_numbers(330)[:64].tolist():
        if child > 0 and child not in seen:
            seen.add(child)
            body = _read_body(file, header, child, MOST_ENTRIES)
            children.append(_directory(file, header, body, True))
    return children


def count_directories(file: FileBytes) -> int:
    """How many directories the chain of a TIFF has. Raises DamagedFile as `check_chain` does."""
    return sum(1 for _ in _bodies(file, read_header(file), MOST_ENTRIES))


def _read_body(file: FileBytes, header: Header, offset: int, most_entries: int) -> _Body:
    """The directory at byte ``offset``, once it is counted in the budget of the file."""
    width = struct.calcsize(header.counting)
    if offset + width > file.size:
        raise DamagedFile(
            f"{file.path}: a TIFF directory should lie at byte {offset}, beyond the end of the file "
            f"({file.size} bytes); it is cut off"
        )
    (count,) = struct.unpack(header.counting, file.near(offset, width))
    if not 0 < count <= most_entries:
        raise DamagedFile(
            f"{file.path}: the TIFF directory at byte {offset} claims {count} entries; the file is damaged"
        )
    each = header.entry_bytes
    body = file.near(offset + width, count * each + header.inline_bytes)
    if len(body) < count * each:
        raise DamagedFile(
            f"{file.path}: the TIFF directory at byte {offset} claims {count} entries, which reach beyond "
            "the end of the file; it is cut off or damaged"
        )
    entries, rest = body[: count * each], body[count * each :]
    file.budget.spend(size=len(body) + _claimed(header, entries, file.size))
    following = struct.unpack(header.link, rest)[0] if len(rest) == header.inline_bytes else 0
    return _Body(offset, entries, following)


def _table(header: Header, entries: bytes) -> NDArray[Any]:
    """The entries of a directory as an array of records: code, type, count, value."""
    wide = "u8" if header.big else "u4"
    fields = np.dtype([("code", "u2"), ("type", "u2"), ("count", wide), ("value", wide)])
    return np.frombuffer(entries, fields.newbyteorder(header.order))


def _may_be_mask(header: Header, body: _Body) -> bool:
    """Whether a directory has the tag that says it is a mask (254), with any value but that of an image."""
    table = _table(header, body.entries)
    return bool((table["value"][table["code"] == 254] & ~np.array(3, table.dtype["value"])).any())


def _claimed(header: Header, entries: bytes, most: int) -> int:
    """Bytes that the values of these entries take in the file; a longer value than ``most`` is none."""
    sizes = [count * WIDTHS.get(kind, 0) for _, kind, count, _ in struct.iter_unpack(header.whole, entries)]
    return sum(size for size in sizes if header.inline_bytes < size <= most)


def _directory(file: FileBytes, header: Header, body: _Body, checked: bool) -> Directory:
    """The directory whose entries these are."""
    file.budget.spend(entries=len(body.entries) // header.entry_bytes)
    entries: dict[int, Entry] = {}
    for code, entry, rest in _entries(header, body):
        if checked:
            check_entry(file, code, entry, rest)
        if entry.dtype in TYPES:  # TIFF 6.0, section 2: readers skip fields of a type they do not know
            entries.setdefault(code, entry)
    made = Directory(file, header.order, body.offset, entries)
    if checked:
        for code in [code for code, entry in entries.items() if code in SINGLE and entry.count > 1]:
            if not is_one_number(file.path, code, made.array(code).tolist()):
                del entries[code]
    return made


def _entries(header: Header, body: _Body) -> Iterator[tuple[int, Entry, bytes]]:
    """Tag code and entry of each of the entries of a directory.

    The third is what follows a value that lies in the entry itself, up to the end of the entry.
    """
    room, place = header.inline_bytes, body.offset + struct.calcsize(header.counting + header.entry[1:])
    link, each = struct.Struct(header.link), header.entry_bytes
    for code, dtype, count, value in struct.iter_unpack(header.whole, body.entries):
        size = count * WIDTHS.get(dtype, 0)
        if size > room:
            yield code, Entry(dtype, count, link.unpack(value)[0]), b""
        else:
            yield code, Entry(dtype, count, place), value[size:]
        place += each
