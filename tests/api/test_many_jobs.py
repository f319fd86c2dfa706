"""Many jobs in one process: the hundredth leaves no more behind than the tenth."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.api.batch import run_batch
from urst_tiles.api.table import BatchJob

SMALL: dict[str, Any] = {"tile": 256, "block": 256, "thumbnail": 64, "device": "cpu", "threads": 1}
STYLE = "hokusai-wave"


class Left(NamedTuple):
    """What a process holds after a job."""

    schedulers: int
    workers: int
    files: int
    threads: int
    blocks: int
    resident_bytes: int
    seconds: float  # of processor time, which other programs do not lengthen


def left(seconds: float) -> Left:
    from distributed import Scheduler, Worker

    gc.collect()
    objects, process = gc.get_objects(), psutil.Process()
    counts = [sum(issubclass(type(one), kind) for one in objects) for kind in (Scheduler, Worker)]
    sizes = process.num_fds(), threading.active_count(), len(objects), process.memory_info().rss
    return Left(*counts, *sizes, seconds)


def inputs(folder: Path, count: int) -> list[Path]:
    first = geotiff(folder / "scene.tif", picture(200, 200))
    paths = [folder / f"in{number}.tif" for number in range(count)]
    for path in paths:
        os.link(first, path)
    return paths


def batch(folder: Path, count: int) -> Iterator[Left]:
    """Of one `run`."""
    options = ut.Options(**SMALL)
    jobs = [
        BatchJob(path, path.with_suffix(".out.tif"), STYLE, STYLE, options) for path in inputs(folder, count)
    ]
    started = time.process_time()
    for ended in run_batch(jobs):
        assert ended.status == "done", ended.error
        yield left(time.process_time() - started)
        started = time.process_time()


def calls(folder: Path, count: int) -> Iterator[Left]:
    """Of one program that calls `stylize` again and again."""
    for path in inputs(folder, count):
        started = time.process_time()
        ut.stylize(path, path.with_suffix(".out.tif"), STYLE, **SMALL)
        yield left(time.process_time() - started)


@pytest.mark.parametrize(("jobs", "clusters"), [pytest.param(batch, 1, marks=pytest.mark.slow), (calls, 0)])
def test_jobs_leave_nothing_behind(jobs: Any, clusters: int, tmp_path: Path) -> None:
    """Readers of the last 16 images stay open, so that what is held is level from there on."""
    seen = list(jobs(tmp_path, 30))
    assert {(one.schedulers, one.workers) for one in seen[1:]} <= {(clusters, clusters), (clusters + 1, 1)}
    assert seen[-1].files <= seen[18].files + 1 and seen[-1].threads <= seen[18].threads + 1
    assert seen[-1].blocks - seen[18].blocks < 11 * 400  # a scheduler and a worker are 3,000
    assert seen[-1].resident_bytes - seen[18].resident_bytes < 24 << 20


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [batch, calls])
def test_the_last_of_300_jobs_is_as_quick_and_small_as_the_first(jobs: Any, tmp_path: Path) -> None:
    seen = list(jobs(tmp_path, 300))
    early, late = seen[20:60], seen[-40:]
    assert max(one.schedulers for one in late) <= 2 and max(one.workers for one in late) <= 2
    for name in ("files", "threads"):
        assert max(getattr(one, name) for one in late) <= max(getattr(one, name) for one in early) + 1
    assert late[-1].resident_bytes - early[0].resident_bytes < 32 << 20
    assert sorted(one.seconds for one in late)[20] < 1.3 * sorted(one.seconds for one in early)[20] + 0.1
