"""The loop of every training: objective, step, now and then a sheet of samples, the weights, a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.settings import Common
from urst_tiles.learning.checkpoint import Training
from urst_tiles.source.picture import write_png
from urst_tiles.storage.publish import make_folder, publish

#: The losses of one step, with "step", "seconds" of this call, and "total".
Row = dict[str, float]
CHECKPOINT = "checkpoint.pt"
SAMPLES = "samples.png"


@dataclass(frozen=True)
class Times:
    """Limits by the clock, beside those by steps; 0: none.

    Attributes
    ----------
    minutes : that the steps of all calls together may take.
    save_minutes : from one checkpoint to the next.
    """

    minutes: float = 0.0
    save_minutes: float = 0.0

    @property
    def matter(self) -> bool:
        """Whether there is a limit."""
        return bool(self.minutes or self.save_minutes)

    def over(self, seconds: float) -> bool:
        """Whether the training has had its time."""
        return bool(self.minutes) and seconds >= 60 * self.minutes

    def left(self, seconds: float) -> float:
        """The share of the time that is left after so many seconds; 1 without a limit."""
        return max(0.0, 1 - seconds / (60 * self.minutes)) if self.minutes else 1.0

    def due(self, seconds: float) -> bool:
        """Whether a checkpoint is due so long after the last one."""
        return bool(self.save_minutes) and seconds >= 60 * self.save_minutes


#: No limit.
ENDLESS = Times()


class Timed(Common, Protocol):
    """Settings with limits by the clock, of a training whose rate rises and falls."""

    @property
    def minutes(self) -> float:
        """Of all calls together; 0: no limit."""

    @property
    def save_minutes(self) -> float:
        """From one checkpoint to the next; 0: by steps alone."""

    @property
    def warmup(self) -> int:
        """The steps over which the rate rises."""

    @property
    def cooldown(self) -> float:
        """The share of the training over which it falls."""


def times_of(settings: Timed) -> Times:
    """The limits by the clock that the settings name."""
    return Times(settings.minutes, settings.save_minutes)


class Recipe(Protocol):
    """What one program trains, and how."""

    @property
    def training(self) -> Training:
        """At its first step; the loop takes up the checkpoint."""

    def objective(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a new batch, and its parts, unweighted, each one number; draws from
        ``training.random`` alone."""

    def share_of_rate(self, step: int) -> float:
        """By which the base rates are multiplied in ``step``, counted from 0."""

    def export(self) -> Mapping[str, bytes]:
        """File name and content of the weights, as the family's own files are."""

    def samples(self) -> NDArray[np.uint8]:
        """A sheet (h, w, 3) that shows how far it is."""


def run(recipe: Recipe, settings: Common, times: Times = ENDLESS) -> Iterator[Row]:
    """Train, from the checkpoint in ``out`` if there is one, yielding each step's losses.

    The weights are written before the checkpoint, so that a training which stands at its end has both.
    """
    make_folder(settings.out)
    training, started = recipe.training, time.perf_counter()
    if times.matter:
        training.memory.setdefault("seconds", torch.zeros((), dtype=torch.float64))
    if (settings.out / CHECKPOINT).exists():
        training.load(settings.out / CHECKPOINT)
    before = saved = training.seconds
    while training.step < settings.steps and not times.over(training.seconds):
        total, parts = recipe.objective()
        training.advance(total, recipe.share_of_rate(training.step), settings.clip)
        found = {name: part.item() for name, part in parts.items()}
        seconds = time.perf_counter() - started
        if times.matter:
            training.memory["seconds"].fill_(before + seconds)
        yield {"step": training.step, "seconds": round(seconds, 1), "total": total.item(), **found}
        last = training.step == settings.steps or times.over(training.seconds)
        if keep(recipe, settings, last, times.due(training.seconds - saved)):
            saved = training.seconds


def keep(recipe: Recipe, settings: Common, last: bool, due: bool) -> bool:
    """Write what is due after this step, which may be the last, or by the clock; returns whether there was a
    checkpoint."""
    step = recipe.training.step
    if last or step % settings.sample_every == 0:
        write_png(settings.out / SAMPLES, recipe.samples())
    saves = last or due or step % settings.save_every == 0
    if saves:
        for name, content in recipe.export().items():
            publish(settings.out / name, content)
        recipe.training.save(settings.out / CHECKPOINT)
    return saves


def warm_and_cool(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """Rises linearly to 1, stays, falls linearly to 0 over the last ``cooldown`` steps."""
    return min(1.0, (step + 1) / max(1, warmup), (steps - step) / max(1, cooldown))


def rise_and_fall(settings: Timed, training: Training, step: int, lowest: float) -> float:
    """Rises linearly to 1 over ``warmup`` steps, and falls to ``lowest`` over the last part, a share
    ``cooldown``, of the steps or of the minutes, whichever there are fewer of."""
    left = min(1 - step / settings.steps, times_of(settings).left(training.seconds))
    falling = min(1.0, left / settings.cooldown) if settings.cooldown else 1.0
    return min(1.0, (step + 1) / max(1, settings.warmup)) * (lowest + (1 - lowest) * falling)


def inverse_decay(step: int, decay: float) -> float:
    """1 / (1 + decay step): the schedule of the AdaIN and SANet authors' programs."""
    return 1 / (1 + decay * step)
