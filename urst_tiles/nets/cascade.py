"""A cascade over scales, for strokes that are several times as large as the network paints them.

The picture is stylised at a fraction of its size. The result, enlarged to twice its size and given the
details that the picture has there and had not before, is the guide of the next pass, which goes half the way
from its guide to what the network makes of it; and so on to full size. Each pass has statistics of its own,
so that a site of the network becomes one site per scale. All of it together is one local network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, ceil_div, round_up
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    LocalNet,
    Precision,
    Site,
    State,
    Style,
    Stylised,
    digest,
)

NAME = "cascade"

#: How far a pass goes from its guide to what the network makes of it.
STRENGTH = 0.5


def scales(factor: int) -> list[int]:
    """factor, ..., 4, 2, 1; BadInput unless ``factor`` is a power of two."""
    if factor < 2 or factor & (factor - 1):
        raise BadInput(f"--stroke must be a power of two, got {factor}")
    return [1 << k for k in reversed(range(factor.bit_length()))]


def cut(x: Tensor, box: Box) -> Tensor:
    """The part ``box`` of (n, 3, h, w)."""
    return x[:, :, box.slices[0], box.slices[1]]


def enlarged(x: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, 3, 2h, 2w), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def down(x: Tensor, scale: int) -> Tensor:
    """Means of ``scale`` x ``scale`` pixels."""
    return F.avg_pool2d(x, scale) if scale > 1 else x


def repainted(guide: Tensor, painted: Tensor, first: bool) -> Tensor:
    """What a pass makes of its guide: all that the network painted, or, behind the first, half of it."""
    return painted if first else torch.lerp(guide, painted, STRENGTH)


def reach(halo: int, stride: int, factor: int) -> int:
    """How far, in pixels, the cascade of a network sees: in each pass its halo beyond what the finer one sees
    of it, with a pixel for enlarging, and whole cells."""
    far = halo
    for _ in scales(factor)[:-1]:
        far = round_up(ceil_div(far, 2) + 1, stride) + halo
    return far * factor


def areas(keep: Box, whole: Box, style: Style, factor: int) -> dict[int, Box]:
    """Scale -> the part of the window, in its own pixels, that its pass must work on for the last one to be
    right in ``keep``."""
    found: dict[int, Box] = {}
    box = keep
    for scale in reversed(scales(factor)):
        bounds = Box(0, 0, whole.y1 // scale, whole.x1 // scale)
        around = box.align(style.stride).grow(style.halo).clip(bounds)
        found[scale] = around = around.at_least(style.minimum, bounds)
        coarse = Box(0, 0, bounds.y1 // 2, bounds.x1 // 2)
        box = Box(around.y0 // 2, around.x0 // 2, ceil_div(around.y1, 2), ceil_div(around.x1, 2))
        box = box.grow(1).clip(coarse)
    return found


class CascadeStyle:
    """A style of any family, painted at several scales.

    Parameters
    ----------
    inner : the style.
    factor : of the coarsest scale, a power of two.
    flat : all passes at the picture's own size: so a thumbnail stands for the picture at every scale.
    """

    name = NAME

    def __init__(self, inner: Style, factor: int, *, flat: bool = False):
        self.inner, self.factor, self.flat = inner, factor, flat
        self.stride, self.minimum = (n if flat else n * factor for n in (inner.stride, inner.minimum))
        far = inner.halo * len(scales(factor)) if flat else reach(inner.halo, inner.stride, factor)
        self.halo = round_up(far, self.stride)
        self.plain_bytes = inner.plain_bytes + 60.0
        self._at_scale = {scale: self._sites(scale) for scale in scales(factor)}
        self.sites: tuple[Site, ...] = tuple(
            site for sites in self._at_scale.values() for site in sites.values()
        )
        self._inner = {
            self._at_scale[scale][site.name].name: site for scale in scales(factor) for site in inner.sites
        }

    def _sites(self, scale: int) -> dict[str, Site]:
        """The sites of one pass, by their names in the network."""
        cells = 1 if self.flat else scale
        return {
            site.name: replace(site, name=f"x{scale}.{site.name}", stride=site.stride * cells, halo=None)
            for site in self.inner.sites
        }

    def flattened(self) -> CascadeStyle:
        """The same, all passes at the picture's own size."""
        return CascadeStyle(self.inner, self.factor, flat=True)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the style and the factor."""
        return digest({}, {"inner": self.inner.fingerprint, "factor": self.factor})

    def forward(self, x: Tensor, at: At) -> Tensor:
        """(n, 3, h, w) float32 in 0..1 -> same, unclamped."""

        def here(scale: int, site: Site, t: Tensor) -> Tensor:
            return at(self._at_scale[scale][site.name], t)

        change: Tensor | None = None
        for scale in scales(self.factor):
            picture = x if self.flat else down(x, scale)
            guide = picture
            if change is not None:
                guide = picture + (change if self.flat else enlarged(change))
            painted = self.inner.forward(guide, partial(here, scale))
            change = repainted(guide, painted, guide is picture) - picture
        assert change is not None
        return x + change

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The style's own."""
        return self.inner.affine(self._inner[site.name], moments)

    def of_scale(self, scale: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """What belongs to one scale, by the names of the style's own sites."""
        sites = self._at_scale[scale].items()
        return {own: values[site.name] for own, site in sites if site.name in values}

    def state(self) -> tuple[State, dict[str, Any]]:
        """The style's own, and the factor."""
        state, settings = self.inner.state()
        return state, {"factor": self.factor, "inner": {"family": self.inner.name, "settings": settings}}


class Cascade(Stylised):
    """The plain network of a cascade.

    Passes work only on what the finer ones need of them: the coarse ones have few pixels, and the last, which
    has most, needs no more than its own halo.

    Parameters
    ----------
    passes : scale -> the style's network with the statistics of that pass.
    """

    def __init__(self, style: CascadeStyle, affines: Mapping[str, Affine], passes: Mapping[int, LocalNet]):
        super().__init__(style, affines)
        self.factor, self.inner = style.factor, style.inner
        self.passes = torch.nn.ModuleDict({str(scale): net for scale, net in passes.items()})

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """From coarse to fine, each pass on what the finer ones need of it; 0 beyond what ``keep`` needs."""
        whole = Box(0, 0, x.shape[2], x.shape[3])
        parts = areas(reduce(Box.union, keep) if keep else whole, whole, self.inner, self.factor)
        change, before = x[:, :, :0, :0], Box(0, 0, 0, 0)
        for scale in scales(self.factor):
            here = parts[scale]
            picture = down(cut(x, Box(*(scale * n for n in (here.y0, here.x0, here.y1, here.x1)))), scale)
            guide = picture
            if scale < self.factor:
                doubled = Box(*(2 * n for n in (before.y0, before.x0, before.y1, before.x1)))
                guide = picture + cut(enlarged(change), here.within(doubled))
            painted = self._pass(scale, guide, here)
            change, before = repainted(guide, painted, scale == self.factor) - picture, here
        y = cut(x, before) + change
        if before == whole:
            return y
        return F.pad(y, (before.x0, whole.x1 - before.x1, before.y0, whole.y1 - before.y1))

    def _pass(self, scale: int, guide: Tensor, here: Box) -> Tensor:
        """One network on its guide."""
        net: Any = self.passes[str(scale)]
        return net(guide.contiguous(memory_format=torch.channels_last))

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
