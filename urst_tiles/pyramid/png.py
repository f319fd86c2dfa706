"""A writer of PNG that takes the picture strip by strip, and compresses strips side by side.

Each piece of some rows is filtered and compressed by itself, up to a full flush, so that the pieces joined
are one stream. Reference: PNG (third edition, W3C 2025), sections 7, 9 and 10; RFC 1950; RFC 1951.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from urst_tiles.machine import in_order

#: Rows that are filtered and compressed at once.
PIECE_ROWS = 64

#: Pieces that are compressed, or wait for that or to be written.
_AHEAD = 4

#: Level of zlib; the header of the stream says the same.
_LEVEL, _ZLIB_HEADER = 6, b"\x78\x9c"

#: The modulus of Adler-32 (RFC 1950, section 8.2).
_ADLER = 65521


def write_png(
    file: BinaryIO,
    strips: Iterable[NDArray],
    shape: tuple[int, int, int],
    dtype: str,
    chunks: Sequence[tuple[bytes, bytes]],
    pool: ThreadPoolExecutor,
) -> None:
    """Write a PNG.

    Parameters
    ----------
    file : opened for writing, empty.
    strips : uint8 or uint16, (h, width, channels) each, from top to bottom.
    shape : (height, width, channels) of the picture; 3 channels are RGB, 4 are RGBA.
    chunks : further chunks (name, data) that stand before the pixels, as a colour profile does.
    pool : threads that compress.
    """
    height, width, channels = shape
    bits, colour = 8 * np.dtype(dtype).itemsize, {3: 2, 4: 6}[channels]
    file.write(b"\x89PNG\r\n\x1a\n")
    file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)))
    for name, data in chunks:
        file.write(chunk(name, data))
    adler, start = 1, _ZLIB_HEADER
    for data, checksum, size in in_order(pool, _compress, _pieces(strips), _AHEAD):
        file.write(chunk(b"IDAT", start + data))
        adler, start = _joined(adler, checksum, size), b""
    end = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15).flush()
    file.write(chunk(b"IDAT", end + struct.pack(">I", adler)))
    file.write(chunk(b"IEND", b""))


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _pieces(strips: Iterable[NDArray]) -> Iterator[tuple[NDArray, NDArray | None]]:
    """Rows as bytes, uint8 (rows, width, bytes of a pixel), and the row above them; None for the first."""
    above: NDArray | None = None
    for strip in strips:
        pixels = strip if strip.dtype == np.uint8 else strip.astype(">u2")
        h, w, _ = pixels.shape
        rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(h, w, -1)
        for y in range(0, h, PIECE_ROWS):
            piece = rows[y : y + PIECE_ROWS]
            yield piece, above
            above = piece[-1].copy()


def _compress(piece: tuple[NDArray, NDArray | None]) -> tuple[bytes, int, int]:
    """A compressed piece, the Adler-32 of its filtered bytes, and how many these are."""
    data = _filtered(*piece).tobytes()
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH), zlib.adler32(data), len(data)


def _filtered(rows: NDArray, above: NDArray | None) -> NDArray:
    """The rows filtered, uint8, (rows, 1 + bytes of a row): each by the filter with the least sum of
    absolute differences, which is the heuristic of the PNG specification (section 12.7)."""
    h = len(rows)
    up = np.concatenate([np.zeros_like(rows[:1]) if above is None else above[None], rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, 1:], corner[:, 1:] = rows[:, :-1], up[:, :-1]
    choices = {1: rows - left, 2: rows - up, 4: rows - _paeth(left, up, corner)}
    costs = [np.abs(c.view(np.int8)).astype(np.uint8).reshape(h, -1).sum(1) for c in choices.values()]
    best = np.argmin(costs, axis=0)
    out = np.empty((h, 1 + rows[0].size), np.uint8)
    for number, (kind, values) in enumerate(choices.items()):
        where = best == number
        out[where, 0] = kind
        out[where, 1:] = values.reshape(h, -1)[where]
    return out


def _paeth(left: NDArray, up: NDArray, corner: NDArray) -> NDArray:
    """The predictor of Paeth (section 9.4): that of the three which is nearest to left + up - corner."""
    a, b, c = (values.astype(np.int16) for values in (left, up, corner))
    from_a, from_b, from_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where(from_b <= from_c, up, corner)
    return np.where((from_a <= from_b) & (from_a <= from_c), left, nearest)


def _joined(one: int, other: int, size: int) -> int:
    """The Adler-32 of two pieces of data one after the other; the second has ``size`` bytes."""
    low, high = one & 0xFFFF, one >> 16
    high = (high + (other >> 16) + size * (low - 1)) % _ADLER
    return high << 16 | (low + (other & 0xFFFF) - 1) % _ADLER
