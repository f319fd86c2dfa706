"""Publishing files: a final name never holds anything but a finished file.

A file is written under a temporary name in the same folder, synchronised to the disk (fsync) and renamed;
then the folder is synchronised too. For an object store (`urst_tiles.storage.stores`), a file is written on
this machine and then uploaded as a whole.
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
    """Open a file for writing that gets the name ``path`` when the ``with`` block ends.

    If the block raises an error, the file is removed and ``path`` stays as it was.

    Parameters
    ----------
    path : the final name, in a folder or on an object store.
    temporary : the name of the file until it is finished, in the same folder; by default a new hidden name.
        Object stores ignore it.

    Raises
    ------
    DiskFull : the disk is full or a quota is reached; the message names the folder.
    BadInput : this user may not write into the folder.
    MissingFile : the folder, or the bucket of the object store, does not exist.
    JobError : the object store failed.
    """
    if is_remote(path):
        with _putting(path) as file:
            yield file
        return
    mode = "w+b" if temporary else "x+b"
    temporary = temporary or attempt_name(path)
    try:
        with writing(path.parent):
            with cast(BinaryIO, temporary.open(mode, buffering=1 << 20)) as file:
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
    """Open a temporary file on this machine that is uploaded to ``path`` when the block ends."""
    scratch = Path(tempfile.gettempdir())
    with writing(scratch), tempfile.NamedTemporaryFile(prefix="urst-tiles-", dir=scratch) as file:
        yield cast(BinaryIO, file)
        file.flush()
        put(file.name, path)


def publish(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically and durably; the errors are those of `publishing`."""
    with publishing(path) as file:
        file.write(content)


def create_file(path: Path, content: bytes) -> bool:
    """Create a file with its content in one step, unless there is anything at ``path``.

    Returns whether it was created. The errors are those of `publishing`.
    """
    temporary = attempt_name(path)
    with writing(path.parent):
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            return _create_without_links(path, content)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _create_without_links(path: Path, content: bytes) -> bool:
    """`create_file` on a file system without hard links, such as FAT: the content comes a moment later."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def attempt_name(path: Path) -> Path:
    """A hidden name in the folder of ``path`` that no other process uses, on this or another machine."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def sync_folder(folder: Path) -> None:
    """Make the names of the files in ``folder`` durable, so that a rename survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents if they do not exist; on an object store nothing is created.

    Raises
    ------
    DiskFull, BadInput, MissingFile : as `publishing`.
    """
    if is_remote(folder):
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_room(folder: Path, need_bytes: int) -> None:
    """Raise DiskFull if the disk of ``folder`` has less than ``need_bytes`` bytes free.

    Called before long work, so that the error comes at once. Object stores count as unlimited.
    """
    if is_remote(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise DiskFull(
            f"the disk of {folder} has {megabytes(free)} free and {megabytes(need_bytes)} are needed:"
            " make room and give the same command again"
        )


def megabytes(n: int) -> str:
    """``n`` bytes as text for messages, in MiB, or in GiB from 1 GiB on."""
    return f"{n / (1 << 30):.1f} GiB" if n >= 1 << 30 else f"{n / (1 << 20):.0f} MiB"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Explain errors of the system in the ``with`` block, which writes into ``folder``.

    Raises
    ------
    DiskFull, BadInput, MissingFile : as `publishing`. Any other OSError is raised unchanged.
    """
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
