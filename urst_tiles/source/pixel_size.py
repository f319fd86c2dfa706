"""How large the pixels of an image are in metres: on the ground, in a specimen, or on paper.

Distances on the ground are those on the ellipsoid of the World Geodetic System 1984 (EPSG:4326).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput
from urst_tiles.lengths import in_words
from urst_tiles.source.crs import image_crs, known_crs, transformed
from urst_tiles.source.source import Source
from urst_tiles.tiff.position import Placement, affine_of, is_placed, names_system

#: The equatorial radius in metres and the squared eccentricity of the ellipsoid of WGS 84.
RADIUS, ECCENTRICITY_SQUARED = 6378137.0, 0.00669437999014

#: Pixels per cm that libvips writes where the resolution is unknown.
_UNKNOWN = (10.0, 10.0)


@dataclass(frozen=True)
class PixelSize:
    """The size of a pixel.

    Attributes
    ----------
    metres : (y, x) sides in metres.
    known_by : where the size comes from, in words.
    """

    metres: tuple[float, float]
    known_by: str

    @property
    def side(self) -> float:
        """The side in metres of a square pixel of the same area."""
        return math.sqrt(self.metres[0] * self.metres[1])


def pixel_size(source: Source, flag: str) -> PixelSize:
    """The size of the pixels of an image, or of the level of it that is read.

    The georeference comes first, if it has a reference system: the distances on the ground of pixels in the
    middle of the image, also where the units of the system are feet or degrees, or where it stretches the
    ground as Web Mercator does. Next is the size that a microscope or a scanner of slides tells, and last the
    density for printing.

    Parameters
    ----------
    flag : the option that needs the size, for messages.

    Raises
    ------
    BadInput : the file does not tell the size; or rasterio is not installed and the image is georeferenced.
    """
    info = source.info
    place = affine_of(info.geo)
    if place is not None and names_system(info.geo):
        return _on_the_ground(source, place, flag)
    if info.microns_per_pixel is not None:
        y, x = info.microns_per_pixel
        return PixelSize((y * 1e-6, x * 1e-6), f"{in_words(math.sqrt(y * x) * 1e-6)} per pixel")
    if info.pixels_per_cm is not None and info.pixels_per_cm != _UNKNOWN:
        y, x = info.pixels_per_cm
        return PixelSize((0.01 / y, 0.01 / x), f"{math.sqrt(y * x) * 2.54:.4g} pixels per inch")
    raise BadInput(
        f"{source.path} does not tell how large its pixels are, which {flag} needs: {_advice(info)}"
    )


def _advice(info: Any) -> str:
    """What to do about an image whose pixels have no known size."""
    if is_placed(info.geo) and affine_of(info.geo) is None:
        return "it is placed by control points or polynomials; rectify it first (gdalwarp)"
    if is_placed(info.geo):
        return "its georeference has no reference system; write one (gdal_edit -a_srs)"
    return "write its resolution or georeference into it, or give a number such as 4"


def _on_the_ground(source: Source, place: Placement, flag: str) -> PixelSize:
    """The size from the georeference, in the middle of the image."""
    crs, (h, w) = image_crs(source, flag), source.shape
    middle = (w / 2, h / 2)
    ends = np.array([place(*middle), place(middle[0], middle[1] + 1), place(middle[0] + 1, middle[1])])
    degrees = transformed(ends, crs, known_crs("EPSG:4326", flag))
    if np.isfinite(degrees).all() and (abs(degrees[:, 1]) <= 90).all():
        y, x = (_distance(degrees[0], end) for end in degrees[1:])
        where = f" at latitude {degrees[0, 1]:.1f}" if crs.is_geographic else ""
        said = f"{in_words(math.sqrt(y * x))} per pixel{where}" if y * x > 0 else ""
    elif crs.is_projected:  # of another body than the Earth, or a system of its own
        factor = crs.linear_units_factor[1]
        y, x = (factor * math.hypot(*(end - ends[0])) for end in ends[1:])
        said = f"{in_words(math.sqrt(y * x))} per pixel"
    else:
        y = x = 0.0
    if not y * x > 0:
        raise BadInput(
            f"{source.path}: its georeference puts the middle of the image nowhere on the Earth, so that"
            f" {flag} cannot be told in pixels; mend it (gdal_edit), or give a number such as 4"
        )
    return PixelSize((y, x), said)


def _distance(a: Any, b: Any) -> float:
    """The distance in metres of two near places (longitude, latitude) in degrees, on the ellipsoid."""
    latitude = math.radians((a[1] + b[1]) / 2)
    across = 1 - ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    north = math.radians(b[1] - a[1]) * RADIUS * (1 - ECCENTRICITY_SQUARED) / across**1.5
    turn = (b[0] - a[0] + 180) % 360 - 180
    return math.hypot(north, math.radians(turn) * RADIUS * math.cos(latitude) / math.sqrt(across))
