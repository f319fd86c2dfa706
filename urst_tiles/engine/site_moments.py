"""Moments, or histograms, of the features that reach a site of the network, over one window.

Features are float32, and sums are float64. On a CPU NumPy sums; on a card torch sums, so that no features
need to be copied from the card.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.engine.device import is_out_of_memory, release, reproducible
from urst_tiles.engine.kernel import to_tensor
from urst_tiles.engine.threads import ONE_THREAD, ComputeThreads
from urst_tiles.errors import DoesNotFit
from urst_tiles.geometry import Box, round_up
from urst_tiles.moments import MemberMoments, Moments
from urst_tiles.nets import Composition, Site
from urst_tiles.nets.base import neutral, statistics_of
from urst_tiles.nets.composition import Mixture, Subject, mixing

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

Weights = NDArray[np.float64]


class Reached(Exception):
    """Raised at the site that is measured, since the layers after it need not be computed."""


def halo_of(style: Subject, site: Site | None) -> int:
    """The pixels around a stride cell on which the features at ``site`` depend, rounded up to the stride.

    If ``site`` is None, or does not know this, it is the halo of the whole network.
    """
    return style.halo if site is None or site.halo is None else round_up(site.halo, style.stride)


def cell_weights(valid: NDArray[Any], stride: int) -> Weights:
    """The fraction of valid pixels in each cell of stride x stride pixels, float64, (cells,), row by row.

    ``valid`` is (h, w), and 0 where a pixel is invalid; its sides are multiples of ``stride``.
    """
    h, w = valid.shape
    return (valid > 0).reshape(h // stride, stride, w // stride, stride).mean(axis=(1, 3)).ravel()


@dataclass(frozen=True)
class SiteMoments:
    """Measures the moments at one site, with the maps of the sites before it fixed.

    Attributes
    ----------
    over : the composition whose network is measured.
    site : the site of the network at which it is measured.
    maps : the fixed maps of the sites before it, by name of the site.
    device : name of the device that computes windows.
    compute : the threads that compute windows.
    """

    over: Composition
    site: Site
    maps: Mapping[str, Mixture]
    device: str = "cpu"
    compute: ComputeThreads = ONE_THREAD

    def moments(
        self, pixels: NDArray[np.generic], window: Box, core: Box, weights: Weights | None
    ) -> MemberMoments:
        """The moments of each member over ``core``.

        If the device has no room for the window, the moments of two halves of the core are merged, each
        computed in a smaller window.

        Parameters
        ----------
        pixels : the pixels of ``window``, uint8 or uint16, (h, w, 3).
        weights : the weights of the cells of ``core``, row by row, as `cell_weights` returns them; None if
            all are 1.

        Raises
        ------
        DoesNotFit : the device has no room even for a core of one row of cells.
        """
        moments = if_it_fits(self.compute, self._moments, pixels, window, core, weights)
        if moments is not None:
            return moments
        stride, site = self.over.stride, self.site
        middle = core.y0 + core.shape[0] // 2 // stride * stride
        if middle == core.y0:
            raise DoesNotFit(
                f"measuring a window of {window.shape[1]} x {window.shape[0]} px takes more memory than"
                f" {self.device} has left; make room there, or measure on another with --device"
            )
        log.warning("the device has no room to measure a window of %s; cutting it in two", window.shape)
        above = (middle - core.y0) * core.shape[1] // site.stride**2
        total = MemberMoments({})
        for y0, y1, cells in ((core.y0, middle, slice(above)), (middle, core.y1, slice(above, None))):
            half = Box(y0, core.x0, y1, core.x1)
            around = half.grow(halo_of(self.over, site)).clip(window).at_least(self.over.minimum, window)
            part = None if weights is None else weights[cells]
            total += self.moments(pixels[around.within(window).slices], around, half, part)
        return total

    @torch.inference_mode()
    def _moments(
        self, pixels: NDArray[np.generic], window: Box, core: Box, weights: Weights | None
    ) -> MemberMoments:
        device = torch.device(self.device)
        with reproducible(device):
            cells = self._features(to_tensor(pixels[None], device), window, core)
            return shared(self.over, self.site, cells, weights, core)

    def _features(self, x: Tensor, window: Box, core: Box) -> Tensor:
        """The features that reach the site over ``core``, float32, (channels, cells), on the device."""
        reached: list[Tensor] = []
        before = mixing(self.over, self.maps, window)

        def at(here: Site, x: Tensor) -> Tensor:
            if here.name == self.site.name:
                reached.append(x)
                raise Reached
            return before(here, x)

        with suppress(Reached):
            self.over.style.forward(x, at)
        s, core = self.site.stride, core.within(window)
        cells = reached[0][0, :, core.y0 // s : core.y1 // s, core.x0 // s : core.x1 // s]
        return cells.reshape(self.site.channels, -1).float()


def shared(over: Composition, site: Site, cells: Tensor, weights: Weights | None, core: Box) -> MemberMoments:
    """The moments of the features over ``core``, of every member that has a share in it.

    Parameters
    ----------
    cells : the features, float32, (channels, cells), the cells row by row.
    weights : the weight of each cell, as `cell_weights` returns it; None if all are 1.
    """
    members = over.field.active(core)
    if len(members) == 1:
        alone = weights is None or bool(weights.any())
        return MemberMoments({members[0]: statistics_at(site, cells, weights)} if alone else {})
    members, shares = over.field.weights(core, site.stride)
    parts = {}
    for member, share in zip(members, shares, strict=True):
        shares_of_cells = share.ravel().astype(np.float64)
        shares_of_cells = shares_of_cells if weights is None else shares_of_cells * weights
        if shares_of_cells.any():
            parts[member] = statistics_at(site, cells, shares_of_cells)
    return MemberMoments(parts)


def usable(over: Composition, site: Site, moments: MemberMoments) -> MemberMoments:
    """The moments with which ``over`` can be frozen.

    An image without a valid pixel has no moments. Neutral moments take their place, since there are no pixels
    to stylise either.
    """
    return over.backed(moments if moments.parts else MemberMoments({0: neutral(site)}))


def for_style(style: Subject, moments: Mapping[str, MemberMoments]) -> dict[str, Any]:
    """The moments in the form that ``nets.freeze`` takes: for a single style, those of the only member."""
    if isinstance(style, Composition):
        return dict(moments)
    return {name: several.parts[0] for name, several in moments.items()}


def statistics_at(site: Site, cells: Tensor, weights: Weights | None) -> Any:
    """The same as `statistics_of`, but sums for moments are computed on the device of the tensor."""
    if cells.device.type == "cpu" or site.bins:
        return statistics_of(site, cells, weights)
    return summed(cells if site.view is None else site.view(cells), weights, full=site.full)


def summed(cells: Tensor, weights: Weights | None, *, full: bool) -> Moments:
    """The same as `Moments.of` for weights that are not all 0, computed by torch on the device of
    ``cells``."""
    d = cells.double()
    w = None if weights is None or (weights == 1).all() else torch.from_numpy(weights).to(d)
    n = float(d.shape[1] if w is None else w.sum())

    def weighed() -> Tensor:
        return d if w is None else d * w

    mean = weighed().sum(dim=1) / n
    d = d - mean[:, None]
    m2 = weighed() @ d.T if full else (weighed() * d).sum(dim=1)
    return Moments(n, mean.cpu().numpy(), m2.cpu().numpy())


def if_it_fits(
    compute: ComputeThreads, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """Call ``function`` on one of the threads and return the result; None if the device ran out of memory."""
    try:
        return compute.run(function, *args, **kwargs)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release()
    return None
