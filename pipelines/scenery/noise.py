"""Noise that is a pure function of position: the same pixel comes out whatever the block it is drawn in.

Sums are written out element by element (no BLAS, whose order of summation depends on the shape). Positions
are absolute pixels and may be large; only distances to something near are ever float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]  # float32, but for positions
Int = NDArray[np.integer]

COARSE = 4  # slow fields are known on every fourth pixel

_FACTORS = (0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)


def added(terms: Iterable[Float]) -> Float:
    """Their sum, in that order."""
    return reduce(add, terms)


def chance(salt: int, *keys: NDArray[np.integer]) -> Float:
    """float32 in [0, 1), the broadcast shape of up to three integer ``keys``: a hash that looks like dice."""
    h = np.full(1, salt * 0x9E3779B1 & 0xFFFFFFFF, np.uint32)
    for key, factor in zip(keys, _FACTORS, strict=False):
        h = (h ^ key.astype(np.uint32) * np.uint32(factor)) * np.uint32(0x9E3779B1)
        h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def spline(t: Float) -> list[Float]:
    """The four weights of a cubic B-spline at the fraction ``t`` between two knots."""
    s = 1 - t
    return [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]


def noise(ys: Int, xs: Int, period: float, salt: int) -> Float:
    """float32, (len(ys), len(xs)), mean 0, spread about 1: smooth hills, ``period`` pixels apart."""
    (iy, ty), (ix, tx) = _knots(ys, period), _knots(xs, period)
    dice = _dice(iy, ix, salt)
    iy, ix = iy - iy[0], ix - ix[0]
    rows = added(w[:, None] * dice[iy + k] for k, w in enumerate(spline(ty)))
    return added(w * rows[:, ix + k] for k, w in enumerate(spline(tx)))


def noise_at(y: Float, x: Float, period: float, salt: int) -> Float:
    """The same noise at positions (h, w) that are on no lattice, such as warped ones."""
    (iy, ty), (ix, tx) = _knots(y, period), _knots(x, period)
    dice = _dice(iy, ix, salt)
    iy, ix = iy - iy.min(), ix - ix.min()
    columns = list(enumerate(spline(tx)))
    return added(
        wy * added(wx * dice[iy + ky, ix + kx] for kx, wx in columns) for ky, wy in enumerate(spline(ty))
    )


def _knots(at: Float | Int, period: float) -> tuple[Int, Float]:
    where = at / period
    before = np.floor(where)
    return before.astype(np.int64) - 1, (where - before).astype(np.float32)


def _dice(iy: Int, ix: Int, salt: int) -> Float:
    """The knots from the first to the last asked for; 7.2 makes the spread of their spline about 1."""
    rows, columns = np.arange(iy.min(), iy.max() + 4), np.arange(ix.min(), ix.max() + 4)
    return (chance(salt, rows[:, None], columns) - 0.5) * np.float32(7.2)


def fractal(ys: Int, xs: Int, period: float, salt: int, octaves: int = 4) -> Float:
    """Octaves of noise, each half as wide and half as strong as the one before."""
    return added(noise(ys, xs, period / 2**i, salt + i) * np.float32(0.5**i) for i in range(octaves))


def magnify(coarse: Float) -> Float:
    """(h + 3, w + 3) knots to (4 h, 4 w) pixels by a cubic B-spline; the second knot is the first pixel."""
    h, w = coarse.shape[0] - 3, coarse.shape[1] - 3
    wide = np.empty((h + 3, w * COARSE), np.float32)
    tall = np.empty((h * COARSE, w * COARSE), np.float32)
    phases = np.stack(spline(np.arange(COARSE, dtype=np.float32) / COARSE), axis=1)
    for p, taps in enumerate(phases):
        wide[:, p::COARSE] = added(coarse[:, k : k + w] * tap for k, tap in enumerate(taps))
    for p, taps in enumerate(phases):
        tall[p::COARSE] = added(wide[k : k + h] * tap for k, tap in enumerate(taps))
    return tall


def ramp(x: Float, low: float, high: float) -> Float:
    """Smooth step: 0 at ``low``, 1 at ``high`` (which may be the smaller one)."""
    t = np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)
