"""The same command goes on after a kill at any moment, and gives the same bytes as an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import MOMENTS, Enough, Moment, delayed, geotiff, picture, sha, stop_at, strips

import urst_tiles as ut


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strip TIFF, so that spooling happens too, of 6 blocks."""
    return strips(tmp_path_factory.mktemp("resume") / "scene.tif")


@pytest.fixture(scope="module")
def command(scene: Path, files: Path, weights_dir: Path) -> Callable[[Path], list[str]]:
    def make(output: Path) -> list[str]:
        arguments = [
            "stylize", scene, output, "--style", files / "style.png", "--model", "microast",
            "--weights", weights_dir, "--tile", 128, "--block", 256, "--thumbnail", 128,
            "--style-size", 96, "--statistics", "exact",
        ]  # fmt: skip
        return [*map(str, arguments)]

    return make


def apart(arguments: Sequence[str]) -> list[str]:
    """The command in a process of its own."""
    return [sys.executable, "-m", "urst_tiles", *arguments]


@pytest.fixture(scope="module")
def undisturbed(command: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("undisturbed") / "out.tif"
    subprocess.run(apart(command(output)), check=True, capture_output=True)
    return sha(output)


def kill_when(command: Sequence[str], moment: Moment, folder: Path) -> bool:
    """Start it in a process of its own, kill -9 at ``moment``; whether it came before the end."""
    process = subprocess.Popen(apart(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            if moment(folder):
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.002)
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


#: The others are slow tests; the storm of `tests/storm` tries all of them.
QUICK = ("after the first site", "fourth block", "the end")


@pytest.mark.parametrize(
    "when", [when if when in QUICK else pytest.param(when, marks=pytest.mark.slow) for when in MOMENTS]
)
def test_kill_and_go_on(when: str, command, undisturbed: str, tmp_path: Path, run) -> None:
    output = tmp_path / "out.tif"
    kill_when(command(output), MOMENTS[when], tmp_path)
    if output.exists():
        assert sha(output) == undisturbed, "the final name must never hold anything but the finished file"
    if not output.exists() or (tmp_path / "out.tif.job").exists():
        done = run(*command(output))
        assert done.returncode == 0, done.stderr
    assert sha(output) == undisturbed
    assert when != "the end" or run(*command(output), "--overwrite").returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("when", list(MOMENTS))
def test_kill_at_random_moments(when: str, seed: int, command, undisturbed: str, tmp_path: Path) -> None:
    """56 moments, eight after the beginning of each phase; each job is killed twice."""
    output, random = tmp_path / "out.tif", np.random.default_rng(seed)
    longest = 0.5 * seed / 7  # the first is killed as soon as the phase is seen
    assert (
        kill_when(
            command(output),
            delayed(MOMENTS[when], 0.0 if seed == 0 else random.uniform(0, longest)),
            tmp_path,
        )
        or seed
    )
    assert not output.exists() or sha(output) == undisturbed
    kill_when(command(output), delayed(MOMENTS["spooling"], random.uniform(0, 4)), tmp_path)
    if not output.exists() or (tmp_path / "out.tif.job").exists():
        subprocess.run(apart(command(output)), check=True, capture_output=True)
    assert sha(output) == undisturbed


SMALL = {"model": "identity", "tile": 128, "block": 512}


def test_another_job_is_refused_naming_what_differs(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    _leave_half(files, output)
    with pytest.raises(ut.JobDiffers, match="compression was deflate and is lzw"):
        ut.stylize(files / "scene.tif", output, files / "style.png", compression="lzw", **SMALL)
    other = geotiff(tmp_path / "other.tif", picture(900, 1100, seed=5))
    with pytest.raises(ut.JobDiffers, match="source was"):
        ut.stylize(other, output, files / "style.png", **SMALL)
    report = ut.stylize(
        files / "scene.tif", output, files / "style.png", compression="lzw", overwrite=True, **SMALL
    )
    assert report.blocks_kept == 0


def test_only_missing_or_damaged_blocks_are_made_again(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    parts = _leave_half(files, output)
    there = sorted(parts.glob("[0-9]*.tif"))
    content = bytearray(there[0].read_bytes())
    there[1].write_bytes(there[1].read_bytes()[:-100])
    report = ut.stylize(files / "scene.tif", output, files / "style.png", **SMALL)
    assert report.blocks_kept == len(there) - 1
    assert content and ut.validate(output).valid


def test_a_flipped_byte_in_a_part_is_found_when_assembling(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    parts = _leave_half(files, output)
    victim = sorted(parts.glob("[0-9]*.tif"))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ut.DamagedFile) as caught:
        ut.stylize(files / "scene.tif", output, files / "style.png", **SMALL)
    assert caught.value.exit_status == 1 and not output.exists()
    ut.stylize(files / "scene.tif", output, files / "style.png", **SMALL)
    clean = tmp_path / "clean.tif"
    ut.stylize(files / "scene.tif", clean, files / "style.png", **SMALL)
    assert sha(output) == sha(clean)


def _leave_half(files: Path, output: Path) -> Path:
    """A job stopped after three blocks."""
    with pytest.raises(Enough):
        ut.stylize(files / "scene.tif", output, files / "style.png", progress=stop_at(3), **SMALL)
    assert not output.exists()
    return output.parent / "out.tif.job" / "parts"


def test_two_runs_of_one_job_at_once(files: Path, tmp_path: Path, run) -> None:
    output = tmp_path / "out.tif"
    _leave_half(files, output)
    with ut.Job.beside(output).locked():
        done = run(
            "stylize", files / "scene.tif", output, "--style", files / "style.png",
            "--model", "identity", "--tile", 128, "--block", 512,
        )  # fmt: skip
    assert done.returncode == 2 and f"process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_worker_processes_give_the_same_bytes(command, undisturbed: str, tmp_path: Path, run) -> None:
    output = tmp_path / "out.tif"
    done = run(*command(output), "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert sha(output) == undisturbed


@pytest.mark.slow
def test_a_scheduler_elsewhere_gives_the_same_bytes(command, undisturbed: str, tmp_path: Path, run) -> None:
    from distributed import LocalCluster

    output = tmp_path / "out.tif"
    with LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0", memory_limit=0,
    ) as there:  # fmt: skip
        done = run(*command(output), "--scheduler", there.scheduler_address)
    assert done.returncode == 0, done.stderr
    assert sha(output) == undisturbed
