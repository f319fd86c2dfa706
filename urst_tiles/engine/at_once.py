"""All sites measured in one forward pass, over windows that are run together.

At each site the moments are merged over all windows, and the pass continues with the map of these moments.
With a single window that holds a whole image, these are the statistics of the network without tiles. What
lies behind the last site is not computed.

Where the network can stop at a site (`SteppedStyle`), some windows at a time are run from one site to the
next, so that no array holds all of them: that takes less memory, and no time to map pages for large arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.engine.device import reproducible
from urst_tiles.engine.kernel import to_tensor
from urst_tiles.engine.site_moments import Reached, cell_weights, if_it_fits, shared, usable
from urst_tiles.engine.threads import ComputeThreads
from urst_tiles.geometry import Box
from urst_tiles.machine import large_arrays_apart, trimmed
from urst_tiles.moments import MemberMoments
from urst_tiles.nets import Composition, Site
from urst_tiles.nets.base import SteppedStyle, Steps
from urst_tiles.nets.composition import Mixture, measured_sites, mixing
from urst_tiles.source.windows import WindowReader

#: About how many pixels of features are summed at a time: sums are float64, which takes memory.
STRIP_PIXELS = 512 * 512
#: How many windows are run from one site to the next at a time.
TOGETHER = 8


@dataclass(frozen=True)
class Sample:
    """A window, and the part of it that is measured, in the padded image."""

    window: Box
    core: Box


def measure_at_once(
    over: Composition, reader: WindowReader, samples: list[Sample], device: str, threads: int
) -> dict[str, MemberMoments] | None:
    """The moments at every measured site, by name, over the cores of all windows, which have one size.

    None if the device has no room for all windows at once.
    """
    pixels, valid = zip(*(reader.padded(sample.window) for sample in samples), strict=True)
    batch = _Batch(over, samples, valid)
    stacked = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
    with large_arrays_apart() if len(batch.groups) == 1 else trimmed():
        return if_it_fits(ComputeThreads(1, threads), batch.run, stacked, torch.device(device))


class _Batch:
    """One forward pass over windows; ``valid`` is the validity of each, (h, w), None where all is valid."""

    def __init__(
        self, over: Composition, samples: list[Sample], valid: tuple[NDArray[Any] | None, ...]
    ) -> None:
        self.over, self.samples, self.valid = over, samples, valid
        self.moments: dict[str, MemberMoments] = {}
        self.wanted = {site.name for site in measured_sites(over)}
        count = TOGETHER if isinstance(over.style, SteppedStyle) else len(samples)
        self.groups = [slice(k, k + count) for k in range(0, len(samples), count)]

    @torch.inference_mode()
    def run(self, pixels: NDArray[Any], device: torch.device) -> dict[str, MemberMoments]:
        """Measure all sites; ``pixels`` are those of the windows, (n, h, w, channels)."""
        style = self.over.style
        with reproducible(device), suppress(Reached):
            if isinstance(style, SteppedStyle):
                self._step([style.steps(to_tensor(pixels[group], device)) for group in self.groups])
            else:
                style.forward(to_tensor(pixels, device), self._at)
        return self.moments

    def _step(self, passes: list[Steps]) -> None:
        """Run the passes of all groups from one site to the next."""
        reached = [next(one) for one in passes]
        while True:
            site = reached[0][0]
            known = self._measured(site, [x for _, x in reached])
            for k, group in enumerate(self.groups):
                reached[k] = passes[k].send(self._mapped(site, known, reached[k][1], group))

    def _at(self, site: Site, x: Tensor) -> Tensor:
        """Measure a site over all windows, and go on with the map that follows from it."""
        return self._mapped(site, self._measured(site, [x]), x, slice(None))

    def _measured(self, site: Site, groups: Sequence[Tensor]) -> dict[str, MemberMoments]:
        """The moments of a site over all windows, by its name; nothing where the style alone decides. Raises
        Reached behind the last site that is measured."""
        if not site.measured:
            return {}
        merged = reduce(add, self._parts(site, [features for x in groups for features in x]))
        known = {site.name: usable(self.over, site, merged)}
        self.moments |= known
        if self.moments.keys() == self.wanted:
            raise Reached
        return known

    def _mapped(self, site: Site, known: Mapping[str, MemberMoments], x: Tensor, group: slice) -> Tensor:
        """The map of a site, which follows from its moments, applied to the features of some windows."""
        maps = {site.name: Mixture(self.over.map_at(site, known))}
        if self.over.field.members == 1:
            return maps[site.name].affine(0)(x)
        windows = zip(self.samples[group], x.split(1), strict=True)
        return torch.cat([mixing(self.over, maps, sample.window)(site, part) for sample, part in windows])

    def _parts(self, site: Site, windows: Sequence[Tensor]) -> Iterable[MemberMoments]:
        """The moments over the core of each window, whose features are (C, h, w), strip by strip."""
        s = site.stride
        for sample, valid, features in zip(self.samples, self.valid, windows, strict=True):
            for strip in _strips(sample.core, self.over.stride):
                inside = strip.within(sample.window)
                weights = None if valid is None else cell_weights(valid[inside.slices], s)
                cells = features[:, inside.y0 // s : inside.y1 // s, inside.x0 // s : inside.x1 // s]
                yield shared(self.over, site, cells.flatten(1).float(), weights, strip)


def _strips(box: Box, stride: int) -> list[Box]:
    """Strips of a box of the full width, of whole cells, with about ``STRIP_PIXELS`` pixels."""
    rows = max(stride, STRIP_PIXELS // box.shape[1] // stride * stride)
    return [Box(y, box.x0, min(y + rows, box.y1), box.x1) for y in range(box.y0, box.y1, rows)]
