"""From coarse to fine: the image at half its size is optimised first, and its picture is where the next scale
begins [1].

At the coarsest scale the style image has ``--style-size`` pixels on its short side, and at each finer one
twice as many, up to its own: so strokes keep their proportion to the picture, as in the painting, and finer
scales add what the painting has there, bristles and canvas. What a coarse scale has made needs few steps at
the next: `--finer-steps`.

Reference
---------
1. B. Galerne, L. Raad, J. Lezama, J.-M. Morel, "Scaling Painting Style Transfer", Eurographics Symposium on
   Rendering 2024: L-BFGS on each scale, half as many steps on the finer ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optimization.pictures import Boxes, Values
from optimization.settings import Settings
from urst_tiles.geometry import Box
from urst_tiles.source import Source
from urst_tiles.source.levels import level_above
from urst_tiles.source.picture import own_side

PICTURE = "picture.tif"


@dataclass(frozen=True)
class Scale:
    """One scale of the image.

    Attributes
    ----------
    halvings : how often the content is halved.
    above : the picture of the scale above it, where this one begins; None for the coarsest.
    """

    halvings: int = 0
    above: Path | None = None


#: The only scale of a picture that is optimised at its own size.
ALONE = Scale()


def coarse_to_fine(settings: Settings) -> Iterator[tuple[Settings, Scale]]:
    """The settings of each scale, and the scale, from the coarsest on.

    A coarse scale has its own folder, ``scale-N`` in ``--out``, where N is by how much it is reduced.
    """
    above = None
    most = own_side(settings.style) if settings.scales > 1 else settings.style_size
    for halvings in reversed(range(settings.scales)):
        finer = settings.scales - 1 - halvings
        side = settings.style_size << finer
        here = replace(
            settings,
            out=settings.out / f"scale-{1 << halvings}" if halvings else settings.out,
            steps=(settings.finer_steps or max(1, settings.steps // 2)) if finer else settings.steps,
            style_size=min(side, max(most, settings.style_size)),
        )
        yield here, Scale(halvings, above)
        above = here.out / PICTURE


def halved(source: Source, halvings: int, folder: Path) -> Source:
    """The image halved so often, each time as a copy in ``folder``."""
    for k in range(halvings):
        source = level_above(source, folder / f"half-{k + 1}")
    return source


def enlarged(read: Boxes, shape: tuple[int, int]) -> Boxes:
    """A picture of that ``shape``, twice as high and wide, bilinear: the centre of a pixel lies a quarter of
    a pixel from the nearest of the picture's; edges are repeated."""

    def at(box: Box) -> Values:
        (top, bottom, down), (left, right, across) = (
            _neighbours(a, b, n) for a, b, n in ((box.y0, box.y1, shape[0]), (box.x0, box.x1, shape[1]))
        )
        part = Box(int(top.min()), int(left.min()), int(bottom.max()) + 1, int(right.max()) + 1)
        values = read(part)
        rows = values[:, top - part.y0] * (1 - down)[:, None] + values[:, bottom - part.y0] * down[:, None]
        mixed = rows[:, :, left - part.x0] * (1 - across) + rows[:, :, right - part.x0] * across
        return mixed.astype(values.dtype)

    return at


def _neighbours(first: int, last: int, count: int) -> tuple[Any, Any, Any]:
    """For new pixels from ``first`` to ``last`` the old ones on both sides, and the share of the second."""
    places = np.arange(first, last)
    before = (places - 1) // 2
    share = np.where(places % 2, 0.25, 0.75)
    return before.clip(0, count - 1), (before + 1).clip(0, count - 1), share
