"""The frozen network of lite: twelve dense convolutions and one linear map of colours.

It computes the same as the plain network, up to float rounding:

1. The site of each block follows a convolution, so its scale and shift are folded into weights and bias.
2. The 48 values of a cell are ordered by row, column, colour. Turning pixels into cells and back then copies
   twelve neighbouring numbers at a time.
3. Padding makes no copies: every layer writes its output with a ring around it, four lines that are then
   overwritten.
4. Colours and the final sum stay in float32, in whatever type the strokes are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision
from urst_tiles.nets.frozen.folding import FoldedLayer, before
from urst_tiles.nets.frozen.padding import ring, strips
from urst_tiles.nets.frozen.strokes import FrozenStrokes, add_strokes, strip_rows
from urst_tiles.nets.lite import LiteStyle

#: Pixels along the side of a cell.
SIDE = 4


class FrozenLite(FrozenStrokes):
    """The frozen network of a lite style."""

    def __init__(self, style: LiteStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision, folded(style, affines))
        self.blocks = [site.name for site in style.sites[1:]]

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        y = self.recoloured(x.permute(0, 2, 3, 1))
        z = ring(self.conv(self._cells(y), "enter"))  # 64, h/4 + 2, w/4 + 2
        for name in self.blocks:
            h = ring(self.conv(z, f"{name}_a").relu_())
            z = ring(z.add_(self.conv(h, f"{name}_b")))
        add_strokes(y, self.conv(z, "leave", padding=0), SIDE)
        return y.permute(0, 3, 1, 2)

    def _cells(self, y: Tensor) -> Tensor:
        """Pixels as cells: (n, h, w, 3) -> (n, 48, h/4 + 2, w/4 + 2) around 0, its ring filled by
        reflection."""
        n, h, w, _ = y.shape
        rows, columns = h // SIDE, w // SIDE
        cells = y.new_empty((n, rows + 2, columns + 2, 3 * SIDE * SIDE), dtype=self.low)
        inside = cells[:, 1:-1, 1:-1].unflatten(3, (SIDE, 3 * SIDE))
        pixels = y.view(n, rows, SIDE, columns, 3 * SIDE).transpose(2, 3)
        for a, b in strips(rows, strip_rows(y, SIDE)):
            torch.sub(pixels[:, a:b], 0.5, out=inside[:, a:b])
        return ring(cells.permute(0, 3, 1, 2))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1120 px; small windows take more per pixel, but little in all."""
        return 125.0 if precision == "float32" else 72.0


# The following functions run once per style, in float64.


def folded(style: LiteStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """Weight and bias of every convolution, sites and alpha folded in, the values of a cell ordered by row,
    column, colour."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    order = np.arange(3 * SIDE * SIDE).reshape(3, -1).T.ravel()
    layers: dict[str, FoldedLayer] = {"enter": (state["enter.weight"][:, order], state["enter.bias"])}
    for site in style.sites[1:]:
        affine, name = affines[site.name], site.name
        layers[f"{name}_a"] = before(state[f"{name}.a.weight"], state[f"{name}.a.bias"], affine)
        layers[f"{name}_b"] = state[f"{name}.b.weight"], state[f"{name}.b.bias"]
    weight, bias = state["leave.weight"][order], state["leave.bias"][order]
    layers["leave"] = style.alpha * weight, style.alpha * bias
    return layers
