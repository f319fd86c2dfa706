"""Learning one painting: a style's affine parameters and its changes of the weights follow the loss.

A style of the painter is a row of 4368 affine parameters [1] and, for each convolution, a change of low rank
of its weights [2]. Both begin as those of a style that is near, such as the one that is predicted of the
painting, and follow Adam on crops of some pictures. The weights follow their gradients freely; every few
steps what changed is cut to its largest components, so that what is learned is what is kept. The rate falls
with the number of steps alone, and the result is a running average, so that it does not matter when the
learning ends: as many steps give the same style again, whether they were told by their number or by the
clock.

References
----------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017: a trained
   network learns a new style by the parameters of its instance norms alone (section 3.4).
2. E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import Training, plain, trainable
from urst_tiles.learning.crops import ManyPictures, drawn
from urst_tiles.learning.objective import Batch, LossWeights, compared
from urst_tiles.learning.painting import random_origins
from urst_tiles.learning.paintings import Paintings, Teacher
from urst_tiles.nets import low_rank, style_file
from urst_tiles.nets.base import State
from urst_tiles.nets.painter_styles import (
    AGAIN,
    COARSEST,
    COLOURS,
    PER_STYLE,
    convolutions,
    form_of,
    kinds_of,
)

#: Side in pixels and number of the crops of a step, and the most levels that they are painted on.
SIZE, BATCH, LEVELS = 512, 1, 3
#: Adam's rate of the affine parameters and of the weights, in the beginning; the steps over which it rises,
#: and after which it has fallen to 0.7 of that.
RATE, WEIGHT_RATE, WARMUP, SLOWER = 0.02, 0.002, 10, 100
#: After so many steps what changed in the weights is cut to `low_rank.RANK` components.
CUT = 4
#: How strong the strokes of the second pass over the coarsest level are at first, as a share of those of the
#: first, where a style of before has none.
FAINT = 0.3
#: What the running average keeps of itself in each step, and the longest gradient that is followed.
KEEP, LONGEST = 0.97, 5.0
#: By how much the distance that is told follows that of each step.
FOLLOW = 0.05
#: What goes on with a checkpoint that cannot be used.
REMEDY = "remove it, or give another -o"
#: A piece of the learning's identity in its checkpoint: SHA-256.
IDENTITY = "identity"


@dataclass
class OneStyle:
    """The learning of one style.

    Attributes
    ----------
    network : the weights that all styles share, float32, by name.
    teacher, paintings : the loss network, and the one painting's statistics by it.
    pictures : what is painted in the style.
    training : the parameters at their present step; its seed is that of the noise, too.
    dtype : the type in which the network computes.
    """

    network: State
    teacher: Teacher
    paintings: Paintings
    pictures: ManyPictures
    training: Training
    dtype: torch.dtype

    def step(self, share: float | None = None) -> None:
        """One step down the gradient, of crops that are drawn at random; at a share of the rate, or at
        `share_of_rate`."""
        started, training = time.perf_counter(), self.training
        total, distance = self._loss()
        training.advance(total, share_of_rate(training.step) if share is None else share, LONGEST)
        if training.step % CUT == 0:
            self._cut()
        told = training.memory["distance"]
        if training.step == 1:
            training.memory["first"].copy_(distance)
            told.copy_(distance)
        told.lerp_(distance, FOLLOW)
        training.memory["seconds"] += time.perf_counter() - started

    @torch.no_grad()
    def _cut(self) -> None:
        """Leave the largest components of what changed in the weights."""
        for name in convolutions(form_of(self.network)):
            leaf, shared = self.training.leaves[f"{name}.weight"], self.network[f"{name}.weight"]
            leaf.copy_(shared + low_rank.largest(leaf - shared))

    def _loss(self) -> tuple[Tensor, Tensor]:
        """The loss of new crops, and the mean distance of a layer from the painting, float64."""
        random = self.training.random
        levels = int(random.integers(1, LEVELS + 1))
        x = drawn(self.pictures, SIZE, BATCH, random, "cpu")
        origins = random_origins(LEVELS, BATCH, random)
        batch = Batch(x, torch.zeros(BATCH, dtype=torch.int64), levels, origins)
        state = {**self.network, **self.training.leaves}
        seed, dtype = self.training.seed, self.dtype
        total, _, far = compared(
            state, batch, self.teacher, self.paintings, LossWeights(), seed=seed, dtype=dtype
        )
        return total, far.mean().double()

    @property
    def row(self) -> State:
        """The style as it is now, the running average: its affine parameters in float16, as in the network's
        own file, and its changes of the weights."""
        average = self.training.average
        row = {k: average[k][0].to(torch.float16) for k in PER_STYLE}
        for name in convolutions(form_of(self.network)):
            change = average[f"{name}.weight"] - self.network[f"{name}.weight"]
            row |= low_rank.compressed(change, name)
        return row

    @property
    def distances(self) -> tuple[float, float]:
        """The distance from the painting in the first step, and about now."""
        return float(self.training.memory["first"]), float(self.training.memory["distance"])


def begun(
    network: Mapping[str, Tensor],
    style: Mapping[str, Tensor],
    seed: int,
    identity: bytes,
    rates: tuple[float, float] = (RATE, WEIGHT_RATE),
) -> Training:
    """The training of a style at its first step.

    Parameters
    ----------
    network : the weights that all styles share.
    style : the style to begin with, as `urst_tiles.nets.painter_styles.one_style` gives it.
    seed : of the crops.
    identity : 32 bytes by which a checkpoint is known to be of the same learning.
    rates : of the affine parameters and of the weights.
    """
    names = [f"{name}.weight" for name in convolutions(form_of(network))]
    start = {k: t[None] for k, t in painting_twice(style).items()}
    start |= {k: (network[k].double() + style.get(k, 0.0)).float() for k in names}
    leaves = trainable(start, "cpu")
    parts = [leaves[k] for k in PER_STYLE], [leaves[k] for k in names]
    groups = [{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True)]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    memory = {name: torch.zeros((), dtype=torch.float64) for name in ("seconds", "first", "distance")}
    memory[IDENTITY] = torch.frombuffer(bytearray(identity), dtype=torch.uint8)
    return Training(leaves, [adam], seed, start, KEEP, memory)


def painting_twice(style: Mapping[str, Tensor]) -> State:
    """The affine parameters of a style, float32, with those of the second pass over the coarsest level: those
    of the first where a style of before has none, with fainter strokes."""
    rows = {k: style[k].float() for k in PER_STYLE}
    if kinds_of(rows) > AGAIN:
        return rows
    faint = {k: FAINT if k.startswith("half") else 1.0 for k in rows}
    return {k: torch.cat([t, faint[k] * t[COARSEST, None]]) for k, t in rows.items()}


def take_up(training: Training, checkpoint: Path) -> None:
    """Go on from a checkpoint, if there is one.

    Raises
    ------
    BadInput : it is of another learning. BadWeights : it is damaged.
    """
    if not checkpoint.exists():
        return
    memory = plain(checkpoint, REMEDY).get("memory")
    there = memory.get(IDENTITY) if isinstance(memory, dict) else None
    if not isinstance(there, Tensor) or not torch.equal(there, training.memory[IDENTITY]):
        raise BadInput(
            f"{checkpoint} was left by the learning of another painting, or with another seed, content,"
            f" teacher or network: {REMEDY}"
        )
    training.load(checkpoint, REMEDY)


def share_of_rate(step: int) -> float:
    """By which the rate is multiplied in ``step``, counted from 0."""
    return float(min(1.0, (step + 1) / WARMUP) / np.sqrt(1 + step / SLOWER))


def to_bytes(learning: OneStyle, model: str, network: str, facts: Mapping[str, Any]) -> bytes:
    """The content of the style file: the style, and the painting's colours.
    ``facts`` are what it says besides what was learned."""
    row, paintings = learning.row, learning.paintings
    for name, values in zip(COLOURS, paintings.colours(), strict=True):
        row[name] = torch.from_numpy(np.array(values[0], np.float32))
    distances = [round(value, 4) for value in learning.distances]
    more = {**facts, "steps": learning.training.step, "distances": distances}
    return style_file.to_bytes(row, model, network, more)
