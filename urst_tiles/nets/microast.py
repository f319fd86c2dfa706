"""MicroAST: arbitrary style transfer with 472 thousand weights.

It needs 27.8 thousand multiply-adds (kMAC) per pixel. The network consists of a content encoder and a style
encoder of the same form, a modulator that turns style features into a weight and a bias per channel, and a
decoder. Both kinds of style features steer the decoder's two residual blocks: the content features are given
the style's mean and standard deviation (AdaIN), and every convolution y = conv(x) becomes y = w conv(x) + b
x.

References
----------
1. Z. Wang et al., "MicroAST: Towards Super-Fast Ultra-Resolution Arbitrary Style Transfer", AAAI 2023.
2. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017.
3. Weights: github.com/EndyWon/MicroAST at 5a6c9050 (MIT), four files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
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
from urst_tiles.nets.seeding import painted, random_tensor, scale_last, some_picture
from urst_tiles.weights import check_keys

#: The probe measures a reach of 51 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "microast", 52, 4, 8
EPS, DDOF = 1e-5, 1
#: File of the original repository -> the prefix of its keys in this module.
FILES = {
    "content_encoder_iter_160000.pth.tar": "content",
    "style_encoder_iter_160000.pth.tar": "style",
    "modulator_iter_160000.pth.tar": "modulator",
    "decoder_iter_160000.pth.tar": "decoder",
}
#: Sites that depend on the style alone, in the order of the decoder.
MODULATIONS = ("weight2", "bias2", "weight1", "bias1")

#: A function of features (n, C, h, w) that multiplies each channel with a number.
Modulate = Callable[[Tensor], Tensor]


def conv(x: Tensor, state: State, name: str, stride: int = 1, groups: int = 1) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w) with reflection padding. Odd kernels keep the size, divided
    by ``stride``."""
    weight, bias = state[f"{name}.conv_layer.weight"], state[f"{name}.conv_layer.bias"]
    pad = weight.shape[2] // 2
    if pad:
        x = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    return F.conv2d(x, weight.to(x), bias.to(x), stride=stride, groups=groups)


def groups_of(state: State, name: str, channels: int) -> int:
    """The number of groups of convolution ``name`` for an input of ``channels``."""
    return channels // state[f"{name}.conv_layer.weight"].shape[1]


def residual(x: Tensor, state: State, name: str) -> Tensor:
    """The residual block x + conv(relu(conv(x)))."""
    return x + conv(F.relu(conv(x, state, f"{name}.conv1")), state, f"{name}.conv2")


def modulated(x: Tensor, state: State, name: str, weigh: Modulate, add: Modulate) -> Tensor:
    """The residual block with y = w conv(x) + b x at both convolutions [1, section 3.2]; ``weigh`` multiplies
    by w, ``add`` by b."""
    h = F.relu(weigh(conv(x, state, f"{name}.conv1")) + add(x))
    return x + weigh(conv(h, state, f"{name}.conv2")) + add(h)


def encode(x: Tensor, state: State, name: str) -> tuple[Tensor, Tensor]:
    """The encoder's outputs 1 and 2, (n, 64, h/4, w/4) each, for images (n, 3, h, w)."""
    x = F.relu(conv(x, state, f"{name}.enc1.0"))  # 16, h, w
    x = F.relu(
        conv(x, state, f"{name}.enc1.2", 2, groups_of(state, f"{name}.enc1.2", x.shape[1]))
    )  # 32, h/2, w/2
    x = F.relu(conv(x, state, f"{name}.enc1.4"))  # 32, h/2, w/2
    x = F.relu(
        conv(x, state, f"{name}.enc1.6", 2, groups_of(state, f"{name}.enc1.6", x.shape[1]))
    )  # 64, h/4, w/4
    x = F.relu(conv(x, state, f"{name}.enc1.8"))  # 64, h/4, w/4
    first = residual(x, state, f"{name}.enc1.10")  # 64, h/4, w/4
    return first, residual(first, state, f"{name}.enc2.0")  # 64, h/4, w/4


