"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

import urst_tiles as ut
from urst_tiles.cli import HELP, build_parser, parse_bytes
from urst_tiles.cli.arguments import options_of
from urst_tiles.geometry import Box
from urst_tiles.options import Options

IDENTITY = ("--model", "identity", "--tile", "128", "--block", "512")


def test_every_option_has_help_and_a_flag() -> None:
    assert set(HELP) == set(Options.__dataclass_fields__)
    arguments = build_parser().parse_args(
        ["plan", "a", "b", "--style", "c", "--bands", "3,2,1", "--memory", "1.5G"]
    )
    assert arguments.bands == (3, 2, 1) and arguments.memory == 3 << 29


@pytest.mark.parametrize(
    ("text", "size"), [("800M", 800 << 20), ("2GiB", 2 << 30), ("1024", 1024), ("1.5k", 1536)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_help_is_quick_and_complete(run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("stylize", "plan", "preview", "info", "validate", "weights"):
        assert command in done.stdout


def test_without_a_command_it_prints_the_help(run) -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("--help").stdout != ""


def test_version_comes_from_the_metadata_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from urst_tiles.cli import main; main(['--version']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"urst-tiles {version('urst-tiles')}\n"


@pytest.mark.parametrize("command", ["stylize", "plan", "preview"])
def test_ways_to_make_seams_are_accepted_but_not_in_the_help(
    run, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = run(command, "--help").stdout
    assert (
        "--statistics {auto,thumbnail,sampled,exact,local}\n" in said and "--seam {auto,crop,blend}\n" in said
    )
    assert all(len(line) <= 80 for line in said.splitlines())
    arguments = build_parser().parse_args([command, "a", "b", "--statistics", "tile", "--seam", "cut"])
    assert (options_of(arguments).statistics, options_of(arguments).seam) == ("tile", "cut")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--statistics", "median"),
            "--statistics must be one of auto, thumbnail, sampled, exact, local, got 'median'",
        ),
        (("--seam", "tape"), "--seam must be one of auto, crop, blend, got 'tape'"),
        (("--tile", "2.5"), "argument --tile: must be a whole number, got '2.5'"),
        (("--memory", "much"), "argument --memory: expected a size such as 1.5G or 800M, got 'much'"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_sentence(
    run, files: Path, tmp_path: Path, flags: tuple[str, str], said: str
) -> None:
    done = run("plan", files / "scene.tif", tmp_path / "out.tif", *flags)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(said)


def test_stylize_says_one_line_and_is_quiet_without_a_terminal(
    run_apart, files: Path, tmp_path: Path
) -> None:
    done = run_apart(
        "stylize", files / "scene.tif", tmp_path / "out.tif", "--style", files / "style.png", *IDENTITY
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'out.tif'}: 1100 x 900, ") and done.stdout.count("\n") == 1
    assert run_apart("validate", tmp_path / "out.tif").returncode == 0


def test_json_lines(run, files: Path, tmp_path: Path) -> None:
    done = run(
        "stylize",
        files / "scene.tif",
        tmp_path / "out.tif",
        "--style",
        files / "style.png",
        *IDENTITY,
        "--json",
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "done" and events[-1]["blocks"] == 6
    assert {"event": "progress", "stage": "stylising", "done": 6, "total": 6} in events


def test_plan_runs_nothing(run, files: Path, tmp_path: Path) -> None:
    done = run("plan", files / "scene.tif", tmp_path / "out.tif", "--style", files / "style.png", *IDENTITY)
    assert done.returncode == 0 and "blocks       6 of 512 px" in done.stdout
    as_json = run(
        "plan", files / "scene.tif", tmp_path / "out.tif", "--style", files / "style.png", *IDENTITY, "--json"
    )
    planned = json.loads(as_json.stdout)
    assert planned["peak_bytes"] > 0 and 0 < planned["seconds"] < 60
    assert "time         about 0:0" in done.stdout
    assert not list(tmp_path.iterdir())


def test_info(run, files: Path) -> None:
    done = run("info", files / "scene.tif", "--json")
    facts = json.loads(done.stdout)
    assert facts["size"] == "1100 x 900" and facts["georeferenced"] and facts["validity"] == "none"


def test_preview(run, files: Path, tmp_path: Path) -> None:
    done = run(
        "preview",
        files / "scene.tif",
        tmp_path / "p.png",
        "--style",
        files / "style.png",
        "--model",
        "identity",
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    refused = run(
        "preview",
        files / "scene.tif",
        tmp_path / "p.gif",
        "--style",
        files / "style.png",
        "--model",
        "identity",
    )
    assert refused.returncode == 2 and "p.png" in refused.stderr


def test_preview_of_a_place_and_of_several_styles(run, files: Path, tmp_path: Path) -> None:
    scene, out = files / "scene.tif", tmp_path / "place.png"
    done = run("preview", scene, out, "--at", "1000,100", "--size", "256,90", *IDENTITY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 100 x 90 at 1000,100, at full scale\n"
    pixels = ut.open_source(scene).read(Box(100, 1000, 190, 1100))
    shown = ut.open_source(out).prepare(tmp_path / "spool").read(Box(0, 0, 90, 100))
    assert (shown == pixels).all()
    sheet = tmp_path / "sheet.png"
    place = ("preview", scene, sheet, "--at", "0,0", "--size", "300,64", "--styles")
    done = run(*place, "hokusai-wave,hokusai-nave")
    assert done.returncode == 2 and "hokusai-nave" in done.stderr and not sheet.exists()
    done = run(*place, "hokusai-wave")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{sheet}: 648 x 136 at 0,0, at full scale: as it is, hokusai-wave, row by row\n"
    (made,) = (ut.open_source(sheet).prepare(tmp_path / "spool").read(Box(0, 0, 136, 648)),)
    assert (made[16:80, 16:316] == ut.open_source(scene).read(Box(0, 0, 64, 300))).all()
    assert made[80:120, 16:316].min() < 100 and made[80:120, 332:632].min() < 100, "the labels"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--at", "1100,0"), "lies outside the image, which is 1100 x 900 px"),
        (("--at", "a,b"), "expected a place such as 2048,4096, got 'a,b'"),
        (("--at", "1,2", "--size", "0"), "expected a size such as 1024"),
        (("--at", "1,2", "--size", "99999"), "at most 16384 px"),
        (("--size", "64"), "give the place with --at"),
        (("--styles", ","), "names no style"),
        (("--styles", "a", "--style", "b"), "leave --style"),
    ],
)
def test_a_place_that_cannot_be_shown_is_refused_in_words(run, files, tmp_path, flags, words) -> None:
    done = run("preview", files / "scene.tif", tmp_path / "p.png", "--model", "identity", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_validate_finds_what_is_wrong(run, files: Path, tmp_path: Path) -> None:
    done = run("validate", files / "scene.tif")
    assert done.returncode == 1 and "not valid" in done.stdout


def test_weights_list(run, tmp_path: Path) -> None:
    done = run("weights", "list", "--weights", tmp_path)
    assert done.returncode == 0 and "microast" in done.stdout and "MIT" in done.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_says_how_to_go_on_and_does(
    run, files: Path, tmp_path: Path, weights_dir: Path, how: int
) -> None:
    command = [
        "stylize", files / "scene.tif", tmp_path / "out.tif", "--style", files / "style.png",
        "--model", "microast", "--weights", weights_dir, "--tile", "128", "--block", "512",
        "--thumbnail", "128", "--style-size", "128",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "urst_tiles", *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    parts = tmp_path / "out.tif.job" / "parts"
    while process.poll() is None and not list(parts.glob("[0-9]*.tif")):
        time.sleep(0.02)
    stopped = time.monotonic()
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.strip().endswith("the same command goes on")
    assert time.monotonic() - stopped < 30
    assert not (tmp_path / "out.tif").exists() and list(parts.glob("[0-9]*.tif"))
    done = run(*command)
    assert done.returncode == 0 and "blocks were finished before" in done.stdout
    assert ut.validate(tmp_path / "out.tif").valid
