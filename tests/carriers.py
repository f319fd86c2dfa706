"""Made-up files that carry everything: EXIF with GPS, XMP, IPTC, texts, profiles, in each container."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from helpers import picture

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7

Values = str | bytes | list[int] | list[tuple[int, int]]

#: What every file says of itself in its main directory.
TEXTS: dict[int, str] = {
    270: "Scene 7", 271: "ACME", 272: "Model T", 306: "2024:05:01 10:00:00", 315: "Ann Müller",
    33432: "(c) ACME survey",
}  # fmt: skip

#: What is true of the shot, and what is true of the old picture alone.
TRUE_EXIF: dict[int, tuple[int, Values]] = {
    33434: (RATIONAL, [(1, 250)]), 34855: (SHORT, [200]), 36867: (ASCII, "2024:05:01 10:00:00"),
    37386: (RATIONAL, [(35, 1)]), 37510: (UNDEFINED, b"ASCII\0\0\0a note"),
}  # fmt: skip
FALSE_EXIF: dict[int, tuple[int, Values]] = {
    37500: (UNDEFINED, b"maker" * 5), 40962: (LONG, [96]), 40963: (LONG, [64]), 41987: (SHORT, [1]),
}  # fmt: skip
GPS: dict[int, tuple[int, Values]] = {
    1: (ASCII, "N"), 2: (RATIONAL, [(46, 1), (50, 1), (333855, 10000)]), 3: (ASCII, "W"),
    4: (RATIONAL, [(91, 1), (59, 1), (404156, 10000)]), 6: (RATIONAL, [(198309, 1000)]),
}  # fmt: skip

XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 tiff:Orientation="6" tiff:Make="ACME > all" crs:WhiteBalance='As "Shot"' xmp:Rating="5">
<xmp:Thumbnails><rdf:Alt><rdf:li/></rdf:Alt></xmp:Thumbnails>
<dc:creator><rdf:Seq><rdf:li>Ann M\xc3\xbcller</rdf:li></rdf:Seq></dc:creator></rdf:Description></rdf:RDF>
</x:xmpmeta><?xpacket end="w"?>"""

IPTC = b"".join(
    struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text
    for number, text in ((5, b"Scene 7"), (80, b"Ann"), (116, b"ACME"))
)


def _value(dtype: int, value: Values, order: str) -> tuple[int, bytes]:
    """(count, bytes) of a value."""
    if isinstance(value, str):
        return len(value.encode()) + 1, value.encode() + b"\0"
    if isinstance(value, bytes):
        return len(value), value
    numbers = [n for pair in value for n in (pair if isinstance(pair, tuple) else (pair,))]
    return len(value), struct.pack(f"{order}{len(numbers)}{'H' if dtype == SHORT else 'I'}", *numbers)


def _ifd(tags: dict[int, tuple[int, Values]], at: int, order: str, following: int = 0) -> bytes:
    head, tail = struct.pack(order + "H", len(tags)), b""
    behind = at + 2 + 12 * len(tags) + 4
    for code, (dtype, value) in sorted(tags.items()):
        count, data = _value(dtype, value, order)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place = struct.pack(order + "I", behind + len(tail))
            tail += data + bytes(len(data) % 2)
        head += struct.pack(order + "HHI", code, dtype, count) + place
    return head + struct.pack(order + "I", following) + tail


def exif_block(order: str = "<", *, orientation: int = 1, dpi: int = 300, thumbnail: bool = True) -> bytes:
    """A block of EXIF as cameras write it, with a thumbnail."""
    main: dict[int, tuple[int, Values]] = {code: (ASCII, text) for code, text in TEXTS.items()}
    main |= {274: (SHORT, [orientation]), 282: (RATIONAL, [(dpi, 1)]), 283: (RATIONAL, [(dpi, 1)])}
    main |= {296: (SHORT, [2]), 305: (ASCII, "Camera 1.0"), 34665: (LONG, [0]), 34853: (LONG, [0])}
    size = len(_ifd(main, 8, order))
    exif = _ifd(TRUE_EXIF | FALSE_EXIF, 8 + size, order)
    gps = _ifd(GPS, 8 + size + len(exif), order)
    end = 8 + size + len(exif) + len(gps)
    main |= {34665: (LONG, [8 + size]), 34853: (LONG, [8 + size + len(exif)])}
    small = _ifd({259: (SHORT, [6]), 513: (LONG, [0]), 514: (LONG, [0])}, end, order) if thumbnail else b""
    start = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return start + _ifd(main, 8, order, end if thumbnail else 0) + exif + gps + small


