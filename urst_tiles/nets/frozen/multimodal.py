"""The frozen network of multimodal transfer, rewritten to do less work.

It computes the same as the plain network, up to float rounding. The norms, as constant maps, are folded into
the convolutions before them, and nearest enlargement with the 3x3 convolution after it becomes four 2x2
convolutions at low resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.frozen.folding import FoldedLayer, before, doubled, doubling
from urst_tiles.nets.frozen.padding import conv2d, padded
from urst_tiles.nets.multimodal import MultimodalStyle
from urst_tiles.nets.multimodal_layers import LAYERS, key_of, paint


class FrozenMultimodal(Stylised):
    """The frozen network of a multimodal style: its three subnets."""

    def __init__(
        self, style: MultimodalStyle, affines: Mapping[str, Affine], precision: Precision = "float32"
    ):
        super().__init__(style, affines, precision)
        self.alpha = style.alpha
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name, weight, bias, self.low)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """Run the three subnets; the images between them are float32."""
        y = paint(x, self._run)
        return y if self.alpha == 1.0 else y.mul_(self.alpha).add_(x, alpha=1.0 - self.alpha)

    def _run(self, subnet: str, name: str, x: Tensor) -> Tensor:
        """Layer ``name`` of a subnet, its norm folded in."""
        layer, key = LAYERS[subnet][name], f"{subnet}_{name}".replace(".", "_")
        x = x.to(self.low)
        if layer.step < 0:
            x = F.pad(x, (1,) * 4, mode="replicate").contiguous(memory_format=torch.channels_last)
            return doubled(x, partial(self._pixel, key))
        x = padded(x, layer.side // 2) if layer.side > 1 else x
        y = self._conv(x, key, max(1, layer.step))
        y = y.relu_() if layer.relu else y
        return y.float() if layer.outputs == 3 else y

    def _pixel(self, key: str, x: Tensor, pixel: str) -> Tensor:
        """The pixels ``pixel`` ("00", "01", "10" or "11") of the 2x2 cells that an enlarging layer makes,
        with ReLU."""
        return self._conv(x, f"{key}_{pixel}").relu_()

    def _conv(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        return conv2d(x, self.get_buffer(f"{key}_weight"), self.get_buffer(f"{key}_bias"), stride)

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1536 and 2080 px, float32 on a GPU. A CPU computes float16 in float32, so
        float16 counts as much."""
        return 290.0 if precision == "bfloat16" else 545.0


# The following functions run once per style, in float64.


def folded(style: MultimodalStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """Weight and bias of every convolution of the rewritten network, by its name."""
    layers: dict[str, FoldedLayer] = {}
    for subnet, name, layer in ((s, n, layer) for s, named in LAYERS.items() for n, layer in named.items()):
        weight, bias = (
            style.weights[f"{key_of(subnet, name)}.{part}"].double().cpu().numpy()
            for part in ("weight", "bias")
        )
        if layer.norm:
            weight, bias = before(weight, bias, affines[f"{subnet}.{layer.norm}"])
        key = f"{subnet}_{name}".replace(".", "_")
        if layer.step < 0:
            layers |= {f"{key}_{pixel}": (part, bias) for pixel, part in doubling(weight).items()}
        else:
            layers[key] = weight, bias
    return layers
