"""What two images of the same ground say about each other: robust statistics of their common cells.

Where two images overlap, most of what they show is the same, and their values differ by a gain and an offset
in each channel. Clouds, their shadows and what changed between two dates follow no such line. The line is
fitted by iteratively reweighted least squares with Tukey's biweight [1, 2], which gives what lies far from it
no weight at all; it begins at the best of several lines, some of them through pairs of cells drawn at random
[3], so that even half of the overlap may be clouds.

Both images are noisy, so the slope of the line is the ratio of the deviations (the reduced major axis), which
does not depend on which of the two is called x [4].

References
----------
1. A. Beaton and J. Tukey, "The Fitting of Power Series, Meaning Polynomials, Illustrated on
   Band-Spectroscopic Data", Technometrics 16(2), 1974: the biweight.
2. P. Holland and R. Welsch, "Robust Regression Using Iteratively Reweighted Least-Squares", Communications in
   Statistics 6(9), 1977.
3. P. Torr and A. Zisserman, "MLESAC: A New Robust Estimator with Application to Estimating Image Geometry",
   Computer Vision and Image Understanding 78(1), 2000: the line with the smallest sum of bounded squares.
4. W. Ricker, "Linear Regressions in Fishery Research", Journal of the Fisheries Research Board of Canada
   30(3), 1973: the slope as the ratio of deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: With fewer common cells than this, or with less weight left, two images say nothing about each other.
LEAST_CELLS = 12

#: At most so many cells are compared, at equal distances among all; more change nothing.
MOST_CELLS = 100_000

#: The scale of residuals lies between these shares of the range of values, whatever the image: what agrees
#: better than the one is no outlier, and what agrees worse than the other is one.
LEAST_SCALE, MOST_SCALE = 0.01, 0.04

#: Residuals beyond so many scales have no weight [2].
CUT = 4.685

#: How many lines through two random cells are tried, on how many cells, and how often a line is improved.
STARTS, START_CELLS, ROUNDS = 64, 4096, 50

#: Lines that are steeper than this, or flatter than its inverse, are no beginning.
STEEPEST = 8.0


@dataclass(frozen=True, eq=False)
class Overlap:
    """The statistics of the cells that two images have in common, of C channels, without outliers.

    Attributes
    ----------
    first, second : the numbers of the two images.
    cells : how many common cells there are.
    kept : the share of them, 0..1, that counts: the sum of their weights.
    mean, deviation : float64, (2, C), of the first and of the second image.
    correlation : float64, (C,), of the two.
    residual : float64, (C,), the root mean square of what the best line leaves, in values of the second.
    """

    first: int
    second: int
    cells: int
    kept: float
    mean: Float
    deviation: Float
    correlation: Float
    residual: Float

    @property
    def weight(self) -> float:
        """The number of cells that count."""
        return self.cells * self.kept


def compared(first: int, second: int, a: Float, b: Float, spread: Float) -> Overlap | None:
    """The statistics of the common cells of two images; None where too few of them agree.

    Parameters
    ----------
    first, second : the numbers of the two images.
    a, b : float64, (cells, C): the values of the first and of the second image in the same cells.
    spread : float64, (C,), the range of values in each channel of all images, in the same unit.
    """
    cells = len(a)
    if cells < LEAST_CELLS:
        return None
    step = max(1, cells // MOST_CELLS)
    x, y = a[::step] / spread, b[::step] / spread
    slope, shift = _start(x, y)
    weights = np.ones(len(x))
    for _ in range(ROUNDS):
        before = slope
        weights = _weights(_distance(x, y, slope, shift))
        if weights.sum() < LEAST_CELLS:
            return None
        slope, shift = _line(x, y, weights)
        if np.abs(slope - before).max() < 1e-6:
            break
    mean, deviation, correlation = _moments(x, y, weights)
    left = (y - shift - slope * x) ** 2
    residual = np.sqrt((weights @ left) / weights.sum())
    return Overlap(
        first, second, cells, float(weights.mean()), mean * spread, deviation * spread, correlation,
        residual * spread,
    )  # fmt: skip


def _moments(x: Float, y: Float, weights: Float) -> tuple[Float, Float, Float]:
    """Means (2, C), deviations (2, C) and correlations (C,) of weighted values."""
    total = weights.sum()
    mean = np.stack([weights @ x, weights @ y]) / total
    dx, dy = x - mean[0], y - mean[1]
    square = np.stack([weights @ dx**2, weights @ dy**2]) / total
    deviation = np.sqrt(square)
    product = deviation[0] * deviation[1]
    correlation = np.where(
        product > 0, (weights @ (dx * dy)) / total / np.where(product > 0, product, 1.0), 0.0
    )
    return mean, deviation, correlation


def _line(x: Float, y: Float, weights: Float) -> tuple[Float, Float]:
    """Slope and shift (C,) of the reduced major axis; a slope of 1 where there is nothing that varies."""
    mean, deviation, _ = _moments(x, y, weights)
    flat = (deviation < 1e-6).any(0)
    slope = np.where(flat, 1.0, deviation[1] / np.where(flat, 1.0, deviation[0]))
    slope = slope.clip(1 / STEEPEST, STEEPEST)
    return slope, mean[1] - slope * mean[0]


def _distance(x: Float, y: Float, slope: Float, shift: Float) -> Float:
    """How far each cell lies from the line, (cells,): the largest distance of its channels."""
    return np.abs((y - shift - slope * x) / np.sqrt((1 + slope**2) / 2)).max(-1)


def _scale(distance: Float) -> float:
    """A robust deviation of distances: their median, as that of a normal distribution, within bounds."""
    return float(np.clip(1.4826 * np.median(distance), LEAST_SCALE, MOST_SCALE))


def _weights(distance: Float) -> Float:
    """Tukey's biweight of each cell, 0..1."""
    part = distance / (CUT * _scale(distance))
    return np.where(part < 1, (1 - part**2) ** 2, 0.0)


