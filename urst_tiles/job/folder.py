"""The job folder: its files, the job that it belongs to, and its lock.

OUTPUT.job/
  job.json          the identity of the plan; another job is refused with a message that names the differences
  request.json      input, output, options and plan, if other processes are to work on the job
                    (`urst_tiles.api.shards`); written last
  lock              held exclusively (flock) by the process that spools, measures, runs and assembles; workers
                    of the folder hold it together; the system releases it when a process is killed
  source/           the spool, the thumbnail, and the averages from which the thumbnail is made
  moments/          the statistics at each site of the network
  net.safetensors   the frozen network; a worker needs no style and no other weights
  mask.npy          the mask, unpacked
  parts/            a file for each finished block
  jobs.tmp/         the certificate and the logs of the workers of a job queue

The folder may lie on an object store (`urst_tiles.storage.stores`). Object stores have no locks, so that only
processes of the same machine then exclude each other.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from urst_tiles.errors import BadInput, JobBusy, JobDiffers, JobError, MissingFile, UrstError
from urst_tiles.storage.publish import publish
from urst_tiles.storage.stores import create, is_foreign, is_remote, names_in, path_of, remove

#: The names that may lie in a job folder.
CONTENT = {
    "job.json", "request.json", "lock", "source", "moments", "net.safetensors", "parts", "mask.npy",
}  # fmt: skip

#: Temporary names that may also lie there: those of this package, and those of file systems.
PASSING = re.compile(r"\.tmp$|^\.nfs|^\.fuse_hidden|^\.DS_Store$")

#: The content of job.json while a job folder on an object store is being removed.
GONE = {"job": "gone"}

#: Errors of flock on a file system without locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class Job:
    """A job folder.

    Parameters
    ----------
    folder : a path or URL; the folder need not exist yet, but its parent must.

    Attributes
    ----------
    folder : the path of the folder.
    source, moments, net, parts, request : paths in the folder, see `urst_tiles.job.folder`.
    keep : whether an error leaves the folder as it is. Set to True once the folder holds work that took time:
        an unpacked input, or the results of tasks that measure or stylise.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = path_of(folder)
        self.source = self.folder / "source"
        self.moments = self.folder / "moments"
        self.net = self.folder / "net.safetensors"
        self.parts = self.folder / "parts"
        self.request = self.folder / "request.json"
        self._identity = self.folder / "job.json"
        self.keep = False

    @classmethod
    def beside(cls, output: Path, folder: Path | None = None) -> Job:
        """The job that writes ``output``; by default its folder is OUTPUT.job beside ``output``."""
        return cls(folder or output.parent / f"{output.name}.job")

    @property
    def identity(self) -> dict[str, str] | None:
        """The identity of the plan that the folder belongs to, or None if it has no job yet.

        Raises
        ------
        JobDiffers : job.json cannot be read.
        """
        try:
            identity = json.loads(self._identity.read_bytes())
            return None if identity.get("job") == GONE["job"] else identity
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            raise JobDiffers(
                f"{self.folder}/job.json cannot be read ({error}); start anew with --overwrite"
            ) from None

    @property
    def remains(self) -> Path:
        """Where job.json and request.json lie while the folder is being removed."""
        return self.folder if is_remote(self.folder) else self._gone

    @property
    def ended(self) -> dict[str, str] | None:
        """The identity of the job that was finished here and not yet wholly removed, or None."""
        try:
            said = json.loads((self.remains / self._identity.name).read_bytes())
            return said.get("identity") if is_remote(self.folder) else said
        except (OSError, ValueError, AttributeError):
            return None

    @property
    def is_unpacked(self) -> bool:
        """Whether the folder holds a spool, that is, a copy of the input that allows random access."""
        return any(name.startswith("spool-") for name in names_in(self.source))

    def room(self) -> int | None:
        """Bytes of disk that the job may take: those free, and those that its folder holds already.

        None if the folder lies on an object store, which counts as unlimited.

        Raises
        ------
        BadInput : the parent of the folder does not exist.
        """
        if is_remote(self.folder):
            return None
        if not self.folder.parent.is_dir():
            raise BadInput(
                f"there is no folder {self.folder.parent} for the job; make it, or change --job-dir"
            )
        held = sum(_size(path) for path in self.folder.rglob("*"))
        return shutil.disk_usage(self.folder.parent).free + held

    @contextmanager
    def locked(self) -> Iterator[Job]:
        """Hold the folder exclusively while the ``with`` block runs; create it if needed.

        On an object store this excludes only processes of this machine. If two machines run the same job at
        the same time, nothing is lost: each publishes whole objects, and both publish the same ones.

        Raises
        ------
        JobBusy : a running process holds the folder.
        BadInput : the folder cannot be created or locked, or it holds files that belong to no job.
        """
        if not is_remote(self.folder):
            self.bury()
        self._refuse_strangers()
        created = self._make_folder()
        with self._holding(fcntl.LOCK_EX, f"process {os.getpid()} on {socket.gethostname()}", created):
            yield self

    @contextmanager
    def shared(self) -> Iterator[Job]:
        """Hold the folder together with other workers while the ``with`` block runs.

        Raises
        ------
        JobBusy : a running process holds the folder exclusively.
        MissingFile : there is no job in the folder.
        """
        self.require()
        owner = f"at least one worker (last came process {os.getpid()} on {socket.gethostname()})"
        with self._holding(fcntl.LOCK_SH, owner, created=False):
            yield self

    def require(self) -> None:
        """Raise MissingFile if there is no job in the folder."""
        if self.identity is None:
            raise MissingFile(
                f"there is no job in {self.folder}: it is gone once assembled, or was never saved"
            )

    @contextmanager
    def _holding(self, how: int, owner: str, created: bool) -> Iterator[None]:
        """Hold the lock; ``how`` is a flock operation, ``owner`` the name in the messages of others."""
        try:
            handle = open(self._lock, "a+")  # noqa: SIM115 (closed by the with below)
        except OSError as error:
            raise BadInput(f"the job folder {self.folder} cannot be written: {error.strerror}") from None
        with handle:
            self._flock(handle, how)
            handle.truncate(0)
            handle.write(f"{owner}\n")
            handle.flush()
            try:
                yield
            except BaseException as error:
                explained = self._explain(error)
                self._leave(explained, created)
                if explained is error:
                    raise
                raise explained from error

    def _explain(self, error: BaseException) -> BaseException:
        """The error itself, or a JobError if it comes from the network of an object store."""
        if not (is_remote(self.folder) and isinstance(error, Exception) and is_foreign(error)):
            return error
        return JobError(f"{self.folder}: {error}; what is finished is kept, the same command goes on")

    def _flock(self, handle: TextIO, how: int) -> None:
        """Lock the open lock file. Raises JobBusy if another process holds it, BadInput without locks."""
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise BadInput(
                    f"the file system of {self.folder} has no locks ({error.strerror}): mount it with them"
                    " (Lustre: -o flock), or put the job folder elsewhere"
                ) from None
            handle.seek(0)
            owner = (handle.read().splitlines() or ["another process"])[-1]
            raise JobBusy(
                f"{owner} works on {self.folder} now; wait for it, or choose another --job-dir"
            ) from None

    def _leave(self, error: BaseException, created: bool) -> None:
        """Leave the folder after an error.

        Finished work stays, and the exit status says so. Otherwise the folder is removed if this call created
        it, unless the user interrupted the job.
        """
        if self.keep:
            if isinstance(error, UrstError):
                error.exit_status = 1
        elif created and isinstance(error, Exception):
            self.remove()

    @property
    def _lock(self) -> Path:
        """The lock file: in the folder, or for an object store in the temporary folder of this machine."""
        if not is_remote(self.folder):
            return self.folder / "lock"
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"urst-tiles-{os.getuid()}-{name}.lock"

    def _make_folder(self) -> bool:
        """Create the folder; returns whether it is new (on an object store, whether it is empty)."""
        if is_remote(self.folder):
            return not names_in(self.folder)
        if self.folder.is_dir():
            return False
        try:
            self.folder.mkdir()
        except FileExistsError:
            raise BadInput(f"the job folder {self.folder} is a file; choose another with --job-dir") from None
        except FileNotFoundError:
            raise BadInput(f"there is no folder {self.folder.parent} to write into; make it first") from None
        except OSError as error:
            raise BadInput(f"the job folder {self.folder} cannot be made: {error.strerror}") from None
        return True

    def claim(self, identity: Mapping[str, str], *, overwrite: bool = False) -> None:
        """Make this the folder of the job with this identity, as `Plan` has it.

        A folder without a job is emptied first; with ``overwrite``, a folder with another job is emptied too.

        Raises
        ------
        JobDiffers : the folder belongs to another job; the message names the differences.
        """
        before = None if overwrite else self.identity
        if before is None:
            self.clear()
            self._sign(json.dumps(dict(identity), indent=1, sort_keys=True).encode())
            before = self.identity
        if before != dict(identity):
            raise JobDiffers(
                f"{self.folder} holds another job: {differences(before or {}, identity)};"
                " give the same command, or start anew with --overwrite"
            )

    def _refuse_strangers(self) -> None:
        """Raise BadInput if the folder holds other files: it is removed at the end with everything in it."""
        strange = sorted(name for name in names_in(self.folder) - CONTENT if not PASSING.search(name))
        if strange:
            raise BadInput(
                f"{self.folder} holds something else than a job ({strange[0]!r}, say) and would be removed at"
                " the end; name a new or an empty folder"
            )

    def _sign(self, identity: bytes) -> None:
        """Write job.json. On an object store an existing job.json stays: another machine was faster."""
        if is_remote(self.folder):
            create(self._identity, identity)
        else:
            publish(self._identity, identity)

    def clear(self) -> None:
        """Remove everything in the folder except the lock."""
        for name in names_in(self.folder) - {"lock"}:
            remove(self.folder / name)

    def remove(self) -> None:
        """Remove the folder and everything in it.

        The folder is renamed first, and on an object store job.json is overwritten first: a process that is
        killed meanwhile never leaves half a job under the name of the folder.
        """
        if is_remote(self.folder):
            publish(self._identity, json.dumps({**GONE, "identity": self.identity}).encode())
        else:
            self.folder.rename(self._gone)
        self.bury()

    def bury(self) -> None:
        """Remove what remains of a folder that `remove` began to remove.

        Its job.json goes last: as long as it is there, the same command knows that it is finished.
        """
        last = (self.request.name, self._identity.name)
        with nullcontext() if is_remote(self.folder) else suppress(OSError):
            for name in (*(names_in(self.remains) - {*last}), *last):
                remove(self.remains / name)
            remove(self.remains)

    @property
    def _gone(self) -> Path:
        """The name of the folder while it is being removed."""
        return self.folder.with_name(f".{self.folder.name}.gone")


def _size(path: Path) -> int:
    """The size of a file in bytes; 0 for a folder, and for a file that another worker has just renamed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The names whose values differ between two identities, with both values, as a phrase for a message."""
    names = sorted(set(before) | set(now))
    return ", ".join(
        f"{n} was {short(before.get(n))} and is {short(now.get(n))}"
        for n in names
        if before.get(n) != now.get(n)
    )


def short(value: str | None) -> str:
    """A value of an identity as text for a message; values over 40 characters are cut to 12."""
    if value is None:
        return "not set"
    return value if len(value) <= 40 else value[:12] + "…"
