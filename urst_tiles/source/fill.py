"""Filling invalid pixels with the colour of the valid pixels around them.

Otherwise a dark border would bleed into the style. The colours come from the thumbnail, whose holes are
closed from ever coarser averages (push and pull: Gortler et al. 1996, section 3.4). It is enlarged bilinearly
at absolute positions: the value of a pixel depends on its position alone, so neighbouring tiles agree to the
bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box, reflect
from urst_tiles.source.valid import full

#: How many rows are filled at a time; this bounds the memory of temporary floats.
ROWS = 64


def close_holes(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill the pixels whose weight is 0 with the average of the valid pixels around them.

    Parameters
    ----------
    colour : float32, (h, w, 3).
    weight : float32, (h, w), in 0..1.

    Returns
    -------
    float32, (h, w, 3); zeros if no pixel is valid.
    """
    if (weight > 0).all():
        return colour
    if not (weight > 0).any():
        return np.zeros_like(colour)
    coarse = close_holes(*_halved(colour, weight))
    h, w = weight.shape
    out, columns = colour.copy(), np.arange(w)
    for y in range(0, h, ROWS):
        part = slice(y, y + ROWS)
        holes = weight[part] <= 0
        if holes.any():
            near = _enlarge(coarse, np.arange(h)[part], columns, (h, w))
            np.copyto(out[part], near, where=holes[..., None])
    return out


def _halved(
    colour: NDArray[np.float32], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour and weight at half the size: means weighted by the weight, and sums of the weight, at most 1."""
    h, w = weight.shape
    heavy = np.zeros((h + h % 2, w + w % 2, colour.shape[-1]), np.float32)
    np.multiply(colour, weight[..., None], out=heavy[:h, :w])
    sums = heavy[0::2, 0::2] + heavy[1::2, 0::2] + heavy[0::2, 1::2] + heavy[1::2, 1::2]
    del heavy
    light = np.pad(weight, ((0, h % 2), (0, w % 2)))
    total = light[0::2, 0::2] + light[1::2, 0::2] + light[0::2, 1::2] + light[1::2, 1::2]
    sums /= np.maximum(total, np.float32(1e-6))[..., None]
    return sums, np.minimum(total, np.float32(1))


def _neighbours(at: NDArray[np.int64], length: int, small: int) -> tuple[Any, Any, NDArray[np.float32]]:
    """Bilinear interpolation of a line of ``small`` cells at the centres of pixels of a line of ``length``.

    Returns the index of the cell before and of the cell after each pixel ``at``, and the share of the latter.
    """
    t = np.clip((at + 0.5) * (small / length) - 0.5, 0, small - 1)
    low = np.floor(t).astype(np.int64)
    return low, np.minimum(low + 1, small - 1), (t - low).astype(np.float32)


def _enlarge(
    small: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """``small``, (h, w, 3), enlarged to ``shape`` (height, width), at these rows and columns only."""
    y0, y1, fy = _neighbours(rows, shape[0], small.shape[0])
    x0, x1, fx = _neighbours(columns, shape[1], small.shape[1])
    upper, lower = small[y0], small[y1]
    lines = upper + (lower - upper) * fy[:, None, None]
    left, right = lines[:, x0], lines[:, x1]
    return left + (right - left) * fx[None, :, None]


class Fill:
    """Fills the invalid pixels of an image with colours from its thumbnail.

    Parameters
    ----------
    thumbnail : uint8 or uint16, (h, w, channels), such as RGBA; the last channel tells how valid a pixel is,
        0 is invalid.
    shape : (height, width) of the image in pixels.
    """

    def __init__(self, thumbnail: NDArray[Any], shape: tuple[int, int]) -> None:
        if thumbnail.ndim != 3 or thumbnail.shape[-1] < 2:
            raise ValueError(f"a thumbnail to fill from is (h, w, channels), got {thumbnail.shape}")
        self.shape = shape
        weight = thumbnail[..., -1].astype(np.float32) / np.float32(full(thumbnail.dtype))
        self._small = close_holes(thumbnail[..., :-1].astype(np.float32), weight)

    def apply(self, pixels: NDArray[Any], box: Box) -> NDArray[Any]:
        """The colours of pixels, (h, w, colours), with every invalid pixel replaced.

        Parameters
        ----------
        pixels : (h, w, channels), with the dtype of the thumbnail; a last channel of 0 marks invalid pixels.
        box : the box of the padded image that the pixels belong to.
        """
        out = np.ascontiguousarray(pixels[..., :-1])
        invalid = pixels[..., -1] == 0
        if not invalid.any():
            return out
        if np.shares_memory(out, pixels):
            out = out.copy()
        rows = np.asarray(reflect(box.y0, box.y1, self.shape[0]))
        columns = np.asarray(reflect(box.x0, box.x1, self.shape[1]))
        used = np.flatnonzero(invalid.any(axis=0))
        across = slice(int(used[0]), int(used[-1]) + 1)
        for y in range(0, len(rows), ROWS):
            part = slice(y, y + ROWS)
            holes = invalid[part, across]
            if holes.any():
                near = _enlarge(self._small, rows[part], columns[across], self.shape)
                if out.dtype.kind != "f":
                    np.rint(near, out=near)
                out[part, across][holes] = near[holes].astype(out.dtype)
        return out
