"""What is said of a file that no reader here knows: what it is, why it is not read, and what to do.

The kind of a file is told by its first bytes, where a format has such, else by its suffix. Signatures are
those of the formats' specifications, as the data base of file(1) lists them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from urst_tiles.source import gdal

#: How many bytes at the beginning of a file are looked at.
START_BYTES = 512

BUILT = (
    "libvips reads it where it was built to (that of conda-forge is, the wheel pyvips-binary is not); install"
    " that one, or convert it, for example: {}"
)
DRAWING = "it has no pixels of its own; render it at the size that you want, for example: {}"
RAW = "its pixels are those of a camera's sensor; develop it first, for example: {}"
SEVERAL = "it is no single image; {}"


@dataclass(frozen=True)
class Unread:
    """A kind of files that are not read, or not everywhere.

    Attributes
    ----------
    what : what such a file is.
    advice : why it is not read, and what to do.
    starts : its first bytes, as regular expressions.
    suffixes : its suffixes, in small letters, where no first bytes tell it.
    """

    what: str
    advice: str
    starts: tuple[bytes, ...] = ()
    suffixes: tuple[str, ...] = ()


KINDS: tuple[Unread, ...] = (
    Unread("a JPEG XL image", BUILT.format("djxl IN OUT.png"), (rb"\xff\x0a", rb"\0\0\0\x0cJXL ")),
    Unread(
        "a HEIF picture (HEIC, AVIF)",
        BUILT.format("heif-convert IN OUT.png"),
        (rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1|avi[fs])",),
    ),
    Unread("a FITS image", BUILT.format("gdal_translate IN OUT.tif"), (rb"SIMPLE  =",)),
    Unread("an OpenEXR image", BUILT.format("oiiotool IN -o OUT.tif"), (rb"v/1\x01",)),
    Unread(
        "a NIfTI volume",
        BUILT.format("nibabel, and save a slice as TIFF"),
        (rb".{344}(?:n\+1|ni1)\0",),
        (".nii", ".nii.gz"),
    ),
    Unread("a Radiance picture", BUILT.format("oiiotool IN -o OUT.tif"), (rb"#\?(?:RADIANCE|RGBE)",)),
    Unread(
        "a picture of Netpbm other than binary PGM and PPM",
        BUILT.format("pamtotiff IN > OUT.tif"),
        (rb"P[1-47Ff][\s#]",),
    ),
    Unread("a JPEG XR image", "convert it, for example: JxrDecApp -i IN -o OUT.tif", (rb"II\xbc",)),
    Unread("a QOI image", "convert it, for example: magick IN OUT.png", (rb"qoif",)),
    Unread(
        "an icon",
        "convert it, for example: magick IN OUT.png",
        (rb"\0\0[\x01\x02]\0[^\0]\0",),
        (".ico", ".icns"),
    ),
    Unread("a file of Photoshop", "save it as a flat TIFF or PNG from there", (rb"8BPS",)),
    Unread("a file of GIMP", "export it from there as a TIFF or PNG", (rb"gimp xcf",)),
    Unread("a DjVu document", "convert it, for example: ddjvu -format=tiff IN OUT.tif", (rb"AT&TFORM",)),
    Unread("a PDF document", DRAWING.format("pdftoppm -r 300 -png -singlefile IN OUT"), (rb"%PDF",)),
    Unread(
        "a PostScript document",
        DRAWING.format("gs -sDEVICE=png16m -r300 -o OUT.png IN"),
        (rb"%!PS", rb"\xc5\xd0\xd3\xc6"),
    ),
    Unread(
        "an SVG drawing",
        DRAWING.format("rsvg-convert -w 8000 IN -o OUT.png"),
        (rb"\s*(?:<\?xml.*?)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg.*?)?<svg\b",),
        (".svg", ".svgz"),
    ),
    Unread(
        "a camera's raw file",
        RAW.format("dcraw_emu -T -6 IN"),
        (rb"FUJIFILMCCD-RAW", rb"FOVb", rb"II(?:U\0|RO|RS)", rb"MMOR", rb"\0MRM", rb"....ftypcrx "),
    ),
    Unread(
        "the description of a Deep Zoom image",
        SEVERAL.format(
            "its picture lies in the tiles of NAME_files: give the image that these were made from"
        ),
        (rb"\s*(?:<\?xml[^>]*>\s*)?<(?:\w+:)?Image\b[^>]*deepzoom",),
        (".dzi",),
    ),
    Unread(
        "a film",
        SEVERAL.format("take a picture out of it, for example: ffmpeg -ss 1 -i IN -frames:v 1 OUT.png"),
        (rb"....ftyp(?:isom|mp4|avc|M4V|qt)", rb"RIFF....AVI ", rb"\x1aE\xdf\xa3"),
    ),
    Unread("a cloud of points", SEVERAL.format("make a raster of it, for example with pdal"), (rb"LASF",)),
    Unread(
        "an array of NumPy",
        "read it in Python: ut.array_source(numpy.load(IN)) takes (H, W, 3) of uint8 and uint16",
        (rb"\x93NUMPY",),
        (".npy",),
    ),
    Unread(
        "an archive",
        "unpack it, or with GDAL give the name inside it: /vsizip/IN/NAME, /vsitar/IN/NAME, /vsi7z/"
        " or /vsirar/",
        (rb"PK\x03\x04", rb"7z\xbc\xaf", rb"Rar!", rb".{257}ustar"),
        (".zip", ".tar", ".tgz", ".7z"),
    ),
)


def refusal(path: Path) -> str:
    """One sentence about a file that no reader here knows."""
    kind = _kind_of(path)
    if kind is not None:
        return f"{path} is {kind.what}, which cannot be read here: {kind.advice}"
    more = "" if gdal.library() is not None else " where it is there: pip install 'urst-tiles[gdal]'"
    return (
        f"{path} is no image that can be read here; TIFF, JPEG, PNG and WebP can, among others, and what GDAL"
        f" reads (JPEG 2000, netCDF, VRT, ...){more}"
    )


def _kind_of(path: Path) -> Unread | None:
    """The kind of a file; None if it is none of these."""
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return None
    name = path.name.lower()
    for kind in KINDS:
        if any(re.match(one, start, re.DOTALL) for one in kind.starts):
            return kind
    return next((kind for kind in KINDS if kind.suffixes and name.endswith(kind.suffixes)), None)
