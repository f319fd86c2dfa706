"""The plan's peak is a bound that is not idle: what a run takes lies between 60 % and 100 % of it (law 2)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import geotiff, peak_of, picture


@pytest.mark.parametrize(
    ("model", "shape", "statistics"),
    [
        ("microast", (2048, 2048), "thumbnail"),
        ("microast", (512, 9000), "thumbnail"),
        ("lite", (2048, 2560), "exact"),
    ],
)
def test_a_run_keeps_to_its_plan(
    files: Path, weights_dir: Path, tmp_path: Path, model: str, shape: tuple[int, int], statistics: str
) -> None:
    scene = geotiff(tmp_path / "scene.tif", picture(*shape))
    arguments = [
        str(scene), str(tmp_path / "out.tif"), "--style", str(files / "style.png"), "--model", model,
        "--weights", str(weights_dir), "--tile", "512", "--block", "2048", "--statistics", statistics,
        "--json",
    ]  # fmt: skip
    command = [sys.executable, "-m", "urst_tiles"]
    planned = subprocess.run([*command, "plan", *arguments], check=True, capture_output=True, text=True)
    formula = json.loads(planned.stdout)["peak_bytes"]
    taken = peak_of([*command, "stylize", *arguments])
    print(f"{taken >> 20} of {formula >> 20} MiB")
    assert 0.6 < taken / formula <= 1.0
