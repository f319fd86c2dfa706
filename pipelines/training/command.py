"""The command line of every training program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from command_line import guarded

from training import loop
from training.record import FIRST, begun, record
from training.settings import Common, parse
from urst_tiles.errors import BadInput

C = TypeVar("C", bound=Common)

#: Threads per core at most: a larger number only takes memory, or more threads than the system has.
MOST_THREADS = 8


@dataclass(frozen=True)
class Program(Generic[C]):
    """One training program: ``begin`` makes the recipe, at its first step, of the settings."""

    name: str
    #: One sentence.
    description: str
    settings: type[C]
    begin: Callable[[C], loop.Recipe]
    #: Names of the losses' parts, in the order of the columns of ``losses.csv``.
    parts: tuple[str, ...]
    #: The settings' limits by the clock.
    times: Callable[[C], loop.Times] = lambda settings: loop.ENDLESS

    @property
    def columns(self) -> tuple[str, ...]:
        """Of ``losses.csv``."""
        return (*FIRST, *self.parts)

    def parse(self, arguments: Sequence[str]) -> C:
        """The settings of a command line; BadInput in one sentence."""
        return parse(self.settings, arguments, self.description)

    def train(self, settings: C) -> Iterator[loop.Row]:
        """Train, or go on, yielding each step's losses."""
        check_device(settings.device)
        times = self.times(settings)
        yield from begun(settings, lambda: loop.run(self.begin(settings), settings, times))

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command line; returns the exit status."""
        words = sys.argv[1:] if arguments is None else arguments
        return guarded(
            self.name,
            lambda: self.work(self.parse(words)),
            stopped="stopped; the same command goes on from the last checkpoint",
            too_large="the device has too little memory: make --batch or --size smaller",
        )

    def work(self, settings: C) -> None:
        """Train and record."""
        set_threads(settings.threads)
        if not record(settings.out / "losses.csv", self.train(settings), self.columns):
            minutes = self.times(settings).minutes
            had = f"{settings.steps} steps" + (f" or {minutes:g} minutes" if minutes else "")
            more = "more --steps go on" if not minutes else "more --steps or --minutes go on"
            self.say(f"{settings.out} has its {had} already; {more}")

    def say(self, sentence: str) -> None:
        """One line on stderr."""
        print(f"{self.name}: {sentence}", file=sys.stderr)


def set_threads(count: int) -> None:
    """Let torch compute in so many threads; 0 for one per core."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(min(count, MOST_THREADS * cores) or cores)


def check_device(name: str) -> None:
    """BadInput where torch does not know or have the device."""
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = (str(error) or "it is not there").splitlines()[0]
        raise BadInput(f"--device {name} cannot be used: {reason}") from None
