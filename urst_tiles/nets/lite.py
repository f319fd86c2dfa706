"""lite: this package's own network for arbitrary styles.

It has 0.42 million weights and needs 26.5 thousand multiply-adds (kMAC) per pixel. The image is first given
the colours of the style by a linear map in closed form. Then a residual network on cells of 4 x 4 pixels
paints strokes onto it: in each of its five blocks the features are given the mean and deviation of the style
image's features, which went through the same layers. There is no style encoder, and nothing is predicted. A
style is therefore 652 numbers, and a frozen network is twelve convolutions, all of them dense.

References
----------
1. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017: the sites in the blocks.
2. F. Pitie and A. Kokaram, "The Linear Monge-Kantorovitch Linear Colour Mapping for Example-Based Colour
   Transfer", CVMP 2007: the map of colours.
3. W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
   Convolutional Neural Network", CVPR 2016: cells of pixels as channels, and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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
    shares,
    style_tensor,
)
from urst_tiles.nets.seeding import as_tensor, painted, random_state, some_picture
from urst_tiles.weights import check_keys

Float = NDArray[np.float64]

#: The probe measures a reach of 48 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "lite", 48, 4, 8
#: Variances below EPS (a deviation of 0.03 in features of order 1) are not amplified further.
EPS, DDOF = 1e-3, 1
#: The same for the variances of colours: a deviation of 0.01, which is 2.5 levels of 255.
COLOUR_EPS = 1e-4
BLOCKS, CHANNELS = 5, 64
COLOUR = "colour"
FILE = "lite.safetensors"

#: A function of (the name of a site, features) that gives the features with other statistics.
Steer = Callable[[str, Tensor], Tensor]


def blocks() -> list[str]:
    """The names of the residual blocks, each of which has a site."""
    return [f"block{k}" for k in range(1, BLOCKS + 1)]


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """3x3 convolution ``name`` of ``x`` (n, C, h, w) with reflection padding, in the type of ``x``."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(x, state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x))


def strokes(cells: Tensor, state: State, steer: Steer) -> Tensor:
    """The strokes to be added to the image, from the image, both as cells of 4 x 4 pixels: (n, 48, h/4, w/4)
    -> same shape.

    ``steer`` is called once in each block, with the features at its site.
    """
    z = conv(cells, state, "enter")  # 64, h/4, w/4
    for name in blocks():
        h = steer(name, conv(z, state, f"{name}.a"))
        z = z + conv(F.relu(h), state, f"{name}.b")
    return conv(z, state, "leave")


def to_cells(x: Tensor) -> Tensor:
    """Pixels as cells: (n, 3, h, w) in 0..1 -> (n, 48, h/4, w/4) around 0."""
    return F.pixel_unshuffle(x - 0.5, STRIDE)


class LiteStyle:
    """The weights of lite with a style.

    Parameters
    ----------
    weights : the tensors that ``shapes`` names.
    features : the style's statistics, float64: "colour.mean" (3,), "colour.covariance" (3, 3), and
        "block1.mean", "block1.std", ..., (64,) each.
    alpha : strength; the map of every site is blended with the identity, and the strokes are scaled.
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 145.0

    def __init__(self, weights: State, features: State, alpha: float = 1.0):
        self.weights, self.features, self.alpha = dict(weights), dict(features), checked_alpha(alpha)
        channels = len(features["block1.mean"])
        self.sites: tuple[Site, ...] = (
            Site(COLOUR, 3, 1, COLOUR_EPS, DDOF, full=True, halo=0),
            *(
                Site(name, channels, STRIDE, EPS, DDOF, halo=2 * k * STRIDE)
                for k, name in enumerate(blocks(), 1)
            ),
        )

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        sites = {site.name: site for site in self.sites}
        y = at(sites[COLOUR], x)
        painted = strokes(to_cells(y), self.weights, lambda name, h: at(sites[name], h))
        return y + self.alpha * F.pixel_shuffle(painted, STRIDE)

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The map that replaces ``moments`` by the style's statistics: of colours [2], or of features [1,
        equation 8]."""
        mean = self._feature(f"{site.name}.mean")
        if site.full:
            scale = monge_kantorovich(
                moments.covariance(site.ddof), self._feature(f"{site.name}.covariance"), site.eps
            )
            return Affine(scale, mean - scale @ moments.mean).blend(self.alpha)
        scale = self._feature(f"{site.name}.std") / moments.std(site.eps, site.ddof)
        return Affine(scale, mean - scale * moments.mean).blend(self.alpha)

    def _feature(self, name: str) -> Float:
        return self.features[name].double().cpu().numpy()

    def state(self) -> tuple[State, dict[str, Any]]:
        return {**self.weights, **{f"feature.{k}": v for k, v in self.features.items()}}, {
            "alpha": self.alpha
        }


