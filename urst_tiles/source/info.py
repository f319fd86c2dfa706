"""The metadata of an image file that its output takes over, from tags, header fields and sidecar files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.metadata import (
    GEO_TAGS,
    Info,
    Tag,
    Validity,
    aperio_resolution,
    clean_gdal_metadata,
    geo_tag,
    is_rgb_profile,
    sane_resolution,
    tag_resolution,
    with_world_file,
)


def tiff_info(main: Directory, validity: Validity, world: str | None, orientation: int) -> Info:
    """The metadata in the main directory of a TIFF.

    Parameters
    ----------
    main : the directory of the image at full resolution.
    validity : the way in which the source marks pixels as valid or invalid.
    world : the text of the world file, or None.
    orientation : 1 to 8, as TIFF's tag 274.

    Raises
    ------
    BadInput : the GDAL metadata is not safe to read, or the georeferencing makes no sense.
    """
    geo = with_world_file(tuple(_tag(main, code) for code in GEO_TAGS if code in main.entries), world)
    resolution = aperio_resolution(main.description) or tag_resolution(
        _rational(main, 283), _rational(main, 282), main.number(296, 2)
    )
    profile = main.raw(34675) or None
    return Info(
        geo=geo,
        icc=profile if profile and is_rgb_profile(profile) and main.number(262) != 5 else None,
        pixels_per_cm=_turned(resolution, orientation),
        gdal_metadata=clean_gdal_metadata(main.text(42112), str(main.path)),
        nodata=main.text(42113),
        validity=validity,
    )


def vips_info(image: Any, validity: Validity, world: str | None, orientation: int) -> Info:
    """The metadata that libvips reports for an image of any other format; parameters as in `tiff_info`."""
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
    profile = bytes(profile) if profile is not None else None
    # libvips reports one pixel per mm if the file does not state a resolution.
    stated = (image.xres, image.yres) != (1.0, 1.0)
    resolution = sane_resolution(image.yres * 10, image.xres * 10) if stated else None
    return Info(
        geo=with_world_file((), world),
        icc=profile if profile and is_rgb_profile(profile) and image.interpretation != "cmyk" else None,
        pixels_per_cm=_turned(resolution, orientation),
        validity=validity,
    )


@dataclass(frozen=True)
class Sidecars:
    """Files that belong to an image and lie in its folder.

    Attributes
    ----------
    mask : path of GDAL's mask ``NAME.EXT.msk``, or None.
    world_path, world : path and text of the world file, or None.
    """

    mask: Path | None
    world_path: Path | None
    world: str | None

    @property
    def all(self) -> tuple[Path, ...]:
        """The paths of the sidecars that exist."""
        return tuple(path for path in (self.mask, self.world_path) if path is not None)


def find_sidecars(path: Path) -> Sidecars:
    """Find the sidecars of the image file ``path``. World files of 4096 bytes or more are ignored."""
    mask = path.with_name(path.name + ".msk")
    for world in _world_names(path):
        if os.path.isfile(world) and world.stat().st_size < 4096:
            return Sidecars(
                mask if os.path.isfile(mask) else None, world, world.read_text("utf-8", "replace")
            )
    return Sidecars(mask if os.path.isfile(mask) else None, None, None)


def _world_names(path: Path) -> Iterator[Path]:
    """The names that a world file may have, in the order in which GDAL tries them.

    For ``a.tif`` the suffixes are ``.tfw``, ``.tifw`` and ``.wld``, each in lower and upper case.
    """
    suffix = path.suffix.lower()
    names = [f".{suffix[1]}{suffix[-1]}w"] if len(suffix) > 3 else []
    for name in (*names, suffix + "w" if suffix else ".w", ".wld"):
        yield path.with_suffix(name)
        yield path.with_suffix(name.upper())


def _tag(main: Directory, code: int) -> Tag:
    """A GeoTIFF tag of the directory. Raises BadInput where its value makes no sense."""
    numbers = _numbers(main, code)
    return geo_tag(code, numbers, main.raw(code), str(main.path))


def _numbers(main: Directory, code: int) -> NDArray[Any] | None:
    """The numbers of a tag, (count,); None for text and bytes.

    Fractions are divided, and are 0 where the divisor is 0.
    """
    values = main.array(code)
    if values.dtype.kind == "S":
        return None
    if values.ndim == 2:
        top, bottom = values.astype(np.float64).T
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)
    return values


def _rational(main: Directory, code: int) -> float:
    """The value of a tag that holds a fraction or a number; 0.0 if it holds neither."""
    numbers = _numbers(main, code)
    return float(numbers[0]) if numbers is not None and numbers.size else 0.0


def _turned(resolution: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """(y, x) resolution as shown; orientations from 5 on exchange rows and columns."""
    return resolution[::-1] if resolution is not None and orientation >= 5 else resolution
