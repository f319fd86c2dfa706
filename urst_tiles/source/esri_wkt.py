"""Files ``.prj``: a reference system in ESRI's well-known text (WKT), beside a picture and its world file.

ESRI's text has no codes of EPSG. Those of the systems that most pictures are in follow from its names; all
others need rasterio (GDAL and PROJ).

References: OGC 01-009; ESRI, "World files for raster datasets"; GDAL's `OSRMorphFromESRI`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from urst_tiles.source.gdal import INSTALL, environment, library, quiet
from urst_tiles.tiff.georeference import epsg_keys
from urst_tiles.tiff.metadata import Tag
from urst_tiles.tiff.position import epsg_of, system_tags
from urst_tiles.tiff.types import DOUBLE, LONG, SHORT
from urst_tiles.tiff.writing import CLASSIC, directory, field, header, tag_field

#: ESRI's names of systems, and their codes of EPSG; of zones the code is this number and the zone.
_NAMES = {
    "GCS_WGS_1984": 4326, "GCS_ETRS_1989": 4258, "GCS_North_American_1983": 4269,
    "WGS_1984_Web_Mercator_Auxiliary_Sphere": 3857,
}  # fmt: skip
_ZONES = {
    ("WGS_1984", "N"): 32600, ("WGS_1984", "S"): 32700, ("ETRS_1989", "N"): 25800, ("NAD_1983", "N"): 26900,
}  # fmt: skip
_ZONE = re.compile(r"(WGS_1984|ETRS_1989|NAD_1983)_UTM_Zone_(\d{1,2})([NS])")

#: Why a ``.prj`` is not read.
NO_WKT = "the CRS of its .prj, which is no WKT"
UNREAD = f"the CRS of its .prj, which needs rasterio ({INSTALL})"


def prj_text(geo: Sequence[Tag]) -> str | None:
    """The text of a ``.prj`` for the reference system of GeoTIFF tags; None where they have none that GDAL
    knows, or rasterio is not installed."""
    tags = system_tags(geo)
    return _wkt(tags, "WKT1_ESRI") if tags and library() is not None else None


def wkt_of(geo: Sequence[Tag]) -> str | None:
    """The WKT of the same system, as GDAL writes it."""
    tags = system_tags(geo)
    return _wkt(tags, None) if tags and library() is not None else None


@lru_cache(maxsize=16)
def _wkt(tags: tuple[Tag, ...], version: str | None) -> str | None:
    rasterio = library()
    with environment(remote=False), quiet():
        try:
            code = epsg_of(tags)
            crs = rasterio.crs.CRS.from_epsg(code) if code is not None else _crs_of(tags)
            return str(crs.to_wkt(**({"version": version} if version else {}))) if crs else None
        except (rasterio.errors.RasterioError, rasterio.errors.CRSError):
            return None


def _crs_of(tags: tuple[Tag, ...]) -> Any:
    """The reference system that GDAL finds in GeoTIFF tags, a `rasterio.crs.CRS` or None."""
    place = [field(33550, DOUBLE, 1, 1, 0), field(33922, DOUBLE, 0, 0, 0, 0, 0, 0)]
    pixel = [field(code, SHORT, value) for code, value in _ONE_PIXEL.items()]
    fields = [*pixel, field(273, LONG, 0), field(279, LONG, 1), *place, *map(tag_field, tags)]
    block = header(8, CLASSIC) + b"".join(directory(fields, 8, 0, CLASSIC))
    with library().MemoryFile(block) as memory, memory.open() as file:
        return file.crs


#: Tags of a picture of one grey pixel.
_ONE_PIXEL = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}


@lru_cache(maxsize=64)
def prj_block(text: str) -> tuple[bytes, str]:
    """The reference system of a ``.prj`` as a small GeoTIFF in memory, and why it cannot be read; one of the
    two is empty."""
    wkt = text.strip()
    if not re.match(r"(PROJCS|GEOGCS|COMPD_CS|PROJCRS|GEOGCRS|COMPOUNDCRS|GEODCRS)\s*\[", wkt):
        return b"", NO_WKT
    keys = epsg_keys(wkt) or _by_name(wkt)
    if keys:
        return _block(keys), ""
    rasterio = library()
    if rasterio is None:
        return b"", UNREAD
    with environment(remote=False), quiet():
        try:
            crs = rasterio.crs.CRS.from_wkt(wkt, morph_from_esri_dialect=True)
            code = crs.to_epsg()
            if code:
                return _block(_keys(int(code), crs.is_projected)), ""
            return _written(crs), ""
        except (rasterio.errors.RasterioError, rasterio.errors.CRSError):
            return b"", NO_WKT


def _by_name(wkt: str) -> tuple[Tag, ...]:
    """The geo keys of a system that one of ESRI's names tells; empty for any other."""
    found = re.match(r'\w+\s*\[\s*"([^"]*)"', wkt)
    name = found[1] if found else ""
    zone = _ZONE.fullmatch(name)
    code = _NAMES.get(name)
    if zone and 1 <= int(zone[2]) <= 60 and (base := _ZONES.get((zone[1], zone[3]))) is not None:
        code = base + int(zone[2])
    return _keys(code, wkt.startswith("PROJ")) if code is not None else ()


def _keys(code: int, projected: bool) -> tuple[Tag, ...]:
    return epsg_keys(f'{"PROJCS" if projected else "GEOGCS"}["",AUTHORITY["EPSG","{code}"]]')


def _block(keys: Sequence[Tag]) -> bytes:
    """A TIFF without pixels that holds geo keys."""
    fields = [tag_field(tag) for tag in keys]
    return header(8, CLASSIC) + b"".join(directory(fields, 8, 0, CLASSIC))


def _written(crs: Any) -> bytes:
    """The GeoTIFF of one pixel in which GDAL wrote a reference system."""
    with library().MemoryFile() as memory:
        with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=crs):
            pass
        return bytes(memory.read())
