"""The tones of a painting: a curve for the luminance of a picture that has the painting's colours.

A linear map of colours gives a picture the mean and the covariance of a painting's colours. Most old
paintings are dark with few lights, though: their luminance is skewed, and the linear map would take much of a
picture below black, where nothing is left of it. A picture whose luminance is normally distributed gets the
skewness of the painting as well by the inverse of a Box-Cox transform [1] with the exponent 1/4, which is a
fourth power. This rises everywhere, and takes multiplications and additions alone, so that it gives the same
bits wherever a pixel lies in a window.

Reference
---------
1. G. E. P. Box and D. R. Cox, "An Analysis of Transformations", Journal of the Royal Statistical Society B
   26, 1964.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.nets.keep_colours import LUMA

POWER = 4
#: A skewness smaller than LEAST changes nothing that can be seen, and one above MOST is taken for that.
LEAST, MOST = 0.02, 4.0
#: The largest strength that is looked for, and how often the interval it lies in is halved.
STRONGEST, HALVINGS = 2.0, 50
#: Points at which the curve is integrated over the normal distribution.
POINTS = 48
#: A luminance that varies less than this, in 0..1, has no skewness.
FLAT = 1e-3


@dataclass(frozen=True)
class Curve:
    """What is added to a colour c (3,): ``direction`` times (``power`` max(u, 0)**4 + ``slope`` u +
    ``shift``), where u is the product of ``along`` and c, plus ``start``."""

    along: tuple[float, float, float]
    start: float
    direction: tuple[float, float, float]
    power: float
    slope: float
    shift: float


def skewness(image: NDArray[np.floating]) -> float:
    """The skewness of the luminance of an image (h, w, 3) in 0..1: its third central moment over the cube of
    its deviation; 0 for an image that is flat."""
    values = image.reshape(-1, 3).astype(np.float64) @ LUMA
    values -= values.mean()
    deviation = float(np.sqrt((values**2).mean()))
    return float((values**3).mean()) / deviation**3 if deviation > FLAT else 0.0


def curve(mean: NDArray[np.float64], covariance: NDArray[np.float64], skew: float) -> Curve | None:
    """The curve of the tones of a painting; None where there is nothing to bend.

    Parameters
    ----------
    mean, covariance : (3,) and (3, 3), of the painting's colours, which the colours to bend have already.
    skew : the skewness of the painting's luminance.
    """
    weights = np.array(LUMA)
    deviation = float(np.sqrt(max(0.0, weights @ covariance @ weights)))
    if abs(skew) < LEAST or deviation < FLAT:
        return None
    sign = 1.0 if skew > 0 else -1.0
    strength = strength_for(min(abs(skew), MOST))
    centre, spread, _ = spread_of(strength)
    along = sign * strength / POWER * weights / deviation
    direction = sign * covariance @ weights / deviation
    back = POWER / strength  # from u - 1 to deviations
    a, d = ((float(v[0]), float(v[1]), float(v[2])) for v in (along, direction))
    return Curve(a, 1.0 - float(along @ mean), d, 1 / spread, -back, back - centre / spread)


def bend(colours: Tensor, channels: int, bent: Curve | None) -> Tensor:
    """Change float32 ``colours`` in place; ``channels`` is the axis of the three channels."""
    if bent is None:
        return colours
    parts = colours.unbind(channels)
    u = parts[0] * bent.along[0]
    for part, factor in zip(parts[1:], bent.along[1:], strict=True):
        u += part * factor
    u += bent.start
    added = u.clamp(min=0)
    for _ in range(2):  # to the fourth power
        added *= added
    added *= bent.power
    added += u.mul_(bent.slope)
    added += bent.shift
    for part, factor in zip(parts, bent.direction, strict=True):
        part += added * factor
    return colours


@lru_cache(maxsize=64)
def strength_for(skew: float) -> float:
    """The strength of the curve that gives normally distributed values this skewness, positive."""
    low, high = 0.0, STRONGEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if spread_of(middle)[2] < skew else (low, middle)
    return high


def spread_of(strength: float) -> tuple[float, float, float]:
    """Mean, deviation and skewness of (1 + strength z / 4)**4, not below 0 before the power, for a normally
    distributed z."""
    points, shares = normal_points()
    values = np.maximum(1 + strength * points / POWER, 0) ** POWER
    mean = float(shares @ values)
    deviation = float(np.sqrt(shares @ (values - mean) ** 2))
    return mean, deviation, float(shares @ (values - mean) ** 3) / deviation**3 if deviation else 0.0


@cache
def normal_points() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points of Gauss and Hermite's quadrature, and their shares of the normal distribution."""
    points, shares = np.polynomial.hermite_e.hermegauss(POINTS)
    return points, shares / shares.sum()
