"""The threads that decode: one small pool per process, results in order, a bounded number under way."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

#: Threads of the pool: as many as this process may run on, but a reader never needs more than eight.
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def pool() -> ThreadPoolExecutor:
    """This process's decoders (a forked child gets its own)."""
    with _lock:
        here = os.getpid()
        if here not in _pools:
            _pools[here] = ThreadPoolExecutor(THREADS, thread_name_prefix="urst-decode")
        return _pools[here]


def views() -> ThreadPoolExecutor:
    """Threads for callers that come from an event loop; apart from the decoders, for which these wait."""
    with _lock:
        here = -os.getpid()
        if here not in _pools:
            _pools[here] = ThreadPoolExecutor(THREADS, thread_name_prefix="urst-view")
        return _pools[here]


def in_order(function: Callable[[T], U], items: Iterable[T], ahead: int = 2 * THREADS) -> Iterator[U]:
    """``map`` on the pool: results in order, at most ``ahead`` under way; after an error nothing runs on."""
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool().submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for future in waiting:
            if not future.cancelled():
                future.exception()
