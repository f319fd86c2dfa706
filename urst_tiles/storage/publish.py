"""Write beside, fsync, rename, fsync the folder: a final name never holds anything but a finished file.

On an object store (``places``) a file is written on this machine and put there whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from urst_tiles.errors import BadInput, DiskFull, MissingFile
from urst_tiles.storage.stores import is_remote, put

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def publishing(path: Path, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write; it takes the name ``path`` when the block ends well, and is removed when it does not.

    Raises
    ------
    DiskFull : no room left, or a quota reached; names the folder.
    BadInput : no right to write there.
    MissingFile : there is no such folder.
    """
    if is_remote(path):
        with _putting(path) as file:
            yield file
        return
    temporary = temporary or attempt_name(path)
    try:
        with writing(path.parent):
            with temporary.open("w+b", buffering=1 << 20) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def _putting(path: Path) -> Iterator[BinaryIO]:
    scratch = Path(tempfile.gettempdir())
    with writing(scratch), tempfile.NamedTemporaryFile(prefix="urst-tiles-", dir=scratch) as file:
        yield cast(BinaryIO, file)
        file.flush()
        put(file.name, path)


def publish(path: Path, content: bytes) -> None:
    """Write ``content`` at ``path`` atomically and durably; raises as `publishing` does."""
    with publishing(path) as file:
        file.write(content)


def attempt_name(path: Path) -> Path:
    """A name beside ``path`` that no other attempt, on this or another machine, has."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents; an object store needs none."""
    if is_remote(folder):
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_room(folder: Path, need_bytes: int) -> None:
    """Raise DiskFull now rather than in an hour; an object store has no end."""
    if is_remote(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise DiskFull(
            f"the disk of {folder} has {megabytes(free)} free and {megabytes(need_bytes)} are needed:"
            " make room and give the same command again"
        )


def megabytes(n: int) -> str:
    """Bytes as a person reads them."""
    return f"{n / (1 << 30):.1f} GiB" if n >= 1 << 30 else f"{n / (1 << 20):.0f} MiB"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence what the system says in a number."""
    try:
        yield
    except FileNotFoundError as error:
        if folder.is_dir():
            raise
        raise MissingFile(f"there is no folder {folder} to write into; make it first") from error
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(
                f"no room left to write in {folder} ({error.strerror}):"
                " make room and give the same command again"
            ) from error
        if error.errno in _NO_RIGHTS:
            raise BadInput(
                f"no right to write in {folder} ({error.strerror}): choose another place"
            ) from error
        raise
