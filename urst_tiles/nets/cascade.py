"""A cascade over scales, for strokes that are several times as large as the network paints them.

The picture is stylised at a fraction of its size. The result, enlarged to twice its size and given the
details that the picture has there and had not before, is what is stylised next, and so on to full size. Each
pass has statistics of its own, so that a site of the network becomes one site per scale. All of it together
is one local network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, round_up
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    LocalNet,
    OwnStatistics,
    Precision,
    Site,
    State,
    Style,
    Stylised,
    digest,
    frozen_affines,
)

NAME = "cascade"


def scales(factor: int) -> list[int]:
    """factor, ..., 4, 2, 1; BadInput unless ``factor`` is a power of two."""
    if factor < 2 or factor & (factor - 1):
        raise BadInput(f"--stroke must be a power of two, got {factor}")
    return [1 << k for k in reversed(range(factor.bit_length()))]


def enlarged(x: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, 3, 2h, 2w), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def run(x: Tensor, factor: int, paint: Callable[[int, Tensor], Tensor]) -> Tensor:
    """(n, 3, h, w) -> same; ``paint`` is asked with every scale and its picture, from coarse to fine."""
    change: Tensor | None = None
    for scale in scales(factor):
        picture = F.avg_pool2d(x, scale) if scale > 1 else x
        painted = paint(scale, picture if change is None else picture + enlarged(change))
        change = painted - picture
    return painted


class CascadeStyle:
    """A style of any family, painted at several scales.

    Parameters
    ----------
    inner : the style.
    factor : of the coarsest scale, a power of two.
    """

    name = NAME

    def __init__(self, inner: Style, factor: int):
        self.inner, self.factor = inner, factor
        self.stride, self.minimum = inner.stride * factor, inner.minimum * factor
        # Every pass sees its own halo, and enlarging one pixel more of the pass before.
        reach = sum(scale * (inner.halo + (scale > 1)) for scale in scales(factor))
        self.halo = round_up(reach, self.stride)
        self.plain_bytes = inner.plain_bytes + 60.0
        self._at_scale = {
            scale: {
                site.name: replace(site, name=f"x{scale}.{site.name}", stride=site.stride * scale)
                for site in inner.sites
            }
            for scale in scales(factor)
        }
        self.sites: tuple[Site, ...] = tuple(
            site for sites in self._at_scale.values() for site in sites.values()
        )
        self._inner = {
            self._at_scale[scale][site.name].name: site for scale in scales(factor) for site in inner.sites
        }

    @property
    def fingerprint(self) -> str:
        """Hex digest of the style and the factor."""
        return digest({}, {"inner": self.inner.fingerprint, "factor": self.factor})

    def forward(self, x: Tensor, at: At) -> Tensor:
        """(n, 3, h, w) float32 in 0..1 -> same, unclamped."""

        def here(scale: int, site: Site, t: Tensor) -> Tensor:
            return at(self._at_scale[scale][site.name], t)

        return run(x, self.factor, lambda scale, part: self.inner.forward(part, partial(here, scale)))

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The style's own."""
        return self.inner.affine(self._inner[site.name], moments)

    def of_scale(self, scale: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """What belongs to one scale, by the names of the style's own sites."""
        sites = self._at_scale[scale].items()
        return {own: values[site.name] for own, site in sites if site.name in values}

    def freeze(self, moments: Mapping[str, Moments] | None) -> LocalNet:
        """The plain network; None lets every window use its own statistics."""
        if moments is None:
            return OwnStatistics(self)
        passes = {scale: self.inner.freeze(self.of_scale(scale, moments)) for scale in scales(self.factor)}
        return Cascade(self, frozen_affines(self, moments), passes)

    def state(self) -> tuple[State, dict[str, Any]]:
        """The style's own, and the factor."""
        state, settings = self.inner.state()
        return state, {"factor": self.factor, "inner": {"family": self.inner.name, "settings": settings}}


class Cascade(Stylised):
    """The plain network of a cascade.

    Parameters
    ----------
    passes : scale -> the style's network with the statistics of that pass.
    """

    def __init__(self, style: CascadeStyle, affines: Mapping[str, Affine], passes: Mapping[int, LocalNet]):
        super().__init__(style, affines)
        self.factor = style.factor
        self.passes = torch.nn.ModuleDict({str(scale): net for scale, net in passes.items()})

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """From coarse to fine."""
        return run(x, self.factor, lambda scale, part: self.passes[str(scale)](part))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The last pass's, and a few pictures."""
        net: Any = self.passes["1"]
        return net.bytes_per_pixel(precision) + 60.0

    def to_precision(self, precision: Precision) -> LocalNet:
        """The same with every pass at ``precision``."""
        assert self.affines is not None and isinstance(self.style, CascadeStyle)
        passes: Any = self.passes.items()
        changed = {int(scale): net.to_precision(precision) for scale, net in passes}
        return Cascade(self.style, self.affines, changed)
