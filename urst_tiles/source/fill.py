"""Invalid pixels take the colour of the valid ones around them, so that no dark border bleeds into the style.

The thumbnail's holes are closed from ever coarser averages (push and pull: Gortler et al. 1996, section
3.4), and it is enlarged bilinearly at absolute positions: every pixel's value depends on its position alone,
hence tiles agree to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box, reflect

#: Rows filled at a time, to bound the temporary floats.
ROWS = 64


def close_holes(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (h, w, 3) without holes: where ``weight`` (h, w) is 0, the average of the valid
    surroundings."""
    if (weight > 0).all():
        return colour
    if not (weight > 0).any():
        return np.zeros_like(colour)
    h, w = weight.shape
    pad = ((0, h % 2), (0, w % 2))
    heavy = np.pad(colour * weight[..., None], (*pad, (0, 0)))
    sums = heavy[0::2, 0::2] + heavy[1::2, 0::2] + heavy[0::2, 1::2] + heavy[1::2, 1::2]
    light = np.pad(weight, pad)
    total = light[0::2, 0::2] + light[1::2, 0::2] + light[0::2, 1::2] + light[1::2, 1::2]
    coarse = close_holes(
        sums / np.maximum(total, np.float32(1e-6))[..., None], np.minimum(total, np.float32(1))
    )
    near = _enlarge(coarse, np.arange(h), np.arange(w), (h, w))
    return np.where((weight > 0)[..., None], colour, near)


def _places(at: NDArray[np.int64], length: int, small: int) -> tuple[Any, Any, NDArray[np.float32]]:
    """Lower and upper index into ``small`` cells, and the upper one's share, at pixel centres of ``length``
    pixels."""
    t = np.clip((at + 0.5) * (small / length) - 0.5, 0, small - 1)
    low = np.floor(t).astype(np.int64)
    return low, np.minimum(low + 1, small - 1), (t - low).astype(np.float32)


def _enlarge(
    small: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    y0, y1, fy = _places(rows, shape[0], small.shape[0])
    x0, x1, fx = _places(columns, shape[1], small.shape[1])
    upper, lower = small[y0], small[y1]
    lines = upper + (lower - upper) * fy[:, None, None]
    left, right = lines[:, x0], lines[:, x1]
    return left + (right - left) * fx[None, :, None]


class Fill:
    """Fills invalid pixels of an image from its thumbnail.

    Parameters
    ----------
    thumbnail : uint8 or uint16, (h, w, 4); the 4th channel is validity.
    shape : (height, width) of the image.
    """

    def __init__(self, thumbnail: NDArray[Any], shape: tuple[int, int]) -> None:
        if thumbnail.ndim != 3 or thumbnail.shape[-1] != 4:
            raise ValueError(f"a thumbnail to fill from is (h, w, 4), got {thumbnail.shape}")
        self.shape = shape
        weight = thumbnail[..., 3].astype(np.float32) / np.float32(np.iinfo(thumbnail.dtype).max)
        self._small = close_holes(thumbnail[..., :3].astype(np.float32), weight)

    def apply(self, pixels: NDArray[Any], box: Box) -> NDArray[Any]:
        """Pixels (h, w, 3) of ``box`` of the padded image, from RGBA (h, w, 4): what is invalid is
        replaced."""
        out = np.ascontiguousarray(pixels[..., :3])
        invalid = pixels[..., 3] == 0
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
                out[part, across][holes] = np.rint(near[holes]).astype(out.dtype)
        return out
