"""What a style changes in the weights that all styles share: for each convolution a matrix of low rank [1].

The change of a convolution with o outputs and i inputs is the sum over r components of the outer product of a
vector of its outputs and one of its inputs and taps. It is added to the weights before a style is frozen, so
a picture costs no more. A file holds, for a convolution ``NAME`` and S styles,

- ``change.NAME.out``, int8 (S, r, o), and ``change.NAME.in``, int8 (S, r, i, 3, 3), the vectors,
- ``change.NAME.exponent``, int8 (S, r): the outer product is to be multiplied by 2 to this power.

Products of such numbers and their sums are exact in float64, in whatever order they are added, so a style has
the same weights on every machine.

References
----------
1. E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from urst_tiles.nets.base import State

PREFIX = "change."
OUT, IN, EXPONENT = "out", "in", "exponent"
#: How many components the styles of the package have.
RANK = 16
#: The largest number in a vector, and the exponent of a component that is 0.
MOST, NOTHING = 127, -126
#: Components that are smaller than this share of the largest are 0.
LEAST = 1e-6


def key(name: str, part: str) -> str:
    """The name of a part of the change of the convolution ``name``."""
    return f"{PREFIX}{name}.{part}"


def is_change(name: str) -> bool:
    """Whether a tensor of this name is a part of a change."""
    return name.startswith(PREFIX)


def shapes(layers: Mapping[str, tuple[int, int]], rank: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of the tensors of one style; none of rank 0. ``layers`` has the numbers of outputs and
    inputs of each convolution."""
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in layers.items() if rank else ():
        parts = {OUT: (rank, outputs), IN: (rank, inputs, 3, 3), EXPONENT: (rank,)}
        wanted |= {key(name, part): shape for part, shape in parts.items()}
    return wanted


def rank_of(state: Mapping[str, Tensor]) -> int:
    """How many components the changes in a file have; 0 where it has none."""
    exponents = (t for k, t in state.items() if is_change(k) and k.endswith(f".{EXPONENT}"))
    return next((t.shape[-1] for t in exponents if t.ndim), 0)


def changes(state: Mapping[str, Tensor]) -> State:
    """Name of each weight that a style changes -> what is added to it, float64 (o, i, 3, 3)."""
    found = {}
    for exponents in (k for k in state if is_change(k) and k.endswith(f".{EXPONENT}")):
        name = exponents.removeprefix(PREFIX).removesuffix(f".{EXPONENT}")
        out, taps = (state[key(name, part)].double() for part in (OUT, IN))
        scaled = out * torch.exp2(state[exponents].double())[:, None]
        found[f"{name}.weight"] = (scaled.T @ taps.flatten(1)).unflatten(1, taps.shape[1:])
    return found


def largest(change: Tensor, rank: int = RANK) -> Tensor:
    """A change (o, i, 3, 3) with its largest components alone, in its own type."""
    u, size, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
    return (u[:, :rank] * size[:rank] @ v[:rank]).view_as(change)


def compressed(change: Tensor, name: str, rank: int = RANK) -> State:
    """The tensors of a change (o, i, 3, 3) of the convolution ``name``, cut to so many components: those of
    its singular value decomposition with the largest values."""
    u, size, v = torch.linalg.svd(change.double().flatten(1), full_matrices=False)
    out = torch.zeros(rank, len(change), dtype=torch.int8)
    taps = torch.zeros(rank, *change.shape[1:], dtype=torch.int8)
    exponents = torch.full((rank,), NOTHING, dtype=torch.int8)
    for k in (size > LEAST * size[0]).nonzero().flatten().tolist()[:rank]:
        left, right = size[k] * u[:, k], v[k]
        most = left.abs().max() * right.abs().max() / MOST**2
        exponent = exponent_for(most)
        unit = MOST / left.abs().max()
        out[k] = (left * unit).round().to(torch.int8)
        taps[k] = (right / (unit * torch.exp2(exponent))).round().to(torch.int8).view(taps.shape[1:])
        exponents[k] = exponent.to(torch.int8)
    return {key(name, OUT): out, key(name, IN): taps, key(name, EXPONENT): exponents}


def exponent_for(unit: Tensor) -> Tensor:
    """The least whole number, from `NOTHING` to `MOST`, so that 2 to this power is at least ``unit``."""
    return unit.log2().ceil().clamp(NOTHING, MOST)


def widened(state: Mapping[str, Tensor], layers: Mapping[str, tuple[int, int]], rank: int) -> State:
    """The changes of S styles or of one in ``state``, with so many components, at least as many as they have:
    those that are added are 0. Where there are no changes of ``layers``, they are those of one style."""
    wanted = shapes(layers, rank)
    made = {k: torch.zeros(shape, dtype=torch.int8) for k, shape in wanted.items()}
    for k, t in made.items():
        if k.endswith(f".{EXPONENT}"):
            t.fill_(NOTHING)
        if k in state:
            old, before = state[k], state[k].shape[: state[k].ndim - t.ndim]
            axis = len(before)
            made[k] = t.expand(*before, *t.shape).clone()
            made[k].narrow(axis, 0, old.shape[axis]).copy_(old)
    return made


def seeded(layers: Mapping[str, tuple[int, int]], styles: int, seed: int) -> State:
    """Random changes of rank 2 of all styles, a tenth as large as weights that keep the signal alive."""
    random = np.random.default_rng([seed, 1])
    state = {}
    for k, shape in shapes(layers, 2).items():
        values = random.integers(-MOST, MOST + 1, (styles, *shape))
        if k.endswith(f".{EXPONENT}"):
            inputs = layers[k.removeprefix(PREFIX).removesuffix(f".{EXPONENT}")][1]
            values[:] = round(np.log2(0.1 * (2 / (9 * inputs)) ** 0.5 / (MOST**2 / 3)))
        state[k] = torch.from_numpy(values.astype(np.int8))
    return state
