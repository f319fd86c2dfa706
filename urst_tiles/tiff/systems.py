"""Reference systems that GeoTIFF tags name or define, compared and in words.

Reference: GeoTIFF 1.1 (OGC 19-008r4), sections 7.4 and B.6.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import lru_cache

from urst_tiles.tiff.metadata import GEO_CODES, Tag
from urst_tiles.tiff.position import RASTER_TYPE, USER_DEFINED, system_tags

#: Geo keys: the kind of model, and the codes of reference systems.
MODEL, GEODETIC, PROJECTED = 1024, 2048, 3072

#: Keys of texts for people, and that of the raster, which is about pixels alone.
_NO_SYSTEM = (RASTER_TYPE, 1026, 2049, 3073, 4097)


def _keys(tags: Sequence[Tag]) -> dict[int, Hashable]:
    """The geo keys with their values: numbers, texts, or tuples of floats."""
    return _values(system_tags(tags))


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
