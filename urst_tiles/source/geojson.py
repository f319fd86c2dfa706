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
from urst_tiles.source.features import Feature

WGS84 = "OGC:CRS84"

#: Names of WGS 84 with longitude first.
_PLAIN = ("", "CRS84", "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84")


def read_geojson(path: Path) -> tuple[list[Feature], str]:
    """The features of a file, and the reference system of their positions. A geometry without a feature is
    one that has no attributes.

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
        return list(_features(values)), _crs(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} is no GeoJSON that can be read ({error or type(error).__name__})") from None


def _features(value: Any) -> Iterator[Feature]:
    """All features in a GeoJSON object."""
    kind = value["type"]
    if kind == "FeatureCollection":
        for feature in value["features"]:
            yield from _features(feature)
    elif kind == "Feature":
        found = [] if value["geometry"] is None else list(_polygons(value["geometry"]))
        yield Feature(found, dict(value.get("properties") or {}), value.get("id"))
    else:
        yield Feature(list(_polygons(value)), {})


def _polygons(value: Any) -> Iterator[list[Any]]:
    """The rings of all polygons in a geometry."""
    kind = value["type"]
    if kind == "GeometryCollection":
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
