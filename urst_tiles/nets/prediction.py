"""The painter's style of an image that nothing has learned, predicted from the image's statistics.

The named styles are examples, and ridge regression makes a first guess of it, a mixture of them
(`urst_tiles.nets.likeness`). A small network with one hidden layer adds what the guess lacks. It was trained
on many paintings, with the painter and the loss network behind it [1]. Of the 652 statistics it makes shares
of the named styles, which are added to those of the mixture: one set of shares for the affine parameters, and
one for what the styles change in the weights of each convolution. It also makes affine parameters, which are
added to those of the mixture. What is changed in the weights besides is the same for all predicted styles,
and was learned with them.

A file of the painter may hold, for S styles of P affine parameters, G sets of shares and a hidden layer of H
values,

- ``prediction.center`` and ``prediction.deviation``, (652,), of the statistics of the paintings,
- ``prediction.hidden.weight`` (H, 652), ``prediction.hidden.bias`` (H,),
- ``prediction.share.weight`` (G, S, H), ``prediction.share.bias`` (G, S),
- ``prediction.row.weight`` (P, H), ``prediction.row.bias`` (P,),
- ``prediction.change.NAME.weight``, int8 (o, i, 3, 3), and ``prediction.exponent.NAME.weight``, int8 (o,),
  for each convolution ``NAME``: what is added to the weights of each output is to be multiplied by 2 to this
  power; and ``prediction.change.NAME.bias`` (o,).

Reference
---------
1. G. Ghiasi et al., "Exploring the structure of a real-time, arbitrary neural artistic stylization network",
   BMVC 2017: affine parameters are predicted from the painting, and all is trained by the loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.nets.base import State
from urst_tiles.nets.low_rank import MOST, exponent_for

PREFIX = "prediction."
CENTER, DEVIATION, CHANGE = f"{PREFIX}center", f"{PREFIX}deviation", f"{PREFIX}change."
EXPONENT = f"{PREFIX}exponent."
#: Values of the hidden layer.
HIDDEN = 128
#: Statistics that lie farther from their mean than so many deviations are taken for that far.
FARTHEST = 4.0
#: Numbers of the statistics of an image (`urst_tiles.nets.likeness`).
STATISTICS = 652


def is_part(name: str) -> bool:
    """Whether a tensor of this name belongs to a prediction."""
    return name.startswith(PREFIX)


def is_in(state: Mapping[str, Tensor]) -> bool:
    """Whether a file of the painter has one."""
    return CENTER in state


def hidden_of(state: Mapping[str, Tensor]) -> int:
    """The number of values of the hidden layer of a prediction."""
    bias = state.get(f"{PREFIX}hidden.bias")
    return 0 if bias is None else bias.numel()


def shapes(
    styles: int, parameters: int, weights: Mapping[str, tuple[int, ...]], hidden: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a prediction.

    Parameters
    ----------
    styles, parameters : how many named styles there are, and affine parameters in each.
    weights : the shapes of the tensors that all styles share, by name.
    hidden : values of the hidden layer.
    """
    wanted: dict[str, tuple[int, ...]] = {CENTER: (STATISTICS,), DEVIATION: (STATISTICS,)}
    sets = 1 + sum(k.endswith(".weight") for k in weights)
    outputs = {"hidden": (hidden,), "share": (sets, styles), "row": (parameters,)}
    for layer, shape in outputs.items():
        inputs = STATISTICS if layer == "hidden" else hidden
        wanted |= {f"{PREFIX}{layer}.weight": (*shape, inputs), f"{PREFIX}{layer}.bias": shape}
    wanted |= {f"{CHANGE}{k}": shape for k, shape in weights.items()}
    return wanted | {f"{EXPONENT}{k}": shape[:1] for k, shape in weights.items() if len(shape) > 1}


def predict(state: Mapping[str, Tensor], statistics: Tensor) -> tuple[Tensor, Tensor]:
    """The shares (n, G, S) of the named styles and the affine parameters (n, P) to add to those of the
    mixture, for the statistics (n, 652) of images, in their type."""

    def layer(name: str, x: Tensor) -> Tensor:
        weight, bias = (state[f"{PREFIX}{name}.{part}"].to(x) for part in ("weight", "bias"))
        return F.linear(x, weight.flatten(0, -2), bias.flatten()).view(len(x), *bias.shape)

    own = (statistics - state[CENTER].to(statistics)) / state[DEVIATION].to(statistics)
    h = F.relu(layer("hidden", own.clamp(-FARTHEST, FARTHEST)))
    return layer("share", h), layer("row", h)


def changes(state: Mapping[str, Tensor]) -> State:
    """What every predicted style adds to the tensors that all styles share, float64, by name."""
    found = {k.removeprefix(CHANGE): t.double() for k, t in state.items() if k.startswith(CHANGE)}
    powers = {k: torch.exp2(state[EXPONENT + k].double()) for k in found if EXPONENT + k in state}
    return {k: t * powers[k].view(-1, 1, 1, 1) if k in powers else t for k, t in found.items()}


def compressed(changes: Mapping[str, Tensor]) -> State:
    """The tensors of a file that hold these changes, float, by name: weights in int8, biases in float16.
    The largest number of an output lies between 64 and 127, so an error is at most a 128th of it."""
    made = State()
    for k, change in changes.items():
        if change.ndim == 1:
            made[CHANGE + k] = change.to(torch.float16)
            continue
        exponent = exponent_for(change.abs().flatten(1).amax(1).double() / MOST)
        power = torch.exp2(exponent).view(-1, 1, 1, 1)
        made[CHANGE + k] = (change.double() / power).round().to(torch.int8)
        made[EXPONENT + k] = exponent.to(torch.int8)
    return made


def split(row: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Affine parameters (P,), one tensor after the other, as tensors of those names and shapes."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = row.split(sizes)
    return {k: part.view(shape) for (k, shape), part in zip(shapes.items(), parts, strict=True)}
