"""Halo and stride by measurement: which outputs does one input column, or row, reach?

A NaN put into one column spreads exactly as far as the network looks: sums, ReLU and maximum pooling all
keep it, and a weight that happens to be small does not hide it, as it would hide a gradient. (Reference for
the idea: StreamingCNN, Pinckaers et al. 2020.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from urst_tiles.geometry import round_up
from urst_tiles.nets.base import Affine, LocalNet, Site, Style

Forward = Callable[[Tensor], Tensor]
#: (input line, first, last line that depends on it)
Span = tuple[int, int, int]


def probe(net: LocalNet | Style, *, side: int = 320, largest_stride: int = 16) -> tuple[int, int]:
    """(reach, stride) of a network, the larger of both axes.

    ``reach`` is how many pixels beyond an aligned stride cell an output of that cell can see; a halo must
    be at least that.

    Parameters
    ----------
    net : a frozen net, or a style (whose sites are passed through unchanged). Its plain form is meant: a
        form with dense zeros
        in its kernels would multiply them with NaN.
    side : pixels along the probed axis; must exceed twice the reach by far.
    largest_stride : the largest stride looked for.

    Raises
    ------
    ValueError : the reach is too large for ``side``.
    """
    forward = _forward(net)
    across = round_up(max(net.minimum, 16), 16)
    spans = [spread(forward, side, across, largest_stride, axis=axis) for axis in (2, 3)]
    stride = max(_period(span) for span in spans)
    return max(_reach(span, stride) for span in spans), stride


def reaches(style: Style, *, side: int = 320) -> dict[str, int]:
    """The reach of what arrives at every site, by name, as ``probe`` finds it for the output."""
    across = round_up(max(style.minimum, 16), 16)
    spans: dict[str, list[Span]] = {site.name: [] for site in style.sites}
    for axis in (2, 3):
        for at in _lines(side, style.stride):

            def look(site: Site, x: Tensor, axis: int = axis, at: int = at) -> Tensor:
                touched = _touched(x, axis=axis, side=side, stride=site.stride)
                spans[site.name].append((at, *touched))
                return x

            with torch.inference_mode():
                style.forward(_marked(side, across, at, axis=axis), look)
    return {name: _reach(found, style.stride) for name, found in spans.items()}


def spread(forward: Forward, side: int, across: int, count: int, *, axis: int) -> list[Span]:
    """(input line, first, last output line that depends on it) for ``2 count`` lines amid the image."""
    return [
        (at, *_touched(forward(_marked(side, across, at, axis=axis)), axis=axis, side=side))
        for at in _lines(side, count)
    ]


def _lines(side: int, count: int) -> range:
    """``2 count`` of them, amid the image."""
    middle = side // 2 // count * count
    return range(middle, middle + 2 * count)


def _marked(side: int, across: int, at: int, *, axis: int) -> Tensor:
    """(1, 3, h, w): noise, ``side`` long on ``axis``, NaN in line ``at``."""
    shape = (1, 3, side, across) if axis == 2 else (1, 3, across, side)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    x.select(axis, at).fill_(float("nan"))
    return x


def _touched(x: Tensor, *, axis: int, side: int, stride: int = 1) -> tuple[int, int]:
    """First and last line, in pixels, of features with ``stride`` pixels in a cell, that hold NaN."""
    lines = x.isnan().any(dim=1)[0].any(dim=3 - axis).nonzero().flatten()
    first, last = int(lines.min()) * stride, int(lines.max() + 1) * stride - 1
    if first == 0 or last == side - 1:
        raise ValueError(f"an output sees more than {side // 2} px; probe with a larger side")
    return first, last


def _period(spans: list[Span]) -> int:
    """Smallest shift of the input, a power of two, that shifts all outputs alike."""
    half = len(spans) // 2
    relative = [(first - at, last - at) for at, first, last in spans]
    stride = 1
    while relative[:half] != [relative[i + stride] for i in range(half)]:
        stride *= 2
        if stride > half:
            raise ValueError(f"no stride up to {half} px found; probe with a larger largest_stride")
    return stride


def _reach(spans: Iterable[Span], stride: int) -> int:
    """Farthest distance of an input line from an aligned cell that sees it."""
    reach = 0
    for at, first, last in spans:
        before = at - (first // stride * stride + stride - 1)
        behind = last // stride * stride - at
        reach = max(reach, before, behind)
    return reach


def _forward(net: LocalNet | Style) -> Forward:
    """What is run: the plain form, its sites left out."""

    def unchanged(site: Site, x: Tensor) -> Tensor:
        return Affine.identity(site.channels)(x)

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(x) if isinstance(net, LocalNet) else net.forward(x, unchanged)

    return run
