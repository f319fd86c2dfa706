"""What files that are no TIFF carry beside their pixels: blocks of EXIF, XMP and IPTC, texts, resolution.

The blocks are taken from libvips, which finds them in every format that it reads. What libvips does not tell
truly is read from the file: it has a resolution for every file, whether or not that is stated, and not all
texts of PNG.

References: PNG (ISO 15948), section 11.3; JFIF 1.02; JPEG 2000 (ISO 15444-1), annex I; GeoJP2; ExifTool's
page on JPEG 2000.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate
from pathlib import Path
from typing import Any

from urst_tiles.tiff.budget import MOST_TEXT_BYTES
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.metadata import FINEST_PRINT
from urst_tiles.tiff.microscopes import OBJECTIVE, tiff_date
from urst_tiles.tiff.texts import ARTIST, COPYRIGHT, DATE_TIME, DESCRIPTION

#: The most segments, chunks or boxes of a file that are looked at.
MOST_PIECES = 1 << 18

#: PNG's keywords of text, and the TIFF tags of the same meaning. "Software" made the old file, not the new.
KEYWORDS = {"Title": 269, "Description": DESCRIPTION, "Source": 272, "Author": ARTIST, "Copyright": COPYRIGHT}

#: The boxes "uuid" of JPEG 2000 by their first bytes.
UUIDS = {
    b"JpgTiffExif->JP2": "exif",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc",
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "geotiff",
}


@dataclass
class Carried:
    """What a file carries.

    Attributes
    ----------
    exif, xmp, iptc : these blocks as they lie in the file; empty where there are none.
    geotiff : the small GeoTIFF that a JPEG 2000 file has for its georeferencing.
    texts : texts in UTF-8 by the code of the TIFF tag that they become.
    items : further texts by name, as GDAL names them.
    pixels_per_cm : (y, x) resolution that the file itself states, or None.
    in_inches : whether it is a density for screens and printing.
    lost : what is not taken over, in words.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    geotiff: bytes = b""
    texts: dict[int, bytes] = field(default_factory=dict)
    items: dict[str, str] = field(default_factory=dict)
    pixels_per_cm: tuple[float, float] | None = None
    in_inches: bool = False
    lost: list[str] = field(default_factory=list)


def carried_by(path: Path, loader: str, image: Any) -> Carried:
    """What the file at ``path`` carries; ``image`` is what the libvips loader ``loader`` made of it."""
    found = Carried()
    for name in ("exif", "xmp", "iptc"):
        if image.get_typeof(f"{name}-data"):
            setattr(found, name, bytes(image.get(f"{name}-data")))
    if loader == "openslideload":
        _openslide(image, found)
    elif loader in ("vipsload", "niftiload"):
        _vips(image, found)
    elif loader in _READERS:
        _READERS[loader](FileBytes(path), found)
    return found


def _vips(image: Any, found: Carried) -> None:
    """Formats whose header is that of libvips itself; 1 pixel per mm stands for an unknown resolution."""
    if (image.xres, image.yres) != (1.0, 1.0):
        found.pixels_per_cm = image.yres * 10, image.xres * 10


def _openslide(image: Any, found: Carried) -> None:
    """The properties of OpenSlide."""
    names = ("openslide.mpp-y", "openslide.mpp-x", OBJECTIVE)
    values = [image.get(name) if image.get_typeof(name) else "" for name in names]
    with suppress(ValueError, ZeroDivisionError):
        found.pixels_per_cm = 1e4 / float(values[0]), 1e4 / float(values[1])
    if values[2]:
        found.items[OBJECTIVE] = str(values[2])


def _png(file: FileBytes, found: Carried) -> None:
    for kind, data in _chunks(file):
        if kind == b"pHYs" and len(data) == 9 and data[8] == 1:
            x, y = struct.unpack_from(">II", data)
            if (x, y) != (1000, 1000):  # what libvips writes for an unknown resolution
                _per_metre(found, y, x)
        elif kind == b"eXIf":
            found.exif = found.exif or data
        elif kind == b"tIME" and len(data) == 7:
            found.texts.setdefault(DATE_TIME, b"%04d:%02d:%02d %02d:%02d:%02d" % struct.unpack(">H5B", data))
        elif (text := _png_text(kind, data)) is not None:
            _png_keyword(found, *text)


def _png_keyword(found: Carried, keyword: str, text: str) -> None:
    """Take over one text of a PNG."""
    if keyword == "XML:com.adobe.xmp":
        found.xmp = found.xmp or text.encode()
    elif raw := re.fullmatch(r"Raw profile type (exif|APP1|iptc|8bim|xmp)", keyword):
        _raw_profile(found, raw[1], text)
    elif keyword == "Creation Time":
        parsed = parsedate(text)
        date = tiff_date(text) or (
            "{:04}:{:02}:{:02} {:02}:{:02}:{:02}".format(*parsed[:6]) if parsed else None
        )
        if date:
            found.texts[DATE_TIME] = date.encode()
        else:
            found.items[keyword] = text
    elif keyword in KEYWORDS:
        found.texts.setdefault(KEYWORDS[keyword], text.encode())
    elif keyword != "Software" and not keyword.startswith(("date:", "png:", "exif:")):
        found.items[keyword.replace(" ", "_")] = text  # GDAL's names


def _raw_profile(found: Carried, kind: str, text: str) -> None:
    """A block in hexadecimal, as ImageMagick writes it: its name, its length, its digits."""
    words = text.split()
    try:
        data = bytes.fromhex("".join(words[2:]))
    except ValueError:
        return
    if kind in ("exif", "APP1") and not data.startswith(b"http"):
        found.exif = found.exif or data
    elif kind in ("iptc", "8bim"):
        found.iptc = found.iptc or data
    elif kind == "xmp":
        found.xmp = found.xmp or data


