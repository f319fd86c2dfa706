"""Reading boxes that reach beyond the edges of an image, which is continued there by reflection."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box, reflect
from urst_tiles.machine import mapped


class Readable(Protocol):
    """The methods of a source that ``read_padded`` uses."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""

    def read(self, box: Box) -> NDArray[Any]:
        """Pixels, (h, w, channels), of a box that lies inside the image."""


def read_padded(source: Readable, box: Box) -> NDArray[Any]:
    """Pixels, (h, w, channels), of ``box`` of the image continued by reflection, see `geometry.reflect`."""
    height, width = source.shape
    if Box(0, 0, height, width).contains(box):
        return source.read(box)
    rows, columns = reflect(box.y0, box.y1, height), reflect(box.x0, box.x1, width)
    y0, x0 = min(rows), min(columns)
    pixels = source.read(Box(y0, x0, max(rows) + 1, max(columns) + 1))
    pixels = _take(pixels, rows, y0, box.y0, 0)
    return _take(pixels, columns, x0, box.x0, 1)


def _take(pixels: NDArray[Any], indices: Any, first: int, start: int, axis: int) -> NDArray[Any]:
    """The pixels at ``indices`` of ``axis``, where ``pixels`` begins with index ``first``.

    If these are all pixels in order, ``pixels`` is returned, not a copy; ``start`` is where the box begins.
    """
    if len(indices) == pixels.shape[axis] and first == start and indices[-1] - indices[0] == len(indices) - 1:
        return pixels
    shape = list(pixels.shape)
    shape[axis] = len(indices)
    out = mapped(tuple(shape), pixels.dtype)
    return np.take(pixels, np.asarray(indices) - first, axis=axis, out=out, mode="clip")  # "raise" would copy
