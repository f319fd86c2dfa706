"""Areas of interest: the polygons of a file in pixels of an image.

Coordinates are in the reference system that the file tells, in that of the image where it tells none, and for
an image that is not georeferenced in pixels from its upper left corner, as QuPath writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput
from urst_tiles.source.crs import points_in_image
from urst_tiles.source.geojson import read_geojson
from urst_tiles.source.geopackage import read_geopackage
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import content_of
from urst_tiles.source.polygons import Polygon, Polygons, Ring
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import affine_of

#: The most bytes of a file that is read.
MOST_BYTES = 1 << 30


def read_polygons(source: Source, path: Path) -> Polygons:
    """The polygons of a GeoJSON file or a GeoPackage as an area of an image.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    BadInput : it is neither of the two, or holds no polygon; or its reference system cannot be used.
    """
    path = Path(path).absolute()
    start = check_file(path, "file of --aoi")
    if path.stat().st_size > MOST_BYTES:
        raise BadInput(f"{path} has more than {MOST_BYTES >> 20} MB; simplify its polygons first")
    read = read_geopackage if start.startswith(b"SQLite format 3") else read_geojson
    found, crs = read(path)
    try:
        polygons = tuple(tuple(_ring(ring) for ring in rings) for rings in found if rings)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from None
    if not polygons:
        raise BadInput(f"{path} holds no polygon; --aoi takes polygons alone")
    digest = content_of((path,)).digest
    return Polygons(path, _in_pixels(source, path, polygons, crs), source.shape, digest)


def _ring(positions: Any) -> Ring:
    """A closed ring from positions [x, y] or [x, y, z]. Raises ValueError where it is none."""
    ring = np.array([(position[0], position[1]) for position in positions], np.float64)
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring of fewer than three positions, or of positions that are no numbers")
    return ring if (ring[0] == ring[-1]).all() else np.concatenate([ring, ring[:1]])


def _in_pixels(source: Source, path: Path, polygons: Sequence[Polygon], crs: str) -> tuple[Polygon, ...]:
    """Polygons in coordinates of ``crs`` in pixels of the upright image."""
    place = affine_of(source.info.geo)
    if place is None and source.info.geo:
        raise BadInput(
            f"{source.path} has ground control points or rational polynomials alone, by which the polygons of"
            f" {path} cannot be placed; warp it with gdalwarp first"
        )
    if place is None:
        return tuple(polygons)
    every = np.concatenate([ring for polygon in polygons for ring in polygon])
    there = points_in_image(source, every, crs, path) if crs else every
    placed = np.stack(place.inverse(*there.T), 1)
    if not np.isfinite(placed).all():
        raise BadInput(f"{path}: its coordinates have no place in the reference system of {source.path}")
    ends = np.cumsum([len(ring) for polygon in polygons for ring in polygon])[:-1]
    rings = iter(np.split(placed, ends))
    return tuple(tuple(next(rings) for _ in polygon) for polygon in polygons)
