"""Stands for sbatch, squeue, scancel, qsub, qstat, qdel, bsub, bjobs and bkill: a job is a process here.

Called with one of these names and what follows it, and with a folder in $FAKE_QUEUE: `N.pid` is a job's
process, `N.log` what it says, `N.sh` its script, `cancelled` the numbers that were cancelled.
$FAKE_QUEUE_MODE: `refuse` (no job is taken), `die` (each ends at once) or `hold` (each waits for ever).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_QUEUE"])
MODE = os.environ.get("FAKE_QUEUE_MODE", "")
TAKEN = {"sbatch": "Submitted batch job {}", "qsub": "{}.head", "bsub": "Job <{}> is submitted to queue <x>."}
LISTED = {
    "squeue": "{} R",
    "qstat": "{}.head     dask-worker   somebody   00:00:01 R work",
    "bjobs": "{} RUN",
}
ENDED = {"squeue": "", "qstat": "{}.head     dask-worker   somebody   00:00:01 C work", "bjobs": "{} EXIT"}


def submit(name: str, arguments: list[str]) -> int:
    if MODE == "refuse":
        print(
            f"{name}: error: invalid partition specified",
            file=sys.stdout if name == "bsub" else sys.stderr,
        )
        return 1
    script = sys.stdin.read() if name == "bsub" else Path(arguments[0]).read_text()
    number = next(n for n in range(1, 1000) if claimed(n))
    (FOLDER / f"{number}.sh").write_text(script)
    log = re.search(r"^#SBATCH -e (.*)$", script, re.MULTILINE)
    path = Path(log[1].replace("%J", str(number))) if log else FOLDER / f"{number}.log"
    what = {"die": "echo no such node >&2; exit 1", "hold": "sleep 1000"}.get(MODE, f". {FOLDER}/{number}.sh")
    with path.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-c", what], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    (FOLDER / f"{number}.pid").write_text(str(process.pid))
    print(TAKEN[name].format(number))
    return 0


def claimed(number: int) -> bool:
    try:
        (FOLDER / f"{number}.sh").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def runs(number: str) -> bool:
    try:
        pid = int((FOLDER / f"{number}.pid").read_text())
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def show(name: str, arguments: list[str]) -> int:
    for number in re.findall(r"\b\d+\b", " ".join(arguments)):
        if line := (LISTED if runs(number) else ENDED)[name].format(number):
            print(line)
    return 0


def cancel(numbers: list[str]) -> int:
    for number in numbers:
        with (FOLDER / "cancelled").open("a") as file:
            file.write(f"{number}\n")
        if runs(number):
            os.killpg(int((FOLDER / f"{number}.pid").read_text()), signal.SIGTERM)
    return 0


def main() -> int:
    name, *arguments = sys.argv[1:]
    if name in TAKEN:
        return submit(name, arguments)
    return show(name, arguments) if name in LISTED else cancel(arguments)


sys.exit(main())
