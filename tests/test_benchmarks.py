"""The programs of ``benchmarks/``, which no other test runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"


#: Arguments that cannot be, of the benchmarks that take any.
REFUSED = [
    ("array_view", ["--chunk", "0"]),
    ("block_stages", ["--block", "64", "none.tif"]),
    ("cohort", ["--cohorts", "none"]),
    ("colour", ["--jobs", "none"]),
    ("conformance", ["--list", "none"]),
    ("costs", ["--rounds", "-1"]),
    ("gpu", ["--side", "nan"]),
    ("memory", ["--model", "lite", "--none", "none"]),
    ("memory_grid", ["--only", "("]),
    ("memory_scaling", ["--csv", "none/x.csv"]),
    ("mosaic", ["--side", "0"]),
    ("openers", ["--", "none"]),
    ("painting", [__file__, __file__, "--teacher", "none"]),
    ("quality", ["--pairs", __file__]),
    ("run", ["startup", "none"]),
    ("scale_model", ["--side", "100", "--block", "7"]),
    ("studio", ["--window", "0", "0"]),
    ("throughput", ["--models", "none"]),
]


def test_every_benchmark_can_be_imported_and_refuses_bad_arguments() -> None:
    """Each needs names of others, which may go or change. What is refused is said in one line."""
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    lines = ["import importlib, sys", f"sys.path.insert(0, {str(FOLDER)!r})"]
    lines += [f"importlib.import_module({name!r})" for name in names]
    lines += [f"assert importlib.import_module({name!r}).main({words}) == 2" for name, words in REFUSED]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line.partition(": ") for line in done.stderr.splitlines()]
    assert [name for name, _, _ in said] == [name for name, _ in REFUSED], done.stderr
    for (_, words), (_, _, sentence) in zip(REFUSED, said, strict=True):
        assert words[-2].strip("-") in sentence or words[-1] in sentence
