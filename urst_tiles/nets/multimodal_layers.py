"""The layers of multimodal transfer and their order in the three subnets; see `multimodal`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

#: Pixels of the image per pixel of each subnet's input, along a side.
SCALES = {"style_subnet": 4, "enhance_subnet": 2, "refine_subnet": 1}
#: A pixel x in 0..1 enters the network as (x - MEAN) / STD, and its output y becomes y STD + MEAN.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Behind each subnet colours are clamped to (0 - MEAN) / LIMIT .. (1 - MEAN) / LIMIT. Red should have 0.229;
#: the original has 0.299 by mistake, and its networks were trained with it: red stays in 0.11..0.88.
LIMIT = (0.299, 0.224, 0.225)


@dataclass(frozen=True)
class Layer:
    """A convolution, and the norm and ReLU behind it.

    Attributes
    ----------
    norm : name of the instance norm; empty where the layer has none.
    inputs, outputs : channels.
    side : side of the kernel.
    step : 2 halves the size; -2 doubles it before the convolution; 1 leaves it.
    cell : pixels of the subnet's image per cell behind the layer.
    relu : whether a ReLU follows.
    """

    norm: str
    inputs: int
    outputs: int
    side: int
    step: int
    cell: int
    relu: bool = True


def _shrinking(prefix: str, widths: Sequence[int]) -> dict[str, Layer]:
    """A 9x9 convolution, then 3x3 convolutions of stride 2: ``conv1``, ``conv2``, ..."""
    layers = {f"{prefix}conv1": Layer(f"{prefix}in1", widths[0], widths[1], 9, 1, 1)}
    for k, (i, o) in enumerate(pairwise(widths[1:]), 2):
        layers[f"{prefix}conv{k}"] = Layer(f"{prefix}in{k}", i, o, 3, 2, 2 ** (k - 1))
    return layers


def _residuals(prefix: str, which: Sequence[int], channels: int, cell: int) -> dict[str, Layer]:
    """Two 3x3 convolutions per residual block: ``res1.conv1``, ``res1.conv2``, ..."""
    return {
        f"{prefix}res{n}.conv{k}": Layer(f"{prefix}res{n}.in{k}", channels, channels, 3, 1, cell, k == 1)
        for n in which
        for k in (1, 2)
    }


def _enlarging(widths: Sequence[int], norm: int, side: int) -> dict[str, Layer]:
    """Nearest enlargements with 3x3 convolutions, then a convolution to three colours: ``rezconv1``, ..."""
    count = len(widths) - 1
    layers = {
        f"rezconv{k}": Layer(f"in{norm + k - 1}", i, o, 3, -2, 2 ** (count - k))
        for k, (i, o) in enumerate(pairwise(widths), 1)
    }
    return layers | {f"rezconv{count + 1}": Layer("", widths[-1], 3, side, 1, 1, relu=False)}


#: The layers of each subnet by name, in order.
LAYERS: dict[str, dict[str, Layer]] = {
    "style_subnet": {
        "togray": Layer("", 3, 1, 1, 1, 1, relu=False),
        **_shrinking("rgb_", (3, 16, 32, 64)),
        **_residuals("rgb_", (1, 2, 3), 64, 4),
        **_shrinking("l_", (1, 16, 32, 64)),
        **_residuals("l_", (1, 2, 3), 64, 4),
        **_residuals("", (4, 5, 6), 128, 4),
        **_enlarging((128, 64, 32), 4, 3),
    },
    "enhance_subnet": {
        **_shrinking("", (3, 32, 64, 128, 256)),
        **_residuals("", (1, 2, 3, 4, 5, 6), 256, 8),
        **_enlarging((256, 128, 64, 32), 5, 9),
    },
    "refine_subnet": {
        **_shrinking("", (3, 32, 64, 128)),
        **_residuals("", (1, 2, 3), 128, 4),
        **_enlarging((128, 64, 32), 4, 3),
    },
}

#: A function of (subnet, name of a convolution, features) that gives the features behind its norm and ReLU.
Run = Callable[[str, str, Tensor], Tensor]


def in_row(z: Tensor, run: Run, subnet: str, names: Sequence[str]) -> Tensor:
    """Run layers one after the other."""
    for name in names:
        z = run(subnet, name, z)
    return z


def residuals(z: Tensor, run: Run, subnet: str, names: Sequence[str]) -> Tensor:
    """Run residual blocks."""
    for name in names:
        z = z + in_row(z, run, subnet, [f"{name}.conv1", f"{name}.conv2"])
    return z


def style_subnet(x: Tensor, run: Run) -> Tensor:
    """The style subnet, (n, 3, h, w) -> same shape: colours and luminance separately, then together."""
    part, blocks = "style_subnet", []
    for side, z in (("rgb", x), ("l", run(part, "togray", x))):
        z = in_row(z, run, part, [f"{side}_conv{k}" for k in (1, 2, 3)])  # 64, h/4, w/4
        blocks.append(residuals(z, run, part, [f"{side}_res{k}" for k in (1, 2, 3)]))
    z = residuals(torch.cat(blocks, 1), run, part, ["res4", "res5", "res6"])  # 128, h/4, w/4
    return in_row(z, run, part, ["rezconv1", "rezconv2", "rezconv3"])


def enhance_subnet(x: Tensor, run: Run) -> Tensor:
    """The enhance subnet, (n, 3, h, w) -> same shape."""
    part = "enhance_subnet"
    z = in_row(x, run, part, ["conv1", "conv2", "conv3", "conv4"])  # 256, h/8, w/8
    z = residuals(z, run, part, [f"res{k}" for k in range(1, 7)])
    return in_row(z, run, part, [f"rezconv{k}" for k in range(1, 5)])


def refine_subnet(x: Tensor, run: Run) -> Tensor:
    """The refine subnet, (n, 3, h, w) -> same shape: ``x`` with fine texture added."""
    part = "refine_subnet"
    z = in_row(x, run, part, ["conv1", "conv2", "conv3"])  # 128, h/4, w/4
    z = residuals(z, run, part, ["res1", "res2", "res3"])
    return in_row(z, run, part, ["rezconv1", "rezconv2", "rezconv3"]) + x


SUBNETS = {"style_subnet": style_subnet, "enhance_subnet": enhance_subnet, "refine_subnet": refine_subnet}


def of_channels(values: Sequence[float], x: Tensor) -> Tensor:
    """``values`` as a tensor (3, 1, 1) of the type and device of ``x``."""
    return torch.tensor(values, dtype=torch.float64).to(x)[:, None, None]


def clamped(y: Tensor) -> Tensor:
    """``y`` with its colours clamped to the original's bounds, see ``LIMIT``."""
    mean, limit = of_channels(MEAN, y), of_channels(LIMIT, y)
    return y.clamp((0 - mean) / limit, (1 - mean) / limit)


def paint(x: Tensor, run: Run) -> Tensor:
    """Run all three subnets: (n, 3, h, w) in 0..1 -> same shape."""
    mean, std = of_channels(MEAN, x), of_channels(STD, x)
    z = (F.avg_pool2d(x, SCALES["style_subnet"]) - mean) / std
    z = clamped(style_subnet(z, run))
    for subnet in (enhance_subnet, refine_subnet):
        z = F.interpolate(z, scale_factor=2, mode="bilinear", align_corners=False)
        z = clamped(subnet(z, run))
    return z * std + mean


def key_of(subnet: str, name: str) -> str:
    """The name of a convolution in the checkpoint."""
    return f"{subnet}.{name}" if name == "togray" else f"{subnet}.{name}.conv2d"
