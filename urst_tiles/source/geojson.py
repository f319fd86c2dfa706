"""Reading the polygons of a GeoJSON file (RFC 7946).

Coordinates are longitude and latitude (WGS 84), or those of the member ``crs`` of older files (GeoJSON 2008,
section 3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput

WGS84 = "OGC:CRS84"

#: Names of WGS 84 with longitude first.
_PLAIN = ("", "CRS84", "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84")


def read_geojson(path: Path) -> tuple[list[Any], str]:
    """The polygons of a file, each a list of rings of positions, and the reference system of these.

    Raises
    ------
    BadInput : the file is no GeoJSON.
    """
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is no GeoJSON ({error}); write it anew, as with ogr2ogr out.geojson"
        ) from None
    try:
        return list(_polygons(values)), _crs(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} is no GeoJSON that can be read ({error or type(error).__name__})") from None


def _polygons(value: Any) -> Iterator[list[Any]]:
    """The rings of all polygons in a GeoJSON object, whatever it is wrapped in."""
    kind = value["type"]
    if kind == "FeatureCollection":
        for feature in value["features"]:
            yield from _polygons(feature)
    elif kind == "Feature":
        if value["geometry"] is not None:
            yield from _polygons(value["geometry"])
    elif kind == "GeometryCollection":
        for geometry in value["geometries"]:
            yield from _polygons(geometry)
    elif kind == "MultiPolygon":
        yield from value["coordinates"]
    elif kind == "Polygon":
        yield value["coordinates"]
    elif kind not in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise ValueError(f"it has an object of type {kind!r}")


def _crs(values: Any) -> str:
    """The reference system of the coordinates."""
    member = values.get("crs")
    name = str((member.get("properties") or {}).get("name", "")) if isinstance(member, dict) else ""
    return WGS84 if name in _PLAIN else name
