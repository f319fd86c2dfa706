"""What became of each trial, kept in a file so that a storm can go on, and counted in a table."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

#: Begins the outcome of a trial in which a promise was broken.
BROKEN = "BROKEN"


class Trial(NamedTuple):
    """A trial: its number, its row and column in the table, what became of it, and details of a failure."""

    number: int
    row: str
    column: str
    outcome: str
    details: str = ""

    @property
    def broken(self) -> bool:
        return self.outcome.startswith(BROKEN)


class Tally:
    """The trials of one storm with one seed; each is written down as soon as it is over."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._seed = path, seed
        self.trials: dict[int, Trial] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            of, values = json.loads(line)
            if of == seed:
                self.trials[values[0]] = Trial(*values)

    def add(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        with self._path.open("a") as file:
            file.write(json.dumps([self._seed, trial]) + "\n")
        if trial.broken:
            print(f"{trial.row} / {trial.column}, seed {self._seed}, trial {trial.number}: {trial.outcome}")
            print(trial.details)

    def missing(self, count: int) -> list[int]:
        """The numbers below ``count`` of trials that were not made yet."""
        return [number for number in range(count) if number not in self.trials]

    @property
    def broken(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.broken]

    def places(self, corner: str) -> str:
        """Numbers of trials by row and column."""
        return _table(corner, Counter((trial.row, trial.column) for trial in self.trials.values()))

    def outcomes(self, corner: str) -> str:
        """Numbers of trials by row and outcome."""
        return _table(corner, Counter((trial.row, trial.outcome) for trial in self.trials.values()))


def _table(corner: str, counts: Counter[tuple[str, str]]) -> str:
    """A table for Markdown, rows and columns in the order of their coming, with sums."""
    rows = list(dict.fromkeys(row for row, _ in counts))
    columns = list(dict.fromkeys(column for _, column in counts))
    lines = [[corner, *columns, "all"], ["---"] * (len(columns) + 2)]
    for row in rows:
        numbers = [counts[row, column] for column in columns]
        lines.append([row, *map(str, numbers), str(sum(numbers))])
    sums = [sum(counts[row, column] for row in rows) for column in columns]
    lines.append(["all", *map(str, sums), str(sum(sums))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
