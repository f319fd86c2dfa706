"""The polygons of a file in pixels of an image: areas of interest, valid areas, regions of styles.

Coordinates are in the reference system that the file tells, in that of the image where it tells none, and for
an image that is not georeferenced in pixels from its upper left corner, as QuPath writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput
from urst_tiles.source.crs import points_in_image
from urst_tiles.source.feature_names import feature_names
from urst_tiles.source.features import Feature
from urst_tiles.source.geojson import read_geojson
from urst_tiles.source.geopackage import has_features, read_geopackage
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import content_of
from urst_tiles.source.polygons import Polygon, Polygons, Ring
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import affine_of

#: How an SQLite database begins, and so a GeoPackage.
SQLITE = b"SQLite format 3"

#: The most bytes of a file that is read.
MOST_BYTES = 1 << 30


def is_vector(path: Path, start: bytes) -> bool:
    """Whether a file that begins with ``start`` holds polygons, and not a picture."""
    if start.startswith(SQLITE):
        return has_features(path)
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" or path.suffix.lower() == ".geojson"


def read_polygons(source: Source, path: Path, flag: str = "--aoi", *, each: str | None = None) -> Polygons:
    """The polygons of a GeoJSON file or a GeoPackage as an area of an image.

    Parameters
    ----------
    flag : the option that names the file; with --aoi the box around them is the part that is made.
    each : what of each feature is the name of its own output, as for `feature_names`; None for one output.

    Raises
    ------
    MissingFile, BadInput : as `read_features` and `feature_names`.
    """
    path = Path(path).absolute()
    found = read_features(source, path, flag)
    polygons = tuple(polygon for _, own in found for polygon in own)
    area = Polygons(path, polygons, source.shape, content_of((path,)).digest, cuts=flag == "--aoi")
    if each is None:
        return area
    names, said = feature_names(path, [feature for feature, _ in found], each)
    counts = [len(own) for _, own in found]
    return replace(area, named=tuple(zip(names, counts, strict=True)), named_by=said)


def read_features(source: Source, path: Path, flag: str) -> list[tuple[Feature, tuple[Polygon, ...]]]:
    """The features of a GeoJSON file or a GeoPackage that have polygons, each with its polygons in pixels of
    an image. ``flag`` is the option that names the file.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    BadInput : it is neither of the two, or holds no polygon; or its reference system cannot be used.
    """
    start = check_file(path, f"file of {flag}")
    if path.stat().st_size > MOST_BYTES:
        raise BadInput(f"{path} has more than {MOST_BYTES >> 20} MB; simplify its polygons first")
    read = read_geopackage if start.startswith(SQLITE) else read_geojson
    found, crs = read(path)
    try:
        shaped = [
            (feature, [tuple(_ring(ring) for ring in rings) for rings in feature.polygons if rings])
            for feature in found
        ]
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from None
    shaped = [(feature, polygons) for feature, polygons in shaped if polygons]
    if not shaped:
        raise BadInput(f"{path} holds no polygon; {flag} takes polygons alone")
    every = [polygon for _, polygons in shaped for polygon in polygons]
    placed = iter(_in_pixels(source, path, every, crs, flag))
    return [(feature, tuple(next(placed) for _ in polygons)) for feature, polygons in shaped]


def _ring(positions: Any) -> Ring:
    """A closed ring from positions [x, y] or [x, y, z]. Raises ValueError where it is none."""
    ring = np.array([(position[0], position[1]) for position in positions], np.float64)
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring of fewer than three positions, or of positions that are no numbers")
    return ring if (ring[0] == ring[-1]).all() else np.concatenate([ring, ring[:1]])


def _in_pixels(
    source: Source, path: Path, polygons: Sequence[Polygon], crs: str, flag: str
) -> tuple[Polygon, ...]:
    """Polygons in coordinates of ``crs`` in pixels of the upright image."""
    place = affine_of(source.info.geo)
    if place is None and source.info.geo:
        raise BadInput(
            f"{source.path} has ground control points or rational polynomials alone, by which the polygons of"
            f" {path} cannot be placed; warp it with gdalwarp first"
        )
    if place is None:  # they are in pixels of the image that the user named, which may have been halved
        return tuple(tuple(ring / (1 << source.halvings) for ring in polygon) for polygon in polygons)
    every = np.concatenate([ring for polygon in polygons for ring in polygon])
    there = points_in_image(source, every, crs, f"{flag} {path}") if crs else every
    if not np.isfinite(there).all():
        raise BadInput(
            f"{path}: some of its coordinates have no place in the reference system of {source.path};"
            " cut it to the image first, as with ogr2ogr -clipsrc"
        )
    placed = np.stack(place.inverse(*there.T), 1)
    ends = np.cumsum([len(ring) for polygon in polygons for ring in polygon])[:-1]
    rings = iter(np.split(placed, ends))
    return tuple(tuple(next(rings) for _ in polygon) for polygon in polygons)
