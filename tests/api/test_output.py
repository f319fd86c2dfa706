"""Where an output goes: what exists is replaced only if told so, and is looked at when it gets its name."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import geotiff, picture, sha

import urst_tiles as ut
from urst_tiles.job import folder as job_module
from urst_tiles.job import written
from urst_tiles.storage import stores

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "thumbnail": 64}
FLAGS = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return geotiff(tmp_path_factory.mktemp("output") / "scene.tif", picture(300, 400))


@pytest.fixture(scope="module")
def whole(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "out.tif"
    ut.stylize(scene, output, scene, **SMALL)
    return output.read_bytes()


def one_sentence(done: subprocess.CompletedProcess[str], status: int, *words: object) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("urst-tiles: "), done.stderr
    for word in words:
        assert str(word) in done.stderr


def when(stage: str, act: Callable[[], object]) -> Callable[[str, int, int], None]:
    """Progress that acts once, when this stage is over."""
    acted = []

    def progress(now: str, done: int, total: int) -> None:
        if now.endswith(stage) and done == total and not acted:
            acted.append(act())

    return progress


# What exists


@pytest.mark.parametrize("stage", ["stylising", "assembling"])
def test_what_comes_into_being_meanwhile_is_not_replaced(
    stage: str, scene: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(ut.BadInput, match=f"{output} exists.*move it away") as caught:
        ut.stylize(scene, output, scene, progress=when(stage, lambda: output.write_text("theirs")), **SMALL)
    assert caught.value.exit_status == 1 and output.read_text() == "theirs"
    assert {path.name for path in tmp_path.iterdir()} == {"out.tif", "out.tif.job"}
    with pytest.raises(ut.BadInput, match="out.tif exists"):
        ut.stylize(scene, output, scene, **SMALL)
    output.rename(tmp_path / "theirs")
    report = ut.stylize(scene, output, scene, **SMALL)
    assert report.blocks_run == 0 and output.read_bytes() == whole


def test_an_output_is_refused_while_the_job_that_would_write_it_is_not_done(
    scene: Path, whole: bytes, tmp_path: Path
) -> None:
    """A job that was begun is no permission to replace what lies there."""
    output = tmp_path / "out.tif"

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ut.stylize(scene, output, scene, progress=when("stylising", stop), **SMALL)
    next((tmp_path / "out.tif.job" / "parts").glob("0*")).unlink()
    output.write_text("theirs")
    with pytest.raises(ut.BadInput, match="out.tif exists.*move it away"):
        ut.stylize(scene, output, scene, **SMALL)
    assert output.read_text() == "theirs"
    ut.stylize(scene, output, scene, overwrite=True, **SMALL)
    assert output.read_bytes() == whole


def test_assemble_asks_again_says_where_and_takes_another_name(
    run, scene: Path, whole: bytes, tmp_path: Path
) -> None:
    job, output, other = tmp_path / "job", tmp_path / "out.tif", tmp_path / "other.tif"
    assert run("plan", "--save", job, scene, output, "--style", scene, *FLAGS).returncode == 0
    assert run("work", job).returncode == 0
    output.write_text("theirs")
    one_sentence(run("assemble", job), 1, f"{output} exists", "--overwrite", "--output")
    assert output.read_text() == "theirs" and job.exists()
    one_sentence(run("assemble", job, "--output", tmp_path / "no" / "o.tif"), 1, "no folder")
    one_sentence(run("assemble", job, "--output", scene), 1, "the same file")
    done = run("assemble", job, "--output", other)
    assert done.returncode == 0 and done.stdout.count(str(other)) == 2, done.stdout
    assert other.read_bytes() == whole and output.read_text() == "theirs" and not job.exists()


def test_assemble_replaces_when_told_now_and_not_when_told_before(
    run, scene: Path, whole: bytes, tmp_path: Path
) -> None:
    job, output = tmp_path / "job", tmp_path / "out.tif"
    output.write_text("theirs")
    assert run("plan", "--save", job, scene, output, "--style", scene, *FLAGS, "--overwrite").returncode == 0
    assert run("work", job).returncode == 0
    one_sentence(run("assemble", job), 1, f"{output} exists")
    assert output.read_text() == "theirs"
    assert run("assemble", job, "--overwrite").returncode == 0
    assert output.read_bytes() == whole


def test_a_table_does_not_replace_what_comes_into_being(
    run, scene: Path, tmp_path: Path, monkeypatch
) -> None:
    output = tmp_path / "scene.tif"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "scene.tif").write_bytes(scene.read_bytes())
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in SMALL.items())
    (tmp_path / "t.toml").write_text(
        f'inputs="in/*.tif"\nstyles="in/scene.tif"\noutput="{{stem}}.tif"\n[options]\n{options}\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            "urst_tiles.cli.batch.progress_for",
            lambda as_json: when("stylising", lambda: output.write_text("theirs")),
        )
        done = run("run", tmp_path / "t.toml")
    assert done.returncode == 1 and "exists" in done.stderr and output.read_text() == "theirs"
    assert run("run", tmp_path / "t.toml").returncode == 1 and output.read_text() == "theirs"
    assert run("run", tmp_path / "t.toml", "--overwrite").returncode == 0
    assert run("validate", output).returncode == 0


def test_a_table_goes_on_with_an_output_that_was_to_be_replaced(
    run, scene: Path, tmp_path: Path, monkeypatch
) -> None:
    """Interrupted with --overwrite, it goes on without: its record says which file is to go."""
    output = tmp_path / "scene.tif"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "scene.tif").write_bytes(scene.read_bytes())
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in SMALL.items())
    (tmp_path / "t.toml").write_text(
        f'inputs="in/*.tif"\nstyles="in/scene.tif"\noutput="{{stem}}.tif"\n[options]\n{options}\n'
    )
    output.write_text("theirs")

    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("urst_tiles.cli.batch.progress_for", lambda as_json: when("stylising", stop))
        assert run("run", tmp_path / "t.toml", "--overwrite").returncode == 130
    assert output.read_text() == "theirs"
    done = run("run", tmp_path / "t.toml")
    assert done.returncode == 0 and run("validate", output).returncode == 0, done.stderr


# What is no regular file


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a device"])
@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_what_is_no_regular_file_is_refused(
    run, scene: Path, tmp_path: Path, kind: str, flags: tuple[str, ...]
) -> None:
    output = tmp_path / "out.tif"
    if kind == "pipe":
        os.mkfifo(output)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(output))
    else:
        output.symlink_to("/dev/full")
    before = output.lstat()
    for command in ("stylize", "plan"):
        one_sentence(
            run(command, scene, output, "--style", scene, *FLAGS, *flags), 2, output, "no regular file"
        )
    png = output.rename(tmp_path / "out.png")
    one_sentence(run("preview", scene, png, "--style", scene, *FLAGS), 2, png, "no regular file")
    assert os.path.samestat(png.lstat(), before) and len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed(run, scene: Path, whole: bytes, tmp_path: Path) -> None:
    """As most programs do: the file that it leads to is written, and the link stays."""
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "link.tif", tmp_path / "disk" / "real.tif"
    link.symlink_to("disk/real.tif")
    assert run("stylize", scene, link, "--style", scene, *FLAGS).returncode == 0
    assert link.is_symlink() and target.read_bytes() == whole
    target.write_text("old")
    one_sentence(run("stylize", scene, link, "--style", scene, *FLAGS), 2, "exists")
    assert run("stylize", scene, link, "--style", scene, *FLAGS, "--overwrite").returncode == 0
    assert link.is_symlink() and target.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link.tif"}
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real.tif"]
    circle = tmp_path / "circle.tif"
    circle.symlink_to(circle)
    one_sentence(run("stylize", scene, circle, "--style", scene, *FLAGS), 2, "circle")
    circle.unlink()
    circle.symlink_to(tmp_path / "nowhere" / "out.tif")
    one_sentence(run("stylize", scene, circle, "--style", scene, *FLAGS), 2, "no folder", "nowhere")


# The last moment


def killed_after(monkeypatch: pytest.MonkeyPatch, count: int | str, act: Callable[[], object]) -> None:
    """``act`` ends as by a kill when the job folder is being removed: after so many steps of that, or before
    the file of this name is removed."""
    steps = []

    class Killed(BaseException):
        pass

    def step(path: Path) -> None:
        if os.path.lexists(path):
            if len(steps) == count or path.name == count:
                raise Killed
            steps.append(path)

    def remove_listed(path: Path, whole: bool) -> None:
        step(path)
        real(path, whole)

    def remove(path: Path) -> None:
        step(path)
        stores.remove(path)

    real = written._remove
    with monkeypatch.context() as patch:
        patch.setattr(written, "_remove", remove_listed)
        patch.setattr(job_module, "remove", remove)
        patch.setattr(job_module.Job, "_leave", lambda *arguments: None)
        with pytest.raises(Killed):
            act()


STEPS = [*(("stylize", count) for count in (0, 1, 3, "written.json", "job.json"))]
STEPS += [*(("assemble", count) for count in (0, 1, 3, 5, "request.json"))]


@pytest.mark.parametrize(("command", "count"), STEPS)
def test_a_kill_in_the_last_moment(
    run,
    scene: Path,
    whole: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    count: int | str,
) -> None:
    """The same command says that it is finished, cleans up, and ends with status 0."""
    job, output = tmp_path / "out.tif.job", tmp_path / "out.tif"
    arguments: tuple[object, ...] = (command, scene, output, "--style", scene, *FLAGS)
    if command == "assemble":
        assert run("plan", "--save", job, scene, output, "--style", scene, *FLAGS).returncode == 0
        assert run("work", job).returncode == 0
        arguments = (command, job)
    killed_after(monkeypatch, count, lambda: run(*arguments))
    assert output.read_bytes() == whole and json.loads((job / "job.json").read_bytes())["job"] == "gone"
    before = output.stat()
    done = run(*arguments)
    assert done.returncode == 0 and f"{output}: 400 x 300, is finished" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]
    assert os.path.samestat(output.stat(), before) and output.stat().st_mtime_ns == before.st_mtime_ns
    one_sentence(run(*arguments), 2, "exists" if command == "stylize" else "no job")


KILLED_AT_THE_END = """
import os, signal, sys
from urst_tiles import cli
cli.forget_marks = lambda: os.kill(os.getpid(), signal.SIGKILL)
cli.program()
"""


@pytest.mark.parametrize("command", ["stylize", "stylize in a folder", "assemble"])
def test_a_kill_between_the_job_folder_and_the_end_of_the_process(
    run, scene: Path, whole: bytes, tmp_path: Path, command: str
) -> None:
    """All is done and said; only the exit status is not told. `until urst-tiles ...; do :; done` ends."""
    job, output = tmp_path / "job", tmp_path / "out.tif"
    arguments: tuple[object, ...] = ("stylize", scene, output, "--style", scene, *FLAGS)
    if command == "assemble":
        assert run("plan", "--save", job, scene, output, "--style", scene, *FLAGS).returncode == 0
        assert run("work", job).returncode == 0
        arguments = ("assemble", job)
    elif command == "stylize in a folder":
        job.mkdir()
        arguments += ("--job-dir", job)
    words = [sys.executable, "-c", KILLED_AT_THE_END, *map(str, arguments)]
    killed = subprocess.run(words, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL and "400 x 300" in killed.stdout, killed.stderr
    mark = job / "ended.json" if command == "stylize in a folder" else tmp_path / ".job.ended"
    mark = tmp_path / ".out.tif.job.ended" if command == "stylize" else mark
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {output, mark} and output.read_bytes() == whole
    before = output.stat()
    done = run(*arguments)
    assert done.returncode == 0 and f"{output}: 400 x 300, is finished" in done.stdout, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [output]
    assert os.path.samestat(output.stat(), before) and output.stat().st_mtime_ns == before.st_mtime_ns
    one_sentence(run(*arguments), 2, "no job" if command == "assemble" else "exists")


def removals(
    monkeypatch: pytest.MonkeyPatch, output: Path, last: int, act: Callable[[], object]
) -> list[object]:
    """What ``act`` removes once there is an output; it ends as by a kill before more than ``last`` are."""

    class Killed(BaseException):
        pass

    removed: list[object] = []

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *more: object, **named: object) -> object:
            if os.path.exists(output):
                if len(removed) == last:
                    raise Killed
                removed.append(path)
            return real(path, *more, **named)

        return call

    with monkeypatch.context() as patch, suppress(Killed):
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(job_module.Job, "_leave", lambda *arguments: None)
        act()
    return removed


@pytest.mark.parametrize("folder", ["beside", "given"])
def test_a_kill_at_every_step_of_the_end(
    run, scene: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Before the last file or folder is removed, and before each of those before."""
    output = tmp_path / "out.tif"
    arguments: list[object] = ["stylize", scene, output, "--style", scene, *FLAGS]
    if folder == "given":
        (tmp_path / "job").mkdir()
        arguments += ["--job-dir", tmp_path / "job"]
    total = len(removals(monkeypatch, output, 1 << 30, lambda: run(*arguments)))
    for back in range(1, 8):
        output.unlink()
        removed = removals(monkeypatch, output, total - back, lambda: run(*arguments))
        assert len(removed) == total - back and output.read_bytes() == whole
        done = run(*arguments)
        assert done.returncode == 0 and "is finished" in done.stdout, (back, removed[-1], done.stderr)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [output], back


