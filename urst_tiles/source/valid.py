"""One channel that tells which pixels are valid: alpha, mask, nodata, NaN and sparse tiles become one weight.

A weight is uint8 (0..255) beside uint8 colour, uint16 (0..65535) beside everything else; 0 is invalid.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Samples(NamedTuple):
    """Colour (h, w, 1 or 3) in the file's own dtype, and its weight (h, w), or None where every pixel is
    valid."""

    colour: NDArray[Any]
    weight: NDArray[Any] | None


def weight_dtype(colour: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a weight beside colour of this dtype, which is also that of the pixels handed out."""
    return np.dtype(np.uint8 if colour == np.uint8 else np.uint16)


def full(dtype: np.dtype[Any]) -> int:
    """The weight of a fully valid pixel."""
    return int(np.iinfo(dtype).max)


def nodata_value(text: str | None, dtype: np.dtype[Any]) -> float | int | None:
    """GDAL's nodata text as a value that samples of ``dtype`` can have, else None (as GDAL, which then
    ignores it)."""
    if text is None:
        return None
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = float(dtype.type(value))
        return None if math.isinf(rounded) and math.isfinite(value) else rounded
    try:
        exact = int(text)
    except ValueError:
        if not math.isfinite(value) or value != int(value):
            return None
        exact = int(value)
    limits = np.iinfo(dtype)
    return exact if limits.min <= exact <= limits.max else None


def has_data(colour: NDArray[Any], nodata: float | int | None) -> NDArray[np.bool_]:
    """bool (h, w): at least one band differs from nodata (as rasterio's dataset mask), and all are finite."""
    there = np.ones(colour.shape[:2], bool)
    if nodata is not None and not (isinstance(nodata, float) and math.isnan(nodata)):
        there = (colour != colour.dtype.type(nodata)).any(axis=-1)
    if colour.dtype.kind == "f":
        there &= np.isfinite(colour).all(axis=-1)
    return there


def alpha_weight(alpha: NDArray[Any], dtype: np.dtype[Any], bits: int = 0) -> NDArray[Any]:
    """An alpha band (h, w) as a weight of ``dtype``: scaled from its full range (of ``bits``), floats from
    0..1."""
    if alpha.dtype == dtype and bits in (0, 8 * dtype.itemsize):
        return alpha
    whole = (1 << bits) - 1 if bits and alpha.dtype.kind == "u" else None
    top = 1.0 if alpha.dtype.kind == "f" else float(whole or np.iinfo(alpha.dtype).max)
    part = np.clip(np.nan_to_num(alpha.astype(np.float64)) / top, 0.0, 1.0)
    return np.rint(part * full(dtype)).astype(dtype)


def combine(
    weight: NDArray[Any] | None, there: NDArray[np.bool_] | None, dtype: np.dtype[Any]
) -> NDArray[Any] | None:
    """The weight with everything outside ``there`` set to invalid; None stands for valid everywhere."""
    if there is None:
        return weight
    if weight is None:
        return there.astype(dtype) * dtype.type(full(dtype))
    return np.where(there, weight, dtype.type(0))


def unpremultiply(colour: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Colour that was stored multiplied by its alpha (TIFF ExtraSamples 1), as unassociated alpha wants
    it."""
    if colour.dtype.kind == "f":
        scale = np.float64(full(weight.dtype)) / np.maximum(weight, 1)
        return (colour * scale[..., None]).astype(colour.dtype)
    top = np.iinfo(colour.dtype).max
    scale = np.float64(full(weight.dtype)) / np.maximum(weight, 1)
    return np.minimum(np.rint(colour * scale[..., None]), top).astype(colour.dtype)
