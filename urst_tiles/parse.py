"""Words of the command line and of job tables become options: loose in, strict out, here alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from urst_tiles.errors import BadInput
from urst_tiles.options import Options
from urst_tiles.places import place

#: What a table must hold, by the kind of the option.
WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of whole numbers",
    Path: "a path as text",
}


@cache
def kinds() -> dict[str, type]:
    """Option name to bool, int, float, str, tuple or Path."""
    return {name: _kind(hint) for name, hint in get_type_hints(Options).items()}


def _kind(hint: Any) -> type:
    """The type behind a hint, without its None; a closed set of words is str."""
    given = [one for one in get_args(hint) if one is not type(None)]
    if type(None) in get_args(hint):
        return _kind(given[0])
    origin = get_origin(hint) or hint
    return str if origin is Literal else origin


def parse_bands(text: str) -> tuple[int, ...]:
    """``3,2,1`` as integers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"expected numbers such as 3,2,1, got {text!r}") from None


def parse_path(text: str) -> Path:
    """A path, also of an object store."""
    return place(text)


def parse_bytes(text: str) -> int:
    """``1.5G``, ``800M`` or a number of bytes (powers of 1024)."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number = text.upper().removesuffix("IB").removesuffix("B")
    shift = units.get(number[-1:], 0)
    try:
        return int(float(number[:-1] if shift else number) * (1 << shift))
    except (ValueError, OverflowError):
        raise BadInput(f"expected a size such as 1.5G or 800M, got {text!r}") from None


def from_table(name: str, value: Any, folder: Path) -> Any:
    """The option ``name`` from a value of a TOML table; paths start at ``folder``.

    Raises
    ------
    BadInput : where it is of another kind.
    """
    kind = kinds()[name]
    if isinstance(value, str) and (kind is tuple or name == "memory"):
        return parse_bands(value) if kind is tuple else parse_bytes(value)
    if kind is Path and isinstance(value, str):
        return place(value) if "://" in value else folder / value
    if kind is tuple and isinstance(value, list) and all(type(one) is int for one in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BadInput(f"option {name} must be {WORDS[kind]}, got {value!r}")
    return value
