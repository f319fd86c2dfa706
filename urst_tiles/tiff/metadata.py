"""Metadata that the output takes over: georeferencing, colour profile, resolution, validity.

This module interprets text and numbers. It opens no file: sources pass in what they have read, and the
pyramid writes the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr, unescape

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.tiff.budget import MOST_ENTRIES, MOST_TEXT_BYTES
from urst_tiles.tiff.types import ASCII, DOUBLE, SHORT

Validity = Literal["none", "alpha", "mask", "nodata"]

#: GeoTIFF 1.1 (OGC 19-008r4) tags that are copied as they are: ModelPixelScale, ModelTiepoint,
#: ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)

#: Those of these tags that hold whole numbers of 16 bits, and text; all others hold floats.
GEO_KEYS, GEO_TEXT = 34735, 34737

#: Those of these tags that say what the coordinates are.
GEO_CODES = (34735, 34736, 34737)

#: Rational polynomials (RPCCoefficientTag, 92 numbers), which place an image on the ground, too.
RPC = 50844

#: Those of these tags that say where pixels lie on the ground; a world file says the same.
POSITION_TAGS = (33550, 33922, 34264)


@dataclass(frozen=True)
class Tag:
    """One TIFF tag with its value.

    Attributes
    ----------
    code : tag code.
    dtype : TIFF data type: 2 ASCII, 3 SHORT, 12 DOUBLE, and so on.
    count : how many numbers or characters the value has.
    value : text, numbers, or the bytes of the value, little-endian, as they are written.
    """

    code: int
    dtype: int
    count: int
    value: str | bytes | tuple[int, ...] | tuple[float, ...]


def geo_tag(code: int, numbers: NDArray[Any] | None, text: bytes, name: str) -> Tag:
    """A GeoTIFF tag in the data type that the standard asks for, whatever type the file has for it.

    Parameters
    ----------
    code : one of ``GEO_TAGS``, or ``RPC``.
    numbers : the numbers of the tag, (count,), fractions already divided; None if it holds text or bytes.
    text : the bytes of its value.
    name : the file, for messages.

    Raises
    ------
    BadInput : the value cannot be expressed in that type.
    """
    if code == GEO_TEXT:
        if numbers is None or numbers.dtype == np.uint8:
            value = text.rstrip(b"\0")  # in any encoding: GDAL writes UTF-8, others what they like
            return Tag(code, ASCII, len(value) + 1, value.decode() if value.isascii() else value + b"\0")
    elif numbers is not None and code == GEO_KEYS:
        if ((numbers >= 0) & (numbers < 1 << 16)).all() and (numbers == np.floor(numbers)).all():
            return Tag(code, SHORT, numbers.size, tuple(map(int, numbers.tolist())))
    elif numbers is not None:
        return Tag(code, DOUBLE, numbers.size, tuple(map(float, numbers.tolist())))
    raise BadInput(
        f"{name}: its georeferencing (TIFF tag {code}) has values of a type that makes no sense; remove it "
        f"(tiffset -u {code} FILE), or write it anew with gdal_edit"
    )


@dataclass(frozen=True)
class Info:
    """The metadata of a source that its output takes over.

    Attributes
    ----------
    geo : those tags of ``GEO_TAGS`` and ``RPC`` that the file has, or that follow from its sidecars.
    icc : ICC profile of the RGB pixels that the source returns; None for sRGB.
    pixels_per_cm : (y, x) resolution; None when unknown.
    in_inches : whether the resolution is written in pixels per inch, as the file tells it.
    measured : whether the resolution is the size of a pixel, and not a density for printing.
    magnification : of the microscope's objective; None when unknown.
    gdal_metadata : GDAL's XML (tag 42112) without the items that are false for new pixels, or None.
    nodata : the nodata value as GDAL writes it (tag 42113), or None.
    validity : the way in which the source marks pixels as valid or invalid.
    tags : further tags that are written as they are: texts, XMP, IPTC.
    exif, gps : the tags of the EXIF and of the GPS directory.
    lost : what the file carries and the output does not, in words.
    chosen : which page, channels or bands of the source are read, where it has several, as a phrase.
    bands : the names of the bands that are read, "" for one without; empty where they become colours.
    """

    geo: tuple[Tag, ...] = ()
    icc: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None
    in_inches: bool = False
    measured: bool = True
    magnification: float | None = None
    gdal_metadata: str | None = None
    nodata: str | None = None
    validity: Validity = "none"
    tags: tuple[Tag, ...] = ()
    exif: tuple[Tag, ...] = ()
    gps: tuple[Tag, ...] = ()
    lost: tuple[str, ...] = ()
    chosen: str = ""
    bands: tuple[str, ...] = ()

    @property
    def microns_per_pixel(self) -> tuple[float, float] | None:
        """(y, x) size of a pixel in microns; None when unknown, and for densities that were not measured."""
        if self.pixels_per_cm is None or not self.measured:
            return None
        return 1e4 / self.pixels_per_cm[0], 1e4 / self.pixels_per_cm[1]


#: The resolutions that TIFF can hold, as a fraction of two numbers of 32 bits, in pixels per cm.
LEAST_RESOLUTION, MOST_RESOLUTION = 1e-9, 4e9


def sane_resolution(y: float, x: float) -> tuple[float, float] | None:
    """A resolution in pixels per cm, (y, x); None where no TIFF could hold it."""
    sane = all(LEAST_RESOLUTION <= value <= MOST_RESOLUTION for value in (y, x))
    return (y, x) if sane else None


def tag_resolution(y: float, x: float, unit: int) -> tuple[float, float] | None:
    """Pixels per cm (y, x) from the values of TIFF's tags 283, 282 and 296.

    The unit is 2 for inches, 3 for centimetres, and as some writers have it 4 for millimetres and 5 for
    micrometres; with any other unit, and for a resolution that no TIFF could hold, the result is None.
    """
    per_cm = {2: 1 / 2.54, 3: 1.0, 4: 10.0, 5: 1e4}.get(unit)
    return None if per_cm is None else sane_resolution(y * per_cm, x * per_cm)


#: The finest density in pixels per inch that is for printing; what is finer was measured.
FINEST_PRINT = 4800


def is_measured(pixels_per_cm: tuple[float, float] | None, in_inches: bool) -> bool:
    """Whether a resolution that is told as a bare number is the size of a pixel.

    Pixels per inch up to ``FINEST_PRINT`` are densities for screens and printing, which cameras and programs
    fill in without measuring anything. 10 pixels per cm is what libvips writes for an unknown resolution.
    """
    if pixels_per_cm is None or pixels_per_cm == (10.0, 10.0):
        return False
    return not in_inches or min(pixels_per_cm) * 2.54 > FINEST_PRINT


def aperio_resolution(description: str | None) -> tuple[float, float] | None:
    """Pixels per cm (y, x) from the microns per pixel ("MPP = 0.4990") in an Aperio image description.

    None where the description is not Aperio's or names no such number, or an absurd one.
    """
    if not description or not description.startswith("Aperio"):
        return None
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.]+(?:[eE][-+]?\d+)?)", description)
    try:
        microns = float(match.group(1)) if match else 0.0
    except ValueError:
        return None
    per_cm = 1e4 / microns if microns > 1e-300 else 0.0
    return sane_resolution(per_cm, per_cm)


def world_file_tags(text: str) -> tuple[Tag, ...]:
    """GeoTIFF tags from the six lines A, D, B, E, C, F of a world file; empty for any other text.

    C and F are the position of the centre of the upper left pixel; a GeoTIFF tiepoint is the position of that
    pixel's corner (PixelIsArea).
    """
    try:
        a, d, b, e, c, f = (float(word.replace(",", ".")) for word in text.split()[:6])
    except ValueError:
        return ()
    if not all(map(math.isfinite, (a, d, b, e, c, f, a * e, b * d))) or a * e == b * d:
        return ()
    return affine_tags(a, b, c - a / 2 - b / 2, d, e, f - d / 2 - e / 2)


def affine_tags(a: float, b: float, x: float, d: float, e: float, y: float) -> tuple[Tag, ...]:
    """GeoTIFF tags of the map from (column, row) to (a column + b row + x, d column + e row + y).

    A map without rotation whose rows run south is a scale and a tiepoint, any other a matrix.
    """
    if b == 0 and d == 0 and a > 0 and e < 0:
        return (Tag(33550, DOUBLE, 3, (a, -e, 0.0)), Tag(33922, DOUBLE, 6, (0.0, 0.0, 0.0, x, y, 0.0)))
    matrix = (a, b, 0.0, x, d, e, 0.0, y, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return (Tag(34264, DOUBLE, 16, matrix),)


def with_world_file(geo: tuple[Tag, ...], text: str | None) -> tuple[Tag, ...]:
    """The GeoTIFF tags of a file, completed by its world file where they do not say where the pixels lie.

    ``text`` is the content of the world file, or None. As in GDAL, the file's tags come first.
    """
    if text is None or any(tag.code in POSITION_TAGS for tag in geo):
        return geo
    return tuple(sorted((*geo, *world_file_tags(text)), key=lambda tag: tag.code))


#: The item of GDAL's metadata that says how an output was made; that of an input is about another picture.
PROVENANCE = "URST_TILES"

#: Items of GDAL's metadata that describe the values or the bands of the old pixels.
_FALSE_NAMES = re.compile(
    r"STATISTICS_|(SCALE|OFFSET|UNITTYPE|BAND|WAVELENGTH|FWHM|WAVELENGTH_UNITS|LAYER_TYPE|COLORINTERP"
    r"|NBITS|VALUE_UNITS|OVERVIEWS_|REPRESENTATION_TYPE|RANGE)",
    re.IGNORECASE,
)
_FALSE_ROLES = ("scale", "offset", "unittype", "description", "colorinterp", "statistics")
_FALSE_DOMAINS = ("IMAGE_STRUCTURE", "RAT", "COLOR_PROFILE", "TIFF", "DERIVED_SUBDATASETS", "SUBDATASETS")


def clean_gdal_metadata(xml: str | None, name: str = "the file") -> str | None:
    """GDAL's XML without the items that are false for new pixels; None where nothing remains.

    It removes all items about single bands, statistics, scale, offset, and the names of bands. Error messages
    call the file ``name``.

    Raises
    ------
    BadInput : the XML declares a document type or entities, which GDAL never does, or it is too long.
    """
    if not xml:
        return None
    if len(xml) > MOST_TEXT_BYTES:
        raise BadInput(_too_long(name))
    items = [item for item in _items(xml, name) if stays_true(item.attributes)]
    if not items:
        return None
    return "<GDALMetadata>\n" + "".join(_line(i.attributes, "".join(i.texts)) for i in items) + _END


_END = "</GDALMetadata>\n"


def _line(attributes: Mapping[str, str], text: str) -> str:
    return f"  <Item{''.join(f' {k}={quoteattr(v)}' for k, v in attributes.items())}>{escape(text)}</Item>\n"


def with_items(xml: str | None, items: Iterable[tuple[str, str, str]]) -> str | None:
    """GDAL's XML with more items, each (name, domain, text); None where there is nothing at all.

    An item of the XML with the same name and domain gives way. Texts are escaped twice, as GDAL writes and
    reads them; characters that XML cannot hold are left out.
    """
    new = {(name, domain): text for name, domain, text in items}
    old = [
        _line(item.attributes, "".join(item.texts))
        for item in (_items(xml, "the file") if xml else ())
        if (item.attributes.get("name", ""), item.attributes.get("domain", "")) not in new
    ]
    lines = [
        _line(
            {"name": _NO_XML.sub("", name)} | ({"domain": domain} if domain else {}),
            escape(_NO_XML.sub("", text)),
        )
        for (name, domain), text in new.items()
    ]
    return "<GDALMetadata>\n" + "".join([*old, *lines]) + _END if old or lines else None


def with_band_items(xml: str | None, items: Iterable[tuple[str, int, str]]) -> str | None:
    """GDAL's XML with items about single bands, each (name, band counted from 0, text)."""
    lines = "".join(_line({"name": name, "sample": str(band)}, text) for name, band, text in items)
    if not lines:
        return xml
    return _with_lines(xml, lines)


