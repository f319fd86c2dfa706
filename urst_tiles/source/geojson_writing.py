"""Writing polygons on an image as GeoJSON (RFC 7946), as `urst_tiles.source.aoi` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.source.crs import image_crs
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import affine_of, epsg_of


def geojson_of(
    source: Source, polygons: Iterable[tuple[Sequence[tuple[float, float]], Mapping[str, Any]]]
) -> bytes:
    """Polygons as a GeoJSON file.

    Coordinates are those of the image's reference system, which the member ``crs`` names (GeoJSON 2008,
    section 3); for an image that is not georeferenced they are pixels.

    Parameters
    ----------
    polygons : of each the corners (x, y) in pixels of the upright image, and its attributes.

    Raises
    ------
    BadInput : the image is georeferenced by points alone, or in a system that it does not name.
    """
    place, crs = affine_of(source.info.geo), {}
    if place is None and source.info.geo:
        raise BadInput(
            f"{source.path} has ground control points or rational polynomials alone, by which polygons cannot"
            " be placed; warp it with gdalwarp first"
        )
    if place is not None:
        code = epsg_of(source.info.geo)
        name = f"EPSG:{code}" if code else image_crs(source, "a polygon").to_wkt()
        crs = {"crs": {"type": "name", "properties": {"name": name}}}
    features = []
    for corners, attributes in polygons:
        ring = [place(x, y) if place else (x, y) for x, y in (*corners, corners[0])]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": dict(attributes), "geometry": geometry})
    return json.dumps({"type": "FeatureCollection", **crs, "features": features}).encode()
