"""AdaIN: arbitrary style transfer with a VGG-19 encoder, 0.5 million multiply-adds (MMAC) per pixel.

The encoder is VGG-19 up to relu4_1, in the normalised variant with a 1x1 input layer and reflection padding.
Its features are given the mean and standard deviation of the style's features, and the mirrored decoder
(nearest enlargement, no normalisation) turns them into an image.

References
----------
1. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017.
2. L. Gatys, A. Ecker, M. Bethge, "Texture Synthesis Using Convolutional Neural Networks", NIPS 2015: the
   normalised VGG-19.
3. File layout: github.com/naoto0804/pytorch-AdaIN, release v0.0.0, two ``nn.Sequential`` states.
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

#: The probe measures a reach of 62 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "adain", 64, 8, 16
#: Halo of the site's input, in pixels.
ENCODER_HALO = 32
EPS, DDOF = 1e-5, 1
ENCODER, DECODER = "vgg_normalised.pth", "decoder.pth"
#: Index of each convolution in its ``nn.Sequential`` -> (inputs, outputs) at full width. All kernels are 3x3,
#: except the encoder's first, which is 1x1. Networks whose inner layers are all narrower by the same factor
#: can be read too.
ENCODER_CONVS = {
    0: (3, 3),
    2: (3, 64),
    5: (64, 64),
    9: (64, 128),
    12: (128, 128),
    16: (128, 256),
    19: (256, 256),
    22: (256, 256),
    25: (256, 256),
    29: (256, 512),
}
DECODER_CONVS = {
    1: (512, 256),
    5: (256, 256),
    8: (256, 256),
    11: (256, 256),
    14: (256, 128),
    18: (128, 128),
    21: (128, 64),
    25: (64, 64),
    28: (64, 3),
}
#: Keys of the published encoder file that lie beyond relu4_1 (up to relu5_4) and are not needed.
BEYOND = tuple(f"{i}.{part}" for i in (32, 35, 38, 42, 45, 48, 51) for part in ("weight", "bias"))
#: Convolutions of the encoder that 2x2 maximum pooling follows, and convolutions of the decoder that nearest
#: enlargement precedes.
POOL_AFTER, ENLARGE_BEFORE = (5, 12, 25), (5, 18, 25)


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """3x3 convolution ``name`` with reflection padding."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(x, state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x))


def encode(x: Tensor, state: State) -> Tensor:
    """(n, 3, h, w) -> relu4_1 (n, 512, h/8, w/8)."""
    x = F.conv2d(x, state["encoder.0.weight"].to(x), state["encoder.0.bias"].to(x))  # 3, h, w
    for i in list(ENCODER_CONVS)[1:]:  # 64 x 2, pool, 128 x 2, pool, 256 x 4, pool, 512
        x = F.relu(conv(x, state, f"encoder.{i}"))
        if i in POOL_AFTER:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return x


def decode(x: Tensor, state: State) -> Tensor:
    """(n, 512, h/8, w/8) -> (n, 3, h, w)."""
    for i in DECODER_CONVS:  # 256, double, 256 x 3, 128, double, 128, 64, double, 64, 3
        if i in ENLARGE_BEFORE:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = conv(x, state, f"decoder.{i}")
        x = x if i == 28 else F.relu(x)
    return x


