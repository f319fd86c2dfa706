"""The styles of the painter in its file: how they are found, mixed and predicted, and what is a style's own.

A style is a row of affine parameters of each kind (`COARSEST`, `FINER`, `AGAIN`), its changes of the weights
(`urst_tiles.nets.low_rank`), and the colours of its painting. All else is shared. `urst_tiles.nets.painter`
is the network.

Reference
---------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017: a style is a
   row of affine parameters, and styles are mixed by their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.moments import Moments
from urst_tiles.nets import likeness, low_rank, prediction, tones
from urst_tiles.nets.base import State, digest
from urst_tiles.nets.low_rank import is_change
from urst_tiles.nets.style_file import NETWORK, row_in
from urst_tiles.nets.style_rows import asked, row_of

#: Pixels of a cell's side: nothing works at full resolution but the last convolution.
STRIDE = 4
#: Variances are sums of squares divided by n - DDOF.
DDOF = 1
#: The rows of a style's affine parameters: for the coarsest level, for finer ones, and for the coarsest when
#: it is painted again. Styles of before have the first two, and paint the coarsest level once.
COARSEST, FINER, AGAIN = 0, 1, 2
#: Tensors with a row for each style and, in it, one for each of these kinds.
PER_STYLE = ("gamma", "beta", "half_gamma", "half_beta")
#: The mean (S, 3) and covariance (S, 3, 3) of the colours of the paintings, and the skewness (S,) of their
#: luminance.
COLOURS = ("colour.mean", "colour.covariance", "colour.skewness")
#: What files of before do not have: their tones were not bent.
EVEN = {COLOURS[2]: torch.zeros(())}


# What a file holds


@dataclass(frozen=True)
class Form:
    """How large the network is: channels of the trunk, its residual blocks, channels at half resolution; and
    how many kinds of rows its styles have, 3, or of before 2."""

    channels: int = 64
    blocks: int = 5
    half: int = 24
    kinds: int = 3


def convolutions(form: Form) -> dict[str, tuple[int, int]]:
    """Name of each convolution -> its numbers of outputs and inputs."""
    c = form.channels
    layers = {"enter": (c, 7 * STRIDE**2), "mid": (form.half, c + 24), "full": (3, form.half)}
    return layers | {f"{branch}.{k}": (c, c) for branch in "ab" for k in range(form.blocks)}


def shared_names(form: Form) -> list[str]:
    """The names of the tensors that all styles share."""
    return [f"{name}.{part}" for name in convolutions(form) for part in ("weight", "bias")]


def shapes(styles: int, form: Form, rank: int = 0) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of ``FILE``, apart from the names of the styles, whose changes of the
    weights have that ``rank``."""
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in convolutions(form).items():
        wanted |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    wanted |= dict.fromkeys(PER_STYLE[:2], (styles, form.kinds, 2 * form.blocks + 1, form.channels))
    wanted |= dict.fromkeys(PER_STYLE[2:], (styles, form.kinds, form.half))
    changes = low_rank.shapes(convolutions(form), rank)
    wanted |= {k: (styles, *shape) for k, shape in changes.items()}
    return wanted | dict(zip(COLOURS, ((styles, 3), (styles, 3, 3), (styles,)), strict=True))


def form_of(state: Mapping[str, Tensor]) -> Form:
    """How large the network of these tensors is, as far as they tell."""
    blocks = sum(k.startswith("a.") and k.endswith(".weight") for k in state)
    channels, half = (state[k].numel() if k in state else 0 for k in ("enter.bias", "mid.bias"))
    return Form(channels, blocks, half, kinds_of(state))


def kinds_of(state: Mapping[str, Tensor]) -> int:
    """How many kinds of rows the styles of a file, or one style, have; as many as today's where none is
    told."""
    rows = state.get(PER_STYLE[2])
    return rows.shape[-2] if rows is not None and rows.ndim > 1 and rows.shape[-2] in (2, 3) else Form.kinds


