"""Host memory: large arrays in pages of their own, and what was freed given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Arrays from this size on lie in pages of their own; mapping smaller ones costs more than it spares.
MAPPED_BYTES = 4 << 20

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
