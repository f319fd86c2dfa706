"""A feed-forward network with its statistics frozen, rewritten to do less work. Same network.

1. Norms, as constant maps, and the range of the pictures go into the convolutions beside them.
2. Nearest enlargement and the 3x3 convolution after it become four 2x2 convolutions at low resolution.
3. Padding is no copy: see ``padding``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.fast import FastStyle
from urst_tiles.nets.frozen.folding import Layer, before, behind, doubled, doubling
from urst_tiles.nets.frozen.padding import conv2d, padded, replicate, ring


class FrozenFast(Stylised):
    """The plain network that a feed-forward style becomes for given affine maps."""

    def __init__(self, style: FastStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.alpha = style.alpha
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name.replace(".", "_"), weight, bias, self.low)

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        """Convolution ``name``, its norm in it."""
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        return conv2d(x, weight, bias, stride, padding)

    def _pixel(self, name: str, x: Tensor, pixel: str) -> Tensor:
        """One pixel of the cells that layer ``name`` makes."""
        return self._conv(x, f"{name}_{pixel}").relu_()

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """The rewritten network."""
        z = padded(x.to(self.low), 4)
        z = padded(self._conv(z, "conv1").relu_(), 1)  # 32, h, w
        z = padded(self._conv(z, "conv2", stride=2).relu_(), 1)  # 64, h/2, w/2
        z = padded(self._conv(z, "conv3", stride=2).relu_(), 1)  # 128, h/4, w/4
        for k in range(1, 6):
            h = ring(self._conv(z, f"res{k}_conv1", padding=1).relu_())
            z = ring(z.add_(self._conv(h, f"res{k}_conv2", padding=1)))
        for name in ("deconv1", "deconv2"):  # 64, h/2, w/2; 32, h, w
            z = replicate(z, (-1, -1), (z.shape[2] - 2, z.shape[3] - 2))
            z = doubled(z, partial(self._pixel, name))
            z = padded(z, 1 if name == "deconv1" else 4)
        y = self._conv(z, "deconv3").float()
        return y if self.alpha == 1.0 else y.mul_(self.alpha).add_(x, alpha=1.0 - self.alpha)

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1136 px; float32 on a card, where cuDNN takes room for itself."""
        return 470.0 if precision == "float32" else 250.0


# What follows runs once per style, in float64.


def folded(style: FastStyle, affines: Mapping[str, Affine]) -> dict[str, Layer]:
    """Weight and bias of every convolution of the rewritten network."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    shift, scale = style.range
    last = Affine(scale, shift)
    layers: dict[str, Layer] = {}
    for name, norm in (style.norms(affines) | {"deconv3": last}).items():
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if name == "conv1":
            weight, bias = behind(weight, bias, 1 / scale, -shift / scale)
        weight, bias = before(weight, bias, norm)
        if name in ("deconv1", "deconv2"):
            layers |= {f"{name}_{pixel}": (part, bias) for pixel, part in doubling(weight).items()}
        else:
            layers[name] = weight, bias
    return layers
