"""What a page of a TIFF is: an image, an image of reduced size, a mask, a label, raw data of a camera.

TIFF 6.0 has NewSubfileType (tag 254) for this. Makers of slide scanners say it in the image description (tag
270) instead: Aperio, Ventana, Philips, Akoya (QPTIFF); Hamamatsu has a tag of its own.
"""

from __future__ import annotations

import re
from typing import Literal

from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.elements import elements

Kind = Literal["image", "reduced", "mask", "label", "macro", "thumbnail", "raw", "empty"]

#: The photometric interpretation (tag 262) of a colour filter array: each sample has seen one colour alone
#: (TIFF/EP, ISO 12234-2; DNG 1.7).
FILTER_ARRAY = 32803

#: Descriptions of pages that are not the image, in the words of several makers.
ASIDES: dict[str, Kind] = {
    "label": "label", "label image": "label", "label_image": "label", "macro": "macro",
    "macro image": "macro", "overview": "macro", "overview image": "macro", "thumbnail": "thumbnail",
    "thumbnail image": "thumbnail", "thumbnail_image": "thumbnail", "probability_image": "label",
}  # fmt: skip

#: The kinds of pages of Akoya's QPTIFF.
AKOYA: dict[str, Kind] = {
    "fullresolution": "image", "reducedresolution": "reduced", "thumbnail": "thumbnail",
    "overview": "macro", "label": "label",
}  # fmt: skip

#: Hamamatsu's lens of a page (tag 65421): -1 is the camera for the whole slide, -2 a map.
HAMAMATSU_LENS = 65421

#: A tag that only raw pages of Canon's CR2 have (CR2Slice).
CANON_RAW = 50752


def kind_of(directory: Directory) -> Kind:
    """What a page is, by what its directory says, whatever other pages there are.

    A label, a macro photograph of the slide and a thumbnail are told from an image of reduced size where the
    maker names them.
    """
    if directory.is_mask:
        return "mask"
    if min(directory.shape) <= 0:
        return "empty"
    described = _described(description_of(directory), directory.is_tiled)
    if described is not None:
        return described
    if HAMAMATSU_LENS in directory.entries and (directory.array(HAMAMATSU_LENS) < 0).any():
        return "macro"
    if CANON_RAW in directory.entries or directory.number(262) == FILTER_ARRAY:
        return "raw"
    return "reduced" if directory.subfile & 1 else "image"


def description_of(directory: Directory) -> str:
    """The image description (tag 270) of a page; empty where there is none, or one too long to be read."""
    return directory.short_text(270) or ""


def _described(text: str, tiled: bool) -> Kind | None:
    """What the image description says of the page; None where it says nothing of the kind.

    ``tiled`` : whether the page has tiles, as the levels of Aperio's slides have and nothing else in them.
    """
    short = text.strip().casefold()
    if short in ASIDES:
        return ASIDES[short]
    if text.startswith("Aperio"):
        second = (text.splitlines()[1:2] or [""])[0].strip().casefold()
        aside = ASIDES.get(second.split(" ")[0])
        return aside or (None if tiled else "thumbnail")
    level = re.match(r"level=(\d+)\b", short)  # Ventana
    if level:
        return "reduced" if int(level.group(1)) else "image"
    return AKOYA.get(akoya(text).get("ImageType", "").casefold()) if is_akoya(text) else None


def is_akoya(text: str) -> bool:
    """Whether an image description is that of a page of Akoya's QPTIFF."""
    return "PerkinElmer-QPI-ImageDescription" in text[:400]


def akoya(text: str) -> dict[str, str]:
    """What a page of a QPTIFF says of itself, such as its ``ImageType`` and the ``Name`` of its channel."""
    return {e.name: e.text for e in elements(text) if len(e.path) == 2 and e.text}


def name_of(directory: Directory) -> str | None:
    """The name of a page: PageName (tag 285), a short description, or None."""
    text = directory.short_text(285, 1024) or description_of(directory)
    if is_akoya(text):
        text = akoya(text).get("Name", "")
    line = " ".join(text.split())
    structured = line.startswith(("<", "{", "Aperio", "ImageJ="))
    return line if line and len(line) <= 60 and not structured else None
