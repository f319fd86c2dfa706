"""Which pages of a TIFF can be decoded here, by their compression and by what their samples are."""

from __future__ import annotations

import shlex
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from urst_tiles.errors import BadInput
from urst_tiles.tiff.chroma import JPEG2000
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.old_jpeg import OLD_JPEG
from urst_tiles.tiff.plain import FAX, JPEG, YCBCR, is_planar, photometric_of
from urst_tiles.tiff.transparency import JPEG_XL, LERC, WEBP

#: Compressions whose decoders convert YCbCr to RGB: JPEG (two codes), WebP, JPEG 2000.
WITH_CHROMA = {JPEG, OLD_JPEG, WEBP} | JPEG2000

#: Compressions whose streams do not contain the shape of the picture, so that the length of the unpacked
#: bytes must be checked: none, LZW, deflate (two codes), PackBits, LZMA and zstd.
UNSHAPED = {1, 5, 8, 32946, 32773, 34925, 50000}

#: Compressions that are decoded here, besides those of fax.
COMPRESSIONS = WITH_CHROMA | UNSHAPED | {LERC} | JPEG_XL

#: Photometric interpretations that are understood: white is zero, black is zero, RGB, palette, mask, CMYK and
#: YCbCr. CIE, ICC and ITU Lab are, too, if their samples have 8 or 16 bits.
PHOTOMETRICS = {0, 1, 2, 3, 4, 5, 6}
LAB = {8, 9, 10}

#: Formats of samples (tag 339) that are complex: of integers and of floats.
COMPLEX = {5, 6}


class Undecodable(Exception):
    """This page cannot be decoded here; libvips may be able to decode it."""


def decoded_dtype(directory: Directory, page: tifffile.TiffPage, compressions: Set[int]) -> np.dtype[Any]:
    """The dtype of the samples of a page when they are decoded.

    Parameters
    ----------
    directory : the page's directory.
    page : the same page as `plain_page` makes it.
    compressions : the compressions that can be decoded, by their codes (tag 259).

    Raises
    ------
    Undecodable : tifffile cannot decode the page, or this package cannot interpret its samples.
    BadInput : its samples are complex, or have a predictor or a compression that such samples cannot have.
    """
    photometric, compression = photometric_of(directory), int(page.compression)
    _check_samples(directory, page)
    if compression in FAX and (page.bitspersample != 1 or page.samplesperpixel != 1):
        raise BadInput(
            f"{directory.path}: its compression {compression} (fax) is defined for one band of one bit, and "
            f"it has {page.samplesperpixel} of {page.bitspersample} bit(s); write it anew in another one"
        )
    if compression not in compressions or (
        compression not in {1, *FAX} and compression not in tifffile.TIFF.DECOMPRESSORS
    ):
        raise Undecodable(f"compression {compression}")
    if photometric not in PHOTOMETRICS and not (photometric in LAB and page.bitspersample in (8, 16)):
        raise Undecodable(f"photometric interpretation {photometric}")
    if compression == OLD_JPEG and is_planar(directory):
        raise Undecodable("old-style JPEG in planes")
    if photometric == YCBCR and compression in WITH_CHROMA and is_planar(directory):
        raise Undecodable("YCbCr in planes")
    chroma = photometric == YCBCR and compression not in WITH_CHROMA
    if chroma and (page.dtype != np.uint8 or directory.number(277) != 3 or directory.number(284, 1) != 1):
        raise Undecodable(f"YCbCr of {directory.number(277)} band(s) of type {page.dtype}")
    if page.dtype is None or not isinstance(page.bitspersample, int) or page.imagedepth != 1:
        raise Undecodable("sample layout")
    if page.dtype.kind not in "uifb" or (directory.is_tiled and page.tiledepth != 1):
        raise Undecodable(f"samples of type {page.dtype}")
    return np.dtype(page.dtype)


def _check_samples(directory: Directory, page: tifffile.TiffPage) -> None:
    """Raises BadInput for complex samples, and for a predictor that these samples cannot have."""
    form, bits, predictor = page.sampleformat, page.bitspersample, int(page.predictor)
    if form in COMPLEX:
        raise BadInput(complex_samples(directory.path))
    fits = {1: True, 2: bits in (8, 16, 32, 64), 3: form == 3 and bits in (16, 24, 32, 64)}
    if not fits.get(predictor, False):
        raise BadInput(
            f"{directory.path}: its predictor {predictor} (TIFF tag 317) is not defined for samples of "
            f"{bits} bits and format {int(form)}, and neither GDAL nor libvips reads it; write the file anew "
            "without a predictor"
        )


def complex_samples(path: Path) -> str:
    """The message about samples that are complex numbers, as radar (SAR) has them."""
    amplitude = shlex.quote(f"DERIVED_SUBDATASET:AMPLITUDE:{path}")
    return (
        f"{path}: its samples are complex numbers, which are no picture; make their magnitudes first: "
        f"gdal_translate -ot Float32 {amplitude} magnitudes.tif"
    )
