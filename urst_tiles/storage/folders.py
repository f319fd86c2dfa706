"""Publishing folders: a final name leads to a finished folder, or to nothing.

A folder is written under a temporary name beside its final one, as files are (`urst_tiles.storage.publish`),
and holds a lock (flock) for as long as its process lives. All its files are synchronised to the disk before
it is renamed. Where a folder of that name is replaced, the two exchange their names in one step.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from urst_tiles.errors import JobError
from urst_tiles.storage.publish import (
    NO_LOCKS,
    attempt_name,
    is_attempt,
    is_name_of,
    sync_folder,
    writing,
)
from urst_tiles.storage.stores import is_remote, names_in

#: Flags of the system call renameat2, and the folder that relative paths start at, from Linux's headers.
_NO_REPLACE, _EXCHANGE, _HERE = 1, 2, -100


@contextmanager
def attempting_folder(path: Path) -> Iterator[Path]:
    """Provide a new folder beside ``path``, which is removed with all in it when the ``with`` block ends.

    What is finished in it is given its final name by `give_name` before that. Raises what `publishing`
    raises.
    """
    with writing(path.parent):
        temporary = attempt_name(path)
        temporary.mkdir()
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(descriptor)
            yield temporary
        finally:
            with suppress(OSError):
                if is_name_of(temporary, descriptor):
                    shutil.rmtree(temporary)
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # NFS locks no folders
        if error.errno not in (*NO_LOCKS, errno.EBADF):
            raise


def sync_tree(folder: Path) -> None:
    """Synchronise a folder, and all folders and files in it, to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))


def give_name(made: Path, path: Path, *, replace: bool) -> None:
    """Rename a finished folder or file, which lies in a folder of `attempting_folder`, to ``path``.

    With ``replace``, what lies at ``path`` takes its place there.

    Raises
    ------
    FileExistsError : there is something at ``path``, and ``replace`` is false.
    JobError : another program removed what was made.
    """
    if not os.path.lexists(made):
        raise JobError(f"another program removed {made} while it was written; give the same command again")
    _rename(made, path, _EXCHANGE if replace and os.path.lexists(path) else _NO_REPLACE)
    sync_folder(path.parent)


def _rename(source: Path, target: Path, flag: int) -> None:
    """Rename as renameat2 does; on systems without it, in a few steps that end the same."""
    with suppress(AttributeError, NotImplementedError):
        call = ctypes.CDLL(None, use_errno=True).renameat2
        if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), str(target))
    if flag == _NO_REPLACE:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(source, target)
        return
    aside = source.with_name(f"{source.name}.old")
    os.rename(target, aside)
    os.rename(source, target)
    os.rename(aside, source)


def remove_any(path: Path) -> None:
    """Remove a file, or a folder with all in it; a symbolic link is removed and not followed."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_dead_folders(folder: Path, *names: str) -> None:
    """Remove the folders that killed processes left in ``folder`` while they published folders or files.

    A folder is removed only if `attempt_name` made its name for one of ``names``, and no process holds its
    lock.
    """
    if is_remote(folder):
        return
    for attempt in names_in(folder):
        if any(is_attempt(attempt, name) for name in names):
            with suppress(OSError):
                _remove_if_dead(folder / attempt)


def _remove_if_dead(temporary: Path) -> None:
    if not stat.S_ISDIR(temporary.lstat().st_mode):
        return
    descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_name_of(temporary, descriptor):
            shutil.rmtree(temporary)
    finally:
        os.close(descriptor)


def same_trees(one: Path, other: Path) -> bool:
    """Whether two files, or two folders with all in them, are equal to the byte."""
    if one.is_symlink() or other.is_symlink() or one.is_dir() != other.is_dir():
        return False
    if one.is_dir():
        names = sorted(os.listdir(one))
        return names == sorted(os.listdir(other)) and all(same_trees(one / n, other / n) for n in names)
    return one.is_file() and other.is_file() and same_files(one, other)


def same_files(one: Path, other: Path) -> bool:
    """Whether two files are equal to the byte."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while piece := left.read(1 << 20):
            if right.read(1 << 20) != piece:
                return False
    return True
