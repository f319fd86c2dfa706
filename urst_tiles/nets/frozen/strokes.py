"""What the frozen networks share that paint strokes, in cells of pixels, onto a recoloured picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.nets.base import Affine, Precision, Style, Stylised
from urst_tiles.nets.frozen.folding import FoldedLayer
from urst_tiles.nets.frozen.padding import conv2d, strips

#: Rows of pixels that are converted to another type at once on a CPU.
STRIP = 64


class FrozenStrokes(Stylised):
    """A network whose convolutions run at ``precision``, and whose picture stays in float32.

    Parameters
    ----------
    style, affines, precision : as for `Stylised`; the map of the site "colour" is that of the picture.
    layers : weight and bias of every convolution by its name, with the maps of their sites folded in.
    """

    def __init__(
        self,
        style: Style,
        affines: Mapping[str, Affine],
        precision: Precision,
        layers: Mapping[str, FoldedLayer],
    ):
        super().__init__(style, affines, precision)
        for name, (weight, bias) in layers.items():
            self.put(name, weight, bias, self.low)
        colour = affines["colour"]
        scale = np.diag(colour.scale) if colour.scale.ndim == 1 else colour.scale
        self.register_buffer("colour_scale", torch.from_numpy(scale.copy()).float())
        self.register_buffer("colour_shift", torch.from_numpy(colour.shift).float())

    def conv(self, x: Tensor, name: str, padding: int = 1) -> Tensor:
        """Convolution ``name``. ``x`` has a ring around it, and so has the result unless ``padding`` is 0."""
        return conv2d(x, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"), padding=padding)

    def recoloured(self, pixels: Tensor) -> Tensor:
        """The pixels (n, h, w, 3), float32, in the colours of the style; same shape."""
        return F.linear(pixels, self.get_buffer("colour_scale"), self.get_buffer("colour_shift"))


def add_strokes(picture: Tensor, strokes: Tensor, side: int) -> None:
    """Add strokes (n, 3 side side, h / side, w / side) to ``picture`` (n, h, w, 3) in place, in float32.

    The values of a cell are ordered by row, column, colour.
    """
    n, h, w, _ = picture.shape
    cells = strokes.permute(0, 2, 3, 1).unflatten(3, (side, 3 * side)).transpose(2, 3)
    pixels = picture.view(n, h // side, side, w // side, 3 * side)
    for a, b in strips(h // side, strip_rows(picture, side)):
        pixels[:, a:b].add_(cells[:, a:b])


def strip_rows(picture: Tensor, side: int) -> int:
    """How many rows of cells of ``picture`` (n, h, w, 3) to work on at once. On a CPU they are few: there
    torch first copies a whole argument of another type, and a large copy among smaller arrays leaves holes in
    memory that fit nothing else."""
    return (STRIP if picture.device.type == "cpu" else picture.shape[1]) // side
