"""The weight of a pixel, which says how valid it is.

Alpha, masks, nodata values, NaN and tiles that are not stored all become a single channel of weights. A
weight is uint8 (0..255) beside uint8 colours, and uint16 (0..65535) beside all others; 0 is invalid.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Samples(NamedTuple):
    """Samples of a box of an image.

    Attributes
    ----------
    colour : (h, w, 1 or 3), in the dtype of the file.
    weight : (h, w), of dtype `weight_dtype`; None if every pixel is valid.
    """

    colour: NDArray[Any]
    weight: NDArray[Any] | None


def weight_dtype(colour: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of weights beside colours of dtype ``colour``; the pixels of a source have the same dtype."""
    return np.dtype(np.uint8 if colour == np.uint8 else np.uint16)


def full(dtype: np.dtype[Any]) -> int:
    """The weight of a fully valid pixel: the largest value of ``dtype``."""
    return int(np.iinfo(dtype).max)


def nodata_value(text: str | None, dtype: np.dtype[Any]) -> float | int | None:
    """The number that GDAL's nodata text (TIFF tag 42113) stands for.

    None if there is no text, or if samples of ``dtype`` cannot have the value: GDAL ignores it then, too.
    """
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
    """The pixels of ``colour``, (h, w, bands), that hold data; bool, (h, w).

    At least one band differs from ``nodata``, as in the dataset mask of rasterio, and all bands are finite.
    """
    data = np.ones(colour.shape[:2], bool)
    if nodata is not None and not (isinstance(nodata, float) and math.isnan(nodata)):
        data = (colour != colour.dtype.type(nodata)).any(axis=-1)
    if colour.dtype.kind == "f":
        data &= np.isfinite(colour).all(axis=-1)
    return data


def alpha_weight(alpha: NDArray[Any], dtype: np.dtype[Any], bits: int = 0) -> NDArray[Any]:
    """An alpha band, (h, w), as weights of ``dtype``.

    Integers are scaled from their full range, which is that of ``bits`` bits if ``bits`` is not 0; floats are
    scaled from 0..1.
    """
    if alpha.dtype == dtype and bits in (0, 8 * dtype.itemsize):
        return alpha
    whole = (1 << bits) - 1 if bits and alpha.dtype.kind == "u" else None
    top = 1.0 if alpha.dtype.kind == "f" else float(whole or np.iinfo(alpha.dtype).max)
    part = np.clip(np.nan_to_num(alpha.astype(np.float64)) / top, 0.0, 1.0)
    return np.rint(part * full(dtype)).astype(dtype)


def combine(
    weight: NDArray[Any] | None, valid: NDArray[np.bool_] | None, dtype: np.dtype[Any]
) -> NDArray[Any] | None:
    """Weights, (h, w), of ``dtype``, set to 0 where ``valid``, bool, (h, w), is False.

    For ``weight``, ``valid`` and the result, None stands for pixels that are all valid.
    """
    if valid is None:
        return weight
    if weight is None:
        return valid.astype(dtype) * dtype.type(full(dtype))
    return np.where(valid, weight, dtype.type(0))


def unpremultiply(colour: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Colours, (h, w, bands), divided by their alpha, for files that store them multiplied by it.

    ``weight``, (h, w), is the alpha. TIFF 6.0 calls it associated alpha (ExtraSamples 1).
    """
    if colour.dtype.kind == "f":
        scale = np.float64(full(weight.dtype)) / np.maximum(weight, 1)
        return (colour * scale[..., None]).astype(colour.dtype)
    top = np.iinfo(colour.dtype).max
    scale = np.float64(full(weight.dtype)) / np.maximum(weight, 1)
    return np.minimum(np.rint(colour * scale[..., None]), top).astype(colour.dtype)
