"""Conditional instance normalisation: a feed-forward network for N styles that differ only in their norms.

All convolutions are shared. A style is a row of gamma and a row of beta in each norm, 2 C numbers per layer.
A linear mixture of rows is a style in between. With a style chosen, this is the network of `fast`.

The checkpoint is one file, ``cin.safetensors``. For each layer of ``fast_layouts.LAYERS`` it holds tensors
such as ``conv1.weight``, ``conv1.bias``, ``conv1.gamma`` (N, C) and ``conv1.beta`` (N, C); the last layer has
no norm. ``layout`` is the index in ``fast_layouts.LAYOUTS``, from 0. ``styles`` is
optional and gives the styles names: uint8, a JSON list of N words in UTF-8. `checkpoint` adds ``layout`` and
``styles``. The file may also be the one that Magenta published for phones, with the names that it had there
(`fast_layouts.read_magenta`).

References
----------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017: the norm, and
   the combination of styles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.nets import fast, fast_layouts
from urst_tiles.nets.base import State, StyleImages
from urst_tiles.nets.fast import FastStyle
from urst_tiles.nets.fast_layouts import NORMED
from urst_tiles.nets.style_rows import are_named, asked, encoded, mixture_of_rows, names_in, row_of
from urst_tiles.weights import check_keys

NAME, FILE = "cin", "cin.safetensors"
HALO, STRIDE, MINIMUM, restore = fast.HALO, fast.STRIDE, fast.MINIMUM, fast.restore
LAYOUTS = list(fast_layouts.LAYOUTS)


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> FastStyle:
    """A style from the state of ``FILE``; several styles are mixed by their gammas and betas [1].

    Raises
    ------
    BadInput : an image is given, or the checkpoint does not have the style; the message lists its styles.
    """
    state = ours(states[FILE], FILE)
    names = names_of(state)
    share = mixture_of_rows(styles, len(names), lambda style: _row(style, names))
    weights = {key: t.float() for key, t in state.items() if key.endswith((".weight", ".bias"))}
    for key in (key for key in state if key.endswith((".gamma", ".beta"))):
        weights[key] = (share @ state[key].double()).float()
    return FastStyle(weights, LAYOUTS[int(state["layout"])], alpha, NAME)


def names_of(state: State) -> list[str]:
    """The names of a checkpoint's styles in order; "1", "2", ... where it has no names."""
    if "styles" in state:
        return names_in(state["styles"])
    return [str(k) for k in range(1, len(state["conv1.gamma"]) + 1)]


def _row(style: NDArray[np.float32] | State, names: Sequence[str]) -> int:
    """The index of the style that is asked for."""
    known = ", ".join(name if name == str(k) else f"{k} {name}" for k, name in enumerate(names, 1))
    word = asked(style)
    if word is None:
        raise BadInput(f"--model cin takes no style image; give --style one of its own styles: {known}")
    row = row_of(word, names)
    if row is None:
        raise BadInput(
            f"--model cin has no style {word!r}; --style must be one of {known}, by name or by number"
        )
    return row


# Checkpoints


def checkpoint(weights: State, layout: str, names: Sequence[str] = ()) -> State:
    """The state of a file ``FILE`` from the weights of the layers; ``layout`` is a key of
    ``fast_layouts.LAYOUTS``."""
    state = {**weights, "layout": torch.tensor(LAYOUTS.index(layout))}
    return state | ({"styles": encoded(names)} if names else {})


def ours(state: State, path: Path | str) -> State:
    """The state of a file by the names of this module."""
    if "contract.0.w" not in state:
        return state
    return checkpoint(fast_layouts.read_magenta(state, path), "magenta")


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys, shapes, layout or names."""
    if "contract.0.w" in state:
        fast_layouts.read_magenta(state, path)
        return
    check_keys({k: t for k, t in state.items() if k != "styles"}, shapes(state), path)
    count = len(state["conv1.gamma"])
    layout = state["layout"]
    if layout.is_floating_point() or not 0 <= int(layout) < len(LAYOUTS):
        allowed = ", ".join(f"{k} ({name})" for k, name in enumerate(LAYOUTS))
        raise BadWeights(f"{path}: layout is {layout.item()}, expected one of {allowed}")
    if not count:
        raise BadWeights(f"{path}: conv1.gamma has no row, so there is no style in it")
    if "styles" in state and not are_named(state, count):
        raise BadWeights(f"{path}: styles must be a JSON list of {count} different words, as uint8 letters")


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    """Name and shape of every required tensor, for as many styles and channels as conv1 has."""
    rows = state.get("conv1.gamma")
    count = 1 if rows is None or not rows.ndim else len(rows)
    width = fast_layouts.width_of(state.get("conv1.bias"))
    keys: dict[str, tuple[int, ...]] = {"layout": ()}
    for name, (inputs, outputs, side) in fast_layouts.wide(width).items():
        keys |= {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}
        if name in NORMED:
            keys |= {f"{name}.{part}": (count, outputs) for part in ("gamma", "beta")}
    return keys


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """The state of ``FILE`` with random weights and three styles, "dawn", "noon" and "night"; the first
    equals ``fast.seeded``."""
    random = np.random.default_rng([seed, 1])
    weights, layout = fast_layouts.read(fast.seeded(seed, width)[""], "the seeded checkpoint")
    for name in NORMED:
        channels = len(weights[f"{name}.gamma"])
        others = {
            "gamma": random.uniform(0.5, 1.5, (2, channels)),
            "beta": random.normal(0, 0.3, (2, channels)),
        }
        for part, rows in others.items():
            first = weights[f"{name}.{part}"][None]
            weights[f"{name}.{part}"] = torch.cat([first, torch.from_numpy(rows.astype(np.float32))])
    return {FILE: checkpoint(weights, layout, ("dawn", "noon", "night"))}
