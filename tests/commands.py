"""Fixtures: small files that stand for large ones, and the command line as a user runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import geotiff, picture

from urst_tiles.cli import main
from urst_tiles.source.picture import write_png

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Shells start background jobs with SIGINT ignored, and children inherit that: a test that sends one
    would see nothing happen."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scene.tif (1100 x 900, georeferenced), small.tif (500 x 400) and style.png."""
    folder = tmp_path_factory.mktemp("files")
    geotiff(folder / "scene.tif", picture(900, 1100))
    geotiff(folder / "small.tif", picture(400, 500))
    write_png(folder / "style.png", picture(160, 200, seed=7)[..., ::-1].copy())
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run ``urst-tiles`` with these arguments in this process: quick, and an exception that escapes fails the
    test."""

    def call(*arguments: object) -> Done:
        before = signal.getsignal(signal.SIGTERM)
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        captured = capsys.readouterr()
        return Done(arguments, status, captured.out, captured.err)

    return call


@pytest.fixture
def run_apart() -> Callable[..., Done]:
    """The same in a process of its own, as a user does."""

    def call(*arguments: object) -> Done:
        command = [sys.executable, "-m", "urst_tiles", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return call
