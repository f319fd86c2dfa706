"""The job folder: its files, and the job that it belongs to.

OUTPUT.job/
  job.json          the identity of the plan; another job is refused with a message that names the differences
  written.json      the files that the job wrote: nothing else is ever removed (`urst_tiles.job.written`)
  ended.json        of a finished job whose folder is being removed (`urst_tiles.job.ending`)
  request.json      input, output, options and plan, if other processes are to work on the job
                    (`urst_tiles.api.shards`); written last
  lock              held exclusively by the process that spools, measures, runs and assembles; workers of the
                    folder hold it together (`urst_tiles.job.lock`)
  source/           the spool, the thumbnail, and the averages from which the thumbnail is made
  moments/          the statistics at each site of the network
  net.safetensors   the frozen network; a worker needs no style and no other weights
  mask.npy          the mask, unpacked
  parts/            a file for each finished block
  jobs.tmp/         the certificate and the logs of the workers of a job queue

The folder may lie on an object store (`urst_tiles.storage.stores`).

Others may be able to write into the folder. So nothing in it is opened through a symbolic link.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from urst_tiles.errors import (
    BadInput,
    DiskFull,
    JobBusy,
    JobDiffers,
    JobError,
    MissingFile,
    UrstError,
)
from urst_tiles.job.ending import GONE, INSIDE, leave_mark, marks_of, read_gone, remove_marks
from urst_tiles.job.lock import acquire, is_lock, lock_of, this_process, write_owner
from urst_tiles.job.written import Written
from urst_tiles.storage.names import beside
from urst_tiles.storage.publish import publish
from urst_tiles.storage.stores import (
    create,
    is_foreign,
    is_remote,
    names_in,
    path_of,
    read_file,
    remove,
)

#: Names in an otherwise empty folder that do not make it somebody's: those that file systems leave, and what
#: a process that was killed in its first moments left of this package's own files.
PASSING = re.compile(r"\.nfs.*|\.fuse_hidden.*|\.DS_Store|\.(job\.json|written\.json|lock)\.[0-9a-f]+\.tmp")

#: The folders in a job folder.
FOLDERS = ("source", "moments", "parts", "jobs.tmp")

#: The name that only the identity of a plan has, and no job.json of somebody else.
OURS = "urst-tiles"


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
        self._written = Written(self.folder)
        self._made = False
        self._removed = False

    @classmethod
    def beside(cls, output: Path, folder: Path | None = None) -> Job:
        """The job that writes ``output``; by default its folder is OUTPUT.job beside ``output``
        (as `urst_tiles.storage.names.beside` names it, where that is too long)."""
        job = cls(folder or beside(output, ".job"))
        job._made = folder is None
        return job

    @property
    def identity(self) -> dict[str, str] | None:
        """The identity of the plan that the folder belongs to, or None if it has no job yet.

        Raises
        ------
        JobDiffers : job.json cannot be read.
        """
        try:
            identity = json.loads(read_file(self._identity))
            if not isinstance(identity, dict):
                raise ValueError("it holds no record of a job")
            return None if identity.get("job") == GONE["job"] else identity
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise JobDiffers(
                f"{self.folder}/job.json cannot be read ({error}); start anew with --overwrite"
            ) from None

    @property
    def ended(self) -> dict[str, str] | None:
        """The identity of the job that was finished here and not yet wholly removed, or None."""
        identity = self._last_record.get("identity")
        return identity if isinstance(identity, dict) else None

    @property
    def last_request(self) -> Any:
        """The request of the job that was finished here, as read from JSON; None if there is none."""
        return self._last_record.get("request")

    @property
    def _last_record(self) -> dict[str, Any]:
        """What is recorded of a finished job, in job.json, or by its mark where there is no job.json."""
        try:
            if self.identity is not None:
                return {}
        except JobDiffers:
            return {}
        records = (read_gone(path) for path in (self._identity, *marks_of(self.folder)))
        return next((record for record in records if record), {})

    @property
    def _gone(self) -> dict[str, Any]:
        """What job.json says of a job whose removal has begun; empty if it says anything else."""
        return read_gone(self._identity)

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
        self._refuse_strangers()
        created = self._make_folder()
        self._made |= created
        with self._holding(fcntl.LOCK_EX, this_process(), created):
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
        self._refuse_strangers()
        owner = f"at least one worker (last came {this_process()})"
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
        """Hold the lock of the folder; ``how`` and ``owner`` are those of `acquire`."""
        lock = acquire(self.folder, how, owner)
        try:
            write_owner(lock, owner)
            yield
        except BaseException as error:
            explained = self._explain(error)
            self._leave(explained, created)
            if explained is error:
                raise
            raise explained from error
        finally:
            os.close(lock)
            if self._removed:
                if not is_remote(self.folder):
                    self._remove_folder()  # some file systems keep a file of a name until it is closed
                remove_marks(self.folder)

    def _explain(self, error: BaseException) -> BaseException:
        """The error itself, or a JobError if it comes from the network of an object store."""
        if not (is_remote(self.folder) and isinstance(error, Exception) and is_foreign(error)):
            return error
        return JobError(f"{self.folder}: {error}; what is finished is kept, the same command goes on")

    def _leave(self, error: BaseException, created: bool) -> None:
        """Leave the folder after an error.

        Finished work stays, and the exit status says so. Otherwise the folder is removed if this call created
        it, unless the user interrupted the job.
        """
        if self.keep:
            if isinstance(error, UrstError):
                error.exit_status = 1
        elif created and isinstance(error, Exception):
            self.remove(finished=False)

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

        What another job wrote into the folder is removed if that job is gone, or with ``overwrite``.

        Raises
        ------
        JobDiffers : the folder belongs to another job; the message names the differences.
        """
        before = None if overwrite else self.identity
        if before is None:
            self._clear(overwrite)
            self._sign(json.dumps(dict(identity), indent=1, sort_keys=True).encode())
            before = self.identity
            if before == dict(identity):
                self._written.start(self._made or self._written.made)
                remove_marks(self.folder, now=True)
        if before != dict(identity):
            raise JobDiffers(
                f"{self.folder} holds another job: {differences(before or {}, identity)};"
                " give the same command, or start anew with --overwrite"
            )

    def writes(self, paths: Iterable[Path]) -> None:
        """Note files in the folder that the job is about to write; only such files are ever removed."""
        self._written.add(paths)

    def writes_folder(self, path: Path) -> None:
        """Note a folder in the folder, into which others write for the job under names of their choice.

        Raises
        ------
        BadInput : somebody else made a folder of this name.
        """
        if is_remote(path) or not self._written.read() or self._written.has_folder(path):
            return
        if path.exists():
            raise BadInput(f"{path} was not made by the job; move it away")
        self._written.add_folder(path)

    def _refuse_strangers(self) -> None:
        """Raise BadInput for a folder that is somebody's: it holds files, and none of them is a job's."""
        names = names_in(self.folder)
        self._refuse_links()
        strange = sorted(name for name in names if not self._is_passing(name))
        if strange and not self._is_ours():
            raise BadInput(
                f"{self.folder} holds something else than a job ({strange[0]!r}, say); name a new or an empty"
                " folder"
            )

    def _is_ours(self) -> bool:
        """Whether the folder holds a job of this package, unfinished or on its way out."""
        if self._written.read() or self._gone or read_gone(self.folder / INSIDE):
            return True
        try:
            identity = self.identity
        except JobDiffers:
            return False
        return identity is not None and OURS in identity

    def _is_passing(self, name: str) -> bool:
        """Whether a name in the folder makes it nobody's; the lock of a job is there before anything else."""
        return bool(PASSING.fullmatch(name)) or (name == "lock" and is_lock(self.folder / name))

    def _refuse_links(self) -> None:
        """Raise BadInput for a symbolic link in the folder: what is written there would lie elsewhere."""
        if is_remote(self.folder):
            return
        for folder in (self.folder, *(self.folder / name for name in FOLDERS)):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink():  # without a question to the file system for each of many parts
                        raise BadInput(
                            f"{entry.path} is a symbolic link, and a job folder holds none: remove it, or"
                            " choose another --job-dir"
                        )

    def _sign(self, identity: bytes) -> None:
        """Write job.json. On an object store an existing job.json stays: another machine was faster."""
        if is_remote(self.folder):
            create(self._identity, identity)
        else:
            publish(self._identity, identity)

    def _clear(self, overwrite: bool) -> None:
        """Remove what an earlier job wrote. Its job.json goes last."""
        self._written.remove_files()
        if overwrite or self._gone:
            self._made |= self._gone.get("made") is True
            remove(self._identity)

    def remove(self, *, finished: bool = True) -> None:
        """Remove all that the job wrote, and the folder if nothing else is in it and the job made it.

        job.json is replaced first: a process that is killed meanwhile never leaves half a job that looks like
        a whole one. If the job is ``finished``, the same command then knows that.
        """
        self._written.read()
        if self._identity.exists():
            with suppress(JobDiffers, DiskFull):
                publish(self._identity, self._farewell(finished))
        self._finish_removal()

    def _farewell(self, finished: bool) -> bytes:
        """The content of job.json while the job is being removed. Raises JobDiffers if it cannot be read."""
        identity = (self.identity or self.ended) if finished else None
        made = self._made or self._written.made
        return json.dumps({**GONE, "identity": identity, "made": made}).encode()

    def bury(self) -> None:
        """Finish a removal that was interrupted, unless another process is at it, or it is not allowed."""
        if not is_remote(self.folder) and not self.folder.exists():
            return remove_marks(self.folder)
        with (
            suppress(JobBusy, BadInput, OSError),
            self._holding(fcntl.LOCK_EX, this_process(), created=False),
        ):
            if self.ended is not None:
                self._finish_removal()

    def _finish_removal(self) -> None:
        """Remove all that the job wrote.

        The mark of a finished job outlives its folder: as long as it is there, the same command knows that it
        is finished.
        """
        self._written.read()
        self._made |= self._last_record.get("made") is True
        self._mark()
        if self._written.remove_files(keep=self.request):
            remove(self.request)
        for path in (self._written.path, self._identity):
            remove(path)
        self._removed = True
        if not is_remote(self.folder):
            remove(lock_of(self.folder))
            self._remove_folder()

    def _mark(self) -> None:
        """Leave the mark of a finished job, which has its request too, unless it is there already."""
        if not self._gone.get("identity"):
            return
        try:
            request = json.loads(read_file(self.request))
        except (OSError, ValueError, RecursionError):
            request = None
        with suppress(UrstError, OSError):
            leave_mark(self.folder, self._gone | {"request": request}, self._made or self._written.made)

    def _remove_folder(self) -> None:
        """Remove the folder if it is empty and the job made it."""
        if self._made or self._written.made:
            with suppress(OSError):
                self.folder.rmdir()


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
