"""Slides whose picture is not in the file that carries their name, or not as TIFF has it.

Such a file may begin as a JPEG or a TIFF does, and then hold a thumbnail. It is read where OpenSlide is
(https://openslide.org/formats/), by itself or in libvips, and is refused elsewhere, never taken for what it
begins as.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from urst_tiles.errors import BadInput
from urst_tiles.source.czi import INSTALL as INSTALL_CZI
from urst_tiles.source.czi import library as czi
from urst_tiles.source.openslide import INSTALL, can_open, refused
from urst_tiles.source.openslide import library as openslide
from urst_tiles.source.vips import loader_of
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.texts import XMP

OPENSLIDE, BIO_FORMATS = "openslide", "bio-formats"

#: Suffix -> what the file is, and which library reads it.
SLIDES = {
    ".mrxs": ("a MIRAX slide: the file itself holds only a thumbnail, and the picture lies in the folder of"
              " the same name beside it", OPENSLIDE),
    ".vms": ("an index of a Hamamatsu slide: the picture lies in the files that it names", OPENSLIDE),
    ".vmu": ("an index of a Hamamatsu slide: the picture lies in the files that it names", OPENSLIDE),
    ".ndpi": ("a Hamamatsu slide, a kind of TIFF with rules of its own for sizes and positions", OPENSLIDE),
    ".svslide": ("a Sakura slide, a database of tiles", OPENSLIDE),
    ".dcm": ("a DICOM file, which may be one of many of a slide", OPENSLIDE),
    ".vsi": ("an Olympus slide (cellSens): the file itself holds only a small picture, and the slide lies in"
             " the folder _NAME_ beside it", BIO_FORMATS),
    ".ets": ("a part of an Olympus slide (cellSens)", BIO_FORMATS),
    ".czi": ("a Zeiss slide or microscope image", OPENSLIDE),
    ".lif": ("a file of several Leica microscope images", BIO_FORMATS),
}  # fmt: skip

#: The first bytes of some of these files, whatever they are called.
CZI = b"ZISRAWFILE"
STARTS = {CZI: ".czi"}

#: Hamamatsu's tag for the version of its kind of TIFF.
HAMAMATSU = 65420


class JoinedSlide(BadInput):
    """A TIFF whose tiles are not the picture as they stand; OpenSlide may read it."""


def check_slide(path: Path, start: bytes) -> Literal["", "openslide", "libvips", "czi"]:
    """Who reads an image file that is a slide of these kinds: OpenSlide, or libvips through OpenSlide, or
    pylibCZIrw what OpenSlide does not open of Zeiss's; empty for any other file.

    Parameters
    ----------
    path : the file.
    start : its first bytes, as `check_file` returns them.

    Raises
    ------
    BadInput : it is a slide, and neither of them can read it.
    """
    suffix = _suffix(path, start)
    if suffix is None:
        return ""
    what, library = SLIDES[suffix]
    if start.startswith(CZI) and (said := _not_by_openslide(path)):
        return _check_czi(path, said)
    if library == OPENSLIDE and can_open(path):
        return "openslide"
    if library == OPENSLIDE and _has_openslide(path):
        return "libvips"
    raise BadInput(f"{path} is {what}; it cannot be read here. {_advice(path, library)}")


def _not_by_openslide(path: Path) -> str:
    """Why OpenSlide does not read a file; empty if it does."""
    if openslide() is None:
        return "it is not installed"
    return refused(path) if can_open(path) else "it does not know the file"


def _check_czi(path: Path, said: str) -> Literal["libvips", "czi"]:
    """Who reads a Zeiss image that OpenSlide does not; ``said`` is why. Raises BadInput if nobody does."""
    if czi() is not None:
        return "czi"
    if openslide() is None and _has_openslide(path):
        return "libvips"
    raise BadInput(
        f"{path} is {SLIDES['.czi'][0]}; it cannot be read here (of OpenSlide: {said}). Install what reads"
        f" channels and 16 bits: {INSTALL_CZI}, or convert it with Bio-Formats (bfconvert {path.name}"
        " out.ome.tif)"
    )


def _suffix(path: Path, start: bytes) -> str | None:
    """The usual suffix of the kind of slide that a file is; None for any other file."""
    for magic, suffix in STARTS.items():
        if start.startswith(magic):
            return suffix
    if path.suffix.lower() in SLIDES:
        return path.suffix.lower()
    return ".dcm" if start[128:132] == b"DICM" else None


def _has_openslide(path: Path) -> bool:
    """Whether libvips opens a file with OpenSlide."""
    try:
        return loader_of(path) == "openslideload"
    except BadInput:
        return False


def _advice(path: Path, library: str) -> str:
    """How to convert a slide."""
    name = path.name
    if library == OPENSLIDE:
        install = f" (or install OpenSlide: {INSTALL})" if openslide() is None else ""
        return (
            f"Convert it with a libvips that has OpenSlide (vips tiffsave {name} out.tif --tile --pyramid"
            f" --bigtiff --compression jpeg), or export it from QuPath as OME-TIFF{install}"
        )
    return f"Convert it with Bio-Formats (bfconvert {name} out.ome.tif), or export it from QuPath as OME-TIFF"


def check_slide_pages(file: TiffFile) -> None:
    """Raise JoinedSlide for a TIFF whose tiles are not the picture as they stand.

    Hamamatsu's TIFFs have rules of their own; the tiles of Ventana's overlap where its description (in XMP,
    tag 700) says so, and must be joined by it.
    """
    if HAMAMATSU in file.chain[0].entries:
        raise JoinedSlide(
            f"{file.path} is {SLIDES['.ndpi'][0]}; it cannot be read here. {_advice(file.path, OPENSLIDE)}"
        )
    for page in file.chain:
        xmp = page.raw(XMP) if page.has_short(XMP) else b""
        if b"<iScan" in xmp and any(int(n) for n in re.findall(rb"Overlap[XY]=\"(\d{1,9})\"", xmp)):
            raise JoinedSlide(
                f"{file.path} is a Ventana slide whose tiles overlap and must be joined; that cannot be done"
                f" here. {_advice(file.path, OPENSLIDE)}"
            )


def is_joined(file: TiffFile) -> bool:
    """Whether a TIFF is one that `check_slide_pages` refuses."""
    try:
        check_slide_pages(file)
    except JoinedSlide:
        return True
    return False
