"""MSG-Net: a feed-forward network for many styles, steered by the Gram matrix of the style image.

A Siamese encoder sees both image and style. The CoMatch layer multiplies the image's features with a learned
matrix and the style's Gram matrix. Six bottlenecks and two enlarging bottlenecks turn the result into an
image. Instance norms without weights stand before every convolution of a bottleneck.

References
----------
1. H. Zhang and K. Dana, "Multi-style Generative Network for Real-time Transfer", ECCV Workshops 2018.
2. File layout: github.com/zhanghang1989/PyTorch-Multi-Style-Transfer, ``21styles.model`` (MIT); pixels are
   BGR in 0..255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    Site,
    State,
    StyleImages,
    checked_alpha,
    digest,
    mixture,
)
from urst_tiles.nets.seeding import painted, random_state, scale_last, some_picture
from urst_tiles.weights import check_keys

#: The probe measures a reach of 38 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "msgnet", 40, 4, 8
EPS, DDOF = 1e-5, 0
FILE = "21styles.model"
#: The site where the style comes in.
COMATCH = "model.1"
#: Bottlenecks by their key in the original's ``model``, with (inputs, inner channels, scale) at the published
#: width. Scale 2 halves the size, -2 doubles it. Outputs are four times the inner channels.
BLOCKS = {
    "0.3": (64, 32, 2),
    "0.4": (128, 128, 2),
    **{str(k): (512, 128, 1) for k in range(2, 8)},
    "8": (512, 32, -2),
    "9": (128, 16, -2),
}
#: (channels, kernel) of the first and of the last convolution.
FIRST, LAST = (64, 7), (64, 7)
#: Pixels per cell at each of a block's three norms; 4 in the other blocks.
STRIDES = {"0.3": (1, 1, 2), "0.4": (2, 2, 4), "8": (4, 4, 2), "9": (2, 2, 1)}

#: A function of (the name of a norm, features) that gives the normalised features.
Norm = Callable[[str, Tensor], Tensor]


def conv(x: Tensor, state: State, name: str, stride: int = 1) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w) with reflection padding."""
    weight, bias = state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x)
    pad = weight.shape[2] // 2
    if pad:
        x = F.pad(x, (pad,) * 4, mode="reflect")
    return F.conv2d(x, weight, bias, stride=stride)


def bottleneck(x: Tensor, state: State, block: str, norm: Norm) -> Tensor:
    """Bottleneck ``block`` of ``BLOCKS``: norm, ReLU and 1x1 convolution; norm, ReLU and 3x3 convolution,
    which changes the size; norm, ReLU and 1x1 convolution; and the sum with the shortcut."""
    name, scale = f"model.{block}", BLOCKS[block][2]
    inner = f"{name}.conv_block"
    h = conv(F.relu(norm(f"{inner}.0", x)), state, f"{inner}.2")
    h = F.relu(norm(f"{inner}.3", h))
    if scale < 0:
        h = conv(F.interpolate(h, scale_factor=-scale, mode="nearest"), state, f"{inner}.5.conv2d")
        aside = F.interpolate(x, scale_factor=-scale, mode="nearest")
        aside = conv(aside, state, f"{name}.residual_layer.conv2d")
    else:
        h = conv(h, state, f"{inner}.5.conv2d", scale)
        aside = x if scale == 1 else conv(x, state, f"{name}.residual_layer", scale)
    return aside + conv(F.relu(norm(f"{inner}.6", h)), state, f"{inner}.8")


def encode(x: Tensor, state: State, norm: Norm) -> Tensor:
    """(n, 3, h, w) RGB in 0..1 -> (n, 512, h/4, w/4); image and style both pass it."""
    x = conv(255 * x.flip(1), state, "model.0.0.conv2d")  # 64, h, w
    x = F.relu(norm("model.0.1", x))
    return bottleneck(bottleneck(x, state, "0.3", norm), state, "0.4", norm)


def decode(x: Tensor, state: State, norm: Norm) -> Tensor:
    """(n, 512, h/4, w/4) -> (n, 3, h, w) RGB in 0..1."""
    for block in list(BLOCKS)[2:]:
        x = bottleneck(x, state, block, norm)
    x = conv(F.relu(norm("model.10", x)), state, "model.12.conv2d")
    return x.flip(1) / 255


def norms() -> dict[str, tuple[int, int]]:
    """The name of every instance norm, in order -> (channels at the published width, pixels per cell)."""
    sizes = {"model.0.1": (FIRST[0], 1)}
    for block, (inputs, inner, _) in BLOCKS.items():
        strides = STRIDES.get(block, (4, 4, 4))
        for at, channels, stride in zip((0, 3, 6), (inputs, inner, inner), strides, strict=True):
            sizes[f"model.{block}.conv_block.{at}"] = channels, stride
    return sizes | {"model.10": (LAST[0], 1)}


def halo_at(name: str) -> int:
    """The halo of a norm's input, in pixels. Behind the encoder each block looks one cell of 4 pixels
    farther; the two enlarging blocks look as far as the first of them."""
    return min(36, max(8, 4 * (int(name.split(".")[1]) + 1)))


