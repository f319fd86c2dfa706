"""Sums of 2 x 2 pixels, from which images of half the size are made, each with its own rule of rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def even(pixels: NDArray) -> NDArray:
    """Pixels (h, w, channels) with the last row or column repeated where their number is odd."""
    h, w = pixels.shape[0] % 2, pixels.shape[1] % 2
    return np.pad(pixels, ((0, h), (0, w), (0, 0)), mode="edge") if h or w else pixels


def sums_of_four(pixels: NDArray, dtype: type) -> NDArray:
    """Sums of 2 x 2 pixels of an image of even sides, in ``dtype``; channel by channel, so that NumPy's inner
    loop runs along rows, not channels."""
    tall = np.add(pixels[0::2], pixels[1::2], dtype=dtype)
    out = np.empty((tall.shape[0], tall.shape[1] // 2, tall.shape[2]), dtype)
    for c in range(tall.shape[2]):
        np.add(tall[:, 0::2, c], tall[:, 1::2, c], out=out[:, :, c])
    return out


def wide(dtype: np.dtype) -> type:
    """The type in which four pixels of an unsigned type of 8 or 16 bits are summed exactly."""
    return np.uint16 if dtype.itemsize == 1 else np.uint32
