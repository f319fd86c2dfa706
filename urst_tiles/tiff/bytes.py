"""A file's bytes, wherever they are asked for."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from urst_tiles.errors import DamagedFile


class FileBytes:
    """A file open for reading; threads may share it, and it closes when nobody holds it any more.

    Attributes
    ----------
    path : the file. size : its bytes when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def __call__(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on; fewer only at the end of the file. Raises DamagedFile."""
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