def test_a_stale_mark_says_nothing_about_another_job(run, scene: Path, tmp_path: Path) -> None:
    """Neither of other options, nor where the output is gone; and the next job takes it away."""
    output, mark = tmp_path / "out.tif", tmp_path / ".out.tif.job.ended"
    words = [sys.executable, "-c", KILLED_AT_THE_END, "stylize", scene, output, "--style", scene, *FLAGS]
    subprocess.run(list(map(str, words)), capture_output=True)
    assert mark.exists()
    more = ("--compression", "lzw")
    one_sentence(run("stylize", scene, output, "--style", scene, *FLAGS, *more), 2, "exists")
    output.unlink()
    done = run("stylize", scene, output, "--style", scene, *FLAGS, *more)
    assert done.returncode == 0 and "is finished" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


def test_a_kill_between_the_output_and_the_removal(
    run, scene: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, stop = tmp_path / "out.tif", []
    real = job_module.Job.remove
    monkeypatch.setattr(job_module.Job, "remove", lambda job: real(job) if stop else stop.append(job))
    assert run("stylize", scene, output, "--style", scene, *FLAGS).returncode == 0
    assert (tmp_path / "out.tif.job").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Full)
    before = output.stat()
    assert run("stylize", scene, output, "--style", scene, *FLAGS).returncode == 0
    assert os.path.samestat(output.stat(), before) and output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


class Full:
    """A disk without any room."""

    free = 0


@pytest.mark.parametrize("change", ["output", "options"])
def test_what_is_not_finished_is_not_called_so(
    run, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    output, more = tmp_path / "out.tif", ["--compression", "lzw"] if change == "options" else []
    killed_after(monkeypatch, 1, lambda: run("stylize", scene, output, "--style", scene, *FLAGS))
    if change == "output":
        output.write_text("theirs")
    content = output.read_bytes()
    one_sentence(run("stylize", scene, output, "--style", scene, *FLAGS, *more), 2, "exists")
    assert output.read_bytes() == content
    assert run("stylize", scene, output, "--style", scene, *FLAGS, *more, "--overwrite").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"] and sha(output)