def jpeg(path: Path, *, order: str = "<", orientation: int = 1, dpi: int = 300, jfif: bytes = b"") -> Path:
    """A JPEG with everything. ``jfif`` are unit and density of its JFIF header, if it has one."""
    data = imagecodecs.jpeg8_encode(picture(64, 96), level=95)
    data = data[2:] if data[2:4] != b"\xff\xe0" else data[4 + int.from_bytes(data[4:6], "big") :]
    resource = (
        b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    )
    block = exif_block(order, orientation=orientation, dpi=dpi)
    parts = [(0xE0, b"JFIF\0\1\2" + jfif + b"\0\0")] if jfif else []
    parts += [(0xE1, b"Exif\0\0" + block), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), (0xED, resource),
              (0xFE, b"a comment")]  # fmt: skip
    head = b"".join(struct.pack(">BBH", 0xFF, kind, len(part) + 2) + part for kind, part in parts)
    path.write_bytes(b"\xff\xd8" + head + data)
    return path


def png(path: Path, **chunks: bytes) -> Path:
    """A PNG with everything; ``chunks`` are further ones by their type."""
    data = imagecodecs.png_encode(picture(64, 96))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    xmp = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)
    raw = b"Raw profile type iptc\0\0" + zlib.compress(f"\niptc\n{len(IPTC):8}\n{IPTC.hex()}\n".encode())
    note = b"Note\0a note of no standard keyword"
    parts = [(b"eXIf", exif_block()), (b"iTXt", xmp), (b"zTXt", raw), (b"tEXt", note)]
    parts += [(kind.encode(), body) for kind, body in chunks.items()]
    path.write_bytes(data[:33] + b"".join(chunk(*part) for part in parts) + data[33:])
    return path


def webp(path: Path) -> Path:
    """A WebP with everything but IPTC, for which it has no place."""
    inside = imagecodecs.webp_encode(picture(64, 96), lossless=True)[12:]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    head = chunk(b"VP8X", bytes([0x0C, 0, 0, 0]) + (95).to_bytes(3, "little") + (63).to_bytes(3, "little"))
    body = b"WEBP" + head + inside + chunk(b"EXIF", exif_block()) + chunk(b"XMP ", XMP)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def tiff(path: Path, *, order: str = "<", orientation: int = 1, **more: object) -> Path:
    """A classic TIFF with everything, whose EXIF lies in directories of its own."""
    text = [(code, ASCII, None, value.encode() + b"\0", True) for code, value in TEXTS.items() if code != 270]
    tags = [*text, (285, ASCII, None, b"page one\0", True), (316, ASCII, None, b"a host\0", True)]
    tags += [(700, 1, len(XMP), XMP, True), (33723, UNDEFINED, len(IPTC), IPTC, True)]
    tags += [(274, SHORT, 1, orientation, True), (34660, LONG, 1, 0, True), (34852, LONG, 1, 0, True)]
    settings = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "byteorder": order}
    settings |= {"description": TEXTS[270], "resolution": (300, 300), "resolutionunit": 2, "extratags": tags}
    tifffile.imwrite(path, picture(64, 96), **(settings | more))
    data = bytearray(path.read_bytes())
    for other, code, value in ((34660, 34665, TRUE_EXIF | FALSE_EXIF), (34852, 34853, GPS)):
        data += bytes(len(data) % 2)
        at = data.index(struct.pack(order + "HHI", other, LONG, 1))  # tifffile writes no tag of these codes
        struct.pack_into(order + "HHII", data, at, code, LONG, 1, len(data))
        data += _ifd(value, len(data), order)
    path.write_bytes(data)
    return path


def pages(path: Path) -> tifffile.TiffPage:
    """The first page of a TIFF, with all that is in it read."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        for tag in page.tags:
            _ = tag.value
        return page


def pixels(path: Path) -> np.ndarray:
    return tifffile.imread(path, level=0)
