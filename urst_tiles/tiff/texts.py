"""Texts that a picture carries: tags of text, XMP and IPTC, freed from what is false for new pixels.

References: TIFF 6.0, section 8; XMP (ISO 16684-1) with parts 2 and 3 (Adobe, 2020); IPTC IIM 4.2; Photoshop's
image resources ("Adobe Photoshop File Formats Specification").
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from xml.parsers import expat

import numpy as np

from urst_tiles.tiff.budget import MOST_TEXT_BYTES
from urst_tiles.tiff.metadata import Tag
from urst_tiles.tiff.types import ASCII, BYTE, LONG

#: DocumentName, ImageDescription, Make, Model, PageName, DateTime, Artist, HostComputer, Copyright.
DESCRIPTION, DATE_TIME, ARTIST, COPYRIGHT = 270, 306, 315, 33432
TEXTS = (269, DESCRIPTION, 271, 272, 285, DATE_TIME, ARTIST, 316, COPYRIGHT)

#: Title, comment, author, keywords and subject as Windows writes them: UTF-16 in bytes.
WINDOWS_TEXTS = (40091, 40092, 40093, 40094, 40095)

#: XMP, IPTC, Photoshop's image resources, and the geographic metadata of the DGIWG.
XMP, IPTC, PHOTOSHOP, GEO_METADATA = 700, 33723, 34377, 50909

_TIFF_NAMES = """Orientation ImageWidth ImageLength BitsPerSample Compression PhotometricInterpretation
Software SamplesPerPixel PlanarConfiguration YCbCrSubSampling YCbCrPositioning XResolution YResolution
ResolutionUnit TransferFunction WhitePoint PrimaryChromaticities YCbCrCoefficients
ReferenceBlackWhite NativeDigest"""
_EXIF_NAMES = """PixelXDimension PixelYDimension ColorSpace ComponentsConfiguration CompressedBitsPerPixel
WhiteBalance Contrast Saturation Sharpness CustomRendered GainControl CFAPattern NativeDigest MakerNote
ImageUniqueID SubjectArea SubjectLocation SpatialFrequencyResponse OECF DeviceSettingDescription
RelatedSoundFile"""

#: Namespaces of XMP and their properties that describe the old pixels or the old file; "*" stands for all.
FALSE_XMP = {
    "http://ns.adobe.com/tiff/1.0/": frozenset(_TIFF_NAMES.split()),
    "http://ns.adobe.com/exif/1.0/": frozenset(_EXIF_NAMES.split()),
    "http://ns.adobe.com/xap/1.0/": frozenset({"Thumbnails"}),
    "http://ns.adobe.com/xap/1.0/mm/": frozenset({"InstanceID"}),
    "http://ns.adobe.com/photoshop/1.0/": frozenset({"ColorMode", "ICCProfile"}),
    "http://ns.adobe.com/camera-raw-settings/1.0/": frozenset({"*"}),
}

#: A whole tag of XML; ">" may stand in the values of its attributes.
_TAG = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")


def text_tag(code: int, value: bytes) -> Tag | None:
    """A tag of text with the bytes of another, in any encoding; None where it is empty or too long."""
    value = value.rstrip(b"\0")
    if not value.strip(b" \0") or len(value) > MOST_TEXT_BYTES:
        return None
    if code in WINDOWS_TEXTS:  # the last letter may have ended in a zero
        value += bytes(len(value) % 2) + b"\0\0"
        return Tag(code, BYTE, len(value), value)
    return Tag(code, ASCII, len(value) + 1, value + b"\0")


def bytes_tag(code: int, value: bytes) -> Tag | None:
    """A tag of bytes; None where there are none or too many. IPTC becomes whole LONGs, as libtiff asks."""
    if not value or len(value) > MOST_TEXT_BYTES:
        return None
    if code == IPTC:
        value += bytes(-len(value) % 4)
        return Tag(code, LONG, len(value) // 4, value)
    return Tag(code, BYTE, len(value), value)


def iptc_of(data: bytes) -> bytes:
    """The records of IPTC in a tag's value or in Photoshop's image resources; empty where there are none."""
    data = data.removeprefix(b"Photoshop 3.0\0")
    if data.startswith(b"8BIM"):
        return next((value for kind, value in _resources(data) if kind == 0x0404), b"")
    if data[:1] != b"\x1c" and data[3:4] == b"\x1c" and len(data) % 4 == 0:  # LONGs of the other byte order
        return np.frombuffer(data, ">u4").astype("<u4").tobytes()
    return data if data[:1] == b"\x1c" else b""


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, value) of each of Photoshop's image resources."""
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (kind,), name = struct.unpack_from(">H", data, at + 4), data[at + 6]
        at += 6 + (name + 2) // 2 * 2
        if at + 4 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, at)
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2


def clean_xmp(data: bytes) -> bytes | None:
    """XMP without the properties that are false for new pixels; all else as it is.

    None where the data are not XMP, declare entities, or are too long.
    """
    data = _in_utf8(data.strip(b"\0"))
    if not data or len(data) > MOST_TEXT_BYTES:
        return None
    finder = _Finder(data)
    if not finder.is_xmp:
        return None
    for start, end in sorted(finder.cuts, reverse=True):
        data = data[:start] + data[end:]
    return data


def _in_utf8(data: bytes) -> bytes:
    """XMP in UTF-8; it may also be in UTF-16."""
    if data[:2] not in (b"\xff\xfe", b"\xfe\xff") and b"\0" not in data[:64]:
        return data
    try:
        return data.decode("utf-16").lstrip("\ufeff").encode()
    except UnicodeDecodeError:
        return b""


class _Refused(Exception):
    """A document type or an entity."""


class _Finder:
    """Finds what is to be cut out of XMP.

    Attributes
    ----------
    is_xmp : whether the data are XMP.
    cuts : (start, end) in bytes of the elements and attributes that are false.
    """

    def __init__(self, data: bytes) -> None:
        self.is_xmp, self.cuts = False, list[tuple[int, int]]()
        self._data, self._cut_at = data, 0
        self._spaces: dict[str, str] = {}
        self._starts: list[int] = []
        parser = self._parser = expat.ParserCreate("utf-8")
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, _Refused):
            self.is_xmp = False

    def _refuse(self, *_: object) -> None:
        raise _Refused

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        at = self._parser.CurrentByteIndex
        if not self._starts:
            self.is_xmp = name.rpartition(":")[2] in ("xmpmeta", "xapmeta", "RDF")
        self._starts.append(at)
        self._spaces |= {n[6:]: uri for n, uri in attributes.items() if n.startswith("xmlns:")}
        if self._cut_at:
            return
        if self._is_false(name):
            self._cut_at = len(self._starts)
            return
        for attribute in filter(self._is_false, attributes):
            self._cut_attribute(at, attribute)

    def _cut_attribute(self, at: int, name: str) -> None:
        tag = _TAG.match(self._data, at)
        pattern = rb"\s" + re.escape(name.encode()) + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')"
        found = re.compile(pattern).search(self._data, at, tag.end()) if tag else None
        if found:
            self.cuts.append(found.span())

    def _end(self, name: str) -> None:
        start = self._starts.pop()
        if self._cut_at == len(self._starts) + 1:
            tag = _TAG.match(self._data, self._parser.CurrentByteIndex)
            self._cut_at = 0
            if tag:
                self.cuts.append((start, tag.end()))

    def _is_false(self, name: str) -> bool:
        prefix, _, local = name.partition(":")
        names = FALSE_XMP.get(self._spaces.get(prefix, ""), frozenset[str]())
        return local in names or "*" in names
