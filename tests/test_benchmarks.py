"""The programs of ``benchmarks/``, which no other test runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_every_benchmark_can_be_imported() -> None:
    """Each needs names of others, which may go or change."""
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    lines = ["import importlib, sys", f"sys.path.insert(0, {str(FOLDER)!r})"]
    program = "\n".join(lines + [f"importlib.import_module({name!r})" for name in names])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