def monge_kantorovich(source: Float, target: Float, eps: float) -> Float:
    """The symmetric map, float64 (3, 3), that gives colours of covariance ``source`` the covariance
    ``target`` and moves them least.

    It is S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2 [2, equation 10], where S and T are source and target with ``eps``
    added to the variances.
    """
    ridge = eps * np.eye(len(source))
    values, vectors = np.linalg.eigh(source + ridge)
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    values, vectors = np.linalg.eigh(root @ (target + ridge) @ root)
    return inverse @ (vectors * np.sqrt(values)) @ vectors.T @ inverse


def style_features(image: Tensor, weights: State) -> State:
    """The statistics of a style image (1, 3, h, w) at every site, float64; its sides are first cropped to
    whole cells."""
    h, w = (side // STRIDE * STRIDE for side in image.shape[2:])
    image = image[:, :, :h, :w]
    colours = Moments.of(image[0].flatten(1).numpy(), full=True)
    features = {f"{COLOUR}.mean": colours.mean, f"{COLOUR}.covariance": colours.covariance(DDOF)}

    def look(name: str, h: Tensor) -> Tensor:
        moments = Moments.of(h[0].flatten(1).numpy())
        features.update({f"{name}.mean": moments.mean, f"{name}.std": moments.std(EPS, DDOF)})
        return h

    strokes(to_cells(image), weights, look)
    return {name: torch.from_numpy(values) for name, values in features.items()}


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> LiteStyle:
    """A style from the state of ``FILE``. Several styles, images or the features of named styles, are mixed
    by their statistics."""
    weights = {key: t.float() for key, t in states[FILE].items()}
    mixed: State = {}
    with torch.inference_mode():
        for style, share in shares(styles):
            if not isinstance(style, Mapping):
                style = style_features(style_tensor(style, MINIMUM), weights)
            for name, values in style.items():
                mixed[name] = mixed.get(name, torch.zeros(())) + share * values
    return LiteStyle(weights, mixed, alpha)


def feature_shapes(channels: int = CHANNELS) -> dict[str, tuple[int, ...]]:
    """Name and shape of each of a style's statistics."""
    shapes: dict[str, tuple[int, ...]] = {f"{COLOUR}.mean": (3,), f"{COLOUR}.covariance": (3, 3)}
    return shapes | {f"{name}.{part}": (channels,) for name in blocks() for part in ("mean", "std")}


def pack(features: State) -> Tensor:
    """A style's statistics as a vector, float32 (652,), in the order of ``feature_shapes``."""
    return torch.cat([features[name].float().flatten() for name in feature_shapes()])


def unpack(vector: Tensor) -> State:
    """The statistics in a vector made by ``pack``, float64."""
    parts = vector.double().split([prod(shape) for shape in feature_shapes().values()])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(feature_shapes().items(), parts, strict=True)
    }


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes."""
    check_keys(state, shapes(), path)


def restore(state: State, settings: Mapping[str, Any]) -> LiteStyle:
    """The inverse of ``LiteStyle.state``."""
    features = {k.removeprefix("feature."): t for k, t in state.items() if k.startswith("feature.")}
    weights = {k: t for k, t in state.items() if k.startswith(("enter.", "leave.", "block"))}
    return LiteStyle(weights, features, settings["alpha"])


def shapes(width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of ``FILE``, ``width`` times as wide as the network of the package."""
    c, cell = max(2, round(CHANNELS * width)), 3 * STRIDE**2
    layers = {"enter": (c, cell), "leave": (cell, c)}
    layers |= {f"{name}.{part}": (c, c) for name in blocks() for part in "ab"}
    keys: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in layers.items():
        keys |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    return keys


def initial(seed: int = 0, width: float = 1.0) -> State:
    """Random weights to start a training from: He's scaling, small outputs of all branches, and at first the
    same colour for all pixels of a cell, so that no grid is visible."""
    random = np.random.default_rng(seed)
    gains = {"enter": 1.0, "leave": 0.02, "a": 2.0, "b": 0.1}
    state: State = {}
    for key, shape in shapes(width).items():
        name, part = key.rsplit(".", 1)
        values = np.zeros(shape)
        if part == "weight":
            gain = gains[name.rsplit(".", 1)[-1]]
            values = random.normal(0.0, (gain / np.prod(shape[1:])) ** 0.5, shape)
        if name == "leave":
            values = np.repeat(values[:3], STRIDE**2, axis=0)
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """The state of ``FILE`` with random weights that keep the signal alive: strokes of deviation 0.25 on
    `some_picture`, and He's scaling in all blocks."""
    state = random_state(np.random.default_rng(seed), shapes(width))
    image = some_picture(seed)
    added = painted(build({FILE: state}, [(image, 1.0)]), image) - as_tensor(image)
    for part in ("weight", "bias"):
        state[f"leave.{part}"] *= 0.25 / added.std()
    return {FILE: state}
