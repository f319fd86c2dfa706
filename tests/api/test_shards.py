"""One job in three steps that share a folder: the bytes are `stylize`'s, whoever worked, died, came twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import geotiff, mask, picture, sha, strips

import urst_tiles as ut
from urst_tiles import planning, weights
from urst_tiles.job.folder import Job
from urst_tiles.job.request import Request

LITE = ("--tile", 128, "--block", 256, "--thumbnail", 128, "--precision", "float32")
IDENTITY = ("--model", "identity", "--tile", 128, "--block", 512)


def one_sentence(done: subprocess.CompletedProcess[str], status: int, *words: object) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("urst-tiles: "), done.stderr
    for word in words:
        assert str(word) in done.stderr


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights but those that ship."""
    monkeypatch.setenv("URST_TILES_WEIGHTS", str(tmp_path / "none"))


@pytest.fixture
def job(run, files: Path, tmp_path: Path) -> Path:
    """A saved job of 6 blocks, of the network that does nothing."""
    done = run("plan", "--save", tmp_path / "job", *inputs(files, tmp_path), *IDENTITY)
    assert done.returncode == 0, done.stderr
    return tmp_path / "job"


def inputs(files: Path, tmp_path: Path) -> tuple[object, ...]:
    return files / "scene.tif", tmp_path / "out.tif", "--style", files / "style.png"


def parts(job: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (job / "parts").glob("[0-9]*.tif")}


def test_the_bytes_are_those_of_stylize(run, files: Path, tmp_path: Path) -> None:
    """Exact statistics of a strip TIFF, so that spooling happens too."""
    scene = strips(tmp_path / "scene.tif")
    more = ("--style", files / "style.png", "--statistics", "exact", *LITE)
    assert run("stylize", scene, tmp_path / "whole.tif", *more).returncode == 0
    job, output = tmp_path / "job", tmp_path / "out.tif"
    done = run("plan", scene, output, *more, "--save", job)
    assert done.returncode == 0 and f"saved        {job}" in done.stdout, done.stderr
    assert not output.exists() and not (job / "parts").exists()
    before = state(job)
    assert run("work", job, "--shard", "2/2").returncode == 0
    assert len(parts(job)) == 3
    assert run("work", job, "--shard", "1/2").returncode == 0
    assert state(job) == before, "spooled, measured and frozen once"
    assert run("assemble", job).returncode == 0
    assert sha(output) == sha(tmp_path / "whole.tif")
    assert not job.exists() and ut.validate(output).valid


def state(job: Path) -> dict[str, int]:
    """All files of a job but its parts and its lock, with their times."""
    files = (path for path in job.rglob("*") if path.is_file())
    names = {str(path.relative_to(job)): path.stat().st_mtime_ns for path in files}
    return {name: time for name, time in names.items() if not name.startswith("parts/") and name != "lock"}


def test_what_is_saved_is_json_and_tensors(job: Path) -> None:
    assert {Path(name).suffix for name in state(job)} <= {".json", ".npz", ".safetensors"}
    saved = json.loads((job / "request.json").read_text())
    assert saved["plan"]["grid"]["block"] == 512 and saved["options"]["model"] == "identity"
    assert saved["plan"]["identity"] == json.loads((job / "job.json").read_text())
    request = Request.from_json(job / "request.json")
    assert json.loads(request.to_json()) == saved
    assert request.plan.peak_bytes > 0 and request.output == job.parent / "out.tif"


