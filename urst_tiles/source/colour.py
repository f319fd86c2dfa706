"""libvips itself, and the colour management it does: CMYK and Lab become RGB."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile

#: libvips before this loads some compressed TIFFs as zeros.
LEAST = (8, 17, 2)

PERCEPTUAL_SPACES = ("lab", "labs", "labq", "lch", "cmc", "xyz", "yxy", "hsv", "oklab", "oklch")


@functools.cache
def libvips() -> ModuleType:
    """pyvips, with libvips new enough and its operation cache off (it would hold files open, and memory)."""
    import pyvips

    version = tuple(pyvips.version(i) for i in range(3))
    if version < LEAST:
        raise BadInput(
            f"libvips {'.'.join(map(str, version))} reads some compressed TIFFs as zeros; install "
            f"{'.'.join(map(str, LEAST))} or newer (pip install -U pyvips-binary)"
        )
    pyvips.cache_set_max(0)
    return pyvips


def in_rgb(image: Any) -> Any:
    """A vips image with CMYK and Lab converted to RGB: through its profile, or libvips' own for CMYK."""
    if image.coding == "labq":
        image = image.LabQ2Lab()
    elif image.coding == "rad":
        image = image.rad2float()
    if image.interpretation == "cmyk":
        depth = 8 if image.format in ("uchar", "char") else 16
        return image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    if image.interpretation in PERCEPTUAL_SPACES:
        return image.colourspace("srgb")
    return image


def cmyk_to_rgb(path: Path, pixels: NDArray[Any], profile: bytes | None) -> NDArray[Any]:
    """RGB (h, w, 3) in the same depth from CMYK (h, w, 4), uint8 or uint16, through the profile. Raises
    DamagedFile."""
    vips = libvips()
    pixels = np.ascontiguousarray(pixels)
    if pixels.dtype.kind == "i":  # no ink is negative: such files are mislabelled
        pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    image = vips.Image.new_from_memory(
        pixels.data, pixels.shape[1], pixels.shape[0], 4, "uchar" if pixels.itemsize == 1 else "ushort"
    ).copy(interpretation="cmyk")
    if profile:
        image.set_type(vips.GValue.blob_type, "icc-profile-data", profile)
    try:
        return np.asarray(in_rgb(image).numpy())
    except vips.Error:
        raise DamagedFile(
            f"{path}: its CMYK profile cannot be used; convert the image to RGB first"
        ) from None
