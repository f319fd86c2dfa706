"""LinearWCT: the matrix that maps image features to style features is predicted instead of decomposed.

Behind a VGG-19 encoder the features are centred and compressed to 32 channels. Two small networks turn the
second moments of image and style into a 32 x 32 matrix each. The product of the two matrices is the
transformation.

References
----------
1. X. Li, S. Liu, J. Kautz, M.-H. Yang, "Learning Linear Transformations for Fast Image and Video Style
   Transfer", CVPR 2019.
2. File layout: github.com/sunshineatnoon/LinearStyleTransfer: ``vgg_r31.pth``, ``dec_r31.pth``, ``r31.pth``,
   and the same for r41 (BSD-2-Clause).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadWeights
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

#: The probe measures reaches of 22 and 62 pixels (tests/nets/test_probe.py).
HALO = {"r31": 24, "r41": 64}
#: Halos of the inputs of the two measured sites, in pixels.
HALOS = {"r31": (12, 24), "r41": (32, 56)}
STRIDE = {"r31": 4, "r41": 8}
MINIMUM = {"r31": 8, "r41": 16}
#: Channels of the compressed features.
INNER = 32
#: Outputs of the encoder's 3x3 convolutions. A pooling precedes those in ``POOLED``, counted from 0.
WIDTHS = {"r31": (64, 64, 128, 128, 256), "r41": (64, 64, 128, 128, 256, 256, 256, 256, 512)}
POOLED = (2, 4, 8)


def files(layer: str) -> dict[str, str]:
    """Part of the network -> the name of its file."""
    return {"encoder": f"vgg_{layer}.pth", "decoder": f"dec_{layer}.pth", "matrix": f"{layer}.pth"}


def conv(x: Tensor, state: State, name: str, mode: str = "reflect") -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w), padded by ``mode`` so that the size stays."""
    weight, bias = state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x)
    pad = weight.shape[2] // 2
    if pad:
        x = F.pad(x, (pad,) * 4, mode=mode)
    return F.conv2d(x, weight, bias)


def encode(x: Tensor, state: State, layer: str) -> Tensor:
    """(n, 3, h, w) -> relu3_1 (n, 256, h/4, w/4) or relu4_1 (n, 512, h/8, w/8)."""
    x = conv(x, state, "encoder.conv1")  # 1x1
    for k in range(len(WIDTHS[layer])):
        if k in POOLED:
            x = F.max_pool2d(x, 2)
        x = F.relu(conv(x, state, f"encoder.conv{k + 2}"))
    return x


def decode(x: Tensor, state: State, layer: str) -> Tensor:
    """The mirrored encoder, with nearest enlargement, and without ReLU behind the last layer: (n, C, h', w')
    -> (n, 3, h, w)."""
    count = len(WIDTHS[layer])
    for k in reversed(range(count)):
        x = conv(x, state, f"decoder.conv{2 * count + 1 - k}")
        if k == 0:
            return x
        x = F.relu(x)
        if k in POOLED:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
    raise AssertionError


def compressed(x: Tensor, state: State, net: str) -> Tensor:
    """Centred features through one of the two small networks: (n, C, h, w) -> (n, 32, h, w)."""
    for k in (0, 2, 4):
        x = conv(x, state, f"matrix.{net}.convs.{k}", "constant")
        x = x if k == 4 else F.relu(x)
    return x


def predicted(second: Tensor, state: State, net: str) -> Tensor:
    """The matrices (..., 32, 32), float64, that the small network ``net`` predicts from the second moments
    (..., 32, 32) of its compressed features."""
    weight, bias = (state[f"matrix.{net}.fc.{part}"].to(second) for part in ("weight", "bias"))
    return F.linear(second.flatten(-2), weight, bias).unflatten(-1, (INNER, INNER))