def _start(x: Float, y: Float) -> tuple[Float, Float]:
    """The line with the smallest sum of squares, each bounded by the cut, of all lines that are tried."""
    step = max(1, len(x) // START_CELLS)
    x, y = x[::step], y[::step]
    tried = [*_by_quantiles(x, y), *_by_pairs(x, y)]
    slope = np.stack([line[0] for line in tried])
    shift = np.stack([line[1] for line in tried])
    costs = []
    bound = (CUT * LEAST_SCALE) ** 2
    for one, other in zip(slope, shift, strict=True):
        costs.append(np.minimum(_distance(x, y, one, other) ** 2, bound).sum())
    best = int(np.argmin(costs))
    return slope[best], shift[best]


def _by_quantiles(x: Float, y: Float) -> list[tuple[Float, Float]]:
    """Lines through equal shares of both distributions: no gain, the middle halves, and nearly all."""
    lines = [(np.ones(x.shape[1]), np.median(y - x, axis=0))]
    for low, high in ((0.25, 0.75), (0.05, 0.95), (0.05, 0.5), (0.5, 0.95)):
        a, b = np.quantile(x, (low, high), axis=0), np.quantile(y, (low, high), axis=0)
        wide = a[1] - a[0]
        slope = np.where(wide > 1e-6, (b[1] - b[0]) / np.where(wide > 1e-6, wide, 1.0), 1.0)
        slope = slope.clip(1 / STEEPEST, STEEPEST)
        lines.append((slope, np.median(y - slope * x, axis=0)))
    return lines


def _by_pairs(x: Float, y: Float) -> list[tuple[Float, Float]]:
    """Lines through two random cells each, where these differ in every channel of both images."""
    pairs = np.random.default_rng(0).integers(0, len(x), (STARTS, 2))
    lines = []
    for one, other in pairs:
        dx, dy = x[other] - x[one], y[other] - y[one]
        if (np.abs(dx) > 1e-3).all():
            slope = dy / dx
            if ((slope > 1 / STEEPEST) & (slope < STEEPEST)).all():
                lines.append((slope, y[one] - slope * x[one]))
    return lines
