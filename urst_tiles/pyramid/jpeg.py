"""A writer of JPEG that takes the picture strip by strip, and encodes rows of it side by side.

Sixteen rows at a time become a JPEG of their own. Its entropy-coded data begins without memory of what came
before, just as behind a restart marker; so the data of all these, with restart markers between, under one
header with the height of the whole, is one baseline JPEG. Decoded it is the same to the last pixel as when
encoded at once. Reference: ITU-T T.81 (1992), sections B.2 and F.1.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import ceil_div
from urst_tiles.machine import in_order
from urst_tiles.pyramid.encode import encode_jpeg

#: Rows that are encoded at once: two rows of 8 x 8 blocks, or one of 16 x 16 with halved colours. It divides
#: the side of every tile.
PIECE_ROWS = 16

#: Markers whose segments are the frame header, and the scan header.
_SOF0, _SOF1, _SOS = 0xC0, 0xC1, 0xDA

#: The longest data of a segment.
SEGMENT_BYTES = 65533


def write_jpeg(
    file: BinaryIO,
    strips: Iterable[NDArray],
    shape: tuple[int, int],
    quality: int,
    segments: Sequence[tuple[int, bytes]],
    pool: ThreadPoolExecutor,
) -> None:
    """Write a baseline JPEG.

    Parameters
    ----------
    file : opened for writing, empty.
    strips : uint8, RGB, (h, width, 3) each, from top to bottom; all but the last are a multiple of 16 high.
    shape : (height, width) of the picture, at most 65535 each.
    quality : 1 to 100; from 90 on colours are stored at full resolution.
    segments : further segments (marker, data) that stand first, as EXIF does.
    pool : threads that encode.
    """
    height, width = shape
    head = b""
    encoded = in_order(pool, lambda piece: _split(encode_jpeg(piece, quality)), _pieces(strips))
    for number, (own, data) in enumerate(encoded):
        if number == 0:
            head = own
            file.write(_with_segments(own, height, width, segments))
        elif _without_height(own) != _without_height(head):
            raise DamagedFile("the JPEG encoder changed its tables in the middle of a picture")
        else:
            file.write(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        file.write(data)
    file.write(b"\xff\xd9")


def _pieces(strips: Iterable[NDArray]) -> Iterator[NDArray]:
    for strip in strips:
        for y in range(0, len(strip), PIECE_ROWS):
            yield np.ascontiguousarray(strip[y : y + PIECE_ROWS])


def _split(stream: bytes) -> tuple[bytes, bytes]:
    """The header of a JPEG up to its entropy-coded data, and that data."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        at += 2 + length
        if marker == 0xFF00 | _SOS:
            return stream[:at], stream[at:-2]


def _segments_of(head: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a header: marker, and all bytes of the segment."""
    at = 2
    while at < len(head):
        marker, length = struct.unpack_from(">HH", head, at)
        yield marker & 0xFF, head[at : at + 2 + length]
        at += 2 + length


def _without_height(head: bytes) -> bytes:
    return b"".join(s[:5] + s[7:] if m in (_SOF0, _SOF1) else s for m, s in _segments_of(head))


def _with_segments(head: bytes, height: int, width: int, segments: Sequence[tuple[int, bytes]]) -> bytes:
    """The header of the whole: its own height, the restart interval, and the further segments."""
    out = [b"\xff\xd8", *(segment(marker, data) for marker, data in segments)]
    for marker, content in _segments_of(head):
        if marker in (_SOF0, _SOF1):
            content = content[:5] + struct.pack(">H", height) + content[7:]
            unit = 8 * (content[11] >> 4)
            units = ceil_div(width, unit) * (PIECE_ROWS // (8 * (content[11] & 15)))
        elif marker == _SOS:
            out.append(segment(0xDD, struct.pack(">H", units)))
        elif 0xE0 <= marker <= 0xEF:  # JFIF, which the further segments have with the density
            continue
        out.append(content)
    return b"".join(out)


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
