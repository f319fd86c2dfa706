"""One least-squares solve for the gain and the offset of every image of a block of images that overlap.

Of images i and j that overlap, with means m and deviations s in their common cells, the adjusted images
``gain * value + offset`` shall have the same mean and the same deviation there::

    g_i m_i + o_i = g_j m_j + o_j        g_i s_i = g_j s_j

All overlaps are solved at once, as in the adjustment of a photogrammetric block, so that no error adds up
along a chain of images. What is common to all is fixed either by an image that keeps its values, or by the
mean and the deviation of all images together, which stay as they are [1].

References
----------
1. R. Cresson and N. Saint-Geours, "Natural Color Satellite Image Mosaicking Using Quadratic Programming in
   Decorrelated Color Space", IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing
   8(8), 2015: statistics of all overlaps in one problem whose constraint keeps the mean of the mosaic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urst_tiles.overlap import Overlap

Float = NDArray[np.float64]

#: Deviations of residuals, as a share of the range of values, up to which an overlap counts in full; one
#: whose images agree worse, as under clouds, counts less.
GOOD = 0.02

#: How much a gain of 1 is preferred, in shares of the range of values: it decides where overlaps vary less
#: than this, as over water, and no gain can be found.
PREFERRED = 0.002

#: How many images are solved together: their matrices take 96 bytes for each pair of them.
MOST_IMAGES = 2000


@dataclass(frozen=True, eq=False)
class Whole:
    """The statistics of all valid cells of N images of C channels.

    Attributes
    ----------
    cells : float64, (N,), how many there are.
    mean, deviation : float64, (N, C).
    """

    cells: Float
    mean: Float
    deviation: Float


@dataclass(frozen=True, eq=False)
class Adjusted:
    """The solution for N images of C channels.

    Attributes
    ----------
    gains, offsets : float64, (N, C): the new value is gain * value + offset.
    groups : the numbers of the images that hang together by overlaps, each in ascending order.
    """

    gains: Float
    offsets: Float
    groups: tuple[tuple[int, ...], ...]


def adjusted(
    whole: Whole,
    overlaps: Sequence[Overlap],
    spread: Float,
    *,
    fixed: int | None = None,
    offsets: bool = True,
) -> Adjusted:
    """The gains and the offsets that make images alike where they overlap.

    Parameters
    ----------
    whole : the statistics of each image.
    overlaps : those of pairs of images.
    spread : float64, (C,), the range of values in each channel, in the unit of all statistics.
    fixed : the number of the image that keeps its values. Without it, and in groups that do not hold it, the
        mean of all images of a group, and their deviation, stay as they are; an image by itself does not
        change.
    offsets : whether offsets are solved for; else all of them are 0, and means alone are made equal.
    """
    count, channels = whole.mean.shape
    gains, shifts = np.ones((count, channels)), np.zeros((count, channels))
    groups = connected(count, [(one.first, one.second) for one in overlaps])
    for group in groups:
        if len(group) == 1:
            continue
        members = set(group)
        inside = [one for one in overlaps if one.first in members]
        for channel in range(channels):
            of = [[channel]]
            solved = _solved(whole, inside, list(group), channel, spread[channel], fixed, offsets)
            gains[np.ix_(group, *of)], shifts[np.ix_(group, *of)] = solved
    return Adjusted(gains, shifts, groups)


def connected(count: int, pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """The groups of 0 .. ``count`` - 1 that hang together by pairs."""
    leader = list(range(count))

    def found(one: int) -> int:
        while leader[one] != one:
            leader[one] = leader[leader[one]]
            one = leader[one]
        return one

    for first, second in pairs:
        a, b = sorted((found(first), found(second)))
        leader[b] = a
    groups: dict[int, list[int]] = {}
    for one in range(count):
        groups.setdefault(found(one), []).append(one)
    return tuple(tuple(group) for group in groups.values())


def _solved(
    whole: Whole,
    overlaps: Sequence[Overlap],
    group: list[int],
    channel: int,
    spread: float,
    fixed: int | None,
    offsets: bool,
) -> tuple[Float, Float]:
    """Gains and offsets, (n, 1) each, of the images of one group in one channel."""
    n, at = len(group), {image: place for place, image in enumerate(group)}
    normal = np.zeros((2 * n, 2 * n))
    right = np.zeros(2 * n)
    mean_weight = sum(one.weight for one in overlaps) / len(overlaps)
    for one in overlaps:
        i, j = at[one.first], at[one.second]
        weight = one.weight / mean_weight * GOOD**2 / (GOOD**2 + (one.residual[channel] / spread) ** 2)
        m, s = one.mean[:, channel] / spread, one.deviation[:, channel] / spread
        _add(normal, [i, n + i, j, n + j], [m[0], 1.0, -m[1], -1.0], weight)
        if offsets:
            # Where two images do not vary together, as noise does not, their deviations say nothing of gains.
            together = max(0.0, float(one.correlation[channel])) ** 4
            _add(normal, [i, j], [s[0], -s[1]], weight * together)
    for place in range(n):
        normal[place, place] += PREFERRED**2
        right[place] += PREFERRED**2
    fixes, values = _fixing(whole, group, channel, spread, fixed, offsets)
    if not offsets:
        fixes = np.concatenate([fixes, np.eye(2 * n)[n:]])
        values = np.concatenate([values, np.zeros(n)])
    size = 2 * n + len(fixes)
    system = np.zeros((size, size))
    system[: 2 * n, : 2 * n], system[: 2 * n, 2 * n :], system[2 * n :, : 2 * n] = normal, fixes.T, fixes
    wanted = np.concatenate([right, values])
    try:
        found = np.linalg.solve(system, wanted)
    except np.linalg.LinAlgError:  # a channel without any values, of which nothing is fixed
        found = np.linalg.lstsq(system, wanted, rcond=None)[0]
    return found[:n, None], found[n : 2 * n, None] * spread


def _add(normal: Float, places: list[int], factors: list[float], weight: float) -> None:
    """Add the square of a sum of factors times unknowns to the normal equations."""
    row = np.array(factors)
    normal[np.ix_(places, places)] += weight * np.outer(row, row)


def _fixing(
    whole: Whole, group: list[int], channel: int, spread: float, fixed: int | None, offsets: bool
) -> tuple[Float, Float]:
    """The equations that hold exactly, (k, 2n) and (k,): those of what is common to all images of a group."""
    n = len(group)
    if fixed in group:
        place = group.index(fixed)
        exact = np.eye(2 * n)[[place, n + place]]
        return (exact, np.array([1.0, 0.0])) if offsets else (exact[:1], np.ones(1))
    share = whole.cells[group] / whole.cells[group].sum()
    mean, deviation = whole.mean[group, channel] / spread, whole.deviation[group, channel] / spread
    rows = [np.concatenate([share * mean, share])]
    if offsets:
        rows.append(np.concatenate([share * deviation, np.zeros(n)]))
    wanted = [float(share @ mean), float(share @ deviation)]
    return np.stack(rows), np.array(wanted[: len(rows)])
