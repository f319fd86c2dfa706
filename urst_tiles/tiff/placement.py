"""Where an image lies on the ground: the affine map of its GeoTIFF tags, and its reference system.

References: GeoTIFF 1.1 (OGC 19-008r4), sections 7.4 and B.6; GDAL's GTiff driver, whose geotransform is meant
here: it maps the corner of a pixel, also where the tags are about its centre (PixelIsPoint).
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from urst_tiles.tiff.metadata import GEO_CODES, POSITION_TAGS, Tag

#: (a, b, x, d, e, y): the pixel corner (column, row) lies at (a column + b row + x, d column + e row + y).
Affine = tuple[float, float, float, float, float, float]

#: Geo keys: the kind of model, whether the raster consists of points, and the codes of reference systems.
MODEL, RASTER, GEODETIC, PROJECTED = 1024, 1025, 2048, 3072

#: A code of this value stands for a system that the other keys define.
USER_DEFINED = 32767

#: Keys of texts for people, and that of the raster, which is about pixels alone.
_NO_SYSTEM = (RASTER, 1026, 2049, 3073, 4097)


def affine_of(tags: Sequence[Tag]) -> Affine | None:
    """The affine map of an image with these GeoTIFF tags.

    None where they do not say where its pixels lie, or only by ground control points or rational polynomials.
    """
    found = {tag.code: _numbers(tag) for tag in tags if tag.code in POSITION_TAGS}
    scale, point, matrix = (found.get(code, ()) for code in POSITION_TAGS)
    if len(scale) >= 2 and scale[0] and scale[1] and len(point) >= 6:
        a, e = scale[0], -abs(scale[1])
        affine = (a, 0.0, point[3] - point[0] * a, 0.0, e, point[4] - point[1] * e)
    elif len(matrix) == 16:
        affine = (matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7])
    else:
        return None
    a, b, x, d, e, y = affine
    if not all(map(math.isfinite, affine)) or a * e == b * d:
        return None
    if _keys(tags).get(RASTER) == 2:
        return a, b, x - a / 2 - b / 2, d, e, y - d / 2 - e / 2
    return affine


def _numbers(tag: Tag) -> tuple[float, ...]:
    return tuple(map(float, tag.value)) if isinstance(tag.value, tuple) else ()


def is_placed(tags: Sequence[Tag]) -> bool:
    """Whether the tags say anything about where the image lies, be it by points or polynomials."""
    return any(tag.code not in GEO_CODES for tag in tags)


def offset_of(affine: Affine, other: Affine, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Where the corners of another image lie in the pixels of this one.

    Parameters
    ----------
    affine, other : the affine maps of this image and of the other.
    shape : (height, width) of the other in pixels.

    Returns
    -------
    float64, (4, 2): (row, column) of the corners upper left, upper right, lower left and lower right.
    """
    a, b, x, d, e, y = affine
    h, w = shape
    corners = np.array([(0, 0), (0, w), (h, 0), (h, w)], np.float64)
    east = other[0] * corners[:, 1] + other[1] * corners[:, 0] + (other[2] - x)
    north = other[3] * corners[:, 1] + other[4] * corners[:, 0] + (other[5] - y)
    area = a * e - b * d
    return np.stack([(a * north - d * east) / area, (e * east - b * north) / area], axis=1)


def shifted(tags: Sequence[Tag], rows: int, columns: int) -> tuple[Tag, ...]:
    """The tags of an image whose upper left pixel is that at (``rows``, ``columns``) of an image with
    ``tags``, which `affine_of` understands; tags of ground control and rational polynomials are left out."""
    kept = {tag.code: tag for tag in tags if tag.code in (*POSITION_TAGS, *GEO_CODES)}
    scale, point, matrix = (_numbers(kept[c]) if c in kept else () for c in POSITION_TAGS)
    if len(scale) >= 2 and len(point) >= 6:
        kept.pop(POSITION_TAGS[2], None)
        moved = (*point[:3], point[3] + columns * scale[0], point[4] - rows * abs(scale[1]), point[5])
        kept[POSITION_TAGS[1]] = replace(kept[POSITION_TAGS[1]], count=6, value=moved)
    else:
        kept.pop(POSITION_TAGS[0], None)
        kept.pop(POSITION_TAGS[1], None)
        a, b, d, e = matrix[0], matrix[1], matrix[4], matrix[5]
        x, y = matrix[3] + a * columns + b * rows, matrix[7] + d * columns + e * rows
        moved = (*matrix[:3], x, *matrix[4:7], y, *matrix[8:])
        kept[POSITION_TAGS[2]] = replace(kept[POSITION_TAGS[2]], value=moved)
    return tuple(sorted(kept.values(), key=lambda tag: tag.code))


def keys_of(tags: Sequence[Tag]) -> tuple[Tag, ...]:
    """Those of the tags that hold geo keys."""
    return tuple(tag for tag in tags if tag.code in GEO_CODES)


def _keys(tags: Sequence[Tag]) -> dict[int, Hashable]:
    """The geo keys with their values: numbers, texts, or tuples of floats."""
    return _values(keys_of(tags))


@lru_cache(maxsize=64)
def _values(tags: tuple[Tag, ...]) -> dict[int, Hashable]:
    found = {tag.code: tag.value for tag in tags}
    directory, floats, text = (found.get(code, ()) for code in GEO_CODES)
    if not isinstance(directory, tuple):
        return {}
    texts = text.encode() if isinstance(text, str) else text if isinstance(text, bytes) else b""
    keys: dict[int, Hashable] = {}
    for at in range(4, len(directory) - 3, 4):
        key, where, count, value = (int(number) for number in directory[at : at + 4])
        if where == 0:
            keys[key] = value
        elif where == GEO_CODES[1] and isinstance(floats, tuple):
            keys[key] = tuple(float(f"{number:.12g}") for number in floats[value : value + count])
        elif where == GEO_CODES[2]:
            keys[key] = texts[value : value + count].rstrip(b"|\0")
    return keys


def system_of(tags: Sequence[Tag]) -> Hashable:
    """What tells the reference system of these tags from others; None where they name none.

    A system with a code is that code. Of a system that the keys define, the texts for people count too where
    nothing else defines it.
    """
    keys = _keys(tags)
    model = keys.get(MODEL)
    code = keys.get(PROJECTED if model == 1 else GEODETIC)
    if not any(key not in _NO_SYSTEM for key in keys):
        return None
    if isinstance(code, int) and 0 < code < USER_DEFINED:
        return (model, code, keys.get(4096))
    defined = tuple(sorted((key, value) for key, value in keys.items() if key not in _NO_SYSTEM))
    if any(isinstance(value, tuple) for _, value in defined):
        return defined
    return (*defined, *sorted((key, value) for key, value in keys.items() if key in _NO_SYSTEM[1:]))


def system_name(tags: Sequence[Tag]) -> str:
    """The reference system of these tags in words, as "EPSG:32632"."""
    system, keys = system_of(tags), _keys(tags)
    if system is None:
        return "no CRS"
    code = keys.get(PROJECTED if keys.get(MODEL) == 1 else GEODETIC)
    if isinstance(code, int) and 0 < code < USER_DEFINED:
        return f"EPSG:{code}"
    said = keys.get(3073) or keys.get(1026) or keys.get(2049)
    words = re.sub(r"\s+", " ", said.decode("utf-8", "replace")) if isinstance(said, bytes) else ""
    return words[:60] or "a CRS of its own"
