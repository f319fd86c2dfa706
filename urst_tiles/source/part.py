"""A part of an image: which box of pixels the user asks for, and what is true of it.

A part is asked for in pixels (x, y, width, height) of the upright image, or as a box on the ground. It may
reach beyond the image, where it is cut off; outside of it there is nothing to make.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.source.crs import box_in_image
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import Content
from urst_tiles.source.pieces import drawn
from urst_tiles.source.source import Source
from urst_tiles.source.stretch import AS_IS
from urst_tiles.source.valid import Samples, samples_of
from urst_tiles.tiff.choice import choice_of
from urst_tiles.tiff.metadata import Info as Info
from urst_tiles.tiff.metadata import with_bands_told
from urst_tiles.tiff.position import affine_of, moved

#: How far in pixels a side of a box on the ground may miss the edge of a pixel before the pixel counts as
#: touched: coordinates are rounded when they are written down.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Part:
    """A part of an image.

    Attributes
    ----------
    box : the pixels of the image that are made.
    asked : the box that was asked for, which may reach beyond the image.
    """

    box: Box
    asked: Box

    @property
    def is_clipped(self) -> bool:
        """Whether some of what was asked for lies outside of the image."""
        return self.box != self.asked


def part_of(
    source: Source,
    region: Sequence[int] | None = None,
    bbox: Sequence[float] | None = None,
    bbox_crs: str | None = None,
) -> Part | None:
    """The part of an image that is asked for; None for the whole image.

    It is the box around the polygons that are the image's valid area, if there are some, unless another is
    given.

    Parameters
    ----------
    region : (x, y, width, height) in pixels of the upright image.
    bbox : (min x, min y, max x, max y) in the coordinate reference system of the image, or in ``bbox_crs``.
        The part is made of all pixels that it touches.

    Raises
    ------
    BadInput : the part lies outside of the image, or the image is not georeferenced by an affine map.
    """
    if region is not None:
        x, y, w, h = region
        asked, words = Box(y, x, y + h, x + w), f"--region {','.join(map(str, region))}"
    elif bbox is not None:
        asked, words = _touched(source, bbox, bbox_crs), f"--bbox {','.join(f'{n:.15g}' for n in bbox)}"
    elif (polygons := drawn(source)) is not None:
        asked, words = polygons.outline, f"--aoi {polygons.path}"
    else:
        return None
    height, width = source.shape
    box = asked.clip(Box(0, 0, height, width))
    if not box.area:
        raise BadInput(
            f"{source.path}: {words} lies outside of the image, which has {width} x {height} px"
            f"{_extent(source)}"
        )
    return None if box == Box(0, 0, height, width) == asked else Part(box, asked)


def _touched(source: Source, bbox: Sequence[float], crs: str | None) -> Box:
    """The pixels that a box on the ground touches; they may lie outside of the image."""
    place = affine_of(source.info.geo)
    if place is None:
        how = (
            "has ground control points or rational polynomials alone; warp it with gdalwarp first,"
            if source.info.geo
            else "is not georeferenced;"
        )
        raise BadInput(f"{source.path} {how} or give --region x,y,w,h in pixels in place of --bbox")
    if crs is not None:
        bbox = box_in_image(source, bbox, crs)
    corners = [place.inverse(x, y) for x in bbox[::2] for y in bbox[1::2]]
    (x0, x1), (y0, y1) = (_span(values) for values in zip(*corners, strict=True))
    return Box(y0, x0, y1, x1)


def _span(values: Sequence[float]) -> tuple[int, int]:
    """The first pixel of those that a range of positions touches, and the one behind the last."""
    low, high = min(values), max(values)
    if not max(abs(low), abs(high)) < 1 << 40:  # also for what is no number
        return 1 << 40, 1 << 40
    first = math.floor(low + TOLERANCE)
    return first, max(first + 1, math.ceil(high - TOLERANCE))


def _extent(source: Source) -> str:
    """Where the image lies on the ground, for a message; empty where nothing says it."""
    place = affine_of(source.info.geo)
    if place is None:
        return ""
    height, width = source.shape
    corners = [place(x, y) for x in (0, width) for y in (0, height)]
    (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*corners, strict=True))
    return f" and lies at {x0:.10g},{y0:.10g},{x1:.10g},{y1:.10g}"


def info_of(source: Source, box: Box | None) -> Info:
    """The metadata of an image, or of a part of it, whose place on the ground is that of the part."""
    info = source.info
    return info if box is None else replace(info, geo=moved(info.geo, box.y0, box.x0))


def described(info: Info, items: Sequence[tuple[str, int, str]]) -> Info:
    """The metadata with what bands are, each item (role, band counted from 0, text), with the roles of
    `urst_tiles.tiff.metadata.with_bands_told`."""
    return replace(info, gdal_metadata=with_bands_told(info.gdal_metadata, items)) if items else info


@dataclass(frozen=True, eq=False)
class PartOpener:
    """Opens a box of another source, whose pixels are read through it.

    Attributes
    ----------
    source : the whole image, prepared before it is read.
    box : the part of it, in pixels of the upright image.
    files : empty, since the source itself watches its files.
    """

    source: Source
    box: Box
    files: ClassVar[tuple[Path, ...]] = ()
    content: ClassVar[None] = None
    many: ClassVar[bool] = False

    def with_content(self, content: Content) -> PartOpener:
        return self

    def check(self) -> None:
        """Check nothing: reading the source checks that its file has not changed."""

    def open(self) -> PartReader:
        return PartReader(self.source, self.box)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        height, width = self.box.shape
        boxes = (Box(y, 0, min(y + rows, height), width) for y in range(0, height, rows))
        reader = self.open()
        return ((box, reader.cell(box)) for box in boxes)


class PartReader:
    """Reads the pixels of a box of a source as samples."""

    levels: tuple[tuple[int, int], ...] = ()
    cell_shape = (1024, 1024)
    alone = False

    def __init__(self, source: Source, box: Box) -> None:
        self._source, self._box = source, box
        self.shape, self.dtype, self.colours = box.shape, source.dtype, source.colours
        self.has_valid = source.has_valid

    def cell(self, box: Box, level: int = 0) -> Samples:
        return samples_of(self._source.read(box.shift(self._box.y0, self._box.x0)), self.colours)


def cut_out(source: Source, box: Box) -> Source:
    """A part of an image as an image of its own, with values and validity as the whole image has them."""
    areas = " ".join(area.fingerprint for area in source.areas)
    said = f"{box.xywh} of {source.fingerprint} {source.stretch_text} {areas}"
    return Source(
        Facts(
            path=source.path,
            info=info_of(source, box),
            fingerprint=sha256(said.encode()).hexdigest(),
            stored=box.shape,
            orientation=1,
            choice=choice_of(source.colours),
            told="",
            colours=source.colours,
            file_dtype=source.dtype.name,
            has_valid=source.has_valid,
            overviews=(),
            reader_bytes=source.reader_bytes,
            returned_bytes=source.returned_bytes,
            spooling_bytes=0,
            opener=PartOpener(source.without_metadata(), box),
            is_jpeg=source.is_jpeg,
            random_access=True,
            stretched=False,
        ),
        stretch=AS_IS if source.dtype.kind == "f" else "2%,98%",
    )
