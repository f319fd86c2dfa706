"""The same gradient tile by tile, for images that do not fit in memory.

Only two things in the loss are global: the Gram matrices, and the maximum and sum of a softmax over the whole
map. Once they are known, dL/dF at a place depends on the features F at that place alone, and backpropagation
is local. So each step goes over the image twice, always at the same image (tiles do not see each other's
update of the same step), and once more before for a softmax over the map:

peaks      each core's window forward: max and sum of exp of its own cells, merged.
measure    each core's window forward: sums over its own cells, in float64: F F^T, squared distance to the
           content's features. From them the loss, the Gram matrices G and dL/dG.
slope      each core's window, grown by twice the reach: pixels of the core are seen by cells up to one reach
           away, which see up to one reach further. dL/dF = 2 / (C M) dL/dG F + content's, backpropagated
           once; the core's pixels of the result are exact. Cells near the window's own border are not, and
           do not reach the core.

For a softmax s over the whole map, with g = dL/ds as above, dL/dF_i = s_i (g_i - sum_j g_j s_j). The sum over
the whole map needs no pass of its own: for style it is 2 <dL/dG, G>, for content it follows from a sum of
``measure``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from optimization.objective import Parts, Terms, style_part, unit
from optimization.reach import Reach
from urst_tiles import losses
from urst_tiles.geometry import Box

#: Pixels of a box as (1, 3, h, w) in 0..1, on the device and in the type of the computation.
Pixels = Callable[[Box], Tensor]


@dataclass(frozen=True)
class Peak:
    """Of a softmax over a whole map: the highest value, and the sum of exp(value - highest)."""

    highest: float = -math.inf
    total: float = 0.0

    def __add__(self, other: Peak) -> Peak:
        highest = max(self.highest, other.highest)
        if highest == -math.inf:
            return self
        parts = (p.total * math.exp(p.highest - highest) for p in (self, other))
        return Peak(highest, sum(parts))

    @classmethod
    def of(cls, x: Tensor) -> Peak:
        """Of some values, none included."""
        if not x.numel():
            return cls()
        highest = x.max().item()
        return cls(highest, (x.double() - highest).exp().sum().item())

    def softmax(self, x: Tensor) -> Tensor:
        """The softmax of values that are part of the map."""
        return (x - self.highest).exp() / self.total


@dataclass(frozen=True)
class Sums:
    """Over cells of one layer: how many, F F^T (C, C), squared distance to the content, F (F - content)."""

    cells: int
    gram: Tensor
    distance: float = 0.0
    product: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.cells + other.cells,
            self.gram + other.gram,
            self.distance + other.distance,
            self.product + other.product,
        )

    @property
    def count(self) -> int:
        """Values of the layer's whole map."""
        return self.cells * self.gram.shape[0]


