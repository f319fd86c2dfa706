"""``Info`` of a file: its tags, fields and sidecars, as the output shall carry them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.metadata import (
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


@dataclass(frozen=True)
class Sidecars:
    """Files beside an image: GDAL's ``NAME.EXT.msk``, and the text of its world file."""

    mask: Path | None
    world_path: Path | None
    world: str | None

    @property
    def all(self) -> tuple[Path, ...]:
        """Those that are there."""
        return tuple(path for path in (self.mask, self.world_path) if path is not None)


def find_sidecars(path: Path) -> Sidecars:
    """The sidecars of an image."""
    mask = path.with_name(path.name + ".msk")
    for world in _world_names(path):
        if world.is_file() and world.stat().st_size < 4096:
            return Sidecars(mask if mask.is_file() else None, world, world.read_text("utf-8", "replace"))
    return Sidecars(mask if mask.is_file() else None, None, None)


def _world_names(path: Path) -> Iterator[Path]:
    """As GDAL looks for them: first and last letter of the suffix and a w, the whole suffix and a w, then
    .wld."""
    suffix = path.suffix.lower()
    names = [f".{suffix[1]}{suffix[-1]}w"] if len(suffix) > 3 else []
    for name in (*names, suffix + "w" if suffix else ".w", ".wld"):
        yield path.with_suffix(name)
        yield path.with_suffix(name.upper())


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
    return float(values.flat[0]) if values.size and values.dtype.kind in "uif" else 0.0


def _turned(resolution: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    return resolution[::-1] if resolution is not None and orientation >= 5 else resolution
