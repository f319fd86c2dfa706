"""Which part of a file is read: its page, and the channels or bands that become red, green and blue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from urst_tiles.errors import BadInput

#: The colours of the picture, in their order.
COLOURS = ("red", "green", "blue")

#: What a user calls a page, a channel or a band: its number, counted from 1, or its name.
Word = int | str


#: What `Choice.bands` is where every band is to be read.
EVERY: tuple[Word, ...] = ("all",)


@dataclass(frozen=True)
class Choice:
    """The part of a file that the user chose; what is None is chosen by the program.

    Attributes
    ----------
    page : a page by its number, counted from 1, or by its name.
    channels : one or three channels, each by its number, counted from 1, or by its name. A channel is a page
        of its own, or else a band.
    bands : one or three bands of the page, likewise. Without ``page`` they may be channels. Or any other
        number of bands, or the word `EVERY` alone, which are then read as they are and stand for no colours.

    Raises
    ------
    BadInput : both channels and bands are given, or neither one nor three channels.
    """

    page: Word | None = None
    channels: tuple[Word, ...] | None = None
    bands: tuple[Word, ...] | None = None

    def __post_init__(self) -> None:
        if self.channels is not None and self.bands is not None:
            raise BadInput("--channels and --bands choose the same colours; give one of them")
        for name in ("channels", "bands"):
            words = getattr(self, name)
            if words is not None and len(words) not in (1, 3) and name == "channels":
                raise BadInput(f"--{name} takes one or three {name}, as in 3,2,1, got {len(words)}")

    @property
    def plain(self) -> bool:
        """Whether bands are read as they are: one remains one, and none is red, green or blue."""
        return self.bands is not None and (self.bands == EVERY or len(self.bands) not in (1, 3))

    @property
    def wanted(self) -> tuple[Word, ...] | None:
        """The channels or bands that the user chose."""
        return self.bands if self.channels is None else self.channels


def choice_of(colours: int) -> Choice:
    """The choice in an image that has no other bands than so many colours: red, green and blue, or as many
    bands as they are."""
    return Choice() if colours == 3 else Choice(bands=EVERY)


@dataclass(frozen=True)
class Names:
    """The names of one thing that can be chosen.

    Attributes
    ----------
    name : the name that the file has for it, or None.
    more : further words for it, such as the colour that it stands for.
    """

    name: str | None = None
    more: tuple[str, ...] = ()


def number_of(path: Path, what: str, word: Word, named: Sequence[Names]) -> int:
    """The place, counted from 0, of what the user called ``word``.

    A whole number from 1 to the number of things is a number, and everything else a name: the name that the
    file has, then the first word of it (``B4`` of "B4, central wavelength 665 nm"), then further words for
    it; capitals and leading zeros of numbers (``B04``) do not matter.

    Parameters
    ----------
    path : the file, for messages.
    what : what is chosen, "page", "channel" or "band", for messages.
    named : the names of all that can be chosen.

    Raises
    ------
    BadInput : there is no such thing, or several have that name.
    """
    text = str(word).strip()
    if text.isdecimal() and text.isascii() and 1 <= int(text) <= len(named):
        return int(text) - 1
    wanted = _plain(text)
    tiers = (
        [[thing.name] if thing.name == text else [] for thing in named],
        [[_plain(thing.name)] if thing.name else [] for thing in named],
        [[_plain(first_word(thing.name))] if thing.name else [] for thing in named],
        [[_plain(more) for more in thing.more] for thing in named],
    )
    for number, tier in enumerate(tiers):
        places = [i for i, words in enumerate(tier) if (text if number == 0 else wanted) in words]
        if len(places) > 1:
            raise BadInput(
                f"{path}: {len(places)} of its {what}s are called {text!r}; choose by number:"
                f" {', '.join(str(i + 1) for i in places[:8])}"
            )
        if places:
            return places[0]
    option = "--page" if what == "page" else f"--{what}s"
    raise BadInput(
        f"{path} has no {what} {text!r}, which {option} asks for; it has {listed(what, named)}"
        " (`urst-tiles info` lists them)"
    )


def listed(what: str, named: Sequence[Names]) -> str:
    """All that can be chosen, as a phrase such as ``the bands 1 (B2), 2 (B3) and 3``."""
    words = [f"{i} ({thing.name or thing.more[0]})" if thing.name or thing.more else str(i)
             for i, thing in enumerate(named, 1)]  # fmt: skip
    if len(words) > 12:
        words = [*words[:10], f"... up to {len(words)}"]
        return f"the {what}s {', '.join(words)}"
    if len(words) == 1:
        return f"only the {what} {words[0]}"
    return f"the {what}s {', '.join(words[:-1])} and {words[-1]}"


def said(what: str, named: Sequence[Names], picks: Sequence[int]) -> str:
    """What of all that can be chosen is read, and becomes red, green and blue, or grey, as a phrase."""
    words = [f"{i + 1} ({name})" if (name := named[i].name) else str(i + 1) for i in picks]
    if len(words) == 1:
        return f"{what} {words[0]} of {len(named)} as grey"
    if len(words) != 3:
        return f"{what}s {', '.join(words[:-1])} and {words[-1]} of {len(named)}"
    return f"{what}s {words[0]}, {words[1]} and {words[2]} of {len(named)} as red, green and blue"


def colour_numbers(words: Sequence[str | None]) -> list[int] | None:
    """The numbers, counted from 0, of "red", "green" and "blue"; None unless each is there exactly once."""
    return [words.index(c) for c in COLOURS] if all(words.count(c) == 1 for c in COLOURS) else None


def first_word(name: str) -> str:
    """The first word of a name, such as "B4" of "B4, central wavelength 665 nm"."""
    return re.split(r"[\s,;:(]", name)[0]


def _plain(text: str) -> str:
    """A name without capitals, and without zeros before its numbers."""
    return re.sub(r"(?<![0-9.])0+(?=[0-9])", "", " ".join(text.split()).casefold())
