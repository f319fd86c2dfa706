"""Conditional instance normalisation: a feed-forward network for N styles that differ only in their norms.

All convolutions are shared. A style is a row of gamma and a row of beta in each norm, 2 C numbers per layer.
A linear mixture of rows is a style in between. With a style chosen, this is the network of `fast`.

The checkpoint is one file, ``cin.safetensors``. For each layer of ``fast.LAYERS`` it holds tensors such as
``conv1.weight``, ``conv1.bias``, ``conv1.gamma`` (N, C) and ``conv1.beta`` (N, C); the last layer has no
norm. ``layout`` is the index in ``fast.RANGES``, from 0, of the range of the network's pixels. ``styles`` is
optional and gives the styles names: uint8, a JSON list of N words in UTF-8. `checkpoint` adds ``layout`` and
``styles``.

References
----------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017: the norm, and
   the combination of styles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.nets import fast
from urst_tiles.nets.base import State, StyleImages, shares
from urst_tiles.nets.fast import NORMED, RANGES, FastStyle
from urst_tiles.weights import check_keys

NAME, FILE = "cin", "cin.safetensors"
HALO, STRIDE, MINIMUM, restore = fast.HALO, fast.STRIDE, fast.MINIMUM, fast.restore
#: Key of the tensor in which the name of a style is passed to `build`: uint8, the name in UTF-8.
WORD = "cin.style"
LAYOUTS = list(RANGES)


def style_named(text: str) -> State:
    """A style's name, or its number counted from 1, in the form that ``build`` takes."""
    return {WORD: _letters(text)}


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> FastStyle:
    """A style from the state of ``FILE``; several styles are mixed by their gammas and betas [1].

    Raises
    ------
    BadInput : an image is given, or the checkpoint does not have the style; the message lists its styles.
    """
    state = states[FILE]
    names = names_of(state)
    share = torch.zeros(len(names), dtype=torch.float64)
    for style, weight in shares(styles):
        share[_row(style, names)] += weight
    weights = {key: t.float() for key, t in state.items() if key.endswith((".weight", ".bias"))}
    for key in (f"{name}.{part}" for name in NORMED for part in ("gamma", "beta")):
        weights[key] = (share @ state[key].double()).float()
    return FastStyle(weights, LAYOUTS[int(state["layout"])], alpha, NAME)


def names_of(state: State) -> list[str]:
    """The names of a checkpoint's styles in order; "1", "2", ... where it has no names."""
    if "styles" in state:
        return [str(name) for name in json.loads(_text(state["styles"]))]
    return [str(k) for k in range(1, len(state["conv1.gamma"]) + 1)]


def _row(style: NDArray[np.float32] | State, names: Sequence[str]) -> int:
    """The index of the style that is asked for. A name is tried before a number."""
    numbered = [str(k) for k in range(1, len(names) + 1)]
    known = ", ".join(
        name if name == number else f"{number} {name}" for number, name in zip(numbered, names, strict=True)
    )
    if not isinstance(style, Mapping) or WORD not in style:
        raise BadInput(f"--model cin takes no style image; give --style one of its own styles: {known}")
    word = _text(style[WORD])
    for words in (list(names), numbered):
        if word in words:
            return words.index(word)
    raise BadInput(f"--model cin has no style {word!r}; --style must be one of {known}, by name or by number")


# Checkpoints


def checkpoint(weights: State, layout: str, names: Sequence[str] = ()) -> State:
    """The state of a file ``FILE`` from the weights of the layers; ``layout`` is a key of ``fast.RANGES``."""
    state = {**weights, "layout": torch.tensor(LAYOUTS.index(layout))}
    return state | ({"styles": _letters(json.dumps(list(names)))} if names else {})


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys, shapes, layout or names."""
    check_keys({k: t for k, t in state.items() if k != "styles"}, shapes(state), path)
    count = len(state["conv1.gamma"])
    layout = state["layout"]
    if layout.is_floating_point() or not 0 <= int(layout) < len(LAYOUTS):
        allowed = ", ".join(f"{k} ({name})" for k, name in enumerate(LAYOUTS))
        raise BadWeights(f"{path}: layout is {layout.item()}, expected one of {allowed}")
    if not count:
        raise BadWeights(f"{path}: conv1.gamma has no row, so there is no style in it")
    if "styles" in state and not _names_are_good(state["styles"], count):
        raise BadWeights(f"{path}: styles must be a JSON list of {count} different words, as uint8 letters")


def _names_are_good(letters: Tensor, count: int) -> bool:
    """Whether the tensor holds ``count`` different words."""
    try:
        names = json.loads(_text(letters))
    except ValueError:
        return False
    words = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    return words and len(set(names)) == len(names) == count


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    """Name and shape of every required tensor, for as many styles and channels as conv1 has."""
    first, rows = state.get("conv1.bias"), state.get("conv1.gamma")
    width = 1.0 if first is None else first.numel() / fast.LAYERS["conv1"][1]
    count = 1 if rows is None or not rows.ndim else len(rows)
    keys: dict[str, tuple[int, ...]] = {"layout": ()}
    for name, (inputs, outputs, side) in fast.wide(width).items():
        keys |= {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}
        if name in NORMED:
            keys |= {f"{name}.{part}": (count, outputs) for part in ("gamma", "beta")}
    return keys


def _letters(text: str) -> Tensor:
    """``text`` in UTF-8 as uint8."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _text(letters: Tensor) -> str:
    """The inverse of `_letters`; raises ValueError for bytes that are no text."""
    return bytes(letters.to(torch.uint8).flatten().tolist()).decode()


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """The state of ``FILE`` with random weights and three styles, "dawn", "noon" and "night"; the first
    equals ``fast.seeded``."""
    random = np.random.default_rng([seed, 1])
    weights, layout = fast.read(fast.seeded(seed, width)[""], "the seeded checkpoint")
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
