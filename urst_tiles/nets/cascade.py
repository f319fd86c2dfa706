"""A cascade over scales, for strokes that are several times as large as those the network paints.

The image is first stylised at a fraction of its size. The result is enlarged to twice its size, and the
details that the image has at that size and did not have before are added. This is the guide of the next pass,
whose result lies half way between the guide and the network's output for it. So it goes on to full size. Each
pass has its own statistics, so a site of the network becomes one site per scale. The whole cascade is one
local network.
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

#: The share of the network's output in the result of a pass; the rest is the guide.
STRENGTH = 0.5


def scales(factor: int) -> list[int]:
    """The scales of the passes, from coarse to fine: factor, ..., 4, 2, 1; BadInput unless ``factor`` is a
    power of two, at least 2."""
    if factor < 2 or factor & (factor - 1):
        raise BadInput(f"--stroke must be a power of two, got {factor}")
    return [1 << k for k in reversed(range(factor.bit_length()))]


def cut(x: Tensor, box: Box) -> Tensor:
    """The part ``box`` of ``x`` (n, 3, h, w)."""
    return x[:, :, box.slices[0], box.slices[1]]


def enlarged(x: Tensor) -> Tensor:
    """``x`` enlarged bilinearly: (n, 3, h, w) -> (n, 3, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def down(x: Tensor, scale: int) -> Tensor:
    """``x`` reduced to the means of ``scale`` x ``scale`` pixels."""
    return F.avg_pool2d(x, scale) if scale > 1 else x


def repainted(guide: Tensor, painted: Tensor, first: bool) -> Tensor:
    """The result of a pass: the network's output, or, after the first pass, its mixture with the guide."""
    return painted if first else torch.lerp(guide, painted, STRENGTH)


def reach(halo: int, stride: int, factor: int) -> int:
    """The halo in pixels of the cascade of a network with ``halo`` and ``stride``. Each pass adds its own
    halo to what the finer pass sees of its result; this also counts one pixel for the enlargement, and is
    rounded up to whole cells."""
    far = halo
    for _ in scales(factor)[:-1]:
        far = round_up(ceil_div(far, 2) + 1, stride) + halo
    return far * factor


def areas(keep: Box, whole: Box, style: Style, factor: int) -> dict[int, Box]:
    """The part of the window that each pass must work on, so that the last pass is right in ``keep``; by
    scale, in the pixels of that scale."""
    parts: dict[int, Box] = {}
    box = keep
    for scale in reversed(scales(factor)):
        bounds = Box(0, 0, whole.y1 // scale, whole.x1 // scale)
        around = box.align(style.stride).grow(style.halo).clip(bounds)
        parts[scale] = around = around.at_least(style.minimum, bounds)
        coarse = Box(0, 0, bounds.y1 // 2, bounds.x1 // 2)
        box = around.half().grow(1).clip(coarse)
    return parts


class CascadeStyle:
    """A style of any family, painted at several scales.

    Parameters
    ----------
    inner : the style.
    factor : the coarsest scale, a power of two.
    flat : whether all passes run at the image's own size. A thumbnail then stands for the image at every
        scale.
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
        """The sites of the pass at ``scale``, by their names in the network."""
        cells = 1 if self.flat else scale
        return {
            site.name: replace(site, name=f"x{scale}.{site.name}", stride=site.stride * cells, halo=None)
            for site in self.inner.sites
        }

    def flattened(self) -> CascadeStyle:
        """The same cascade with all passes at the image's own size."""
        return CascadeStyle(self.inner, self.factor, flat=True)

    @property
    def fingerprint(self) -> str:
        return digest({}, {"inner": self.inner.fingerprint, "factor": self.factor})

    def forward(self, x: Tensor, at: At) -> Tensor:
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
        return self.inner.affine(self._inner[site.name], moments)

    def of_scale(self, scale: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """The ``values`` of the sites of one scale, by the sites' names in the network."""
        sites = self._at_scale[scale].items()
        return {name: values[site.name] for name, site in sites if site.name in values}

    def state(self) -> tuple[State, dict[str, Any]]:
        state, settings = self.inner.state()
        return state, {"factor": self.factor, "inner": {"family": self.inner.name, "settings": settings}}


class Cascade(Stylised):
    """The plain network of a cascade.

    Each pass works only on what the finer passes need of it: coarse passes have few pixels, and the last
    pass, which has most, needs no more than the network's own halo.

    Parameters
    ----------
    style : the cascade.
    affines : the constant map of each site of the cascade, by name.
    passes : scale -> the network of the style with the statistics of that pass.
    """

    def __init__(self, style: CascadeStyle, affines: Mapping[str, Affine], passes: Mapping[int, LocalNet]):
        super().__init__(style, affines)
        self.factor, self.inner = style.factor, style.inner
        self.passes = torch.nn.ModuleDict({str(scale): net for scale, net in passes.items()})

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """Run all passes on windows ``x``, from coarse to fine. Outside of the part that the boxes ``keep``
        need, the result is 0."""
        whole = Box(0, 0, x.shape[2], x.shape[3])
        parts = areas(reduce(Box.union, keep) if keep else whole, whole, self.inner, self.factor)
        change, before = x[:, :, :0, :0], Box(0, 0, 0, 0)
        for scale in scales(self.factor):
            here = parts[scale]
            picture = down(cut(x, here.times(scale)), scale)
            guide = picture
            if scale < self.factor:
                doubled = before.times(2)
                guide = picture + cut(enlarged(change), here.within(doubled))
            painted = self._pass(scale, guide, here)
            change, before = repainted(guide, painted, scale == self.factor) - picture, here
        y = cut(x, before) + change
        if before == whole:
            return y
        return F.pad(y, (before.x0, whole.x1 - before.x1, before.y0, whole.y1 - before.y1))

    def _pass(self, scale: int, guide: Tensor, here: Box) -> Tensor:
        """Run the network of one scale on its guide."""
        net: Any = self.passes[str(scale)]
        return net(guide.contiguous(memory_format=torch.channels_last))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The bytes of the last pass, and 60 for the images between passes."""
        net: Any = self.passes["1"]
        return net.bytes_per_pixel(precision) + 60.0

    def to_precision(self, precision: Precision) -> LocalNet:
        """The same cascade with the networks of all passes at ``precision``."""
        assert self.affines is not None and isinstance(self.style, CascadeStyle)
        passes: Any = self.passes.items()
        changed = {int(scale): net.to_precision(precision) for scale, net in passes}
        return Cascade(self.style, self.affines, changed)
