"""How far a job moves the colours of its image, measured on the thumbnail when its map is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from urst_tiles import nets
from urst_tiles.engine.kernel import LEVELS, Kernel
from urst_tiles.geometry import Box
from urst_tiles.nets import LocalNet
from urst_tiles.source import Source
from urst_tiles.source.saved import read_thumbnail

#: How many pixels of a thumbnail are compared at a time.
PIXELS = 1 << 16


def moved_colours(
    net: LocalNet, source: Source, style: Any, statistics: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a transfer does to the colours of an image, as JSON holds it.

    Parameters
    ----------
    net : the frozen network; nothing is told of one that is no function of a pixel's colour alone.
    source : the prepared image.
    style, statistics : the style that was frozen, and what was measured for it.

    Returns
    -------
    "moved", the mean distance in CIELAB between a valid pixel (on slides, of tissue) before and after;
    "before" and "after", the mean L*, a*, b* of these pixels; and "amounts", by what the amount of each stain
    was multiplied. Empty where no pixel counts, and where what is read or made is no red, green and blue of 8
    or 16 bits.
    """
    if not net.pointwise or {source.colours, getattr(style, "bands", 3)} != {3} or source.dtype not in LEVELS:
        return {}
    saved, total = source.saved_thumbnail, nets.Moved.nothing()
    thumbnail = source.thumbnail if saved is None else read_thumbnail(saved)  # which the source need not keep
    kernel, top = Kernel(net, out_dtype=thumbnail.dtype), float(LEVELS[thumbnail.dtype])
    rows = max(1, PIXELS // thumbnail.shape[1])
    for y in range(0, len(thumbnail), rows):
        part = thumbnail[y : y + rows]
        box = Box(0, 0, *part.shape[:2])
        after = kernel.run(np.ascontiguousarray(part[None, ..., :3]), [box], [box])[0]
        weight = part[..., 3] if source.has_valid else np.full(part.shape[:2], top)
        planes = [_planes(one, top) for one in (part[..., :3], after, weight[..., None])]
        total += nets.moved_pixels(net, planes[0], planes[1], planes[2][:, 0])
    facts = total.facts()
    return facts | ({"amounts": nets.amounts_of(style, statistics or {})} if facts else {})


def _planes(pixels: Any, top: float) -> torch.Tensor:
    """Pixels (h, w, channels) as a tensor (1, channels, h, w) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))[None] / top
