"""What one window tells: the features that reach a site, and their moments.

Features are float32. Sums are float64: on a processor in numpy, on a card there, so that no feature travels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import DoesNotFit
from urst_tiles.execute import Lanes
from urst_tiles.geometry import Box, round_up
from urst_tiles.kernel import is_out_of_memory, release, reproducible, to_tensor
from urst_tiles.moments import Moments, Several
from urst_tiles.nets import Composition, Site, Style
from urst_tiles.nets.composition import Mixture, mixing

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

Subject = Style | Composition
Weights = NDArray[np.float64]


class _Reached(Exception):
    """Raised at the site that is measured: what comes after need not be computed."""


def composed(style: Subject) -> Composition:
    """A plain style is a composition of one."""
    return style if isinstance(style, Composition) else Composition((style,))


def halo_of(style: Subject, site: Site | None) -> int:
    """How far what arrives at ``site`` sees, px, whole stride cells."""
    return style.halo if site is None or site.halo is None else round_up(site.halo, style.stride)


def cell_weights(valid: NDArray[Any], stride: int) -> Weights:
    """float64 (cells,): the fraction of valid pixels in each stride x stride cell, row by row."""
    h, w = valid.shape
    return (valid > 0).reshape(h // stride, stride, w // stride, stride).mean(axis=(1, 3)).ravel()


def window_moments(
    over: Composition,
    site: Site,
    maps: Mapping[str, Mixture],
    pixels: NDArray[np.generic],
    window: Box,
    core: Box,
    weights: Weights | None,
    device: str,
    lanes: Lanes,
) -> Several:
    """Moments of ``site`` over ``core``, the sites before it frozen; where the device has no room for the
    window, of its two halves.

    Parameters
    ----------
    pixels : of ``window``, uint8 or uint16 (h, w, 3).
    weights : of the cells of ``core``, row by row; None where all are 1.
    """
    found = if_it_fits(lanes, _window_moments, over, site, maps, pixels, window, core, weights, device)
    if found is not None:
        return found
    rows = core.shape[0] // 2 // over.stride * over.stride
    if rows == 0:
        raise DoesNotFit(
            f"measuring a window of {window.shape[1]} x {window.shape[0]} px takes more memory than {device}"
            " has left; make room there, or measure on another with --device"
        )
    log.warning("the device has no room to measure a window of %s; cutting it in two", window.shape)
    middle = core.y0 + rows
    first = (rows // site.stride) * (core.shape[1] // site.stride)
    total = Several({})
    for half, own in (
        (Box(core.y0, core.x0, middle, core.x1), slice(None, first)),
        (Box(middle, core.x0, core.y1, core.x1), slice(first, None)),
    ):
        around = half.grow(halo_of(over, site)).clip(window).at_least(over.minimum, window)
        part = pixels[around.within(window).slices]
        its = None if weights is None else weights[own]
        total += window_moments(over, site, maps, part, around, half, its, device, lanes)
    return total


@torch.inference_mode()
def _window_moments(
    over: Composition,
    site: Site,
    maps: Mapping[str, Mixture],
    pixels: NDArray[np.generic],
    window: Box,
    core: Box,
    weights: Weights | None,
    device: str,
) -> Several:
    where = torch.device(device)
    with reproducible(where):
        cells = _features(over, site, maps, pixels, window, core, where)
        return shared(over, site, cells, weights, core)


def _features(
    over: Composition,
    site: Site,
    maps: Mapping[str, Mixture],
    pixels: NDArray[np.generic],
    window: Box,
    core: Box,
    device: torch.device,
) -> Tensor:
    """float32 (channels, cells) on the device: what reaches ``site`` over ``core``."""
    reached: list[Tensor] = []
    before = mixing(over, maps, window)

    def at(here: Site, x: Tensor) -> Tensor:
        if here.name == site.name:
            reached.append(x)
            raise _Reached
        return before(here, x)

    with suppress(_Reached):
        over.style.forward(to_tensor(pixels[None], device), at)
    s, core = site.stride, core.within(window)
    cells = reached[0][0, :, core.y0 // s : core.y1 // s, core.x0 // s : core.x1 // s]
    return cells.reshape(site.channels, -1).float()


def shared(over: Composition, site: Site, cells: Tensor, weights: Weights | None, core: Box) -> Several:
    """Moments of every member that has a share in ``core``, of the features there, (channels, cells)."""
    members = over.field.active(core)
    if len(members) == 1:
        alone = weights is None or bool(weights.any())
        return Several({members[0]: moments_of(cells, weights, full=site.full)} if alone else {})
    members, shares = over.field.weights(core, site.stride)
    parts = {}
    for member, share in zip(members, shares, strict=True):
        own = share.ravel().astype(np.float64)
        own = own if weights is None else own * weights
        if own.any():
            parts[member] = moments_of(cells, own, full=site.full)
    return Several(parts)


def moments_of(cells: Tensor, weights: Weights | None, *, full: bool) -> Moments:
    """`Moments.of`, where the features are."""
    if cells.device.type == "cpu":
        return Moments.of(cells.numpy(), weights, full=full)
    return summed(cells, weights, full=full)


def summed(cells: Tensor, weights: Weights | None, *, full: bool) -> Moments:
    """What `Moments.of` finds for weights that are not all 0, by torch, on the features' device."""
    d = cells.double()
    w = None if weights is None or (weights == 1).all() else torch.from_numpy(weights).to(d)
    n = float(d.shape[1] if w is None else w.sum())

    def weighed() -> Tensor:
        return d if w is None else d * w

    mean = weighed().sum(dim=1) / n
    d = d - mean[:, None]
    m2 = weighed() @ d.T if full else (weighed() * d).sum(dim=1)
    return Moments(n, mean.cpu().numpy(), m2.cpu().numpy())


def if_it_fits(lanes: Lanes, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What ``function`` returns on one of the lanes, or None where the device ran out of memory."""
    try:
        return lanes.run(function, *args, **kwargs)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release()
    return None