def decode(x: Tensor, state: State) -> Tensor:
    """The layers behind the two modulated blocks: (n, 64, h/4, w/4) -> (n, 3, h, w)."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # 64, h/2, w/2
    x = F.relu(
        conv(x, state, "decoder.dec3.1", 1, groups_of(state, "decoder.dec3.1", x.shape[1]))
    )  # 32, h/2, w/2
    x = F.relu(conv(x, state, "decoder.dec3.3"))  # 32, h/2, w/2
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # 32, h, w
    x = F.relu(
        conv(x, state, "decoder.dec3.6", 1, groups_of(state, "decoder.dec3.6", x.shape[1]))
    )  # 16, h, w
    x = F.relu(conv(x, state, "decoder.dec3.8"))  # 16, h, w
    return conv(x, state, "decoder.dec3.10")  # 3, h, w


class MicroASTStyle:
    """The weights of MicroAST with a style.

    Parameters
    ----------
    weights : keys ``content.*`` and ``decoder.*`` of the original files.
    features : "mean1", "std1", "weight1", "bias1", "mean2", ..., float64 (64,) each: the style at the
        encoder's outputs 1 and 2.
    alpha : strength; the output is mixed with the input. The original mixes features at both sites instead.
        As their deviations differ by a factor of 5 to 10, its output leaves 0..1 almost everywhere for any
        alpha between 0.05 and 0.95 (measured: a mean of 4.8 at alpha 0.5), so only alpha 1 follows the
        original.
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 450.0
    encoder_bytes = 200.0  # the same up to the sites

    def __init__(self, weights: State, features: State, alpha: float = 1.0):
        self.weights, self.features, self.alpha = dict(weights), dict(features), checked_alpha(alpha)
        channels = len(features["mean1"])
        self.sites: tuple[Site, ...] = (
            Site("content", channels, STRIDE, EPS, DDOF, halo=24, plain_bytes=self.encoder_bytes),
            Site("decoder", channels, STRIDE, EPS, DDOF, halo=32, plain_bytes=self.encoder_bytes),
            *(Site(name, channels, STRIDE, 0.0, 0, measured=False) for name in MODULATIONS),
        )

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        content, decoder, *modulations = self.sites
        weigh2, add2, weigh1, add1 = (partial(at, site) for site in modulations)
        z = encode(x, self.weights, "content")[1]  # 64, h/4, w/4
        z = modulated(at(content, z), self.weights, "decoder.dec1", weigh2, add2)  # 64, h/4, w/4
        z = modulated(at(decoder, z), self.weights, "decoder.dec2", weigh1, add1)  # 64, h/4, w/4
        y = decode(z, self.weights)  # 3, h, w
        return y if self.alpha == 1.0 else self.alpha * y + (1.0 - self.alpha) * x

    def affine(self, site: Site, moments: Moments) -> Affine:
        """AdaIN [2, equation 8], which gives features of these ``moments`` the mean and deviation of the
        style; or, where the site is not measured, the multiplication of a modulation."""
        if not site.measured:
            return Affine(self.features[site.name].double().cpu().numpy(), np.zeros(site.channels))
        which = "2" if site.name == "content" else "1"
        mean, std = (self.features[part + which].double().cpu().numpy() for part in ("mean", "std"))
        scale = std / moments.std(site.eps, site.ddof)
        return Affine(scale, mean - scale * moments.mean)

    def state(self) -> tuple[State, dict[str, Any]]:
        return {**self.weights, **{f"feature.{k}": v for k, v in self.features.items()}}, {
            "alpha": self.alpha
        }


