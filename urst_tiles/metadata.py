"""What travels beside the pixels: georeferencing, colour profile, resolution, how validity is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Validity = Literal["none", "alpha", "mask", "nodata"]

#: GeoTIFF 1.1 (OGC 19-008r4) tags that are copied as they are: ModelPixelScale, ModelTiepoint,
#: ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)


@dataclass(frozen=True)
class Tag:
    """One TIFF tag: code, TIFF data type (2 ASCII, 3 SHORT, 12 DOUBLE, ...), count, value."""

    code: int
    dtype: int
    count: int
    value: str | bytes | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Info:
    """Metadata of a source, as the output shall carry it.

    Attributes
    ----------
    geo : the GeoTIFF tags of ``GEO_TAGS`` that the file has (or that its world file tells).
    icc : ICC profile of the pixels handed out (RGB), or None for sRGB.
    pixels_per_cm : (y, x) resolution, or None when unknown. Microns per pixel are 1e4 / pixels_per_cm.
    gdal_metadata : GDAL's XML (tag 42112) without what new pixels make false, or None.
    nodata : nodata value as GDAL writes it (tag 42113), or None.
    validity : how the source tells which pixels are valid.
    """

    geo: tuple[Tag, ...] = ()
    icc: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None
    gdal_metadata: str | None = None
    nodata: str | None = None
    validity: Validity = "none"
