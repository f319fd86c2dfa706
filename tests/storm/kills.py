"""Runs that are killed, stopped, raced, cut from their power, and short of disk, in every phase; then the
same command until it ends.

What must hold: the output has the bytes of an undisturbed run, or does not exist under its name; nothing is
left beside it in the end; each run that ends by itself has the right exit status and says at most one
sentence; and the same command ends well soon.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hurts
import numpy as np
from helpers import picture, sha
from tally import BROKEN, Tally, Trial
from warm import Child

from urst_tiles.job.ending import mark_beside

Hurt = Callable[[], None]

MODES = (
    "SIGKILL", "SIGTERM", "SIGINT", "SIGKILL at a call", "write error", "disk full", "power cut",
    "clock jump", "two racers", "three commands",
)  # fmt: skip

#: The same command is given so often, after what happened to the first.
MOST = 6

OPTIONS = ("--tile=128", "--block=128", "--thumbnail=48", "--device=cpu", "--threads=1")
STYLE = "hokusai-wave"


class Broken(Exception):
    """A promise was not kept."""


def need(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


class Scene:
    """The picture, the outputs of undisturbed runs, and how long their phases take."""

    def __init__(self, folder: Path) -> None:
        import tifffile

        self.path, self._folder = folder / "scene.tif", folder
        tifffile.imwrite(
            self.path,
            picture(120, 300),
            compression="deflate",
            photometric="rgb",
            metadata=None,
            rowsperstrip=16,
        )
        self.whole: dict[str, str] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self.calls: dict[tuple[str, str], int] = {}
        for statistics in ("thumbnail", "exact"):
            self._measure(statistics)

    def _measure(self, statistics: str) -> None:
        log, output = self._folder / f"{statistics}.txt", self._folder / f"{statistics}.tif"
        done = Child(self.command(output, statistics), self._folder / "said", hurts.note_times(log))
        need(done.wait() == 0, done.said)
        self.whole[statistics] = sha(output)
        rows = [line.split("\t") for line in log.read_text().splitlines()]
        names = [row[0] for row in rows]
        need(names == [*hurts.PHASES, "the end"], f"the phases were {names}")
        for (phase, at, calls), (_, then, by_then) in zip(rows, rows[1:], strict=False):
            self.seconds[statistics, phase] = float(then) - float(at)
            self.calls[statistics, phase] = int(by_then) - int(calls)

    def command(self, output: Path, statistics: str) -> list[str]:
        return [
            "stylize",
            str(self.path),
            str(output),
            f"--style={STYLE}",
            f"--statistics={statistics}",
            *OPTIONS,
        ]


class Attempt:
    """One trial in a folder of its own on the disk of the storm."""

    def __init__(self, scene: Scene, disk: Path, mode: str, phase: str, random: np.random.Generator) -> None:
        self.scene, self.disk, self.mode, self.phase, self.random = scene, disk, mode, phase, random
        self.statistics = "exact" if phase == "statistics" else "thumbnail"
        self.folder = disk / "trial"
        self.output, self.job = self.folder / "out.tif", self.folder / "job"
        self.notes, self._logs = disk / "notes", 0
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for path in (self.notes, disk / "filler"):
            path.unlink(missing_ok=True)

    @property
    def command(self) -> list[str]:
        return self.scene.command(self.output, self.statistics)

    def start(self, arguments: Sequence[object], hurt: Hurt = lambda: None) -> Child:
        self._logs += 1
        return Child(arguments, self.scene.path.with_name(f"said{self._logs % 4}"), hurt)

    def moment(self) -> float:
        """A random moment of the phase in seconds, stretched a little since other processes run here too."""
        return float(self.random.uniform(0, 1.3 * self.scene.seconds[self.statistics, self.phase]))

    def call(self) -> int:
        return int(self.random.integers(1, 2 + self.scene.calls[self.statistics, self.phase]))

    def ended(self, child: Child, *allowed: int) -> int:
        """Wait for a run and check how it ended."""
        status = child.wait()
        said = child.said
        need(status in allowed, f"exit status {status}, allowed are {allowed}: {said}")
        need("Traceback" not in said and "Exception ignored" not in said, said)
        lines = [line for line in said.splitlines() if line.startswith("urst-tiles: ")]
        if status in (1, 2, 130):
            need(len(lines) == 1 and "the system says" not in said, f"not one good sentence: {said}")
        if self.output.exists():
            need(
                sha(self.output) == self.scene.whole[self.statistics], f"other bytes, status {status}: {said}"
            )
        return status

    def go_on(self, command: Sequence[object], *allowed: int) -> int:
        """The same command until it ends well; returns how often it was given."""
        for count in range(1, MOST + 1):
            child = self.start(command)
            if self.ended(child, 0, *allowed) == 0:
                return count
        raise Broken(f"it does not end: {child.said}")

    def check_end(self) -> None:
        need(self.output.exists(), "there is no output")
        need(sha(self.output) == self.scene.whole[self.statistics], "other bytes")
        left = sorted(path.name for path in self.folder.iterdir())
        need(left == ["out.tif"], f"left behind: {left}")


def killed(
    trial: Attempt,
    hurt: Hurt,
    *allowed: int,
    between: Callable[[], Any] = lambda: None,
    more: tuple[int, ...] = (),
) -> str:
    """One run with a hurt; then the same command."""
    status = trial.ended(trial.start(trial.command, hurt), 0, *allowed)
    between()
    if status == 0:
        return "over before"
    count = trial.go_on(trial.command, *more)
    return "went on" if count == 1 else "went on after a sentence"


def by_signal(number: int, *allowed: int) -> Callable[[Attempt], str]:
    return lambda trial: killed(trial, hurts.signalled(trial.phase, trial.moment(), number), *allowed)


def at_a_call(trial: Attempt) -> str:
    before = bool(trial.random.integers(2))
    act: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    return killed(trial, hurts.at_call(trial.phase, trial.call(), act, before=before), -9)


def write_error(trial: Attempt) -> str:
    code = hurts.NO_IO if trial.random.integers(2) else hurts.NO_ROOM
    hurt = hurts.broken_disk(trial.phase, trial.call(), code, once=bool(trial.random.integers(2)))
    return killed(trial, hurt, 1, 2)


def disk_full(trial: Attempt) -> str:
    hurt = hurts.full_disk(trial.phase, trial.moment(), trial.disk)
    filler = trial.disk / "filler"
    return killed(trial, hurt, 1, 2, between=lambda: filler.unlink(missing_ok=True))


def power_cut(trial: Attempt) -> str:
    hurt = hurts.power_cut(trial.phase, trial.moment(), trial.notes)
    lose: Callable[[], int] = lambda: hurts.lose_what_was_not_synced(trial.notes, trial.folder, trial.random)  # noqa: E731
    return killed(trial, hurt, -9, between=lose, more=(1, 2))


def clock_jump(trial: Attempt) -> str:
    years = float(trial.random.uniform(-40, 80)) * 31_557_600

    def touch() -> None:
        for path in (trial.folder, *trial.folder.rglob("*"), trial.scene.path):
            moment = float(trial.random.uniform(0, 4_000_000_000))
            with suppress(FileNotFoundError):
                os.utime(path, (moment, moment))

    return killed(trial, hurts.jumping_clock(trial.phase, trial.moment(), years), -9, between=touch)


def two_racers(trial: Attempt) -> str:
    """The same command twice at once; one of them may be killed."""
    hurt = (
        hurts.signalled(trial.phase, trial.moment(), signal.SIGKILL)
        if trial.random.integers(2)
        else lambda: None
    )
    first, second = trial.start(trial.command, hurt), None
    end = float(trial.random.uniform(0, sum(trial.scene.seconds[trial.statistics, p] for p in hurts.PHASES)))
    with suppress(TimeoutError):
        _wait(first, end)
    second = trial.start(trial.command)
    statuses = [trial.ended(first, 0, 1, 2, -9), trial.ended(second, 0, 1, 2)]
    if statuses == [-9, 0] and mark_beside(trial.output.with_name("out.tif.job")).exists():
        trial.go_on(trial.command)  # the second saw that all was finished; what was left goes with the next
    if 0 in statuses:
        return "over before" if statuses == [0, 0] else "one ended, one was refused or killed"
    trial.go_on(trial.command)
    return "went on"


def _wait(child: Child, seconds: float) -> None:
    import time

    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def three_commands(trial: Attempt) -> str:
    """plan --save, two workers and assemble; the one whose phase it is, is killed."""
    kill = hurts.signalled(trial.phase, trial.moment(), signal.SIGKILL)
    _, scene, output, *options = trial.command
    plan: list[object] = ["plan", "--save", trial.job, scene, output, *options]
    number = hurts.PHASES.index(trial.phase)
    outcome = "over before"
    if number < 4:
        if trial.ended(trial.start(plan, kill), 0, -9) != 0:
            trial.go_on(plan)
            outcome = "went on"
    else:
        trial.go_on(plan)
    workers = [
        trial.start(["work", trial.job], kill if number == 4 and i == 0 else lambda: None) for i in (0, 1)
    ]
    statuses = [trial.ended(worker, 0, -9) for worker in workers]
    if -9 in statuses:
        outcome = "the other worker did it"
        trial.go_on(["work", trial.job])
    assemble: list[object] = ["assemble", trial.job]
    if number > 4 and trial.ended(trial.start(assemble, kill), 0, -9) != 0:
        trial.go_on(assemble)
        return "went on"
    if number <= 4:
        trial.go_on(assemble)
    return outcome


HOW: dict[str, Callable[[Attempt], str]] = {
    "SIGKILL": by_signal(signal.SIGKILL, -9),
    "SIGTERM": by_signal(signal.SIGTERM, 130, -15),
    "SIGINT": by_signal(signal.SIGINT, 130, -2),
    "SIGKILL at a call": at_a_call,
    "write error": write_error,
    "disk full": disk_full,
    "power cut": power_cut,
    "clock jump": clock_jump,
    "two racers": two_racers,
    "three commands": three_commands,
}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own of 24 MB, if this user may mount one; otherwise None."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def storm(tally: Tally, numbers: Iterable[int], seed: int, folder: Path) -> None:
    """Make the trials with these numbers: each mode in each phase in turn."""
    scene = Scene(folder)
    with small_disk(folder / "disk") as disk:
        for number in numbers:
            tally.add(one(scene, disk or folder / "disk", number, seed, mounted=disk is not None))


def one(scene: Scene, disk: Path, number: int, seed: int, *, mounted: bool = True) -> Trial:
    """One trial; what it does follows from number and seed alone."""
    mode = MODES[number % len(MODES)]
    phase = hurts.PHASES[(number // len(MODES) + number) % len(hurts.PHASES)]  # all pairs in 80 trials
    if mode == "disk full" and not mounted:
        return Trial(number, mode, phase, "no right to mount a disk")
    trial = Attempt(scene, disk, mode, phase, np.random.default_rng([seed, number]))
    try:
        outcome = HOW[mode](trial)
        trial.check_end()
    except (Broken, TimeoutError) as error:
        return Trial(number, mode, phase, f"{BROKEN}: {str(error)[:60].splitlines()[0]}", str(error))
    return Trial(number, mode, phase, outcome)
