"""Backbones: the fixed networks that losses look through, by name.

`backbone` gives a feature net: ``net(x, layers)`` maps pictures (n, 3, h, w) in 0..1 to the features of
``layers``. Weights come from files of the user's (torchvision's checkpoints, AdaIN's normalised VGG-19, ...),
or are random: SWAG's finding is that the architecture matters more than the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from urst_tiles.errors import BadInput
from urst_tiles.losses import FeatureNet, inception, residual, vgg
from urst_tiles.losses import distilled as _distilled
from urst_tiles.losses.distilled import (
    DistilledVGG19,
    Together,
    distilled_shapes,
    distilled_vgg19,
    teachers,
)
from urst_tiles.losses.vgg import (
    IMAGENET,
    LAYERS,
    VGG,
    convolutions,
    mean_activations,
    rescaled,
    to_sequential,
    vgg19_raw,
)

__all__ = [
    "BACKBONES",
    "IMAGENET",
    "LAYERS",
    "VGG",
    "Backbone",
    "DistilledVGG19",
    "Together",
    "backbone",
    "convolutions",
    "distilled_shapes",
    "distilled_vgg19",
    "mean_activations",
    "rescaled",
    "teachers",
    "to_sequential",
    "vgg19_raw",
]


class Load(Protocol):
    """How a backbone is made."""

    def __call__(self, files: Sequence[Path], seed: int, **placed: Any) -> FeatureNet:
        """From its files; with random weights from ``seed`` without any."""


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes
    ----------
    style : the layers of a style loss, shallow to deep, one of each of five stages.
    content : the layer of a content loss.
    deep : the layers that SWAG's released code scales down.
    load : makes the network.
    files : what the files are, in words.
    """

    name: str
    style: tuple[str, ...]
    content: str
    deep: tuple[str, ...]
    load: Load
    files: str


_VGG = (vgg.LAYERS, vgg.CONTENT, vgg.DEEP)
_VGG16 = (vgg.LAYERS16, vgg.CONTENT16, vgg.DEEP16)
_RESNET = (residual.STYLE, residual.CONTENT, residual.DEEP)
_INCEPTION = (inception.STYLE, inception.CONTENT, inception.DEEP)

BACKBONES: dict[str, Backbone] = {
    row.name: row
    for row in (
        Backbone(
            "vgg19",
            *_VGG,
            vgg.vgg19,
            "torchvision's vgg19-dcbb9e9d.pth, or the original as safetensors or raw float32 (.raw)",
        ),
        Backbone(
            "vgg16",
            *_VGG16,
            vgg.vgg16,
            "torchvision's vgg16-397923af.pth, or the original as safetensors",
        ),
        Backbone("vgg19-normalised", *_VGG, vgg.vgg19_normalised, "AdaIN's vgg_normalised.pth"),
        Backbone("distilled", *_VGG, _distilled.distilled, "Collaborative Distillation's 5SE.pth"),
        Backbone("teachers", *_VGG, _distilled.both, "VGG-19 to relu3_1 at least, then 5SE.pth"),
        Backbone("resnet50", *_RESNET, residual.resnet50, "torchvision's resnet50-*.pth"),
        Backbone(
            "wide-resnet50-2",
            *_RESNET,
            residual.wide_resnet50_2,
            "torchvision's wide_resnet50_2-*.pth",
        ),
        Backbone("resnet50-plain", *_RESNET, residual.resnet50_plain, "torchvision's without downsample"),
        Backbone("pseudo-vgg", *_RESNET, residual.pseudo_vgg, "a state of its modules"),
        Backbone("pseudo-resvgg", *_RESNET, residual.pseudo_resvgg, "a state of its modules"),
        Backbone(
            "inception-v3", *_INCEPTION, inception.inception_v3, "torchvision's inception_v3_google-*.pth"
        ),
    )
}


def backbone(name: str, files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> FeatureNet:
    """The backbone ``name`` from its files, or with random weights.

    Parameters
    ----------
    files : the weights, as ``BACKBONES[name].files`` says; none: random weights from ``seed``.
    placed : goes to ``Tensor.to``: device, dtype.

    Raises
    ------
    BadInput : an unknown name, torchvision not there. MissingFile, BadWeights : files.
    """
    if name not in BACKBONES:
        raise BadInput(f"there is no backbone {name!r}; known are {', '.join(BACKBONES)}")
    row = BACKBONES[name]
    files = [Path(file) for file in files]
    if name != "teachers" and len(files) > 1:
        raise BadInput(f"the backbone {name} takes one file ({row.files}), got {len(files)}")
    return row.load(files, seed, **placed)
