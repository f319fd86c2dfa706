"""The stains of a slide by sparse non-negative matrix factorisation of its optical densities [1].

The optical densities V of the tissue, (3, n), are taken apart into two stains W, (3, 2), of length 1, and
their amounts H, (2, n), none of them negative, such that 1/2 |V - W H|^2 + `SPARSE` * sum(H) is least: few
pixels then hold both stains, and the stains of the slide are not mixed with each other.

W is found from all pixels of the tissue, and not from a sample of them, which other programs take: their
densities are counted in a histogram in three dimensions, of `SIDE` values in each channel. Its size does not
grow with the slide, and histograms of parts of a slide add up to that of the whole; so the stains are the
same however the slide is cut. Between two values of the histogram lie 0.02 at a density of 0.15 and 0.05 at a
density of 1, and a pixel counts at the value that is nearest to it.

References
----------
1. A. Vahadane et al., "Structure-Preserving Color Normalization and Sparse Stain Separation for Histological
   Images", IEEE Transactions on Medical Imaging 35(8), 2016.
2. J. Mairal et al., "Online Learning for Matrix Factorization and Sparse Coding", Journal of Machine Learning
   Research 11, 2010: algorithm 2, here over all densities at once.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.histogram import Bins, Histogram

Float = NDArray[np.float64]

#: Weight of the amounts in what is made least, while the stains are looked for [1], and while the amounts of
#: both are looked for, whose 99th percentiles are compared.
SPARSE, SPARSE_AMOUNTS = 0.1, 0.01

#: Values of the histogram in each channel, at equal distances of the square root of the optical density up to
#: the largest that 8 bits can hold.
SIDE, TOP = 96, 5.6

#: The histogram of all three channels: its values are numbers of cells.
CELLS = Bins(SIDE**3, 0.0, SIDE**3 - 1.0)

#: The search ends where the stains move by less than this, or after so many steps.
STILL, MOST_STEPS = 1e-7, 2000

#: A part of the pixels whose angles are no stain, at both ends, where the search begins.
ROBUST = 0.01


def see_cells(x: Tensor) -> Tensor:
    """The number of the cell of each optical density, (1, cells); 0, which no tissue has, for other pixels.

    ``x`` are features of pixels, (7, cells), of which the first three are optical densities, and the fifth is
    1 for tissue.
    """
    steps = (x[:3].clamp(0.0, TOP).sqrt() * ((SIDE - 1) / math.sqrt(TOP))).round()
    cell = (steps[0] * SIDE + steps[1]) * SIDE + steps[2]
    return torch.where(x[4] >= 1.0, cell, torch.zeros_like(cell))[None]


def tissue_share(found: Histogram) -> float:
    """The share of the pixels that are tissue, 0..1."""
    counts = found.counts[0]
    return float(counts[1:].sum() / max(counts.sum(), 1.0))


def learned(found: Histogram) -> Float | None:
    """The two stains of the tissue, (2, 3), the one that absorbs more red first; None where one of them
    takes no part in any pixel."""
    counts = found.counts[0].copy()
    counts[0] = 0.0
    held = np.flatnonzero(counts)
    if not len(held):
        return None
    steps = np.array(np.unravel_index(held, (SIDE, SIDE, SIDE)))
    density: Float = ((steps * (math.sqrt(TOP) / (SIDE - 1))) ** 2).astype(np.float64)
    weight = counts[held] / counts.sum()
    stains = extremes(density, weight)
    for _ in range(MOST_STEPS):
        better = _improved(stains, density, weight)
        if better is None:
            return None
        moved, stains = float(np.abs(better - stains).max()), better
        if moved < STILL:
            break
    return stains if stains[0, 0] >= stains[1, 0] else stains[::-1].copy()


def extremes(density: Float, weight: Float) -> Float:
    """The two directions, (2, 3), between which nearly all densities lie in the plane of their most spread.

    Sums are taken one by one, since the order of those in a product of matrices depends on the threads.
    """
    mean = (density * weight).sum(1)
    centred = density - mean[:, None]
    spread = np.array([[(weight * a * b).sum() for a in centred] for b in centred])
    first, second = np.linalg.eigh(spread)[1][:, :0:-1].T
    first = first if first.sum() > 0 else -first
    along, across = (sum(d * v for d, v in zip(density, axis, strict=True)) for axis in (first, second))
    angles = np.arctan2(across, along)
    order = np.argsort(angles, kind="stable")
    below = np.cumsum(weight[order])
    places = (min(int(np.searchsorted(below, q)), len(order) - 1) for q in (ROBUST, 1 - ROBUST))
    ends = [float(angles[order[place]]) for place in places]
    stains = np.array([np.maximum(math.cos(a) * first + math.sin(a) * second, 0.0) for a in ends])
    return stains / np.maximum(np.linalg.norm(stains, axis=1, keepdims=True), 1e-9)


def _improved(stains: Float, density: Float, weight: Float) -> Float | None:
    """The stains after one step: the amounts for these stains, and the stains for these amounts [2]."""
    first, second = (
        torch.from_numpy(sum(d * s for d, s in zip(density, stain, strict=True)) - SPARSE) for stain in stains
    )
    amounts = [found.numpy() for found in sparse(first, second, float((stains[0] * stains[1]).sum()))]
    together = np.array([[(weight * a * b).sum() for b in amounts] for a in amounts])
    if (np.diagonal(together) < 1e-9).any():
        return None
    goal = np.array([[(weight * a * d).sum() for d in density] for a in amounts])
    out = stains.copy()
    for _ in range(5):  # each stain depends on the other
        for k in range(2):
            moved = out[k] + (goal[k] - together[k, 0] * out[0] - together[k, 1] * out[1]) / together[k, k]
            moved = np.maximum(moved, 0.0)
            length = float(np.sqrt((moved**2).sum()))
            if length < 1e-9:
                return None
            out[k] = moved / length
    return out


def sparse(first: Tensor, second: Tensor, shared: Tensor | float) -> tuple[Tensor, Tensor]:
    """The amounts of two stains, none negative, for which 1/2 |v - W h|^2 + penalty * sum(h) is least.

    Of a stain whose amount would be negative there is none, and then the amount of the other is its own
    product with the densities.

    Parameters
    ----------
    first, second : the products of the densities v with the stains, less the penalty, of any shape.
    shared : the product of the stains with each other, from 0 to less than 1.
    """
    inverse = 1.0 / (1.0 - shared * shared)
    one, two = (first - shared * second) * inverse, (second - shared * first) * inverse
    return (
        torch.where(two <= 0.0, first, one).clamp_(min=0.0),
        torch.where(one <= 0.0, second, two).clamp_(min=0.0),
    )
