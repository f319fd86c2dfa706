"""Styles that are rows of a network's own weights, each with a name: chosen by name or number, and mixed.

A file of such weights holds the names as the tensor ``styles``: uint8, a JSON list of words in UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.nets.base import State, StyleImages, shares

#: Key of the tensor in which the name of a style is passed to a family's ``build``.
WORD = "style.name"


def style_named(text: str) -> State:
    """A style's name, or its number counted from 1, in the form that a family's ``build`` takes."""
    return {WORD: letters(text)}


def letters(text: str) -> Tensor:
    """``text`` in UTF-8 as uint8."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def text_of(values: Tensor) -> str:
    """The inverse of `letters`; raises ValueError for bytes that are no text."""
    return bytes(values.to(torch.uint8).flatten().tolist()).decode()


def encoded(names: Sequence[str]) -> Tensor:
    """Names in the form in which a file holds them."""
    return letters(json.dumps(list(names)))


def names_in(values: Tensor) -> list[str]:
    """The words in the tensor ``styles``; raises ValueError if they are no list of different words."""
    names = json.loads(text_of(values))
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("no list of words")
    if len(set(names)) < len(names):
        raise ValueError("a word stands twice")
    return names


def are_named(state: Mapping[str, Tensor], count: int) -> bool:
    """Whether ``state`` has the names of ``count`` styles."""
    try:
        return len(names_in(state["styles"])) == count
    except (KeyError, ValueError):
        return False


def asked(style: NDArray[np.float32] | State) -> str | None:
    """The name or number that is asked for; None if a style image is given."""
    return text_of(style[WORD]) if isinstance(style, Mapping) and WORD in style else None


def row_of(word: str, names: Sequence[str]) -> int | None:
    """The row of the style with this name or number; names come before numbers. None for neither."""
    for words in (list(names), [str(k) for k in range(1, len(names) + 1)]):
        if word in words:
            return words.index(word)
    return None


def mixture_of_rows(
    styles: StyleImages, count: int, row: Callable[[NDArray[np.float32] | State], int]
) -> Tensor:
    """The share of each of ``count`` rows in a mixture, float64; ``row`` gives the row of a style.

    Raises
    ------
    BadInput : as `shares`.
    """
    share = torch.zeros(count, dtype=torch.float64)
    for style, weight in shares(styles):
        share[row(style)] += weight
    return share
