"""Images of half the size: means of 2 x 2 pixels in which invalid pixels do not count.

A level of n rows or columns is followed by a level of ``ceil(n / 2)``; where n is odd, the last row or column
counts twice. The result is exact and rounded half up, so its bytes are the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.machine import mapped
from urst_tiles.pyramid.encode import Encoding

#: Bytes of input that are halved at once: few enough to stay in the cache of the processor.
_STRIP_BYTES = 1 << 20


def halve(pixels: NDArray, *, binary: bool = False) -> NDArray:
    """Halve an image by the means of 2 x 2 pixels.

    With alpha, colours are means weighted by alpha (where all four pixels have alpha 0, plain means), and
    alpha itself is the plain mean of alpha.

    Parameters
    ----------
    pixels : RGB or RGBA, uint8 or uint16, (h, w, 3 or 4).
    binary : whether pixels are either valid or not. Then every alpha above 0 has the same weight, and a pixel
        of the result is fully valid where any of the four is. This is GDAL's rule for masks and nodata, by
        which no valid pixel vanishes from an overview.

    Returns
    -------
    (ceil(h / 2), ceil(w / 2), 3 or 4), of the same dtype.
    """
    h, w, channels = pixels.shape
    out = mapped((ceil_div(h, 2), ceil_div(w, 2), channels), pixels.dtype)
    rows = max(1, _STRIP_BYTES // (2 * w * channels * pixels.itemsize))
    for y in range(0, len(out), rows):
        strip = _even(pixels[2 * y : 2 * (y + rows)])
        into = out[y : y + rows]
        _plain(strip, into)
        if channels == 4:
            _correct(strip, into, binary)
    return out


def smaller(pixels: NDArray, encoding: Encoding) -> NDArray:
    """The next smaller level of pixels that are read from the finished pyramid of this encoding."""
    return halve(pixels, binary=encoding.binary and pixels.shape[-1] == 4)


def levels_below(pixels: NDArray, count: int, *, binary: bool = False) -> list[NDArray]:
    """Halve an image ``count`` times; returns all results, largest first. See `halve`."""
    levels: list[NDArray] = []
    for _ in range(count):
        pixels = halve(pixels, binary=binary)
        levels.append(pixels)
    return levels


def _even(strip: NDArray) -> NDArray:
    """The strip with its last row or column repeated where their number is odd."""
    h, w = strip.shape[0] % 2, strip.shape[1] % 2
    return np.pad(strip, ((0, h), (0, w), (0, 0)), mode="edge") if h or w else strip


def _sums(strip: NDArray, dtype: type) -> NDArray:
    """Sums of 2 x 2 pixels; channel by channel, so that NumPy's inner loop runs along rows, not channels."""
    tall = np.add(strip[0::2], strip[1::2], dtype=dtype)
    out = np.empty((tall.shape[0], tall.shape[1] // 2, tall.shape[2]), dtype)
    for c in range(tall.shape[2]):
        np.add(tall[:, 0::2, c], tall[:, 1::2, c], out=out[:, :, c])
    return out


def _wide(dtype: np.dtype) -> type:
    return np.uint16 if dtype.itemsize == 1 else np.uint32


def _plain(strip: NDArray, into: NDArray) -> None:
    sums = _sums(strip, _wide(strip.dtype))
    sums += 2
    sums >>= 2
    into[...] = sums


def _correct(strip: NDArray, into: NDArray, binary: bool) -> None:
    """Replace plain means by means weighted by alpha, where that makes a difference."""
    alpha, top = strip[..., 3], np.iinfo(strip.dtype).max
    least = alpha.min()
    if binary:
        into[..., 3] = top if least > 0 else np.where(_weighted(strip, into, alpha > 0), top, 0)
    elif least < top:
        _weighted(strip, into, alpha)


def _weighted(strip: NDArray, into: NDArray, weights: NDArray) -> NDArray:
    """Put weighted means of colour into ``into`` where any weight is above 0; returns where that is.

    This is exact: every sum stays below 2^24 in float32 (uint8) or below 2^53 in float64 (uint16), and no
    quotient is so near to a whole number that rounding could cross it.
    """
    real = np.float32 if strip.itemsize == 1 else np.float64
    weights = weights[..., None].astype(real)
    total = _sums(weights, real)[..., 0]
    some = total > 0
    half, divisor = np.floor(total / 2), np.maximum(total, 1)
    sums = _sums(strip[..., :3] * weights, real)
    for c in range(3):
        mean = np.floor((sums[..., c] + half) / divisor)
        np.copyto(into[..., c], mean.astype(into.dtype), where=some)
    return some
