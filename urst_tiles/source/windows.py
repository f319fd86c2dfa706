"""Boxes of a source as a network wants them: RGB with invalid pixels filled, padded by reflection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.source import Fill, Source, read_padded


class WindowReader:
    """What stands between a prepared source and a network.

    Invalid pixels get the colours of the valid-weighted thumbnail around them, so that no dark border bleeds
    in; the fill depends on absolute positions alone, hence every window sees the same pixels.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = source.shape
        self.channels = source.channels
        self.dtype = source.dtype
        self._fill = Fill(source.thumbnail, source.shape) if source.channels == 4 else None

    def read(self, box: Box) -> NDArray[np.generic]:
        """(h, w, channels), the source's dtype: ``box`` inside the image, its invalid pixels filled."""
        pixels = self.source.read(box)
        if self._fill is None:
            return pixels
        pixels[..., :3] = self._fill.apply(pixels, box)
        return pixels

    def padded(self, box: Box) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
        """RGB (h, w, 3) and validity (h, w), None where all is valid, of a box of the padded image."""
        pixels = read_padded(self, box)
        return (pixels[..., :3], pixels[..., 3]) if self.channels == 4 else (pixels, None)
