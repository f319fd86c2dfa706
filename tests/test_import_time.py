"""`import urst_tiles` and `urst-tiles --help` answer at once: heavy libraries come when they are needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "dask", "distributed", "pyvips", "zarr", "tifffile", "imagecodecs"]


def loaded_after(code: str) -> set[str]:
    """Which of the heavy modules a fresh interpreter holds after ``code``."""
    report = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    child = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(json.loads(child.stdout.splitlines()[-1]))


def test_the_measure_measures() -> None:
    assert loaded_after("import tifffile") >= {"tifffile"}


@pytest.mark.parametrize(
    "code",
    [
        "import urst_tiles",
        "import urst_tiles.geometry, urst_tiles.moments, urst_tiles.engine.blend, urst_tiles.plan",
        "import urst_tiles.cli",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_after(code) == set()
