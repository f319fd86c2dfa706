"""Publishing files: a final name never holds anything but a finished file.

A file is written under a temporary name in the same folder, synchronised to the disk (fsync) and renamed;
then the folder is synchronised too. For an object store (`urst_tiles.storage.stores`), a file is written on
this machine and then uploaded as a whole.

Every attempt to write a file has a temporary name that no other attempt uses, and holds a lock (flock) on it
for as long as its process lives. The name is checked before it is exchanged for the final one: it must still
lead to the very file that was written. What a process that was killed has left behind can be recognised, by
its name and because nobody holds its lock, and `remove_dead_attempts` removes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from urst_tiles.errors import BadInput, DiskFull, JobError, MissingFile, UrstError
from urst_tiles.storage.names import cut
from urst_tiles.storage.stores import is_remote, names_in, put

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)

#: Errors of flock on a file system without locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)

#: Errors of link on a file system without hard links.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK, errno.EXDEV)

#: The folder in which Linux gives names to the descriptors of this process.
_DESCRIPTORS = "/proc/self/fd"

#: So many bytes of a final name are repeated in the name of an attempt; file systems take names of 255.
_NAME_BYTES = 200

#: The name of an attempt: a final name, 12 random digits, and 8 digits that follow from both.
_ATTEMPT = re.compile(r"\.(.+)\.([0-9a-f]{12})([0-9a-f]{8})\.tmp", re.DOTALL)


@contextmanager
def publishing(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a file for reading and writing that gets the name ``path`` when the ``with`` block ends.

    If the block raises an error, the file is removed and ``path`` stays as it was.

    Parameters
    ----------
    path : the final name, in a folder or on an object store.
    replace : whether a file of that name is replaced. If not, the name is given by a hard link, which fails
        if the name exists by then. (A file system without hard links is asked whether the name exists right
        before the file is renamed.) Object stores always replace.

    Raises
    ------
    FileExistsError : ``path`` exists, and ``replace`` is false.
    DiskFull : the disk is full or a quota is reached; the message names the folder.
    BadInput : this user may not write into the folder, or ``path`` is a device or a pipe.
    MissingFile : the folder, or the bucket of the object store, does not exist.
    JobError : the object store failed, or another program removed or replaced the temporary file.
    """
    if is_remote(path):
        with _putting(path) as file:
            yield file
        return
    with writing(path.parent):
        temporary, file = _attempt(path)
        with file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _give_name(file, temporary, path, replace)
            finally:
                _forget(file, temporary)
        sync_folder(path.parent)


def _attempt(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside ``path``, which this process has locked, and its temporary name."""
    while True:
        temporary = attempt_name(path)
        file = temporary.open("x+b", buffering=1 << 20)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process takes it for a dead attempt, and removes it
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                _forget(file, temporary)
                file.close()
                raise
        if is_name_of(temporary, file.fileno()):
            return temporary, file
        file.close()


def _give_name(file: BinaryIO, temporary: Path, path: Path, replace: bool) -> None:
    """Exchange the temporary name of an open file for its final name."""
    if not is_name_of(temporary, file.fileno()):
        raise JobError(
            f"another program removed or replaced {temporary} while it was written;"
            " give the same command again"
        )
    if replace:
        refuse_special(path)
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(temporary, path)


def is_name_of(path: Path, descriptor: int) -> bool:
    """Whether ``path`` leads to the file that is open as ``descriptor``, and not through a symbolic link."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def refuse_special(path: Path) -> None:
    """Raise BadInput if ``path`` is a device, a pipe or a socket: such a file cannot be replaced by another.

    Replacing it would take it away from all other programs.
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise BadInput(
                f"{path} is no regular file (but a device or a pipe, say); remove it, or name another output"
            )


def _forget(file: BinaryIO, temporary: Path) -> None:
    """Remove the temporary name of an open file, unless it is gone or belongs to another file by now."""
    with suppress(OSError):
        if is_name_of(temporary, file.fileno()):
            temporary.unlink()


@contextmanager
def _putting(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file on this machine that is uploaded to ``path`` when the block ends.

    Where the system gives names to descriptors, the file has no other, so that nothing of it stays after a
    kill.
    """
    scratch, nameless = Path(tempfile.gettempdir()), os.path.isdir(_DESCRIPTORS)
    make = tempfile.TemporaryFile if nameless else tempfile.NamedTemporaryFile
    with writing(scratch), make(prefix="urst-tiles-", dir=scratch) as file:
        yield cast(BinaryIO, file)
        file.flush()
        put(f"{_DESCRIPTORS}/{file.fileno()}" if nameless else file.name, path)


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
            if error.errno not in _NO_LINKS:
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
    random = uuid.uuid4().hex[:12]
    return path.with_name(f".{cut(path.name, _NAME_BYTES)}.{random}{_proof(path.name, random)}.tmp")


def _proof(name: str, random: str) -> str:
    """Digits by which the name of an attempt is recognised as made by `attempt_name`."""
    return hashlib.sha256(os.fsencode(f"{name} {random}")).hexdigest()[:8]


def is_attempt(attempt: str, name: str | None = None) -> bool:
    """Whether `attempt_name` made the name ``attempt`` for a file ``name`` (by default, for any file).

    Of a final name of more than 200 bytes it is recognised only if ``name`` is given.
    """
    match = _ATTEMPT.fullmatch(attempt)
    if match is None or (name is not None and cut(name, _NAME_BYTES) != match[1]):
        return False
    return _proof(match[1] if name is None else name, match[2]) == match[3]


def remove_dead_attempts(folder: Path, *names: str) -> None:
    """Remove the files that killed processes left in ``folder`` while they published files.

    A file is removed only if `attempt_name` made its name and no process holds its lock. Where the file
    system has no locks, nothing is removed. Object stores never hold half a file.

    Parameters
    ----------
    folder : a folder; it need not exist.
    names : the final names of the files (default: all files).
    """
    if is_remote(folder):
        return
    for attempt in names_in(folder):
        if any(is_attempt(attempt, name) for name in names or (None,)):
            with suppress(OSError):
                _remove_if_dead(folder / attempt)


def _remove_if_dead(temporary: Path) -> None:
    """Remove an attempt if its lock can be taken; raise OSError if it cannot."""
    if not stat.S_ISREG(temporary.lstat().st_mode):
        return
    with open(os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _forget(file, temporary)


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
    DiskFull, BadInput, MissingFile : as `publishing`. Any other OSError is raised as it is; if it names no
        file, then with the name of the folder.
    """
    try:
        yield
    except FileNotFoundError as error:
        if folder.is_dir():
            raise
        raise MissingFile(f"there is no folder {folder} to write into; make it first") from error
    except UrstError:
        raise
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
        if error.filename is None:  # of fsync, say, which knows a descriptor only
            error.filename = str(folder)
        raise
