"""Reading the windows of a network: RGB with invalid pixels filled, padded by reflection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.source import Fill, Source, read_padded


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
        self._fill = Fill(source.thumbnail, source.shape) if source.channels == 4 else None

    def read(self, box: Box) -> NDArray[np.generic]:
        """The pixels, (h, w, channels), of ``dtype``, of a box inside the image, with invalid pixels filled.

        A fourth channel stays as it is. The errors are those of `Source.read`.
        """
        pixels = self.source.read(box)
        if self._fill is None:
            return pixels
        pixels[..., :3] = self._fill.apply(pixels, box)
        return pixels

    def padded(self, box: Box) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
        """What the network sees, (h, w, 3), and validity, (h, w), of a box that may reach beyond the edges of
        the image.

        Validity is None if the source has three channels. The errors are those of `Source.read`.
        """
        pixels = read_padded(self, box)
        return (pixels[..., :-1], pixels[..., -1]) if self.channels == 4 else (pixels, None)
