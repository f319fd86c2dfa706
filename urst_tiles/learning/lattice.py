"""Whether the strokes of a picture sit on the lattice of the network's cells.

The painter computes on cells of 4 x 4 pixels, and nothing in a Gram matrix says where a stroke lies: dots and
short lines that repeat with the cells, or lie along them, match it as well as strokes that run free. The eye
sees them at once, as a weave. In a painting it makes no difference to the features at which place of a cell
they are taken. So their Gram matrices are taken at each place by itself, and are to be equal.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from urst_tiles.learning.paintings import CLAMP
from urst_tiles.nets.painter_styles import STRIDE

#: What is added below the root, whose slope is endless at 0.
LEAST = 1e-5


def grams_by_place(features: Tensor, side: int) -> Tensor:
    """(n, C, h, w) -> (n, side^2, C, C) float32: Gram matrices of the features at each place of cells of
    ``side`` x ``side``; what is left over at the right and at the bottom is not seen."""
    n, c, h, w = features.shape
    rows, columns = h // side, w // side
    cells = features[:, :, : rows * side, : columns * side].permute(0, 2, 3, 1)
    cells = cells.reshape(n, rows, side, columns, side, c).permute(0, 2, 4, 1, 3, 5)
    places = cells.reshape(n * side**2, rows * columns, c)
    return torch.bmm(places.mT, places).float().view(n, side**2, c, c) / (rows * columns)


def lattice_distance(features: Mapping[str, Tensor], height: int, power: Mapping[str, Tensor]) -> Tensor:
    """(): how far the Gram matrices at the places of a cell are from their mean, relative to the
    painting's; the sum over those layers of which a cell has several places.

    Parameters
    ----------
    features : (n, C, h, w) of each layer.
    height : of the pictures that they were taken from; their cells have `STRIDE` pixels a side.
    power : (n,) of each layer, the mean square of the Gram matrix of each picture's painting.
    """
    total = torch.zeros((), device=next(iter(features.values())).device)
    for layer, each in power.items():
        side = round(STRIDE * features[layer].shape[2] / height)  # an odd last line has no features
        if side < 2:
            continue
        grams = grams_by_place(features[layer], side)
        square = (grams - grams.mean(1, keepdim=True)).square().mean((1, 2, 3)) / each
        total = total + (square + LEAST).sqrt().clamp(max=CLAMP).mean()
    return total
