"""Streams that are closed, full or broken, and names of files that are no text: the job runs all the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from helpers import geotiff, picture, strips, wait_for

import urst_tiles as ut
from urst_tiles.cli.terminal import one_line, printable
from urst_tiles.source.picture import write_png

SMALL = ("--model", "identity", "--tile", "128", "--block", "256", "--thumbnail", "64")

#: No UTF-8, with a command for the terminal, and with a line end.
NAME = os.fsdecode(b"\xe9t\xe9 \x1b[31m\nred")


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run ``urst-tiles`` by a shell with these redirections; gives the status, stdout and stderr."""

    def call(redirections: str, *arguments: object) -> tuple[int, str, str]:
        command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "urst_tiles"]
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=tmp_path, capture_output=True, timeout=300
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return call


BAD = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "all closed": "<&- >&- 2>&-",
    "stdout full": ">/dev/full",
    "stderr full": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
}


#: All streams closed and both full, with words and with JSON; the others are slow tests.
QUICK = {("all closed", ""), ("both full", "--json")}


@pytest.mark.parametrize(
    ("how", "more"),
    [
        pytest.param(how, more, marks=[] if (how, more) in QUICK else pytest.mark.slow)
        for how in BAD
        for more in ("", "--json")
    ],
)
def test_the_job_runs(shell, files: Path, tmp_path: Path, how: str, more: str) -> None:
    arguments = ("stylize", files / "small.tif", "out.tif", "--style", files / "style.png", *SMALL)
    arguments += (more,) if more else ()
    status, _, said = shell(BAD[how], *arguments)
    assert (status, said) == (0, "") and ut.validate(tmp_path / "out.tif").valid
    status, _, said = shell(BAD[how], *arguments)
    assert status == 2 and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


def test_a_reader_that_goes_away(files: Path, tmp_path: Path) -> None:
    for stream in ("stdout", "stderr"):
        output = tmp_path / f"{stream}.tif"
        read, end = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "urst_tiles", "stylize", files / "small.tif", output, "--json"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: end}
        done = subprocess.run([*command, "--style", files / "style.png", *SMALL], **streams)
        os.close(end)
        assert done.returncode == 0 and not done.stderr and ut.validate(output).valid


