"""A stand-in for VGG-19: an encoder with a sixteenth of its weights, and the combination of both.

References
----------
1. H. Wang et al., "Collaborative Distillation for Ultra-Resolution Universal Style Transfer", CVPR 2020: a
   VGG-19 of a sixteenth of the weights, with heads that give the features of the full network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.losses import FeatureNet
from urst_tiles.losses.vgg import (
    ACTIVATION,
    LAYERS,
    State,
    convolutions,
    deepest,
    original_colours,
    placed_state,
    there,
    trained,
    vgg19_raw,
)
from urst_tiles.weights import check_keys, load


@dataclass
class DistilledVGG19:
    """The encoder of [1], with reflection padding and 1x1 heads that stand in for VGG-19's own features.

    ``weights`` has the keys of the original ``5SE.pth``: "conv0", "conv11", ..., "conv51", "conv11_aux", ...
    Without ``heads`` the features of the encoder itself come out, of any layer, in a quarter of the channels.
    """

    weights: State
    heads: bool = True

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``. With heads, each layer must be the first of a stage, and features are
        scaled to a mean activation near 1."""
        features: dict[str, Tensor] = {}
        x = F.conv2d(x, *self._layer("conv0"))
        for name, _, _ in convolutions(deepest(layers)):
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            key = f"conv{name.replace('_', '')}"
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), *self._layer(key)))
            if f"relu{name}" in layers:
                head = f"{key}_aux"
                features[f"relu{name}"] = F.relu(F.conv2d(x, *self._layer(head))) if self.heads else x
        return features

    def _layer(self, key: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{key}.weight"], self.weights[f"{key}.bias"]


@dataclass
class Together:
    """Several feature nets in one; each is listed with the layers that it is used for."""

    parts: Sequence[tuple[FeatureNet, frozenset[str]]]

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``, each from the first network that is listed with it."""
        features: dict[str, Tensor] = {}
        for net, names in self.parts:
            wanted = [name for name in layers if name in names and name not in features]
            if wanted:
                features |= net(x, wanted)
        return features


def distilled(files: Sequence[Path], seed: int, **placed: Any) -> DistilledVGG19:
    """The encoder and heads of [1] from a file, or, without a file, with random weights that keep the signal
    alive."""
    if files:
        (path,) = files
        return distilled_vgg19(path, **placed)
    random, state = torch.Generator().manual_seed(seed), {}
    for key, shape in distilled_shapes().items():
        scale = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 if len(shape) == 4 else 0.1
        state[key] = torch.randn(shape, generator=random) * scale
    return DistilledVGG19(placed_state(state, **placed))


def distilled_vgg19(path: Path, **placed: Any) -> DistilledVGG19:
    """The encoder and heads of [1] from its published ``5SE.pth``."""
    state = load(there(path), "model")
    check_keys(state, distilled_shapes(), path)
    return DistilledVGG19(placed_state(state, **placed))


def distilled_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the encoder and heads of [1]."""
    shapes: dict[str, tuple[int, ...]] = {"conv0.weight": (3, 3, 1, 1), "conv0.bias": (3,)}
    small, inputs = {64: 16, 128: 32, 256: 64, 512: 128}, 3
    for name, _, outputs in convolutions("5_1"):
        narrow = small[outputs] if not name.startswith("5") else 128
        key = f"conv{name.replace('_', '')}"
        shapes |= {f"{key}.weight": (narrow, inputs, 3, 3), f"{key}.bias": (narrow,)}
        if name.endswith("_1"):
            shapes |= {f"{key}_aux.weight": (outputs, narrow, 1, 1), f"{key}_aux.bias": (outputs,)}
        inputs = narrow
    return shapes


def both(files: Sequence[Path], seed: int, **placed: Any) -> Together:
    """VGG-19 to relu3_1 and its stand-in, from two files in that order.

    Raises
    ------
    BadInput : there are not two files.
    """
    if len(files) != 2:
        raise BadInput("the backbone teachers needs two files, VGG-19's and the stand-in's")
    return teachers(*files, **placed)


def teachers(vgg: Path, distilled: Path, **placed: Any) -> Together:
    """VGG-19 for relu1_1, relu2_1 and relu3_1, and its stand-in for relu4_1 and relu5_1.

    ``vgg`` is the original, raw float32 to relu3_1 or as safetensors, whose layers are divided by their mean
    activations on photographs (`ACTIVATION`); or torchvision's checkpoint, which takes pictures of a
    deviation near 1 and is not divided.
    """
    first = vgg19_raw(vgg, "3_1", **placed) if vgg.suffix == ".raw" else trained(vgg, 19, **placed)
    if (first.mean, first.std) == original_colours():
        first = replace(first, activation=ACTIVATION)
    return Together(
        [
            (first, frozenset(LAYERS[:3])),
            (distilled_vgg19(distilled, **placed), frozenset(LAYERS[3:])),
        ]
    )
