"""The job folder: locks, identity, and what an error leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from urst_tiles.errors import BadInput, DiskFull, JobBusy, JobDiffers, UrstError
from urst_tiles.job import ending
from urst_tiles.job import folder as job_module
from urst_tiles.job import lock as lock_module
from urst_tiles.job.folder import Job, differences
from urst_tiles.storage.publish import attempt_name

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
        job.writes([job.parts / "0.tif"])
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
    """Killed before each of its steps in turn, the removal is finished by the next job in the folder."""
    real, steps = job_module.remove, 0
    for last in range(5):
        steps = 0

        def step(path: Path, last: int = last) -> None:
            nonlocal steps
            steps += 1
            if steps > last:
                raise KeyboardInterrupt
            real(path)

        job = written(Job.beside(tmp_path / "out.tif"))
        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt), job.locked():
            patch.setattr(job_module, "remove", step)
            job.remove()
        again = Job.beside(tmp_path / "out.tif")
        assert again.identity is None, "it never looks like a whole job"
        with again.locked():
            again.claim({"a": "2"})
            assert not again.parts.exists()
            again.remove()
        assert not list(tmp_path.iterdir()), last


def written(job: Job) -> Job:
    """The same job, claimed, with a part."""
    with job.locked():
        job.claim({"a": "1"})
        job.writes([job.parts / "0.tif"])
        job.parts.mkdir()
        (job.parts / "0.tif").touch()
    return job


MINE = ["source/notes.txt", "parts/mine.tif", "moments/relu4.npz", "notes.tmp", ".mine.0123.tmp", "a.tex"]
FOLDERS = ["source", "parts", "moments"]
TAKEN = [*FOLDERS, "lock", "net.safetensors", "request.json", "job.json", "mask.npy", "written.json", "a.tmp"]


@pytest.mark.parametrize("content", ["", "{}", '{"name": "job"}', "[1]"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_folder_of_the_user_is_not_taken(tmp_path: Path, name: str, content: str) -> None:
    """Whatever its names; a job.json that is not ours changes nothing."""
    if name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text(content)
    else:
        (tmp_path / name).write_text(content)
    before = every_file(tmp_path)
    with pytest.raises(BadInput, match="holds something else than a job"), Job(tmp_path).locked() as job:
        job.claim({"a": "1"}, overwrite=True)
    assert every_file(tmp_path) == before


@pytest.mark.parametrize("end", ["remove", "overwrite", "error"])
def test_nothing_is_removed_that_the_job_did_not_write(tmp_path: Path, end: str) -> None:
    job = written(Job(tmp_path / "job"))
    for name in MINE:
        (job.folder / name).parent.mkdir(exist_ok=True)
        (job.folder / name).write_text("mine")
    with suppress(BadInput), job.locked():
        if end == "remove":
            job.remove()
        elif end == "overwrite":
            job.claim({"a": "2"}, overwrite=True)
        else:
            raise BadInput("no")
    left = every_file(job.folder)
    assert {name: left[name] for name in MINE} == dict.fromkeys(MINE, b"mine")
    if end == "remove":
        assert set(left) == set(MINE), "and nothing of the job stays"


def test_a_list_that_leads_outside_is_not_followed(tmp_path: Path) -> None:
    """It may come from somebody else, as the whole folder may."""
    (tmp_path / "mine").write_text("mine")
    job = Job(tmp_path / "job")
    with job.locked():
        job.claim({"urst-tiles": "1"})
    for names in (["../mine"], [str(tmp_path / "mine")], ["parts/../../mine"], [""], ["."], [3], "mine"):
        (job.folder / "written.json").write_text(json.dumps({"made": True, "written": names}))
        with job.locked():
            job.claim({"urst-tiles": "1", "a": str(names)}, overwrite=True)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_folder_that_was_empty_stays(tmp_path: Path) -> None:
    """Whoever made it may have had a reason: rights, quotas, a mount."""
    with Job(tmp_path).locked() as job:
        job.claim({"a": "1"})
        job.remove()
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_what_killed_processes_left_of_the_job_goes_too(tmp_path: Path) -> None:
    job = written(Job(tmp_path / "job"))
    job.source.mkdir()
    with job.locked():
        job.writes([job.source / "spool-1.zarr" / "colour" / "zarr.json"])
    (job.source / ".spool-1.zarr.77.0a1b2c3d" / "colour").mkdir(parents=True)
    attempt_name(job.parts / "0.tif").touch()
    with job.locked():
        job.remove()
    assert not list(tmp_path.iterdir())


LINKS = [
    "lock",
    "job.json",
    "written.json",
    "request.json",
    "parts",
    "source",
    "parts/0.tif",
    "moments/x.npz",
]


@pytest.mark.parametrize("name", LINKS)
def test_a_symbolic_link_in_a_job_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A link leads writing, truncating and removing elsewhere, and so it may to a FIFO, which would hang."""
    job, victim = written(Job(tmp_path / "job")), tmp_path / "victim"
    victim.mkdir() if name in ("parts", "source") else victim.write_text("process 1 on here, but mine")
    link = job.folder / name
    link.parent.mkdir(exist_ok=True)
    shutil.rmtree(link) if link.is_dir() else link.unlink(missing_ok=True)
    link.symlink_to(victim)
    for hold in (job.locked, job.shared):
        with pytest.raises((BadInput, JobDiffers), match="is a symbolic link"), hold():
            pass
    assert victim.is_dir() or victim.read_text() == "process 1 on here, but mine"


