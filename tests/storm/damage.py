"""Damaged files of every kind that is read: the right content, or one sentence that names the file.

Where a checksum covers what was damaged, other content is a broken promise. Elsewhere it is counted: nobody
could notice. One trial in fifty damages a file in the folder of a job that was killed, and gives the same
command until it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import kills
import numpy as np
from apart import one_sentence, outcomes
from files import KINDS, Kind, clean, same
from tally import BROKEN, Tally, Trial
from warm import Child

DAMAGES = ("a bit flipped", "bytes changed", "cut off", "zeros", "swapped", "repeated")

#: One trial of so many damages a file in the folder of a job.
JOB_EVERY = 50

FOLDERS = ("job.json", "written.json", "source", "parts", "net.safetensors", "moments")


def damaged(data: bytes, how: str, random: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """The bytes with a damage, and for each byte of the good file whether it was changed or lost."""
    found, size = bytearray(data), len(data)
    start = int(random.integers(size))
    length = int(random.integers(1, 2 + min(size - start, 1 << int(random.integers(1, 12)))))
    if how == "a bit flipped":
        found[start] ^= 1 << int(random.integers(8))
    elif how == "bytes changed":
        for at in random.integers(size, size=int(random.integers(1, 9))):
            found[int(at)] = int(random.integers(256))
    elif how == "cut off":
        del found[start:]
    elif how == "zeros":
        found[start : start + length] = bytes(len(found[start : start + length]))
    elif how == "swapped":
        other = int(random.integers(size))
        a, b = sorted((start, other))
        length = min(length, b - a, size - b)
        found[a : a + length], found[b : b + length] = found[b : b + length], found[a : a + length]
    else:
        found[start:start] = found[start : start + length]
    before = np.frombuffer(data, np.uint8)
    after = np.full(size, -1)
    after[: min(size, len(found))] = np.frombuffer(bytes(found[:size]), np.uint8)
    return bytes(found), before != after


class Case:
    """The good file of a kind, and what is read from it."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.path = folder / kind.name
        kind.make(self.path)
        self.bytes = self.path.read_bytes()
        self.covered = kind.covered(self.path)
        self.content = kind.read(self.path, clean(folder / "good"))

    def outcome(self, how: str, random: np.random.Generator) -> str:
        from urst_tiles.errors import UrstError

        data, where = damaged(self.bytes, how, random)
        self.path.write_bytes(data)
        try:
            found = self.kind.read(self.path, clean(self.folder / "scratch"))
        except UrstError as error:
            one_sentence(error, str(self.path), str(self.folder / "scratch"))
            return "a sentence"
        if same(found, self.content):
            return "the same content"
        if found is None:
            return "made anew"
        if where.any() and self.covered[where].all():
            return f"{BROKEN}: other content in spite of a checksum"
        return "other content, no checksum"


class HalfJob:
    """A job that was killed after its second block of three."""

    def __init__(self, folder: Path) -> None:
        self.scene, self.folder = kills.Scene(folder), folder
        self.output = folder / "half" / "out.tif"
        self.output.parent.mkdir()
        self.command = self.scene.command(self.output, "exact")
        Child(self.command, folder / "said", _killed_after(2)).wait()
        self.job = self.output.with_name("out.tif.job")
        assert len(list(self.job.glob("parts/0*"))) == 2

    def outcome(self, how: str, random: np.random.Generator) -> str:
        trial = clean(self.folder / "trial")
        job = Path(shutil.copytree(self.job, trial / "out.tif.job"))
        victims = sorted(path for path in job.rglob("*") if path.is_file() and path.name != "lock")
        victim = victims[int(random.integers(len(victims)))]
        data, _ = damaged(victim.read_bytes(), how, random)
        victim.write_bytes(data)
        output = trial / "out.tif"
        command, said = [word.replace(str(self.output), str(output)) for word in self.command], ""
        for _ in range(kills.MOST):
            child = Child(command, self.folder / "said")
            if child.wait() == 0:
                break
            said = child.said
            assert child.status in (1, 2) and said.count("\n") == 1 and said.startswith("urst-tiles: "), said
            assert not output.exists(), said
            if "--overwrite" in said:
                command.append("--overwrite")
        else:
            raise AssertionError(f"it does not end: {victim}: {said}")
        assert kills.sha(output) == self.scene.whole["exact"], f"other bytes: {victim}"
        assert [path.name for path in trial.iterdir()] == ["out.tif"], victim
        return "a sentence, then right" if said else "right"


def _killed_after(blocks: int) -> kills.Hurt:
    def install() -> None:
        from urst_tiles.engine.block import StylizeBlock

        real, count = StylizeBlock.__call__, [0]

        def call(self: StylizeBlock, index: int) -> object:
            receipt = real(self, index)
            count[0] += 1
            if count[0] >= blocks:
                os.kill(os.getpid(), signal.SIGKILL)
            return receipt

        StylizeBlock.__call__ = call  # type: ignore[method-assign]

    return install


def storm(tally: Tally, numbers: Iterable[int], seed: int, folder: Path) -> None:
    """Make the trials with these numbers."""
    names = list(KINDS)
    cases: dict[str, Case] = {}
    half: list[HalfJob] = []

    def of(number: int) -> tuple[str, str]:
        how = DAMAGES[number % len(DAMAGES)]
        return (
            (JOB, how)
            if number % JOB_EVERY == JOB_EVERY - 1
            else (names[number // len(DAMAGES) % len(names)], how)
        )

    def use(number: int) -> str:
        name, how = of(number)
        if name not in cases:
            where = folder / name.replace(" ", "-")
            shutil.rmtree(where, ignore_errors=True)
            where.mkdir()
            cases[name] = Case(KINDS[name], where)
        return cases[name].outcome(how, np.random.default_rng([seed, number]))

    numbers = iter(numbers)
    while batch := [number for number, _ in zip(numbers, range(1000), strict=False)]:
        for number, (outcome, details) in outcomes(
            use, [n for n in batch if of(n)[0] != JOB], folder / "log"
        ):
            tally.add(Trial(number, *of(number), outcome, details))
        for number in (n for n in batch if of(n)[0] == JOB):
            half = half or [HalfJob(clean(folder / "job"))]
            how = DAMAGES[number // JOB_EVERY % len(DAMAGES)]
            try:
                outcome, details = half[0].outcome(how, np.random.default_rng([seed, number])), ""
            except (AssertionError, TimeoutError) as error:
                outcome, details = f"{BROKEN}: a job", str(error)
            tally.add(Trial(number, JOB, how, outcome, details))


JOB = "folder of a killed job"
