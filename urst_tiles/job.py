"""The job folder: who works on it, which job it belongs to, and where its things lie.

OUTPUT.job/
  job.json     the plan's identity; another job is refused, naming what differs
  lock         held (flock) by the process that spools, measures, runs and assembles; a kill releases it
  source/      spool, thumbnail, resolved stretch
  moments/     statistics, per site
  net.safetensors   the frozen network; a worker needs nothing else
  parts/       one file per finished block
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from urst_tiles.errors import BadInput, JobBusy, JobDiffers, UrstError
from urst_tiles.files import publish


class Job:
    """A job folder.

    Parameters
    ----------
    folder : need not exist yet; its parent must.

    Attributes
    ----------
    running : set when the first block starts; from then on an error leaves the folder in place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.source = self.folder / "source"
        self.moments = self.folder / "moments"
        self.net = self.folder / "net.safetensors"
        self.parts = self.folder / "parts"
        self.running = False

    @classmethod
    def beside(cls, output: Path, folder: Path | None = None) -> Job:
        """The job of ``output``: in ``folder``, or beside it on the same file system."""
        return cls(folder or output.parent / f"{output.name}.job")

    @property
    def identity(self) -> dict[str, str] | None:
        """What the folder's job is, or None where there is none yet."""
        try:
            return json.loads((self.folder / "job.json").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise JobDiffers(
                f"{self.folder}/job.json cannot be read ({error}); start anew with --overwrite"
            ) from None

    @property
    def held_bytes(self) -> int:
        """Disk that an earlier run's work takes already: a job that goes on needs that much less."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @contextmanager
    def locked(self) -> Iterator[Job]:
        """Hold the folder (made if needed); raises JobBusy where a live process holds it."""
        shutil.rmtree(self._gone, ignore_errors=True)
        created = self._make_folder()
        try:
            handle = open(self.folder / "lock", "a+")  # noqa: SIM115 (closed by the with below)
        except OSError as error:
            raise BadInput(f"the job folder {self.folder} cannot be written: {error.strerror}") from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                owner = handle.read().strip() or "another process"
                raise JobBusy(
                    f"{owner} works on {self.folder} now; wait for it, or choose another --job-dir"
                ) from None
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
            try:
                yield self
            except BaseException as error:
                self._leave(error, created)
                raise

    def _leave(self, error: BaseException, created: bool) -> None:
        """Before the first block nothing stays behind; later (or at the user's word) the folder is kept."""
        if self.running:
            if isinstance(error, UrstError):
                error.exit_status = 1
        elif created and isinstance(error, Exception):
            self.remove()

    def _make_folder(self) -> bool:
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
        """Make this the folder of the job ``identity``; raises JobDiffers, naming what differs, where it is
        another's."""
        before = None if overwrite else self.identity
        if before is not None and before != dict(identity):
            raise JobDiffers(
                f"{self.folder} holds another job: {differences(before, identity)};"
                " give the same command, or start anew with --overwrite"
            )
        if overwrite:
            self.clear()
        if before is None:
            publish(self.folder / "job.json", json.dumps(dict(identity), indent=1, sort_keys=True).encode())

    def clear(self) -> None:
        """Remove everything but the lock."""
        for path in self.folder.iterdir():
            if path.name == "lock":
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self) -> None:
        """Remove the folder and all in it; renamed first, so that a kill never leaves half a job under its
        name."""
        self.folder.rename(self._gone)
        shutil.rmtree(self._gone, ignore_errors=True)

    @property
    def _gone(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.gone")


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
