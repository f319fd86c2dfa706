"""Reading the polygons of a GeoJSON file (RFC 7946) in pixels of an image.

Coordinates are longitude and latitude (WGS 84), or those of the member ``crs`` of older files (GeoJSON 2008,
section 3). For an image that is not georeferenced they are pixels from its upper left corner, as QuPath
writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput
from urst_tiles.source.crs import points_in_image
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import content_of
from urst_tiles.source.polygons import Polygon, Polygons, Ring
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import affine_of

#: The most bytes of a file that is read at once.
MOST_BYTES = 1 << 30

WGS84 = "OGC:CRS84"

#: Names of WGS 84 with longitude first.
_PLAIN = ("", "CRS84", "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84")


def read_polygons(source: Source, path: Path) -> Polygons:
    """The polygons of a file as an area of an image.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    BadInput : it is no GeoJSON, or holds no polygon; or its reference system cannot be used.
    """
    path = Path(path).absolute()
    check_file(path, "file of --aoi")
    if path.stat().st_size > MOST_BYTES:
        raise BadInput(f"{path} has more than {MOST_BYTES >> 20} MB; simplify its polygons first")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is no GeoJSON ({error}); write it anew, as with ogr2ogr out.geojson"
        ) from None
    try:
        polygons = tuple(tuple(_ring(ring) for ring in rings) for rings in _polygons(values) if rings)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise BadInput(f"{path} is no GeoJSON that can be read ({error or type(error).__name__})") from None
    if not polygons:
        raise BadInput(f"{path} holds no polygon; --aoi takes Polygon and MultiPolygon")
    digest = content_of((path,)).digest
    return Polygons(path, _in_pixels(source, path, polygons, _crs(values)), source.shape, digest)


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


def _ring(positions: Any) -> Ring:
    """A closed ring from positions [x, y] or [x, y, z]. Raises ValueError where it is none."""
    ring = np.array([(position[0], position[1]) for position in positions], np.float64)
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring of fewer than three positions, or of positions that are no numbers")
    return ring if (ring[0] == ring[-1]).all() else np.concatenate([ring, ring[:1]])


def _crs(values: Any) -> str:
    """The reference system of the coordinates."""
    member = values.get("crs")
    name = str((member.get("properties") or {}).get("name", "")) if isinstance(member, dict) else ""
    return WGS84 if name in _PLAIN else name


def _in_pixels(source: Source, path: Path, polygons: tuple[Polygon, ...], crs: str) -> tuple[Polygon, ...]:
    """Polygons in coordinates of ``crs`` in pixels of the upright image."""
    place = affine_of(source.info.geo)
    if place is None and source.info.geo:
        raise BadInput(
            f"{source.path} has ground control points or rational polynomials alone, by which the polygons of"
            f" {path} cannot be placed; warp it with gdalwarp first"
        )
    if place is None:
        return polygons
    every = np.concatenate([ring for polygon in polygons for ring in polygon])
    x, y = place.inverse(*points_in_image(source, every, crs, path).T)
    placed = np.stack([x, y], 1)
    if not np.isfinite(placed).all():
        raise BadInput(f"{path}: its coordinates have no place in the reference system of {source.path}")
    found, at = [], 0
    for polygon in polygons:
        rings = []
        for ring in polygon:
            rings.append(placed[at : at + len(ring)])
            at += len(ring)
        found.append(tuple(rings))
    return tuple(found)
