"""What a network sees of a source: invalid pixels are filled by their places alone."""

from __future__ import annotations

import numpy as np

from urst_tiles.geometry import Box
from urst_tiles.source import array_source
from urst_tiles.source.windows import ROWS, WindowReader


def test_what_fills_a_pixel_depends_on_its_place_alone() -> None:
    """A box of many rows is filled in parts, and each part as a box of its own would be."""
    height, width = 2 * ROWS + 90, 64
    y, x = np.mgrid[:height, :width]
    alpha = np.where((x % 16 < 9) & (y % 50 < 40), 0, 255)
    pixels = np.stack([y * 255 // height, 255 - y * 255 // height, x * 3, alpha], 2).astype(np.uint8)
    reader = WindowReader(array_source(pixels))
    whole = reader.read(Box(0, 0, height, width))
    parts = [reader.read(Box(top, 0, min(top + 37, height), width)) for top in range(0, height, 37)]
    assert np.array_equal(whole, np.concatenate(parts))
    valid = alpha > 0
    assert np.array_equal(whole[valid], pixels[valid])
    filled = whole[..., 0].astype(int)[~valid]
    assert np.abs(filled - (y * 255 // height)[~valid]).max() < 60  # as its surroundings, from top to bottom
    assert np.ptp(filled) > 150
