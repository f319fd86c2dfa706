"""Multimodal transfer: three feed-forward networks in sequence, each at twice the resolution of the one
before.

The style subnet paints coarse strokes, from colours and luminance separately. The enhance subnet, which has
more layers, strengthens them. The refine subnet adds fine texture to its input. The style is in the weights.

The original takes a small image of 256 pixels and enlarges it: 256, 512, 1024. Here the output is as large as
the input, so the input is first reduced to the means of 4 x 4 pixels, and the three subnets work at a
quarter, a half and all of the resolution. Details of the input that are finer than 4 pixels do not reach the
output.

The checkpoint is one file with the states of the three subnets, with keys such as
``style_subnet.rgb_conv1.conv2d.weight``. The authors of [2] publish three pickled modules; the file is made
from their ``state_dict``.

References
----------
1. X. Wang, G. Oxholm, D. Zhang, Y.-F. Wang, "Multimodal Transfer: A Hierarchical Deep Convolutional Neural
   Network for Fast Artistic Style Transfer", CVPR 2017.
2. Layers and names: github.com/FeliMe/multimodal_style_transfer, where norms of the style subnet have
   ``scale`` and ``shift``; in github.com/czczup/URST all have ``weight`` and ``bias``, (1, C, 1, 1). Both are
   read.
"""

from __future__ import annotations

import re
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
    one_checkpoint,
)
from urst_tiles.nets.multimodal_layers import (
    LAYERS,
    MEAN,
    SCALES,
    STD,
    SUBNETS,
    Layer,
    Run,
    clamped,
    key_of,
    of_channels,
    paint,
)
from urst_tiles.nets.own_statistics import live
from urst_tiles.nets.seeding import as_tensor, random_tensor, scale_last, some_picture
from urst_tiles.weights import check_keys, load

NAME = "multimodal"
#: The probe measures a reach of 524 pixels (tests/nets/test_probe.py).
HALO, STRIDE, MINIMUM = 528, 16, 32
#: Halo in pixels of the input of the last site of each subnet.
HALOS = {"style_subnet": 240, "enhance_subnet": 480, "refine_subnet": HALO}
DDOF = 0
#: In the style subnet, norms outside of residual blocks have another eps than all other norms.
EPS, EPS_OF_STYLE = 1e-5, 1e-9


