"""Whether shapes are still where they were: structure of the luminance, and how far edges have moved."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.learning.structure import luminance, similarity

#: The window of the structural similarity: its side and deviation in pixels; and the constants for 0..1.
WINDOW, DEVIATION, C1, C2 = 11, 1.5, 0.01**2, 0.03**2
#: By how much pictures are reduced for the structure, and for edges.
REDUCED, EDGES_REDUCED = 8, 4
#: The share of the pixels that are edges: those of the strongest gradients.
STRONGEST = 0.05


def structure(x: Tensor, y: Tensor) -> float:
    """The structural similarity of the luminance of two pictures (1, 3, h, w), reduced by 8: 1 if equal."""
    at = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    line = torch.exp(-0.5 * (at / DEVIATION).square())
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    a, b = (F.avg_pool2d(luminance(picture), REDUCED) for picture in (x, y))
    return similarity(a, b, lambda part: F.conv2d(part, window), C1, C2).item()


def edges_moved(x: Tensor, y: Tensor) -> float:
    """How far the edges of ``x`` are from those of ``y``, both (1, 3, h, w), in pixels, in the mean.

    Edges are the twentieth of the pixels with the strongest gradients of the luminance, reduced by 4; the
    distance is that of the nearest edge.
    """
    here, there = (edges(F.avg_pool2d(luminance(picture), EDGES_REDUCED)) for picture in (x, y))
    nearest = [torch.cdist(part, there).amin(1) for part in here.split(1024)]
    return EDGES_REDUCED * torch.cat(nearest).mean().item()


def edges(x: Tensor) -> Tensor:
    """The places (n, 2) of the strongest gradients of (1, 1, h, w), by Sobel's differences."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=x.dtype)
    dx, dy = (F.conv2d(x, kernel[None, None]) for kernel in (across, across.T.contiguous()))
    strength = (dx.square() + dy.square())[0, 0]
    count = max(1, round(STRONGEST * strength.numel()))
    index = strength.flatten().topk(count).indices
    return torch.stack([index // strength.shape[1], index % strength.shape[1]], 1).to(x.dtype)
