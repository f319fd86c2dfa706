"""Where the pixels of an image lie on the ground, and where those of a part of it lie.

Positions are (x, y) = (column, row) from the upper left corner of the upper left pixel, and what a GeoTIFF
says is read as GDAL reads it (frmts/gtiff/gtiffdataset_read.cpp): a scale comes before a matrix, rows run
south whatever the sign of the scale, and PixelIsPoint means the middle of a pixel (GeoTIFF 1.1, section
7.1.2.2; GDAL's RFC 33).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from urst_tiles.tiff.metadata import GEO_CODES, GEO_KEYS, RPC, Tag

#: ModelPixelScale, ModelTiepoint and ModelTransformation.
SCALE, TIEPOINT, MATRIX = 33550, 33922, 34264

#: The geo key of how pixels are placed, and its value for PixelIsPoint.
RASTER_TYPE, IS_POINT = 1025, 2

#: The code of a reference system that further keys describe.
USER_DEFINED = 32767

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Placement:
    """The map from (column, row) to (a column + b row + c, d column + e row + f) on the ground."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """The place on the ground of a position in the image."""
        return self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f

    def inverse(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The position in the image of a place on the ground; of many, where ``x`` and ``y`` are arrays."""
        x, y, det = x - self.c, y - self.f, self.a * self.e - self.b * self.d
        return (self.e * x - self.b * y) / det, (self.a * y - self.d * x) / det


def affine_of(geo: Sequence[Tag]) -> Placement | None:
    """The map from pixels to the ground that GeoTIFF tags describe; None where they have none, as with ground
    control points or rational polynomials alone."""
    tags = {tag.code: numbers_of(tag) for tag in geo if tag.code in (SCALE, TIEPOINT, MATRIX)}
    scale, tie, matrix = tags.get(SCALE, ()), tags.get(TIEPOINT, ()), tags.get(MATRIX, ())
    if has_scale(geo):
        a, e = scale[0], -abs(scale[1])
        found = Placement(a, 0.0, tie[3] - tie[0] * a, 0.0, e, tie[4] - tie[1] * e)
    elif len(matrix) == 16:
        found = Placement(matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7])
    else:
        return None
    numbers = (found.a, found.b, found.c, found.d, found.e, found.f)
    if not all(map(math.isfinite, numbers)) or found.a * found.e == found.b * found.d:
        return None
    if _is_point(geo):
        c, f = found(-0.5, -0.5)
        found = Placement(found.a, found.b, c, found.d, found.e, f)
    return found


def is_placed(geo: Sequence[Tag]) -> bool:
    """Whether the tags say anything about where the image lies, be it by points or polynomials."""
    return any(tag.code not in GEO_CODES for tag in geo)


def has_scale(geo: Sequence[Tag]) -> bool:
    """Whether a scale and a tiepoint place the image."""
    tags = {tag.code: numbers_of(tag) for tag in geo if tag.code in (SCALE, TIEPOINT)}
    scale = tags.get(SCALE, ())
    return len(scale) >= 2 and scale[0] != 0 and scale[1] != 0 and len(tags.get(TIEPOINT, ())) >= 6


def numbers_of(tag: Tag) -> Numbers:
    """The numbers of a tag; empty for text and bytes."""
    return () if isinstance(tag.value, str | bytes) else tuple(float(number) for number in tag.value)


def _is_point(geo: Sequence[Tag]) -> bool:
    return _keys(geo).get(RASTER_TYPE) == IS_POINT


def epsg_of(geo: Sequence[Tag]) -> int | None:
    """The code of EPSG that the geo keys name for the reference system; None where they name none."""
    keys = _keys(geo)
    code = keys.get({1: 3072, 2: 2048}.get(keys.get(1024, 0), 0), USER_DEFINED)
    return None if code in (0, USER_DEFINED) else code


def names_system(geo: Sequence[Tag]) -> bool:
    """Whether the geo keys name or describe a reference system."""
    keys = _keys(geo)
    return any(keys.get(code, 0) for code in (1024, 2048, 3072))


def system_tags(geo: Sequence[Tag]) -> tuple[Tag, ...]:
    """The tags of the geo keys, and of the numbers and texts to which they point."""
    return tuple(tag for tag in geo if tag.code in GEO_CODES)


def _keys(geo: Sequence[Tag]) -> dict[int, int]:
    """The geo keys that hold a number themselves, by their code."""
    numbers = next((numbers_of(tag) for tag in geo if tag.code == GEO_KEYS), ())
    entries = [numbers[i : i + 4] for i in range(4, len(numbers) - 3, 4)]
    return {int(key): int(value) for key, place, _, value in entries if place == 0}


def moved(geo: Sequence[Tag], y: int, x: int) -> tuple[Tag, ...]:
    """The tags of the part of an image whose upper left pixel is pixel (``y``, ``x``) of the image.

    A scale keeps its tiepoint's pixel and gets its new place on the ground, as other programs expect the
    tiepoint at pixel (0, 0); ground control points keep their places and get new pixels; of rational
    polynomials the offsets of line and sample change.
    """
    scaled = has_scale(geo)
    scale = next((numbers_of(tag) for tag in geo if tag.code == SCALE), ())
    return tuple(_moved(tag, y, x, scale if scaled else None) for tag in geo)


def _moved(tag: Tag, y: int, x: int, scale: Numbers | None) -> Tag:
    """One tag of the part; ``scale`` is that of the image if it has one, and its tiepoints are no control
    points."""
    numbers = list(numbers_of(tag))
    if tag.code == TIEPOINT:
        for i in range(0, len(numbers) - 5, 6):
            if scale is None:
                numbers[i] -= x
                numbers[i + 1] -= y
            else:
                numbers[i + 3] += x * scale[0]
                numbers[i + 4] -= y * abs(scale[1])
    elif tag.code == MATRIX and len(numbers) == 16:
        for row in range(0, 12, 4):
            numbers[row + 3] += numbers[row] * x + numbers[row + 1] * y
    elif tag.code == RPC and len(numbers) == 92:
        numbers[2] -= y
        numbers[3] -= x
    else:
        return tag
    return replace(tag, value=tuple(numbers))