def with_bands_told(xml: str | None, items: Iterable[tuple[str, int, str]]) -> str:
    """GDAL's XML with what bands are, each (role, band counted from 0, text).

    Roles are those of GDAL's GeoTIFF driver: "description" is the name of a band, "scale" and "offset" make
    values of a unit of its samples, "unittype" is that unit.
    """
    lines = "".join(
        _line({"name": role.upper(), "sample": str(band), "role": role}, escape(_NO_XML.sub("", text)))
        for role, band, text in items
    )
    return _with_lines(xml, lines)


def _with_lines(xml: str | None, lines: str) -> str:
    """GDAL's XML, or an empty one, with more lines at its end."""
    start = xml.rstrip().removesuffix(_END.rstrip()) if xml else "<GDALMetadata>\n"
    return start + lines + _END


def item_of(xml: str | None, name: str) -> str | None:
    """The text of an item of GDAL's XML in the default domain; None where it is missing."""
    found = [i for i in (_items(xml, "the file") if xml else ()) if i.attributes.get("name") == name]
    return "".join(found[0].texts) if found and not found[0].attributes.get("domain") else None


def items_of(xml: str | None) -> list[tuple[str, str, str]]:
    """The items of GDAL's XML that are about no single band: (name, domain, text)."""
    found = (i for i in (_items(xml, "the file") if xml else ()) if "sample" not in i.attributes)
    return [
        (i.attributes["name"], i.attributes.get("domain", ""), unescape("".join(i.texts)))
        for i in found
        if "name" in i.attributes
    ]


