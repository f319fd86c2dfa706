"""What is looked at: an image, and how it is painted. A look is part of the address of each tile."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from urst_tiles import nets
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.options import Options

#: The models of the studio: those whose styles have names and whose places can be shown at full scale.
MODELS = ("lite",)

#: What may be done about the colours of the image.
COLOURS = ("none", "luminance")

#: The sides of a finished painting: the image that it was made from, and itself.
SIDES = ("input", "made")

#: The words of a look that are texts.
_WORDS = ("image", "style", "model", "colours", "side")

#: The longest state, as letters in an address.
LONGEST = 4096


@dataclass(frozen=True)
class Asked:
    """An image, and how it is painted.

    Attributes
    ----------
    image : path of the image, relative to the root.
    style : a named style; empty for the image as it is.
    model : the network.
    alpha : strength of the style in percent, 0..100.
    colours : as the option ``preserve_color``.
    side : if the image is a finished painting, "made" for it as it is stored, and "input" for what it was
        made from; else empty.
    """

    image: str
    style: str = ""
    model: str = "lite"
    alpha: int = 100
    colours: str = "none"
    side: str = ""

    def __post_init__(self) -> None:
        if self.style and self.style not in nets.named_styles.titles():
            raise BadInput(f"there is no style called {self.style!r}")
        if self.model not in MODELS:
            raise BadInput(f"the studio has the models {', '.join(MODELS)}, not {self.model!r}")
        if self.colours not in COLOURS:
            raise BadInput(f"colours are {' or '.join(COLOURS)}, not {self.colours!r}")
        if self.side not in ("", *SIDES) or (self.side and self.style):
            raise BadInput(f"a finished painting has the sides {' and '.join(SIDES)}, and no style")
        if not 0 <= self.alpha <= 100:
            raise BadInput(f"the strength lies between 0 and 100, got {self.alpha}")

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Asked:
        """A look from words by name, as in the query of an address; BadInput if they are none."""
        known = {name: str(words[name]) for name in _WORDS if name in words}
        if not known.get("image"):
            raise BadInput("no image is named")
        alpha = str(words.get("alpha", "100"))
        if not (alpha.isascii() and alpha.isdecimal() and len(alpha) < 4):
            raise BadInput(f"the strength is a whole number from 0 to 100, got {alpha[:40]!r}")
        return cls(**known, alpha=int(alpha))

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
        """The options of the job that makes what is seen."""
        settings: dict[str, Any] = {"alpha": self.alpha / 100, "preserve_color": self.colours}
        return Options(model=self.model, dtype="uint8", **settings)

    def flags(self) -> list[str]:
        """The same as flags of ``urst-tiles stylize``, without those that are the defaults."""
        flags = ["--style", self.style]
        if self.model != Options.model:
            flags += ["--model", self.model]
        if self.alpha != 100:
            flags += ["--alpha", f"{self.alpha / 100:g}"]
        if self.colours != "none":
            flags += ["--preserve-color", self.colours]
        return flags


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


def relative(root: Path, path: Path) -> str:
    """The name of a path below the root."""
    return str(path.relative_to(root)) if path != root else ""
