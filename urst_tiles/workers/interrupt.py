"""Ctrl-C with worker processes: this process alone is interrupted, and it ends the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children, resource_tracker
from typing import Any

#: Seconds to wait at the end for child processes that are just being launched.
LAUNCH_SECONDS = 5.0


@contextmanager
def loop_for_processes() -> Iterator[Any]:
    """An event loop of dask, in a thread of its own, whose child processes are not interrupted by Ctrl-C.

    A terminal sends SIGINT to all processes of a command. Each worker would print its traceback and end by
    itself, even while it still imports modules. So the thread that starts them blocks the signal: threads and
    processes inherit that from the one that makes them. The main thread is interrupted as ever.
    """
    from distributed.utils import LoopRunner

    _start_tracker()  # first: it would unblock the signal in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()
        _finish_launches()


def _start_tracker() -> None:
    """Start Python's resource tracker, a process that removes what others left behind, in silence.

    It would warn of each semaphore that it removes. Processes that Ctrl-C ends leave some, and that is what
    the tracker is for: it does its work, and the user reads one sentence.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (before, "ignore:resource_tracker:UserWarning")))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _finish_launches() -> None:
    """Wait until no child process is being launched.

    A new process reads from a pipe what it shall run. If this process ended before it wrote that, the new one
    would print a traceback.
    """
    end = time.monotonic() + LAUNCH_SECONDS
    while _spawned() - {child.pid for child in active_children()} and time.monotonic() < end:
        time.sleep(0.02)


def _spawned() -> set[int]:
    """The process ids of children that multiprocessing spawned, also of those that it is still launching."""
    import psutil

    spawned = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any("multiprocessing.spawn" in word for word in child.cmdline()):
                spawned.add(child.pid)
    return spawned
