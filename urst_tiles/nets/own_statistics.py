"""A style with the statistics of whatever it is given: right for a whole picture, wrong for a window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets.base import NOTHING, At, Precision, Site, Style, Stylised


def live(style: Style) -> At:
    """An ``at`` that takes the statistics of what it is given (one image), as the un-tiled original does."""

    def at(site: Site, x: Tensor) -> Tensor:
        if not site.measured:
            return style.affine(site, NOTHING)(x)
        features = x[0].flatten(1).cpu().numpy()
        return style.affine(site, Moments.of(features, full=site.full))(x)

    return at


class OwnStatistics(Stylised):
    """Every window its own statistics, always float32.

    This is the mistake that thumbnail statistics correct, kept to show the difference.
    """

    splittable = False

    def __init__(self, style: Style, affines: None = None, precision: Precision = "float32"):
        super().__init__(style, None, precision)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """One window after the other."""
        return torch.cat([self.style.forward(one, live(self.style)) for one in x.split(1)])

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The plain form's, and the float64 features of a site."""
        return 1.2 * self.style.plain_bytes
