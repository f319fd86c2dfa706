"""Ctrl-C with worker processes: this process alone is interrupted, and it ends the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


@contextmanager
def loop_for_processes() -> Iterator[Any]:
    """An event loop of dask, in a thread of its own, whose child processes are not interrupted by Ctrl-C.

    A terminal sends SIGINT to all processes of a command. Each worker would print its traceback and end by
    itself, even while it still imports modules. So the thread that starts them blocks the signal: threads and
    processes inherit that from the one that makes them. The main thread is interrupted as ever.
    """
    from distributed.utils import LoopRunner

    resource_tracker.ensure_running()  # it would unblock the signal in the thread that starts it
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
