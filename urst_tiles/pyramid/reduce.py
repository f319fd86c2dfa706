"""Images of half the size, in which invalid pixels do not count: means of 2 x 2 pixels, or by other methods.

A level of n rows or columns is followed by a level of ``ceil(n / 2)``; where n is odd, the last row or column
counts twice. A mean is exact and rounded half up, so its bytes are the same on every machine.

``average``   means of 2 x 2 pixels
``nearest``   the upper left of 2 x 2 pixels, as GDAL takes it; for pictures of few colours
``lanczos``   a window of 12 x 12 pixels (Lanczos with three lobes), which is sharper, and may ring at edges.
              It does not look beyond the pixels that are given, which are those of a block: there it goes
              on by reflection. Validity is that of ``average``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.machine import mapped
from urst_tiles.pyramid.encode import Encoding, Resampling
from urst_tiles.source.fours import even, sums_of_four, wide
from urst_tiles.source.valid import full

#: Bytes of input that are halved at once: few enough to stay in the cache of the processor.
_STRIP_BYTES = 1 << 20


def halve(pixels: NDArray, *, binary: bool = False, colours: int = 3) -> NDArray:
    """Halve an image by the means of 2 x 2 pixels.

    With alpha, colours are means weighted by alpha (where all four pixels have alpha 0, plain means), and
    alpha itself is the plain mean of alpha.

    Parameters
    ----------
    pixels : uint8, uint16 or float32, (h, w, ``colours``), or with alpha behind them (h, w, ``colours`` + 1).
    binary : whether pixels are either valid or not. Then every alpha above 0 has the same weight, and a pixel
        of the result is fully valid where any of the four is. This is GDAL's rule for masks and nodata, by
        which no valid pixel vanishes from an overview.

    Returns
    -------
    (ceil(h / 2), ceil(w / 2), channels), of the same dtype.
    """
    h, w, channels = pixels.shape
    out = mapped((ceil_div(h, 2), ceil_div(w, 2), channels), pixels.dtype)
    rows = max(1, _STRIP_BYTES // (2 * w * channels * pixels.itemsize))
    for y in range(0, len(out), rows):
        strip = even(pixels[2 * y : 2 * (y + rows)])
        into = out[y : y + rows]
        _plain(strip, into)
        if channels > colours:
            _correct(strip, into, binary)
    return out


def smaller(pixels: NDArray, encoding: Encoding) -> NDArray:
    """The next smaller level of pixels that are read from the finished pyramid of this encoding."""
    binary = encoding.binary and encoding.alpha
    return _METHODS[encoding.overviews](pixels, binary, encoding.colours)


def levels_below(
    pixels: NDArray, count: int, *, binary: bool = False, method: Resampling = "average", colours: int = 3
) -> list[NDArray]:
    """Halve an image ``count`` times; returns all results, largest first. See `halve`."""
    levels: list[NDArray] = []
    for _ in range(count):
        pixels = _METHODS[method](pixels, binary, colours)
        levels.append(pixels)
    return levels


def _average(pixels: NDArray, binary: bool, colours: int) -> NDArray:
    return halve(pixels, binary=binary, colours=colours)


def _nearest(pixels: NDArray, binary: bool, colours: int) -> NDArray:
    h, w, channels = pixels.shape
    out = mapped((ceil_div(h, 2), ceil_div(w, 2), channels), pixels.dtype)
    out[...] = pixels[::2, ::2]
    return out


def _lanczos(pixels: NDArray, binary: bool, colours: int) -> NDArray:
    """Colours by Lanczos, weighted by alpha; where little is valid, and of alpha itself, the mean."""
    out, top = halve(pixels, binary=binary, colours=colours), full(pixels.dtype)
    whole = pixels.dtype.kind == "u"
    alpha = pixels.shape[-1] > colours
    columns = _mirrored(-_BEFORE, 2 * out.shape[1] + _BEFORE, pixels.shape[1])
    for y in range(0, len(out), _LANCZOS_ROWS):
        into = out[y : y + _LANCZOS_ROWS]
        rows = _mirrored(2 * y - _BEFORE, 2 * (y + len(into)) + _BEFORE, len(pixels))
        strip = pixels[rows].astype(np.float32)
        if alpha:
            strip[..., -1] = (strip[..., -1] > 0) if binary else strip[..., -1] / top
            strip[..., :-1] *= strip[..., -1:]
        tall: Any = sum(k * strip[j : j + 2 * len(into) : 2] for j, k in enumerate(_KERNEL))
        tall = tall[:, columns]
        small: Any = sum(k * tall[:, j : j + 2 * out.shape[1] : 2] for j, k in enumerate(_KERNEL))
        some = np.full(small.shape[:2], True)
        if alpha:
            some = small[..., -1] > 0.25
            small[..., :-1] /= np.maximum(small[..., -1:], 0.25)
        colour = small[..., :colours]
        if whole:
            colour = np.clip(np.floor(colour + np.float32(0.5)), 0, top).astype(out.dtype)
        np.copyto(into[..., :colours], colour, where=some[..., None])
    return out


def _mirrored(start: int, stop: int, n: int) -> NDArray[np.intp]:
    """The positions from ``start`` to ``stop`` in a line of n pixels continued by reflection, its last pixel
    repeated."""
    at = np.arange(start, stop) % (2 * n)
    return np.minimum(at, 2 * n - 1 - at)


def _kernel() -> list[np.float32]:
    """The weights of the 12 pixels around the middle of two pixels: sinc(x) sinc(x / 3), x in pixels of the
    result (C. E. Duchon, "Lanczos filtering in one and two dimensions", 1979)."""
    x = (np.arange(12) - 5.5) / 2
    weights = np.sinc(x) * np.sinc(x / 3)
    return [np.float32(weight) for weight in weights / weights.sum()]


#: Rows of a result that are made at once, the weights, and how many pixels lie before the first of the two.
_LANCZOS_ROWS, _KERNEL, _BEFORE = 8, _kernel(), 5

_METHODS: dict[Resampling, Callable[[NDArray, bool, int], NDArray]] = {
    "average": _average,
    "nearest": _nearest,
    "lanczos": _lanczos,
}


def _plain(strip: NDArray, into: NDArray) -> None:
    if strip.dtype.kind == "f":
        into[...] = sums_of_four(strip, np.float64) / 4
        return
    sums = sums_of_four(strip, wide(strip.dtype))
    sums += 2
    sums >>= 2
    into[...] = sums


def _correct(strip: NDArray, into: NDArray, binary: bool) -> None:
    """Replace plain means by means weighted by alpha, where that makes a difference."""
    alpha, top = strip[..., -1], full(strip.dtype)
    least = alpha.min()
    if binary:
        into[..., -1] = top if least > 0 else np.where(_weighted(strip, into, alpha > 0), top, 0)
    elif least < top:
        _weighted(strip, into, alpha)


def _weighted(strip: NDArray, into: NDArray, weights: NDArray) -> NDArray:
    """Put weighted means of colour into ``into`` where any weight is above 0; returns where that is.

    This is exact: every sum stays below 2^24 in float32 (uint8) or below 2^53 in float64 (uint16), and no
    quotient is so near to a whole number that rounding could cross it.
    """
    real: type = np.float32 if strip.itemsize == 1 else np.float64
    weights = weights[..., None].astype(real)
    total = sums_of_four(weights, real)[..., 0]
    some = total > 0
    half, divisor = np.floor(total / 2), np.maximum(total, 1)
    colour = strip[..., :-1]
    if strip.dtype.kind == "f":
        colour = np.where(weights > 0, colour, 0)  # which may be no number
        half, divisor = np.zeros_like(total), np.where(some, total, 1)
    sums = sums_of_four(colour * weights, real)
    for c in range(sums.shape[-1]):
        mean = (sums[..., c] + half) / divisor
        mean = mean if strip.dtype.kind == "f" else np.floor(mean)
        np.copyto(into[..., c], mean.astype(into.dtype), where=some)
    return some
