"""The frozen network of the painter: everything but the last step at a quarter of the size.

It computes the same as the plain network, up to float rounding:

1. Every site follows a convolution, so its scale and shift are folded into weights and bias.
2. An enlargement to twice the size, each cell four times, and the 3x3 convolution behind it become one
   convolution before the enlargement, which gives the four pixels of a cell as channels. Reflection padding
   of the large image is then padding of the small one by its outermost line.
3. The values of a cell are ordered by row, column, channel, so that turning pixels into cells and back copies
   neighbouring numbers. Padding makes no copies: every layer writes its output with a ring around it.
4. The guide and the final sum stay in float32, in whatever type the strokes are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets import painter
from urst_tiles.nets.base import Affine, Precision
from urst_tiles.nets.frozen.folding import Float, FoldedLayer, before
from urst_tiles.nets.frozen.padding import empty, replicate, ring, strips
from urst_tiles.nets.frozen.strokes import FrozenStrokes, add_strokes, strip_rows
from urst_tiles.nets.painter import CONTENT, DETAIL, GRAIN, GUIDE, PainterStyle, enlarged, lost
from urst_tiles.nets.tones import bend

#: Pixels along the side of a cell, and channels of a pixel: content, guide and noise.
SIDE, CHANNELS = 4, 7
#: What the names of the layers of the second pass over the coarsest level begin with.
SECOND = "second_"


class FrozenPainter(FrozenStrokes):
    """The frozen network of a painter's style."""

    def __init__(self, style: PainterStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision, folded(style, affines))
        self.blocks, self.alpha, self.tones = style.form.blocks, style.alpha, style.tones
        self.half_channels, self.twice = style.form.half, style.twice

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        guide = self._guide(pixels)
        self._paint(pixels, guide, "")
        if self.twice:
            self._paint(pixels, guide.clamp_(0, 1), SECOND)
        if pixels.shape[-1] >= GUIDE.stop:
            painting, above = guide.permute(0, 3, 1, 2), pixels[:, ::2, ::2, GUIDE].permute(0, 3, 1, 2)
            guide += lost(painting, above).permute(0, 2, 3, 1)
        if self.alpha != 1.0:
            guide = torch.lerp(pixels[..., CONTENT], guide, self.alpha)
        return guide.permute(0, 3, 1, 2)

    def _paint(self, pixels: Tensor, guide: Tensor, which: str) -> None:
        """Add the strokes of a pass, whose layers' names begin with ``which``, to the guide (n, h, w, 3)."""
        cells = self._cells(pixels, guide)  # 112, h/4 + 2, w/4 + 2
        z = ring(self.conv(cells, f"{which}enter").relu_())
        for k in range(self.blocks):
            h = ring(self.conv(z, f"{which}a{k}").relu_())
            z = ring(z.add_(self.conv(h, f"{which}b{k}")))
        size = (cells.shape[2] - 2, cells.shape[3] - 2)
        h = self.conv(replicate(z, (-1, -1), size), f"{which}mid", padding=0)
        h = h.add_(self.conv(replicate(cells, (-1, -1), size), f"{which}again", padding=0)).relu_()
        add_strokes(guide, self.conv(self._at_half(h), "full", padding=0), 2)

    def _guide(self, pixels: Tensor) -> Tensor:
        """What is painted over, float32 (n, h, w, 3)."""
        colours = bend(self.recoloured(pixels[..., CONTENT]), 3, self.tones).clamp_(0, 1)
        if pixels.shape[-1] < GUIDE.stop:
            return colours
        n, h, w, _ = colours.shape
        rows = colours.view(n, h // 2, 2, 3 * w)  # two long sums: mean((2, 4)) takes fourteen times as long
        pairs = (rows[:, :, 0] + rows[:, :, 1]).view(n, h // 2, w // 2, 2, 3)
        coarse = (pairs[:, :, :, 0] + pairs[:, :, :, 1]).mul_(-DETAIL / 4)
        coarse += pixels[:, ::2, ::2, GUIDE]
        smooth = enlarged(coarse.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return colours.mul_(DETAIL).add_(smooth)

    def _cells(self, pixels: Tensor, guide: Tensor) -> Tensor:
        """Content, guide and noise as cells: (n, 112, h/4 + 2, w/4 + 2) around 0, with a ring filled by
        reflection."""
        n, h, w, channels = pixels.shape
        rows, columns = h // SIDE, w // SIDE
        cells = guide.new_empty((n, rows + 2, columns + 2, SIDE * SIDE * CHANNELS), dtype=self.low)
        inside = cells[:, 1:-1, 1:-1].unflatten(3, (SIDE, SIDE * CHANNELS))
        for a, b in strips(rows, strip_rows(guide, SIDE)):
            part = slice(a * SIDE, b * SIDE)
            wide = guide.new_zeros((n, (b - a) * SIDE, w, CHANNELS))
            torch.sub(pixels[:, part, :, CONTENT], 0.5, out=wide[..., :3])
            torch.sub(guide[:, part], 0.5, out=wide[..., 3:6])
            if channels > CONTENT.stop:
                torch.sub(pixels[:, part, :, GRAIN], 0.5, out=wide[..., 6:])
            inside[:, a:b].copy_(wide.view(n, b - a, SIDE, columns, SIDE * CHANNELS).transpose(2, 3))
        return ring(cells.permute(0, 3, 1, 2))

    def _at_half(self, h: Tensor) -> Tensor:
        """Features of 2 x 2 pixels a cell at half the image's size: (n, 4 c, h, w) -> (n, c, 2 h + 2, 2 w +
        2), with a ring that repeats the outermost line."""
        n, _, rows, columns = h.shape
        out = empty(h, self.half_channels, 2 * rows + 2, 2 * columns + 2)
        inside = out.permute(0, 2, 3, 1)[:, 1:-1, 1:-1]
        values = h.permute(0, 2, 3, 1).unflatten(3, (2, 2 * self.half_channels)).transpose(2, 3)
        for p in range(2):
            inside[:, p::2].copy_(values[:, :, p].reshape(n, rows, 2 * columns, self.half_channels))
        return replicate(out, (-1, -1), (2 * rows, 2 * columns))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1120 px; small windows take more per pixel, but little in all."""
        return 150.0 if precision == "float32" else 100.0


# The following functions run once per style, in float64.


def folded(style: PainterStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """Weight and bias of every convolution, with its site folded in."""
    full = before_doubling(style.weights["full.weight"].double().cpu().numpy())
    layers = {"full": (full, np.tile(style.weights["full.bias"].double().cpu().numpy(), 4))}
    layers |= layers_of_pass(style, affines)
    if style.twice:
        own = {k.removeprefix(painter.SECOND): affine for k, affine in affines.items()}
        layers |= {SECOND + name: layer for name, layer in layers_of_pass(style, own).items()}
    return layers


def layers_of_pass(style: PainterStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """The same of the convolutions that have a site, by the maps of a pass."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    order = np.arange(CHANNELS * SIDE * SIDE).reshape(CHANNELS, -1).T.ravel()

    def layer(name: str, site: str) -> FoldedLayer:
        return before(state[f"{name}.weight"], state[f"{name}.bias"], affines[site])

    weight, bias = layer("enter", "enter")
    layers: dict[str, FoldedLayer] = {"enter": (weight[:, order], bias)}
    for k in range(style.form.blocks):
        layers |= {f"{branch}{k}": layer(f"{branch}.{k}", f"{branch}.{k}") for branch in "ab"}
    weight, bias = layer("mid", "half")
    c = style.form.channels
    layers["mid"] = before_doubling(weight[:, :c]), np.tile(bias, 4)
    layers["again"] = from_cells(weight[:, c:]), np.zeros(4 * style.form.half)
    return layers


def before_doubling(weight: Float) -> Float:
    """Nearest enlargement and a 3x3 convolution as one 3x3 convolution at low resolution.

    (o, i, 3, 3) -> (4 o, i, 3, 3); the outputs are those of the four pixels of a cell, row by row. The taps
    -1, 0 and 1 around pixel 0 of a cell fall on the cells -1, 0 and 0, those around pixel 1 on 0, 0 and 1.
    """
    cells = np.zeros((2, 3, 3))  # pixel, cell, tap
    for pixel in range(2):
        for tap in range(3):
            cells[pixel, (pixel + tap - 1) // 2 + 1, tap] = 1
    out = np.einsum("oikl,puk,qvl->pqoiuv", weight, cells, cells)
    return out.reshape(-1, *out.shape[3:])


def from_cells(weight: Float) -> Float:
    """A 3x3 convolution of the image as 2 x 2 cells as one of the image as 4 x 4 cells.

    (o, 24, 3, 3), whose inputs are six channels of four pixels -> (4 o, 112, 3, 3), whose inputs are sixteen
    pixels of seven channels and whose outputs are those of the four pixels of half the size, row by row.
    """
    outputs = weight.shape[0]
    taps = weight.reshape(outputs, 6, 2, 2, 3, 3)
    out = np.zeros((2, 2, outputs, SIDE, SIDE, CHANNELS, 3, 3))
    for p, q, k, m in np.ndindex(2, 2, 3, 3):
        (cell_y, y), (cell_x, x) = divmod(p + k - 1, 2), divmod(q + m - 1, 2)
        part = out[p, q, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, :6, cell_y + 1, cell_x + 1]
        part += taps[..., k, m].transpose(0, 2, 3, 1)
    return out.reshape(4 * outputs, SIDE * SIDE * CHANNELS, 3, 3)
