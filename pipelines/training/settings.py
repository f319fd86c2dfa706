"""Settings of a training: any frozen dataclass, from a TOML file and flags of the same names.

A field is a Path, str, int, float, bool, a Literal (a closed set of words), or a ``tuple[X, ...]`` of one of
these: a list in TOML, separated by commas on the command line. A field without default must be given.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from command_line import MOST, Parser

from urst_tiles.errors import BadInput, MissingFile

S = TypeVar("S")
Read = Callable[[Any], Any]
#: Whole numbers that must be 1 at least, where a program has them; all other numbers may be 0. The metadata
#: of a field may say otherwise by "least".
COUNTS = {"steps", "scales", "batch", "size", "stroke_factor", "save_every", "sample_every"}
#: The largest value of numbers that are shares.
SHARES = {"average": 1.0}


class Common(Protocol):
    """The settings that the rooms of ``training`` read; a program's own ones stand beside them."""

    @property
    def out(self) -> Path:
        """The folder of everything that is written."""

    @property
    def steps(self) -> int:
        """How many in all, those of calls before included."""

    @property
    def clip(self) -> float:
        """Longest gradient; 0 for any."""

    @property
    def save_every(self) -> int:
        """Steps from one checkpoint to the next."""

    @property
    def sample_every(self) -> int:
        """Steps from one sheet of samples to the next."""

    @property
    def device(self) -> str:
        """As torch names it."""

    @property
    def threads(self) -> int:
        """Of torch; 0 for one per core."""


def parse(settings: type[S], arguments: Sequence[str], description: str) -> S:
    """Settings from ``--settings FILE.toml`` and ``--key value``, which wins.

    Raises
    ------
    BadInput : a setting is unknown, missing, or of the wrong kind; MissingFile : there is no such TOML file.
    """
    parser = Parser(
        description=f"{description} Every setting of the TOML file is also a flag.", allow_abbrev=False
    )
    parser.add_argument("--settings", type=Path, metavar="TOML")
    for field in fields(settings):  # type: ignore[arg-type]
        parser.add_argument("--" + field.name.replace("_", "-"), dest=f"-{field.name}", metavar="VALUE")
    given = vars(parser.parse_args(arguments))
    path = given.pop("settings")
    flags = {name[1:]: value for name, value in given.items() if value is not None}
    return checked(settings, (from_toml(path) if path else {}) | flags)


def from_toml(path: Path) -> dict[str, Any]:
    """The table of a file; BadInput where it is no TOML."""
    if not path.is_file():
        raise MissingFile(f"there is no settings file {path}")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"the settings file {path} is no TOML: {error}") from None


def checked(settings: type[S], values: Mapping[str, Any]) -> S:
    """Settings of the right types; BadInput says what is unknown, missing or of the wrong kind."""
    known = {name: reader(kind) for name, kind in get_type_hints(settings).items()}
    if unknown := sorted(set(values) - set(known)):
        raise BadInput(f"there is no setting {unknown[0]!r}; known are {', '.join(known)}")
    least = {field.name: field.metadata.get("least", int(field.name in COUNTS)) for field in fields(settings)}  # type: ignore[arg-type]
    typed = {name: read(name, value, known[name], least[name]) for name, value in values.items()}
    for field in fields(settings):  # type: ignore[arg-type]
        if field.name not in typed and field.default is MISSING:
            raise BadInput(f"--{field.name.replace('_', '-')} is not given")
    return settings(**typed)


def read(name: str, value: Any, how: Read, least: float) -> Any:
    """``value`` through ``how``, a number ``least`` at least; BadInput names the setting."""
    flag = "--" + name.replace("_", "-")
    try:
        found = how(value)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{flag} must be {error}, got {value!r}") from None
    most = SHARES.get(name, MOST if isinstance(found, int) else math.inf)
    if isinstance(found, int | float) and not least <= found <= most:
        limit = f"at least {least}" if found < least else f"at most {most}"
        raise BadInput(f"{flag} must be {limit}, got {found}")
    return found


def reader(kind: Any) -> Read:
    """What reads a value of TOML or a word of the command line; its ValueError says what must be there."""
    if get_origin(kind) is tuple:
        return partial(many, reader(get_args(kind)[0]))
    if get_origin(kind) is Literal:
        return partial(one_of, get_args(kind))
    return {Path: path, str: word, int: whole, float: number, bool: truth}[kind]


def many(one: Read, value: Any) -> tuple[Any, ...]:
    """A list, or one word with commas."""
    words = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if not isinstance(words, list):
        raise ValueError("a list")
    return tuple(one(part) for part in words)


def one_of(words: tuple[str, ...], value: Any) -> str:
    """One of a closed set."""
    if value not in words:
        raise ValueError(f"one of {', '.join(words)}")
    return str(value)


def word(value: Any) -> str:
    """Text alone."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def path(value: Any) -> Path:
    """A file or folder."""
    return Path(word(value))


def whole(value: Any) -> int:
    """3 or "3", not 3.5 and not true."""
    try:
        found = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        found = None
    if found is None:
        raise ValueError("a whole number")
    return found


def number(value: Any) -> float:
    """Finite."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("a number")
    return found


def truth(value: Any) -> bool:
    """true or false, as TOML writes them."""
    words = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if value not in words:
        raise ValueError("true or false")
    return words[value]
