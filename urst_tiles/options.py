"""The options of a job and their defaults. The command line makes its flags from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from urst_tiles.errors import BadInput
from urst_tiles.lengths import checked_stroke, parse_stroke
from urst_tiles.storage.stores import path_of

Statistics = Literal["auto", "thumbnail", "sampled", "exact", "local"]
PreserveColor = Literal["none", "luminance", "coral"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Compression = Literal["deflate", "jpeg", "lzw", "zstd", "webp"]
Dtype = Literal["auto", "uint8", "uint16", "float32"]
Seam = Literal["auto", "crop", "blend"]
StatisticsOf = Literal["image", "region"]
OutputFormat = Literal["auto", "tif", "ome.tif", "ome.zarr", "dzi", "iiif", "png", "jpg", "webp", "jp2"]
Resampling = Literal["average", "nearest", "lanczos"]
Predictor = Literal["yes", "no"]
BigTiff = Literal["yes", "no", "if-needed"]

#: Other words for a format, as other programs have them.
FORMAT_WORDS = {
    "tiff": "tif", "gtiff": "tif", "cog": "tif", "ome.tiff": "ome.tif", "ome-tiff": "ome.tif",
    "ome-tif": "ome.tif", "ome-zarr": "ome.zarr", "zarr": "ome.zarr", "jpeg": "jpg", "iiif3": "iiif",
    "jpeg2000": "jp2", "j2k": "jp2", "jp2openjpeg": "jp2",
}  # fmt: skip
Tiles = Literal["one", "same"]

#: What GDAL calls words of options, without capitals and with hyphens; capitals count in no word.
GDAL_WORDS = {("predictor", "2"): "yes", ("predictor", "standard"): "yes", ("predictor", "1"): "no"}

#: Words that are accepted but not advertised. ``look``, the statistics of a look, follows from that option.
#: The others make seams: tests and benchmarks show with them what the advertised words avoid. With ``tile``
#: each window is stylised by the statistics of its pixels alone; with ``cut`` the halos are cut off although
#: they are too small.
_UNADVERTISED: dict[str, tuple[str, ...]] = {"statistics": ("tile", "look"), "seam": ("cut",)}

#: The word of the option ``valid`` that finds the tissue of a slide. A file of that name is ``./tissue``.
TISSUE = "tissue"

#: The job queues of clusters on which workers can be started.
QUEUES = ("slurm", "pbs", "lsf")

#: Models that transfer the statistics of colours, and paint nothing.
TRANSFERS = ("colour", "stain")

#: Options that do not go with a look, and what it has instead.
FIXED_IN_LOOKS = {
    "model": "knows its model",
    "method": "holds a painting network, which has no method",
    "white": "holds a painting network, which asks for no white",
    "stains": "holds a painting network, which knows no stains",
    "weights": "holds its weights",
    "alpha": "was frozen at its strength, that of --alpha when it was measured",
    "style_size": "holds its style",
    "stroke": "holds a network of one pass",
    "mask": "paints the whole image in its one style",
    "preserve_color": "holds a style whose colours are fixed",
    "statistics": "has its statistics",
    "statistics_of": "has its statistics",
    "stretch": "has its stretch",
}

#: Options that are counts, lengths or sizes: at least 1.
AT_LEAST_ONE = (
    "style_size", "thumbnail", "local_scale", "feather", "block", "workers", "tile", "threads", "memory",
    "blocksize",
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

    model: str = "auto"
    method: str | None = None
    white: str = "auto"
    stains: str | None = None
    weights: Path | None = None
    look: Path | None = None
    alpha: float = 1.0
    style_size: int = 512
    preserve_color: PreserveColor = "none"
    stroke: int | str | None = None
    mask: Path | None = None
    mask_attribute: str | None = None
    feather: int = 64
    region: tuple[int, ...] | None = None
    bbox: tuple[float, ...] | None = None
    bbox_crs: str | None = None
    aoi: Path | None = None
    each: str | bool | None = None
    valid: Path | Literal["tissue"] | None = None
    statistics: Statistics = "auto"
    statistics_of: StatisticsOf = "image"
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
    level: int | None = None
    magnification: float | None = None
    stretch: str | None = None
    dtype: Dtype = "auto"
    format: OutputFormat = "auto"
    compression: Compression = "deflate"
    quality: int | None = None
    predictor: Predictor = "yes"
    blocksize: int | None = None
    overview_resampling: Resampling = "average"
    bigtiff: BigTiff = "yes"
    workers: int = 1
    scheduler: str | None = None
    cluster: str | None = None
    memory: int | None = None
    tiles: Tiles = "one"
    provenance: bool = True
    job_dir: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        word = str(self.format).lower().removeprefix(".")
        object.__setattr__(self, "format", FORMAT_WORDS.get(word, word))
        for name, allowed in choices().items():
            got = getattr(self, name)
            if isinstance(got, str) and got not in allowed and name != "format":
                plain = got.lower().replace("_", "-")
                got = GDAL_WORDS.get((name, plain), plain)
                object.__setattr__(self, name, got)
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
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise BadInput(f"--quality must lie between 1 and 100, got {self.quality}")
        object.__setattr__(self, "stroke", checked_stroke(self.stroke))
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.level is not None and self.magnification is not None:
            raise BadInput("--level and --magnification choose the same level; give one of them")
        if self.level is not None and self.level < 0:
            raise BadInput(f"--level counts from 0, the image itself, got {self.level}")
        if self.magnification is not None and not 0 < self.magnification < float("inf"):
            raise BadInput(f"--magnification must be a number above 0, got {self.magnification}")
        if self.halo is not None and self.halo < 0:
            raise BadInput(f"--halo must not be negative, got {self.halo}")
        self._check_choice()
        self._check_part()
        self._check_look()

    def _check_look(self) -> None:
        """Raise BadInput if an option would change what is fixed in a look."""
        if self.look is None:
            if self.statistics == "look":
                raise BadInput("--statistics look takes those of a look; give --look LOOK.safetensors too")
            return
        object.__setattr__(self, "look", Path(self.look))
        for name, why in FIXED_IN_LOOKS.items():
            value, default = getattr(self, name), getattr(Options, name)
            named = name == "model" and ":" in value  # a function of the user runs only if it is named
            if value == default or named or (name == "statistics" and value == "look"):
                continue
            if name != "preserve_color" or value == "coral":
                given = " coral" if name == "preserve_color" else ""
                raise BadInput(f"--look {why}; leave --{name.replace('_', '-')}{given} out")

    def quality_for(self, format: str) -> int:
        """The quality of an output of a format: unless it is given 90; of JPEG 2000 100, without loss."""
        return self.quality or (100 if format == "jp2" else 90)

    def _check_part(self) -> None:
        """Raise BadInput unless the part of the image is given once, as four numbers that make a box.

        Lists become tuples, and texts such as "0,0,512,512" what they say.
        """
        given = [f"--{name}" for name in ("region", "bbox", "aoi") if getattr(self, name) is not None]
        if len(given) > 1:
            raise BadInput(f"{' and '.join(given)} choose the same part of the image; give one of them")
        if self.valid is not None and str(self.valid) != TISSUE:
            object.__setattr__(self, "valid", Path(self.valid))
        if self.region is not None:
            object.__setattr__(self, "region", _four("region", self.region, "x,y,w,h", int))
            if min(self.region[2:]) < 1:
                raise BadInput(f"--region x,y,w,h needs a width and a height, got {_listed(self.region)}")
        if self.bbox is not None:
            object.__setattr__(self, "bbox", _four("bbox", self.bbox, "minx,miny,maxx,maxy", float))
            if not (self.bbox[0] < self.bbox[2] and self.bbox[1] < self.bbox[3]):
                raise BadInput(
                    f"--bbox is minx,miny,maxx,maxy, the smaller numbers first, got {_listed(self.bbox)}"
                )
        if self.bbox_crs is not None and self.bbox is None:
            raise BadInput("--bbox-crs is the reference system of --bbox; give that too")
        self._check_each()
        if self.statistics_of == "region" and not self.has_part:
            raise BadInput(
                "--statistics-of region needs a part of the image: give --region, --bbox or --aoi too"
            )

    def _check_each(self) -> None:
        """Raise BadInput unless what names the outputs of features goes with the other options.

        True stands for ``id``, and False for none.
        """
        if isinstance(self.each, bool):
            object.__setattr__(self, "each", "id" if self.each else None)
        if self.each is None:
            return
        if not isinstance(self.each, str) or not self.each.strip():
            raise BadInput(f"--each takes the name of an attribute, or nothing for the id, got {self.each!r}")
        if self.aoi is None:
            raise BadInput("--each writes a file for each feature of --aoi FILE; give that too")
        if self.tiles != "one":
            raise BadInput("--each and --tiles same both say how many files are written; give one of them")

    @property
    def network(self) -> str:
        """The model, and where none was named the one of `default_model`; lite, if a thumbnail or a part of
        the image is to be measured, since painter measures each level of the whole image."""
        if self.model != "auto":
            return self.model
        quick = self.statistics in ("thumbnail", "tile") or self.statistics_of == "region"
        return "lite" if quick and default_model() == "painter" else default_model()

    def for_looks(self) -> Options:
        """The options of a look of many images: where no model is named it is lite, since what painter
        measures holds for one image."""
        return replace(self, model="lite") if (self.model, self.network) == ("auto", "painter") else self

    @property
    def named_by(self) -> str | None:
        """What names the output of each feature, an attribute or ``id``; None for one output of them all."""
        return self.each if isinstance(self.each, str) else None

    @property
    def has_part(self) -> bool:
        """Whether a part of the image is asked for."""
        return any(chosen is not None for chosen in (self.region, self.bbox, self.aoi))

    def without_part(self) -> Options:
        """The same options for the whole image."""
        return replace(
            self, region=None, bbox=None, bbox_crs=None, aoi=None, each=None, statistics_of="image"
        )

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
            if name != "page" and value is not None:
                many = name == "bands" and self.network == "colour" and value
                if type(value) is not tuple or not (len(value) in (1, 3) or many):
                    raise BadInput(f"--{name} takes one or three {name}, as in 3,2,1, got {value!r}")
        if self.plain_bands and self.network != "colour":
            raise BadInput(
                f"--bands all is for --model colour, and {self.network} sees red, green and blue: name three"
            )

    @property
    def plain_bands(self) -> bool:
        """Whether bands are read as they are, and not as red, green and blue or as grey."""
        return self.bands is not None and (self.bands == ("all",) or len(self.bands) not in (1, 3))

    def stretch_for(self, dtype: str) -> str:
        """The values or percentiles that become black and white, for a file whose samples are of ``dtype``;
        "as is" for floats that stay as they are.

        Models that transfer colours keep the values of 16 bits as they are.

        Raises
        ------
        BadInput : such a model needs to be told, since the dtype has no natural range.
        """
        if self.stretch is not None:
            return self.stretch
        if self.network not in TRANSFERS or dtype == "uint8":
            return "2%,98%"
        if self.plain_bands and dtype.startswith("float"):
            return "as is"
        if dtype != "uint16":
            raise BadInput(
                f"its samples are {dtype}, and --model {self.network} must know which of their values are"
                " black and white: give --stretch LOW,HIGH in values, as in --stretch 0,10000"
            )
        return "0,65535"

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


def default_model() -> str:
    """The model where none is named: URST_TILES_MODEL, or painter."""
    name = os.environ.get("URST_TILES_MODEL") or "painter"
    if ":" in name:
        raise BadInput(f"URST_TILES_MODEL names a network, not code such as {name}; give that as --model")
    return name


def _four(name: str, value: Any, form: str, kind: type) -> tuple[Any, ...]:
    """The four numbers of an option, of the type ``kind``; BadInput for anything else.

    A text such as "0,0,512,512" becomes what it says, and whole numbers are also floats.
    """
    given = parse_numbers(value) if isinstance(value, str) else tuple(value)
    kinds = (int, float) if kind is float else (kind,)
    if len(given) != 4 or not all(type(n) in kinds and isfinite(n) for n in given):
        raise BadInput(f"--{name} takes {form}, got {_listed(given)}")
    return tuple(map(kind, given))


def _listed(numbers: tuple[Any, ...]) -> str:
    return ",".join(map(str, numbers))


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


def parse_numbers(text: str) -> tuple[int | float, ...]:
    """The numbers of a text such as ``0,0,512,512`` or ``7.5,46,8,47``; BadInput where one is no number."""
    try:
        return tuple(int(word) if _is_whole(word) else float(word) for word in text.split(","))
    except ValueError:
        raise BadInput(f"expected numbers such as 0,0,512,512, got {text!r}") from None


def _is_whole(word: str) -> bool:
    return word.strip().removeprefix("-").removeprefix("+").isdecimal()


def parse_valid(text: str) -> Path | str:
    """The word ``tissue``, or the path that any other text names."""
    return text if text == TISSUE else Path(text)


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


def _members(name: str) -> tuple[type, ...]:
    """The types that the members of a list may have, by the name of the option."""
    return (int, float) if name in ("region", "bbox") else (int, str)


def from_table(name: str, value: Any, folder: Path) -> Any:
    """The value of the option ``name`` that a TOML table gives; relative paths start at ``folder``.

    Raises
    ------
    BadInput : if the value has another type than the option.
    """
    kind = kinds()[name]
    parsers: dict[str, Any] = {"memory": parse_bytes, "stroke": parse_stroke, "page": parse_word}
    parsers |= {"region": parse_numbers, "bbox": parse_numbers, "channels": parse_words, "bands": parse_words}
    if isinstance(value, str) and name in parsers:
        return parsers[name](value)
    if name == "valid" and value == TISSUE:
        return value
    if kind is Path and isinstance(value, str):
        return path_of(value) if name == "job_dir" and "://" in value else folder / value
    if kind is tuple and isinstance(value, list) and all(type(word) in _members(name) for word in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        words = "a list of four numbers" if float in _members(name) else WORDS[kind]
        raise BadInput(f"option {name} must be {words}, got {value!r}")
    return value
