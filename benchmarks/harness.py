"""Shared by the benchmarks: tables, a description of the machine, peak memory of a process tree, scenes, and
what the command lines of ``pipelines/`` have in common."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parents[1] / "pipelines"))
from command_line import Parser as Parser
from command_line import existing_file as existing_file
from command_line import existing_folder as existing_folder
from command_line import integer as integer
from command_line import new_file as new_file
from command_line import new_folder as new_folder
from command_line import positive as positive
from command_line import program as program
from command_line import read_table as read_table
from command_line import reading as reading
from command_line import several as several

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
WORK = ROOT / "demo" / "bench"
COMMAND = [str(Path(sys.executable).parent / "urst-tiles")]


@dataclass(frozen=True)
class Run:
    """A finished command.

    Attributes
    ----------
    seconds : wall time in seconds.
    peak_bytes : peak resident memory of the process tree.
    status : exit status.
    output : standard output and standard error together.
    """

    seconds: float
    peak_bytes: int
    status: int
    output: str


def measured(command: Sequence[str], *, interval: float = 0.05, **environment: str) -> Run:
    """Run a command and measure the memory of its process tree every ``interval`` seconds.

    The peak is the largest sample. For a single process each sample is the peak that the kernel counted.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    memory = Memory(process.pid, interval)
    output, _ = process.communicate()
    return Run(time.perf_counter() - started, memory.close(), process.returncode, output)


class Memory:
    """The largest resident memory of a process tree, sampled every ``interval`` seconds until it is
    closed."""

    def __init__(self, pid: int, interval: float) -> None:
        self._peak_bytes, self._pid, self._interval = 0, pid, interval
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._peak_bytes = max(self._peak_bytes, tree_bytes(self._pid))
            self._closed.wait(self._interval)

    def close(self) -> int:
        """Stop watching; the peak in bytes."""
        self._closed.set()
        self._thread.join()
        return self._peak_bytes


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and its descendants; for a process without descendants, their peak.

    A child that was forked and has not yet become another program shares all memory with its parent, and does
    not count.
    """
    try:
        root = psutil.Process(pid)
        words = root.cmdline()
        others = [p for p in root.children(recursive=True) if p.cmdline() != words]
        if not others:
            return high_water(pid)
        return sum(p.memory_info().rss for p in (root, *others))
    except (psutil.NoSuchProcess, OSError):
        return 0


def high_water(pid: int) -> int:
    """The peak of the resident memory of a process in bytes (VmHWM of Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def machine() -> str:
    """One line about this machine: the processor, its cores, the memory and the version of torch."""
    import torch

    name = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / (1 << 30)
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, torch {torch.__version__}"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n{machine()}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |",
            flush=True,
        )


def scene(megapixels: int, compression: str = "deflate") -> Path:
    """The path of a procedural scene of this size; it is made when it is first asked for."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"scene-{megapixels}-{compression}.tif"
    if not path.exists():
        program = ROOT / "pipelines" / "make_scene.py"
        subprocess.run(
            [
                sys.executable,
                str(program),
                str(path),
                "--megapixels",
                str(megapixels),
                "--compression",
                compression,
            ],
            check=True,
        )
    return path


def style_image() -> Path:
    """The path of a procedural style image; it is made when it is first asked for."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "style.png"
    if not path.exists():
        subprocess.run([sys.executable, str(ROOT / "pipelines" / "make_style.py"), str(path)], check=True)
    return path
