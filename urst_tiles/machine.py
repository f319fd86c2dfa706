"""The cores and the memory of this machine, and the threads that share them.

Large arrays lie in memory pages that they share with nothing else, and freed memory is given back to the
system, so that a process does not grow over a long run.
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

from urst_tiles import cgroups

#: Arrays of at least this size lie in pages of their own; for smaller ones mapping costs more than it saves.
MAPPED_BYTES = 4 << 20

T = TypeVar("T")
R = TypeVar("R")

#: Parameters of mallopt, from glibc's ``malloc.h``.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

#: Where glibc's own thresholds end, which grow with what is freed: arrays of at least this size lie in pages
#: of their own.
_LARGEST_THRESHOLD = 32 << 20


def mapped(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros, like `numpy.zeros`, whose pages go back to the system as soon as it is freed.

    malloc would put the array wherever a free piece of the heap is large enough, also between small arrays
    that outlive it. The gaps that this leaves stay with the process, and grow with the length of the run.

    Raises
    ------
    MemoryError : the system has no room for the array.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < MAPPED_BYTES:
        return np.zeros(shape, dtype)
    return np.frombuffer(_pages(size), dtype, math.prod(shape)).reshape(shape)


def _pages(size: int) -> mmap.mmap:
    """``size`` bytes of zeros that no file backs, in huge pages where the kernel offers them."""
    private = getattr(mmap, "MAP_PRIVATE", None)
    try:
        pages = mmap.mmap(-1, size) if private is None else mmap.mmap(-1, size, private | mmap.MAP_ANONYMOUS)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"no room for an array of {size} bytes") from error
        raise
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # the kernel may have no huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def share_one_heap() -> None:
    """Let all threads of this process, and of the processes that it starts, allocate from one heap.

    glibc calls these heaps arenas and gives threads further ones. `trim` shortens only the first heap; the
    others would keep all the memory that they once took. This must be called before the first thread starts.
    It changes nothing if the environment has a variable ``MALLOC_ARENA_MAX``.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        os.environ["MALLOC_ARENA_MAX"] = "1"  # for the processes that this one starts
        _glibc("mallopt", _M_ARENA_MAX, 1)


def trim() -> None:
    """Give freed memory back to the system, which takes some 10 ms after a block.

    Otherwise glibc keeps the memory of freed arrays that lie between others.
    """
    _glibc("malloc_trim", 0)


@contextlib.contextmanager
def large_arrays_apart() -> Iterator[None]:
    """While this lasts, arrays of at least 1 MB lie in pages of their own, so that no gaps are left between
    them; what is free goes back to the system first.

    It is for a step with few, large arrays: for many small ones mapping pages costs time. It changes nothing
    if the environment has a variable that sets glibc's thresholds.
    """
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
    if any(name in os.environ for name in names):
        yield
        return
    trim()
    _glibc("mallopt", _M_MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:  # a threshold that was set grows no more
        _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        _glibc("mallopt", _M_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)


@contextlib.contextmanager
def trimmed() -> Iterator[None]:
    """Before and after, what is free goes back to the system."""
    trim()
    try:
        yield
    finally:
        trim()


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; does nothing if the C library of this process does not have it."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def cpu_count() -> int:
    """The number of cores that this process may use, by its affinity and the CPU quotas of its control groups
    (of a container, a SLURM job or a unit of systemd)."""
    import dask.system  # not at the top, where it would make `import urst_tiles` slow

    cores, limit = dask.system.cpu_count(), cgroups.cpu_limit()
    return cores if limit is None else min(cores, limit)


def available_memory() -> int:
    """The bytes of memory that this process may take: all of the machine, or the least limit of its control
    groups (of a container, a SLURM job or a unit of systemd) if that is lower."""
    import distributed.system  # not at the top, where it would make `import urst_tiles` slow

    machine, limit = distributed.system.memory_limit(), cgroups.memory_limit()
    return machine if limit is None else min(machine, limit)


@cache
def decoder_count() -> int:
    """The number of threads that decode: as many as cores, but at most eight; a reader needs no more."""
    return min(8, cpu_count())


_lock = threading.Lock()
_pools: dict[tuple[str, int], ThreadPoolExecutor] = {}


def _pool(name: str) -> ThreadPoolExecutor:
    """The thread pool of this process called ``name``; a forked child makes a new pool."""
    with _lock:
        here = name, os.getpid()
        if here not in _pools:
            _pools[here] = ThreadPoolExecutor(decoder_count(), thread_name_prefix=f"urst-{name}")
        return _pools[here]


#: The variable by which torch is told to lay large tensors in huge pages.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def serve_beside_others() -> None:
    """Have torch suit a server, which is mostly idle and shares the machine. It must be called before torch
    is imported. What the environment says already stays.

    The threads of torch sleep, and do not spin, while they wait for each other: small windows are mostly
    waiting, and on a machine that does other work, too, spinning threads take two to four times as long for
    them. Tensors of at least 2 MB lie in huge pages, where the kernel has them: to measure a thumbnail then
    takes a quarter less time, since the kernel clears fewer pages; a job takes some percent more memory than
    its plan counts, and a server does not keep to one. The results are the same, to the bit.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault(HUGE_PAGES, "1")


def decoders() -> ThreadPoolExecutor:
    """The pool of the threads of this process that decode."""
    return _pool("mend" if getattr(_apart, "on", False) else "decode")


def is_decoder() -> bool:
    """Whether this thread is one of those of `decoders`, which run nothing but this package's reading."""
    return threading.current_thread().name.startswith(("urst-decode", "urst-mend"))


_apart = threading.local()


@contextlib.contextmanager
def decoding_apart() -> Iterator[None]:
    """In this ``with`` block of this thread, `decoders` gives a pool of other threads.

    The usual ones may wait for what is decoded here.
    """
    _apart.on = True
    try:
        yield
    finally:
        _apart.on = False


def views() -> ThreadPoolExecutor:
    """The pool of threads that serve callers from an event loop.

    They wait for the threads of `decoders`, so they must not be in that pool.
    """
    return _pool("view")


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int | None = None
) -> Iterator[R]:
    """Yield the results of ``function`` for each item, in the order of the items.

    Parameters
    ----------
    ahead : how many calls may run or wait ahead of the result that is taken; by default twice the number of
        decoders. If the caller stops early, or a call fails, none of these calls runs on in the pool.
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
