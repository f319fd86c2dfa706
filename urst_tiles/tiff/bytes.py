"""Reading bytes of a file at any position."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path

from urst_tiles.errors import DamagedFile
from urst_tiles.tiff.budget import Budget

#: The bytes of a file in which small values are looked for with one call, and how many such pieces are kept.
NEAR_BYTES, MOST_NEAR = 1 << 13, 4


class FileBytes:
    """A file that is open for reading.

    Several threads may read from it at the same time. It is closed when the last reference to it goes.

    Attributes
    ----------
    path : the file.
    size : length of the file in bytes at the time it was opened.
    budget : what reading the directories of the file may still take.

    Parameters
    ----------
    path : the file. A pipe or a device is refused, and never waited for.
    descriptor : the file if it is open already; it stays open, and ``path`` is then only its name.

    Raises
    ------
    OSError : the file does not exist, cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        opened = _opened(path) if descriptor is None else os.dup(descriptor)
        self._descriptor = opened
        weakref.finalize(self, os.close, opened)
        self.size = os.fstat(opened).st_size
        self.budget = Budget(path, self.size)
        self._near: tuple[tuple[int, bytes], ...] = ()

    def __call__(self, offset: int, count: int) -> bytes:
        """Read ``count`` bytes from byte ``offset`` on; the result is shorter only where the file ends.

        Raises
        ------
        DamagedFile : the operating system cannot read there.
        """
        parts, left = [], count
        while left > 0:
            try:
                part = os.pread(self._descriptor, left, offset + count - left)
            except (OSError, OverflowError) as error:
                raise DamagedFile(f"{self.path} cannot be read at byte {offset}: {error}") from error
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def state(self) -> os.stat_result:
        """The state of the file that is open, whatever lies at its path now."""
        return os.fstat(self._descriptor)

    def pieces(self, offset: int, count: int, each: int = 1 << 20) -> Iterator[bytes]:
        """Read ``count`` bytes from byte ``offset`` on, in pieces of at most ``each`` bytes."""
        for start in range(offset, offset + count, each):
            yield self(start, min(each, offset + count - start))

    def near(self, offset: int, count: int) -> bytes:
        """The same as a call, for directories and their many small values: what lies near such a value is
        read with it, and kept for the next."""
        if count > NEAR_BYTES // 2 or not 0 <= offset < self.size:
            return self(offset, count)
        for start, data in self._near:
            if start <= offset and offset + count <= start + len(data):
                return data[offset - start : offset - start + count]
        start = offset // 512 * 512
        data = self(start, NEAR_BYTES)
        self._near = ((start, data), *self._near[: MOST_NEAR - 1])
        return data[offset - start : offset - start + count]

    def exactly(self, offset: int, count: int, what: str, *, near: bool = False) -> bytes:
        """Read ``count`` bytes from byte ``offset`` on; ``what`` names them in the error message.

        ``near`` is whether `near` reads them.

        Raises
        ------
        DamagedFile : the file ends before the last of these bytes, or cannot be read there.
        """
        read = self.near if near else self
        data = read(offset, count) if offset + count <= self.size else b""
        if len(data) < count:
            raise DamagedFile(f"{self.path}: {what} lies beyond the end of the file; it is cut off")
        return data


def _opened(path: Path) -> int:
    """The descriptor of a regular file, opened for reading. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    words = os.strerror(kind) if stat.S_ISDIR(mode) else "it is no regular file"
    raise OSError(kind, words, str(path))
