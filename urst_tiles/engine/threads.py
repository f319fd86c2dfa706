"""The threads of this process that compute, so that as many do at once as there is room and use for."""

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

    One is a lock around the device. Windows too small for all processors are computed on several at once.
    """

    count: int = 1
    #: Torch threads of each.
    threads: int = 1

    @classmethod
    def sharing(cls, threads: int, count: int) -> ComputeThreads:
        """At most ``count`` threads, which share ``threads`` torch threads between them."""
        count = max(1, min(count, threads))
        return cls(count, ceil_div(threads, count))

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` on one of them, and wait for its result."""

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


#: One thread, one torch thread.
ONE_THREAD = ComputeThreads()


@cache
def _idle(count: int) -> queue.SimpleQueue[ThreadPoolExecutor]:
    """So many threads, of which one is taken as long as it computes."""
    threads: queue.SimpleQueue[ThreadPoolExecutor] = queue.SimpleQueue()
    for number in range(count):
        threads.put(_device_thread(number))
    return threads


@cache
def _device_thread(number: int) -> ThreadPoolExecutor:
    """The first is the same however many there are: a thread keeps the memory that it freed for itself."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"device-{number}")


def on_device(threads: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` on the one device thread, with ``threads`` torch threads, and wait for its result."""
    return ComputeThreads(1, threads).run(function, *args, **kwargs)
