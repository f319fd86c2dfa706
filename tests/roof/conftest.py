"""Small files that stand for large ones, and the command line as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import geotiff, picture

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scene.tif (1100 x 900, georeferenced) and style.png."""
    folder = tmp_path_factory.mktemp("files")
    geotiff(folder / "scene.tif", picture(900, 1100))
    from urst_tiles.picture import write_png

    write_png(folder / "style.png", picture(160, 200, seed=7)[..., ::-1].copy())
    return folder


@pytest.fixture(scope="session")
def run() -> Run:
    """Run ``urst-tiles`` with these arguments; returns the completed process."""

    def call(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "urst_tiles", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]

    return call
