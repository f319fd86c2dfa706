"""The weight of a pixel, which says how valid it is.

Alpha, masks, nodata values, NaN and tiles that are not stored all become a single channel of weights. A
weight is uint8 (0..255) beside uint8 colours, and uint16 (0..65535) beside all others; 0 is invalid.
"""

from __future__ import annotations

import math
import re
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
    """The weight of a fully valid pixel: the largest value of ``dtype``; beside floats 1."""
    return 1 if np.dtype(dtype).kind == "f" else int(np.iinfo(dtype).max)


def samples_of(pixels: NDArray[Any], colours: int) -> Samples:
    """Pixels, (h, w, ``colours``), or with a channel behind them that says how valid they are, as samples;
    weights beside floats, 0..1, become uint16."""
    if pixels.shape[-1] == colours:
        return Samples(pixels, None)
    weight = pixels[..., -1]
    if weight.dtype.kind == "f":
        weight = np.rint(weight * np.float32(65535)).astype(np.uint16)
    return Samples(pixels[..., :colours], weight)


#: A number at the start of a text: all that C's strtod and strtoll read of it.
_NUMBER = re.compile(r"\s*([+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?)")
_INTEGER = re.compile(r"\s*([+-]?\d+)")

#: How NaN is written, by GDAL and by older libraries of C.
_NAN = re.compile(r"\s*[+-]?(nan|1[.,]#(qnan|snan|ind))", re.IGNORECASE)


def nodata_value(text: str | None, dtype: np.dtype[Any]) -> float | int | None:
    """The number that GDAL's nodata text (TIFF tag 42113) stands for.

    None if there is no text, or if samples of ``dtype`` cannot have the value: GDAL ignores it then, too. As
    in GDAL, a fraction is cut off where samples are integers, and what follows the number in the text is
    ignored; a text without a number, which is 0 for GDAL, is ignored here.
    """
    if text is None:
        return None
    if _NAN.match(text):
        return math.nan if dtype.kind == "f" else None
    found = _NUMBER.match(text)
    if found is None:
        return None
    value = float(found[1].replace(",", "."))
    if dtype.kind == "f":
        # 1.797693134862316e+308, which has too few digits, is beyond the largest number.
        return float(np.nan_to_num(value))
    limits = np.iinfo(dtype)
    if dtype.itemsize == 8 and (whole := _INTEGER.match(text)):  # too long for a float
        value = min(int(whole[1]), int(limits.max))
    return int(value) if math.isfinite(value) and limits.min <= value <= limits.max else None


def has_data(colour: NDArray[Any], nodata: float | int | None) -> NDArray[np.bool_]:
    """The pixels of ``colour``, (h, w, bands), that hold data; bool, (h, w).

    At least one band differs from ``nodata``, as in the dataset mask of rasterio, and all bands are finite.
    """
    data: NDArray[np.bool_] = np.ones(colour.shape[:2], bool)
    if nodata is not None and not (isinstance(nodata, float) and math.isnan(nodata)):
        data &= ~_is_nodata(colour, nodata).all(axis=-1)
    if colour.dtype.kind == "f":
        data &= np.isfinite(colour).all(axis=-1)
    return data


def _is_nodata(colour: NDArray[Any], nodata: float | int) -> NDArray[np.bool_]:
    """Which samples are the nodata value, bool, in the shape of ``colour``.

    Floats are compared as in GDAL (``ARE_REAL_EQUAL`` in gcore/gdal_priv.h): a and b are equal if they differ
    by less than 2 epsilon |a + b|, where epsilon is 2**-23 for floats of any size. Samples of 16 and 32 bits
    are compared in 32 bits. There |a + b| may become infinite, and all samples of the size of -3.4e38 are
    equal to it: files have that value with 2, 6 or 17 digits.
    """
    if colour.dtype.kind != "f":
        return colour == colour.dtype.type(nodata)
    kind: Any = np.float64 if colour.dtype.itemsize > 4 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        values: Any = colour.astype(kind, copy=False)
        mark = kind(nodata)
        tolerance = kind(2 * 2.0**-23) * np.abs(values + mark)
        return (values == mark) | (np.abs(values - mark) < tolerance)


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
