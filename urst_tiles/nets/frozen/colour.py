"""The frozen networks of point operations on colours, always float32.

Matrices are applied channel by channel, so that a pixel has the same bits in every window, and the kernel may
cut a window as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Frozen, Precision, Site, Style
from urst_tiles.nets.colour.spaces import mixed
from urst_tiles.nets.colour.stain import StainStyle, fused


class FrozenColour(Frozen):
    """The frozen network of a point operation."""

    pointwise = True

    def __init__(self, style: Style, affines: Mapping[str, Any] | None, precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.channelwise = getattr(style, "channelwise", False)
        self.reads, self.bands = getattr(style, "reads", 3), getattr(style, "bands", 3)
        self.as_is = getattr(style, "as_is", False)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        x = x[:, : self.reads].contiguous()
        if isinstance(self.style, StainStyle) and self.style.method == "macenko" and not self.style.maps:
            assert self.affines is not None
            return fused(self.style, self.affines, x)
        return self.style.forward(x, self._at)

    def _at(self, site: Site, x: Tensor) -> Tensor:
        """The map of a site, applied channel by channel."""
        assert self.affines is not None
        affine: Any = self.affines[site.name]
        full = isinstance(affine, Affine) and affine.scale.ndim == 2
        return mixed(x, affine.scale, affine.shift) if full else affine(x)
