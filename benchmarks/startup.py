"""Wall time of ``import urst_tiles`` and ``urst-tiles --help``, beside that of Python alone; the best of
ten."""

from __future__ import annotations

import subprocess
import sys
import time

from harness import COMMAND, table


def least(command: list[str], tries: int = 10) -> float:
    """The wall seconds of the fastest of ``tries`` runs of a command."""
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    rows = [
        ("python -c pass", least([sys.executable, "-c", "pass"]), ""),
        ("python -c 'import urst_tiles'", least([sys.executable, "-c", "import urst_tiles"]), 0.3),
        ("urst-tiles --help", least([*COMMAND, "--help"]), 0.6),
    ]
    table("Start-up", ("command", "seconds", "at most"), rows)
