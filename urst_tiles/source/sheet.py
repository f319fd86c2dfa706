"""Pictures of one size side by side, each with a line of text below it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.source.colour import libvips

#: Pixels between pictures, and the height of a line of text with the room around it.
GAP, LINE = 16, 40
#: The colour of the sheet and that of its letters, 0..255.
PAPER, INK = 255, 32


def labelled_sheet(
    pictures: Mapping[str, NDArray[np.uint8]], columns: int | None = None
) -> NDArray[np.uint8]:
    """Pictures in rows, each with its label below it, on white.

    Parameters
    ----------
    pictures : label -> uint8, (h, w, 3 or 4), all of one size; transparent parts are laid over white.
    columns : how many pictures a row has (default: about as many as there are rows).

    Returns
    -------
    uint8, (height, width, 3).
    """
    columns = min(len(pictures), columns or math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    h, w = next(iter(pictures.values())).shape[:2]
    shape = rows * (h + LINE + GAP) + GAP, columns * (w + GAP) + GAP, 3
    sheet = np.full(shape, PAPER, np.uint8)
    for number, (label, pixels) in enumerate(pictures.items()):
        row, column = divmod(number, columns)
        y, x = GAP + row * (h + LINE + GAP), GAP + column * (w + GAP)
        sheet[y : y + h, x : x + w] = _over_white(pixels)
        ink = _letters(label, w)
        top = y + h + (LINE - len(ink)) // 2
        part = sheet[top : top + len(ink), x : x + ink.shape[1]]
        part[...] = PAPER + (INK - PAPER) * ink
    return sheet


def _over_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.shape[-1] == 3:
        return pixels
    share = pixels[..., 3:] / 255.0
    return np.rint(PAPER + (pixels[..., :3] - float(PAPER)) * share).astype(np.uint8)


def _letters(text: str, width: int) -> NDArray[Any]:
    """A line of text as the share of ink in each pixel, (at most LINE, at most ``width``, 1)."""
    pyvips = libvips()
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    try:
        image = pyvips.Image.text(escaped, font="sans 13", dpi=96)
    except pyvips.Error:  # this libvips has no letters, or the text is empty
        return np.zeros((0, 0, 1))
    return image.numpy().reshape(image.height, image.width, -1)[:LINE, :width, :1] / 255.0