@dataclass(frozen=True)
class Found:
    """What the passes before the gradient know of the image at this step, by layer."""

    sums: dict[str, Sums]
    peaks: dict[str, Peak]
    parts: Parts
    #: dL/dG times 2 / (C M), (C, C) float64, of the style layers.
    bend: dict[str, Tensor] = field(default_factory=dict)
    #: sum of g s over the map, of layers under a softmax over it.
    pull: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tiled:
    """The loss and its gradient over an image that is read window by window.

    Parameters
    ----------
    net : the backbone, unsmoothed.
    grams : (C, C) float64 of the style image, by style layer.
    content : pixels of the content image.
    shape : (height, width). tile : side of a core, a multiple of ``reach.stride``.
    """

    net: losses.FeatureNet
    terms: Terms
    reach: Reach
    grams: Mapping[str, Tensor]
    content: Pixels
    shape: tuple[int, int]
    tile: int
    content_peaks: dict[str, Peak] = field(default_factory=dict)

    @property
    def image(self) -> Box:
        """The whole."""
        return Box(0, 0, *self.shape)

    @property
    def cores(self) -> list[Box]:
        """What the image is cut into."""
        return list(self.image.cells(self.tile))

    @property
    def global_layers(self) -> tuple[str, ...]:
        """Layers under a softmax over the whole map."""
        if self.terms.smoothing != "map":
            return ()
        chosen = self.terms.layers if self.terms.smooth is None else self.terms.smooth
        return tuple(k for k in self.terms.layers if k in chosen)

    @property
    def local_net(self) -> losses.FeatureNet:
        """The backbone with what smoothing is local."""
        return self.net if self.global_layers else self.terms.smoothed(self.net)

    def ready(self) -> Tiled:
        """Knowing the content image's own peaks, which stay the same in all steps."""
        return replace(self, content_peaks=self.peaks(self.content))

    @torch.no_grad()
    def peaks(self, pixels: Pixels) -> dict[str, Peak]:
        """Maximum and sum of exp of every layer under a softmax over the whole map."""
        found = dict.fromkeys(self.global_layers, Peak())
        if found:
            for core in self.cores:
                window = self.reach.window(core, self.image)
                for k, f in self.net(pixels(window), tuple(found)).items():
                    found[k] = found[k] + Peak.of(self._own(k, f, core, window))
        return found

    @torch.no_grad()
    def measure(self, pixels: Pixels) -> Found:
        """The loss of the image and all that its gradient needs to know of the whole."""
        peaks, sums, variation = self.peaks(pixels), dict[str, Sums](), 0.0
        for core in self.cores:
            for k, one in self._sums(pixels, core, peaks):
                sums[k] = sums[k] + one if k in sums else one
            variation += self._variation(pixels, core)
        grams = {k: sums[k].gram / sums[k].count for k in self.terms.style}
        contents = [share * sums[k].distance / sums[k].count for k, share in self.terms.content.items()]
        parts = {
            "content": torch.tensor(sum(contents), dtype=torch.float64),
            "style": style_part(self.terms, grams, self.grams).cpu(),
            "variation": torch.tensor(variation, dtype=torch.float64),
        }
        return self._with_slopes(Found(sums, peaks, parts), grams)

    def slope(self, pixels: Pixels, found: Found, core: Box) -> Tensor:
        """(3, h, w): gradient of ``unit * total`` at the pixels of ``core``."""
        window = self.reach.window(core, self.image, times=2)
        x = pixels(window).detach().requires_grad_()
        raw = self.local_net(x, self.terms.layers)
        with torch.no_grad():
            wanted = self._features(self.content(window), self.content_peaks, content_only=True)
            pulls = [self._pull(k, f, found, wanted) for k, f in raw.items()]
        (gradient,) = torch.autograd.grad(list(raw.values()), x, pulls)
        inside = core.within(window).slices
        gradient = gradient[0][(slice(None), *inside)] * unit(self.terms, self.grams, self.image.area)
        return gradient + self._variation_slope(x.detach()[0], core, window)

    def _own(self, layer: str, f: Tensor, core: Box, window: Box) -> Tensor:
        """(C, cells) of the core's own cells."""
        down, across = self.reach.own(layer, core, window, self.image)
        return f[0, :, down, across].flatten(1)

    def _features(self, x: Tensor, peaks: Mapping[str, Peak], *, content_only: bool) -> dict[str, Tensor]:
        """Smoothed features."""
        layers = tuple(self.terms.content) if content_only else self.terms.layers
        found = self.local_net(x, layers)
        return {k: peaks[k].softmax(f) if k in peaks else f for k, f in found.items()}

    def _sums(self, pixels: Pixels, core: Box, peaks: Mapping[str, Peak]) -> Iterator[tuple[str, Sums]]:
        window = self.reach.window(core, self.image)
        found = self._features(pixels(window), peaks, content_only=False)
        wanted = self._features(self.content(window), self.content_peaks, content_only=True)
        for k, f in found.items():
            own = losses.wide(self._own(k, f, core, window))
            one = Sums(own.shape[1], (own @ own.T).double())
            if k in wanted:
                apart = own - losses.wide(self._own(k, wanted[k], core, window))
                distance, product = (t.sum(dtype=torch.float64).item() for t in (apart**2, own * apart))
                one = replace(one, distance=distance, product=product)
            yield k, one

    def _with_slopes(self, found: Found, grams: Mapping[str, Tensor]) -> Found:
        """With what each layer's dL/dF is made from."""
        bend, pull = {}, dict.fromkeys(found.peaks, 0.0)
        for k, g in grams.items():
            channels, count = g.shape[0], found.sums[k].count
            slope = self.terms.style_weight * self.terms.share(k, channels) * 2 / channels**2
            bend[k] = slope * (g - self.grams[k]) * (2 / count)
            if k in pull:
                pull[k] += (bend[k] * g).sum().item() * count
        for k in self.terms.content:
            if k in pull:
                pull[k] += self._content_slope(k, found) * found.sums[k].product
        return replace(found, bend=bend, pull=pull)

    def _content_slope(self, layer: str, found: Found) -> float:
        """dL/dF of the content loss is this times (F - content)."""
        return 2 * self.terms.content_weight * self.terms.content[layer] / found.sums[layer].count

    def _pull(self, layer: str, f: Tensor, found: Found, wanted: Mapping[str, Tensor]) -> Tensor:
        """dL/dF of a layer in a window, the shape of ``f`` (1, C, h, w)."""
        peak = found.peaks.get(layer)
        s = losses.wide(f) if peak is None else peak.softmax(losses.wide(f))
        g = torch.zeros_like(s)
        if layer in found.bend:
            g += (found.bend[layer].to(s) @ s[0].flatten(1)).view_as(s)
        if layer in wanted:
            g += self._content_slope(layer, found) * (s - wanted[layer])
        if peak is not None:
            g = s * (g - found.pull[layer])
        return g.to(f.dtype)

    def _variation(self, pixels: Pixels, core: Box) -> float:
        """The core's share of the total variation: steps from its pixels down and to the right."""
        height, width = self.shape
        x = pixels(Box(core.y0, core.x0, core.y1 + 1, core.x1 + 1).clip(self.image))[0].double()
        h, w = core.shape
        down, across = (x[:, 1:] - x[:, :-1])[:, :, :w], (x[:, :, 1:] - x[:, :, :-1])[:, :h]
        return (
            (down**2).sum() / (3 * (height - 1) * width) + (across**2).sum() / (3 * height * (width - 1))
        ).item()

    def _variation_slope(self, x: Tensor, core: Box, window: Box) -> Tensor:
        """(3, h, w): its gradient at the core, weighted, times the unit."""
        around = core.grow(1).clip(window)
        x = x[(slice(None), *around.within(window).slices)]
        gradient = torch.zeros_like(x)
        height, width = self.shape
        weight = 2 / 3 * self.terms.variation_weight * unit(self.terms, self.grams, self.image.area)
        for axis, steps in ((1, (height - 1) * width), (2, height * (width - 1))):
            step = x.diff(dim=axis) * (weight / steps)
            gradient.narrow(axis, 1, step.shape[axis]).add_(step)
            gradient.narrow(axis, 0, step.shape[axis]).sub_(step)
        return gradient[(slice(None), *core.within(around).slices)]