def style_features(image: Tensor, weights: State) -> State:
    """The values that a style image (1, 3, h, w) gives the decoder, float64 (64,) each."""
    features = {}
    for which, x in zip("12", encode(image, weights, "style"), strict=True):
        moments = Moments.of(x[0].flatten(1).numpy())
        features["mean" + which] = torch.from_numpy(moments.mean)
        features["std" + which] = torch.from_numpy(moments.std(EPS, DDOF))
        for part in ("weight", "bias"):
            signal = conv(x, weights, f"modulator.{part}{which}.0", groups=x.shape[1])
            features[part + which] = signal.double().mean((0, 2, 3))
    return features


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> MicroASTStyle:
    """A style from the states of the four ``FILES``; several images are mixed by their features."""
    weights = {
        f"{prefix}.{key}": t.float() for file, prefix in FILES.items() for key, t in states[file].items()
    }
    mixed: State = {}
    with torch.inference_mode():
        for image, share in mixture(styles, MINIMUM):
            for name, values in style_features(image, weights).items():
                mixed[name] = mixed.get(name, torch.zeros(())) + share * values
    needed = {key: t for key, t in weights.items() if key.startswith(("content.", "decoder."))}
    return MicroASTStyle(needed, mixed, alpha)


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes in one of the four ``FILES``."""
    check_keys(state, shapes()[file], path)


def restore(state: State, settings: Mapping[str, Any]) -> MicroASTStyle:
    """The inverse of ``MicroASTStyle.state``."""
    features = {k.removeprefix("feature."): t for k, t in state.items() if k.startswith("feature.")}
    weights = {k: t for k, t in state.items() if k.startswith(("content.", "decoder."))}
    return MicroASTStyle(weights, features, settings["alpha"])


def shapes(width: float = 1.0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name and shape of every tensor of the four ``FILES``, ``width`` times as wide as published."""
    a, b, c = (max(2, round(n * width)) for n in (16, 32, 64))
    res = {f"{part}.conv{i}": (c, c, 3, 3) for part in ("enc1.10", "enc2.0") for i in (1, 2)}
    encoder = {"enc1.0": (a, 3, 9, 9), "enc1.2": (b, 1, 3, 3), "enc1.4": (b, b, 1, 1), "enc1.6": (c, 1, 3, 3)}
    encoder |= {"enc1.8": (c, c, 1, 1), **res}
    decoder = {f"{part}.conv{i}": (c, c, 3, 3) for part in ("dec1", "dec2") for i in (1, 2)}
    decoder |= {"dec3.1": (b, c // b, 3, 3), "dec3.3": (b, b, 1, 1), "dec3.6": (a, b // a, 3, 3)}
    decoder |= {"dec3.8": (a, a, 1, 1), "dec3.10": (3, a, 9, 9)}
    modulator = {f"{part}{i}.0": (c, 1, 3, 3) for part in ("weight", "bias") for i in (1, 2)}
    convs = dict(zip(FILES, (encoder, encoder, modulator, decoder), strict=True))
    return {file: _with_bias(layers) for file, layers in convs.items()}


def _with_bias(layers: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights and biases, by key, of convolutions given by the shape of their weights."""
    keys: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        keys[f"{name}.conv_layer.weight"] = shape
        keys[f"{name}.conv_layer.bias"] = shape[:1]
    return keys


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """States of the four files with random weights that keep the signal alive: He's scaling, and biases.

    Products of random filter modulations scatter over orders of magnitude, so the last convolution is scaled
    for an output of mean 0.5 and deviation 0.25 on `some_picture`.
    """
    random = np.random.default_rng(seed)
    states: dict[str, State] = {}
    for file, keys in shapes(width).items():
        bias = 0.5 if file.startswith("modulator") else 0.1
        states[file] = {key: random_tensor(random, shape, bias) for key, shape in keys.items()}
    image = some_picture(seed)
    output = painted(build(states, [(image, 1.0)]), image)
    scale_last(states["decoder_iter_160000.pth.tar"], "dec3.10.conv_layer", output)
    return states
