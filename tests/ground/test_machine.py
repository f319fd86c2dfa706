"""Arrays in pages of their own; one heap for all threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from urst_tiles.machine import MAPPED_BYTES, mapped

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")

#: Threads that allocate at once; then the heaps that glibc has made, counted in what it tells.
HEAPS = """
import ctypes, sys, threading
from urst_tiles.machine import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
import numpy as np
together = threading.Barrier(5)
def allocate():
    kept = [np.ones(10_000) for _ in range(10)]
    together.wait()
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
together.wait()
"""


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("shape", [(5, 7, 3), (0, 4), (2048, 1024, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_mapped_is_zeros(shape: tuple[int, ...], dtype: str) -> None:
    array = mapped(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert not array.any()
    array[...] = 7
    assert (array == 7).all()


@linux
def test_pages_come_with_use_and_go_at_once() -> None:
    size = 16 * MAPPED_BYTES
    before = resident()
    array = mapped((size,), np.uint8)
    assert resident() - before < size // 4
    array[:] = 1
    view = array[::2]
    del array
    assert resident() - before > size * 0.9
    del view
    assert resident() - before < size // 4


def test_no_room_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="no room for an array of 70368744177664 bytes"):
        mapped((1 << 46,), np.uint8)


def heaps(tmp_path: Path, how: str, **environment: str) -> int:
    told = tmp_path / "heaps.xml"
    inherited = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", HEAPS, how, str(told)]
    subprocess.run(command, check=True, env=inherited | environment)
    return told.read_text().count("<heap nr=")


@linux
def test_threads_share_one_heap(tmp_path: Path) -> None:
    assert heaps(tmp_path, "shared") == 1
    assert heaps(tmp_path, "apart") > 1


@linux
def test_the_environment_wins(tmp_path: Path) -> None:
    assert heaps(tmp_path, "shared", MALLOC_ARENA_MAX="3") == 3


@linux
def test_processes_to_come_share_one_too() -> None:
    code = "import os, urst_tiles.machine as m; m.share_one_heap(); print(os.environ['MALLOC_ARENA_MAX'])"
    inherited = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    child = subprocess.run([sys.executable, "-c", code], env=inherited, capture_output=True, text=True)
    assert child.stdout == "1\n"


def test_threads_of_torch_sleep_while_they_wait_unless_the_user_says_otherwise() -> None:
    code = """if True:
        import os
        from urst_tiles.machine import serve_beside_others
        serve_beside_others()
        print(os.environ["OMP_WAIT_POLICY"], os.environ["THP_MEM_ALLOC_ENABLE"])
    """
    chosen = {"OMP_WAIT_POLICY": "ACTIVE", "THP_MEM_ALLOC_ENABLE": "0"}
    for given, wanted in (({}, ["PASSIVE", "1"]), (chosen, ["ACTIVE", "0"])):
        known = {k: v for k, v in os.environ.items() if k not in chosen} | given
        run = subprocess.run(
            [sys.executable, "-c", code], env=known, capture_output=True, text=True, check=True
        )
        assert run.stdout.split() == wanted


def test_the_studio_has_them_sleep_before_torch_is_there() -> None:
    """libgomp reads the variable when it is loaded, and torch loads it; that of huge pages torch reads when
    it makes the first tensor."""
    code = """if True:
        import os, sys
        from urst_tiles.cli import studio
        calls = []
        studio.serve_beside_others = lambda: calls.append("torch" in sys.modules)
        try:
            studio.run_studio(None)
        except AttributeError:
            print(calls, "torch" in sys.modules)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[False] True"
