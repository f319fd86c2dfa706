"""The numbers of regions in masks of any type: integers of 8 to 64 bits, and floats that are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput

#: The largest number of a region.
MOST = 65535

#: The types whose values are numbers of regions as they are.
PLAIN = ("uint8", "uint16")


def is_numeric(dtype: str) -> bool:
    """Whether samples of a dtype can be numbers of regions: those of all types but complex ones."""
    return np.dtype(dtype).kind in "uif"


def numbers_dtype(dtype: str) -> str:
    """The dtype that holds the numbers of regions of a file of ``dtype``."""
    return dtype if dtype in PLAIN else "uint16"


def region_numbers(
    path: Path, values: NDArray[Any], missing: NDArray[np.bool_] | None = None
) -> NDArray[Any]:
    """The numbers of regions in samples of a mask, uint8 or uint16, (h, w).

    What is negative, infinite or not a number is in no region, and has the number 0, as has a nodata value
    above 65535, which ``missing`` marks. A nodata value from 0 to 65535 is a number as any other.

    Raises
    ------
    BadInput : a value has a fraction, or is larger than the number of any region.
    """
    if values.dtype.name in PLAIN:
        return values
    with np.errstate(invalid="ignore"):
        nowhere = ~((values >= 0) & (values < np.inf))  # also what is not a number
        large = values > MOST
        if missing is not None:
            nowhere |= missing & large
        wrong = large & ~nowhere
        if values.dtype.kind == "f":
            wrong |= (values != np.floor(values)) & ~nowhere
        if wrong.any():
            raise BadInput(
                f"the mask {path} has the value {values[wrong].flat[0]}, and a region has a whole number from"
                f" 0 to {MOST}; renumber it, as by gdal_calc, or declare the value as nodata"
            )
        return np.where(nowhere, 0, values).astype(np.uint16)
