"""Halo, stride, minimum and bytes of a user's module, all measured; what cannot be local is refused by name.

1. Stride: how the sizes of all features grow with the picture's, their least common multiple.
2. Halo: NaN in one aligned cell amid the picture; which cells of the output, and of the features at the
   sites, does it reach? (See tests/probe.py for why NaN.)
3. Both together: the picture cropped by one stride must give the same pixels, but for the halo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import count
from math import ceil, lcm
from typing import Any, Self

import torch
from torch import Tensor, nn

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.geometry import round_up
from urst_tiles.moments import Moments
from urst_tiles.nets.base import Affine, Site
from urst_tiles.nets.module.sites import SiteLayer, answering
from urst_tiles.nets.module.watch import Alive, Watch, trial

#: Sides of the first pictures, px; each is tried with its double.
SIDES = (32, 64, 128, 256, 512, 96, 192, 384, 160, 320)
#: Where the search for the halo ends: px, and bytes of one forward.
LIMIT, LIMIT_BYTES = 4096, 4 << 30
#: How much a pixel may differ after a crop, as part of the output's range; off the lattice it is 0.05.
TOLERANCE = 2e-3
#: A forward's bytes as a multiple of its tensors': a convolution has its own copies of what it reads and
#: writes (used of it on the CPU: 0.74 to 0.87, five networks).
INSIDE = 1.35


@dataclass(frozen=True)
class Footprint:
    """What is measured of a module; ``plain_bytes`` per pixel, the rest as in ``Style``."""

    halo: int
    stride: int
    minimum: int
    plain_bytes: float
    sites: tuple[Site, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        return cls(**{**given, "sites": tuple(Site(**site) for site in given["sites"])})


class Failed(Exception):
    """The module raised, or gave a picture of another size."""


class Probe:
    """A module with site layers, under examination.

    Parameters
    ----------
    net : the module, its sites replaced by site layers.
    forward : (n, 3, h, w) in 0..1 -> what the module makes of it, in 0..1.
    label : what a sentence calls it.

    Attributes
    ----------
    halos : how far one cell reaches to what arrives at each site, by name, and to the picture, "".
    """

    def __init__(self, net: nn.Module, forward: Callable[[Tensor], Tensor], label: str):
        self.net, self.forward, self.label = net, forward, label
        self.affines: dict[str, Affine] = {}
        self.features: dict[str, tuple[SiteLayer, torch.Size]] = {}
        self.halos: dict[str, int] = {}
        self.bytes = 0.0

    def footprint(self) -> Footprint:
        """Everything; BadInput for a module that cannot run in tiles, naming the layer."""
        stride, side = self.lattice()
        sites = [self._site(name, side) for name in self.affines]
        stride, halo = self.settled(stride)
        own = tuple(replace(site, halo=self.halos[site.name]) for site in sites)
        return Footprint(halo, stride, self.minimum(stride), INSIDE * self.bytes + 24.0, own)

    # What runs

    def live(self, site_layer: SiteLayer, x: Tensor) -> Tensor:
        """Its own statistics, kept as the constant maps of what follows."""
        if site_layer.name in self.features:
            raise BadInput(
                f"{site_layer.label} of {self.label} is called twice in one forward, each time with other"
                " statistics; give each call a layer of its own"
            )
        self.features[site_layer.name] = site_layer, x.shape
        self.affines[site_layer.name] = site_layer.affine(Moments.of(x[0].flatten(1).numpy()))
        return self.affines[site_layer.name](x)

    def frozen(self, site_layer: SiteLayer, x: Tensor) -> Tensor:
        """The constant map."""
        return self.affines[site_layer.name](x)

    def run(
        self, x: Tensor, at: Callable[[SiteLayer, Tensor], Tensor] | None = None, *, nan: bool = False
    ) -> tuple[Tensor, Watch]:
        """One forward under watch; Failed, with a sentence, for an error inside."""
        with torch.inference_mode(), answering(at or self.frozen), Watch(self.net, nan=nan) as watch:
            try:
                y = self.forward(x)
            except UrstError:
                raise
            except Exception as error:
                text = " ".join(str(error).split())[:200] or type(error).__name__
                where = watch.label(watch.inside[-1]) if watch.inside else self.label
                raise Failed(f"{where}: {text}") from error
        if y.ndim != 4 or y.shape[:2] != (1, 3):
            raise BadInput(f"{self.label} must give 3 channels for 3, got a tensor {tuple(y.shape)}")
        return y, watch

    # Stride

    def lattice(self) -> tuple[int, int]:
        """(stride, a side it was seen at)."""
        failed: dict[int, Failed] = {}
        for side in SIDES:
            found = self._growth(side, failed)
            if found and side % found == 0:
                return found, 2 * side
        worked = [side for side in SIDES if side not in failed and 2 * side in failed]
        if worked:
            a, b = worked[0], 2 * worked[0]
            raise BadInput(f"{self.label} takes a picture of {a} px but not of {b} px: {failed[b]}")
        largest = max(failed, default=0)
        why = failed.get(256, failed.get(largest, "its features grow unevenly with the picture"))
        raise BadInput(f"{self.label} fails on pictures of every size tried, at 256 px: {why}")

    def _growth(self, side: int, failed: dict[int, Failed]) -> int | None:
        """Pixels per cell, the least common multiple over all features; None where that is not to be seen."""
        sizes, outputs = [], []
        for n in (side, 2 * side):
            if n in failed:
                return None
            self.features.clear()
            self.affines.clear()
            try:
                with Alive() as alive:
                    y, watch = self.run(trial(n), self.live)
            except Failed as error:
                failed[n] = error
                return None
            sizes.append(watch.sizes)
            outputs.append(tuple(y.shape[2:]))
        self.bytes = alive.peak / (2 * side) ** 2
        if outputs != [(side, side), (2 * side, 2 * side)]:
            self._check_size(side, *outputs)
            for n, (h, w) in zip((side, 2 * side), outputs, strict=True):
                if (h, w) != (n, n):
                    failed[n] = Failed(f"it gives {w} x {h}")
            return None
        if len(sizes[0]) != len(sizes[1]):
            return None
        pairs = [(a, b) for one, two in zip(*sizes, strict=True) for a, b in zip(one, two, strict=True)]
        return lcm(*(Fraction(side, b - a).numerator for a, b in pairs if b > a))

    def _check_size(self, side: int, one: tuple[int, ...], two: tuple[int, ...]) -> None:
        """BadInput where the output is larger or smaller at any size; else a larger picture may do."""
        scaled = two == (2 * one[0], 2 * one[1]) and not side < 1.5 * one[0] < 2.25 * side
        offset = two == (one[0] + side, one[1] + side)
        if one == two or scaled or offset:
            got = f"{two[1]} x {two[0]}"
            raise BadInput(
                f"{self.label} must give a picture of its input's size, got {got} for {2 * side} x {2 * side}"
            )

    def _site(self, name: str, side: int) -> Site:
        """The site of a site layer, whose features must cover the picture evenly."""
        site_layer, (_, channels, h, w) = self.features[name]
        if h != w or side % h:
            raise BadInput(
                f"{site_layer.label} of {self.label} has features of {w} x {h} for a picture of {side} px; to"
                " be measured in parts they must cover it in whole pixels per cell"
            )
        eps = float(getattr(site_layer.layer, "eps", 0.0))
        return Site(name, channels, side // h, eps, 0)

    # Halo

    def settled(self, stride: int) -> tuple[int, int]:
        """(stride, halo): the smallest multiple of ``stride`` that holds."""
        for factor in (1, 2, 4, 8):
            least = 128
            for _ in range(2):  # once more from farther: kernels with holes may jump over the border
                halo, side = self.reach(factor * stride, least)
                if self.moves(factor * stride, halo):
                    return factor * stride, halo
                least = 2 * side
                if not self.affordable(least):
                    break
        raise BadInput(
            f"{self.label} gives other pixels where its picture is cropped by {stride} px, and by up to"
            f" {8 * stride} px: something in it depends on the position or on the picture's size"
        )

    def affordable(self, side: int) -> bool:
        """Whether a picture of ``side`` may be tried."""
        return side <= LIMIT and side**2 * self.bytes <= LIMIT_BYTES

    def reach(self, stride: int, least: int = 128) -> tuple[int, int]:
        """(halo, side of the picture): how far the cells lie that one cell reaches, px; ``halos`` has it by
        site."""
        side = round_up(max(least, 7 * stride), stride)  # two cells, and one more, on each side
        since: tuple[str, int] = "", side
        while self.affordable(side):
            spans, culprit = self._spread(side, stride)
            if all(first > 0 and last < side for first, last in spans.values()):
                at = side // 2 // stride * stride
                self.halos = {name: max(at - a, b - at - stride) for name, (a, b) in spans.items()}
                return max(self.halos.values()), side
            if culprit != since[0]:
                since = culprit, side
            if culprit and side >= 2 * since[1]:  # a local one leaps over a small picture, not over a large
                raise BadInput(
                    f"{self.label} cannot run in tiles: {culprit} sees the whole picture; where that is a"
                    " norm, register its class in sites="
                )
            side = round_up(side * 3 // 2, stride)
        raise BadInput(
            f"{self.label} cannot run in tiles: one cell of {stride} px reaches more than"
            f" {side // 3} px, as far as was probed"
        )

    def _spread(self, side: int, stride: int) -> tuple[dict[str, tuple[int, int]], str]:
        """(of each site, and of the picture under "": first, and behind the last line of whole cells that NaN
        in the middle cell reaches; who leapt)."""
        x, at = trial(side), side // 2 // stride * stride
        x[:, :, at : at + stride, at : at + stride] = float("nan")
        spans: dict[str, tuple[int, int]] = {}

        def seen(name: str, features: Tensor) -> None:
            touched = features.isnan().any(dim=1)[0]
            size = Fraction(side, features.shape[2])
            cells = [n for axis in (0, 1) for n in touched.any(dim=axis).nonzero().flatten().tolist()]
            first = int(min(cells) * size) if cells else at
            last = ceil((max(cells) + 1) * size) if cells else at + stride
            spans[name] = first // stride * stride, round_up(last, stride)

        def look(site_layer: SiteLayer, features: Tensor) -> Tensor:
            seen(site_layer.name, features)
            return self.frozen(site_layer, features)

        y, watch = self._sure(x, look, nan=True)
        seen("", y)
        return spans, watch.culprit

    def _sure(
        self, x: Tensor, at: Callable[[SiteLayer, Tensor], Tensor] | None = None, *, nan: bool = False
    ) -> tuple[Tensor, Watch]:
        """A forward that must not fail."""
        try:
            return self.run(x, at, nan=nan)
        except Failed as error:
            raise BadInput(f"{self.label} fails on a picture of {x.shape[2]} px: {error}") from error

    def moves(self, stride: int, halo: int) -> bool:
        """Whether a picture cropped by one stride gives the same pixels beyond the halo."""
        side = round_up(max(256, halo + 4 * stride), stride)
        x = trial(side)
        with Alive() as alive:
            whole = self._sure(x)[0]
        self.bytes = alive.peak / side**2
        try:
            part = self.run(x[:, :, stride:, stride:])[0]
        except Failed:
            return False
        if part.shape[2:] != (side - stride, side - stride):
            return False
        difference = (whole[:, :, stride:, stride:] - part)[:, :, halo:, halo:].abs().max()
        return bool(difference <= TOLERANCE * (whole.max() - whole.min()))

    def minimum(self, stride: int) -> int:
        """The smallest side, a multiple of ``stride``, on which the module runs."""
        for n in count(stride, stride):  # ends, since larger ones have run before
            with suppress(Failed):
                if self.run(trial(n))[0].shape[2:] == (n, n):
                    return n
        raise AssertionError