@pytest.mark.parametrize("moment", ["workers start", pytest.param("blocks are made", marks=pytest.mark.slow)])
def test_ctrl_c_with_worker_processes_is_one_sentence(files: Path, tmp_path: Path, moment: str) -> None:
    """A terminal sends the signal to every process of the command."""
    job = tmp_path / "out.tif.job"
    command = ["stylize", files / "scene.tif", tmp_path / "out.tif", "--style", "hokusai-wave"]
    more = ["--tile", 128, "--block", 256, "--thumbnail", 64, "--threads", 1, "--workers", 2]
    process = subprocess.Popen(
        [sys.executable, "-m", "urst_tiles", *map(str, command + more)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip

    def come() -> bool:
        if moment == "blocks are made":
            return bool(list(job.glob("parts/0*")))
        return len(psutil.Process(process.pid).children(recursive=True)) >= 2

    wait_for(lambda: process.poll() is not None or come(), 120)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=120)
    sentence = b"urst-tiles: stopped; finished blocks are kept, the same command goes on\n"
    assert (process.returncode, out, said) == (130, b"", sentence)


@pytest.mark.slow
def test_what_is_there_to_print_says_when_it_cannot(shell, files: Path) -> None:
    for command in (("info", files / "small.tif"), ("styles",), ("weights", "list")):
        status, _, said = shell(">/dev/full", *command)
        assert status == 1 and said.count("\n") == 1 and "No space left" in said, command
        assert shell(">&-", *command)[::2] == (0, "")
    assert shell(">/dev/full", "validate", files / "small.tif")[0] == 1
    assert shell(">/dev/full", "--help")[::2] == (0, "")
    assert shell("2>/dev/full", "no such command")[0] == 2


def test_names_that_are_no_text(run, run_apart, files: Path, tmp_path: Path) -> None:
    """Input, style, mask, output, job folder: a tiled and a strip TIFF and a PNG."""
    folder = tmp_path / NAME
    folder.mkdir()
    style, mask = folder / f"s{NAME}.png", folder / f"m{NAME}.tif"
    shutil.copy(files / "style.png", style)
    tifffile.imwrite(mask, np.ones((50, 76), np.uint8))
    inputs = [folder / f"{kind}{NAME}.{kind}" for kind in ("tif", "tiff", "png")]
    geotiff(inputs[0], picture(300, 456))
    strips(inputs[1])
    write_png(inputs[2], picture(300, 456))
    for source, call in zip(inputs, (run_apart, run, run), strict=True):
        output = folder / f"o{source.name}.tif"
        styles = ("--mask", mask, "--style", f"1={style}")
        done = call("stylize", source, output, *styles, *SMALL)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.count("\n") == 1 and one_line(output) in done.stdout
        assert "\x1b" not in done.stdout and r"\xe9t\xe9 \x1b[31m\x0ared" in done.stdout
        for command in ("info", "validate"):
            done = run(command, output)
            assert done.returncode == 0 and one_line(output) in done.stdout and "\x1b" not in done.stdout
        assert json.loads(run("info", output, "--json").stdout)["file"] == str(output)
        refused = run("stylize", source, output, *styles, *SMALL)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "\x1b" not in refused.stderr
    job = folder / f"j{NAME}"
    assert run("plan", "--save", job, inputs[1], folder / "x.tif", "--style", style, *SMALL).returncode == 0
    done = run("work", job)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert run("assemble", job).returncode == 0
    done = run("preview", inputs[0], folder / f"{NAME}.png", "--style", style, *SMALL)
    assert done.returncode == 0 and "\x1b" not in done.stdout, done.stderr


def test_a_table_of_names_that_are_no_text(run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    geotiff(tmp_path / "in" / f"{NAME}.tif", picture(300, 456))
    shutil.copy(files / "style.png", tmp_path)
    options = 'model = "identity"\ntile = 128\nblock = 256\n'
    table = tmp_path / "t.toml"
    table.write_text(f'inputs="in/*"\noutput="{{stem}}.tif"\nstyles="style.png"\n[options]\n{options}')
    done = run("run", table, "--summary", tmp_path / "s.csv")
    assert done.returncode == 0 and "\x1b" not in done.stdout and done.stdout.count("\n") == 2, done.stderr
    assert NAME.encode("utf-8", "surrogateescape") in (tmp_path / "s.csv").read_bytes()
    assert "1 were done before" in run("run", table).stdout
    (tmp_path / "in" / f"{NAME}.tif").write_bytes(b"no image")
    done = run("run", table)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


def test_what_was_typed_does_not_command_the_terminal(run, tmp_path: Path) -> None:
    for arguments in (("stylize", "--\x1b[31m", "a", "b"), ("info", "no\x1b[31m\nfile"), ("\x1b[31m",)):
        done = run(*arguments)
        assert done.returncode == 2 and "\x1b" not in done.stderr and r"\x1b" in done.stderr
    assert run("info", "no\nfile").stderr.count("\n") == 1


def test_what_is_printable() -> None:
    assert printable("été ß 画 👩‍🚀\n") == "été ß 画 👩‍🚀\n"
    assert printable("\x00\t\r\x7f\x9b\u202e\u2028\udcff") == r"\x00\x09\x0d\x7f\x9b\u202e\u2028\xff"


STOPPED = """
import atexit, sys, threading
from urst_tiles import cli

def fail():
    raise RuntimeError("cannot join thread before it is started")

atexit.register(fail)
cli.EXIT_SECONDS = 1
cli._main = lambda arguments: cli.complain("stopped") or cli.STOPPED
if sys.argv[1] == "hangs":
    threading.Thread(target=threading.Event().wait).start()
cli.program()
"""


@pytest.mark.parametrize("how", ["ends", "hangs"])
def test_an_interrupted_command_ends_soon_and_says_no_more(how: str) -> None:
    """Even if a library that was interrupted fails at exit, or waits for a thread of its own."""
    done = subprocess.run([sys.executable, "-c", STOPPED, how], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "urst-tiles: stopped\n")