def started(job: Path, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "urst_tiles", "work", str(job), *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_dead_worker_and_several_at_once_without_style_and_mask(run, files: Path, tmp_path: Path) -> None:
    """One is killed at its first block; two that share a share do the rest, and never half a file is seen.

    They are processes that find nothing but the folder and the input."""
    scene, style = geotiff(tmp_path / "scene.tif", picture(500, 760)), tmp_path / "style.png"
    style.write_bytes((files / "style.png").read_bytes())
    styles = ("--mask", mask(tmp_path / "mask.tif"), "--style", f"1={style}", "--style", "2=munch-scream")
    assert run("stylize", scene, tmp_path / "whole.tif", *styles, *LITE).returncode == 0
    job, output = tmp_path / "job", tmp_path / "out.tif"
    assert run("plan", "--save", job, scene, output, *styles, *LITE).returncode == 0
    style.unlink()
    (tmp_path / "mask.tif").unlink()
    victim = started(job, "--shard", "1/2")
    while victim.poll() is None and not parts(job):
        time.sleep(0.005)
    victim.kill()
    victim.communicate()
    left = parts(job)
    assert 1 <= len(left) < 6
    other = started(job)
    while other.poll() is None and not (job / "lock").read_text().count(str(other.pid)):
        time.sleep(0.005)
    assert "all 6 are there" in run("work", job).stdout
    said, wrong = other.communicate(timeout=120)
    assert other.returncode == 0, wrong
    assert "all 6 are there" in said
    assert left.items() <= parts(job).items(), "what was finished stays as it is"
    assert run("assemble", job).returncode == 0
    assert sha(output) == sha(tmp_path / "whole.tif")


def test_workers_of_one_share_do_not_do_it_twice(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that another one made meanwhile is left alone."""
    from urst_tiles.api import shards
    from urst_tiles.pyramid.parts import Parts

    ut.work_job(job)
    before, listed = parts(job), Parts.missing
    monkeypatch.setattr(Parts, "missing", lambda self: list(range(len(self.grid))))
    done = ut.work_job(job)
    assert (done.blocks_run, done.blocks_kept) == (0, 6) and parts(job) == before
    monkeypatch.setattr(Parts, "missing", listed)
    starts = set()
    for process in range(40, 60):
        monkeypatch.setattr(shards.os, "getpid", lambda process=process: process)
        turned = shards._turned(list(range(6)))
        assert sorted(turned) == list(range(6))
        starts.add(turned[0])
    assert len(starts) == 6


def test_from_python(files: Path, tmp_path: Path) -> None:
    options = {"model": "identity", "tile": 128, "block": 512}
    saved = ut.save_job(
        tmp_path / "job", files / "scene.tif", tmp_path / "o.tif", files / "style.png", **options
    )
    assert saved.folder == tmp_path / "job" and len(saved.plan.grid) == 6
    first = ut.work_job(saved.folder, ut.Shard(1, 4))
    assert (first.blocks_run, first.blocks_kept, first.missing) == (2, 0, 4)
    again = ut.work_job(saved.folder, ut.Shard(1, 4), workers=1, threads=saved.plan.threads)
    assert (again.blocks_run, again.blocks_kept, again.missing) == (0, 2, 4)
    rest = ut.work_job(saved.folder)
    assert (rest.blocks_run, rest.blocks_kept, rest.missing) == (4, 2, 0)
    report = ut.assemble_job(saved.folder)
    assert report.output == tmp_path / "o.tif" and ut.validate(report.output).valid
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.tif"]


def test_a_network_of_this_process_alone_is_refused(files: Path, tmp_path: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Sigmoid())
    with pytest.raises(ut.BadInput, match="package.module:function"):
        ut.save_job(tmp_path / "job", files / "scene.tif", tmp_path / "o.tif", ut.from_module(net))
    assert not list(tmp_path.iterdir())


NET = """
from pathlib import Path

from torch import nn

Path(__file__).with_name("imported").touch()

def net():
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.InstanceNorm2d(3))
"""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A function of somebody in a module that Python would find; the file that is there once it was run."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "evilnet.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.chdir(tmp_path / "code")
    yield tmp_path / "code" / "imported"
    sys.modules.pop("evilnet", None)


def forget(mark: Path) -> None:
    """As in a new process."""
    sys.modules.pop("evilnet", None)
    mark.unlink(missing_ok=True)


OWN = ("--model", "evilnet:net", "--tile", 128, "--block", 512)


def test_a_job_folder_runs_no_code_that_the_call_does_not_name(run, evil: Path, files: Path, tmp_path: Path):
    job, output = tmp_path / "job", tmp_path / "out.tif"
    assert run("plan", "--save", job, files / "scene.tif", output, *OWN).returncode == 0
    forget(evil)
    one_sentence(run("work", job), 2, "--model evilnet:net")
    one_sentence(run("work", job, "--model", "os:getcwd"), 2, "evilnet:net", "got --model os:getcwd")
    assert not evil.exists() and not parts(job)
    assert run("work", job, "--model", "evilnet:net", "--shard", "1/2").returncode == 0 and evil.exists()
    done = run("work", job, "--model", "evilnet:net", "--workers", 2)
    assert done.returncode == 0 and "all 6 are there" in done.stdout, done.stderr
    assert run("assemble", job).returncode == 0 and ut.validate(output).valid


@pytest.mark.parametrize("workers", [1, 2])
def test_a_network_file_that_names_code_against_its_plan(
    run, evil: Path, files: Path, tmp_path: Path, workers: int
) -> None:
    """The plan says identity, and everything fits to each other but the family in the file."""
    job, other = tmp_path / "job", tmp_path / "other"
    assert run("plan", "--save", other, files / "scene.tif", tmp_path / "o.tif", *OWN).returncode == 0
    assert run("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY).returncode == 0
    (job / "net.safetensors").write_bytes((other / "net.safetensors").read_bytes())
    request = Request.from_json(job / "request.json")
    net = weights.sha256_of(job / "net.safetensors")
    (job / "request.json").write_bytes(replace(request, net=net).to_json())
    forget(evil)
    one_sentence(run("work", job, "--workers", workers), 2, "net.safetensors names code, 'evilnet:net'")
    assert not evil.exists() and not parts(job)


def test_json_lines(run, files: Path, tmp_path: Path) -> None:
    def last(*arguments: object) -> dict:
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert all(event["event"] == "progress" for event in events[:-1])
        return events[-1]

    job = tmp_path / "job"
    saved = last("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY)
    assert saved["event"] == "saved" and saved["job"] == str(job) and saved["plan"]["peak_bytes"] > 0
    worked = last("work", job, "--shard", "1/2")
    assert (worked["event"], worked["shard"], worked["blocks"], worked["missing"]) == ("done", "1/2", 3, 3)
    assert last("work", job)["kept"] == 3
    assembled = last("assemble", job)
    assert assembled["output"] == str(tmp_path / "out.tif") and assembled["kept"] == 6


def test_assembling_too_early_names_what_is_missing(run, job: Path) -> None:
    run("work", job, "--shard", "2/2")
    one_sentence(run("assemble", job), 1, "3 of 6 blocks are missing (0, 2, 4)", f"urst-tiles work {job}")
    assert len(parts(job)) == 3 and not (job.parent / "out.tif").exists()


def test_a_damaged_block_is_named_removed_and_made_again(run, job: Path) -> None:
    run("work", job)
    victim = sorted((job / "parts").glob("[0-9]*.tif"))[2]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    one_sentence(run("assemble", job), 1, victim, f"`urst-tiles work {job}` makes it anew")
    assert not victim.exists() and not (job.parent / "out.tif").exists()
    assert "1 blocks made" in run("work", job).stdout
    assert run("assemble", job).returncode == 0


def test_a_failing_block_is_named_and_the_others_are_made(run, job: Path, monkeypatch) -> None:
    from urst_tiles.engine.block import StylizeBlock

    whole = StylizeBlock.__call__

    def breaks(self, index: int):
        if index == 4:
            raise ut.DamagedFile("tile 9 is broken")
        return whole(self, index)

    monkeypatch.setattr(StylizeBlock, "__call__", breaks)
    one_sentence(run("work", job), 1, "1 block failed (4): tile 9 is broken")
    assert len(parts(job)) == 5


def test_another_input_is_refused(run, files: Path, tmp_path: Path) -> None:
    scene = geotiff(tmp_path / "mine.tif", picture(600, 700))
    arguments = (scene, tmp_path / "out.tif", "--style", files / "style.png", *IDENTITY)
    assert run("plan", "--save", tmp_path / "job", *arguments).returncode == 0
    scene.rename(tmp_path / "kept.tif")
    geotiff(scene, picture(600, 700, seed=3))
    for command in ("work", "assemble"):
        done = run(command, tmp_path / "job")
        one_sentence(done, 1 if command == "assemble" else 2, scene, "not the image that was planned", "…")
    scene.unlink()
    one_sentence(run("work", tmp_path / "job"), 2, scene)
    (tmp_path / "kept.tif").rename(scene)
    assert run("work", tmp_path / "job").returncode == 0


def test_another_library_is_refused(run, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = planning.installed
    monkeypatch.setattr(planning, "installed", lambda name: "0.0.1" if name == "torch" else real(name))
    one_sentence(run("work", job), 2, "torch was", "and is 0.0.1", "might differ")
    assert not parts(job)


def test_another_machine_is_refused(run, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_sentence(run("work", job, "--device", "xpu"), 2, "no device 'xpu' here")
    monkeypatch.setattr(planning, "device_kind", lambda device: "cpu of tomorrow")
    one_sentence(run("work", job), 2, "and is cpu of tomorrow", "machines alike")


def test_what_may_differ_between_workers(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads decide sums on a CPU; on a GPU they do not, and one GPU is as good as another of its kind."""
    plan = Request.from_json(job / "request.json").plan
    with pytest.raises(ut.BadInput, match=f"--threads must be the plan's {plan.threads}, got 7"):
        planning.plan_here(plan, None, 7, None)
    for wrong in ({"threads": 0, "workers": None}, {"threads": None, "workers": -1}):
        with pytest.raises(ut.BadInput, match="must be at least 1"):
            planning.plan_here(plan, None, **wrong)
    assert planning.plan_here(plan, None, None, 9).workers == 6
    card = replace(plan, device="cuda", identity={**plan.identity, "device": "a card"})
    monkeypatch.setattr(planning, "resolve_device", lambda device: device)
    monkeypatch.setattr(planning, "device_kind", lambda device: "a card")
    here = planning.plan_here(card, "cuda:1", 7, None)
    assert (here.device, here.threads, here.fingerprint) == ("cuda:1", 7, card.fingerprint)


def test_a_machine_that_is_too_small_says_so(run, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urst_tiles.api import shards

    monkeypatch.setattr(shards, "available_memory", lambda: 100 << 20)
    one_sentence(run("work", job), 2, "100 MiB are allowed")


@pytest.mark.parametrize(
    ("text", "words"), [("3/2", "1/2 to 2/2"), ("0/2", "1/2 to 2/2"), ("2", "2/8"), ("1/0", "2/8")]
)
def test_shares_that_there_are_not(run, job: Path, text: str, words: str) -> None:
    one_sentence(run("work", job, "--shard", text), 2, "--shard", words)


def test_shares_are_a_partition() -> None:
    for total, count in ((1, 1), (7, 3), (2, 5), (24, 4)):
        shares = [list(ut.Shard(i, count).of(total)) for i in range(1, count + 1)]
        assert sorted(sum(shares, [])) == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def value_at(values: dict, name: str) -> tuple[dict, str]:
    *folders, last = name.split(".")
    for folder in folders:
        values = values[folder]
    return values, last


EDITS = {
    "plan.dtype": "uint16", "plan.compression": "lzw", "plan.quality": 5, "plan.grid.core": 256,
    "plan.grid.halo": 8, "plan.grid.block": 1024, "plan.grid.tile": 256, "plan.grid.width": 1000,
    "plan.grid.stride": 2, "plan.seam": "blend", "plan.precision": "float16", "plan.source_channels": 4,
    "plan.batch": 2, "plan.identity.dtype": "uint16", "options.bands": [3, 2, 1], "output": "/tmp/other.tif",
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_request_is_noticed_before_blocks_are_used(run, job: Path, name: str) -> None:
    assert run("work", job).returncode == 0
    before, path = parts(job), job / "request.json"
    values = json.loads(path.read_text())
    place, last = value_at(values, name)
    place[last] = EDITS[name]
    path.write_text(json.dumps(values))
    for command in ("work", "assemble"):
        one_sentence(run(command, job), 2, path, "edited", "--overwrite")
    assert parts(job) == before and not (job.parent / "out.tif").exists()


def test_an_edited_plan_contradicts_its_identity_whatever_the_checksum_says(job: Path) -> None:
    path = job / "request.json"
    request = Request.from_json(path)
    for change in ({"dtype": "uint16"}, {"seam": "blend"}, {"grid": replace(request.plan.grid, core=256)}):
        path.write_bytes(replace(request, plan=replace(request.plan, **change)).to_json())
        with pytest.raises(ut.JobError, match="was edited: in its plan (dtype|seam|tile) was"):
            ut.work_job(job)
    path.write_text(" " + json.dumps(json.loads(request.to_json())))
    assert ut.work_job(job).missing == 0, "spaces and their order are nothing"


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"version": 2}', "\xff", "\0" * 9])
def test_a_request_that_is_none_is_one_sentence(run, job: Path, content: str) -> None:
    (job / "request.json").write_text(content, "latin-1")
    one_sentence(run("work", job), 2, "request.json is no saved job", "--overwrite")


@pytest.mark.parametrize("name", ["request.json", "net.safetensors"])
def test_a_fifo_among_the_files_of_a_job_hangs_no_worker(
    run, job: Path, files: Path, tmp_path: Path, name: str
) -> None:
    (job / name).unlink()
    os.mkfifo(job / name)
    one_sentence(run("work", job), 2, f"{name} is", "FIFO")
    again = ("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY)
    one_sentence(run(*again), 2, f"{name} is no regular file", "remove it")
    (job / name).unlink()
    assert run(*again).returncode == 0
    assert run("work", job).returncode == 0


def test_all_files_of_a_job_follow_the_umask(run, files: Path, tmp_path: Path) -> None:
    """A group shares it."""
    scene, job, before = strips(tmp_path / "scene.tif"), tmp_path / "job", os.umask(0o007)
    try:
        more = ("--mask", mask(tmp_path / "mask.tif"), "--style", f"1={files / 'style.png'}")
        for statistics in ("exact", "thumbnail"):
            words = (*more, "--statistics", statistics, *LITE, "--overwrite")
            assert run("plan", "--save", job, scene, tmp_path / "out.tif", *words).returncode == 0
            assert run("work", job, "--shard", "1/2").returncode == 0
            modes = {path.stat().st_mode & 0o777 for path in job.rglob("*") if path.is_file()}
            assert modes == {0o660}, [path for path in job.rglob("*") if path.stat().st_mode & 0o77 != 0o60]
            folders = [path for path in (job, *job.rglob("*")) if path.is_dir()]
            assert {path.stat().st_mode & 0o777 for path in folders} == {0o770}
    finally:
        os.umask(before)


def test_where_there_is_no_job(run, tmp_path: Path) -> None:
    for command in ("work", "assemble"):
        one_sentence(run(command, tmp_path / "none"), 2, "no job in", tmp_path / "none")
        one_sentence(run(command, tmp_path), 2, "no job in", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plan_that_was_killed_goes_on(run, job: Path, files: Path, tmp_path: Path) -> None:
    """Not ready without its last file, or with another network than the saved one."""
    net = (job / "net.safetensors").read_bytes()
    for harm in (
        (job / "request.json").unlink,
        lambda: (job / "net.safetensors").write_bytes(net[:-1]),
        (job / "net.safetensors").unlink,
    ):
        harm()
        for command in ("work", "assemble"):
            one_sentence(run(command, job), 2, "not ready", f"urst-tiles plan --save {job}")
        again = run("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY)
        assert again.returncode == 0, again.stderr
        assert (job / "net.safetensors").read_bytes() == net
    (job / "request.json").write_text("{}")
    one_sentence(run("work", job), 2, "request.json is no saved job", "--overwrite")


def test_saving_again_keeps_blocks_and_overwrite_does_not(
    run, job: Path, files: Path, tmp_path: Path
) -> None:
    arguments = ("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY)
    run("work", job, "--shard", "1/3")
    assert run(*arguments).returncode == 0 and len(parts(job)) == 2
    one_sentence(run(*arguments, "--alpha", 0.5), 2, "alpha was 1.0 and is 0.5", "--overwrite")
    assert run(*arguments, "--overwrite").returncode == 0 and not parts(job)


def test_the_folder_is_the_one_of_stylize(run, job: Path, files: Path, tmp_path: Path) -> None:
    """Either goes on where the other stopped."""
    run("work", job, "--shard", "1/2")
    done = run("stylize", *inputs(files, tmp_path), *IDENTITY, "--job-dir", job)
    assert done.returncode == 0 and "3 blocks were finished before" in done.stdout
    assert not job.exists()
    one_sentence(
        run("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY, "--job-dir", tmp_path / "other"),
        2, "--job-dir", "leave",
    )  # fmt: skip
    one_sentence(run("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY), 2, "exists", "--overwrite")
    assert not job.exists()


def test_workers_share_the_folder_and_keep_others_out(run, job: Path, files: Path, tmp_path: Path) -> None:
    with Job(job).shared():
        assert run("work", job, "--shard", "1/2").returncode == 0
        one_sentence(run("assemble", job), 2, "at least one worker", f"process {os.getpid()}")
        again = run("plan", "--save", job, *inputs(files, tmp_path), *IDENTITY, "--overwrite")
        one_sentence(again, 2, "at least one worker")
    with Job(job).locked():
        one_sentence(run("work", job), 2, f"process {os.getpid()}", job)
    assert len(parts(job)) == 3


def test_a_file_system_without_locks_says_so(run, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from urst_tiles.job import folder as module

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(module.fcntl, "flock", flock)
    one_sentence(run("work", job), 2, "has no locks", "-o flock")


SBATCH = """#!/usr/bin/env bash
# Stands in for SLURM: runs a copy of the script at once, an array task by task, but for those that are DEAD.
echo "$*" >> "$CALLS"
id=$(wc -l < "$CALLS")
tasks=none
while [[ $1 == --* ]]; do
    [[ $1 != --array=* ]] || tasks=$(seq -s ' ' "${1:8:1}" "${1:10}")
    shift
done
cp "$1" "$CALLS.script"
shift
export SLURM_JOB_ID=$id SLURM_CPUS_PER_TASK=1 SLURM_MEM_PER_NODE=4000
for task in $tasks; do
    [ "$task" != "${DEAD:-}" ] || continue
    SLURM_ARRAY_TASK_ID=$task bash "$CALLS.script" "$@" >> "$CALLS.log" 2>&1
done
echo "$id;cluster"
"""


#: Stands in for the program: writes down how it was called, for the test to do.
NOTES = """#!/usr/bin/env bash
printf '%s\\0' "$@" >> "$CALLS.program"
echo >> "$CALLS.program"
"""


@pytest.fixture
def slurm(root: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `pipelines/slurm.sbatch` where stand-ins are called ``sbatch`` and ``urst-tiles``."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def call(*arguments: object, program: str = NOTES, **variables: str):
        for name, text in (("sbatch", SBATCH), ("urst-tiles", program)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", root / "pipelines" / "slurm.sbatch", *map(str, arguments)], capture_output=True,
            text=True, cwd=tmp_path,
            env=os.environ | {"PATH": path, "CALLS": str(tmp_path / "calls")} | variables,
        )  # fmt: skip

    return call


def test_slurm_plans_works_and_assembles_with_a_dead_task(slurm, run, files: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    done = slurm(job, *inputs(files, tmp_path), *IDENTITY, SHARDS="2", DEAD="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "slurm.sbatch: plan 1, work 2 (array of 2), assemble 3\n"
    plan, work, assemble = (tmp_path / "calls").read_text().splitlines()
    assert f" --plan {job} " in plan and "--dependency" not in plan
    assert "--array=1-2 --dependency=afterok:1" in work and work.endswith(f"--work {job} 2")
    assert "--dependency=afterok:1,afterany:2" in assemble
    calls = [line.split("\0")[:-1] for line in (tmp_path / "calls.program").read_text().splitlines()]
    assert calls[0][:5] == ["plan", "--threads", "1", "--memory", "4000M"]
    said = [run(*call) for call in calls]
    assert [one.returncode for one in said] == [0, 0, 0, 0], said
    assert "shard 1/2: 3 blocks made" in said[1].stdout and "shard 1/1: 3 blocks made" in said[2].stdout
    assert ut.validate(tmp_path / "out.tif").valid and not job.exists()


def test_slurm_names_a_network_of_the_users_wherever_it_works(slurm, files: Path, tmp_path: Path) -> None:
    for words in (("--model", "my.nets:paint"), ("--model=my.nets:paint",)):
        assert slurm(tmp_path / "job", *inputs(files, tmp_path), *words, SHARDS="1").returncode == 0
        calls = [line.split("\0")[:-1] for line in (tmp_path / "calls.program").read_text().splitlines()]
        assert [call[0] for call in calls] == ["plan", "work", "work", "assemble"]
        assert all(list(words) == call[-len(words) :] for call in calls[1:3])
        (tmp_path / "calls.program").unlink()


@pytest.mark.slow
def test_slurm_with_the_real_program(slurm, run, files: Path, tmp_path: Path) -> None:
    program = f'#!/bin/sh\nexec "{sys.executable}" -m urst_tiles "$@"\n'
    done = slurm("job", *inputs(files, tmp_path), *IDENTITY, program=program, SHARDS="3", DEAD="2")
    assert done.returncode == 0, done.stderr + (tmp_path / "calls.log").read_text()
    whole = ("stylize", files / "scene.tif", tmp_path / "whole.tif", "--style", files / "style.png")
    assert run(*whole, *IDENTITY, "--threads", 1).returncode == 0
    assert sha(tmp_path / "out.tif") == sha(tmp_path / "whole.tif") and not (tmp_path / "job").exists()


def test_slurm_without_arguments_says_what_it_takes(slurm, tmp_path: Path) -> None:
    done = slurm("job")
    assert done.returncode == 2 and "JOB INPUT OUTPUT" in done.stderr and not (tmp_path / "calls").exists()
