"""From names and files to a style: small enough to travel to a worker, which builds it once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles import nets
from urst_tiles.picture import read_picture


@dataclass(frozen=True)
class Recipe:
    """A model, its weights and its style images.

    Attributes
    ----------
    model : a name of ``nets.MODELS``.
    weights : folder with one subfolder per model.
    styles : (path of a style image or checkpoint, or name of a style that ships with lite; weight) pairs.
    style_size : short side the style image is resized to; the size of the strokes follows it.
    alpha : 0 keeps the content, 1 takes the style in full.
    """

    model: str
    weights: Path
    styles: tuple[tuple[Path | str, float], ...]
    style_size: int = 512
    alpha: float = 1.0

    def ingredients(self) -> nets.StyleImages:
        """The style images, float32 (h, w, 3) in 0..1, or tensors of named styles and checkpoints; with
        weights."""
        return [(self._ingredient(style), weight) for style, weight in self.styles]

    def _ingredient(self, style: Path | str) -> NDArray[np.float32] | dict[str, Tensor]:
        load_style = nets.MODELS[self.model].load_style
        if isinstance(style, str):
            return nets.named.features(style)
        return load_style(style) if load_style else read_picture(style, self.style_size)

    def build(self) -> nets.Style:
        """Read the files and build the style."""
        return nets.build(self.model, self.weights, self.ingredients(), alpha=self.alpha)
