"""States: the tensors of a network's files, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from urst_tiles import weights
from urst_tiles.errors import BadWeights
from urst_tiles.learning.checkpoint import State


def tensors_of(path: Path) -> State:
    """The tensors of a file, on top or, as Collaborative Distillation has them, under "model"."""
    try:
        return weights.load(path)
    except BadWeights:
        return weights.load(path, "model")


def split(key: str) -> tuple[str, str]:
    """("conv41", "weight") of "conv41.weight"."""
    layer, _, part = key.rpartition(".")
    return layer, part


def uniform(shapes: Mapping[str, tuple[int, ...]], seed: int) -> State:
    """Random weights and biases within 1 / sqrt(inputs of a sum), as torch starts convolutions."""
    random = torch.Generator().manual_seed(seed)
    bounds = {k: float(np.prod(shapes[f"{split(k)[0]}.weight"][1:])) ** -0.5 for k in shapes}
    return {k: bounds[k] * (2 * torch.rand(shape, generator=random) - 1) for k, shape in shapes.items()}


def as_file(state: Mapping[str, Tensor]) -> State:
    """float32 on the CPU, each in memory of its own: as a file shall have it."""
    kept = torch.contiguous_format
    return {k: t.detach().cpu().float().clone(memory_format=kept) for k, t in state.items()}
