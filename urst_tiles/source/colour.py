"""The library libvips, and the colour conversions that it does: CMYK, Lab and the like become RGB.

Lab becomes sRGB so that L = 100 is white, as in libvips: Lab is relative to the white of its light source.
"""

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

    CMYK is converted with the profile that the image contains, else with the CMYK profile of libvips. Grey
    becomes RGB where the image contains a usable profile of grey. Packed samples (LabQ, Radiance) are
    unpacked.
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
    if image.interpretation in ("b-w", "grey16") and image.format in ("uchar", "ushort"):
        return _grey_in_rgb(image)
    return image


def _grey_in_rgb(image: Any) -> Any:
    """A grey pyvips image in sRGB if it contains a profile of grey; otherwise the image itself."""
    if not image.get_typeof("icc-profile-data"):
        return image
    profile = bytes(image.get("icc-profile-data"))
    made = grey_table(profile, np.dtype(np.uint8 if image.format == "uchar" else np.uint16))
    if made is None:
        return image
    table = (
        libvips()
        .Image.new_from_array(np.ascontiguousarray(made[None]))
        .copy(interpretation="srgb" if image.format == "uchar" else "rgb16")
    )
    colour = image[0].maplut(table).copy(interpretation=table.interpretation)
    return colour.bandjoin(image[1]) if image.hasalpha() and image.bands > 1 else colour


def grey_table(profile: bytes, dtype: np.dtype[Any], bits: int = 0) -> NDArray[Any] | None:
    """For each value of grey its sRGB, (values, 3), uint8 for samples of up to 8 bits, else uint16.

    Parameters
    ----------
    profile : an ICC profile (ICC.1:2022, section 7.2.6). None is returned unless it is one of grey that can
        be used; grey is taken for that of sRGB then, as libvips does.
    dtype : the dtype of the samples; None is returned unless these are unsigned integers of 8 or 16 bits.
    bits : how many bits the samples have, if not all of the dtype. Fewer than 8 are 8 bits here.
    """
    if len(profile) < 128 or profile[16:20] != b"GRAY" or profile[36:40] != b"acsp":
        return None
    if dtype.kind not in "bu" or dtype.itemsize > 2:
        return None
    vips, depth = libvips(), 8 * dtype.itemsize
    values = 1 << (min(bits or depth, depth) if depth == 16 else 8)
    grey = np.rint(np.arange(values) * ((2**depth - 1) / (values - 1))).astype(f"u{dtype.itemsize}")
    image = vips.Image.new_from_array(grey[None]).copy(interpretation="b-w" if depth == 8 else "grey16")
    image.set_type(vips.GValue.blob_type, "icc-profile-data", profile)
    try:
        made = np.asarray(image.icc_transform("srgb", embedded=True, depth=depth).numpy())
    except vips.Error:
        return None
    return made[0] if made.shape == (1, values, 3) else None


def lab_values(stored: NDArray[Any], photometric: int, decode: NDArray[Any]) -> NDArray[np.float32]:
    """L* in 0..100, a* and b*, float32, (h, w, 3), that samples of 8 or 16 bits stand for.

    Parameters
    ----------
    stored : (h, w, 3), integers.
    photometric : 8 is CIELab, whose a* and b* are signed (TIFF 6.0, section 23); 9 is ICCLab, whose values
        are those of ICC profiles (Adobe's TIFF Technical Notes, 2002; ICC.1:2001, section 6.3.4.2); 10 is
        ITULab (ITU T.42; RFC 3949, section 2.2.3).
    decode : the least and the largest value of each band (tag 433), fractions, (6, 2); used for ITULab.
    """
    bits = 8 * stored.dtype.itemsize
    bands = stored.astype(f"u{stored.dtype.itemsize}", copy=False)
    top, unit = (1 << bits) - 1, 1 << (bits - 8)
    out = bands.astype(np.float32)
    if photometric == 10:
        low, high = np.array(_itu_range(decode, bits), np.float32).reshape(3, 2).T
        return low + out * ((high - low) / np.float32(top))
    out[..., 0] *= 100 / (0xFF00 if photometric == 9 and bits == 16 else top)
    if photometric == 9:
        out[..., 1:] = out[..., 1:] / unit - 128
    else:
        out[..., 1:] = bands[..., 1:].view(f"i{stored.dtype.itemsize}") / np.float32(unit)
    return out


def _itu_range(decode: NDArray[Any], bits: int) -> list[float]:
    """The least and the largest value of each band of ITULab: those of tag 433, else those of ITU T.42."""
    if decode.shape == (6, 2) and (decode[:, 1] != 0).all():
        return [float(top) / float(bottom) for top, bottom in decode]
    top, unit = (1 << bits) - 1, 1 << (bits - 8)
    a, b = 170 * 128 * unit / top, 200 * 96 * unit / top
    return [0, 100, -a, 170 - a, -b, 200 - b]


def lab_to_rgb(lab: NDArray[np.float32]) -> NDArray[np.uint8]:
    """sRGB, uint8, (h, w, 3), of L*, a* and b*, float32, (h, w, 3)."""
    pixels = np.ascontiguousarray(lab, np.float32)
    image = libvips().Image.new_from_memory(pixels.data, pixels.shape[1], pixels.shape[0], 3, "float")
    return np.asarray(in_rgb(image.copy(interpretation="lab")).numpy())


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