#: Characters that XML 1.0 cannot hold.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


#: GDAL nests two elements, or a few more where a format's own XML is inside.
_MOST_DEPTH = 256


@dataclass
class _Item:
    attributes: dict[str, str]
    texts: list[str]  # expat hands a text over in pieces, at each entity and line
    plain: bool = True


def _too_long(name: str) -> str:
    return (
        f"{name}: its GDAL metadata is too long to be read (limits {MOST_TEXT_BYTES >> 20} MB, "
        f"{MOST_ENTRIES} items and {_MOST_DEPTH} levels); remove TIFF tag 42112 (tiffset -u 42112 FILE)"
    )


def stays_true(attributes: dict[str, str]) -> bool:
    """Whether an item of GDAL's metadata with these attributes is true for new pixels, too."""
    return not (
        "sample" in attributes
        or attributes.get("name") == PROVENANCE
        or attributes.get("role", "").lower() in _FALSE_ROLES
        or attributes.get("domain", "").upper() in _FALSE_DOMAINS
        or _FALSE_NAMES.match(attributes.get("name", ""))
    )


def _items(xml: str, name: str) -> Sequence[_Item]:
    """The ``<Item>`` elements without children; empty where the text is not XML.

    Entities are refused, never expanded.
    """
    items: list[_Item] = []
    stack: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        stack.append(tag)
        if len(stack) > _MOST_DEPTH:
            raise BadInput(_too_long(name))
        if stack == ["GDALMetadata", "Item"]:
            items.append(_Item(attributes, []))
            if len(items) > MOST_ENTRIES:
                raise BadInput(_too_long(name))
        elif len(stack) > 2 and items:
            items[-1].plain = False

    def end(tag: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        if stack == ["GDALMetadata", "Item"]:
            items[-1].texts.append(data)

    def refuse(*_: object) -> None:
        raise BadInput(
            f"{name}: its GDAL metadata declares an XML document type or entities, which is not safe "
            "to read; remove TIFF tag 42112 (tiffset -u 42112 FILE)"
        )

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    try:
        parser.Parse(xml, True)
    except expat.ExpatError:
        return []
    return [item for item in items if item.plain]


def is_rgb_profile(profile: bytes) -> bool:
    """Whether an ICC profile describes RGB pixels (ICC.1:2022, section 7.2.6)."""
    return len(profile) >= 128 and profile[16:20] == b"RGB " and profile[36:40] == b"acsp"
