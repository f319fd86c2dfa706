"""The orientation of an image (EXIF; TIFF 6.0, tag 274), applied to boxes and arrays.

Readers return pixels as they are stored. Here they are flipped, then transposed, which changes no value. An
orientation is a number from 1 to 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box

#: By orientation: whether the order of rows and of columns is reversed, and whether the result is transposed.
FLIPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def oriented(shape: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) as shown of an image that is stored as ``shape`` (height, width), or the reverse."""
    return shape[::-1] if FLIPS[orientation][2] else shape


def stored_box(box: Box, stored: tuple[int, int], orientation: int) -> Box:
    """The box of the stored image, of shape ``stored``, whose pixels are shown in ``box``."""
    rows, columns, transpose = FLIPS[orientation]
    if transpose:
        box = Box(box.x0, box.y0, box.x1, box.y1)
    y0, y1 = (stored[0] - box.y1, stored[0] - box.y0) if rows else (box.y0, box.y1)
    x0, x1 = (stored[1] - box.x1, stored[1] - box.x0) if columns else (box.x0, box.x1)
    return Box(y0, x0, y1, x1)


def shown(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels, (h, w, ...), turned as they are to be shown; the result is contiguous in memory."""
    rows, columns, transpose = FLIPS[orientation]
    pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)


def shown_box(box: Box, stored: tuple[int, int], orientation: int) -> Box:
    """The box in which the pixels of a box of the stored image, of shape ``stored``, are shown."""
    rows, columns, transpose = FLIPS[orientation]
    y0, y1 = (stored[0] - box.y1, stored[0] - box.y0) if rows else (box.y0, box.y1)
    x0, x1 = (stored[1] - box.x1, stored[1] - box.x0) if columns else (box.x0, box.x1)
    return Box(x0, y0, x1, y1) if transpose else Box(y0, x0, y1, x1)


def as_stored(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Shown pixels, (h, w, ...), turned as they are stored: the reverse of `shown`, as a view."""
    rows, columns, transpose = FLIPS[orientation]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]
