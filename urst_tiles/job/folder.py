"""The job folder: who works on it, which job it belongs to, and where its things lie.

OUTPUT.job/
  job.json     the plan's identity; another job is refused, naming what differs
  request.json      input, output, options and plan, where others are to work on it (``steps``); written last
  lock         held (flock) by the process that spools, measures, runs and assembles, alone; workers of one
               folder share it; a kill releases it
  source/      spool, thumbnail, resolved stretch
  moments/     statistics, per site
  net.safetensors   the frozen network; a worker needs nothing else
  mask.npy     the mask, unpacked
  parts/       one file per finished block
  jobs.tmp/    certificate and logs of a job queue's workers

It may lie on an object store (``places``), where there are no locks; processes of one machine are still kept
apart.
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
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from urst_tiles.errors import BadInput, JobBusy, JobDiffers, JobError, MissingFile, UrstError
from urst_tiles.storage.publish import publish
from urst_tiles.storage.stores import create, is_foreign, is_remote, names_in, path_of, remove

#: Everything that may lie in a job folder.
CONTENT = {
    "job.json", "request.json", "lock", "source", "moments", "net.safetensors", "parts", "mask.npy",
}  # fmt: skip

#: What comes and goes there besides: of ours, and of file systems'.
PASSING = re.compile(r"\.tmp$|^\.nfs|^\.fuse_hidden|^\.DS_Store$")

#: The identity of a job on an object store that is being removed.
GONE = {"job": "gone"}

#: What a file system without locks answers.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class Job:
    """A job folder.

    Parameters
    ----------
    folder : need not exist yet; its parent must.

    Attributes
    ----------
    keep : set once there is something in it that took time: an unpacked input, a task that began, be it to
        measure or to stylise. From then on an error leaves the folder in place.
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
        """The job of ``output``: in ``folder``, or beside it on the same file system."""
        return cls(folder or output.parent / f"{output.name}.job")

    @property
    def identity(self) -> dict[str, str] | None:
        """What the folder's job is, or None where there is none yet."""
        try:
            found = json.loads(self._identity.read_bytes())
            return None if found == GONE else found
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise JobDiffers(
                f"{self.folder}/job.json cannot be read ({error}); start anew with --overwrite"
            ) from None

    @property
    def is_unpacked(self) -> bool:
        """Whether there is a spool."""
        return any(name.startswith("spool-") for name in names_in(self.source))

    def room(self) -> int | None:
        """Bytes of disk for a job, what its earlier runs take included; None where there is no end to them.

        Raises
        ------
        BadInput : there is no folder for it.
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
        """Hold the folder alone (made if needed); raises JobBusy where a live process holds it.

        An object store has no locks, and the folder is held on this machine alone. Nothing is lost where two
        machines run one job at once: each publishes whole objects, and the same ones.
        """
        if not is_remote(self.folder):
            shutil.rmtree(self._gone, ignore_errors=True)
        self._refuse_strangers()
        created = self._make_folder()
        with self._holding(fcntl.LOCK_EX, f"process {os.getpid()} on {socket.gethostname()}", created):
            yield self

    @contextmanager
    def shared(self) -> Iterator[Job]:
        """Hold the folder together with other workers; raises JobBusy where a live process holds it alone.

        Raises
        ------
        MissingFile : there is no job in the folder.
        """
        self.require()
        owner = f"at least one worker (last came process {os.getpid()} on {socket.gethostname()})"
        with self._holding(fcntl.LOCK_SH, owner, created=False):
            yield self

    def require(self) -> None:
        """Raise MissingFile where there is no job."""
        if self.identity is None:
            raise MissingFile(
                f"there is no job in {self.folder}: it is gone once assembled, or was never saved"
            )

    @contextmanager
    def _holding(self, how: int, owner: str, created: bool) -> Iterator[None]:
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
                told = self._told(error)
                self._leave(told, created)
                if told is error:
                    raise
                raise told from error

    def _told(self, error: BaseException) -> BaseException:
        """What networks do to an object store, in a sentence; any other error as it is."""
        if not (is_remote(self.folder) and isinstance(error, Exception) and is_foreign(error)):
            return error
        return JobError(f"{self.folder}: {error}; what is finished is kept, the same command goes on")

    def _flock(self, handle: TextIO, how: int) -> None:
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
        """Before there is something to keep nothing stays behind; later (or at the user's word) all does."""
        if self.keep:
            if isinstance(error, UrstError):
                error.exit_status = 1
        elif created and isinstance(error, Exception):
            self.remove()

    @property
    def _lock(self) -> Path:
        if not is_remote(self.folder):
            return self.folder / "lock"
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"urst-tiles-{os.getuid()}-{name}.lock"

    def _make_folder(self) -> bool:
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
        """Make this the folder of the job ``identity``.

        Raises
        ------
        JobDiffers : it is another job's; names what differs.
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
        """The folder will be removed with all in it, hence nothing else may be there."""
        strange = sorted(name for name in names_in(self.folder) - CONTENT if not PASSING.search(name))
        if strange:
            raise BadInput(
                f"{self.folder} holds something else than a job ({strange[0]!r}, say) and would be removed at"
                " the end; name a new or an empty folder"
            )

    def _sign(self, identity: bytes) -> None:
        """Write job.json; on an object store unless another machine was faster."""
        if is_remote(self.folder):
            create(self._identity, identity)
        else:
            publish(self._identity, identity)

    def clear(self) -> None:
        """Remove everything but the lock."""
        for name in names_in(self.folder) - {"lock"}:
            remove(self.folder / name)

    def remove(self) -> None:
        """Remove the folder and all in it; renamed first, or on an object store signed as gone: a kill
        never leaves half a job under its name."""
        if is_remote(self.folder):
            publish(self._identity, json.dumps(GONE).encode())
            for name in names_in(self.folder) - {self._identity.name}:
                remove(self.folder / name)
            remove(self.folder)
        else:
            self.folder.rename(self._gone)
            shutil.rmtree(self._gone, ignore_errors=True)

    @property
    def _gone(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.gone")


def _size(path: Path) -> int:
    """Bytes of a file; 0 of a folder, and of what another worker has just renamed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The names whose values differ, with both values, as one phrase."""
    names = sorted(set(before) | set(now))
    return ", ".join(
        f"{n} was {short(before.get(n))} and is {short(now.get(n))}"
        for n in names
        if before.get(n) != now.get(n)
    )


def short(value: str | None) -> str:
    """A value as it stands in a sentence."""
    if value is None:
        return "not set"
    return value if len(value) <= 40 else value[:12] + "…"
