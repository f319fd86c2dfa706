"""The data types of the values of TIFF tags, for reading and for writing.

References: TIFF 6.0 (1992), section 2; BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Numbers of the data types that this package names.
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, DOUBLE, LONG8, IFD8 = (
    1,
    2,
    3,
    4,
    5,
    7,
    10,
    12,
    16,
    18,
)

#: TIFF data type -> NumPy type of its numbers. Text and undefined bytes stay bytes; a number of one of the
#: types in ``RATIONALS`` is a pair (numerator, denominator).
TYPES = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "S1", 8: "i2", 9: "i4", 10: "i4", 11: "f4",
    12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip

RATIONALS = (RATIONAL, SRATIONAL)

#: TIFF data type -> letter of `struct`, for whole numbers and the two of a rational one.
WHOLE_LETTERS = {
    1: "B", 3: "H", 4: "I", 5: "I", 6: "b", 8: "h", 9: "i", 10: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"
}  # fmt: skip

#: TIFF data type -> bytes of one number, of a pair of them, or of a character.
WIDTHS = {kind: np.dtype(name).itemsize * (2 if kind in RATIONALS else 1) for kind, name in TYPES.items()}


def fractions(pairs: NDArray[Any], otherwise: float = 0.0) -> NDArray[np.float64]:
    """The values of rational numbers, (count, 2), as floats, (count,); ``otherwise`` where a divisor is 0."""
    top, bottom = pairs.astype(np.float64).T
    return np.divide(top, bottom, out=np.full_like(top, otherwise), where=bottom != 0)
