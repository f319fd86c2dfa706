"""A style that takes the statistics of its own input: right for a whole image, wrong for a window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import NOTHING, At, Precision, Site, Style, Stylised, statistics_of


def live(style: Style) -> At:
    """A function for ``Style.forward`` that maps each site with the statistics of the site's own input, which
    must be a single image, as the un-tiled original does."""

    def at(site: Site, x: Tensor) -> Tensor:
        if not site.measured:
            return style.affine(site, NOTHING)(x)
        return style.affine(site, statistics_of(site, x[0].flatten(1)))(x)

    return at


class OwnStatistics(Stylised):
    """A network in which every window has its own statistics, always float32.

    Thumbnail statistics correct this mistake; the network exists to show the difference.
    """

    splittable = False

    def __init__(self, style: Style, affines: None = None, precision: Precision = "float32"):
        super().__init__(style, None, precision)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """Run windows ``x`` one after the other."""
        return torch.cat([self.style.forward(window, live(self.style)) for window in x.split(1)])

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The bytes of the plain form, and a fifth more for the float64 features of a site."""
        return 1.2 * self.style.plain_bytes
