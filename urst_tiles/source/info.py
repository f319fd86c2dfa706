"""``Info`` of a file: its tags, fields and sidecars, as the output shall carry them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from urst_tiles.metadata import (
    GEO_TAGS,
    Info,
    Tag,
    Validity,
    aperio_resolution,
    clean_gdal_metadata,
    is_rgb_profile,
    tag_resolution,
    with_world_file,
)
from urst_tiles.source.directory import Directory


def tiff_info(main: Directory, validity: Validity, world: str | None, orientation: int) -> Info:
    """What a TIFF's main directory tells. Raises BadInput for metadata that is not safe to read."""
    geo = with_world_file(tuple(_tag(main, code) for code in GEO_TAGS if code in main.entries), world)
    resolution = aperio_resolution(main.text(270)) or tag_resolution(
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
    """What libvips tells of any other file."""
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
    profile = bytes(profile) if profile is not None else None
    # libvips says one pixel per mm where the file says nothing
    known = (
        math.isfinite(image.xres * image.yres)
        and (image.xres, image.yres) != (1.0, 1.0)
        and image.xres > 0 < image.yres
    )
    return Info(
        geo=with_world_file((), world),
        icc=profile if profile and is_rgb_profile(profile) and image.interpretation != "cmyk" else None,
        pixels_per_cm=_turned((image.yres * 10, image.xres * 10) if known else None, orientation),
        validity=validity,
    )


def read_world_file(path: Path) -> str | None:
    """Text of the world file beside an image: .tfw, .tifw, .wld and their capitals, by the image's own suffix."""
    suffix = path.suffix.lower()
    names = [".wld", suffix + "w"]
    if len(suffix) >= 4:
        names.insert(0, f".{suffix[1]}{suffix[-1]}w")
    for name in names:
        for each in (name, name.upper()):
            sidecar = path.with_suffix(each)
            if sidecar != path and sidecar.is_file() and sidecar.stat().st_size < 4096:
                return sidecar.read_text("utf-8", "replace")
    return None


def mask_sidecar(path: Path) -> Path | None:
    """GDAL's ``NAME.EXT.msk`` beside an image, or None."""
    found = path.with_name(path.name + ".msk")
    return found if found.is_file() else None


def _tag(main: Directory, code: int) -> Tag:
    entry = main.entries[code]
    if entry.dtype in (2, 7):
        value: Any = main.raw(code).rstrip(b"\0").decode("ascii", "replace")
        return Tag(code, 2, len(value) + 1, value)
    numbers = main.array(code)
    return Tag(code, entry.dtype, entry.count, tuple(numbers.tolist()))


def _rational(main: Directory, code: int) -> float:
    values = main.array(code)
    if values.ndim == 2 and values.size >= 2:
        return float(values[0, 0]) / float(values[0, 1]) if values[0, 1] else 0.0
    return float(values.flat[0]) if values.size else 0.0


def _turned(resolution: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    return resolution[::-1] if resolution is not None and orientation >= 5 else resolution
