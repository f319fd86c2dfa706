"""The stretch: samples that are not uint8 are mapped linearly to the full range of uint16.

The user gives the values that become 0 and 65535, as percentiles or as plain numbers: with ``2%,98%`` they
are percentiles of the valid pixels of the thumbnail, computed for each band. Three pairs with semicolons
between them, as in ``0,900;0,800;10,700``, are those of the three bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.source.valid import Samples, full

#: (low, high) of each colour band: the values that become 0 and 65535.
Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Bound:
    """An end of a stretch.

    Attributes
    ----------
    value : a value of the samples, or a percentile from 0 to 100.
    percent : whether ``value`` is a percentile of the valid pixels.
    """

    value: float
    percent: bool


#: The stretch of floats that stay as they are, float32.
AS_IS = "as is"


def parse_stretch(text: str) -> tuple[Bound, Bound]:
    """The lower and the upper bound that a text such as "2%,98%", "0,10000" or "0,98%" describes.

    Raises
    ------
    BadInput : the text has another form, its numbers are out of range, or they do not rise.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        low, high = (Bound(float(part.rstrip("%")), part.endswith("%")) for part in parts)
    except ValueError:
        raise BadInput(
            f"--stretch must be LOW,HIGH, in values or percent as in 2%,98%, got {text!r}"
        ) from None
    for bound in (low, high):
        if not math.isfinite(bound.value) or (bound.percent and not 0 <= bound.value <= 100):
            raise BadInput(f"--stretch takes finite values, or percentiles from 0% to 100%, got {text!r}")
    if low.percent == high.percent and low.value >= high.value:
        raise BadInput(f"--stretch must rise from LOW to HIGH, got {text!r}")
    return low, high


def parse_stretches(text: str) -> tuple[tuple[Bound, Bound], ...]:
    """The bounds of each band, of a text such as "0,900;0,800;10,700"; a single pair stands for all bands.

    Raises
    ------
    BadInput : as `parse_stretch`.
    """
    return tuple(parse_stretch(part) for part in text.split(";"))


def is_stretch(text: object) -> bool:
    """Whether `parse_stretches` takes ``text``."""
    try:
        return isinstance(text, str) and bool(parse_stretches(text))
    except BadInput:
        return False


def stretch_text(ranges: Ranges) -> str:
    """The text from which `parse_stretches` makes just these ranges."""
    return ";".join(f"{low!r},{high!r}" for low, high in ranges)


def resolve_each(
    bounds: tuple[tuple[Bound, Bound], ...], colour: NDArray[Any], weight: NDArray[Any] | None
) -> Ranges:
    """As `resolve`, where ``bounds`` are those of each band, or one pair for all."""
    if len(bounds) == 1:
        return resolve(bounds[0], colour, weight)
    return tuple(resolve(pair, colour[..., b : b + 1], weight)[0] for b, pair in enumerate(bounds))


def resolve(bounds: tuple[Bound, Bound], colour: NDArray[Any], weight: NDArray[Any] | None) -> Ranges:
    """(low, high) of each band, computed from a thumbnail.

    Parameters
    ----------
    bounds : the lower and the upper bound, as `parse_stretch` returns them.
    colour : (h, w, bands), floats: the thumbnail in the values of the file.
    weight : (h, w): only pixels with a weight above 0 count. None if all pixels are valid.
    """
    return tuple(_resolve_band(bounds, colour[..., b], weight) for b in range(colour.shape[-1]))


def _resolve_band(
    bounds: tuple[Bound, Bound], band: NDArray[Any], weight: NDArray[Any] | None
) -> tuple[float, float]:
    """(low, high) of a single band; ``high`` is always above ``low``."""
    values = band[weight > 0] if weight is not None else band.ravel()
    if not values.size:
        values = np.zeros(1)  # no pixel is valid, so the stretch is never seen
    low, high = (float(np.percentile(values, b.value)) if b.percent else b.value for b in bounds)
    return (low, high) if high > low else (low, low + 1.0)


class Stretch:
    """Maps the values of each band linearly to uint16, and clips those outside its range.

    Integers of up to 16 bits are looked up in tables.

    Parameters
    ----------
    ranges : (low, high) of each band: ``low`` becomes 0 and ``high`` becomes 65535.
    dtype : the dtype of the colours.
    """

    def __init__(self, ranges: Ranges, dtype: np.dtype[Any]) -> None:
        self.ranges, self.dtype = ranges, np.dtype(dtype)
        self._tables: list[NDArray[np.uint16]] | None = None
        if self.dtype.kind in "ui" and self.dtype.itemsize <= 2:
            # Signed values index the table from its end, which is where their two's complement lies.
            every = np.arange(1 << 8 * self.dtype.itemsize, dtype=np.uint32)
            values = every.astype(np.dtype(f"u{self.dtype.itemsize}")).view(self.dtype)
            self._tables = [_scale(values, low, high) for low, high in ranges]

    def __call__(self, colour: NDArray[Any]) -> NDArray[np.uint16]:
        """Stretch ``colour``, (h, w, bands), to uint16 of the same shape; NaN becomes 0."""
        out = np.empty(colour.shape, np.uint16)
        for b, (low, high) in enumerate(self.ranges):
            band = colour[..., b]
            if self._tables is not None and band.dtype == self.dtype:
                index = np.ascontiguousarray(band).view(np.dtype(f"u{self.dtype.itemsize}"))
                out[..., b] = self._tables[b][index]
            else:
                out[..., b] = _scale(band, low, high)
        return out


def _scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint16]:
    """The formula: uint16, rounded, from values of any dtype."""
    with np.errstate(invalid="ignore", over="ignore"):
        part = (values.astype(np.float64) - low) * (65535.0 / (high - low))
    return np.rint(np.clip(np.nan_to_num(part, nan=0.0, posinf=65535.0, neginf=0.0), 0.0, 65535.0)).astype(
        np.uint16
    )


def finisher(
    ranges: Ranges | None, dtype: np.dtype[Any], colours: int = 3
) -> Callable[[Samples, NDArray[Any]], None]:
    """A function that writes samples, whose colours have this dtype, as pixels of so many colours into an
    array."""
    stretch = None if ranges is None else Stretch(ranges, dtype)

    def weigh(weight: NDArray[Any] | None, kind: np.dtype[Any]) -> Any:
        if weight is None:
            return full(kind)
        return weight / np.float32(full(weight.dtype)) if kind.kind == "f" else weight

    def finish(samples: Samples, out: NDArray[Any]) -> None:
        out[..., :colours] = samples.colour if stretch is None else stretch(samples.colour)
        if out.shape[-1] > colours:
            out[..., -1] = weigh(samples.weight, out.dtype)

    return finish
