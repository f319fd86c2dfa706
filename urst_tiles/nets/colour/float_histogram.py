"""Histograms of floats in a unit of their own, which have no levels: counted in two passes.

The first pass counts the *keys* of the values: sign, exponent and the first seven bits of the mantissa, 65536
numbers that rise with the floats. Each key that occurs is then divided into equal steps, by a power of two:
into more where many pixels lie, and where a key is wide. The second pass counts these steps. Both counts are
exact, and those of parts of an image add up to those of the whole.

Half of the steps are shared out by width and half by pixels. So a step is no wider than a 16384th of the
range of the values (mostly a 32768th); where many pixels lie close together, as beside an extreme that
stretches the range, a step holds no more than a 16384th of them, if they are spread evenly over their key. A
value with few digits in binary, as a whole number, begins a step and is met exactly.

A transfer maps each step that occurs to the value of the reference up to which the same share of the pixels
lies, as `urst_tiles.histogram.matched` does with levels, and interpolates within the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.histogram import Bins, Histogram

Float = NDArray[np.float64]

#: The bits of a float behind its key, the key of 0, and how many keys there are.
REST, ZERO, COUNT = 16, 1 << 15, 1 << 16

#: The histogram of the first pass, and that of the second.
KEYS = Bins(COUNT, 0.0, COUNT - 1.0)
STEPS = Bins(2 * COUNT, 0.0, 2 * COUNT - 1.0)

#: The most pairs of a value and its pixels that are kept of each band of a reference.
MOST_PAIRS = 16384


def ordered(x: Tensor) -> Tensor:
    """Whole numbers, int32, that rise with the floats ``x``, float32, and are 0 at 0; -0 is 0."""
    bits = x.contiguous().view(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def floats_of(number: NDArray[np.int64]) -> Float:
    """The inverse of `ordered`, as float64; what is beyond all floats is the largest."""
    size = np.minimum(np.abs(number), 0x7F7FFFFF).astype(np.int32)
    return np.sign(number) * size.view(np.float32).astype(np.float64)


def see_keys(x: Tensor) -> Tensor:
    """The key of each value, as a float; NaN for what is not finite."""
    keys = (ordered(x) >> REST) + ZERO
    return torch.where(x.isfinite(), keys.to(x), torch.full_like(x, torch.nan))


@dataclass(frozen=True, eq=False)
class Division:
    """How the keys of each of C bands are divided into steps. As a map it gives the number of the step of a
    value, with a fraction for its place in the step.

    Attributes
    ----------
    first : float32, (C, 65536): the number of the first step of each key, or of the next that occurs.
    slope : float32, (C, 65536): its steps for each of the 65536 floats of a key; 0 for those that do not
        occur.
    """

    first: NDArray[np.float32]
    slope: NDArray[np.float32]

    def __call__(self, x: Tensor) -> Tensor:
        number = ordered(x)
        keys, rest = (number >> REST) + ZERO, (number & 0xFFFF).to(x)
        first, slope = (torch.from_numpy(table).to(x) for table in (self.first, self.slope))
        return torch.stack(
            [first[c][keys[:, c]] + rest[:, c] * slope[c][keys[:, c]] for c in range(len(first))], 1
        )

    def values(self, band: int) -> Float:
        """The values at which the steps of a band begin, float64, (steps,)."""
        counts = np.rint(self.slope[band] * COUNT).astype(np.int64)
        keys = np.repeat(np.arange(COUNT), counts)
        within = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        return floats_of((keys - ZERO) * COUNT + within * (COUNT // counts[keys]))


@dataclass(frozen=True, eq=False)
class Lines:
    """A map of each band by itself, from numbers of steps to new values.

    Attributes
    ----------
    line : float32, (C, N): the value at each whole number; it is interpolated linearly.
    """

    line: NDArray[np.float32]

    def __call__(self, x: Tensor) -> Tensor:
        table = torch.from_numpy(self.line).to(x)
        at = x.floor().clamp_(0, table.shape[1] - 2)
        low, part = at.to(torch.int32), x - at
        places = zip(table, low.unbind(1), part.unbind(1), strict=True)
        return torch.stack([torch.lerp(row[i], row[i + 1], p) for row, i, p in places], 1)


def divided(found: Histogram) -> Division:
    """The division of the keys that occur."""
    edges = floats_of((np.arange(COUNT + 1) - ZERO) * COUNT)
    steps = np.array([_steps(counts, np.diff(edges)) for counts in found.counts])
    first = np.cumsum(steps, 1) - steps
    return Division(first.astype(np.float32), (steps / COUNT).astype(np.float32))


def _steps(counts: Float, widths: Float) -> NDArray[np.int64]:
    """How many steps each key has: a power of two if it occurs. The key behind one that occurs has one step,
    so that nothing is interpolated over a gap."""
    held = counts > 0
    steps = np.zeros(COUNT, np.int64)
    if not held.any():
        return steps
    steps[1:][held[:-1]] = 1
    low, high = np.flatnonzero(held)[[0, -1]]
    share = 0.5 * counts[held] / counts.sum() + 0.5 * widths[held] / widths[low : high + 1].sum()
    for whole in (2 * COUNT, COUNT):  # the smaller always fits: no two keys share a step
        wanted = np.floor(np.log2(np.maximum(share * whole, 1.0)))
        steps[held] = 1 << np.minimum(wanted, REST).astype(np.int64)
        if steps.sum() <= STEPS.size:
            break
    return steps


def lines(found: Histogram, target: Float) -> Lines:
    """The map that gives an image whose steps were counted the distribution of a reference.

    Parameters
    ----------
    target : (C, pairs, 2), as `distribution` returns it.
    """
    out = np.zeros((found.channels, STEPS.size + 1))
    for row, counts, pairs in zip(out, found.counts, target, strict=True):
        held = np.flatnonzero(counts)
        if not len(held):
            continue
        shares, values = np.cumsum(pairs[:, 1]) / pairs[:, 1].sum(), pairs[:, 0]
        new = np.interp(np.cumsum(counts[held]) / counts.sum(), shares, values)
        last = np.searchsorted(held, np.arange(len(row)), side="right") - 1  # what occurs at or before it
        row[:] = new[np.maximum(last, 0)]
    return Lines(out.astype(np.float32))


def distribution(keys: Histogram, steps: Histogram) -> Float:
    """The distribution of a reference, (C, pairs, 2): rising values, and the weight of the pixels that lie
    above the value before and not above this one. Bands with fewer pairs have pairs without weight behind.

    Raises
    ------
    BadInput : there is no valid pixel.
    """
    division = divided(keys)
    bands = []
    for band, counts in enumerate(steps.counts):
        held = np.flatnonzero(counts)
        if not len(held):
            raise BadInput("the reference has no valid pixel; choose another")
        bands.append(thinned(np.stack([division.values(band)[held], counts[held]], 1)))
    return even(bands)


def thinned(pairs: Float, most: int = MOST_PAIRS) -> Float:
    """At most so many of the pairs of one band, (pairs, 2); each that stays has the weight of those between
    it and the one before, so it lies on the same curve of shares.

    They are the first and the last of half as many cells, which are shared out half by weight and half by the
    range of the values: a cell spans no more than a 4096th of that, and gaps stay as they are.
    """
    if len(pairs) <= most:
        return pairs
    values, below = pairs[:, 0], np.cumsum(pairs[:, 1])
    place = 0.5 * below / below[-1] + 0.5 * (values - values[0]) / (values[-1] - values[0])
    begins = np.diff(np.floor(place * (most // 2 - 1))) > 0
    stays = np.append(True, begins) | np.append(begins, True)
    return np.stack([values[stays], np.diff(below[stays], prepend=0.0)], 1)


def even(bands: Sequence[Float]) -> Float:
    """The pairs of several bands as one array; behind the last of a band it is repeated without weight."""
    out = np.zeros((len(bands), max(map(len, bands), default=0), 2))
    for row, pairs in zip(out, bands, strict=True):
        row[: len(pairs)], row[len(pairs) :, 0] = pairs, pairs[-1, 0]
    return out


def merged(parts: Sequence[tuple[Float, float]]) -> Float:
    """The common distribution of several references, each with its weight, whatever its size."""
    bands = []
    for band in range(len(parts[0][0])):
        whole = [one[band] * [1.0, share / max(one[band, :, 1].sum(), 1e-300)] for one, share in parts]
        values, place = np.unique(np.concatenate(whole)[:, 0], return_inverse=True)
        weights = np.bincount(place.ravel(), np.concatenate(whole)[:, 1], len(values))
        bands.append(thinned(np.stack([values, weights], 1)))
    return even(bands)
