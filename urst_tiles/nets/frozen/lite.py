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
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.frozen.folding import FoldedLayer, before
from urst_tiles.nets.frozen.padding import conv2d, ring, strips
from urst_tiles.nets.lite import LiteStyle

#: Pixels along the side of a cell.
SIDE = 4

#: Rows of cells that are converted to another type at once.
STRIP = 16


class FrozenLite(Stylised):
    """The frozen network of a lite style."""

    def __init__(self, style: LiteStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.blocks = [site.name for site in style.sites[1:]]
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name, weight, bias, self.low)
        colour = affines["colour"]
        scale = np.diag(colour.scale) if colour.scale.ndim == 1 else colour.scale
        self.register_buffer("colour_scale", torch.from_numpy(scale.copy()).float())
        self.register_buffer("colour_shift", torch.from_numpy(colour.shift).float())

    def _conv(self, x: Tensor, name: str, padding: int = 1) -> Tensor:
        """Convolution ``name``. ``x`` has a ring around it, and so has the result unless ``padding`` is 0."""
        return conv2d(x, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"), padding=padding)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        y = F.linear(pixels, self.get_buffer("colour_scale"), self.get_buffer("colour_shift"))
        z = ring(self._conv(self._cells(y), "enter"))  # 64, h/4 + 2, w/4 + 2
        for name in self.blocks:
            h = ring(self._conv(z, f"{name}_a").relu_())
            z = ring(z.add_(self._conv(h, f"{name}_b")))
        self._add(y, self._conv(z, "leave", padding=0))
        return y.permute(0, 3, 1, 2)

    def _cells(self, y: Tensor) -> Tensor:
        """Pixels as cells: (n, h, w, 3) -> (n, 48, h/4 + 2, w/4 + 2) around 0, its ring filled by
        reflection."""
        n, h, w, _ = y.shape
        rows, columns = h // SIDE, w // SIDE
        cells = y.new_empty((n, rows + 2, columns + 2, 3 * SIDE * SIDE), dtype=self.low)
        inside = cells[:, 1:-1, 1:-1].unflatten(3, (SIDE, 3 * SIDE))
        pixels = y.view(n, rows, SIDE, columns, 3 * SIDE).transpose(2, 3)
        for a, b in strips(rows, strip_rows(y)):
            torch.sub(pixels[:, a:b], 0.5, out=inside[:, a:b])
        return ring(cells.permute(0, 3, 1, 2))

    def _add(self, y: Tensor, strokes: Tensor) -> None:
        """Add strokes (n, 48, h/4, w/4) to ``y`` (n, h, w, 3) in place, in float32."""
        n, h, w, _ = y.shape
        cells = strokes.permute(0, 2, 3, 1).unflatten(3, (SIDE, 3 * SIDE)).transpose(2, 3)
        pixels = y.view(n, h // SIDE, SIDE, w // SIDE, 3 * SIDE)
        for a, b in strips(h // SIDE, strip_rows(y)):
            pixels[:, a:b].add_(cells[:, a:b])

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1120 px; small windows take more per pixel, but little in all."""
        return 125.0 if precision == "float32" else 72.0


def strip_rows(y: Tensor) -> int:
    """How many rows of cells of ``y`` (n, h, w, 3) to work on at once. On a CPU they are few: there torch
    first copies a whole argument of another type, and a large copy among smaller arrays leaves holes in
    memory that fit nothing else."""
    return STRIP if y.device.type == "cpu" else y.shape[1] // SIDE


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
