"""How far a backbone sees, and where its cells lie: measured, for all layers that a loss looks at.

A *cell* is one place of a feature map. Cell i of a layer is anchored at pixel ``i * step``; a core owns the
cells that are anchored in it, and the last core of a row all that are left, so that cores partition every
layer's cells whatever the image's size. Padding and the rounding of odd sizes act where the image ends, and
there only, since windows begin on the stride and end on it or with the image.

As in `tests/probe.py`, NaN put into one line of pixels spreads as far as the network looks. Two lines
suffice for each axis: the first pixel of a stride cell (which cells before it see it?) and the last (which
behind it?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, round_up
from urst_tiles.losses import FeatureNet

#: Largest stride looked for, largest side that a network may need, and the longest picture probed.
LARGEST_STRIDE = 64
LARGEST_SMALLEST = 512
LONGEST = 8192


@dataclass(frozen=True)
class Reach:
    """What tiles must know of a backbone.

    Attributes
    ----------
    stride : largest step of the layers; windows begin on it.
    halo : pixels around a core, a multiple of ``stride``, that suffice for the features of the core's own
        cells, and for finding all cells that see the core's pixels.
    minimum : smallest side of a picture that has a cell of every layer, on the stride.
    steps : pixels from one cell to the next, by layer.
    """

    stride: int
    halo: int
    minimum: int
    steps: dict[str, int]

    def window(self, core: Box, image: Box, times: int = 1) -> Box:
        """``core``, whose corner is on the stride, grown ``times`` the halo inside the image."""
        return core.grow(times * max(self.halo, self.minimum)).align(self.stride).clip(image)

    def own(self, layer: str, core: Box, window: Box, image: Box) -> tuple[slice, slice]:
        """The cells of ``core`` in the features of its window, down and across."""
        step = self.steps[layer]

        def along(start: int, stop: int, origin: int, end: int) -> slice:
            first = -(-(start - origin) // step)
            return slice(first, None if stop == end else -(-(stop - origin) // step))

        return (
            along(core.y0, core.y1, window.y0, image.y1),
            along(core.x0, core.x1, window.x0, image.x1),
        )


@torch.no_grad()
def measure(net: FeatureNet, layers: Sequence[str], like: Tensor) -> Reach:
    """The reach of ``net`` in ``layers``; ``like`` tells device and type.

    Raises
    ------
    BadInput : a layer that the network does not have, or that sees more than can be probed.
    """
    with torch.backends.cudnn.flags(enabled=False):  # its transforms would spread NaN beyond the kernel
        return _measure(_Probe(net, tuple(layers), like))


def _measure(probe: _Probe) -> Reach:
    base = probe.smallest()
    long = round_up(max(base, LARGEST_STRIDE), LARGEST_STRIDE)
    small, large = probe.sizes(long), probe.sizes(long + LARGEST_STRIDE)
    steps = {k: LARGEST_STRIDE // (large[k] - small[k]) for k in probe.layers}
    stride = max(steps.values())
    if any(
        LARGEST_STRIDE % step or large[k] - small[k] != LARGEST_STRIDE // step for k, step in steps.items()
    ):
        raise BadInput(
            f"tiles need layers whose cells lie 1, 2, 4, ... {LARGEST_STRIDE} px apart, got {steps}"
        )
    minimum = round_up(base, stride)
    reach = max(_reach(probe, steps, stride, axis) for axis in (2, 3))
    return Reach(stride, round_up(reach, stride), minimum, steps)


def _reach(probe: _Probe, steps: dict[str, int], stride: int, axis: int) -> int:
    """Largest distance, over layers, from a stride cell's border to the anchor's cell that sees across it."""
    side = 4 * round_up(max(probe.across, LARGEST_STRIDE), LARGEST_STRIDE)
    while side <= LONGEST:
        at = side // 2 // stride * stride
        before, behind = probe.touched(side, at, axis), probe.touched(side, at - 1, axis)
        if all(first > 0 and last < count - 1 for first, last, count in (*before.values(), *behind.values())):
            far = [at - before[k][0] * steps[k] for k in steps]
            return max(*far, *((behind[k][1] + 1) * steps[k] - at for k in steps))
        side *= 2
    raise BadInput(f"the layers {', '.join(probe.layers)} see more than {LONGEST // 2} px around a place")


@dataclass
class _Probe:
    """Runs a network on narrow pictures."""

    net: FeatureNet
    layers: tuple[str, ...]
    like: Tensor
    across: int = 0

    def run(self, x: Tensor) -> dict[str, Tensor]:
        found = self.net(x.to(self.like), self.layers)
        if missing := [k for k in self.layers if k not in found]:
            raise KeyError(missing[0])
        return found

    def smallest(self) -> int:
        """Smallest power of two, as a side, that has a cell of each layer."""
        side = 2
        while True:
            try:
                sizes = self.sizes(side, side)
            except KeyError as error:
                raise BadInput(f"the backbone has no layer {error.args[0]!r}") from None
            except BadInput:  # too small, or a layer that is not there
                if side >= LARGEST_SMALLEST:
                    raise
                sizes = {}
            except RuntimeError as error:
                if side >= LARGEST_SMALLEST:
                    raise BadInput(f"the backbone does not run on pictures of {side} px: {error}") from None
                sizes = {}
            if sizes and min(sizes.values()) > 0:
                self.across = side
                return side
            side *= 2

    def sizes(self, length: int, across: int = 0) -> dict[str, int]:
        """Cells along ``length`` pixels, by layer."""
        found = self.run(torch.full((1, 3, length, across or self.across), 0.5))
        return {k: f.shape[2] for k, f in found.items()}

    def touched(self, length: int, at: int, axis: int) -> dict[str, tuple[int, int, int]]:
        """(first, last cell that sees line ``at``, number of cells), by layer."""
        shape = (1, 3, length, self.across) if axis == 2 else (1, 3, self.across, length)
        x = torch.full(shape, 0.5)
        x.select(axis, at).fill_(float("nan"))
        found = {}
        for layer, f in self.run(x).items():
            lines = f.isnan().any(dim=1)[0].any(dim=3 - axis).nonzero().flatten()
            found[layer] = int(lines.min()), int(lines.max()), f.shape[axis]
        return found
