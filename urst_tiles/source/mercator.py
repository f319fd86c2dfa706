"""Georeferenced images in the tiles of web maps (XYZ): squares of Web Mercator, EPSG:3857, 256 pixels wide.

At zoom z the world has 2 ** z tiles on a side, counted from its upper left corner. Reference: OGC 17-083r2
(Two Dimensional Tile Matrix Set), annex D.1, WebMercatorQuad.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, halved
from urst_tiles.source.crs import image_crs, known_crs, rasterio_for, transformed
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import Placement, affine_of

#: Half the side of the world in metres, the side of a tile in pixels, and the largest zoom.
HALF, SIDE, MOST_ZOOM = 20037508.342789244, 256, 30

#: The latitude, in degrees, at which the map ends: that of the upper edge of tile 0/0/0.
EDGE = math.degrees(math.atan(math.sinh(math.pi)))

#: A tile is transformed at so many places on each side to see which pixels it needs.
PLACES = 17

#: Around the pixels of a tile so many more are read, for resampling.
MARGIN = 2

#: The most pixels that are read for a tile; where it needs more, it is made of a smaller level.
MOST_PIXELS = 1 << 21

#: What tiles are a layer of, in messages.
LAYER = "a map layer"

#: Reads the pixels, uint8, (h, w, 3 or 4), of a box of the image that was halved so often.
Reading = Callable[[int, Box], NDArray[np.uint8]]


@dataclass(frozen=True)
class MapLayer:
    """Where an image lies on web maps; made by `layer_of`.

    Attributes
    ----------
    shape : (height, width) of the image in pixels.
    place : of its pixels on the ground.
    crs : its reference system, a `rasterio.crs.CRS`.
    bounds : (west, south, east, north) in degrees of longitude and latitude.
    zoom : the zoom at which a pixel of a tile is as fine as one of the image.
    """

    shape: tuple[int, int]
    place: Placement
    crs: Any
    bounds: tuple[float, float, float, float]
    zoom: int

    def tile(self, z: int, x: int, y: int, read: Reading) -> NDArray[np.uint8] | None:
        """The pixels, uint8, (256, 256, 4), of a tile; None if nothing of the image lies in it.

        They are interpolated bilinearly from the level of the image that is the next finer, and transparent
        outside of the image.

        Raises
        ------
        BadInput : there is no such tile.
        """
        found = self._needs(*bounds_of(z, x, y))
        if found is None:
            return None
        halvings, box = found
        pixels = read(halvings, box)
        scale = float(1 << halvings)
        c, f = self.place(box.x0 * scale, box.y0 * scale)
        a, b, d, e = (n * scale for n in (self.place.a, self.place.b, self.place.d, self.place.e))
        return _warped(pixels, (a, b, c, d, e, f), self.crs, bounds_of(z, x, y))

    def _needs(self, west: float, south: float, east: float, north: float) -> tuple[int, Box] | None:
        """How often the image is to be halved for a tile, and the box of it that the tile needs."""
        columns, rows = np.meshgrid(np.linspace(west, east, PLACES), np.linspace(north, south, PLACES))
        points = np.stack([columns.ravel(), rows.ravel()], 1)
        at = transformed(points, known_crs("EPSG:3857", LAYER), self.crs)
        px, py = self.place.inverse(at[:, 0], at[:, 1])
        there = np.isfinite(px) & np.isfinite(py)
        if not there.any():
            return None
        halvings = self._halvings(np.where(there, px, np.nan), np.where(there, py, np.nan))
        px, py = px[there], py[there]
        while True:
            h, w = halved(self.shape, halvings)
            x0, x1, y0, y1 = (float(n) / (1 << halvings) for n in (px.min(), px.max(), py.min(), py.max()))
            if x1 <= 0 or y1 <= 0 or x0 >= w or y0 >= h:
                return None
            whole = Box(0, 0, h, w)
            x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(w)), min(y1, float(h))
            box = Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)).grow(MARGIN).clip(whole)
            if box.area <= MOST_PIXELS or max(h, w) == 1:
                return halvings, box
            halvings += 1

    def _halvings(self, px: NDArray[Any], py: NDArray[Any]) -> int:
        """How often the image is to be halved so that its pixels are just finer than those of a tile."""
        px, py = px.reshape(PLACES, PLACES), py.reshape(PLACES, PLACES)
        steps = [np.hypot(np.diff(px, axis=k), np.diff(py, axis=k)).ravel() for k in (0, 1)]
        step = np.concatenate(steps)
        step = step[np.isfinite(step)]
        finest = float(np.median(step)) * (PLACES - 1) / SIDE if step.size else 1.0
        most = (max(self.shape) - 1).bit_length()
        return min(max(0, math.floor(math.log2(max(finest, 1e-9)) + 1e-6)), most)


def layer_of(source: Source) -> MapLayer:
    """Where an image lies on web maps.

    Raises
    ------
    BadInput : it is not georeferenced by an affine map, it has no place in Web Mercator, or rasterio is not
        installed.
    """
    place = affine_of(source.info.geo)
    if place is None:
        how = "has ground control points or rational polynomials alone; warp it first (gdalwarp)"
        how = how if source.info.geo else "is not georeferenced"
        raise BadInput(f"{source.path.name} {how}, and {LAYER} needs a place on the ground")
    crs, (h, w) = image_crs(source, LAYER), source.shape
    grid = np.array([place(x, y) for x in np.linspace(0, w, PLACES) for y in np.linspace(0, h, PLACES)])
    degrees = transformed(grid, crs, known_crs("EPSG:4326", LAYER))
    metres = transformed(grid, crs, known_crs("EPSG:3857", LAYER))
    there = np.isfinite(degrees).all(1) & np.isfinite(metres).all(1) & (abs(metres[:, 1]) <= HALF * 1.000001)
    if there.sum() < 2:
        raise BadInput(
            f"{source.path.name} has no place in Web Mercator, which ends at 85 degrees of latitude"
        )
    known = degrees[np.isfinite(degrees).all(1)].clip((-180, -EDGE), (180, EDGE))
    (west, south), (east, north) = known.min(0), known.max(0)
    bounds = (float(west), float(south), float(east), float(north))
    return MapLayer(source.shape, place, crs, bounds, _zoom(place, crs, (h, w), there))


def _zoom(place: Placement, crs: Any, shape: tuple[int, int], there: NDArray[np.bool_]) -> int:
    """The zoom at which a pixel of a tile is as fine as one in the middle of what has a place on the map.

    ``there`` says of each place of the grid over the image whether it has one.
    """
    rows, columns = np.nonzero(there.reshape(PLACES, PLACES).T)
    y, x = (float(np.median(n)) / (PLACES - 1) * side for n, side in ((rows, shape[0]), (columns, shape[1])))
    around = np.array([place(x, y), place(x + 1, y), place(x, y + 1)])
    at = transformed(around, crs, known_crs("EPSG:3857", LAYER))
    across, down = at[1] - at[0], at[2] - at[0]
    pixel = math.sqrt(abs(across[0] * down[1] - across[1] * down[0])) if np.isfinite(at).all() else 1.0
    zoom = math.ceil(math.log2(2 * HALF / SIDE / max(pixel, 1e-6)) - 0.01)
    return min(max(zoom, 0), MOST_ZOOM)


def bounds_of(z: int, x: int, y: int) -> tuple[float, float, float, float]:
    """(west, south, east, north) of a tile in metres of Web Mercator. BadInput if there is no such tile."""
    if not (0 <= z <= MOST_ZOOM and 0 <= x < 1 << z and 0 <= y < 1 << z):
        raise BadInput(f"there is no tile {z}/{x}/{y}")
    side = 2 * HALF / (1 << z)
    return x * side - HALF, HALF - (y + 1) * side, (x + 1) * side - HALF, HALF - y * side


def _warped(
    pixels: NDArray[np.uint8],
    affine: tuple[float, ...],
    crs: Any,
    bounds: tuple[float, float, float, float],
) -> NDArray[np.uint8]:
    """Pixels whose place and reference system are given, in a tile; colours are weighted by alpha."""
    rasterio = rasterio_for(LAYER)
    alpha = pixels[..., 3:] if pixels.shape[2] == 4 else np.full((*pixels.shape[:2], 1), 255, np.uint8)
    weights = alpha.astype(np.float32) / 255
    bands = np.concatenate([pixels[..., :3] * weights, weights], 2, dtype=np.float32).transpose(2, 0, 1)
    out = np.zeros((4, SIDE, SIDE), np.float32)
    west, _, east, north = bounds
    step = (east - west) / SIDE
    try:
        rasterio.warp.reproject(
            np.ascontiguousarray(bands),
            out,
            src_transform=rasterio.Affine(*affine),
            src_crs=crs,
            dst_transform=rasterio.Affine(step, 0, west, 0, -step, north),
            dst_crs=known_crs("EPSG:3857", LAYER),
            resampling=rasterio.enums.Resampling.bilinear,
        )
    except Exception as error:  # rasterio passes on errors of GDAL and PROJ in several types
        raise BadInput(f"this place cannot be brought into Web Mercator; GDAL says: {error}") from None
    weight = out[3]
    colours = out[:3] / np.maximum(weight, 1e-6)
    made = np.concatenate([colours * (weight > 0), 255 * weight[None]])
    return np.rint(np.clip(made, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
