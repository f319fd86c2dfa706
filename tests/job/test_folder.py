"""The job folder: locks, identity, and what an error leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from urst_tiles.errors import BadInput, DiskFull, JobBusy, JobDiffers
from urst_tiles.job.folder import Job, differences

HOLD = """
import sys, time
from pathlib import Path
from urst_tiles.job.folder import Job
with Job(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_same_job_goes_on_and_another_is_refused_by_name(tmp_path: Path) -> None:
    job = Job(tmp_path / "out.tif.job")
    with job.locked():
        job.claim({"style": "a" * 64, "tile": "1024"})
    with job.locked():
        job.claim({"style": "a" * 64, "tile": "1024"})
        with pytest.raises(JobDiffers, match="tile was 1024 and is 512; .*--overwrite"):
            job.claim({"style": "a" * 64, "tile": "512"})


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with job.locked():
        job.claim({"tile": "1"})
        job.parts.mkdir()
        (job.parts / "0.tif").write_bytes(b"x")
        job.claim({"tile": "2"}, overwrite=True)
        assert job.identity == {"tile": "2"}
        assert not job.parts.exists()


def test_a_live_process_holds_the_folder_and_a_killed_one_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(JobBusy, match=f"process {child.pid} on "), Job(folder).locked():
            pass
        assert folder.is_dir()
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    with Job(folder).locked():
        pass


def test_an_error_before_the_first_block_leaves_nothing(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with pytest.raises(BadInput) as caught, job.locked():
        raise BadInput("no")
    assert caught.value.exit_status == 2
    assert not list(tmp_path.iterdir())


def test_an_error_after_the_first_block_keeps_the_folder(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with pytest.raises(DiskFull) as caught, job.locked():
        job.keep = True
        raise DiskFull("full")
    assert caught.value.exit_status == 1
    assert job.folder.is_dir()


def test_an_unforeseen_error_never_costs_finished_work(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with pytest.raises(ZeroDivisionError), job.locked():
        job.keep = True
        raise ZeroDivisionError
    assert job.folder.is_dir()


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with job.locked():
        job.claim({"a": "1"})
    with pytest.raises(BadInput), job.locked():
        raise BadInput("no")
    assert job.identity == {"a": "1"}


@pytest.mark.parametrize(("make", "said"), [("file", "is a file"), ("missing", "make it first")])
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path, make: str, said: str) -> None:
    place = tmp_path / "job" if make == "file" else tmp_path / "no" / "job"
    if make == "file":
        place.write_text("")
    with pytest.raises(BadInput, match=said), Job(place).locked():
        pass


def test_what_file_systems_leave_is_no_stranger(tmp_path: Path) -> None:
    for name in (".nfs000000000001", ".fuse_hidden0001", ".DS_Store", ".job.json.0123.tmp"):
        (tmp_path / name).touch()
    with Job(tmp_path).locked() as job:
        job.claim({"a": "1"})


def test_a_removed_job_leaves_nothing_even_after_a_kill_in_between(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with job.locked():
        job.claim({"a": "1"})
        job.remove()
    assert not list(tmp_path.iterdir())
    (tmp_path / ".job.gone").mkdir()
    with job.locked():
        assert [p.name for p in tmp_path.iterdir()] == ["job"]


def test_what_is_finished_needs_no_more_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path / "job")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=5))
    assert job.room() == 5
    job.parts.mkdir(parents=True)
    (job.parts / "0.tif").write_bytes(bytes(1000))
    assert job.room() == 1005


@pytest.mark.parametrize("name", ["thesis.tex", ".bashrc", "Downloads/"])
def test_a_folder_with_anything_else_in_it_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    """At the end it would be removed, whole."""
    place = tmp_path / name
    place.mkdir() if name.endswith("/") else place.write_text("mine")
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(BadInput, match="holds something else than a job"), Job(tmp_path).locked():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"job.json", name.rstrip("/")}


def test_a_damaged_record_is_one_sentence(tmp_path: Path) -> None:
    job = Job(tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(JobDiffers, match="--overwrite"):
        _ = job.identity
    with job.locked():
        job.claim({"a": "1"}, overwrite=True)
    assert job.identity == {"a": "1"}


def test_differences_name_both_values() -> None:
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == (
        "a was 1 and is not set, b was 2 and is 3, c was not set and is 4"
    )
