"""Runs all benchmarks, or those named: ``python benchmarks/run.py [exactness precision memory ...]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "exactness", "precision", "quality", "seams", "startup", "overhead", "identity", "openers",
    "array_view", "colour", "throughput", "memory", "memory_grid", "memory_scaling", "costs", "scale_model",
    "gpu",
)  # fmt: skip


def main() -> int:
    """Run the benchmarks one after the other, also after a failure; returns 1 if any of them failed, else
    0."""
    chosen = sys.argv[1:] or NAMES
    failed = [
        name for name in chosen if subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
