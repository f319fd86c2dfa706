"""What the painter minimises: how far its pictures are from paintings, and from what they show.

style
    at every level, the distance of Gram matrices to the painting's, relative to the painting's, a square root
    for each layer, clamped, so that no sample rules a step; the levels above the finest count half.
colour
    mean and covariance of the colours of the picture averaged over 2, 8 and 32 pixels.
content
    at the coarsest level alone, features with mean 0 and deviation 1 against those of the guide.
consistency
    each level, halved, is to equal the level above.
half
    the coarsest picture, halved, is to be a painting, too, and so is the finest one, halved as often as there
    are levels: finer strokes would otherwise blur the coarser ones, or sharpen them, which is seen from afar.
range
    values outside 0..1 at the finest level.
structure
    what the luminance of the finest level, reduced by 8 and by 4, lacks of a structural similarity of 1 to
    the guide's (`urst_tiles.learning.structure`). Nothing else keeps shapes in the dark parts of a picture,
    where features are weak.
lattice
    at every level, as for style, how much of the strokes sits on the network's cells
    (`urst_tiles.learning.lattice`).
axes
    at every level, as for style, how much more of the finest strokes runs level and upright than the painting
    and the guide have (`urst_tiles.learning.axes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from urst_tiles.learning.axes import axes_distance
from urst_tiles.learning.checkpoint import State
from urst_tiles.learning.features import weighted
from urst_tiles.learning.lattice import lattice_distance
from urst_tiles.learning.painting import halved, paint, recoloured
from urst_tiles.learning.paintings import (
    Paintings,
    Teacher,
    colour_distance,
    distance,
    normal,
    outside,
)
from urst_tiles.learning.structure import structure_distance

#: Levels above the finest count so much in the losses of style and colour.
COARSER = 0.5
PARTS = ("style", "content", "consistency", "colour", "half", "range", "structure", "lattice", "axes")


@dataclass(frozen=True)
class LossWeights:
    """What each part of the loss counts, and the side in pixels that a picture has at least whose half is
    compared."""

    style: float = 1.0
    content: float = 0.1
    consistency: float = 3.0
    colour: float = 0.5
    half: float = 1.0
    range: float = 5.0
    structure: float = 0.8
    lattice: float = 2.0
    axes: float = 1.0
    half_least: int = 192


@dataclass(frozen=True)
class Batch:
    """Crops to paint: ``x`` (n, 3, h, w) in 0..1, the style ``index`` (n,) of each, on how many levels, and
    where each begins in its whole, ``origins`` (n, 2), as `painting.paint` takes them."""

    x: Tensor
    index: Tensor
    levels: int
    origins: Tensor


def compared(
    state: State,
    batch: Batch,
    teacher: Teacher,
    paintings: Paintings,
    weights: LossWeights,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The loss of crops painted with the tensors ``state``; its parts, unweighted; and the mean distance (n,)
    of a layer at the finest level.

    Parameters
    ----------
    paintings : of all styles that ``batch.index`` may name.
    seed : of the noise.
    dtype : the type in which the network computes.
    """
    x, index = batch.x, batch.index
    rows = index.cpu().numpy()
    guides = recoloured(x, paintings.colours(rows), batch.levels)
    pictures = paint(state, x, guides, index, batch.origins, seed, dtype)
    parts = {name: x.new_zeros(()) for name in PARTS}
    layers = tuple(dict.fromkeys((*teacher.style, teacher.content)))
    for k, y in enumerate(pictures):
        weight = 1.0 if y is pictures[-1] else COARSER
        features = teacher(y, layers)
        far = distance(features, paintings, index)
        parts["style"] = parts["style"] + weight * far.mean()
        parts["colour"] = parts["colour"] + weight * colour_distance(y, paintings, index)
        if weights.lattice:
            power = {k: each[index] for k, each in paintings.power.items()}
            on_cells = lattice_distance(features, y.shape[2], power)
            parts["lattice"] = parts["lattice"] + weight * on_cells
        if weights.axes:
            straight = axes_distance(y, guides[k], paintings.axes[index])
            parts["axes"] = parts["axes"] + weight * straight
        for times in range(1, reductions(k, batch.levels) + 1):
            if weights.half and y.shape[2] >> (times - 1) >= weights.half_least:
                reduced = distance(teacher(halved(y, times), teacher.style), paintings, index)
                parts["half"] = parts["half"] + reduced.mean()
        if k:
            above = pictures[k - 1].detach()
            parts["consistency"] = parts["consistency"] + (halved(y) - above).abs().mean()
            continue
        parts["content"] = content_distance(features[teacher.content], guides[0], teacher)
    parts["range"] = outside(pictures[-1])
    if weights.structure:
        parts["structure"] = structure_distance(pictures[-1], guides[-1])
    total = weighted(parts, {name: getattr(weights, name) for name in PARTS})
    return total, parts, far.detach() / len(teacher.style)


def reductions(k: int, levels: int) -> int:
    """How often picture ``k`` of so many levels, counted from the coarsest, is halved and compared again."""
    if k == levels - 1:
        return levels
    return 1 if k == 0 else 0


def content_distance(content: Tensor, guide: Tensor, teacher: Teacher) -> Tensor:
    """(): how far features of the content layer are from those of ``guide``, both normalised."""
    with torch.no_grad():
        wanted = normal(teacher(guide, (teacher.content,))[teacher.content])
    return (normal(content) - wanted).square().mean()
