"""The lock of a job folder: a file that processes hold exclusively, or together, by flock.

It says who holds it, for the messages of others. The system releases it when a process is killed. It lies in
the folder; for an object store, which has no locks, it lies in the temporary folder of this machine and
excludes only processes of the same machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import tempfile
from pathlib import Path

from urst_tiles.errors import BadInput, DamagedFile, JobBusy
from urst_tiles.storage.private import NAME, make_private
from urst_tiles.storage.publish import NO_LOCKS, create_file, is_name_of
from urst_tiles.storage.stores import is_remote, open_regular, read_file

#: How the lock file of a job begins.
OWNER = re.compile(rb"(at least one worker \(last came )?process \d+ on ")


def this_process() -> str:
    """The name of this process in the messages of others."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lock_of(folder: Path) -> Path:
    """The lock file of a job folder."""
    if not is_remote(folder):
        return folder / "lock"
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return private_folder() / f"{name}.lock"


def is_lock(path: Path) -> bool:
    """Whether a job made the file ``path`` for its lock."""
    try:
        return bool(OWNER.match(read_file(path)))
    except OSError:
        return False


def acquire(folder: Path, how: int, owner: str) -> int:
    """The descriptor of the lock file of ``folder``, locked; the file is made if it does not exist.

    Parameters
    ----------
    how : LOCK_EX or LOCK_SH of flock.
    owner : what a new file says about who holds the lock; `write_owner` says it in any file.

    Raises
    ------
    JobBusy : another process holds it.
    BadInput : the folder cannot be written, its file system has no locks, or the file is none of a job.
    DamagedFile : there is something else than a regular file.
    """
    path = lock_of(folder)
    while True:
        try:
            lock = open_regular(path, os.O_RDWR)
        except FileNotFoundError:
            create_file(path, _words(owner))
            continue
        except DamagedFile:
            raise
        except OSError as error:
            raise BadInput(f"the job folder {folder} cannot be written: {error.strerror}") from None
        try:
            _flock(lock, how, path, folder)
            if is_name_of(path, lock):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # the job was removed, and its lock with it, before it became ours


def write_owner(lock: int, owner: str) -> None:
    """Write into the lock file, which this process has locked, who holds it."""
    words = _words(owner)
    os.pwrite(lock, words, 0)
    os.ftruncate(lock, len(words))


def _words(owner: str) -> bytes:
    return f"{owner}\n".encode()


def _flock(lock: int, how: int, path: Path, folder: Path) -> None:
    """Lock the open lock file; the errors are those of `acquire`."""
    before = os.pread(lock, 200, 0)
    if before and not OWNER.match(before):
        raise BadInput(f"{path} is not the lock of a job; move it away, or choose another --job-dir")
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise BadInput(
                f"the file system of {folder} has no locks ({error.strerror}): mount it with them"
                " (Lustre: -o flock), or put the job folder elsewhere"
            ) from None
        owner = (os.pread(lock, 200, 0).decode(errors="replace").splitlines() or ["another process"])[0]
        raise JobBusy(f"{owner} works on {folder} now; wait for it, or choose another --job-dir") from None


def private_folder() -> Path:
    """A folder for the locks of this user on this machine, which nobody else may write to.

    Raises
    ------
    BadInput : somebody else made a folder of that name.
    """
    folder = Path(tempfile.gettempdir()) / NAME
    if not make_private(folder):
        raise BadInput(f"{folder} is not a folder of yours alone; remove it, or set TMPDIR to another place")
    return folder
