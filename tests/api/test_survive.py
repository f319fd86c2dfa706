"""Whatever is killed, full, changed or damaged: the same bytes as an undisturbed run, or one clear sentence
with all finished work kept, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
from helpers import MOMENTS, Elsewhere, delayed, geotiff, picture, sha, strips

import urst_tiles as ut
from urst_tiles.engine import at_once, kernel, site_moments, statistics
from urst_tiles.pyramid.parts import Parts
from urst_tiles.source import spool

STYLE = "hokusai-wave"
slow = pytest.mark.slow
SMALL: dict[str, Any] = {"model": "lite", "tile": 128, "block": 256, "thumbnail": 64, "device": "cpu"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strip TIFF, so that spooling happens too, of 6 blocks."""
    return strips(tmp_path_factory.mktemp("survive") / "scene.tif")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, read at random."""
    return geotiff(tmp_path_factory.mktemp("survive") / "tiled.tif", picture(500, 760))


@pytest.fixture(scope="module")
def undisturbed(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("undisturbed") / "out.tif"
    ut.stylize(scene, output, STYLE, **SMALL)
    return sha(output)


class Stop(Exception):
    """Ends a run in the middle."""


def at(stage: str, done: int, act: Callable[[], None]) -> Callable[[str, int, int], None]:
    """Progress that acts once, when ``done`` of ``stage`` are done."""
    acted: list[bool] = []

    def progress(now: str, count: int, total: int) -> None:
        if now == stage and count >= done and not acted:
            acted.append(True)
            act()

    return progress


def stop() -> None:
    raise Stop


def half(scene: Path, output: Path, **options: Any) -> Path:
    """The folder of a job stopped after three blocks."""
    with pytest.raises(Stop):
        ut.stylize(scene, output, STYLE, progress=at("stylising", 3, stop), **(SMALL | options))
    assert not output.exists()
    return output.with_name(output.name + ".job")


# Disks


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Another program takes all the room that is left."""
    handle = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while True:
            os.write(handle, bytes(4096))
    os.close(handle)


@pytest.mark.parametrize(
    "stage",
    [
        "spooling",
        pytest.param("thumbnail", marks=slow),
        "stylising",
        pytest.param("overviews", marks=slow),
        "assembling",
    ],
)
def test_a_disk_that_fills_up_in_the_middle(
    stage: str, scene: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "BAND_BYTES", 1 << 17)  # several bands
    with tmpfs(tmp_path / "disk", "12m") as disk:
        output = disk / "out.tif"
        with pytest.raises(ut.DiskFull, match="make room") as caught:
            ut.stylize(scene, output, STYLE, progress=at(stage, 1, lambda: fill(disk)), **SMALL)
        kept = stage != "spooling"
        assert caught.value.exit_status == (1 if kept else 2)
        assert {path.name for path in disk.iterdir()} == {"filler"} | ({"out.tif.job"} if kept else set())
        (disk / "filler").unlink()
        report = ut.stylize(scene, output, STYLE, **SMALL)
        assert sha(output) == undisturbed
        assert report.blocks_kept == (6 if stage in ("overviews", "assembling") else report.blocks_kept)


