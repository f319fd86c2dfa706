"""The right pixels of every file of the zoo (`tiff_zoo`), and whether those that were read are right.

The rules are those of ``docs/formats.md``:

- grey is repeated for red, green and blue; of several bands the first three are the colours;
- samples of fewer than 8 bits fill the range of 8; min-is-white is turned round within its bits;
- a palette gives the upper 8 of its 16 bits; CMYK goes through the CMYK profile of libvips;
- a band of alpha is the fourth channel, in the full range, and associated alpha is divided out;
- strips and tiles that are not stored are invalid;
- all that is not uint8 is stretched to uint16, from the ends of the range of its type or its bits, floats
  from 0 to 1.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyvips
import rasterio
from tiff_zoo import (
    CMYK,
    COLOURS,
    HEIGHT,
    PALETTE,
    PREDICTED,
    ROWS,
    TILE,
    WHITE,
    WIDTH,
    YCBCR,
    Kind,
    palette,
    samples_of,
)


def refused(kind: Kind) -> str:
    """The words with which the file must be refused; empty if it must be read."""
    form, bits, _ = kind.format
    if form > 4:
        return "complex"
    if kind.compression in PREDICTED and kind.predictor == 2 and bits not in (8, 16, 32, 64):
        return "predictor"
    if kind.compression in PREDICTED and kind.predictor == 3 and form != 3:
        return "predictor"
    return ""


def stretch(kind: Kind) -> str:
    """The stretch that keeps the samples as far as uint16 can."""
    form, bits, dtype = kind.format
    if form == 3:
        return "0,1"
    if form > 4:
        return "2%,98%"
    if bits in (8, 16) or bits < 8:
        return f"{np.iinfo(dtype).min},{np.iinfo(dtype).max}"
    if bits == 64:
        low, high = (0, 2**53) if form == 1 else (-(2**63), 2**53 - 2**63)
        return f"{low},{high}"
    return f"{-(1 << bits - 1) if form == 2 else 0},{(1 << bits - (form == 2)) - 1}"


def expected(kind: Kind) -> np.ndarray:
    """The right picture, (HEIGHT, WIDTH, 3 or 4), uint8 or uint16; colours of invalid pixels mean nothing."""
    form, bits, dtype = kind.format
    raw = samples_of(kind)
    colour = raw[..., : COLOURS[kind.photometric]]
    if kind.photometric == PALETTE:
        colour = (palette(bits)[colour[..., 0]] >> 8).astype(np.uint8)
    elif kind.photometric == CMYK:
        ink = pyvips.Image.new_from_array(np.ascontiguousarray(colour)).copy(interpretation="cmyk")
        colour = ink.icc_transform("srgb", input_profile="cmyk", depth=bits).numpy()
    elif kind.photometric == WHITE:
        colour = ((1 << bits) - 1 - colour.astype(np.uint64)).astype(dtype)
    if bits < 8 and kind.photometric != PALETTE:
        colour = np.rint(colour.astype(float) * 255 / ((1 << bits) - 1)).astype(np.uint8)
    weight = raw[..., -1] if kind.extra in ("associated", "unassociated") else None
    if kind.extra == "associated" and weight is not None:
        top = float(np.iinfo(dtype).max)
        scaled = np.rint(colour * (top / np.maximum(weight, 1))[..., None])
        colour = np.minimum(scaled, top).astype(dtype)
    if colour.dtype != np.uint8:
        low, high = (float(part) for part in stretch(kind).split(","))
        colour = np.rint(np.clip((colour.astype(float) - low) / (high - low), 0, 1) * 65535).astype(np.uint16)
    colour = np.broadcast_to(colour, (HEIGHT, WIDTH, 3))
    full = np.iinfo(colour.dtype).max
    if weight is None:
        weight = np.full((HEIGHT, WIDTH), full, colour.dtype)
    valid = stored(kind)
    if valid is None and form != 3 and kind.extra in ("", "unspecified"):
        return colour
    return np.dstack([colour, np.where(True if valid is None else valid, weight, 0)]).astype(colour.dtype)


def stored(kind: Kind) -> np.ndarray | None:
    """bool, (HEIGHT, WIDTH): which pixels are stored in a sparse file; None for others."""
    if not kind.sparse:
        return None
    there = np.ones((HEIGHT, WIDTH), bool)
    if kind.layout == "tiles":
        there[: TILE[0], TILE[1] : 2 * TILE[1]] = False
    else:
        there[ROWS : 2 * ROWS] = False
    return there


def tolerance(kind: Kind) -> int:
    """By how much a channel may differ: 0 where all is exact."""
    if kind.compression == "jpeg":
        return 12
    return 0 if expected(kind).dtype == np.uint8 and kind.extra != "associated" else 1


def is_right(kind: Kind, found: np.ndarray) -> str:
    """What is wrong with the pixels that were read; empty if nothing is."""
    right = expected(kind)
    if found.shape != right.shape or found.dtype != right.dtype:
        return f"{found.shape} {found.dtype} instead of {right.shape} {right.dtype}"
    valid = right[..., 3:] > 0 if right.shape[-1] == 4 else True
    colours = np.where(valid, np.abs(found[..., :3].astype(int) - right[..., :3]), 0)
    weight = np.abs(found[..., 3:].astype(int) - right[..., 3:])
    if colours.max() > tolerance(kind) or weight.max(initial=0) > (right.dtype != np.uint8):
        return f"pixels differ by {colours.max()}, validity by {weight.max(initial=0)}"
    return ""


def gdal_differs(kind: Kind, path: Path) -> str | None:
    """Whether GDAL reads other samples than those that were meant; None where it reads none.

    Nothing is said of complex samples, nor of CMYK and YCbCr, which it converts.
    """
    if kind.format[0] > 4 or kind.photometric in (CMYK, YCBCR):
        return None
    try:
        with warnings.catch_warnings(), rasterio.open(path) as file:
            warnings.simplefilter("ignore")
            found = np.moveaxis(file.read(), 0, -1)
    except rasterio.errors.RasterioError:
        return None
    raw = samples_of(kind)
    there = stored(kind)
    if found.shape != raw.shape:
        return f"GDAL reads {found.shape}"
    difference = np.abs(found.astype(np.float64) - raw)[True if there is None else there]
    if not difference.max() <= (12 if kind.compression == "jpeg" else 0):
        return f"GDAL reads samples that differ by {difference.max()}"
    return ""
