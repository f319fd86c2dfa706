"""The frozen network of a feed-forward style, rewritten to do less work.

It computes the same as the plain network, up to float rounding. The changes are:

1. The norms, as constant maps, and the conversions of the pixels' range are folded into the convolutions
   beside them.
2. Nearest enlargement and the 3x3 convolution after it, or a transposed convolution, become four 2x2
   convolutions at low resolution.
3. Padding makes no copies, see `padding`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.fast import FastStyle
from urst_tiles.nets.fast_layouts import DOUBLING, Dialect, width_of
from urst_tiles.nets.frozen.folding import (
    Float,
    FoldedLayer,
    before,
    behind,
    doubled,
    doubling,
    transposed,
)
from urst_tiles.nets.frozen.padding import conv2d, edge_ring, padded, ring, zero_padded, zero_ring


@dataclass(frozen=True)
class Edges:
    """What a network sees beyond the edges of the image; all take and give (n, c, h, w), but for ``cells``.

    Attributes
    ----------
    around : (x, lines) -> ``x`` with so many lines more on every side, channels_last.
    halving : ``x`` with the lines that a convolution of stride 2 needs.
    ring : ``x``, its outermost lines overwritten for a convolution.
    doubling : the same for an enlargement.
    cells : a kernel -> the four convolutions that its enlargement becomes, see `folding.doubling`.
    """

    around: Callable[[Tensor, int], Tensor]
    halving: Callable[[Tensor], Tensor]
    ring: Callable[[Tensor], Tensor]
    doubling: Callable[[Tensor], Tensor]
    cells: Callable[[Float], dict[str, Float]]


REFLECTED = Edges(padded, lambda x: padded(x, 1), ring, edge_ring, doubling)
#: TensorFlow pads behind only where the sides are even.
ZEROS = Edges(zero_padded, lambda x: F.pad(x, (0, 1, 0, 1)), zero_ring, zero_ring, transposed)


def edges_of(form: Dialect) -> Edges:
    """The edges of a layout."""
    return ZEROS if form.zeros else REFLECTED


class FrozenFast(Stylised):
    """The frozen network of a feed-forward style."""

    def __init__(self, style: FastStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.alpha, self.form = style.alpha, style.form
        self.share = width_of(style.weights["conv1.bias"])
        self.blocks = [name for name in style.normed if name.endswith(".conv1")]
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name.replace(".", "_"), weight, bias, self.low)
        if self.form.squash:
            for part, value in zip(("shift", "scale"), self.form.out, strict=True):
                self.register_buffer(f"out_{part}", torch.tensor(value)[:, None, None])

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        """Convolution ``name``, its norm folded in."""
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        return conv2d(x, weight, bias, stride, padding)

    def _pixel(self, name: str, x: Tensor, pixel: str) -> Tensor:
        """The pixels ``pixel`` ("00", "01", "10" or "11") of the 2x2 cells that layer ``name`` makes, with
        ReLU."""
        return self._conv(x, f"{name}_{pixel}").relu_()

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        edges = edges_of(self.form)
        z = self._conv(edges.around(x.to(self.low), 4), "conv1").relu_()  # 32, h, w
        z = self._conv(edges.halving(z), "conv2", stride=2).relu_()  # 64, h/2, w/2
        z = self._conv(edges.halving(z), "conv3", stride=2).relu_()  # 128, h/4, w/4
        z = edges.around(z, 1)
        for name in self.blocks:
            h = edges.ring(self._conv(z, name.replace(".", "_"), padding=1).relu_())
            z = edges.ring(z.add_(self._conv(h, name.replace(".conv1", "_conv2"), padding=1)))
        for name in DOUBLING:  # 64, h/2, w/2; 32, h, w
            z = doubled(edges.doubling(z), partial(self._pixel, name))
            z = edges.around(z, 1 if name == "deconv1" else 4)
        y = self._conv(z, "deconv3").float()
        if self.form.squash:
            scale, shift = self.get_buffer("out_scale"), self.get_buffer("out_shift")
            y = self.form.squash(y).mul_(scale).add_(shift)
        return y if self.alpha == 1.0 else y.mul_(self.alpha).add_(x, alpha=1.0 - self.alpha)

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1136 px; the value for float32 on a GPU, where cuDNN needs memory of its
        own. What the pixels themselves take is the same for all widths; peaks of narrow networks vary by a
        fifth from run to run."""
        return 50.0 + self.share * (440.0 if precision == "float32" else 220.0)


# The following functions run once per style, in float64.


def folded(style: FastStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """Weight and bias of every convolution of the rewritten network, by its name."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    shift, scale = np.array(style.form.shift), np.array(style.form.scale)
    norms = style.norms(affines)
    if not style.form.squash:
        out_shift, out_scale = style.form.out
        norms["deconv3"] = Affine(np.array(out_scale), np.array(out_shift))
    cells = edges_of(style.form).cells
    layers: dict[str, FoldedLayer] = {}
    for name, norm in norms.items():
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if name == "conv1":
            weight, bias = behind(weight, bias, 1 / scale, -shift / scale)
        weight, bias = before(weight, bias, norm)
        if name in DOUBLING:
            layers |= {f"{name}_{pixel}": (part, bias) for pixel, part in cells(weight).items()}
        else:
            layers[name] = weight, bias
    return layers
