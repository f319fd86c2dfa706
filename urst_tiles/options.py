"""The options of a job and their defaults. The command line makes its flags from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from urst_tiles.errors import BadInput
from urst_tiles.storage.stores import path_of

Statistics = Literal["auto", "thumbnail", "sampled", "exact", "local"]
PreserveColor = Literal["none", "luminance", "coral"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Compression = Literal["deflate", "jpeg", "lzw", "zstd", "webp"]
Dtype = Literal["auto", "uint8", "uint16"]
Seam = Literal["auto", "crop", "blend"]
Tiles = Literal["one", "same"]

#: Words that are accepted but not advertised, since they make seams: tests and benchmarks show with them what
#: the other words avoid. With ``tile`` each window is stylised by the statistics of its pixels alone; with
#: ``cut`` the halos are cut off although they are too small.
_UNADVERTISED: dict[str, tuple[str, ...]] = {"statistics": ("tile",), "seam": ("cut",)}

#: The job queues of clusters on which workers can be started.
QUEUES = ("slurm", "pbs", "lsf")

#: Options that are counts, lengths or sizes: at least 1.
AT_LEAST_ONE = (
    "style_size", "thumbnail", "local_scale", "feather", "block", "workers", "tile", "threads", "memory",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """All settings of a job except its input, its output and its styles; `urst-tiles stylize --help` explains
    each of them.

    Lengths are in pixels of the full-resolution image, ``memory`` is in bytes. An option that is ``None`` is
    either unused or chosen by the planner.

    Raises
    ------
    BadInput : if a value is not allowed.
    """

    model: str = "lite"
    weights: Path | None = None
    alpha: float = 1.0
    style_size: int = 512
    preserve_color: PreserveColor = "none"
    stroke: int | None = None
    mask: Path | None = None
    feather: int = 64
    statistics: Statistics = "auto"
    local_scale: int = 2048
    thumbnail: int = 1024
    overviews: bool = True
    tile: int | None = None
    block: int = 4096
    halo: int | None = None
    seam: Seam = "auto"
    precision: Precision = "auto"
    device: str = "auto"
    threads: int | None = None
    page: int | str | None = None
    channels: tuple[int | str, ...] | None = None
    bands: tuple[int | str, ...] | None = None
    stretch: str = "2%,98%"
    dtype: Dtype = "auto"
    compression: Compression = "deflate"
    quality: int = 90
    workers: int = 1
    scheduler: str | None = None
    cluster: str | None = None
    memory: int | None = None
    tiles: Tiles = "one"
    provenance: bool = True
    job_dir: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, allowed in choices().items():
            got = getattr(self, name)
            if got not in (*allowed, *_UNADVERTISED.get(name, ())):
                flag = name.replace("_", "-")
                raise BadInput(f"--{flag} must be one of {', '.join(allowed)}, got {got!r}")
        if self.cluster not in (None, *QUEUES):
            raise BadInput(f"--cluster must be one of {', '.join(QUEUES)}, got {self.cluster!r}")
        if self.cluster and self.scheduler:
            raise BadInput(
                "--cluster starts workers of its own and --scheduler names those of others; give one of them"
            )
        if not 0.0 <= self.alpha <= 1.0:
            raise BadInput(f"--alpha must lie between 0 and 1, got {self.alpha}")
        if not 1 <= self.quality <= 100:
            raise BadInput(f"--quality must lie between 1 and 100, got {self.quality}")
        if self.stroke is not None and (self.stroke < 1 or self.stroke & (self.stroke - 1)):
            raise BadInput(f"--stroke must be picture or 1, 2, 4, 8, ..., got {self.stroke}")
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.halo is not None and self.halo < 0:
            raise BadInput(f"--halo must not be negative, got {self.halo}")
        self._check_choice()

    def _check_choice(self) -> None:
        """Raise BadInput unless page, channels and bands are numbers from 1 on, or names.

        Lists become tuples, and texts such as "B4,B3,B2" what they say.
        """
        for name in ("channels", "bands"):
            value = getattr(self, name)
            if isinstance(value, list | str):
                object.__setattr__(self, name, parse_words(value) if isinstance(value, str) else tuple(value))
        if self.channels is not None and self.bands is not None:
            raise BadInput("--channels and --bands choose the same colours; give one of them")
        for name in ("page", "channels", "bands"):
            value = getattr(self, name)
            words = () if value is None else (value,) if name == "page" else value
            if not all(word >= 1 if type(word) is int else isinstance(word, str) and word for word in words):
                raise BadInput(f"--{name} takes numbers, counted from 1, or names, got {value!r}")
            if (
                name != "page"
                and value is not None
                and (type(value) is not tuple or len(value) not in (1, 3))
            ):
                raise BadInput(f"--{name} takes one or three {name}, as in 3,2,1, got {value!r}")

    @classmethod
    def of(cls, given: Options | None, changes: Mapping[str, Any]) -> Options:
        """The options ``given`` (or the defaults) with ``changes`` by name.

        Raises
        ------
        BadInput : if a name is not that of an option (the message suggests a similar name), or if a value is
            not allowed.
        """
        known = {f.name for f in fields(cls)}
        for name in changes:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(known))})"
                raise BadInput(f"there is no option {name!r}{hint}")
        return replace(given or cls(), **changes)


@cache
def _hints() -> dict[str, Any]:
    """The type hint of each option by its name, which Python evaluates from text."""
    return get_type_hints(Options)


@cache
def choices() -> dict[str, tuple[str, ...]]:
    """The words that an option allows, by the name of the option; without options of other types."""
    return {name: get_args(hint) for name, hint in _hints().items() if get_origin(hint) is Literal}


#: How error messages name the type that a value must have.
WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of whole numbers or names",
    Path: "a path as text",
}


@cache
def kinds() -> dict[str, type]:
    """The type of each option by its name: bool, int, float, str, tuple or Path."""
    return {name: _kind(hint) for name, hint in _hints().items()}


def _kind(hint: Any) -> type:
    """The class behind a type hint: of ``X | None`` that of ``X``, and str for a Literal."""
    if type(None) in get_args(hint):
        return _kind(next(member for member in get_args(hint) if member is not type(None)))
    origin = get_origin(hint) or hint
    return str if origin is Literal else origin


def parse_word(text: str) -> int | str:
    """The number or the name of a page, a channel or a band; BadInput for an empty text."""
    word = text.strip()
    if not word:
        raise BadInput(f"expected a number, counted from 1, or a name, got {text!r}")
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 10 else word


def parse_words(text: str) -> tuple[int | str, ...]:
    """The numbers or names of a text such as ``3,2,1`` or ``B4,B3,B2``; BadInput where one is empty."""
    try:
        return tuple(parse_word(part) for part in text.split(","))
    except BadInput:
        raise BadInput(f"expected numbers or names such as 3,2,1 or B4,B3,B2, got {text!r}") from None


def parse_stroke(text: str) -> int | None:
    """The number that a text such as ``8`` names, and None for ``picture``; BadInput for any other text."""
    if text == "picture":
        return None
    try:
        return int(text)
    except ValueError:
        raise BadInput(f"expected picture, or a number such as 8, got {text!r}") from None


def parse_path(text: str) -> Path:
    """The path that a text names, in a file system or, as in ``s3://bucket/folder``, on an object store."""
    return path_of(text)


