"""The pieces of an image that become files of their own: one for each feature of an area of interest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from urst_tiles.geometry import Box
from urst_tiles.source.polygons import Polygons
from urst_tiles.source.source import Source


@dataclass(frozen=True, eq=False)
class Piece:
    """One feature of an area of interest, as far as it lies in the image.

    Attributes
    ----------
    name : the name of its file, without a suffix.
    box : the smallest box of pixels of the upright image that holds its polygons.
    area : its polygons, outside of which the pixels of its file are invalid.
    """

    name: str
    box: Box
    area: Polygons


def drawn(source: Source) -> Polygons | None:
    """The polygons whose box is the part of an image that is made; None if there are none."""
    return next((area for area in source.areas if isinstance(area, Polygons) and area.cuts), None)


def pieces_of(source: Source) -> list[Piece]:
    """The pieces of an image whose area of interest was opened with names; those that lie outside of the
    image are left out. Empty where no names were asked for."""
    height, width = source.shape
    image = Box(0, 0, height, width)
    cut = [replace(piece, box=piece.box.clip(image)) for piece in _all(source)]
    return [piece for piece in cut if piece.box.area]


def left_out(source: Source) -> list[str]:
    """The names of the features that lie outside of the image."""
    kept = {piece.name for piece in pieces_of(source)}
    return [piece.name for piece in _all(source) if piece.name not in kept]


def _all(source: Source) -> Iterator[Piece]:
    """A piece for each feature, whose box may reach beyond the image."""
    area = drawn(source)
    at = 0
    for name, count in area.named if area else ():
        assert area is not None
        own = replace(area, polygons=area.polygons[at : at + count], named=())
        at += count
        yield Piece(name, own.outline, own)


def pieces_said(pieces: list[Piece]) -> dict[str, str]:
    """The names and the places of pieces as a fact of the identity of a plan; empty without pieces."""
    if not pieces:
        return {}
    facts = repr([(piece.name, piece.box.xywh) for piece in pieces])
    return {"each": f"{len(pieces)} files {sha256(facts.encode()).hexdigest()[:16]}"}
