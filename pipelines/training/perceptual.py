"""How a training looks at pictures: through which network, at which layers, by which statistics, how smooth.

Every recipe has the fields of `Looks` among its settings, so that each can be trained with the stroke
perceptual loss and with SWAG's activation smoothing, through any backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.learning.features import Lowered
from urst_tiles.losses import backbones

#: What a style is taken to be: mean and deviation of each channel (AdaIN), or the Gram matrix (Gatys).
By = Literal["moments", "gram"]
Features = Mapping[str, Tensor]
Style = dict[str, tuple[Tensor, ...]]


class Looks(Protocol):
    """The settings that `look` reads."""

    @property
    def backbone(self) -> str:
        """A key of ``backbones.BACKBONES``."""

    @property
    def backbone_files(self) -> tuple[Path, ...]:
        """Its weights; none: random ones from ``seed``."""

    @property
    def style_by(self) -> By:
        """What a style is taken to be."""

    @property
    def style_layers(self) -> tuple[str, ...]:
        """None: the backbone's."""

    @property
    def content_layer(self) -> str:
        """Empty: the backbone's."""

    @property
    def stroke_layers(self) -> tuple[str, ...]:
        """None: the content layer."""

    @property
    def stroke_factor(self) -> int:
        """By which a thumbnail's strokes are enlarged."""

    @property
    def smoothing(self) -> losses.Smoothing:
        """SWAG's, of the content and the style loss; "scale" is of the deep layers alone, as its authors have
        it."""

    @property
    def precision(self) -> str:
        """Of the backbone's computation."""

    @property
    def device(self) -> str:
        """As torch names it."""

    @property
    def seed(self) -> int:
        """Of random weights."""


@dataclass(frozen=True)
class Look:
    """The losses of one training."""

    #: Takes float32 pictures (n, 3, h, w) in 0..1; not smoothed.
    net: losses.FeatureNet
    #: The same, its features smoothed as the settings say.
    smooth: losses.FeatureNet
    style_layers: tuple[str, ...]
    content_layer: str
    stroke_layers: tuple[str, ...]
    stroke_factor: int
    by: By

    def features(self, x: Tensor) -> Features:
        """Of all layers that content and style need."""
        return self.smooth(x, tuple(dict.fromkeys((*self.style_layers, self.content_layer))))

    def style(self, features: Features) -> Style:
        """What the style loss compares, by layer: (mean, deviation), or (Gram matrix,)."""
        take = losses.mean_std if self.by == "moments" else lambda f: (losses.gram(f),)
        return {k: take(features[k]) for k in self.style_layers}

    @torch.no_grad()
    def target(self, y: Tensor) -> Style:
        """The style of pictures ``y``, to be met."""
        return self.style(self.smooth(y, self.style_layers))

    def style_loss(self, features: Features, wanted: Style) -> Tensor:
        """(n, layers), unweighted."""
        found = self.style(features)
        if self.by == "moments":
            return losses.style_loss(*({k: (v[0], v[1]) for k, v in s.items()} for s in (found, wanted)))
        return losses.gram_loss(*({k: v[0] for k, v in s.items()} for s in (found, wanted)))

    def content_loss(self, features: Features, wanted: Features) -> Tensor:
        """(n,): mean squared distance on the content layer."""
        return losses.content_loss(features[self.content_layer], wanted[self.content_layer])

    @torch.no_grad()
    def content(self, x: Tensor) -> Features:
        """The content layer of pictures ``x``, to be met."""
        return self.smooth(x, (self.content_layer,))

    def stroke_loss(self, patch: Tensor, thumbnail: Tensor, at: tuple[int, int]) -> Tensor:
        """(n,): the stroke perceptual loss, on plain features."""
        layers = self.stroke_layers
        return losses.stroke_perceptual(self.net, patch, thumbnail, at, layers, self.stroke_factor)


def look(settings: Looks) -> Look:
    """Through a backbone; BadInput for an unknown one or an unknown layer, MissingFile, BadWeights."""
    placed = {"device": settings.device, "dtype": getattr(torch, settings.precision)}
    net = backbones.backbone(settings.backbone, settings.backbone_files, settings.seed, **placed)
    row = backbones.BACKBONES[settings.backbone]
    return through(settings, net, f"backbone {row.name}", row.style, row.content, row.deep)


def through(
    settings: Looks,
    net: losses.FeatureNet,
    name: str,
    style: tuple[str, ...],
    content: str,
    deep: tuple[str, ...],
) -> Look:
    """Through ``net``, which has ``settings.precision``; BadInput for a layer that it has not.

    Parameters
    ----------
    name : of the network, for messages.
    style, content : its layers, where the settings name none.
    deep : what SWAG's authors scale down.
    """
    style, content = settings.style_layers or style, settings.content_layer or content
    strokes = settings.stroke_layers or (content,)
    dtype = getattr(torch, settings.precision)
    for layer in (*style, content, *strokes):
        if not has(net, layer, settings.device, dtype):
            raise BadInput(f"the {name} has no layer {layer!r}")
    plain = Lowered(net, dtype)
    smooth = losses.Smooth(plain, settings.smoothing, deep if settings.smoothing == "scale" else None)
    return Look(plain, smooth, style, content, strokes, settings.stroke_factor, settings.style_by)


#: A side of pictures that every backbone takes, in pixels.
SIDE = 96


@torch.no_grad()
def has(net: losses.FeatureNet, layer: str, device: str, dtype: torch.dtype) -> bool:
    """Whether a network has a layer: it is asked."""
    try:
        return layer in net(torch.zeros(1, 3, SIDE, SIDE, device=device, dtype=dtype), (layer,))
    except (KeyError, StopIteration, ValueError):
        return False
