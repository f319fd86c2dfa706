"""Coordinates in another reference system than that of the image, by rasterio (GDAL and PROJ).

Nothing else needs rasterio, which is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.source.esri_wkt import wkt_of
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import epsg_of

#: How many places on each side of a box are transformed, since straight lines become curves.
DENSE = 21


def box_in_image(source: Source, bbox: Sequence[float], crs: str) -> tuple[float, ...]:
    """A box (min x, min y, max x, max y) of the system ``crs`` in that of the image: the smallest that holds
    it. Longitude comes before latitude, whatever the authority says.

    Raises
    ------
    BadInput : rasterio is not installed, a reference system is not known, or the box has no place in the
        image's.
    """
    flag = "--bbox-crs"
    warp, found, wanted = rasterio_for(flag).warp, image_crs(source, flag), known_crs(crs, flag)
    if found == wanted:
        return tuple(bbox)
    try:
        return tuple(warp.transform_bounds(wanted, found, *bbox, densify_pts=DENSE))
    except Exception as error:  # rasterio passes on errors of PROJ in several types
        raise BadInput(
            f"{source.path}: --bbox {','.join(f'{n:.15g}' for n in bbox)} of {crs} has no place in the"
            f" reference system of the image ({error})"
        ) from None


def points_in_image(source: Source, points: NDArray[np.float64], crs: str, flag: str) -> NDArray[np.float64]:
    """Points (x, y), float64, (n, 2), of the system ``crs`` in that of the image; infinite where they have no
    place there. ``flag`` is the option, with its file, that they come from.

    Raises
    ------
    BadInput : rasterio is not installed, or a reference system is not known.
    """
    found, wanted = image_crs(source, flag), known_crs(crs, flag)
    return points if found == wanted else transformed(points, wanted, found)


def transformed(points: NDArray[np.float64], given: Any, wanted: Any) -> NDArray[np.float64]:
    """Points (x, y), float64, (n, 2), of a `rasterio.crs.CRS` in another; infinite where they have no place
    there. PROJ fails for all points if one of them has none, so these are found by halving."""
    try:
        moved = rasterio_for("a reference system").warp.transform(given, wanted, *points.T)
    except Exception:  # rasterio passes on errors of PROJ in several types
        if len(points) < 2:
            return np.full_like(points, np.inf)
        halves = np.array_split(points, 2)
        return np.concatenate([transformed(half, given, wanted) for half in halves])
    return np.stack([np.array(line) for line in moved[:2]], 1)


def image_crs(source: Source, flag: str) -> Any:
    """The reference system of an image, a `rasterio.crs.CRS`. Raises BadInput, which names ``flag``, if it
    has none."""
    rasterio = rasterio_for(flag)
    code = epsg_of(source.info.geo)
    if code is not None:
        return rasterio.crs.CRS.from_epsg(code)
    try:
        with rasterio.open(source.path) as file:
            crs = file.crs
    except rasterio.errors.RasterioError:
        crs = None
    if crs is None and (text := wkt_of(source.info.geo)) is not None:  # of a .prj, or of a mosaic's files
        crs = rasterio.crs.CRS.from_wkt(text)
    if crs is None:
        raise BadInput(
            f"{source.path} does not tell its reference system, which {flag} needs: write it into the image"
            " with gdal_edit -a_srs"
        )
    return crs


def known_crs(text: str, flag: str) -> Any:
    """The reference system that a text such as "EPSG:4326" names, a `rasterio.crs.CRS`; BadInput if none."""
    rasterio = rasterio_for(flag)
    try:
        return rasterio.crs.CRS.from_user_input(text)
    except (rasterio.errors.CRSError, ValueError) as error:
        raise BadInput(f"{flag} {text!r} is no reference system, such as EPSG:4326 ({error})") from None


def rasterio_for(flag: str) -> Any:
    """The library rasterio; BadInput, which names ``flag``, where it is not installed."""
    try:
        import rasterio
        import rasterio.crs
        import rasterio.enums
        import rasterio.errors
        import rasterio.warp
    except ImportError:
        raise BadInput(f"{flag} needs rasterio: pip install 'urst-tiles[gdal]'") from None
    return rasterio
