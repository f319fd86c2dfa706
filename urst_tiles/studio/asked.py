"""What is looked at: an image, and how it is painted. A look is part of the address of each tile."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from urst_tiles import nets
from urst_tiles.api.contact_sheet import MODELS as NAMED_STYLES
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.options import Options, Statistics, default_model

#: The models of the studio: those that have the named styles, the one that paints in jobs first.
MODELS = NAMED_STYLES[::-1]

#: What may be done about the colours of the image.
COLOURS = ("none", "luminance", "coral")

#: How the statistics of the image may be measured; exact and local read the whole image first.
STATISTICS = get_args(Statistics)

#: By how much strokes may be coarser.
STROKES = (1, 2, 4, 8, 16)

#: The most styles in a mixture.
MOST_STYLES = 6

#: The sides of a finished painting: the image that it was made from, and itself.
SIDES = ("input", "made")

#: How the word of an upload begins, which no name of a file in the root does.
PREFIX = ":"

#: The longest state, as letters in an address.
LONGEST = 4096


def first_model() -> str:
    """The network that paints where none is chosen: that of `stylize`, if the studio has it."""
    name = default_model()
    return name if name in MODELS else MODELS[0]


@dataclass(frozen=True)
class Asked:
    """An image, and how it is painted.

    Attributes
    ----------
    image : path of the image, relative to the root.
    style : a named style, or an upload; several with their shares in percent, as in ``a=60,b=40``, are mixed;
        empty for the image as it is.
    model : the network; by default `first_model`.
    alpha : strength of the style in percent, 0..100.
    colours : as the option ``preserve_color``.
    statistics, stroke : as the options of that name.
    mask : the id of drawn polygons, which have styles of their own (`urst_tiles.studio.drawn`); or empty.
    region : the part that is made, as four numbers x,y,w,h; or empty. It changes nothing of what is seen.
    side : if the image is a finished painting, "made" for it as it is stored, and "input" for what it was
        made from; else empty.
    """

    image: str
    style: str = ""
    model: str = field(default_factory=first_model)
    alpha: int = 100
    colours: str = "none"
    statistics: str = "auto"
    stroke: int = 1
    mask: str = ""
    region: str = ""
    side: str = ""

    def __post_init__(self) -> None:
        if len(self.styles) > MOST_STYLES:
            raise BadInput(f"at most {MOST_STYLES} styles are mixed")
        for style, _ in self.styles:
            check_style(style)
        if self.model not in MODELS:
            raise BadInput(f"the studio has the models {', '.join(MODELS)}, not {self.model!r}")
        if self.colours not in COLOURS:
            raise BadInput(f"colours are {' or '.join(COLOURS)}, not {self.colours!r}")
        if self.side not in ("", *SIDES) or (self.side and self.paints):
            raise BadInput(f"a finished painting has the sides {' and '.join(SIDES)}, and no style")
        if not 0 <= self.alpha <= 100:
            raise BadInput(f"the strength lies between 0 and 100, got {self.alpha}")
        if self.statistics not in STATISTICS:
            raise BadInput(f"statistics are {', '.join(STATISTICS)}, not {self.statistics!r}")
        if self.stroke not in STROKES:
            raise BadInput(f"the stroke is one of {', '.join(map(str, STROKES))}, not {self.stroke}")
        if self.mask and len(self.styles) > 1:
            raise BadInput("drawn polygons and a mixture do not go together; choose one style for the rest")
        if self.mask and not re.fullmatch("[0-9a-f]{16}", self.mask):
            raise BadInput("this is no id of drawn polygons")
        if self.region and not re.fullmatch(r"\d{1,9}(,\d{1,9}){3}", self.region):
            raise BadInput(f"a region is four whole numbers, x,y,w,h, got {self.region[:40]!r}")

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Asked:
        """A look from words by name, as in the query of an address; BadInput if they are none."""
        known = {name: str(words[name]) for name in _TEXTS if name in words}
        if not known.get("image"):
            raise BadInput("no image is named")
        alpha = _whole(words.get("alpha", 100), "the strength is a whole number from 0 to 100")
        stroke = _whole(words.get("stroke", 1), "the stroke is a whole number")
        return cls(**known, alpha=alpha, stroke=stroke)

    @property
    def styles(self) -> tuple[tuple[str, int], ...]:
        """The styles that are mixed, each with its share in percent; BadInput if these are none."""
        if "=" not in self.style:
            return ((self.style, 100),) if self.style else ()
        return tuple(_share(text) for text in self.style.split(","))

    @property
    def paints(self) -> bool:
        """Whether anything is painted."""
        return bool(self.style or self.mask)

    @property
    def painting(self) -> Asked:
        """The look without what changes nothing of what is seen, so that tiles are kept."""
        return replace(self, region="")

    @property
    def state(self) -> str:
        """The look as letters, digits, - and _, for addresses."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def from_state(cls, state: str) -> Asked:
        """The inverse of ``state``; BadInput if these are the letters of no look."""
        try:
            if len(state) > LONGEST:
                raise ValueError
            words = json.loads(base64.urlsafe_b64decode(state + "=" * (-len(state) % 4)))
            if not isinstance(words, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise BadInput("this address names no look") from None
        return cls.of(words)

    @property
    def before(self) -> Asked:
        """The image as it is."""
        return Asked(self.image)

    def options(self) -> Options:
        """The options of the job that makes what is seen, and no more of it than the region; without those
        that name files."""
        settings: dict[str, Any] = {"preserve_color": self.colours, "statistics": self.statistics}
        if self.stroke > 1:
            settings["stroke"] = self.stroke
        if self.region:
            settings["region"] = tuple(map(int, self.region.split(",")))
        return Options(model=self.model, dtype="uint8", alpha=self.alpha / 100, **settings)

    def flags(self) -> list[str]:
        """The same as flags of ``urst-tiles stylize``, without those that are the defaults."""
        flags = ["--model", self.model] if self.model != Options.model else []
        if self.alpha != 100:
            flags += ["--alpha", f"{self.alpha / 100:g}"]
        if self.stroke > 1:
            flags += ["--stroke", str(self.stroke)]
        if self.colours != "none":
            flags += ["--preserve-color", self.colours]
        if self.statistics != "auto":
            flags += ["--statistics", self.statistics]
        if self.region:
            flags += ["--region", self.region]
        return flags


#: The words of a look that are texts.
_TEXTS = ("image", "style", "model", "colours", "statistics", "mask", "region", "side")


def is_upload(word: str) -> bool:
    """Whether a word is that of an upload, there or not."""
    return re.fullmatch(f"{PREFIX}[0-9a-f]{{16}}", word) is not None


def check_style(style: str) -> None:
    """Raise BadInput unless a style has a name, or is the word of an upload."""
    if style not in nets.named_styles.titles() and not is_upload(style):
        raise BadInput(f"there is no style called {style[:80]!r}")


def _whole(value: Any, said: str) -> int:
    """A whole number from a text; BadInput that says so for any other."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 4):
        raise BadInput(f"{said}, got {text[:40]!r}")
    return int(text)


def _share(text: str) -> tuple[str, int]:
    """A style and its share from a text such as ``hokusai-wave=60``."""
    style, _, share = text.rpartition("=")
    percent = _whole(share, "the share of a style is a whole number from 1 to 100")
    if not 1 <= percent <= 100:
        raise BadInput(f"the share of a style lies between 1 and 100, got {percent}")
    return style, percent


def inside(root: Path, name: str) -> Path:
    """The path of a file or folder below the root.

    Links are followed; what they lead to must lie below the root, too.

    Raises
    ------
    BadInput : it would lie elsewhere.
    MissingFile : there is no such file.
    """
    if "\0" in name:
        raise BadInput("a name has no character 0")
    try:
        found = (root / name).resolve()
        there = found.exists()
    except (OSError, RuntimeError):
        raise BadInput(f"{name} is no name of a file") from None
    if not found.is_relative_to(root):
        raise BadInput(f"{name} does not lie in the folder that the studio was given")
    if not there:
        raise MissingFile(f"there is no file {name} in the folder of the studio")
    return found


def inside_to_write(root: Path, name: str) -> Path:
    """The path of a file to write below the root: it need not be there, and its folder must, see `inside`."""
    return inside(root, str(Path(name).parent)) / Path(name).name


def relative(root: Path, path: Path) -> str:
    """The name of a path below the root."""
    return str(path.relative_to(root)) if path != root else ""