def prediction_shapes(styles: int, form: Form, hidden: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a prediction with so many values in its hidden layer."""
    parameters = sum(math.prod(shape) for shape in affine_shapes(form).values())
    wanted = shapes(styles, form)
    return prediction.shapes(styles, parameters, {k: wanted[k] for k in shared_names(form)}, hidden)


def row_shapes(form: Form, rank: int = 0) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of one style, whose changes of the weights have that rank."""
    return {k: shape[1:] for k, shape in shapes(1, form, rank).items() if is_own(k)}


def affine_shapes(form: Form) -> dict[str, tuple[int, ...]]:
    """Name and shape of the affine parameters of one style."""
    return {k: shape for k, shape in row_shapes(form).items() if k in PER_STYLE}


def is_own(name: str) -> bool:
    """Whether each style has a tensor of this name of its own."""
    return name in (*PER_STYLE, *COLOURS) or is_change(name)


def set_of(form: Form) -> dict[str, int]:
    """Name of the weight of each convolution -> which set of shares its changes are mixed by; all else of a
    style is mixed by set 0."""
    return {f"{name}.weight": 1 + k for k, name in enumerate(convolutions(form))}


def shared_weights(state: State) -> State:
    """The weights that all styles of a file share, float32."""
    return {k: state[k].float() for k in shared_names(form_of(state))}


def network_of(state: State) -> str:
    """The fingerprint of the weights that all styles of a file share: that of a style file must be the
    same."""
    return digest(shared_weights(state), {})


# Styles


def one_style(style: NDArray[np.float32] | State, state: State, names: list[str]) -> State:
    """What is a style's own, float64: its tensors of `PER_STYLE` and `COLOURS`, and under the names of the
    weights what is added to them."""
    if not isinstance(style, Mapping):
        return predicted(style, state, names)
    if NETWORK in style:
        form = replace(form_of(state), kinds=min(kinds_of(state), kinds_of(style)))
        wanted = row_shapes(form, low_rank.rank_of(style))
        row = row_in(EVEN | dict(style), network_of(state), wanted)
        return as_added(row)
    return style_in(state, row_number(style, names))


def style_in(state: State, number: int) -> State:
    """The style in that row of a file, as `one_style` gives it."""
    return as_added({k: t[number].double() for k, t in state.items() if is_own(k)})


def as_added(row: State) -> State:
    """The tensors of a style, with its changes of the weights multiplied out."""
    return {k: t for k, t in row.items() if not is_change(k)} | low_rank.changes(row)


def row_number(style: State, names: list[str]) -> int:
    """The index of the style that is asked for."""
    word = asked(style) or ""
    row = row_of(word, names)
    if row is None:
        known = ", ".join(names)
        raise BadInput(
            f"--model painter has no style {word!r}; --style must be one of {known}, an image, or a file that"
            " `urst-tiles learn` made"
        )
    return row


def mixture(state: State, share: NDArray[np.float64]) -> State:
    """The sum of the styles of a file, each times its ``share``, as `one_style` gives it: (S,), or one set of
    shares for all that is a style's own, but for what it changes in the weights, and a further one for each
    convolution, (G, S)."""
    changed = set_of(form_of(state))
    sets = np.broadcast_to(share, (1 + len(changed), share.shape[-1]))
    total = State()
    for number in np.flatnonzero(sets.any(0)):
        for k, t in style_in(state, int(number)).items():
            total[k] = total.get(k, 0.0) + float(sets[changed.get(k, 0), number]) * t
    return total


def weighted_sum(parts: Iterable[tuple[State, float]]) -> State:
    """The sum of styles, as `one_style` gives them, each times its share; what a style has not counts as
    0."""
    total = State()
    for style, share in parts:
        for k, t in style.items():
            total[k] = total.get(k, 0.0) + share * t
    return total


def of_equal_kinds(styles: Sequence[State]) -> list[State]:
    """Styles without the kinds of rows that one of them does not have."""
    least = min(map(kinds_of, styles), default=0)
    return [{k: t[:least] if k in PER_STYLE else t for k, t in style.items()} for style in styles]


def predicted(image: NDArray[np.float32], state: State, names: list[str]) -> State:
    """The style, as `one_style` gives it, that is to paint as an image (h, w, 3) in 0..1 was painted.

    It is a mixture of the styles in the file and, where the file has a prediction, what that adds to it
    (`urst_tiles.nets.prediction`); the colours are the image's own.

    Raises
    ------
    BadInput : the styles in the file are none of the package's, so that nothing is known of them.
    """
    share, row = predicted_shares(image, state, names)
    if share is None:
        raise BadInput(
            "these weights of --model painter have styles of their own, from which no image's can be"
            f" predicted; give --style one of {', '.join(names)}, or a file that `urst-tiles learn` made"
        )
    style = weighted_sum([(mixture(state, share), 1.0), (row | prediction.changes(state), 1.0)])
    colours = Moments.of(image.reshape(-1, 3).T, full=True)
    values = (colours.mean, colours.covariance(DDOF), tones.skewness(image))
    return style | {k: torch.from_numpy(np.array(t)) for k, t in zip(COLOURS, values, strict=True)}


def predicted_shares(
    image: NDArray[np.float32], state: State, names: list[str]
) -> tuple[NDArray[np.float64] | None, State]:
    """The share of each style of a file, as `mixture` takes it, in what is predicted of an image (h, w, 3) in
    0..1, None where none of them is a named style; and what is added to their mixture, float64, none without
    a prediction."""
    statistics = likeness.statistics(image)
    share = likeness.shares(statistics, names)
    if share is None or not prediction.is_in(state):
        return share, {}
    more, row = prediction.predict(state, statistics[None])
    return share + more[0].numpy(), prediction.split(row[0], affine_shapes(form_of(state)))
