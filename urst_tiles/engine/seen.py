"""What a network reads of an image that is no level of a picture."""

from __future__ import annotations

from urst_tiles.nets.families import MODELS
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel


def paints_levels(model: str) -> bool:
    """Whether the network of that name paints levels; a user's module does not."""
    return model in MODELS and MODELS[model].paints_levels


def seen_by(model: str, image: Source | PaintedLevel) -> Source | PaintedLevel:
    """The image as the network of that name reads it: one that paints levels reads it as the only level of a
    picture, with the noise from which its strokes begin; others read the image alone."""
    if isinstance(image, PaintedLevel) or not paints_levels(model):
        return image
    return PaintedLevel(image, 0)
