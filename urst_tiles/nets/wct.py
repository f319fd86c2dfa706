"""WCT: five levels of whitening and colouring, from relu5_1 down to relu1_1, or its last three.

Each level has an encoder (VGG-19, or a network with a sixteenth of its weights), a site where the features
are given the style's mean and covariance, and a decoder that turns them into an image. The next level starts
from that image.

References
----------
1. Y. Li et al., "Universal Style Transfer via Feature Transforms", NIPS 2017.
2. H. Wang et al., "Collaborative Distillation for Ultra-Resolution Universal Style Transfer", CVPR 2020: the
   small encoders and decoders, github.com/MingSun-Tse/Collaborative-Distillation at 4a269dc9 (MIT).
3. X. Li et al., "Learning Linear Transformations for Fast Image and Video Style Transfer", CVPR 2019: the
   encoder and the decoder of level 3 of "wct-3" are those of github.com/sunshineatnoon/LinearStyleTransfer
   (BSD-2-Clause), and the files of its other levels are laid out likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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
from urst_tiles.nets.own_statistics import live
from urst_tiles.nets.seeding import as_tensor, random_state, scale_last, some_picture
from urst_tiles.weights import check_keys

Float = NDArray[np.float64]

#: The levels in the order in which they run, by model: level k works on the features relu``k``_1.
LEVELS_OF = {"wct": (5, 4, 3, 2, 1), "wct-16x": (5, 4, 3, 2, 1), "wct-3": (3, 2, 1)}
LEVELS = LEVELS_OF["wct"]
#: The probe measures a reach of 246 pixels for five levels together and 30 for three
#: (tests/nets/test_probe.py).
HALO = {"wct": 256, "wct-16x": 256, "wct-3": 32}
STRIDE = {"wct": 16, "wct-16x": 16, "wct-3": 4}
MINIMUM = {"wct": 32, "wct-16x": 32, "wct-3": 8}
#: Halo in pixels of the input of each level's site, by the first level.
HALOS = {5: {5: 80, 4: 192, 3: 224, 2: 240, 1: 256}, 3: {3: 12, 2: 28, 1: 32}}
#: EPS is the share of the mean variance that is added to every variance before whitening, so that whitening
#: cannot amplify without bound. The original instead leaves out directions of variance below 1e-5, and
#: amplifies rounding errors a hundredfold just above that; URST adds 1, about all of the mean variance.
EPS, DDOF = 1e-2, 1
#: The least that is added to variances, for features whose mean is about 1: flat images are not amplified.
FLOOR = 1e-4
#: Number of convolutions in each stage of VGG-19 below an encoder's last stage.
DEPTH = {1: 2, 2: 2, 3: 4, 4: 4}
#: Output channels of each stage's convolutions, by model. Levels whose layers are all narrower by the same
#: factor can be read too, so "wct" takes the networks of [2], and networks trained from them, under the file
#: names of "wct".
WIDTHS = {
    "wct": (64, 128, 256, 512, 512),
    "wct-16x": (16, 32, 64, 128, 128),
    "wct-3": (64, 128, 256, 512, 512),
}
#: Channels of level 1, by model: in [2] its encoder is wider than the first layer of the other encoders.
FIRST = {"wct": 64, "wct-16x": 24, "wct-3": 64}
#: (file of the encoder, file of the decoder) of each level, by model.
FILES = {
    "wct": {k: (f"vgg_normalised_conv{k}_1.pth", f"feature_invertor_conv{k}_1.pth") for k in LEVELS},
    "wct-16x": {k: (f"{k}SE.pth", f"{k}SD.pth") for k in LEVELS},
    "wct-3": {k: (f"encoder{k}.pth", f"decoder{k}.pth") for k in LEVELS_OF["wct-3"]},
}


def layers(level: int) -> list[str]:
    """The encoder's 3x3 convolutions in order: "11", "12", "21", ..., "51". The decoder has them in reverse
    order."""
    return [f"{s}{k}" for s in range(1, level) for k in range(1, DEPTH[s] + 1)] + [f"{level}1"]


def renamed(state: State, level: int) -> State:
    """The tensors of a file under the names of [1] (conv0, conv11, ...), whose layers may also be numbered as
    in [3]: conv1, conv2, ..., and in the decoder on from the encoder's last."""
    names = layers(level)
    encoder = dict(zip((f"conv{k}" for k in range(1, len(names) + 2)), ["0", *names], strict=True))
    start = len(names) + 2
    decoder = {f"conv{start + k}": name for k, name in enumerate(reversed(names))}
    layer_names = {key.rsplit(".", 1)[0] for key in state}
    for numbered in (encoder, decoder):
        if layer_names == set(numbered):
            return {
                f"conv{numbered[k]}.{part}": t for key, t in state.items() for k, part in [key.rsplit(".", 1)]
            }
    return state


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """3x3 convolution ``name`` of ``x`` (n, C, h, w) with reflection padding, then ReLU."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.relu(F.conv2d(x, state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x)))


def encode(x: Tensor, state: State, level: int) -> Tensor:
    """(n, 3, h, w) -> relu``level``_1; the size is halved from stage to stage."""
    side = f"encoder{level}"
    x = F.conv2d(x, state[f"{side}.conv0.weight"].to(x), state[f"{side}.conv0.bias"].to(x))
    for name in layers(level):
        if name[1] == "1" and name[0] != "1":
            x = F.max_pool2d(x, 2)
        x = conv(x, state, f"{side}.conv{name}")
    return x


def decode(x: Tensor, state: State, level: int) -> Tensor:
    """relu``level``_1 -> (n, 3, h, w), with nearest enlargement, and ReLU behind the last layer too."""
    for name in reversed(layers(level)):
        x = conv(x, state, f"decoder{level}.conv{name}")
        if name[1] == "1" and name[0] != "1":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
    return x


class WCTStyle:
    """The weights of WCT with a style.

    Parameters
    ----------
    name : "wct", "wct-16x" or "wct-3".
    weights : keys ``encoder5.conv0.weight``, ..., ``decoder1.conv11.bias``.
    features : the style at each level, float64: "mean5" (C,), "covariance5" (C, C), ...
    alpha : content-style trade-off at each level, alpha f_cs + (1 - alpha) f_c [1, equation 5].
    """

    def __init__(self, name: str, weights: State, features: State, alpha: float = 1.0):
        self.name, self.weights, self.features = name, dict(weights), dict(features)
        self.halo, self.stride, self.minimum = HALO[name], STRIDE[name], MINIMUM[name]
        self.levels = LEVELS_OF[name]
        halos = HALOS[self.levels[0]]
        self.alpha = checked_alpha(alpha)
        self.plain_bytes = 520.0 * weights["encoder2.conv11.bias"].shape[0] / 16
        self.sites: tuple[Site, ...] = tuple(
            Site(f"relu{k}_1", len(features[f"mean{k}"]), 2 ** (k - 1), EPS, DDOF, full=True, halo=halos[k])
            for k in self.levels
        )

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        for level, site in zip(self.levels, self.sites, strict=True):
            x = decode(at(site, encode(x, self.weights, level)), self.weights, level)
        return x

    def affine(self, site: Site, moments: Moments) -> Affine:
        """Whitening of features with these ``moments``, colouring by the style's [1, section 3.2], blended
        with the identity by alpha."""
        level = site.name[4]
        mean, covariance = (self._feature(f"{part}{level}") for part in ("mean", "covariance"))
        return transfer(moments, mean, covariance).blend(self.alpha)

    def _feature(self, name: str) -> Float:
        return self.features[name].double().cpu().numpy()

    def state(self) -> tuple[State, dict[str, Any]]:
        return {**self.weights, **{f"feature.{k}": v for k, v in self.features.items()}}, {
            "alpha": self.alpha,
            "model": self.name,
        }


def transfer(content: Moments, mean: Float, covariance: Float) -> Affine:
    """The map that whitens by the content's statistics and colours by the style's mean and covariance [1,
    section 3.2]."""
    spread = content.covariance(DDOF)
    ridge = FLOOR + EPS * np.trace(spread) / len(spread)
    scale = power(covariance, 0.5) @ power(spread + ridge * np.eye(len(spread)), -0.5)
    return Affine(scale, mean - scale @ content.mean)


def power(covariance: Float, exponent: float) -> Float:
    """A power of a covariance, float64 (C, C)."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, np.finfo(np.float64).tiny) ** exponent) @ vectors.T


