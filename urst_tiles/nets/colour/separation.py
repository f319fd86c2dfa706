"""From what was measured of a slide to its glass and its stains, for every method that takes them apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.histogram import Histogram
from urst_tiles.moments import Moments
from urst_tiles.nets.colour import vahadane

Float = NDArray[np.float64]

#: Percentiles of the angles, and of the amounts, in 0..1 (Macenko et al. 2009).
ROBUST, MOST = 0.01, 0.99

#: The published reference: hematoxylin and eosin in optical density of red, green and blue, the 99th
#: percentiles of their amounts, and the white that belongs to them (normalizeStaining.m).
STANDARD: dict[str, Float] = {
    "stains": np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]]),
    "concentrations": np.array([1.9705, 1.0308]),
    "white": np.full(3, 240 / 255),
}

#: With less tissue than this share of the slide, or than this many pixels, nothing is changed.
LEAST_SHARE, LEAST_PIXELS = 1e-4, 100.0
#: Two stains are told apart from this angle on, in degrees: theirs is about 22 in the published reference.
LEAST_ANGLE = 6.0
#: Glass is estimated from pixels that are bright and nearly grey, if there are at least so many of them.
BRIGHT, NEUTRAL, LEAST_GLASS = 0.75, 0.14, 0.005


def share_of(found: Histogram, channel: int) -> float:
    """The share of the weight in a channel that is 1 rather than 0."""
    counts, values = found.counts[channel], found.bins.values
    return float(counts[values > 0.5].sum() / max(counts.sum(), 1.0))


def enough(found: Histogram, channel: int) -> bool:
    """Whether enough pixels are tissue, of which a channel counts 1, and 0 for others."""
    share = share_of(found, channel)
    return share >= LEAST_SHARE and share * found.counts[channel].sum() >= LEAST_PIXELS


def inside(moments: Moments) -> tuple[float, Float, Float]:
    """The share of tissue, and mean (3,) and covariance (3, 3) of three features in it.

    ``moments`` are those of the features times an indicator of tissue, and of the indicator itself, (4,). The
    share is 0 where there is too little.
    """
    share = float(moments.mean[3])
    if share < LEAST_SHARE or share * moments.n < LEAST_PIXELS:
        return 0.0, np.zeros(3), np.eye(3)
    squares = moments.m2 / moments.n + np.outer(moments.mean, moments.mean)
    mean = moments.mean[:3] / share
    return share, mean, squares[:3, :3] / share - np.outer(mean, mean)


def plane_of(moments: Moments) -> Float:
    """The two directions of the plane of most spread in optical density, (2, 3), the larger one first
    (Macenko et al. 2009).

    The first points to more absorption, and the second to less of red: so the stain of the lower angle is
    hematoxylin, which absorbs more red than eosin does.
    """
    first, second = np.linalg.eigh(inside(moments)[2])[1][:, :0:-1].T
    return np.stack([first if first.sum() > 0 else -first, second if second[0] < 0 else -second])


def in_plane(angles: Histogram) -> Float | None:
    """Hematoxylin and eosin in coordinates of the plane, (2, 2), of length 1; None where they are not told
    apart."""
    if not enough(angles, 1):
        return None
    low, high = (angles.quantile(0, q) for q in (ROBUST, 1 - ROBUST))
    if math.degrees(high - low) < LEAST_ANGLE:
        return None
    return np.array([[math.cos(phi), math.sin(phi)] for phi in (low, high)])


def factors(found: Histogram) -> Float | None:
    """The stains that the densities of tissue are made of, (2, 3), for vahadane; None where they are not told
    apart."""
    share = vahadane.tissue_share(found)
    if share < LEAST_SHARE or share * found.n < LEAST_PIXELS:
        return None
    stains = vahadane.learned(found)
    return stains if stains is not None and angle_of(stains) >= LEAST_ANGLE else None


def angle_of(stains: Float) -> float:
    """The angle between two directions, (2, 3), of length 1, in degrees."""
    return math.degrees(math.acos(min(1.0, float((stains[0] * stains[1]).sum()))))


def stains_of(method: str, statistics: Mapping[str, Any]) -> Float | None:
    """The two stains of a slide in optical density, (2, 3), hematoxylin first; None where they are not told
    apart."""
    if method == "vahadane":
        return factors(statistics["stains"])
    plain = in_plane(statistics["angles"])
    return None if plain is None else plain @ plane_of(statistics["plane"])


def not_apart(method: str, statistics: Mapping[str, Any]) -> str:
    """Why the stains of a slide are not told apart, as a phrase; empty where they are."""
    if method == "macenko":
        return "" if in_plane(statistics["angles"]) is not None else _said_angle(statistics["angles"])
    if factors(statistics["stains"]) is not None:
        return ""
    return f"its densities are not those of two stains, at least {LEAST_ANGLE:g} degrees are needed between"


def estimated_white(found: Histogram) -> tuple[Float, bool]:
    """Red, green and blue of the glass in 0..1, the most frequent of what looks like glass, and whether there
    is any; the published white if not.

    ``found`` counts the channels of what looks like glass, and 0 for all other pixels.
    """
    glass, total = found.counts[:, 1:].sum(1), found.counts.sum(1)
    if not (glass > np.maximum(LEAST_GLASS * total, LEAST_PIXELS)).all():
        return STANDARD["white"], False
    smooth = [np.convolve(row[1:], np.ones(5), "same") for row in found.counts]
    return np.array([found.bins.values[1 + int(row.argmax())] for row in smooth]), True


def _said_angle(angles: Histogram) -> str:
    if not enough(angles, 1):
        return f"{100 * share_of(angles, 1):.3g} % of its pixels absorb in every channel"
    low, high = (angles.quantile(0, q) for q in (ROBUST, 1 - ROBUST))
    return f"{math.degrees(high - low):.2g} degrees between them, at least {LEAST_ANGLE:g} are needed"
