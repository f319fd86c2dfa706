"""The frozen network of AdaIN, rewritten to do less work.

It computes the same as the plain network, up to float rounding. The changes are:

1. The 1x1 input layer and the affine site are linear, so they are folded into the convolutions behind them.
2. Nearest enlargement and the 3x3 convolution after it become four 2x2 convolutions at low resolution, one
   for each pixel of a 2x2 cell: 4/9 of the work.
3. Padding makes no copies, see `padding`.
4. The first and last layers, where the image is large, run in strips of rows. This takes less memory, and the
   data in use stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.adain import AdaINStyle
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.frozen.folding import FoldedLayer, behind, doubled, doubling
from urst_tiles.nets.frozen.padding import conv2d, edge_ring, empty, reflect, replicate, ring, strips

#: Quarter-resolution rows per strip.
STRIP = 32
#: Layers that stay in float32. The first layer subtracts the mean colour, and where the image is flat the
#: site amplifies its rounding error. On an image of black space, bfloat16 in all layers gives 33 dB PSNR,
#: float32 in the first layer 43 dB, and float32 also in the layers before and behind the site 46 dB. Measured
#: on trained networks of this form and a quarter of the width (tests/nets/test_precision.py).
SENSITIVE = ("e2", "e29", "d1")


class FrozenAdaIN(Stylised):
    """The frozen network of an AdaIN style."""

    def __init__(self, style: AdaINStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.channels = len(style.weights["encoder.12.bias"])
        for name, (weight, bias) in folded(style, affines).items():
            dtype = torch.float32 if name in SENSITIVE else self.low
            self.put(name, weight, bias, dtype, torch.float32 if name == "d28" else dtype)

    def _conv(self, x: Tensor, name: str, padding: int = 0) -> Tensor:
        """Convolution ``name`` and ReLU."""
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        return conv2d(x, weight, bias, padding=padding).relu_()

    def _ringed(self, x: Tensor, name: str) -> Tensor:
        """Convolution and ReLU of a tensor that has a ring around it; the result has a ring too."""
        return ring(self._conv(x, name, padding=1))

    def _doubled(self, x: Tensor, name: str) -> Tensor:
        """Nearest enlargement, convolution and ReLU: (n, c, h, w) -> (n, c', 2h - 4, 2w - 4), without the
        outermost two pixels on each side."""
        return doubled(x, lambda part, pixel: self._conv(part, f"{name}_{pixel}"))

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        z = self._encode_outer(x)  # 128, h/4 + 2, w/4 + 2
        for name in ("e16", "e19", "e22"):
            z = self._ringed(z, name)  # 256, h/4 + 2, w/4 + 2
        z = F.max_pool2d(self._conv(z, "e25"), 2)  # 256, h/8, w/8
        z = F.pad(z.float(), (1, 1, 1, 1), mode="reflect")
        z = self._ringed(z, "e29")  # 512, h/8 + 2, w/8 + 2
        z = self._conv(z, "d1", padding=1).to(self.low)  # 256, h/8 + 2, w/8 + 2
        z = edge_ring(z)
        z = F.pad(self._doubled(z, "d5"), (1, 1, 1, 1), mode="reflect")  # 256, h/4 + 2, w/4 + 2
        for name in ("d8", "d11"):
            z = self._ringed(z, name)  # 256, h/4 + 2, w/4 + 2
        return self._decode_outer(self._conv(z, "d14"))

    def _encode_outer(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) in 0..1 -> (n, 128, h/4 + 2, w/4 + 2): the input of conv3_1 with its ring."""
        _, _, h, w = x.shape
        full, half, quarter = (h, w), (h // 2, w // 2), (h // 4, w // 4)
        x = F.pad(x, (6, 6, 6, 6), mode="reflect").contiguous(memory_format=torch.channels_last)
        z = empty(x, self.channels, quarter[0] + 2, quarter[1] + 2, self.low)
        for a, b in strips(quarter[0], STRIP):
            e = self._conv(x[:, :, 4 * a : 4 * b + 12], "e2").to(self.low)  # 64, rows 4a-5 .. 4b+5
            e = reflect(e, (4 * a - 5, -5), full)
            e = F.max_pool2d(self._conv(e, "e5"), 2)  # 64, half rows 2a-2 .. 2b+2
            e = self._conv(reflect(e, (2 * a - 2, -2), half), "e9")  # 128, half rows 2a-1 .. 2b+1
            e = self._conv(reflect(e, (2 * a - 1, -1), half), "e12")  # 128, half rows 2a .. 2b
            z[:, :, 1 + a : 1 + b, 1:-1] = F.max_pool2d(e, 2)  # 128, quarter rows a .. b
        return ring(z)

    def _decode_outer(self, z: Tensor) -> Tensor:
        """(n, 128, h/4, w/4) -> (n, 3, h, w) float32."""
        n, _, rows, columns = z.shape
        half, full = (2 * rows, 2 * columns), (4 * rows, 4 * columns)
        z = F.pad(z, (3, 3, 3, 3), mode="replicate").contiguous(memory_format=torch.channels_last)
        y = empty(z, 3, *full, torch.float32)
        weight, bias = self.get_buffer("d28_weight"), self.get_buffer("d28_bias")
        for a, b in strips(rows, STRIP):
            d = self._doubled(z[:, :, a : b + 6], "d18")  # 128, half rows 2a-4 .. 2b+4
            d = self._conv(reflect(d, (2 * a - 4, -4), half), "d21")  # 64, half rows 2a-3 .. 2b+3
            d = self._doubled(replicate(d, (2 * a - 3, -3), half), "d25")  # 64, rows 4a-4 .. 4b+4
            d = reflect(d, (4 * a - 4, -4), full)
            d = conv2d(d, weight, None)[:, :, 3:-3, 3:-3]  # 3, rows 4a .. 4b
            torch.add(d, bias[:, None, None], out=y[:, :, 4 * a : 4 * b])
        return y

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1152 px; the value for float32 on a GPU, where cuDNN needs memory of its
        own."""
        return 345.0 if precision == "float32" else 190.0


# The following functions run once per style, in float64.


def folded(style: AdaINStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """Weight and bias of every convolution of the rewritten network, by its name."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    layers: dict[str, FoldedLayer] = {}
    for key in state:
        side, i, part = key.split(".")
        if part == "weight":
            layers[f"{side[0]}{i}"] = state[key], state[f"{side}.{i}.bias"]
    input_weight, input_bias = layers.pop("e0")
    weight, bias = layers["e2"]
    layers["e2"] = behind(weight, bias, input_weight[:, :, 0, 0], input_bias)
    site = affines["relu4_1"]
    layers["d1"] = behind(*layers["d1"], site.scale, site.shift)
    for name in ("d5", "d18", "d25"):
        weight, bias = layers.pop(name)
        layers |= {f"{name}_{pixel}": (part, bias) for pixel, part in doubling(weight).items()}
    return layers