def build(name: str, states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> WCTStyle:
    """A style from the states of the ``FILES`` of a model; several images are mixed by their means and
    covariances.

    Raises
    ------
    BadWeights : a level's encoder and decoder have different numbers of channels.
    BadInput : the styles are no images, or too small.
    """
    weights: State = {}
    for level, files in FILES[name].items():
        for side, file in zip(("encoder", "decoder"), files, strict=True):
            state = renamed(needed(states[file]), level)
            weights |= {f"{side}{level}.{key}": t.float() for key, t in state.items()}
        check_pair(weights, level, files)
    mixed: State = {}
    with torch.inference_mode():
        for image, share in mixture(styles, MINIMUM[name]):
            for level in LEVELS_OF[name]:
                moments = Moments.of(encode(image, weights, level)[0].flatten(1).numpy(), full=True)
                parts = {f"mean{level}": moments.mean, f"covariance{level}": moments.covariance(DDOF)}
                for key, values in parts.items():
                    mixed[key] = mixed.get(key, torch.zeros(())) + share * torch.from_numpy(values)
    return WCTStyle(name, weights, mixed, alpha)


def needed(state: State) -> State:
    """The state without the heads that were used in the training of the encoders of [2]."""
    return {key: t for key, t in state.items() if not key.rsplit(".", 1)[0].endswith("_aux")}


def check_pair(weights: State, level: int, files: tuple[str, str]) -> None:
    """Raise BadWeights where a level's encoder and decoder have different numbers of channels."""
    gives = weights[f"encoder{level}.conv{level}1.weight"].shape[0]
    takes = weights[f"decoder{level}.conv{level}1.weight"].shape[1]
    if gives != takes:
        raise BadWeights(f"{files[0]} gives {gives} channels, {files[1]} takes {takes}")


def check(name: str, state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes."""
    state = renamed(needed(state), level_of(name, file))
    check_keys(state, shapes(name, width_of(name, state, file))[file], path)


def level_of(name: str, file: str) -> int:
    """The level to which a file of a model belongs."""
    return next(k for k, files in FILES[name].items() if file in files)


def width_of(name: str, state: State, file: str) -> float:
    """The width of a file's network as a fraction of the published width; 1 where the file has no such
    network."""
    level = level_of(name, file)
    first = state.get("conv11.weight")
    if first is None or first.ndim != 4:
        return 1.0
    channels = first.shape[0 if file == FILES[name][level][0] else 1]
    return channels / (FIRST[name] if level == 1 else WIDTHS[name][0])


def restore(state: State, settings: Mapping[str, Any]) -> WCTStyle:
    """The inverse of ``WCTStyle.state``."""
    features = {k.removeprefix("feature."): t for k, t in state.items() if k.startswith("feature.")}
    weights = {k: t for k, t in state.items() if k.startswith(("encoder", "decoder"))}
    return WCTStyle(settings["model"], weights, features, settings["alpha"])


def shapes(name: str, width: float = 1.0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name and shape of every needed tensor of a model's files, ``width`` times as wide as published."""

    def wide(n: int) -> int:
        return max(8, round(n * width))

    keys: dict[str, dict[str, tuple[int, ...]]] = {}
    for level, (encoder, decoder) in FILES[name].items():
        down: dict[str, tuple[int, ...]] = {"conv0.weight": (3, 3, 1, 1), "conv0.bias": (3,)}
        up: dict[str, tuple[int, ...]] = {}
        inputs = 3
        for layer in layers(level):
            outputs = wide(FIRST[name] if level == 1 else WIDTHS[name][int(layer[0]) - 1])
            down |= {f"conv{layer}.weight": (outputs, inputs, 3, 3), f"conv{layer}.bias": (outputs,)}
            up |= {f"conv{layer}.weight": (inputs, outputs, 3, 3), f"conv{layer}.bias": (inputs,)}
            inputs = outputs
        keys |= {encoder: down, decoder: up}
    return keys


def seeded(name: str, seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """States of a model's files with random weights that keep the signal alive: He's scaling, and the last
    layer of each decoder scaled for an output of mean 0.5 and deviation 0.25 on `some_picture`."""
    random = np.random.default_rng(seed)
    states = {file: random_state(random, keys) for file, keys in shapes(name, width).items()}
    for encoder, _ in FILES[name].values():
        states[encoder]["conv0.weight"] = torch.eye(3)[:, :, None, None]
    image = some_picture(seed)
    x = as_tensor(image)
    for level, (_, decoder) in FILES[name].items():
        style = build(name, states, [(image, 1.0)])
        site = style.sites[style.levels.index(level)]
        with torch.inference_mode():
            z = live(style)(site, encode(x, style.weights, level))
            before = {**style.weights, f"decoder{level}.conv11.bias": torch.full((3,), 100.0)}
            y = decode(z, before, level) - 100.0
        states[decoder]["conv11.bias"] = torch.zeros(3)
        scale_last(states[decoder], "conv11", y)
    return states
