"""Measure the halo, stride, minimum and memory of a user's module, and refuse a module that is not local.

1. Stride: from how the sizes of all features grow with the image's; the least common multiple over them.
2. Halo: one aligned cell in the middle of an image is set to NaN, and the cells of the output, and of the
   features at the sites, that become NaN are looked up. NaN always spreads, whereas a gradient is hidden by a
   weight that happens to be small.
3. Both together: an image cropped by one stride must give the same pixels, except within the halo of the
   crop.
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

#: Sides in pixels of the images that the stride is measured on; each is tried together with its double.
SIDES = (32, 64, 128, 256, 512, 96, 192, 384, 160, 320)
#: The search for the halo ends at images of this side in pixels, and of this many bytes for one forward.
LIMIT, LIMIT_BYTES = 4096, 4 << 30
#: How much a pixel may differ after a crop, as a fraction of the output's range. Origins off the lattice of
#: the stride differ by 0.05.
TOLERANCE = 2e-3
#: Peak bytes of a forward as a multiple of the bytes of its tensors: a convolution copies what it reads and
#: writes. Of the resulting estimate, five networks on the CPU used 0.74 to 0.87.
INSIDE = 1.35


@dataclass(frozen=True)
class ProbedFootprint:
    """The measured properties of a module.

    Attributes
    ----------
    halo, stride, minimum : in pixels, as in `Style`.
    plain_bytes : peak bytes per pixel of a forward, as in `Style`.
    sites : the module's sites, each with its halo.
    """

    halo: int
    stride: int
    minimum: int
    plain_bytes: float
    sites: tuple[Site, ...]

    def to_json(self) -> dict[str, Any]:
        """The footprint as JSON-able values."""
        return asdict(self)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The footprint that `to_json` turned into ``given``."""
        return cls(**{**given, "sites": tuple(Site(**site) for site in given["sites"])})


class Failed(Exception):
    """The module raised an error, or gave an image of another size than its input's."""


