"""Statistics that can be merged: total weight, mean and central second moment, in float64.

Merging follows Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances" (1979), equation 2.1, in its weighted form. The covariance uses the same formula with an outer
product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of a set of feature vectors of C channels.

    Attributes
    ----------
    n : total weight; the number of vectors if all weights are 1.
    mean : float64, (C,), the mean vector.
    m2 : float64, (C,), the sum of the squared deviations from the mean; or (C, C), the sum of their outer
        products.
    """

    n: float
    mean: Float
    m2: Float

    @classmethod
    def empty(cls, channels: int, *, full: bool = False) -> Moments:
        """The moments of no vectors, the neutral element of ``+``; with ``full``, m2 is (C, C)."""
        return cls(0.0, np.zeros(channels), np.zeros((channels, channels) if full else channels))

    @classmethod
    def of(cls, features: ArrayLike, weights: ArrayLike | None = None, *, full: bool = False) -> Moments:
        """The statistics of N feature vectors.

        Parameters
        ----------
        features : (C, N), any real dtype; each column is a vector.
        weights : (N,), at least 0, the weight of each vector; None where all are 1.
        full : whether to gather a covariance, m2 (C, C), instead of variances.
        """
        d = np.array(features, np.float64)  # a copy, from which the mean is subtracted in place
        channels, count = d.shape
        w = None if weights is None else np.asarray(weights, np.float64)
        if w is not None and (w == 1).all():
            w = None
        n = float(count if w is None else w.sum())
        if n <= 0:
            return cls.empty(channels, full=full)

        def weighed() -> Float:
            return d if w is None else d * w

        # Not a matrix-vector product: its order of summation may change with the number of threads.
        mean = weighed().sum(axis=1) / n
        d -= mean[:, None]
        return cls(n, mean, weighed() @ d.T if full else np.einsum("cn,cn->c", weighed(), d))

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        if self.m2.shape != other.m2.shape:
            raise ValueError(f"moments of shapes {self.m2.shape} and {other.m2.shape} do not merge")
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        d = other.mean - self.mean
        spread = np.outer(d, d) if self.m2.ndim == 2 else d * d
        return Moments(n, self.mean + d * (other.n / n), self.m2 + other.m2 + spread * (self.n * other.n / n))

    def scaled(self, factor: float) -> Moments:
        """The same statistics with all weights multiplied by ``factor``."""
        return Moments(self.n * factor, self.mean, self.m2 * factor)

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return len(self.mean)

    def variance(self, ddof: int = 0) -> Float:
        """The variance of each channel, float64, (C,), with the denominator ``n - ddof``.

        The denominator is at least n / 2, so that a few partly valid vectors, whose n is near ddof, do not
        give a huge variance. Moments of no vectors have the variance 0.
        """
        diagonal = np.diagonal(self.m2) if self.m2.ndim == 2 else self.m2
        return diagonal / self._denominator(ddof)

    def std(self, eps: float = 0.0, ddof: int = 0) -> Float:
        """The standard deviation of each channel, float64, (C,): sqrt(variance + eps)."""
        return np.sqrt(self.variance(ddof) + eps)

    def covariance(self, ddof: int = 0) -> Float:
        """The covariance matrix, float64, (C, C), with the denominator of `variance`.

        Raises
        ------
        ValueError : only variances were gathered.
        """
        if self.m2.ndim != 2:
            raise ValueError("these moments hold variances only; gather them with full=True")
        return self.m2 / self._denominator(ddof)

    def _denominator(self, ddof: int) -> float:
        """``n - ddof``, but at least n / 2, and 1 if n is 0."""
        return max(self.n - ddof, self.n / 2) or 1.0


@dataclass(frozen=True, eq=False)
class MemberMoments:
    """The statistics of several members of a field (see `urst_tiles.field`), merged member by member.

    Attributes
    ----------
    parts : the moments of each member, or another statistic that can be added, by number of the member;
        members of weight 0 are left out.
    """

    parts: Mapping[int, Any]

    def __add__(self, other: MemberMoments) -> MemberMoments:
        if not isinstance(other, MemberMoments):
            return NotImplemented
        merged = dict(self.parts)
        for member, moments in other.parts.items():
            merged[member] = merged[member] + moments if member in merged else moments
        return MemberMoments(merged)

    @property
    def total(self) -> Any:
        """The moments of all members together; raises ValueError if no member has any weight."""
        if not self.parts:
            raise ValueError("there are no statistics")
        return reduce(add, (self.parts[member] for member in sorted(self.parts)))

    def backed(self, members: int, share: float) -> MemberMoments:
        """The moments of members 0 to ``members`` - 1, each merged with the moments of all members together.

        The latter are scaled to ``share`` times the weight of the member. So a member whose features are all
        alike still has a deviation. A member of weight 0 gets the moments of all members.
        """
        whole = self.total
        return MemberMoments(
            {
                k: self.parts[k] + whole.scaled(share * self.parts[k].n / whole.n)
                if k in self.parts
                else whole
                for k in range(members)
            }
        )