def test_an_input_on_a_disk_that_is_read_only(scene: Path, undisturbed: str, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disc", "2m") as disc:
        shutil.copy(scene, disc / "scene.tif")
        subprocess.run(["mount", "-o", "remount,ro", disc], check=True)
        ut.stylize(disc / "scene.tif", tmp_path / "out.tif", STYLE, **SMALL)
    assert sha(tmp_path / "out.tif") == undisturbed


# What lies in the job folder


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "gone":
        return path.unlink()
    if how == "flipped":
        data[len(data) // 2] ^= 4
    path.write_bytes(data[: len(data) * 2 // 3] if how == "cut" else data if how == "flipped" else b"")


def go_on(scene: Path, output: Path, job: Path, **options: Any) -> str:
    """Give the same command until it is done, doing what its sentence says; returns the sentence, or ""."""
    said = ""
    for _ in range(3):
        try:
            ut.stylize(scene, output, STYLE, **(SMALL | options))
            return said
        except ut.UrstError as error:
            said = str(error)
            assert "again" in said or "--overwrite" in said, said
            if "delete" in said:
                (target,) = (path for path in job.rglob("*") if f"delete {path} " in said)
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            options |= {"overwrite": True} if "--overwrite" in said else {}
    raise AssertionError(said)


KEPT = ["parts/*01.tif", "source/average-*", "source/thumbnail-*", "job.json"]
QUICK = {(KEPT[0], "flipped"), (KEPT[0], "gone"), (KEPT[1], "cut"), (KEPT[3], "empty")}
DAMAGES = [
    pytest.param(which, how, marks=[] if (which, how) in QUICK else slow)
    for which in KEPT
    for how in ("flipped", "cut", "empty", "gone")
]


@pytest.mark.parametrize(("which", "how"), DAMAGES)
def test_damage_between_two_runs(
    which: str, how: str, scene: Path, undisturbed: str, tmp_path: Path, half_job: Path
) -> None:
    output = tmp_path / "out.tif"
    job = Path(shutil.copytree(half_job, tmp_path / "out.tif.job"))
    (victim,) = job.glob(which)
    spoil(victim, how)
    said = go_on(scene, output, job)
    assert sha(output) == undisturbed
    flipped_part = which.startswith("parts") and how == "flipped"
    assert bool(said) == (flipped_part or (which == "job.json" and how != "gone")), said


@pytest.fixture(scope="module")
def half_job(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half(scene, tmp_path_factory.mktemp("half") / "out.tif")


def test_damaged_moments_are_measured_again(scene: Path, tmp_path: Path) -> None:
    exact = {"statistics": "exact"}
    ut.stylize(scene, tmp_path / "good.tif", STYLE, **(SMALL | exact))
    job = half(scene, tmp_path / "out.tif", **exact)
    victims = sorted((job / "moments").iterdir())
    for victim, how in zip(victims, ("flipped", "cut", "empty", "gone"), strict=False):
        spoil(victim, how)
    assert go_on(scene, tmp_path / "out.tif", job, **exact) == ""
    assert sha(tmp_path / "out.tif") == sha(tmp_path / "good.tif")


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_spool_is_made_again(
    how: str, scene: Path, undisturbed: str, tmp_path: Path, half_job: Path
) -> None:
    job = Path(shutil.copytree(half_job, tmp_path / "out.tif.job"))
    (victim,) = job.glob("source/spool-*/colour/c/0/0/0")
    spoil(victim, how)
    assert go_on(scene, tmp_path / "out.tif", job) == ""
    assert sha(tmp_path / "out.tif") == undisturbed
    assert not job.exists()


@pytest.mark.parametrize("year", [pytest.param(1971, marks=slow), 2105])
def test_clocks_that_jump(year: int, tiled: Path, tmp_path: Path) -> None:
    """Times of change, of the source or of finished work, in the past or the future, decide nothing."""
    source, moment = Path(shutil.copy(tiled, tmp_path / "scene.tif")), (year - 1970) * 31_557_600
    job = half(source, tmp_path / "out.tif")
    for path in (source, job, *job.rglob("*")):
        os.utime(path, (moment, moment))
    report = ut.stylize(source, tmp_path / "out.tif", STYLE, **SMALL)
    assert report.blocks_kept >= 3
    touch = at("stylising", 2, lambda: os.utime(source, (moment + 9, moment + 9)))
    ut.stylize(source, tmp_path / "other.tif", STYLE, progress=touch, **SMALL)
    assert sha(tmp_path / "out.tif") == sha(tmp_path / "other.tif")


# What the source does meanwhile


@pytest.mark.parametrize("how", ["written over", "replaced", "removed"])
def test_a_source_that_changes_while_it_is_read(how: str, tiled: Path, tmp_path: Path) -> None:
    """Not one block of the other picture is kept; with the old file back the job goes on."""
    source, output = Path(shutil.copy(tiled, tmp_path / "scene.tif")), tmp_path / "out.tif"
    other = geotiff(tmp_path / "other.tif", picture(500, 760, seed=3))

    def change() -> None:
        if how == "written over":
            source.write_bytes(other.read_bytes())
        elif how == "replaced":
            os.replace(shutil.copy(other, tmp_path / "copy.tif"), source)
        else:
            source.unlink()

    with pytest.raises(ut.BlocksFailed) as caught:
        ut.stylize(source, output, STYLE, progress=at("stylising", 2, change), **SMALL)
    words = "there is no file" if how == "removed" else "was changed while in use; put the old file back"
    assert words in str(caught.value) and str(source) in str(caught.value)
    shutil.copy(tiled, source)
    report = ut.stylize(source, output, STYLE, **SMALL)
    assert report.blocks_kept >= 2
    ut.stylize(source, tmp_path / "good.tif", STYLE, **SMALL)
    assert sha(output) == sha(tmp_path / "good.tif")


def test_a_source_that_changes_while_it_is_unpacked(scene: Path, undisturbed: str, tmp_path: Path) -> None:
    source, output = Path(shutil.copy(scene, tmp_path / "scene.tif")), tmp_path / "out.tif"

    def change() -> None:
        data = bytearray(source.read_bytes())
        data[-200:] = bytes(200)
        source.write_bytes(data)

    with pytest.raises(ut.DamagedFile, match=f"{source.name}.*") as caught:
        ut.stylize(source, output, STYLE, progress=at("spooling", 1, change), **SMALL)
    assert caught.value.exit_status == 2 and not output.with_name("out.tif.job").exists()
    shutil.copy(scene, source)
    ut.stylize(source, output, STYLE, **SMALL)
    assert sha(output) == undisturbed


def test_a_source_that_is_deleted_while_it_is_unpacked(
    scene: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence is about the file that is gone, and not about the disk."""
    monkeypatch.setattr(spool, "BAND_BYTES", 1 << 17)
    source, output = Path(shutil.copy(scene, tmp_path / "scene.tif")), tmp_path / "out.tif"
    with pytest.raises(ut.MissingFile, match="there is no file .*scene.tif") as caught:
        ut.stylize(source, output, STYLE, progress=at("spooling", 1, source.unlink), **SMALL)
    assert "room" not in str(caught.value) and caught.value.exit_status == 2
    assert not list(tmp_path.iterdir())
    shutil.copy(scene, source)
    ut.stylize(source, output, STYLE, **SMALL)
    assert sha(output) == undisturbed


def broken_reads(monkeypatch: pytest.MonkeyPatch, path: Path, fails: Callable[[int], bool]) -> list[int]:
    """From now on the n-th read of ``path`` fails where ``fails(n)``; returns the list of those that did."""
    real, reads, failed = os.pread, [0], []

    def pread(handle: int, count: int, offset: int) -> bytes:
        if os.path.realpath(f"/proc/self/fd/{handle}") == str(path):
            reads[0] += 1
            if fails(reads[0]):
                failed.append(offset)
                raise OSError(5, "Input/output error")
        return real(handle, count, offset)

    monkeypatch.setattr("os.pread", pread)
    return failed


def test_reads_that_fail_once_are_tried_again(
    tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ut.stylize(tiled, tmp_path / "good.tif", STYLE, **SMALL)
    failed: list[int] = []

    def start() -> None:
        failed.append(0)
        failed.extend(broken_reads(monkeypatch, tiled.resolve(), lambda n: n in (3, 11)))

    seen = at("stylising", 0, start)
    ut.stylize(tiled, tmp_path / "out.tif", STYLE, progress=seen, **SMALL)
    assert failed and sha(tmp_path / "out.tif") == sha(tmp_path / "good.tif")


def test_a_block_that_always_fails_is_named_and_tried_next_time(
    tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Parts.write

    def failing(self: Parts, index: int, pixels: np.ndarray) -> Any:
        if index == 4 and self.stage == 0:
            raise RuntimeError("the encoder stumbled")
        return write(self, index, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", failing)
        with pytest.raises(
            ut.BlocksFailed, match=r"1 block failed \(4\): RuntimeError: the encoder"
        ) as caught:
            ut.stylize(tiled, tmp_path / "out.tif", STYLE, **SMALL)
    assert caught.value.exit_status == 1
    report = ut.stylize(tiled, tmp_path / "out.tif", STYLE, **SMALL)
    assert (report.blocks_run, report.blocks_kept) == (1, 5)


def test_measuring_that_fails_keeps_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five sites of six, and one of two blocks of the last: hours, of a large image."""
    monkeypatch.setattr(statistics, "BLOCK", 512)
    tiled = geotiff(tmp_path / "tiled.tif", picture(200, 600))
    exact = SMALL | {"statistics": "exact"}
    ut.stylize(tiled, tmp_path / "good.tif", STYLE, **exact)
    save = statistics.save

    def failing(path: Path, several: Any) -> None:
        if path.name == "block5-1.npz":
            raise ut.DiskFull("the disk is full; make room")
        save(path, several)

    with monkeypatch.context() as patch:
        patch.setattr(statistics, "save", failing)
        with pytest.raises(ut.DiskFull) as caught:
            ut.stylize(tiled, tmp_path / "out.tif", STYLE, **exact)
    assert caught.value.exit_status == 1
    told: list[tuple[str, int]] = []
    ut.stylize(tiled, tmp_path / "out.tif", STYLE, progress=lambda *now: told.append(now[:2]), **exact)
    assert [one for one in told if "measuring" in one[0]] == [("measuring block5", n) for n in (1, 2)]
    assert sha(tmp_path / "out.tif") == sha(tmp_path / "good.tif")


def test_an_unpacked_input_is_kept(
    scene: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails before the first task: a scheduler that is not there, say."""
    monkeypatch.setattr("urst_tiles.workers.local.CONNECT_SECONDS", 0.5)
    with pytest.raises(ut.BadInput) as caught:
        ut.stylize(scene, tmp_path / "out.tif", STYLE, scheduler="tcp://127.0.0.1:9", **SMALL)
    assert caught.value.exit_status == 1
    told: list[str] = []
    ut.stylize(scene, tmp_path / "out.tif", STYLE, progress=lambda stage, *_: told.append(stage), **SMALL)
    assert "stylising" in told and "spooling" not in told
    assert sha(tmp_path / "out.tif") == undisturbed


# Memory


@pytest.mark.parametrize(
    "kth", [1, pytest.param(2, marks=slow), 5, pytest.param("every large one", marks=slow)]
)
def test_a_device_out_of_memory_at_any_window(
    kth: int | str, tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While measuring and while stylising: the answer is smaller windows, one level off at most, and by then
    the tensors of the window that failed are gone."""
    ut.stylize(tiled, tmp_path / "good.tif", STYLE, precision="float32", **SMALL)
    real, windows, lost = kernel.to_tensor, [0], []

    def crowded(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        assert all(tensor() is None for tensor in lost)
        windows[0] += 1
        large = kth == "every large one" and pixels.shape[1] * pixels.shape[2] > 40_000
        if large or windows[0] == kth:
            tensor = torch.zeros(1000)
            lost.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return real(pixels, device)

    for module in (kernel, site_moments, at_once):
        monkeypatch.setattr(module, "to_tensor", crowded)
    report = ut.stylize(tiled, tmp_path / "out.tif", STYLE, precision="float32", **SMALL)
    good, found = (tifffile.imread(tmp_path / name).astype(int) for name in ("good.tif", "out.tif"))
    assert lost and np.abs(good - found).max() <= 1
    assert (report.splits > 0) == (kth != 1)  # the first window is measured


LITTLE_MEMORY = """
import resource, sys
import urst_tiles as ut

def limit(stage, done, total):
    if stage == "stylising" and done == 1:
        pages = int(open("/proc/self/statm").read().split()[0])
        most = pages * resource.getpagesize() + int(sys.argv[1]) * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

try:
    ut.stylize(*sys.argv[2:5], model="lite", tile=512, block=512, thumbnail=64, device="cpu", progress=limit)
except ut.UrstError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


def command(scene: Path, output: Path, *more: object, **changes: Any) -> list[str]:
    options = [f"--{name}={value}" for name, value in (SMALL | changes).items()]
    return ["stylize", str(scene), str(output), "--style", STYLE, *options, *map(str, more)]


@slow
@pytest.mark.parametrize("megabytes", [0, 10, 30, 60, 120])
def test_less_memory_than_planned(megabytes: int, tmp_path: Path) -> None:
    """From the first block on: one sentence, or the death that C libraries die; what is finished is kept."""
    scene, output = geotiff(tmp_path / "scene.tif", picture(1500, 1500)), tmp_path / "out.tif"
    options = SMALL | {"tile": 512, "block": 512}
    arguments = [sys.executable, "-c", LITTLE_MEMORY, str(megabytes), str(scene), str(output), STYLE]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200)
    there = len(list(output.with_name("out.tif.job").glob("parts/[0-9]*.tif")))
    if done.returncode == 1:
        passing = (", try ", "; cutting it in two")  # what is tried before it gives up
        told = [line for line in done.stderr.splitlines() if not any(part in line for part in passing)]
        assert len(told) == 1 and "memory" in told[0], done.stderr
    if done.returncode:
        assert there >= 1 and not output.exists(), done.stderr
        report = ut.stylize(scene, output, STYLE, **options)
        assert report.blocks_kept == there
    ut.stylize(scene, tmp_path / "good.tif", STYLE, **options)
    assert sha(output) == sha(tmp_path / "good.tif")


# Kills


def start(scene: Path, output: Path, *more: object, **changes: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "urst_tiles", *command(scene, output, *more, **changes)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a run that have one."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


#: Phases in which there are workers.
WORKING = ("measuring", "after the first site", "first block", "fourth block")


def kill_workers(process: subprocess.Popen[str], folder: Path, phases: list[str], seed: int) -> list[str]:
    """kill -9 a worker at a random moment after the beginning of each phase; returns the phases in which one
    was."""
    random, hit, killed = np.random.default_rng(seed), list[str](), set[int]()
    for phase in phases:
        come = delayed(MOMENTS[phase], random.uniform(0, 0.4))
        victims = list[psutil.Process]()
        while process.poll() is None and not (come(folder) and victims):
            victims = [worker for worker in workers_of(process) if worker.pid not in killed]
            time.sleep(0.005)
        if process.poll() is None:
            victim = victims[int(random.integers(len(victims)))]
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.add(victim.pid)
                hit.append(phase)
    return hit


def survive_workers(scene: Path, output: Path, phases: list[str], seed: int, expected: str) -> int:
    """Kill a worker in each phase; a run that gives up says so, and the same command is given again. Returns
    how many were killed."""
    killed = 0
    for attempt in range(len(phases) + 1):
        process = start(scene, output, workers=2, statistics="exact")
        try:
            killed += len(kill_workers(process, output.parent, phases[killed:], seed + attempt))
            _, said = process.communicate(timeout=300)
        finally:
            process.kill()
        if process.returncode == 0:
            assert sha(output) == expected
            return killed
        assert process.returncode in (1, 2) and said.startswith("urst-tiles: ") and said.count("\n") == 1, (
            said
        )
        assert "KilledWorker" in said or "could not be started" in said
        assert not output.exists()
    raise AssertionError("never done")


@pytest.fixture(scope="module")
def exact(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("exact") / "out.tif"
    ut.stylize(scene, output, STYLE, statistics="exact", workers=1, **SMALL)
    return sha(output)


@pytest.mark.parametrize(
    ("phases", "least"),
    [(["measuring", "first block"], 1), ([WORKING[0], *WORKING], 4)],
    ids=["two", "five"],
)
@slow
def test_workers_killed(phases: list[str], least: int, scene: Path, exact: str, tmp_path: Path) -> None:
    assert survive_workers(scene, tmp_path / "out.tif", phases, 0, exact) >= least
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


@slow
@pytest.mark.parametrize("seed", range(13))
def test_fifty_workers_killed(seed: int, scene: Path, exact: str, tmp_path: Path) -> None:
    """One in each phase of each of 13 runs."""
    assert survive_workers(scene, tmp_path / "out.tif", [*WORKING], 100 * (seed + 1), exact) >= 3


def survive_scheduler(scene: Path, folder: Path, when: Callable[[], bool], expected: str) -> None:
    """Kill the scheduler when told; then the same job goes on without it."""
    output = folder / "out.tif"
    with Elsewhere(folder) as dask:
        dask.add()
        process = start(scene, output, "--scheduler", dask.address, statistics="exact")
        try:
            while process.poll() is None and not when():
                time.sleep(0.005)
            dask.scheduler.kill()
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
    if process.returncode:
        assert process.returncode in (1, 2) and said.startswith("urst-tiles: "), said
        assert said.count("\n") == 1 and "scheduler" in said, said
        assert not output.exists()
        ut.stylize(scene, output, STYLE, statistics="exact", **SMALL)
    assert sha(output) == expected


def test_the_scheduler_killed(scene: Path, exact: str, tmp_path: Path) -> None:
    parts = tmp_path / "out.tif.job" / "parts"
    survive_scheduler(scene, tmp_path, lambda: bool(list(parts.glob("[0-9]*"))), exact)


@slow
@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("when", list(MOMENTS)[:-1])
def test_the_scheduler_killed_at_random_moments(
    when: str, seed: int, scene: Path, exact: str, tmp_path: Path
) -> None:
    """54 moments, nine after the beginning of each phase but the end."""
    moment = delayed(MOMENTS[when], np.random.default_rng(seed).uniform(0, 0.1 * seed))
    survive_scheduler(scene, tmp_path, lambda: moment(tmp_path), exact)


@slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seed", range(10))
def test_stopped_at_random_moments(how: int, seed: int, scene: Path, exact: str, tmp_path: Path) -> None:
    """Within seconds, and the sentence says how to go on; with worker processes too."""
    output = tmp_path / "out.tif"
    process = start(scene, output, statistics="exact", workers=1 + seed % 2)
    try:
        while process.poll() is None and not (tmp_path / "out.tif.job").exists():
            time.sleep(0.01)
        time.sleep(np.random.default_rng(seed).uniform(0, 6))
        process.send_signal(how)
        stopped = time.monotonic()
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    if not output.exists():
        assert process.returncode == 130 and said.strip().endswith("the same command goes on"), said
        assert said.count("\n") == 1 and time.monotonic() - stopped < 60
        ut.stylize(scene, output, STYLE, statistics="exact", **SMALL)
    assert sha(output) == exact


# Names and places


def test_two_jobs_in_one_folder_at_once(tiled: Path, tmp_path: Path) -> None:
    """The second is refused while the first runs, and does it no harm."""
    shared = {"job_dir": tmp_path / "job"}

    def second() -> None:
        for name in ("out.tif", "other.tif"):
            with pytest.raises((ut.JobBusy, ut.JobDiffers)):
                ut.stylize(tiled, tmp_path / name, STYLE, alpha=0.5, **SMALL, **shared)
            with pytest.raises(ut.JobBusy, match=f"process {os.getpid()} on"):
                ut.stylize(tiled, tmp_path / name, STYLE, **SMALL, **shared)

    report = ut.stylize(
        tiled, tmp_path / "out.tif", STYLE, progress=at("stylising", 2, second), **SMALL, **shared
    )
    assert report.blocks_run == 6 and ut.validate(tmp_path / "out.tif").valid
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


NAMES = ["spaces, Übergröße ☃ 画像.tif", "n" * 196 + ".tif", "a%20b'\"$(x)\\.tif"]


@pytest.mark.parametrize("name", NAMES)
def test_names(
    name: str, scene: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as relative paths, which name the same files from another folder."""
    for folder in ("in", "out", "work"):
        (tmp_path / folder).mkdir()
    shutil.copy(scene, tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(Stop):
        ut.stylize(f"../in/{name}", name, STYLE, progress=at("stylising", 3, stop), **SMALL)
    monkeypatch.chdir(tmp_path / "work")
    report = ut.stylize(Path("..", "in", name), Path("..", "out", name), STYLE, **SMALL)
    assert report.blocks_kept >= 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert sha(tmp_path / "out" / name) == undisturbed
