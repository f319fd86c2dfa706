"""Any TIFF's directories, read as NumPy arrays: a million tiles cost 12 MB, not a million Python objects.

Classic and BigTIFF, either byte order. Every position is checked against the file's length before it is
followed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile, MissingFile

_TYPES = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4,u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4,i4", 11: "f4",
    12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip

#: More entries or directories than any sane file has; beyond them the file is called broken, not read.
_MOST_ENTRIES, _MOST_DIRECTORIES = 4096, 65536


@dataclass(frozen=True)
class Entry:
    """A tag's type, count, and the position of its value."""

    dtype: int
    count: int
    position: int


@dataclass(frozen=True)
class Directory:
    """One directory: where it lies, and its entries by tag code."""

    file: TiffFile
    position: int
    entries: dict[int, Entry]

    def array(self, code: int) -> NDArray:
        """The values of a tag; empty where it is absent.

        Raises
        ------
        DamagedFile : the value lies beyond the end of the file.
        """
        entry = self.entries.get(code)
        if entry is None or entry.dtype not in _TYPES:
            return np.zeros(0, np.uint8)
        dtype = np.dtype(",".join(self.file.order + part for part in _TYPES[entry.dtype].split(",")))
        data = self.file.bytes_at(entry.position, entry.count * dtype.itemsize, f"tag {code}")
        return np.frombuffer(data, dtype)

    def number(self, code: int, default: int = 0) -> int:
        """The first value of a tag."""
        values = self.array(code)
        return int(values[0]) if values.size else default


class TiffFile:
    """An open TIFF; a context manager.

    Raises
    ------
    MissingFile : there is no such file, or no right to read it.
    DamagedFile : it does not begin as a TIFF does.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise MissingFile(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            self.size = os.fstat(self._file).st_size
            self._read_header()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> TiffFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _read_header(self) -> None:
        start = os.pread(self._file, 16, 0)
        self.order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        version = struct.unpack(self.order + "H", start[2:4])[0] if self.order and len(start) >= 8 else 0
        if version not in (42, 43) or (version == 43 and len(start) < 16):
            raise DamagedFile(f"{self.path} is not a TIFF")
        self.big = version == 43
        self.header_bytes = 16 if self.big else 8
        self._first = struct.unpack(
            self.order + ("Q" if self.big else "I"), start[8:16] if self.big else start[4:8]
        )[0]

    @property
    def descriptor(self) -> int:
        """The open file, for ``os.pread``."""
        return self._file

    def bytes_at(self, position: int, count: int, what: str) -> bytes:
        """``count`` bytes at ``position``, or DamagedFile when the file ends before."""
        if position + count > self.size:
            raise DamagedFile(f"{what} of {self.path} lies beyond the end of the file")
        return os.pread(self._file, count, position)

    def directories(self) -> Iterator[Directory]:
        """The main chain of directories.

        Raises
        ------
        DamagedFile : the chain leaves the file, or bites its tail.
        """
        position, seen = self._first, set[int]()
        while position:
            if position in seen or len(seen) >= _MOST_DIRECTORIES:
                raise DamagedFile(f"the directories of {self.path} form an endless chain")
            seen.add(position)
            directory, position = self._directory(position)
            yield directory

    def _directory(self, position: int) -> tuple[Directory, int]:
        """A directory and the position of the next."""
        what = f"directory at byte {position}"
        head, one, inline = (8, 20, 8) if self.big else (2, 12, 4)
        count = struct.unpack(self.order + ("Q" if self.big else "H"), self.bytes_at(position, head, what))[0]
        if count > _MOST_ENTRIES:
            raise DamagedFile(f"{what} of {self.path} claims {count} entries")
        data = self.bytes_at(position + head, count * one + inline, what)
        entries = {}
        for i in range(count):
            code, dtype, n = struct.unpack_from(self.order + ("HHQ" if self.big else "HHI"), data, i * one)
            at = position + head + (i + 1) * one - inline
            if n * np.dtype(_TYPES.get(dtype, "u1")).itemsize > inline:
                at = struct.unpack_from(
                    self.order + ("Q" if self.big else "I"), data, (i + 1) * one - inline
                )[0]
            entries[code] = Entry(dtype, n, at)
        following = struct.unpack_from(self.order + ("Q" if self.big else "I"), data, count * one)[0]
        return Directory(self, position, entries), following