class AdaINStyle:
    """The weights of AdaIN with a style.

    Parameters
    ----------
    weights : keys ``encoder.*`` up to relu4_1 and ``decoder.*``.
    features : "mean" and "std" of the style at relu4_1, float64 (512,).
    alpha : content-style trade-off, t <- (1 - alpha) f(c) + alpha t [1, equation 14].
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 1260.0

    def __init__(self, weights: State, features: State, alpha: float = 1.0):
        self.weights, self.features, self.alpha = dict(weights), dict(features), checked_alpha(alpha)
        site = Site("relu4_1", len(features["mean"]), STRIDE, EPS, DDOF, halo=ENCODER_HALO)
        self.sites: tuple[Site, ...] = (site,)

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        t = at(self.sites[0], encode(x, self.weights))  # 512, h/8, w/8
        return decode(t, self.weights)  # 3, h, w

    def affine(self, site: Site, moments: Moments) -> Affine:
        """AdaIN [1, equation 8], which gives features of these ``moments`` the mean and deviation of the
        style, blended with the identity by alpha."""
        mean, std = (self.features[part].double().cpu().numpy() for part in ("mean", "std"))
        scale = std / moments.std(site.eps, site.ddof)
        return Affine(scale, mean - scale * moments.mean).blend(self.alpha)

    def state(self) -> tuple[State, dict[str, Any]]:
        return {**self.weights, **{f"feature.{k}": v for k, v in self.features.items()}}, {
            "alpha": self.alpha
        }


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> AdaINStyle:
    """A style from the states of the two files. Several images are mixed by their means and deviations [1,
    equation 15].

    Raises
    ------
    BadWeights : encoder and decoder have different numbers of channels.
    BadInput : the styles are no images, or too small.
    """
    weights = {
        f"encoder.{i}.{part}": states[ENCODER][f"{i}.{part}"]
        for i in ENCODER_CONVS
        for part in ("weight", "bias")
    }
    weights |= {f"decoder.{key}": t for key, t in states[DECODER].items()}
    weights = {key: t.float() for key, t in weights.items()}
    channels, taken = len(weights["encoder.29.bias"]), weights["decoder.1.weight"].shape[1]
    if channels != taken:
        raise BadWeights(
            f"{ENCODER} gives {channels} channels, {DECODER} takes {taken}: they do not belong together"
        )
    mean, std = np.zeros(channels), np.zeros(channels)
    with torch.inference_mode():
        for image, share in mixture(styles, MINIMUM):
            moments = Moments.of(encode(image, weights)[0].flatten(1).numpy())
            mean, std = mean + share * moments.mean, std + share * moments.std(EPS, DDOF)
    return AdaINStyle(weights, {"mean": torch.from_numpy(mean), "std": torch.from_numpy(std)}, alpha)


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes in one of the two files. Networks whose inner layers are all
    narrower by the same factor are accepted too."""
    needed = {key: t for key, t in state.items() if file == DECODER or key not in BEYOND}
    check_keys(needed, shapes(width_of(state, file))[file], path)


def restore(state: State, settings: Mapping[str, Any]) -> AdaINStyle:
    """The inverse of ``AdaINStyle.state``."""
    features = {k.removeprefix("feature."): t for k, t in state.items() if k.startswith("feature.")}
    weights = {k: t for k, t in state.items() if k.startswith(("encoder.", "decoder."))}
    return AdaINStyle(weights, features, settings["alpha"])


def shapes(width: float = 1.0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name and shape of every needed tensor of the two files, ``width`` times as wide as VGG-19."""

    def wide(n: int) -> int:
        return n if n == 3 else max(2, round(n * width))

    keys: dict[str, dict[str, tuple[int, ...]]] = {}
    for file, convs in ((ENCODER, ENCODER_CONVS), (DECODER, DECODER_CONVS)):
        keys[file] = {}
        for i, (inputs, outputs) in convs.items():
            side = 1 if file == ENCODER and i == 0 else 3
            keys[file][f"{i}.weight"] = (wide(outputs), wide(inputs), side, side)
            keys[file][f"{i}.bias"] = (wide(outputs),)
    return keys


def width_of(state: State, file: str) -> float:
    """The width of a file's network as a fraction of the full width; 1 where the file has no such network."""
    inner = state.get("2.bias" if file == ENCODER else "25.bias")
    return 1.0 if inner is None else inner.numel() / 64


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """States of the two files with random weights that keep the signal alive: He's scaling, and an output of
    mean 0.5 and deviation 0.25 on `some_picture`."""
    random = np.random.default_rng(seed)
    states = {file: random_state(random, keys) for file, keys in shapes(width).items()}
    image = some_picture(seed)
    scale_last(states[DECODER], "28", painted(build(states, [(image, 1.0)]), image))
    return states
