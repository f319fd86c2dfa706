"""Runs of the command line in processes that are forked from one that has imported everything.

To import torch takes seconds, to fork milliseconds. This process must have one thread only: what other
threads held would be locked for ever in its children.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

LIMIT_SECONDS = 40


def import_everything() -> None:
    """Import all that commands import, and start no thread."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import distributed  # noqa: F401
    import imagecodecs
    import pyvips  # noqa: F401
    import tifffile  # noqa: F401
    import torch  # noqa: F401
    import zarr  # noqa: F401
    from distributed.cli import dask_worker  # noqa: F401

    import urst_tiles.api.batch
    import urst_tiles.api.shards
    import urst_tiles.api.stylize  # noqa: F401

    for codec in ("deflate", "zstd", "jpeg8", "lzw", "webp", "jpeg2k", "packbits"):
        getattr(imagecodecs, f"{codec}_decode", None)


def fork() -> int:
    """`os.fork`, where this process has one thread."""
    assert len(os.listdir("/proc/self/task")) == 1, "there are threads"
    sys.stdout.flush()
    return os.fork()


class Child:
    """A run of ``urst-tiles ARGUMENTS`` in a forked process; ``hurt`` prepares what happens to it."""

    def __init__(
        self, arguments: Sequence[object], log: Path, hurt: Callable[[], None] = lambda: None
    ) -> None:
        self.log = log
        self.pid = fork()
        if self.pid == 0:
            _be([str(argument) for argument in arguments], log, hurt)
        self.status: int | None = None

    def poll(self) -> int | None:
        """The exit status, or minus the number of the signal that ended it; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit status; a run that does not end is killed and raises TimeoutError."""
        end = time.monotonic() + LIMIT_SECONDS
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                self.kill(signal.SIGUSR1)  # it tells where its threads are
                time.sleep(1)
                self.kill()
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"still running after {LIMIT_SECONDS} s\n{self.said}")
            time.sleep(0.005)
        return status

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.log.read_text(errors="replace")


def _be(arguments: list[str], log: Path, hurt: Callable[[], None]) -> None:
    """Be the child: run the command and end as a process of Python does."""
    status = 99
    try:
        os.setsid()
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        sys.argv = ["urst-tiles", *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        faulthandler.register(signal.SIGUSR1)
        from urst_tiles.cli import program

        hurt()
        try:
            program()
        except SystemExit as stop:
            status = int(stop.code or 0)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()  # which may end this process
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