def describe(f: Tensor, state: State, net: str) -> tuple[Tensor, Tensor]:
    """The means (n, C) of features (n, C, h, w), and the matrices (n, 32, 32) that ``net`` predicts from
    them, both float64. ``net`` is "snet" for a style and "cnet" for an image."""
    mean = f.double().mean((2, 3))
    small = compressed(f - mean.to(f)[:, :, None, None], state, net).flatten(2).double()
    return mean, predicted(small @ small.mT / small.shape[2], state, net)


class LinearStyle:
    """The weights of LinearWCT with a style.

    Parameters
    ----------
    layer : "r31" or "r41".
    weights : keys ``encoder.*``, ``decoder.*`` and ``matrix.*`` of the original's three files.
    features : "mean" (C,) and "matrix" (32, 32) of the style, float64.
    alpha : strength; the transformed features are mixed with the image's.
    """

    def __init__(self, layer: str, weights: State, features: State, alpha: float = 1.0):
        self.layer, self.weights, self.features = layer, dict(weights), dict(features)
        self.alpha, self.name = checked_alpha(alpha), f"linear-{layer}"
        self.halo, self.stride, self.minimum = HALO[layer], STRIDE[layer], MINIMUM[layer]
        self.plain_bytes = 1350.0
        self.sites: tuple[Site, ...] = (
            Site("centre", len(features["mean"]), self.stride, 0.0, 0, halo=HALOS[layer][0]),
            Site("matrix", 2 * INNER, self.stride, 0.0, 0, full=True, halo=HALOS[layer][1]),
            Site("mean", len(features["mean"]), self.stride, 0.0, 0, measured=False),
        )

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        centre, matrix, mean = self.sites
        f = encode(x, self.weights, self.layer)
        g = at(centre, f)
        # The features that the matrix is predicted from, and those it is applied to, pass the site together.
        both = torch.cat([compressed(g, self.weights, "cnet"), conv(g, self.weights, "matrix.compress")], 1)
        z = at(mean, conv(at(matrix, both)[:, INNER:], self.weights, "matrix.unzip"))
        z = z if self.alpha == 1.0 else self.alpha * z + (1.0 - self.alpha) * f
        return decode(z, self.weights, self.layer)

    def affine(self, site: Site, moments: Moments) -> Affine:
        """At "centre" the subtraction of the mean; at "matrix" the transformation T = T_style T_content [1,
        equation 6] of the second half of the channels; at "mean" the addition of the style's mean."""
        if site.name == "mean":
            return Affine(np.ones(site.channels), self.features["mean"].double().numpy())
        if site.name == "centre":
            return Affine(np.ones(site.channels), -moments.mean)
        mean = moments.mean[:INNER]
        second = moments.covariance()[:INNER, :INNER] + np.outer(mean, mean)
        scale = np.zeros((2 * INNER, 2 * INNER))
        style = self.features["matrix"].double()
        scale[INNER:, INNER:] = (style @ predicted(torch.from_numpy(second), self.weights, "cnet")).numpy()
        return Affine(scale, np.zeros(2 * INNER))

    def state(self) -> tuple[State, dict[str, Any]]:
        return {**self.weights, **{f"feature.{k}": v for k, v in self.features.items()}}, {
            "alpha": self.alpha,
            "layer": self.layer,
        }


