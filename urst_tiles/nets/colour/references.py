"""From what was measured of reference images to a look, for every model that transfers colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.nets import colour
from urst_tiles.nets.base import Style
from urst_tiles.nets.colour import stain
from urst_tiles.nets.colour.look import Look
from urst_tiles.nets.colour.separation import STANDARD

#: Each model's module: ``measuring``, ``fitted`` and ``merged`` are what this module needs of it.
MODULES: dict[str, Any] = {"colour": colour, "stain": stain}


def reference_style(
    model: str, method: str, depth: int, white: tuple[float, float, float] | None = None, bands: int = 3
) -> Style:
    """The style whose sites measure what a method takes from a reference.

    ``depth`` are the bits of the samples of the reference, ``white`` the colour of its glass in 0..1, if that
    is known, and ``bands`` the number of its bands, 3 for red, green and blue.
    """
    style: Style = MODULES[model].measuring(method, depth, white, bands)
    return style


def look_of(model: str, method: str, style: Style, statistics: Mapping[str, Any], **facts: Any) -> Look:
    """The look of one reference, from the statistics at every site of its `reference_style`; ``facts`` are
    further fields of the look."""
    fitted = MODULES[model].fitted(style, statistics)
    return Look(model=model, method=method, statistics=fitted, **facts)


def merged_look(looks: Sequence[tuple[Look, float]]) -> Look:
    """The common look of several, each with its weight.

    Raises
    ------
    BadInput : they are of different models or methods.
    """
    first = looks[0][0]
    for look, _ in looks:
        if (look.model, look.method, look.as_is) != (first.model, first.method, first.as_is):
            raise BadInput(
                f"a look of {look.method} and one of {first.method} have nothing in common to merge"
            )
    total = sum(weight for _, weight in looks)
    parts = [(look.statistics, weight / total) for look, weight in looks]
    sources = tuple(
        replace(source, weight=source.weight * weight / total)
        for look, weight in looks
        for source in look.sources
    )
    on = {look.on for look, _ in looks}
    statistics = MODULES[first.model].merged(first.method, parts)
    return replace(first, statistics=statistics, sources=sources, on=" and ".join(sorted(on)))


def notes_of(style: Any, statistics: Mapping[str, Any]) -> list[str]:
    """What a user should know of the statistics of an image, as sentences; of most styles nothing."""
    return list(style.notes(statistics)) if hasattr(style, "notes") else []


def stain_maps(style: Style, names: Sequence[str], floats: bool = False) -> Style:
    """A style for stains whose result are the amounts of the stains ``names``, a band for each; as ``floats``
    in optical density."""
    assert isinstance(style, stain.StainStyle)
    return style.with_maps(names, floats)


def unmixing_look(method: str) -> Look:
    """The look for taking a slide apart without a reference: the published stains, which serve where those of
    the slide are not told apart."""
    return Look(model=stain.NAME, method=method, statistics=STANDARD, on="published")


def amounts_of(style: Any, statistics: Mapping[str, Any]) -> dict[str, float]:
    """By what the amount of each stain of an image is multiplied; empty for styles that know no stains."""
    return dict(style.scaled(statistics)) if hasattr(style, "scaled") else {}


def standard_look(method: str) -> Look:
    """The published look of a method for stains.

    Raises
    ------
    BadInput : there is none for the method.
    """
    if method != stain.METHODS[0]:
        raise BadInput(
            f"there is no published look for --method {method}; name a reference image with --style"
        )
    return unmixing_look(method)
