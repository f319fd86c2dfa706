"""The losses of a network that has its styles in it: of a few paintings, whose side is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from training.perceptual import Features, Look, Looks, Style, look
from training.pictures import Crops, Pictures, drawn, patterns_of, random_window
from urst_tiles import losses
from urst_tiles.learning.crops import files_of, read, to_tensor
from urst_tiles.learning.features import Statistics

#: Pictures, and the statistics to paint them with or None -> as `paint`.
Paint = Callable[[Tensor, Statistics | None], tuple[Tensor, Statistics]]
#: Added to a share before its root, whose slope at 0 is endless.
FLOOR = 1e-4


class Shared(Looks, Protocol):
    """The settings that `judge` and its losses read."""

    @property
    def content(self) -> Path:
        """A folder of photographs."""

    @property
    def held_out(self) -> str:
        """A file of patterns of names, or empty."""

    @property
    def batch(self) -> int:
        """Pictures a step."""

    @property
    def size(self) -> int:
        """Their side."""

    @property
    def style_weight(self) -> float:
        """Of the style loss."""

    @property
    def style_power(self) -> float:
        """0: plain sums; else of each layer's share."""

    @property
    def content_weight(self) -> float:
        """Of the content loss."""

    @property
    def content_normalised(self) -> bool:
        """Whether channels are normalised first."""

    @property
    def stroke_weight(self) -> float:
        """Of the stroke perceptual loss."""

    @property
    def variation_weight(self) -> float:
        """Of total variation."""


@dataclass(frozen=True)
class Judge:
    """What stylised pictures are compared by, with the paintings' side of it."""

    settings: Shared
    #: Of the network that is trained: windows for strokes lie on it.
    stride: int
    look: Look
    #: Of all paintings, (N, ...) each.
    wanted: Style
    #: (N, layers): the style loss of a picture without features.
    empty: Tensor

    def objective(
        self, photographs: Crops, random: np.random.Generator, index: Tensor, by: Paint
    ) -> tuple[Tensor, dict[str, Tensor], Statistics]:
        """The loss of a new batch, painted in the styles of the paintings ``index`` (n,), its parts, and the
        statistics it was painted with."""
        settings = self.settings
        x, large = drawn(photographs, random, settings.stroke_factor if settings.stroke_weight else 0)
        out, used = by(x, None)
        total, parts = self.compared(x, out, index)
        if large is not None:
            patch, at = random_window(large, photographs.size, self.stride, random)
            parts["stroke"] = self.look.stroke_loss(by(patch, used)[0], out, at).mean()
            total = total + settings.stroke_weight * parts["stroke"]
        return total, parts, used

    def compared(self, x: Tensor, out: Tensor, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of ``out``, pictures ``x`` in the styles of ``index``, and its parts."""
        settings, features = self.settings, self.look.features(out)
        style, minimised = self.style(features, index)
        found, wanted = (self.content(f) for f in (features, self.look.content(x)))
        content, variation = losses.content_loss(found, wanted).mean(), losses.total_variation(out).mean()
        total = settings.style_weight * minimised + settings.content_weight * content
        parts = {"style": style, "content": content, "variation": variation}
        return total + settings.variation_weight * variation, parts

    def style(self, features: Features, index: Tensor) -> tuple[Tensor, Tensor]:
        """The style loss of all layers, and as it is minimised."""
        wanted = {k: tuple(t[index] for t in parts) for k, parts in self.wanted.items()}
        layers, power = self.look.style_loss(features, wanted), self.settings.style_power
        if not power:
            return layers.sum(1).mean(), layers.sum(1).mean()
        shares = layers / self.empty[index]
        return shares.sum(1).mean(), (shares + FLOOR).pow(power).sum(1).mean()

    def content(self, features: Features) -> Tensor:
        """The content layer as it is compared."""
        f = features[self.look.content_layer]
        return losses.normalised(f) if self.settings.content_normalised else f


def judge(settings: Shared, stride: int, paintings: Sequence[Path], size: int) -> Judge:
    """With the paintings at ``size`` pixels of their short sides, for a network of ``stride``."""
    seen = look(settings)
    found = [seen.target(to_tensor([read(path, size)], settings.device)) for path in paintings]
    wanted = {k: tuple(map(torch.cat, zip(*(style[k] for style in found), strict=True))) for k in found[0]}
    nothing = {k: parts[0].new_zeros(1, parts[0].shape[1], 1, 1) for k, parts in wanted.items()}
    return Judge(settings, stride, seen, wanted, seen.style_loss(nothing, wanted))


def photographs(settings: Shared) -> Crops:
    """The photographs."""
    files = files_of(settings.content, patterns_of(settings.held_out))
    short = max(2, settings.stroke_factor) * settings.size
    return Crops(Pictures(files, short), settings.batch, settings.size, settings.device)