class MultimodalStyle:
    """The three subnets, which contain their style.

    Parameters
    ----------
    weights : the tensors that ``read`` gives.
    alpha : strength; the output is mixed with the input.
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 850.0

    def __init__(self, weights: State, alpha: float = 1.0):
        self.weights, self.alpha = dict(weights), checked_alpha(alpha)
        self.sites: tuple[Site, ...] = tuple(
            _site(subnet, layer, len(weights[f"{subnet}.{layer.norm}.weight"]))
            for subnet, layers in LAYERS.items()
            for layer in layers.values()
            if layer.norm
        )

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        y = paint(x, self.run(at))
        return y if self.alpha == 1.0 else self.alpha * y + (1.0 - self.alpha) * x

    def run(self, at: At) -> Run:
        """The function that runs a single layer; ``at`` answers the layer's norm."""
        sites = {site.name: site for site in self.sites}

        def run(subnet: str, name: str, x: Tensor) -> Tensor:
            layer = LAYERS[subnet][name]
            y = conv(x, self.weights, subnet, name)
            y = at(sites[f"{subnet}.{layer.norm}"], y) if layer.norm else y
            return F.relu(y) if layer.relu else y

        return run

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The instance norm gamma (x - mean) / deviation + beta."""
        gamma, beta = (self.weights[f"{site.name}.{part}"].double().numpy() for part in ("weight", "bias"))
        scale = gamma / moments.std(site.eps, site.ddof)
        return Affine(scale, beta - scale * moments.mean)

    def state(self) -> tuple[State, dict[str, Any]]:
        return dict(self.weights), {"alpha": self.alpha}


def _site(subnet: str, layer: Layer, channels: int) -> Site:
    """The site behind a layer that has a norm."""
    outside_blocks = subnet == "style_subnet" and "res" not in layer.norm
    name, cell = f"{subnet}.{layer.norm}", SCALES[subnet] * layer.cell
    return Site(name, channels, cell, EPS_OF_STYLE if outside_blocks else EPS, DDOF, halo=HALOS[subnet])


def conv(x: Tensor, state: State, subnet: str, name: str) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w) with reflection padding; layers that enlarge do so first."""
    layer, key = LAYERS[subnet][name], key_of(subnet, name)
    if layer.step < 0:
        x = F.interpolate(x, scale_factor=-layer.step, mode="nearest")
    if layer.side > 1:
        x = F.pad(x, (layer.side // 2,) * 4, mode="reflect")
    weight, bias = state[f"{key}.weight"].to(x), state[f"{key}.bias"].to(x)
    return F.conv2d(x, weight, bias, stride=max(1, layer.step))


def restore(state: State, settings: Mapping[str, Any]) -> MultimodalStyle:
    """The inverse of ``MultimodalStyle.state``."""
    weights = {k: t for k, t in state.items() if k.startswith(tuple(LAYERS))}
    return MultimodalStyle(weights, settings["alpha"])


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> MultimodalStyle:
    """The style of a checkpoint.

    Raises
    ------
    BadInput : ``styles`` is not the tensors of a single checkpoint.
    BadWeights : the checkpoint has an unknown layout.
    """
    return MultimodalStyle(read(one_checkpoint(NAME, states, styles), "the checkpoint"), alpha)


# Checkpoints


def load_style(path: Path) -> State:
    """The tensors of a checkpoint, unchanged; BadWeights unless they have a known layout."""
    state = load(path)
    read(state, path)
    return state


def read(state: State, path: Path | str) -> State:
    """The weights of a checkpoint of either layout, float32; norms have ``weight`` and ``bias`` of (C,).

    Raises
    ------
    BadWeights : the keys or shapes are of neither layout.
    """
    weights: State = {}
    for key, t in state.items():
        plain = re.sub(r"(in\d)\.(scale|shift)$", _plain_name, key)
        ours = key if plain in state else plain
        if re.search(r"in\d\.\w+$", ours) and t.ndim == 4 and t.shape == (1, t.numel(), 1, 1):
            t = t.flatten()
        weights[ours] = t
    first = state.get("enhance_subnet.conv1.conv2d.bias")
    width = 1.0 if first is None else first.numel() / LAYERS["enhance_subnet"]["conv1"].outputs
    check_keys(weights, shapes(width), path)
    return {key: t.float() for key, t in weights.items()}


def _plain_name(match: re.Match[str]) -> str:
    """The name ``in1.weight`` for ``in1.scale``, and ``in1.bias`` for ``in1.shift``."""
    return f"{match[1]}.{'weight' if match[2] == 'scale' else 'bias'}"


def shapes(width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, inner layers ``width`` times as wide as published."""

    def wide(n: int) -> int:
        return n if n in (1, 3) else max(2, round(n * width))

    keys: dict[str, tuple[int, ...]] = {}
    for subnet, layers in LAYERS.items():
        for name, layer in layers.items():
            key, outputs = key_of(subnet, name), wide(layer.outputs)
            keys[f"{key}.weight"] = (outputs, wide(layer.inputs), layer.side, layer.side)
            keys[f"{key}.bias"] = (outputs,)
            if layer.norm:
                keys |= {f"{subnet}.{layer.norm}.{part}": (outputs,) for part in ("weight", "bias")}
    return keys


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """A random checkpoint under the key "". The last layers are scaled on `some_picture`: two subnets give
    colours of mean 0.5 and deviation 0.25, and the refine subnet adds a deviation of 0.1."""
    random = np.random.default_rng(seed)
    state: State = {}
    for key, shape in shapes(width).items():
        norm = re.search(r"in\d\.(weight|bias)$", key)
        if norm:
            values = random.uniform(0.5, 1.5, shape) if norm[1] == "weight" else random.normal(0, 0.3, shape)
            state[key] = torch.from_numpy(values.astype(np.float32))
        else:
            state[key] = random_tensor(random, shape)
    state["style_subnet.togray.weight"] = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    _scale(state, some_picture(seed))
    return {"": state}


def _scale(state: State, image: Any) -> None:
    """Scale the last layer of each subnet in place, for the image (h, w, 3)."""
    z = F.avg_pool2d(as_tensor(image), SCALES["style_subnet"])
    mean, std = of_channels(MEAN, z), of_channels(STD, z)
    z = (z - mean) / std
    for name, subnet in SUBNETS.items():
        with torch.inference_mode():
            style = MultimodalStyle(state)
            refines = name == "refine_subnet"
            y = subnet(z, style.run(live(style))) - (z if refines else 0)
        aim, middle = (0.1, 0 * mean) if refines else (0.25, (0.5 - mean) / std)
        last = key_of(name, list(LAYERS[name])[-1])
        gain = scale_last(state, last, y, middle.flatten(), aim / std.flatten())
        z = (y - y.mean((0, 2, 3), keepdim=True)) * gain[:, None, None] + middle
        z = F.interpolate(clamped(z), scale_factor=2, mode="bilinear", align_corners=False)


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights, since this family takes no files from the weights folder: the checkpoint is the
    style."""
    raise BadWeights(f"{path}: --model multimodal takes no weights; give the checkpoint to --style")