def build(layer: str, states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> LinearStyle:
    """A style from the states of the three files; several images are mixed by their means and matrices.

    Raises
    ------
    BadWeights : the networks in the files have different widths.
    BadInput : the styles are no images, or too small.
    """
    check_widths(layer, states)
    weights = {
        f"{part}.{key}": t.float() for part, file in files(layer).items() for key, t in states[file].items()
    }
    mixed: State = {}
    with torch.inference_mode():
        for image, share in mixture(styles, MINIMUM[layer]):
            mean, matrix = describe(encode(image, weights, layer), weights, "snet")
            for key, values in (("mean", mean[0]), ("matrix", matrix[0])):
                mixed[key] = mixed.get(key, torch.zeros(())) + share * values
    return LinearStyle(layer, weights, {k: t.clone() for k, t in mixed.items()}, alpha)


def restore(state: State, settings: Mapping[str, Any]) -> LinearStyle:
    """The inverse of ``LinearStyle.state``."""
    features = {k.removeprefix("feature."): t for k, t in state.items() if k.startswith("feature.")}
    weights = {k: t for k, t in state.items() if k.startswith(("encoder.", "decoder.", "matrix."))}
    return LinearStyle(settings["layer"], weights, features, settings["alpha"])


def shapes(layer: str, width: float = 1.0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name and shape of every tensor of the three files, ``width`` times as wide as published."""
    widths = [max(8, round(n * width)) for n in WIDTHS[layer]]
    count, last = len(widths), widths[-1]
    encoder = {"conv1": (3, 3, 1)}
    decoder: dict[str, tuple[int, int, int]] = {}
    for k, outputs in enumerate(widths):
        inputs = widths[k - 1] if k else 3
        encoder[f"conv{k + 2}"] = (outputs, inputs, 3)
        decoder[f"conv{2 * count + 1 - k}"] = (inputs, outputs, 3)
    steps = [last, last // 2, last // 4, INNER]
    matrix = {"compress": (INNER, last, 1), "unzip": (last, INNER, 1)}
    for net in ("snet", "cnet"):
        matrix |= {f"{net}.convs.{2 * k}": (steps[k + 1], steps[k], 3) for k in range(3)}
    by_file: dict[str, dict[str, tuple[int, ...]]] = {}
    for part, layers in (("encoder", encoder), ("decoder", decoder), ("matrix", matrix)):
        keys: dict[str, tuple[int, ...]] = {}
        for name, (outputs, inputs, side) in layers.items():
            keys |= {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}
        by_file[files(layer)[part]] = keys
    for net in ("snet", "cnet"):
        square = INNER * INNER
        by_file[files(layer)["matrix"]] |= {f"{net}.fc.weight": (square, square), f"{net}.fc.bias": (square,)}
    return by_file


def channels(layer: str, state: State, file: str) -> int:
    """The number of channels of the encoder's last layer, according to one of the three files; the published
    number where the file does not show it."""
    count = len(WIDTHS[layer])
    layers = {"encoder": (f"conv{count + 1}", 0), "decoder": (f"conv{count + 2}", 1), "matrix": ("unzip", 0)}
    for part, (name, axis) in layers.items():
        weight = state.get(f"{name}.weight")
        if files(layer)[part] == file and weight is not None and weight.ndim == 4:
            return weight.shape[axis]
    return WIDTHS[layer][-1]


def check(layer: str, state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes. Networks whose layers are all narrower by the same factor
    are accepted too."""
    width = channels(layer, state, file) / WIDTHS[layer][-1]
    check_keys(state, shapes(layer, width)[file], path)


def check_widths(layer: str, states: Mapping[str, State]) -> None:
    """Raise BadWeights unless the networks of all given files have the same width."""
    names = files(layer).values()
    counts = {file: channels(layer, states[file], file) for file in names if file in states}
    if len(set(counts.values())) > 1:
        raise BadWeights(
            f"the files of linear-{layer} do not belong together; their features have"
            f" {', '.join(f'{n} channels in {file}' for file, n in counts.items())}"
        )


def seeded(layer: str, seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """States of the three files with random weights, scaled for an output of mean 0.5 and deviation 0.25 on
    `some_picture`."""
    random = np.random.default_rng(seed)
    states = {file: random_state(random, keys) for file, keys in shapes(layer, width).items()}
    image = some_picture(seed)
    output = painted(build(layer, states, [(image, 1.0)]), image)
    scale_last(states[files(layer)["decoder"]], f"conv{2 * len(WIDTHS[layer]) + 1}", output)
    return states
