"""EXIF and TIFF orientation, applied to boxes and arrays instead of to files.

Stored pixels are flipped, then transposed; both are exact, so no reader needs to know (TIFF 6.0, tag 274).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box

#: orientation -> (flip rows, flip columns, then transpose)
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
    """(height, width) as shown, of pixels stored as ``shape`` (and the other way round)."""
    return shape[::-1] if FLIPS[orientation][2] else shape


def stored_box(box: Box, stored: tuple[int, int], orientation: int) -> Box:
    """Where the pixels of ``box`` (as shown) lie among the stored ones."""
    rows, columns, transpose = FLIPS[orientation]
    if transpose:
        box = Box(box.x0, box.y0, box.x1, box.y1)
    y0, y1 = (stored[0] - box.y1, stored[0] - box.y0) if rows else (box.y0, box.y1)
    x0, x1 = (stored[1] - box.x1, stored[1] - box.x0) if columns else (box.x0, box.x1)
    return Box(y0, x0, y1, x1)


def shown(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels (h, w, ...) as they shall be shown; contiguous."""
    rows, columns, transpose = FLIPS[orientation]
    pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)
