"""The plan's peak is a bound that is not idle: what a run takes lies between 60 % and 100 % of it (law 2)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import geotiff, picture


def peak_of(command: list[str]) -> int:
    """High-water mark of the resident bytes of a child: asked for while it runs, since the mark that ``wait``
    tells begins with what this process held when it forked."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in marks)])
        time.sleep(0.01)
    assert process.returncode == 0
    return peak


@pytest.mark.parametrize("shape", [(2048, 2048), (512, 9000)])
def test_a_run_keeps_to_its_plan(
    files: Path, weights_dir: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    scene = geotiff(tmp_path / "scene.tif", picture(*shape))
    arguments = [
        str(scene), str(tmp_path / "out.tif"), "--style", str(files / "style.png"), "--model", "microast",
        "--weights", str(weights_dir), "--tile", "512", "--block", "2048", "--json",
    ]  # fmt: skip
    command = [sys.executable, "-m", "urst_tiles"]
    planned = subprocess.run([*command, "plan", *arguments], check=True, capture_output=True, text=True)
    formula = json.loads(planned.stdout)["peak_bytes"]
    assert 0.6 < peak_of([*command, "stylize", *arguments]) / formula <= 1.0
