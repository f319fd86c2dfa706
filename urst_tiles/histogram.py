"""Histograms that can be merged, as moments can: of colours, level by level, or of any other features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


class Bins(NamedTuple):
    """How a histogram is divided: ``size`` values from ``low`` to ``high``, both included, at equal
    distances.

    A feature is counted at the value that is nearest to it.
    """

    size: int
    low: float = 0.0
    high: float = 1.0

    @property
    def values(self) -> Float:
        """The values, float64, (count,)."""
        return np.linspace(self.low, self.high, self.size)


#: Every level of uint16 in 0..1; the levels of uint8 are every 257th of these, exactly.
LEVELS = Bins(65536)


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each value occurs in each of C channels.

    Attributes
    ----------
    bins : the values.
    counts : float64, (C, bins.size): the total weight of the features at each value.
    """

    bins: Bins
    counts: Float

    @classmethod
    def empty(cls, channels: int, bins: Bins) -> Histogram:
        """The histogram of nothing, the neutral element of ``+``."""
        return cls(bins, np.zeros((channels, bins.size)))

    @classmethod
    def of(cls, features: ArrayLike, bins: Bins, weights: ArrayLike | None = None) -> Histogram:
        """The histogram of N feature vectors.

        Parameters
        ----------
        features : (C, N), floats; NaN is not counted, and what lies outside of the bins counts as their end.
        weights : (N,), at least 0, the weight of each vector; None where all are 1.
        """
        values = np.asarray(features)
        counts = np.zeros((len(values), bins.size))
        scale = values.dtype.type((bins.size - 1) / (bins.high - bins.low))
        w = None if weights is None else np.asarray(weights, np.float64)
        for channel, row in enumerate(values):
            known = np.isfinite(row)
            part = None if w is None else w
            if not known.all():
                row, part = row[known], None if w is None else w[known]
            at = np.clip(np.rint((row - values.dtype.type(bins.low)) * scale), 0, bins.size - 1)
            counts[channel] = np.bincount(at.astype(np.int32), part, bins.size)
        return cls(bins, counts)

    def __add__(self, other: Histogram) -> Histogram:
        if not isinstance(other, Histogram):
            return NotImplemented
        if self.bins != other.bins or self.counts.shape != other.counts.shape:
            raise ValueError(f"histograms of {self.bins} and {other.bins} do not merge")
        return Histogram(self.bins, self.counts + other.counts)

    def scaled(self, factor: float) -> Histogram:
        """The same histogram with all weights multiplied by ``factor``."""
        return Histogram(self.bins, self.counts * factor)

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return len(self.counts)

    @property
    def n(self) -> float:
        """The total weight in the channel that has most."""
        return float(self.counts.sum(1).max(initial=0.0))

    def quantile(self, channel: int, share: float) -> float:
        """The value below which ``share`` (0..1) of the weight of a channel lies; NaN if it has none.

        It is that of NumPy's ``percentile`` (its linear interpolation between the two nearest features), in
        which every feature has the value of its bin.
        """
        counts = self.counts[channel]
        held = np.flatnonzero(counts)
        if not len(held):
            return float("nan")
        below = np.cumsum(counts[held])
        place = share * max(float(below[-1]) - 1.0, 0.0)
        first = min(int(np.searchsorted(below, place, side="right")), len(held) - 1)
        second = min(int(np.searchsorted(below, np.floor(place) + 1.0, side="right")), len(held) - 1)
        low, high = self.bins.values[held[[first, second]]]
        return float(low + (high - low) * (place - np.floor(place)))


def matched(source: Histogram, target: Histogram) -> Float:
    """The values that give the channels of ``source`` the distribution of those of ``target``: float64,
    (C, bins.size), the new value of each value.

    At each value that occurs, the share of the weight up to it is the same in both (R. Gonzalez and R. Woods,
    "Digital Image Processing", section 3.3: histogram matching), interpolated between the values that occur
    in the target. This is what scikit-image's ``match_histograms`` computes. Values between those that occur
    are interpolated; a channel without weight stays as it is.
    """
    values = source.bins.values
    out = np.tile(values, (source.channels, 1))
    for channel, (counts, wanted) in enumerate(zip(source.counts, target.counts, strict=True)):
        held, goal = np.flatnonzero(counts), np.flatnonzero(wanted)
        if not len(held) or not len(goal):
            continue
        below = np.cumsum(counts[held]) / counts.sum()
        shares = np.cumsum(wanted[goal]) / wanted.sum()
        new = np.interp(below, shares, target.bins.values[goal])
        out[channel] = np.interp(values, values[held], new)
    return out
