"""The library libvips, and the colour conversions that it does: CMYK, Lab and the like become RGB."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile

#: The oldest accepted version of libvips; older versions read some compressed TIFFs as zeros.
LEAST = (8, 17, 2)

#: Interpretations of libvips that are colour spaces other than RGB, CMYK and grey.
PERCEPTUAL_SPACES = ("lab", "labs", "labq", "lch", "cmc", "xyz", "yxy", "hsv", "oklab", "oklch")


@functools.cache
def libvips() -> ModuleType:
    """The module pyvips, with the cache of operations switched off: it would keep files open and take memory.

    Raises
    ------
    BadInput : libvips is older than ``LEAST``.
    """
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
    """Convert a pyvips image from CMYK or a perceptual colour space to RGB; others stay as they are.

    CMYK is converted with the profile that the image contains, else with the CMYK profile of libvips. Packed
    samples (LabQ, Radiance) are unpacked.
    """
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
    """Convert CMYK pixels, (h, w, 4), to sRGB, (h, w, 3), both uint8 or both uint16.

    ``profile`` is the ICC profile of the CMYK pixels; None stands for the CMYK profile of libvips. ``path``
    is the file, for messages.

    Raises
    ------
    DamagedFile : the profile cannot be used.
    """
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
