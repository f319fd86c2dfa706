"""The threads of this process that compute: their number limits how much is computed at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import ParamSpec, TypeVar

import torch

from urst_tiles.geometry import ceil_div

P = ParamSpec("P")
T = TypeVar("T")

_making = threading.Lock()


@dataclass(frozen=True)
class ComputeThreads:
    """Threads of this process that compute, each with a team of torch threads.

    A count of 1 works as a lock around the device. Windows that are too small for all cores of the CPU are
    computed on several threads at once.

    Attributes
    ----------
    count : number of threads.
    threads : torch threads of each of them.
    """

    count: int = 1
    threads: int = 1

    @classmethod
    def sharing(cls, threads: int, count: int) -> ComputeThreads:
        """At most ``count`` threads, which share ``threads`` torch threads between them.

        Each gets the same number of torch threads, rounded up.
        """
        count = max(1, min(count, threads))
        return cls(count, ceil_div(threads, count))

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` on one of the threads, as soon as one is idle, and wait for the result."""

        def call() -> T:
            if torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)
            return function(*args, **kwargs)

        with _making:
            idle = _idle(self.count)
        thread = idle.get()
        try:
            return thread.submit(call).result()
        finally:
            idle.put(thread)


#: A single thread with a single torch thread.
ONE_THREAD = ComputeThreads()


@cache
def _idle(count: int) -> queue.SimpleQueue[ThreadPoolExecutor]:
    """A queue of ``count`` threads; a thread that computes is taken out of the queue until it has ended."""
    threads: queue.SimpleQueue[ThreadPoolExecutor] = queue.SimpleQueue()
    for number in range(count):
        threads.put(_device_thread(number))
    return threads


@cache
def _device_thread(number: int) -> ThreadPoolExecutor:
    """Thread ``number``, which the queues of all counts share.

    With further threads the process would grow, since each thread holds on to memory that it has freed.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=f"device-{number}")


def on_device(threads: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` on the first thread, with ``threads`` torch threads, and wait for the result.

    All callers in a process share this thread, so only one of them computes at a time.
    """
    return ComputeThreads(1, threads).run(function, *args, **kwargs)
