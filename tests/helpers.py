"""Made-up pictures and files that many tests use, and a dask cluster of real processes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """uint8 (h, w, 3), smooth and busy at once."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    smooth = 127 + 80 * np.sin(
        x[..., None] / np.array([9.0, 31, 77]) + y[..., None] / np.array([23.0, 11, 50])
    )
    return np.clip(smooth + random.normal(0, 25, (h, w, 3)), 0, 255).astype(np.uint8)


def noise_bits(y: int, x: int, level: int, seed: int) -> int:
    """The 32 bits of the noise of a painted level at a place, with Python's integers."""

    def mixed(n: int) -> int:
        n ^= n >> 16
        n = n * 0x21F0AAAD % 2**32
        n ^= n >> 15
        n = n * 0x735A2D97 % 2**32
        return n ^ n >> 15

    key = mixed(mixed(seed) ^ level)
    return mixed(mixed(y ^ key) ^ mixed((x + 0x9E3779B9) % 2**32))


def geotiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """A tiled deflate GeoTIFF in UTM zone 32."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True),
        (34735, 3, len(keys), keys, True),
    ]
    settings = {
        "tile": (256, 256),
        "compression": "deflate",
        "photometric": "rgb",
        "metadata": None,
        "extratags": tags,
    }
    tifffile.imwrite(path, pixels, **(settings | options))
    return path


def strips(path: Path) -> Path:
    """A strip TIFF of 500 x 760, so that it must be unpacked first; 6 blocks of 256."""
    return geotiff(path, picture(500, 760), tile=None, rowsperstrip=16)


def mask(path: Path) -> Path:
    """Two regions, 1 and 2, over 500 x 760 pixels, at a tenth of the resolution."""
    regions = np.ones((50, 76), np.uint8)
    regions[:, 40:] = 2
    tifffile.imwrite(path, regions)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def painted_cores(monkeypatch: Any) -> list[Any]:
    """The cores of all windows that networks compute from now on, in their order."""
    from urst_tiles.engine.kernel import Kernel

    cores, run = list[Any](), Kernel.run

    def noting(kernel: Kernel, windows: Any, boxes: Any, wanted: Any) -> Any:
        cores.extend(wanted)
        return run(kernel, windows, boxes, wanted)

    monkeypatch.setattr(Kernel, "run", noting)
    return cores


def peak_of(command: list[str]) -> int:
    """High-water mark of the resident bytes of a child: asked for while it runs, since the mark that ``wait``
    tells begins with what this process held when it forked."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in marks)])
        time.sleep(0.01)
    assert process.returncode == 0
    return peak


Moment = Callable[[Path], bool]


def some(pattern: str, count: int = 1) -> Moment:
    """When a folder holds so many files of a pattern."""
    return lambda folder: len(list(folder.glob(pattern))) >= count


#: Phases of the job out.tif in their order, each with the moment at which it begins.
MOMENTS = {
    "spooling": some("out.tif.job/source"),
    "measuring": some("out.tif.job/moments/*"),
    "after the first site": some("out.tif.job/moments/*[a-z].npz"),
    "first block": some("out.tif.job/parts/[0-9]*"),
    "fourth block": some("out.tif.job/parts/[0-9]*", 4),
    "assembling": some(".out.tif.*.tmp"),
    "the end": some("out.tif"),
}


def delayed(moment: Moment, seconds: float) -> Moment:
    """So long after that moment was seen, even where what was seen is gone."""
    seen = list[float]()

    def come(folder: Path) -> bool:
        if not seen and moment(folder):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + seconds

    return come


class Enough(Exception):
    """A job is stopped here."""


def stop_at(blocks: int) -> Callable[[str, int, int], None]:
    """A progress that stops a job once so many of its blocks are finished."""

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "stylising" and done >= blocks:
            raise Enough

    return stop


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What ``what`` returns once that is something; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


class Elsewhere:
    """A dask scheduler on 127.0.0.1, and workers, each in a process of its own; killed at the end."""

    QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    HERE = ("--host", "127.0.0.1", "--no-dashboard")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        contact = folder / "scheduler.json"
        contact.unlink(missing_ok=True)
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
        self.scheduler = subprocess.Popen([*command, "--scheduler-file", contact, *self.HERE], **self.QUIET)
        while not contact.exists() or not contact.read_text().endswith("}"):
            assert self.scheduler.poll() is None
            time.sleep(0.05)
        self.address: str = json.loads(contact.read_text())["address"]

    def add(self, threads: int = 2) -> subprocess.Popen[bytes]:
        """One more worker; it comes some seconds later."""
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--no-nanny"]
        more = ["--nthreads", str(threads), "--local-directory", self.folder / "dask"]
        self.workers.append(subprocess.Popen([*command, *more, *self.HERE], **self.QUIET))
        return self.workers[-1]

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *error: object) -> None:
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()


def one_sentence(done: subprocess.CompletedProcess[str], status: int, *words: object) -> None:
    """stderr is one line of this program that holds all ``words``."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("urst-tiles: "), done.stderr
    for word in words:
        assert str(word) in lines[0]