def parse_bytes(text: str) -> int:
    """The bytes that a text such as ``1.5G``, ``800M`` or ``1024`` names; units are powers of 1024.

    Raises
    ------
    BadInput : if the text is not a size.
    """
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number = text.upper().removesuffix("IB").removesuffix("B")
    shift = units.get(number[-1:], 0)
    try:
        return int(float(number[:-1] if shift else number) * (1 << shift))
    except (ValueError, OverflowError):
        raise BadInput(f"expected a size such as 1.5G or 800M, got {text!r}") from None


def from_table(name: str, value: Any, folder: Path) -> Any:
    """The value of the option ``name`` that a TOML table gives; relative paths start at ``folder``.

    Raises
    ------
    BadInput : if the value has another type than the option.
    """
    kind = kinds()[name]
    parsers: dict[str, Any] = {"memory": parse_bytes, "stroke": parse_stroke, "page": parse_word}
    if isinstance(value, str) and (kind is tuple or name in parsers):
        return parse_words(value) if kind is tuple else parsers[name](value)
    if kind is Path and isinstance(value, str):
        return path_of(value) if name == "job_dir" and "://" in value else folder / value
    if kind is tuple and isinstance(value, list) and all(type(word) in (int, str) for word in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BadInput(f"option {name} must be {WORDS[kind]}, got {value!r}")
    return value
