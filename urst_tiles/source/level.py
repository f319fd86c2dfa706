"""Reading a coarser level of an image, an overview in its file, as the image.

What is told of the image is told for the pixels of the level: its resolution, its magnification and its place
on the ground (GeoTIFF 1.1, OGC 19-008r4; for rational polynomials "RPCs in GeoTIFF").
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import Content
from urst_tiles.source.openers import FileOpener, Opener, Reader, reader_of
from urst_tiles.source.valid import Samples
from urst_tiles.tiff.metadata import GEO_KEYS, RPC, Info, Tag, with_items
from urst_tiles.tiff.microscopes import OBJECTIVE

#: By how much the magnification of a level may differ from the one that is asked for.
TOLERANCE = 0.05

#: The geo key of the raster type, and its value where coordinates are those of the centres of pixels.
RASTER_TYPE, POINT = 1025, 2


class OverviewReader:
    """Reads an overview of another reader as an image; the attributes are those of `Reader`."""

    def __init__(self, reader: Reader, level: int) -> None:
        self._reader, self._level = reader, level
        self.shape, self.levels = reader.levels[level - 1], reader.levels[level:]
        self.dtype, self.colours, self.has_valid = reader.dtype, reader.colours, reader.has_valid
        self.cell_shape, self.alone = reader.cell_shape, reader.alone

    def cell(self, box: Box, level: int = 0) -> Samples:
        return self._reader.cell(box, self._level + level)


@dataclass(frozen=True)
class OverviewOpener(FileOpener):
    """Opens an overview of an image.

    Attributes
    ----------
    image : opens the image.
    level : the number of the overview, counted from 1.
    content : the whole content of the files when the job began; None outside of jobs.
    """

    image: Any
    level: int
    content: Content | None = None

    @property
    def many(self) -> bool:
        return self.image.many

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.image.files)

    @property
    def _known(self) -> Opener:
        return self.image.with_content(self.content) if self.content is not None else self.image

    def check(self) -> None:
        self._known.check()

    def open(self) -> Reader:
        return OverviewReader(self._known.open(), self.level)


def at_level(facts: Facts, level: int | None, magnification: float | None) -> Facts:
    """The facts of a level of an image.

    Parameters
    ----------
    level : its number, counted from 0, which is the image itself; None without a choice.
    magnification : of the level, within 5 %, instead of its number; None without a choice.

    Raises
    ------
    BadInput : there is no such level.
    """
    if level is None and magnification is None:
        return facts
    shapes = (facts.stored, *reader_of(facts.opener).levels)
    number = level if magnification is None else _magnified(facts, shapes, magnification)
    if number is None or not 0 <= number < len(shapes):
        raise BadInput(f"{facts.path} has no level {level}, which --level asks for; {_listed(facts, shapes)}")
    if number == 0:
        return facts
    shape = shapes[number]
    info = reduced(facts.info, facts.stored[0] / shape[0], facts.stored[1] / shape[1], facts.orientation)
    said = f"level {number} of 0 to {len(shapes) - 1}"
    return replace(
        facts,
        info=replace(info, chosen=f"{info.chosen}; {said}" if info.chosen else said),
        fingerprint=hashlib.sha256(f"level {number} of {facts.fingerprint}".encode()).hexdigest(),
        stored=shape,
        overviews=shapes[number + 1 :],
        opener=OverviewOpener(facts.opener, number),
    )


def _magnified(facts: Facts, shapes: tuple[tuple[int, int], ...], wanted: float) -> int:
    """The number of the level with the magnification ``wanted``, or nearly; raises BadInput."""
    power = facts.info.magnification
    if power is None:
        raise BadInput(
            f"{facts.path} does not tell its magnification; choose a level by its number with --level"
        )
    found = [power * shape[1] / facts.stored[1] for shape in shapes]
    best = min(range(len(found)), key=lambda i: abs(found[i] - wanted))
    if abs(found[best] - wanted) > TOLERANCE * wanted:
        raise BadInput(
            f"{facts.path} has no level of magnification {wanted:g}, which --magnification asks for;"
            f" {_listed(facts, shapes)}"
        )
    return best


def _listed(facts: Facts, shapes: tuple[tuple[int, int], ...]) -> str:
    """The levels, as a phrase such as ``it has the levels 0 (4096 x 2048, 20x) and 1 (1024 x 512, 5x)``."""
    power = facts.info.magnification
    words = [
        f"{i} ({w} x {h}" + (f", {power * w / facts.stored[1]:.3g}x)" if power else ")")
        for i, (h, w) in enumerate(shapes)
    ]
    if len(words) == 1:
        return f"it has only the level {words[0]}"
    return f"it has the levels {', '.join(words[:-1])} and {words[-1]}"


def reduced(info: Info, down: float, across: float, orientation: int = 1) -> Info:
    """The metadata of an image for a level of it whose pixels are ``down`` times as high and ``across`` times
    as wide as those of the image, as they are stored."""
    shown = (down, across) if orientation < 5 else (across, down)
    per_cm = info.pixels_per_cm and (info.pixels_per_cm[0] / shown[0], info.pixels_per_cm[1] / shown[1])
    power = info.magnification and info.magnification / across
    xml = info.gdal_metadata
    return replace(
        info,
        geo=tuple(_reduced_tag(tag, info.geo, down, across) for tag in info.geo),
        pixels_per_cm=per_cm,
        magnification=power,
        gdal_metadata=with_items(xml, [(OBJECTIVE, "", f"{power:g}")]) if power else xml,
    )


def _reduced_tag(tag: Tag, geo: tuple[Tag, ...], down: float, across: float) -> Tag:
    """A tag of the georeferencing for pixels of another size."""
    if not isinstance(tag.value, tuple):
        return tag
    values, centred = [float(v) for v in tag.value], _is_point(geo)

    def moved(place: float, factor: float, centre: bool = centred) -> float:
        return (place + 0.5) / factor - 0.5 if centre else place / factor

    if tag.code == 33550:
        values[0], values[1] = values[0] * across, values[1] * down
    elif tag.code == 33922:
        for i in range(0, len(values) - 5, 6):
            values[i], values[i + 1] = moved(values[i], across), moved(values[i + 1], down)
    elif tag.code == 34264:
        for row in range(0, 12, 4):
            if centred:
                values[row + 3] += (values[row] * (across - 1) + values[row + 1] * (down - 1)) / 2
            values[row], values[row + 1] = values[row] * across, values[row + 1] * down
    elif tag.code == RPC:
        values[2], values[3] = moved(values[2], down, True), moved(values[3], across, True)
        values[7], values[8] = values[7] / down, values[8] / across
    else:
        return tag
    return replace(tag, value=tuple(values))


def _is_point(geo: tuple[Tag, ...]) -> bool:
    """Whether coordinates are those of the centres of pixels (GTRasterTypeGeoKey)."""
    keys = next((tag.value for tag in geo if tag.code == GEO_KEYS), ())
    quads = [keys[i : i + 4] for i in range(4, len(keys) - 3, 4)] if isinstance(keys, tuple) else []
    return any(quad[0] == RASTER_TYPE and quad[3] == POINT for quad in quads)
