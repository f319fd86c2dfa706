"""This machine: its cores and its memory, and the threads that share them.

Large arrays lie in pages of their own, and freed memory is given back to the system, so that a long run takes
no more than its beginning.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Arrays from this size on lie in pages of their own; mapping smaller ones costs more than it spares.
MAPPED_BYTES = 4 << 20

T = TypeVar("T")
R = TypeVar("R")

#: Of ``malloc.h``.
_M_ARENA_MAX = -8


def mapped(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros, like `numpy.zeros`, in pages that go back to the system the moment it is freed.

    malloc puts an array where a free piece is large enough, be it among small ones that outlive it; what then
    lies free between them stays with the process, more of it the longer the run.

    Raises
    ------
    MemoryError : the system has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < MAPPED_BYTES:
        return np.zeros(shape, dtype)
    return np.frombuffer(_pages(size), dtype, math.prod(shape)).reshape(shape)


def _pages(size: int) -> mmap.mmap:
    private = getattr(mmap, "MAP_PRIVATE", None)
    try:
        pages = mmap.mmap(-1, size) if private is None else mmap.mmap(-1, size, private | mmap.MAP_ANONYMOUS)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"no room for an array of {size} bytes") from error
        raise
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def share_one_heap() -> None:
    """Let all threads of this process, and of those that it starts, allocate from one heap (glibc: arena).

    `trim` gives back the end of the first heap alone, and those of threads would keep what they once took.
    Comes before the first thread; ``MALLOC_ARENA_MAX`` of the environment wins.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        os.environ["MALLOC_ARENA_MAX"] = "1"  # read by the processes to come
        _glibc("mallopt", _M_ARENA_MAX, 1)


def trim() -> None:
    """Give the memory that was freed back to the system; glibc keeps it where large and small arrays lie
    mixed. Takes some 10 ms after a block."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function that other C libraries do not have, and need not."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def cpu_count() -> int:
    """The number of cores that this process may use: its affinity, and the CPU quota of its container."""
    import dask.system  # here, since it would make `import urst_tiles` slow

    return dask.system.cpu_count()


def available_memory() -> int:
    """The bytes of memory that this process may take: of the machine, or of its container where that allows
    less."""
    import distributed.system  # here, since it would make `import urst_tiles` slow

    return distributed.system.memory_limit()


@cache
def decoder_count() -> int:
    """The number of threads that decode: a reader never needs more than eight."""
    return min(8, cpu_count())


_lock = threading.Lock()
_pools: dict[tuple[str, int], ThreadPoolExecutor] = {}


def _pool(name: str) -> ThreadPoolExecutor:
    """The pool of this process called ``name`` (a forked child gets its own)."""
    with _lock:
        here = name, os.getpid()
        if here not in _pools:
            _pools[here] = ThreadPoolExecutor(decoder_count(), thread_name_prefix=f"urst-{name}")
        return _pools[here]


def decoders() -> ThreadPoolExecutor:
    """The threads of this process that decode."""
    return _pool("decode")


def views() -> ThreadPoolExecutor:
    """Threads for callers that come from an event loop. They wait for decoders, so they are no decoders."""
    return _pool("view")


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int | None = None
) -> Iterator[R]:
    """The results of ``function`` for each item, in the order of the items.

    At most ``ahead`` calls (twice the number of decoders, unless told otherwise) are begun whose results are
    not yet taken. When the caller stops early, or a call
    fails, nothing runs on in the pool.
    """
    items = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(items, ahead or 2 * decoder_count()))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)
