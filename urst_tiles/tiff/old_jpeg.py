"""JPEG as TIFF 6.0 first had it (compression 6): the parts of one JPEG stream, scattered over the file.

The stream is put together again, of all strips at once, and of each tile alone. Its header lies in a piece of
a JPEG stream (tag 513), which often holds the whole picture, at the start of the first strip, or in both;
what neither has is made from the tables that tags 519 to 521 point to.

References: TIFF 6.0 (1992), section 22; TIFF Technical Note 2, which replaced it; libtiff, tif_ojpeg.c;
ITU T.81, annex B.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.chroma import Chroma, page_chroma
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.layout import MOST_BYTES, Layout
from urst_tiles.tiff.markers import FRAMES
from urst_tiles.tiff.streams import Size, check_size

OLD_JPEG = 6

#: Markers: start and end of the picture, and the first of the eight that restart decoding.
SOI, EOI, RST0 = b"\xff\xd8", b"\xff\xd9", 0xD0

#: Markers with a content: code tables, quantisation tables, how often decoding restarts, and the scan.
CODES, QUANTISATION, INTERVAL, SCAN = 0xC4, 0xDB, 0xDD, 0xDA
HEADER = FRAMES | {CODES, QUANTISATION, INTERVAL, SCAN, 0xFE, *range(0xE0, 0xF0)}


@dataclass(frozen=True)
class Head:
    """The markers with which a piece of a JPEG stream begins.

    Attributes
    ----------
    parts : their codes and bytes, up to the scan's.
    end : where what follows them begins.
    """

    parts: list[tuple[int, bytes]]
    end: int

    def of(self, *codes: int) -> list[bytes]:
        """The bytes of the markers with these codes."""
        return [part for code, part in self.parts if code in codes]


def head_of(data: bytes) -> Head:
    """The markers with which ``data`` begins, none where it begins with coded pixels."""
    parts, at = [], 2 if data[:2] == SOI else 0
    while at + 4 <= len(data) and data[at] == 0xFF and (code := data[at + 1]) in HEADER:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if at + 2 + length > len(data):
            break
        parts.append((code, data[at : at + 2 + length]))
        at += 2 + length
        if code == SCAN:
            break
    return Head(parts, at)


def decode_old_jpeg(
    file: FileBytes, directory: Directory, layout: Layout, tile: int | None = None
) -> NDArray[np.uint8]:
    """All pixels of a page in strips, or of one of its tiles, uint8, (h, w, bands).

    Three bands become RGB. They are YCbCr even where the directory calls them RGB; black, white and the
    shares of the colours are those of tags 529 and 532, as in libtiff.

    Parameters
    ----------
    file : the open file.
    directory : the page's directory.
    layout : where its strips or tiles lie.
    tile : the number of the tile; None for a page in strips.

    Raises
    ------
    ValueError : the stream is damaged, or holds a picture of another size.
    """
    (height, width), bands = directory.shape if tile is None else layout.segment, directory.bands
    numbers = range(layout.offsets.size) if tile is None else [tile]
    stored = (file.exactly(int(layout.offsets[k]), int(layout.counts[k]), layout.name(k)) for k in numbers)
    stream = _stream(file, directory, Size(height, width, bands), layout.segment[0], list(stored))
    check_size(OLD_JPEG, stream, Size(height, width, bands))
    chroma = page_chroma(directory) if bands == 3 else Chroma()
    usual = (chroma.weights, chroma.reference) == (Chroma.weights, Chroma.reference)
    spaces: dict[str, Any] = {"colorspace": "YCBCR", "outcolorspace": "RGB" if usual else "YCBCR"}
    pixels = np.asarray(imagecodecs.jpeg8_decode(stream, **(spaces if bands == 3 else {})))
    if pixels.shape[:2] != (height, width) or pixels.size != height * width * bands:
        raise ValueError(f"its JPEG stream holds a picture of shape {pixels.shape}")
    return pixels.reshape(height, width, bands) if usual else chroma.rgb(pixels)


def _stream(file: FileBytes, directory: Directory, size: Size, rows: int, stored: list[bytes]) -> bytes:
    """The JPEG stream of a picture of that size; ``stored`` are its strips of ``rows`` rows, or its tile."""
    first = head_of(stored[0])
    start, length = directory.number(513), directory.number(514)
    piece = file(start, min(length or file.size, MOST_BYTES)) if start else b""
    if piece[:2] != SOI and len(stored) == 1:
        piece = stored[0]
    head = head_of(piece) if piece[:2] == SOI else Head([], 0)
    if directory.is_tiled:
        piece = piece[: head.end]  # what all tiles share
    elif head.of(SCAN) and EOI in piece[head.end :] and len(piece) > head.end + 2:
        return piece[: piece.rindex(EOI) + 2]
    tables = [*head.of(*HEADER - {SCAN, INTERVAL}), *first.of(CODES, QUANTISATION)]
    frames = [] if head.of(*FRAMES) else first.of(*FRAMES) or [_frame(directory, size)]
    if not (head.of(QUANTISATION) or first.of(QUANTISATION)):
        tables += _tables(file, directory, size.bands)
    if directory.is_tiled:  # the frame of the page would be larger
        tables = [part for part in tables if part[1] not in FRAMES]
        frames = [_sized(frame, size) for frame in (head.of(*FRAMES) or frames)[:1]]
    interval = head.of(INTERVAL) or first.of(INTERVAL)
    if len(stored) > 1 and not any(part[4:] != b"\0\0" for part in interval):
        interval = [_interval(frames or head.of(*FRAMES), size.width, rows)]
    scan = first.of(SCAN) or head.of(SCAN) or [_scan_header(size.bands)]
    coded = [piece[head.end :]] if len(piece) > head.end and head.of(SCAN) else list(_coded(stored))
    return b"".join([SOI, *tables, *frames, *interval, scan[-1], *coded, EOI])


def _coded(stored: list[bytes]) -> Iterator[bytes]:
    """The coded pixels of all strips, with a marker that restarts decoding between two of them."""
    for index, part in enumerate(stored):
        restart = bytes([0xFF, RST0 + index % 8])
        yield part[head_of(part).end :].removesuffix(EOI).removesuffix(restart)
        if index < len(stored) - 1:
            yield restart


def _tables(file: FileBytes, directory: Directory, bands: int) -> Iterator[bytes]:
    """The quantisation and code tables that the directory points to, numbered by the bands."""
    tables = [directory.array(code).ravel().astype(int).tolist() for code in (519, 520, 521)]
    if any(len(places) < bands for places in tables):
        raise ValueError("its JPEG tables are missing")
    for k in range(bands):
        quantisation, dc, ac = (places[k] for places in tables)
        yield _marker(QUANTISATION, bytes([k]) + file.exactly(quantisation, 64, "a JPEG table"))
        for kind, place in ((0x00, dc), (0x10, ac)):
            counts = file.exactly(place, 16, "a JPEG table")
            values = file.exactly(place + 16, sum(counts), "a JPEG table")
            yield _marker(CODES, bytes([kind | k]) + counts + values)


def _frame(directory: Directory, size: Size) -> bytes:
    """The header of a baseline picture whose bands have tables of their own."""
    across, down = (
        ([int(n) for n in directory.array(530).ravel()] or [2, 2])[:2] if size.bands == 3 else (1, 1)
    )
    steps = [across << 4 | down] + [0x11] * (size.bands - 1)
    bands = b"".join(bytes([k + 1, step, k]) for k, step in enumerate(steps))
    return _marker(0xC0, struct.pack(">BHHB", 8, *size) + bands)


def _sized(frame: bytes, size: Size) -> bytes:
    """The header of a picture, for another height and width."""
    return frame[:5] + struct.pack(">HH", size.height, size.width) + frame[9:]


def _interval(frames: list[bytes], width: int, rows: int) -> bytes:
    """Decoding restarts with every strip of ``rows`` rows: the number of blocks of a strip."""
    if not frames or len(frames[0]) < 13:
        raise ValueError("its JPEG stream has no frame")
    steps = frames[0][11::3]
    across, down = max(step >> 4 for step in steps), max(step & 15 for step in steps)
    if not across or not down:
        raise ValueError("its JPEG stream has no blocks")
    count = ceil_div(width, 8 * across) * ceil_div(rows, 8 * down)
    return _marker(INTERVAL, struct.pack(">H", min(count, 0xFFFF)))


def _scan_header(bands: int) -> bytes:
    """The header of a scan of all bands, which have code tables of their own."""
    tables = b"".join(bytes([k + 1, k << 4 | k]) for k in range(bands))
    return _marker(SCAN, bytes([bands]) + tables + b"\x00\x3f\x00")


def _marker(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body
