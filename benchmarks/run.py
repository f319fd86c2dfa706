"""Runs all benchmarks, or those named: ``python benchmarks/run.py [exactness precision memory ...]``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import Parser, program

HERE = Path(__file__).resolve().parent
NAMES = (
    "exactness", "precision", "quality", "seams", "startup", "overhead", "identity", "openers",
    "array_view", "colour", "throughput", "memory", "memory_grid", "memory_scaling", "costs", "scale_model",
    "gpu",
)  # fmt: skip


@program
def main(words: Sequence[str]) -> int:
    """Run the benchmarks one after the other, also after a failure; returns 1 if any of them failed, else
    0."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(NAMES)} (default: all)")
    chosen = parser.parse_args(words).names or NAMES
    if unknown := [name for name in chosen if not (HERE / f"{name}.py").is_file()]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    failed = [
        name for name in chosen if subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