class MSGNetStyle:
    """The weights of MSG-Net with a style.

    Parameters
    ----------
    weights : keys ``model.*`` of the original's file.
    gram : float64 (C, C), the style's Gram matrix F F^T / (C h w) behind the encoder [1, section 3.2].
    alpha : strength; the output is mixed with the input.
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 1150.0

    def __init__(self, weights: State, gram: Tensor, alpha: float = 1.0):
        self.weights, self.gram, self.alpha = dict(weights), gram, checked_alpha(alpha)
        widths = channels_of(weights)
        self.sites: tuple[Site, ...] = (
            *(
                Site(name, widths[name], stride, EPS, DDOF, halo=halo_at(name))
                for name, (_, stride) in norms().items()
            ),
            Site(COMATCH, len(gram), STRIDE, 0.0, 0, full=True, measured=False),
        )

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        sites = {site.name: site for site in self.sites}

        def norm(name: str, h: Tensor) -> Tensor:
            return at(sites[name], h)

        z = norm(COMATCH, encode(x, self.weights, norm))
        y = decode(z, self.weights, norm)
        return y if self.alpha == 1.0 else self.alpha * y + (1.0 - self.alpha) * x

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The instance norm (x - mean) / deviation; at CoMatch the map (W G)^T x [1, equation 5]."""
        if site.name == COMATCH:
            steer = self.weights["model.1.weight"][0].double() @ self.gram.double()
            return Affine(steer.T.numpy(), np.zeros(site.channels))
        scale = 1.0 / moments.std(site.eps, site.ddof)
        return Affine(scale, -scale * moments.mean)

    def state(self) -> tuple[State, dict[str, Any]]:
        return {**self.weights, "feature.gram": self.gram}, {"alpha": self.alpha}


def channels_of(weights: State) -> dict[str, int]:
    """The number of channels at every norm, which is that of the convolution before it."""
    widths = {"model.0.1": len(weights["model.0.0.conv2d.bias"])}
    stream = widths["model.0.1"]
    for block in BLOCKS:
        inner = f"model.{block}.conv_block"
        widths[f"{inner}.0"] = stream
        widths[f"{inner}.3"] = len(weights[f"{inner}.2.bias"])
        widths[f"{inner}.6"] = len(weights[f"{inner}.5.conv2d.bias"])
        stream = len(weights[f"{inner}.8.bias"])
    return widths | {"model.10": stream}


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> MSGNetStyle:
    """A style from the state of ``FILE``; several images are mixed by their Gram matrices."""
    weights = {k: t.float() for k, t in needed(states[FILE]).items()}
    gram = torch.zeros((), dtype=torch.float64)

    def norm(name: str, h: Tensor) -> Tensor:
        return F.instance_norm(h, eps=EPS)

    with torch.inference_mode():
        for image, share in mixture(styles, MINIMUM):
            h, w = (side // STRIDE * STRIDE for side in image.shape[2:])
            f = encode(image[:, :, :h, :w], weights, norm)[0].flatten(1).double()
            gram = gram + share * (f @ f.T) / f.numel()
    return MSGNetStyle(weights, gram.clone(), alpha)


def needed(state: State) -> State:
    """The state without the second names of shared modules, and without the statistics that old instance
    norms held and never used."""
    return {k: t for k, t in state.items() if k.startswith("model.") and ".running_" not in k}


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes. Networks whose layers are all narrower by the same factor
    are accepted too."""
    middle = state.get("model.1.weight")
    published = 4 * BLOCKS["0.4"][1]
    width = 1.0 if middle is None else isqrt(middle.numel()) / published
    check_keys(needed(state), shapes(width), path)


def restore(state: State, settings: Mapping[str, Any]) -> MSGNetStyle:
    """The inverse of ``MSGNetStyle.state``."""
    weights = {k: t for k, t in state.items() if k.startswith("model.")}
    return MSGNetStyle(weights, state["feature.gram"], settings["alpha"])


def shapes(width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Name and shape of every needed tensor, ``width`` times as wide as published."""

    def wide(n: int) -> int:
        return max(2, round(n * width))

    first, last = wide(FIRST[0]), 4 * wide(LAST[0] // 4)
    layers = {"0.0.conv2d": (first, 3, FIRST[1]), "12.conv2d": (3, last, LAST[1])}
    stream = first
    for block, (_, inner, scale) in BLOCKS.items():
        narrow, inside = wide(inner), f"{block}.conv_block"
        layers |= {f"{inside}.2": (narrow, stream, 1), f"{inside}.5.conv2d": (narrow, narrow, 3)}
        layers[f"{inside}.8"] = (4 * narrow, narrow, 1)
        if scale != 1:
            aside = "residual_layer" + (".conv2d" if scale < 0 else "")
            layers[f"{block}.{aside}"] = (4 * narrow, stream, 1)
        stream = 4 * narrow
    middle = 4 * wide(BLOCKS["0.4"][1])
    keys: dict[str, tuple[int, ...]] = {"model.1.weight": (1, middle, middle)}
    for name, (outputs, inputs, side) in layers.items():
        keys[f"model.{name}.weight"] = (outputs, inputs, side, side)
        keys[f"model.{name}.bias"] = (outputs,)
    return keys


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """The state of ``FILE`` with random weights, scaled for an output of mean 0.5 and deviation 0.25 on
    `some_picture`."""
    state = random_state(np.random.default_rng(seed), shapes(width))
    image = some_picture(seed)
    style = build({FILE: state}, [(image, 1.0)])
    with torch.inference_mode():
        state["model.1.weight"] /= (state["model.1.weight"][0].double() @ style.gram).norm(dim=0).mean()
    output = 255 * painted(build({FILE: state}, [(image, 1.0)]), image).flip(1)
    scale_last(state, "model.12.conv2d", output, 0.5 * 255, 0.25 * 255)
    return {FILE: state}
