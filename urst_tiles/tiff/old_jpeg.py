"""JPEG as TIFF 6.0 first had it (compression 6): the parts of one JPEG stream, scattered over the file.

The stream is put together again, for all strips at once. Its header is either a piece of a JPEG stream (tag
513), which often holds the whole picture, or is made from the tables that tags 519 to 521 point to.

References: TIFF 6.0 (1992), section 22; TIFF Technical Note 2, which replaced it; libtiff, tif_ojpeg.c;
ITU T.81, annex B.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.layout import MOST_BYTES, Layout
from urst_tiles.tiff.streams import Size, check_size

OLD_JPEG = 6

#: Markers: start and end of the picture, start of a scan, and the first of the eight that restart decoding.
SOI, EOI, SOS, RST0 = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xD0


def decode_old_jpeg(file: FileBytes, directory: Directory, strips: Layout) -> NDArray[np.uint8]:
    """All pixels of a page, uint8, (h, w, bands); YCbCr becomes RGB.

    Parameters
    ----------
    file : the open file.
    directory : the page's directory.
    strips : where its strips lie.

    Raises
    ------
    ValueError : the stream is damaged, or holds a picture of another size.
    """
    (height, width), bands = directory.shape, directory.number(277, 1)
    stream = _stream(file, directory, strips)
    check_size(OLD_JPEG, stream, Size(height, width, bands))
    spaces: dict[str, Any] = {}
    if bands == 3:
        stored = "YCBCR" if directory.number(262) == 6 else "RGB"
        spaces = {"colorspace": stored, "outcolorspace": "RGB"}
    pixels = np.asarray(imagecodecs.jpeg8_decode(stream, **spaces))
    if pixels.shape[:2] != (height, width) or pixels.size != height * width * bands:
        raise ValueError(f"its JPEG stream holds a picture of shape {pixels.shape}")
    return pixels.reshape(height, width, bands)


def _stream(file: FileBytes, directory: Directory, strips: Layout) -> bytes:
    """The whole JPEG stream of a page."""
    start, length = directory.number(513), directory.number(514)
    piece = file(start, min(length or file.size, MOST_BYTES)) if start else b""
    if piece[:2] == SOI:
        scan = _scan_of(piece)
        if len(scan) > 2 and EOI in scan:
            return piece[: piece.rindex(EOI) + 2]
        return piece[: len(piece) - len(scan)] + (scan or _scan(file, strips)) + EOI
    return _made_header(file, directory, strips) + _scan(file, strips) + EOI


def _scan_of(stream: bytes) -> bytes:
    """What follows the header of the first scan of a JPEG stream."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        (length,) = struct.unpack_from(">H", stream, at + 2)
        at += 2 + length
        if stream[at - length - 1] == SOS:
            return stream[at:]
    raise ValueError("its JPEG stream has no scan")


def _scan(file: FileBytes, strips: Layout) -> bytes:
    """The coded pixels of all strips, with a marker that restarts decoding between two of them."""
    parts = []
    for index, (offset, count) in enumerate(zip(strips.offsets, strips.counts, strict=True)):
        part = file.exactly(int(offset), int(count), strips.name(index)).removesuffix(EOI)
        if part[:2] == SOI:
            part = _scan_of(part)
        restart = bytes([0xFF, RST0 + index % 8])
        parts.append(part.removesuffix(restart))
        parts.append(restart)
    return b"".join(parts[:-1])


def _made_header(file: FileBytes, directory: Directory, strips: Layout) -> bytes:
    """The header of a baseline JPEG stream, made from the tables that the directory points to."""
    (height, width), bands = directory.shape, directory.number(277, 1)
    tables = [directory.array(code).ravel().astype(int).tolist() for code in (519, 520, 521)]
    if any(len(places) < bands for places in tables):
        raise ValueError("its JPEG tables are missing")
    across, down = ([int(n) for n in directory.array(530).ravel()] or [2, 2])[:2] if bands == 3 else (1, 1)
    parts = [SOI]
    for k in range(bands):
        quantisation, dc, ac = (places[k] for places in tables)
        parts.append(_segment(0xDB, bytes([k]) + file.exactly(quantisation, 64, "a JPEG table")))
        for kind, place in ((0x00, dc), (0x10, ac)):
            counts = file.exactly(place, 16, "a JPEG table")
            values = file.exactly(place + 16, sum(counts), "a JPEG table")
            parts.append(_segment(0xC4, bytes([kind | k]) + counts + values))
    steps = [across << 4 | down] + [0x11] * (bands - 1)
    frame = b"".join(bytes([k + 1, step, k]) for k, step in enumerate(steps))
    parts.append(_segment(0xC0, struct.pack(">BHHB", 8, height, width, bands) + frame))
    interval = directory.number(515)
    if strips.offsets.size > 1 and not interval:
        interval = ceil_div(width, 8 * across) * ceil_div(strips.segment[0], 8 * down)
    if interval:
        parts.append(_segment(0xDD, struct.pack(">H", interval)))
    scan = b"".join(bytes([k + 1, k << 4 | k]) for k in range(bands))
    return b"".join(parts) + _segment(SOS, bytes([bands]) + scan + b"\x00\x3f\x00")


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
