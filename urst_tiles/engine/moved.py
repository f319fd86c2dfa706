"""How far a job moves the colours of its image, when its map is known: measured over all pixels where their
colours were counted, and else on the thumbnail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles.engine.counted import Counts, occurring
from urst_tiles.engine.kernel import LEVELS, Kernel
from urst_tiles.geometry import Box
from urst_tiles.nets import LocalNet
from urst_tiles.source import Source
from urst_tiles.source.saved import read_thumbnail

#: How many pixels of a thumbnail are compared at a time.
PIXELS = 1 << 16


def moved_colours(
    net: LocalNet,
    source: Source,
    style: Any,
    statistics: Mapping[str, Any] | None,
    counts: Counts | None = None,
) -> dict[str, Any]:
    """What a transfer does to the colours of an image, as JSON holds it.

    Parameters
    ----------
    net : the frozen network; nothing is told of one that is no function of a pixel's colour alone.
    source : the prepared image.
    style, statistics : the style that was frozen, and what was measured for it.
    counts : the counted colours of the valid pixels, where they were counted.

    Returns
    -------
    "moved", the mean distance in CIELAB between a valid pixel (on slides, of tissue) before and after;
    "before" and "after", the mean L*, a*, b* of these pixels; and "amounts", by what the amount of each stain
    was multiplied. Empty where no pixel counts, and where what is read or made is no red, green and blue of 8
    or 16 bits.
    """
    if not net.pointwise or {source.colours, getattr(style, "bands", 3)} != {3} or source.dtype not in LEVELS:
        return {}
    kernel, top = Kernel(net, out_dtype=source.dtype), float(LEVELS[source.dtype])
    total = nets.Moved.nothing()
    for pixels, weight in _of_thumbnail(source, top) if counts is None else occurring(counts):
        box = Box(0, 0, *pixels.shape[:2])
        after = kernel.run(pixels[None], [box], [box])[0]
        before, made = (_planes(one, top) for one in (pixels, after))
        total += nets.moved_pixels(net, before, made, torch.from_numpy(weight.reshape(1, *box.shape)))
    facts = total.facts()
    return facts | ({"amounts": nets.amounts_of(style, statistics or {})} if facts else {})


def _of_thumbnail(source: Source, top: float) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
    """Pixels of the thumbnail, (h, w, 3), and their weights, (h, w), some rows at a time."""
    saved = source.saved_thumbnail
    thumbnail = source.thumbnail if saved is None else read_thumbnail(saved)  # which the source need not keep
    rows = max(1, PIXELS // thumbnail.shape[1])
    for y in range(0, len(thumbnail), rows):
        part = thumbnail[y : y + rows]
        weight = part[..., 3] / top if source.has_valid else np.ones(part.shape[:2])
        yield np.ascontiguousarray(part[..., :3]), weight


def _planes(pixels: Any, top: float) -> torch.Tensor:
    """Pixels (h, w, channels) as a tensor (1, channels, h, w) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))[None] / top
