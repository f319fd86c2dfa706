"""WCT with its statistics frozen, rewritten to do less work. Same network.

What is done to the plain network, all of it exact up to float rounding:

1. Each encoder's 1x1 input layer, and each site, are linear, so they go into the convolution behind them.
2. Nearest enlargement and the 3x3 convolution after it become four 2x2 convolutions at low resolution, one
   per pixel of a 2x2 cell: 4/9 of the work.
3. Padding is no copy: see ``lines``.
4. Each level works on no more of the window than what the levels after it still need of it. Five levels
   together reach 246 pixels, the last one 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.folding import Layer, behind, doubled, doubling
from urst_tiles.nets.lines import conv2d, padded, replicate, ring

if TYPE_CHECKING:
    from urst_tiles.nets.wct import WCTStyle

Float = NDArray[np.float64]

LEVELS = (5, 4, 3, 2, 1)
#: Convolutions of each stage of VGG-19 that an encoder to the next stage passes.
DEPTH = {1: 2, 2: 2, 3: 4, 4: 4}
#: How far a level's picture depends on the one before, pixels beyond an aligned cell of ``2 ** (level - 1)``
#: (the probe's, tests/torch/test_wct.py).
REACH = {5: 150, 4: 62, 3: 22, 2: 8, 1: 2}


class FrozenWCT(Stylised):
    """The plain network that a WCT style becomes for given affine maps."""

    selective = True

    def __init__(self, style: WCTStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name, weight, bias, self.low)

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """The rewritten network; outside of ``keep`` the result is 0."""
        whole = Box(0, 0, x.shape[2], x.shape[3])
        needed = regions(reduce(Box.union, keep) if keep else whole, whole)
        here = whole
        for level in LEVELS:
            part = needed[level].within(here)
            x, here = x[:, :, part.slices[0], part.slices[1]], needed[level]
            x = self._decode(self._encode(x, level), level)
        if here == whole:
            return x
        return F.pad(x, (here.x0, whole.x1 - here.x1, here.y0, whole.y1 - here.y1))

    def _conv(self, x: Tensor, name: str, padding: int = 0) -> Tensor:
        """Convolution ``name`` and ReLU."""
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        return conv2d(x, weight, bias, padding=padding).relu_()

    def _pixel(self, name: str, x: Tensor, pixel: str) -> Tensor:
        """One pixel of the cells that layer ``name`` makes."""
        return self._conv(x, f"{name}_{pixel}")

    def _encode(self, x: Tensor, level: int) -> Tensor:
        """(n, 3, h, w) -> what the site sees, with a ring around it by reflection."""
        z = padded(x.to(self.low), 1)
        for name in layers(level):
            if name[1] == "1" and name[0] != "1":
                z = padded(F.max_pool2d(z[:, :, 1:-1, 1:-1], 2), 1)
            z = ring(self._conv(z, f"e{level}_{name}", padding=1))
        return z

    def _decode(self, z: Tensor, level: int) -> Tensor:
        """What leaves the site, with its ring -> (n, 3, h, w) float32."""
        enlarged = False
        for name in reversed(layers(level)):
            if enlarged:
                z = replicate(z, (-1, -1), (z.shape[2] - 2, z.shape[3] - 2))
                z = padded(doubled(z, partial(self._pixel, f"d{level}_{name}")), 1)
            else:
                z = ring(self._conv(z, f"d{level}_{name}", padding=1))
            enlarged = name[1] == "1"
        return z[:, :, 1:-1, 1:-1].to(torch.promote_types(z.dtype, torch.float32))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1536 px with the small networks; the full ones are four times as wide."""
        wide = self.get_buffer("e2_11_bias").shape[0] / 16
        return wide * (290.0 if precision == "float32" else 190.0)


def layers(level: int) -> list[str]:
    """The encoder's 3x3 convolutions in order: "11", "12", "21", ..., "51"; the decoder's is the reverse."""
    return [f"{s}{k}" for s in range(1, level) for k in range(1, DEPTH[s] + 1)] + [f"{level}1"]


def regions(keep: Box, whole: Box) -> dict[int, Box]:
    """What each level must work on so that ``keep`` of the last one's picture is right: on the level's own
    cells, inside the window."""
    needed: dict[int, Box] = {}
    box = keep
    for level in reversed(LEVELS):
        cell = 2 ** (level - 1)
        wide = box.align(cell).grow(REACH[level]).align(cell).clip(whole)
        box = needed[level] = wide.at_least(2 * cell, whole)
    return needed


# What follows runs once per style, in float64.


def folded(style: WCTStyle, affines: Mapping[str, Affine]) -> dict[str, Layer]:
    """Weight and bias of every convolution of the rewritten network."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    found: dict[str, Layer] = {}
    for level in LEVELS:
        found |= _encoder(state, level)
        found |= _decoder(state, level, affines[f"relu{level}_1"])
    return found


def _encoder(state: Mapping[str, Float], level: int) -> dict[str, Layer]:
    """An encoder's layers, its 1x1 input layer folded into the first."""
    side = f"encoder{level}.conv"
    found = {name: (state[f"{side}{name}.weight"], state[f"{side}{name}.bias"]) for name in layers(level)}
    found["11"] = behind(*found["11"], state[f"{side}0.weight"][:, :, 0, 0], state[f"{side}0.bias"])
    return {f"e{level}_{name}": layer for name, layer in found.items()}


def _decoder(state: Mapping[str, Float], level: int, site: Affine) -> dict[str, Layer]:
    """A decoder's layers, the site folded into the first, enlargement into those behind one."""
    found: dict[str, Layer] = {}
    enlarged = False
    for k, name in enumerate(reversed(layers(level))):
        weight, bias = (state[f"decoder{level}.conv{name}.{part}"] for part in ("weight", "bias"))
        if k == 0:
            weight, bias = behind(weight, bias, site.scale, site.shift)
        if enlarged:
            found |= {f"d{level}_{name}_{pixel}": (part, bias) for pixel, part in doubling(weight).items()}
        else:
            found[f"d{level}_{name}"] = weight, bias
        enlarged = name[1] == "1"
    return found