class Probe:
    """Measures a module with site layers.

    Parameters
    ----------
    net : the module, its sites replaced by site layers.
    forward : runs the module: maps (n, 3, h, w) in 0..1 to the module's output in 0..1.
    label : the module's name in messages.

    Attributes
    ----------
    affines : constant map of each site, by name, from the statistics of the last trial image.
    features : site layer, and shape of its input, of each site in the last trial image, by name.
    halos : how far, in pixels, one cell reaches to the input of each site, by name, and to the output, under
        "".
    bytes : peak bytes of tensors per pixel of one forward.
    """

    def __init__(self, net: nn.Module, forward: Callable[[Tensor], Tensor], label: str):
        self.net, self.forward, self.label = net, forward, label
        self.affines: dict[str, Affine] = {}
        self.features: dict[str, tuple[SiteLayer, torch.Size]] = {}
        self.halos: dict[str, int] = {}
        self.bytes = 0.0

    def footprint(self) -> ProbedFootprint:
        """All measurements of the module.

        Raises
        ------
        BadInput : the module cannot run in tiles; the message names the layer.
        """
        stride, side = self.lattice()
        sites = [self._site(name, side) for name in self.affines]
        stride, halo = self.settled(stride)
        sites_with_halos = tuple(replace(site, halo=self.halos[site.name]) for site in sites)
        return ProbedFootprint(
            halo, stride, self.minimum(stride), INSIDE * self.bytes + 24.0, sites_with_halos
        )

    # Running the module

    def live(self, site_layer: SiteLayer, x: Tensor) -> Tensor:
        """Answer a site layer with the map of its own input's statistics, and remember that map for later
        forwards.

        Raises
        ------
        BadInput : the layer is called twice in one forward.
        """
        if site_layer.name in self.features:
            raise BadInput(
                f"{site_layer.label} of {self.label} is called twice in one forward, each time with other"
                " statistics; give each call a layer of its own"
            )
        self.features[site_layer.name] = site_layer, x.shape
        self.affines[site_layer.name] = site_layer.affine(Moments.of(x[0].flatten(1).numpy()))
        return self.affines[site_layer.name](x)

    def frozen(self, site_layer: SiteLayer, x: Tensor) -> Tensor:
        """Answer a site layer with the map that `live` remembered."""
        return self.affines[site_layer.name](x)

    def run(
        self, x: Tensor, at: Callable[[SiteLayer, Tensor], Tensor] | None = None, *, nan: bool = False
    ) -> tuple[Tensor, Watch]:
        """Run the module once under a `Watch`; ``at`` answers the site layers (default: `frozen`).

        Returns
        -------
        The output, (1, 3, h, w), and the watch.

        Raises
        ------
        Failed : the module raised; the message says in which layer.
        BadInput : the output is not an image of three channels.
        """
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
        """The stride in pixels, and the side of an image on which it was measured.

        Raises
        ------
        BadInput : the module fails on images of every size tried.
        """
        failed: dict[int, Failed] = {}
        for side in SIDES:
            stride = self._growth(side, failed)
            if stride and side % stride == 0:
                return stride, 2 * side
        worked = [side for side in SIDES if side not in failed and 2 * side in failed]
        if worked:
            low, high = worked[0], 2 * worked[0]
            raise BadInput(f"{self.label} takes a picture of {low} px but not of {high} px: {failed[high]}")
        largest = max(failed, default=0)
        why = failed.get(256, failed.get(largest, "its features grow unevenly with the picture"))
        raise BadInput(f"{self.label} fails on pictures of every size tried, at 256 px: {why}")

    def _growth(self, side: int, failed: dict[int, Failed]) -> int | None:
        """The stride measured on images of ``side`` and ``2 * side`` pixels: the least common multiple of the
        pixels per cell over all features; None where these two images do not show it. Sides that fail are
        added to ``failed``."""
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
        pairs = [(a, b) for half, full in zip(*sizes, strict=True) for a, b in zip(half, full, strict=True)]
        return lcm(*(Fraction(side, b - a).numerator for a, b in pairs if b > a))

    def _check_size(self, side: int, small: tuple[int, ...], large: tuple[int, ...]) -> None:
        """Raise BadInput where the output is larger or smaller than the input at every size; an output that
        only differs at this size is not refused, since a larger image may do. ``small`` and ``large`` are the
        output's sizes."""
        scaled = large == (2 * small[0], 2 * small[1]) and not side < 1.5 * small[0] < 2.25 * side
        offset = large == (small[0] + side, small[1] + side)
        if small == large or scaled or offset:
            got = f"{large[1]} x {large[0]}"
            raise BadInput(
                f"{self.label} must give a picture of its input's size, got {got} for {2 * side} x {2 * side}"
            )

    def _site(self, name: str, side: int) -> Site:
        """The site of a site layer, its halo not yet measured.

        Raises
        ------
        BadInput : the features do not cover the image in whole pixels per cell.
        """
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
        """The stride that passes the crop test, the smallest multiple of ``stride`` (up to 8 times) that
        does, and its halo, both in pixels.

        Raises
        ------
        BadInput : no multiple passes: the output depends on the position or on the image's size.
        """
        for factor in (1, 2, 4, 8):
            least = 128
            for _ in range(2):  # again on a larger image: kernels with holes may jump over its border
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
        """Whether an image of ``side`` pixels is within `LIMIT` and its forward within `LIMIT_BYTES`."""
        return side <= LIMIT and side**2 * self.bytes <= LIMIT_BYTES

    def reach(self, stride: int, least: int = 128) -> tuple[int, int]:
        """The halo in pixels for one cell of ``stride`` pixels, and the side of the image on which it was
        measured, at least ``least``; sets `halos`.

        Raises
        ------
        BadInput : a layer sees the whole image, and the message names it; or the reach is larger than the
            largest image tried.
        """
        side = round_up(max(least, 7 * stride), stride)  # three cells on each side of the middle one
        since: tuple[str, int] = "", side
        while self.affordable(side):
            spans, culprit = self._spread(side, stride)
            if all(first > 0 and last < side for first, last in spans.values()):
                at = side // 2 // stride * stride
                self.halos = {name: max(at - a, b - at - stride) for name, (a, b) in spans.items()}
                return max(self.halos.values()), side
            if culprit != since[0]:
                since = culprit, side
            if culprit and side >= 2 * since[1]:  # a local layer may cover a small image, but no large one
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
        """How far NaN in the middle cell of an image spreads.

        Returns
        -------
        For each site by name, and for the output under "": the start and end, in pixels and in whole cells,
        of the lines that became NaN; and the layer that spread NaN over the whole image at once
        (`Watch.culprit`).
        """
        x, at = trial(side), side // 2 // stride * stride
        x[:, :, at : at + stride, at : at + stride] = float("nan")
        spans: dict[str, tuple[int, int]] = {}

        def record(name: str, features: Tensor) -> None:
            touched = features.isnan().any(dim=1)[0]
            size = Fraction(side, features.shape[2])
            cells = [n for axis in (0, 1) for n in touched.any(dim=axis).nonzero().flatten().tolist()]
            first = int(min(cells) * size) if cells else at
            last = ceil((max(cells) + 1) * size) if cells else at + stride
            spans[name] = first // stride * stride, round_up(last, stride)

        def answer(site_layer: SiteLayer, features: Tensor) -> Tensor:
            record(site_layer.name, features)
            return self.frozen(site_layer, features)

        y, watch = self._sure(x, answer, nan=True)
        record("", y)
        return spans, watch.culprit

    def _sure(
        self, x: Tensor, at: Callable[[SiteLayer, Tensor], Tensor] | None = None, *, nan: bool = False
    ) -> tuple[Tensor, Watch]:
        """`run` for an image that the module must be able to process: a failure is BadInput."""
        try:
            return self.run(x, at, nan=nan)
        except Failed as error:
            raise BadInput(f"{self.label} fails on a picture of {x.shape[2]} px: {error}") from error

    def moves(self, stride: int, halo: int) -> bool:
        """Whether an image cropped by one stride gives the same pixels beyond the halo, within
        `TOLERANCE`."""
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
        """The smallest side in pixels, a multiple of ``stride``, on which the module runs."""
        for n in count(stride, stride):  # ends, since the module has run on larger images before
            with suppress(Failed):
                if self.run(trial(n))[0].shape[2:] == (n, n):
                    return n
        raise AssertionError
