"""Folding linear steps into the convolutions beside them, once per style and in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.nets.base import Affine
from urst_tiles.nets.frozen.padding import empty

Float = NDArray[np.float64]
#: Weight (outputs, inputs per group, h, w) and bias (outputs,) of a convolution.
FoldedLayer = tuple[Float, Float]


def behind(weight: Float, bias: Float, scale: Float, shift: Float) -> FoldedLayer:
    """The convolution of scale x + shift as one convolution of x; ``scale`` is (C,) or (C', C)."""
    matrix = np.diag(scale) if scale.ndim == 1 else scale
    return np.einsum("oikl,ij->ojkl", weight, matrix), bias + np.einsum("oikl,i->o", weight, shift)


def before(weight: Float, bias: Float, affine: Affine) -> FoldedLayer:
    """The affine map of a convolution's output as one convolution; the map must be diagonal."""
    return weight * affine.scale[:, None, None, None], bias * affine.scale + affine.shift


def doubling(weight: Float) -> dict[str, Float]:
    """Nearest enlargement and a 3x3 convolution as four 2x2 convolutions at low resolution.

    They are named "00", "01", "10" and "11" by the pixel (row, column) of a 2x2 cell that each gives. The
    taps -1, 0 and 1 of the large image fall on two cells each way.
    """
    return _pixels(weight, [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])


def transposed(weight: Float) -> dict[str, Float]:
    """A transposed 3x3 convolution of stride 2, without padding and without its last line, in the form of
    `doubling`.

    A pixel in front takes tap 2 of the cell before and tap 0 of its own; one behind takes tap 1 of its own.
    """
    return _pixels(weight, [[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]])


def _pixels(weight: Float, taps: list[list[list[int]]]) -> dict[str, Float]:
    """The 2x2 convolution of each pixel of a cell; ``taps`` says for the pixel in front and the one behind
    which taps of the 3 fall on each of the 2 cells that it sees."""
    cells = np.array(taps, np.float64)
    pixels = ((p, q) for p in range(2) for q in range(2))
    return {f"{p}{q}": np.einsum("oikl,uk,vl->oiuv", weight, cells[p], cells[q]) for p, q in pixels}


def doubled(x: Tensor, conv: Callable[[Tensor, str], Tensor]) -> Tensor:
    """Run the four convolutions of `doubling`: (n, c, h + 2, w + 2), the outermost lines copies of the edge
    -> (n, c', 2h, 2w).

    ``conv`` is called with a part of ``x`` and the name of a pixel, and gives the convolution of that part.
    """
    h, w = x.shape[2] - 2, x.shape[3] - 2
    y = None
    for p in range(2):
        for q in range(2):
            part = conv(x[:, :, p : p + h + 1, q : q + w + 1], f"{p}{q}")
            y = empty(part, part.shape[1], 2 * h, 2 * w) if y is None else y
            y[:, :, p::2, q::2] = part
    assert y is not None
    return y