def _chunks(file: FileBytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of the chunks of a PNG that carry metadata."""
    at = 8
    for _ in range(MOST_PIECES):
        head = file(at, 8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        size = int.from_bytes(head[:4], "big")
        if head[4:] in (b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME") and size <= MOST_TEXT_BYTES:
            yield head[4:], file(at + 8, size)
        at += size + 12


def _png_text(kind: bytes, data: bytes) -> tuple[str, str] | None:
    """(keyword, text) of a chunk of text; None for any other, and for one that is damaged or too long."""
    keyword, zero, rest = data.partition(b"\0")
    packed = False
    if kind == b"iTXt" and len(rest) >= 2:
        packed = rest[0] == 1
        rest = rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
    elif kind == b"zTXt":
        packed, rest = True, rest[1:]
    elif kind != b"tEXt":
        return None
    if packed:
        try:
            unpack = zlib.decompressobj()
            rest = unpack.decompress(rest, MOST_TEXT_BYTES)
        except zlib.error:
            return None
        if unpack.unconsumed_tail:
            return None
    return keyword.decode("latin-1"), rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _jpeg(file: FileBytes, found: Carried) -> None:
    for marker, data in _segments(file):
        if marker == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 12:
            unit, x, y = struct.unpack_from(">BHH", data, 7)
            per_cm = {1: 1 / 2.54, 2: 1.0}.get(unit, 0.0)
            if per_cm and x > 1 and y > 1 and (unit, x, y) != (2, 10, 10):
                found.pixels_per_cm, found.in_inches = (y * per_cm, x * per_cm), True
        elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            found.lost = ["the extended part of its XMP"]
        elif marker == 0xFE and data.strip(b"\0 "):
            found.items["COMMENT"] = data.rstrip(b"\0").decode("utf-8", "replace")  # GDAL's name


def _segments(file: FileBytes) -> Iterator[tuple[int, bytes]]:
    """(marker, data) of the segments of a JPEG before its pixels."""
    at = 2
    for _ in range(MOST_PIECES):
        head = file(at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return
        if head[1] == 0xFF:  # a byte that fills
            at += 1
            continue
        size = int.from_bytes(head[2:], "big")
        yield head[1], file(at + 4, max(0, size - 2))
        at += 2 + max(2, size)


def _jp2(file: FileBytes, found: Carried) -> None:
    for kind, start, size in _boxes(file, 0, file.size):
        if kind == b"uuid" and 16 < size <= MOST_TEXT_BYTES:
            name = UUIDS.get(file(start, 16))
            if name and not getattr(found, name):
                setattr(found, name, file(start + 16, size - 16))
        elif kind == b"jp2h":
            for inner, place, length in _boxes(file, start, start + size):
                if inner == b"res ":
                    _jp2_resolution(file, place, length, found)


def is_plain_jp2(path: Path) -> bool:
    """Whether a JPEG 2000 file is a picture without georeferencing (GeoJP2, or GML in an association)."""
    file, found = FileBytes(path), Carried()
    _jp2(file, found)
    return not found.geotiff and all(kind != b"asoc" for kind, *_ in _boxes(file, 0, file.size))


def jp2_tile_bytes(path: Path) -> int:
    """About how many bytes a tile of a JPEG 2000 file, or of a bare stream of it, takes there.

    It is its share of the file, by the marker SIZ (annex A.5.1); 0 where that makes no sense.
    """
    file = FileBytes(path)
    streams = [start for kind, start, _ in _boxes(file, 0, file.size) if kind == b"jp2c"]
    head = file(streams[0] if streams else 0, 40)
    if len(head) < 40 or head[:4] != b"\xff\x4f\xff\x51":
        return 0
    right, bottom, left, top, wide, tall = struct.unpack_from(">6I", head, 8)
    area = (right - left) * (bottom - top)
    tile = min(wide, right - left) * min(tall, bottom - top)
    return file.size * tile // area if area > 0 else 0


def _jp2_resolution(file: FileBytes, start: int, size: int, found: Carried) -> None:
    """The resolution of capture, which was measured, or else that of display; both in pixels per metre."""
    boxes = {
        kind: file(place, 10) for kind, place, length in _boxes(file, start, start + size) if length == 10
    }
    for kind in (b"resc", b"resd"):
        if kind in boxes:
            y, below_y, x, below_x, power_y, power_x = struct.unpack(">4H2b", boxes[kind])
            if below_y and below_x:
                _per_metre(found, y / below_y * 10.0**power_y, x / below_x * 10.0**power_x)
            return


def _per_metre(found: Carried, y: float, x: float) -> None:
    """Take over a resolution in pixels per metre: a coarse one is a density for screens and printing."""
    found.pixels_per_cm = y / 100, x / 100
    found.in_inches = min(y, x) * 0.0254 <= FINEST_PRINT


def _boxes(file: FileBytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, position of the content, its length) of boxes of JPEG 2000, one behind the other."""
    for _ in range(MOST_PIECES):
        head = file(start, 16)
        if start + 8 > end or len(head) < 8:
            return
        size, kind, skip = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1 and len(head) == 16:
            size, skip = int.from_bytes(head[8:], "big"), 16
        size = end - start if size == 0 else size
        if size < skip:
            return
        yield kind, start + skip, min(size, end - start) - skip
        start += size


#: Who reads what libvips does not tell, by its loader.
_READERS: dict[str, Callable[[FileBytes, Carried], None]] = {
    "pngload": _png, "jpegload": _jpeg, "jp2kload": _jp2,
}  # fmt: skip
