"""Lengths with a unit, such as ``0.5mm`` or ``300m``, and the option ``stroke``, which takes them."""

from __future__ import annotations

import math
import re
from typing import Any

from urst_tiles.errors import BadInput

#: The metres of each unit, by its symbol and by its names. The foot is the international foot.
METRES = {
    "pm": 1e-12, "å": 1e-10, "nm": 1e-9, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "mm": 1e-3, "cm": 1e-2,
    "dm": 1e-1, "m": 1.0, "km": 1e3, "in": 0.0254, "ft": 0.3048, "yd": 0.9144, "mi": 1609.344, "nmi": 1852.0,
    "thou": 2.54e-5, "mil": 2.54e-5, "li": 0.0254 / 12, "pt": 0.0254 / 72,
    "angstrom": 1e-10, "nanometer": 1e-9, "nanometre": 1e-9, "micron": 1e-6, "microns": 1e-6,
    "micrometer": 1e-6, "micrometre": 1e-6, "millimeter": 1e-3, "millimetre": 1e-3, "centimeter": 1e-2,
    "centimetre": 1e-2, "meter": 1.0, "metre": 1.0, "inch": 0.0254, "inches": 0.0254, "foot": 0.3048,
    "feet": 0.3048, "yard": 0.9144, "mile": 1609.344,
}  # fmt: skip

#: The units in which lengths are said to users, each with the least length in metres, the largest first.
_SAID = {"km": 1e3, "m": 0.1, "mm": 1e-4, "µm": 1e-7, "nm": 0.0}

_LENGTH = re.compile(r"\s*\+?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*([a-zåµμ]+)\s*", re.IGNORECASE)


def metres(text: str) -> float:
    """The metres of a text such as ``0.5mm``, ``300 m`` or ``1e3ft``.

    Raises
    ------
    BadInput : the text is no length above 0, or its unit is unknown.
    """
    found = _LENGTH.fullmatch(text)
    unit = found[3].lower() if found else ""
    unit = unit if unit in METRES else unit.removesuffix("s")
    value = float(found[1] + (found[2] or "")) * METRES.get(unit, math.nan) if found else math.nan
    if not 0 < value < math.inf:
        raise BadInput(f"expected a length above 0 such as 0.5mm, 20um, 300m, 2km or 900ft, got {text!r}")
    return value


def in_words(length: float) -> str:
    """A length in metres as text for users, with a unit that suits it and three digits, as "0.35 mm"."""
    unit = next(unit for unit, least in _SAID.items() if length >= least)
    return f"{float(f'{length / METRES[unit]:.3g}'):.12g} {unit}"


def parse_stroke(text: str) -> int | str | None:
    """The number that a text such as ``8`` names, None for ``picture``, and a length such as ``0.5mm`` as it
    is; BadInput for any other text."""
    if text == "picture":
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        metres(text)
    except BadInput:
        raise BadInput(
            f"--stroke takes picture, a number such as 8, or a length such as 0.5mm or 300m, got {text!r}"
        ) from None
    return text.strip()


def checked_stroke(value: Any) -> int | str | None:
    """The value of the option ``stroke``: None, a power of two, or a length as text; BadInput for any other
    value."""
    if isinstance(value, str):
        value = parse_stroke(value)
    if (
        value is None
        or isinstance(value, str)
        or (isinstance(value, int) and value > 0 and not value & (value - 1))
    ):
        return value
    raise BadInput(f"--stroke must be picture, 1, 2, 4, 8, ..., or a length such as 0.5mm, got {value}")
