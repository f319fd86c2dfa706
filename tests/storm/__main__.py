"""A storm: `make storm`, or ``python tests/storm --kills 1000 --damage 20000 --crafted 500``.

Kills, damaged files and crafted files, each so many times. What each trial does follows from its number and
the seed, so that any can be repeated: ``--seed SEED --kills 0 --only kills:17``. What became of the trials is
kept in the file of ``--state``, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # helpers.py

from tally import Tally
from warm import import_everything

STORMS = {"kills": ("mode", "phase"), "damage": ("file", "damage"), "crafted": ("kind", "outcome")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in STORMS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=f"so many trials of {name}")
    parser.add_argument("--seed", type=int, default=1, help="another seed is another storm")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop each storm after so many seconds"
    )
    parser.add_argument("--state", type=Path, help="folder for what became of each trial (default: none)")
    parser.add_argument("--only", metavar="STORM:NUMBER", help="repeat one trial")
    arguments = parser.parse_args()
    import_everything()
    # No TemporaryDirectory: forked processes would remove it when they end.
    scratch = Path(tempfile.mkdtemp(prefix="urst-storm-"))
    try:
        broken = sum(run(name, arguments, scratch) for name in STORMS)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"\n{broken} broken promises")
    return 1 if broken else 0


def run(name: str, arguments: argparse.Namespace, scratch: Path) -> int:
    """Run one of the storms and print its tables; returns the number of broken promises."""
    storm, folder = importlib.import_module(name), scratch / name
    folder.mkdir()
    state = arguments.state or scratch
    state.mkdir(parents=True, exist_ok=True)
    of, _, number = (arguments.only or "").partition(":")
    tally = Tally(folder / "only" if of else state / f"{name}.jsonl", arguments.seed)
    numbers = ([int(number)] if of == name else []) if of else tally.missing(getattr(arguments, name))
    if numbers:
        storm.storm(tally, in_time(numbers, arguments.seconds), arguments.seed, folder)
    if tally.trials:
        first, second = STORMS[name]
        print(f"\n{name}, seed {arguments.seed}\n\n{tally.places(f'{first} / {second}')}\n")
        print(tally.outcomes(f"{first} / outcome"))
    return len(tally.broken)


def in_time(numbers: list[int], seconds: float) -> Iterator[int]:
    """The numbers, for as long as there is time."""
    end = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > end:
            return
        yield number


if __name__ == "__main__":
    sys.exit(main())
