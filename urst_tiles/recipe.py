"""From names and files to a style: small enough to travel to a worker, which builds it once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles import nets
from urst_tiles.field import Field, Regions
from urst_tiles.moments import Moments
from urst_tiles.nets.colour import recoloured
from urst_tiles.picture import read_picture


@dataclass(frozen=True)
class Recipe:
    """A model, its weights, its style images, and how they are used.

    Attributes
    ----------
    model : a name of ``nets.MODELS``, or package.module:function.
    weights : folder with one subfolder per model.
    styles : (path of a style image or checkpoint, or name of a style of the model; weight) pairs.
    style_size : short side the style image is resized to; the size of the strokes follows it.
    alpha : 0 keeps the content, 1 takes the style in full.
    stroke : how many times as large strokes become, a power of two.
    preserve_color : ``none``, ``luminance`` or ``coral``.
    stamps : size and time of change of each style's file: another may have taken its name since.
    regions : the mask's number of each style; empty where all styles are one mixture.
    field : what varies over the image, if anything does.
    colours : mean (3) and covariance (3 x 3) of the image's colours, row by row, where styles take them over.
    """

    model: str
    weights: Path
    styles: tuple[tuple[Path | str, float], ...]
    style_size: int = 512
    alpha: float = 1.0
    stroke: int = 1
    preserve_color: str = "none"
    stamps: tuple[tuple[int, int], ...] = ()
    regions: tuple[int, ...] = ()
    field: Field | None = None
    colours: tuple[float, ...] | None = None

    def over(self, field: Field | None) -> Recipe:
        """The same over a field."""
        return replace(self, field=field)

    def in_colours(self, colours: Moments) -> Recipe:
        """The same with style images that take over ``colours``, of the image's pixels in 0..1."""
        return replace(self, colours=(*colours.mean.tolist(), *colours.covariance().ravel().tolist()))

    def ingredients(self) -> nets.StyleImages:
        """The style images, float32 (h, w, 3) in 0..1, or tensors of named styles and checkpoints; with
        weights."""
        return [(self._ingredient(style), weight) for style, weight in self.styles]

    def _ingredient(self, style: Path | str) -> NDArray[np.float32] | dict[str, Tensor]:
        family = nets.family(self.model)
        if isinstance(style, str):
            return family.style_named(style) if family.style_named else nets.named.features(style)
        if family.load_style:
            return family.load_style(style)
        image = read_picture(style, self.style_size)
        if self.colours is None:
            return image
        values = np.array(self.colours)
        return recoloured(image, values[:3], values[3:].reshape(3, 3))

    def build(self) -> nets.Style | nets.Composition:
        """Read the files and build the style."""
        ingredients = self.ingredients()
        groups = [[one] for one in ingredients] if self.regions else [ingredients]
        styles = tuple(self._style(group) for group in groups)
        return styles[0] if self.field is None else nets.Composition(styles, self.field)

    def _style(self, ingredients: nets.StyleImages) -> nets.Style:
        style = nets.build(self.model, self.weights, ingredients, alpha=self.alpha)
        return nets.CascadeStyle(style, self.stroke) if self.stroke > 1 else style

    def finish(self, net: nets.LocalNet) -> nets.LocalNet:
        """What comes behind the style's network."""
        return nets.Luminance(net) if self.preserve_color == "luminance" else net

    @property
    def masked(self) -> bool:
        """Whether a mask tells which style is where."""
        return isinstance(self.field, Regions)