@pytest.mark.parametrize("name", ["lock", "job.json", "written.json"])
def test_a_fifo_in_a_job_folder_never_hangs(tmp_path: Path, name: str) -> None:
    job = written(Job(tmp_path / "job"))
    (job.folder / name).unlink()
    os.mkfifo(job.folder / name)
    with pytest.raises(UrstError, match=r"FIFO|something else"), job.locked():
        job.claim({"a": "1"})


@pytest.mark.parametrize("content", ["mine", "\0" * 100])
def test_a_file_of_the_user_is_no_lock(tmp_path: Path, content: str) -> None:
    job = written(Job(tmp_path / "job"))
    (job.folder / "lock").write_text(content)
    with pytest.raises(BadInput, match="lock is not the lock of a job"), job.locked():
        pass
    assert (job.folder / "lock").read_text() == content


def test_a_lock_that_was_removed_meanwhile_holds_nobody_out(tmp_path: Path, monkeypatch) -> None:
    """The file was opened, then its job ended and removed it: a lock on it would be a lock on nothing."""
    job, real, opened = written(Job(tmp_path / "job")), lock_module.open_regular, []

    def late(path: Path, flags: int = os.O_RDONLY) -> int:
        descriptor = real(path, flags)
        if path.name == "lock" and flags == os.O_RDWR:
            opened.append(path)
            if len(opened) == 1:
                path.unlink()
        return descriptor

    monkeypatch.setattr(lock_module, "open_regular", late)
    with job.locked(), pytest.raises(JobBusy), Job(job.folder).locked():
        pass
    assert len(opened) == 3


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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
    with job.locked():
        job.claim({"a": "0"})
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


def test_what_a_killed_process_left_of_a_mark_goes_with_the_job(tmp_path: Path) -> None:
    left = attempt_name(tmp_path / ".out.tif.job.ended")
    other = tmp_path / ".notes.tmp"
    left.write_text("")
    other.write_text("")
    ending.remove_marks(tmp_path / "out.tif.job")
    assert not left.exists() and other.exists()


@pytest.mark.parametrize("made", [True, False])
def test_a_new_job_takes_the_mark_of_an_ended_one_away(tmp_path: Path, made: bool) -> None:
    """Else a kill of the new job would look as if the old one had just ended."""
    folder = tmp_path / "out.tif.job"
    if not made:
        folder.mkdir()
    ending.leave_mark(folder, {**ending.GONE, "identity": {"tile": "1"}, "made": made}, made)
    assert any(mark.exists() for mark in ending.marks_of(folder))
    ending.keep_marks()  # as the command does, and yet at once
    try:
        job = Job(folder)
        with job.locked():
            job.claim({"tile": "2"})
            assert not any(mark.exists() for mark in ending.marks_of(folder))
    finally:
        ending.forget_marks()


def test_a_folder_of_the_user_in_the_job_folder_is_not_written_into(tmp_path: Path) -> None:
    job = Job(tmp_path / "job")
    with pytest.raises(BadInput, match="source was not made by the job; move it away"), job.locked():
        job.claim({"tile": "1"})
        job.keep = True
        (job.folder / "source").mkdir()
        (job.folder / "source" / "mine.txt").write_text("x")
        job.writes_folder(job.folder / "source")
    assert (job.folder / "source" / "mine.txt").read_text() == "x"
    with job.locked():
        job.writes_folder(job.folder / "parts")
        job.parts.mkdir()
        job.writes_folder(job.folder / "parts")  # its own
