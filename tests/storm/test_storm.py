"""A few trials of each storm. The whole is `make storm`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).parent


def storm(*arguments: object) -> str:
    """Run a storm in a process of its own, which forks others and so must have no threads."""
    command = [sys.executable, STORM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_few_kills_damaged_files_and_crafted_files() -> None:
    said = storm("--kills", 3, "--damage", 20, "--crafted", 10, "--seed", 5)
    assert said.endswith("0 broken promises\n") and said.count("\n| all |") == 6, said


@pytest.mark.slow
def test_a_storm_goes_on_and_a_trial_is_repeated(tmp_path: Path) -> None:
    storm("--damage", 12, "--state", tmp_path)
    trials = (tmp_path / "damage.jsonl").read_text().splitlines()
    assert len(trials) == 12
    storm("--damage", 15, "--state", tmp_path)
    again = (tmp_path / "damage.jsonl").read_text().splitlines()
    assert len(again) == 15 and again[:12] == trials
    assert "| TIFF deflate |" in storm("--only", "damage:3")


@pytest.mark.slow
def test_every_mode_in_every_phase_and_every_kind() -> None:
    storm("--kills", 80, "--damage", 1000, "--crafted", 92)
