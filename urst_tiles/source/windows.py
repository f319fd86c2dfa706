"""Reading the windows of a network: RGB with invalid pixels filled, padded by reflection."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.source import Fill, Source, read_padded
from urst_tiles.source.saved import read_thumbnail

#: How many rows are filled at a time.
ROWS = 256


class WindowReader:
    """Reads from a prepared source the pixels that a network sees.

    Invalid pixels are filled with colours of the thumbnail, in which only valid pixels count, so that no dark
    border bleeds in. The fill depends on absolute positions alone, so all windows see the same pixels.

    Attributes
    ----------
    source : the source, as `Source.prepare` returns it.
    shape, channels, dtype : as in `Source`.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = source.shape
        self.channels = source.channels
        self.dtype = source.dtype
        self._fill = fill_of(source) if source.has_valid else None

    def read(self, box: Box) -> NDArray[np.generic]:
        """The pixels, (h, w, channels), of ``dtype``, of a box inside the image, with invalid pixels filled.

        Validity, the channel behind the colours, stays as it is. The errors are those of `Source.read`.
        """
        pixels = self.source.read(box)
        if self._fill is None:
            return pixels
        for y in range(0, len(pixels), ROWS):  # at once it would take a second array of the size
            part = pixels[y : y + ROWS]
            part[..., :-1] = self._fill.apply(part, Box(box.y0 + y, box.x0, box.y0 + y + len(part), box.x1))
        return pixels

    def padded(self, box: Box) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
        """What the network sees, (h, w, colours), and validity, (h, w), of a box that may reach beyond the
        edges of the image.

        Validity is None if the source has colours alone. The errors are those of `Source.read`.
        """
        pixels = read_padded(self, box)
        return (pixels[..., :-1], pixels[..., -1]) if self._fill is not None else (pixels, None)


_making = threading.Lock()


def fill_of(source: Source) -> Fill:
    """The fill of a source. All tasks of this process share that of one saved thumbnail: its floats take 12
    bytes for each pixel of the thumbnail, and making them takes more."""
    saved = source.saved_thumbnail
    if saved is None:
        return Fill(source.thumbnail, source.shape)
    with _making:
        return _saved_fill(saved, source.shape)


@lru_cache(maxsize=2)  # of an image, and of the picture of the level above
def _saved_fill(thumbnail: Path, shape: tuple[int, int]) -> Fill:
    """The fill from the thumbnail in this file; its name tells images and thumbnails apart."""
    return Fill(read_thumbnail(thumbnail), shape)
