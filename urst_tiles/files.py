"""Writing a file so that it is either there, whole, or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from urst_tiles.errors import DiskFull


@contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """A file open for writing under an own temporary name, which becomes ``path`` atomically and durably at the end.

    Raises
    ------
    DiskFull : where the disk refuses; nothing stays behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, DiskFull):
            raise
        raise DiskFull(
            f"{path} cannot be written: {error.strerror or error}; make room and give the same command again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def publish(path: Path, content: bytes) -> None:
    """Write ``content`` at ``path`` atomically and durably."""
    with publishing(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
