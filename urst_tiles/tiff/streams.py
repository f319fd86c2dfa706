"""How large a picture is that a compressed tile or strip says it holds, read before it is decoded.

JPEG, WebP, JPEG 2000, JPEG XL, LERC and PNG streams carry a size of their own, and their decoders take as
much memory as that size needs, whatever the TIFF says about the tile.

References: ITU T.81, annex B (JPEG); RFC 9649 (WebP) and RFC 6386, section 9.1 (VP8); ITU T.800, annexes A
and I (JPEG 2000); ISO 18181-1, section D, and 18181-2 (JPEG XL); the header of Esri's Lerc2; ISO 15948 (PNG).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from urst_tiles.geometry import ceil_div, round_up
from urst_tiles.tiff.markers import FRAMES, SCAN, markers

#: Behind a PackBits stream lie at most so many bytes, and as many as it has when unpacked.
SPARE_BYTES = 4096


class Size(NamedTuple):
    """Height and width of a picture in pixels, and its number of bands."""

    height: int
    width: int
    bands: int


#: Encoders of JPEG round the size up to whole blocks, of 16 pixels where chroma is subsampled.
ROUNDED = 16

#: More bands than these need a reason: decoders add alpha, and JPEG holds up to four components.
USUAL_BANDS = 4

#: A picture of more scans (JPEG) or tiles (JPEG 2000) than this is made to take all time or memory.
MOST_SCANS, MOST_TILES = 500, 4096


def check_size(compression: int, data: bytes, segment: Size, tables: bytes | None = None) -> None:
    """Check that a compressed tile or strip holds no larger picture than its place in the image.

    Parameters
    ----------
    compression : code of the compression (TIFF tag 259), one of ``SIZES``.
    data : the compressed bytes.
    segment : the size of a tile or strip.
    tables : JPEG's tables (tag 347), which precede the data, or None.

    Raises
    ------
    ValueError : the picture is larger, or it says no size.
    """
    for size in (*SIZES[compression](data), *(_jpeg(tables) if tables else ())):
        if (
            size.height > round_up(segment.height, ROUNDED)
            or size.width > round_up(segment.width, ROUNDED)
            or size.bands > max(segment.bands, USUAL_BANDS)
        ):
            raise ValueError(
                f"it holds {size.width} x {size.height} pixels of {size.bands} band(s) instead of "
                f"{segment.width} x {segment.height} of {segment.bands}"
            )


def jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG stream has its end marker, whatever follows it.

    A picture among the metadata, before the first scan, has an end marker of its own.
    """
    scan = next((start for code, start, _ in markers(data) if code == SCAN), None)
    return scan is not None and data.find(b"\xff\xd9", scan) >= 0


def _jpeg(data: bytes) -> Iterator[Size]:
    """The size in each frame header before the first scan."""
    if data.count(b"\xff\xda") > MOST_SCANS:  # no other bytes of a scan are these
        raise ValueError(f"its JPEG stream has more than {MOST_SCANS} scans")
    for code, start, _ in markers(data):
        if code in FRAMES:
            height, width, bands = _unpack(">HHB", data, start + 5)
            yield Size(height, width, bands)


def _webp(data: bytes) -> Iterator[Size]:
    """The size of the canvas and of the picture; a stream may lack the container (RIFF)."""
    if data[:4] != b"RIFF":
        yield _vp8l(data) if data[:1] == b"\x2f" else _vp8(data)
        return
    at = 12
    while at + 8 <= len(data):
        kind, (length,) = data[at : at + 4], _unpack("<I", data, at + 4)
        body = data[at + 8 : at + 8 + min(length, 16)]
        if kind == b"VP8X":
            flags, width, height = _unpack("<I", body, 0)[0], body[4:7], body[7:10]
            if flags & 2:
                raise ValueError("it is an animation")
            yield Size(int.from_bytes(height, "little") + 1, int.from_bytes(width, "little") + 1, 4)
        elif kind in (b"VP8 ", b"VP8L"):
            yield _vp8(body) if kind == b"VP8 " else _vp8l(body)
            return
        at += 8 + round_up(length, 2)
    raise ValueError("its WebP stream has no picture")


def _vp8(body: bytes) -> Size:
    width, height = _unpack("<HH", body, 6)
    return Size(height & 0x3FFF, width & 0x3FFF, 3)


def _vp8l(body: bytes) -> Size:
    (bits,) = _unpack("<I", body, 1)
    return Size((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 4)


def _jpeg2000(data: bytes) -> Iterator[Size]:
    """The size in the marker SIZ of the codestream, which may lie in a box of the format JP2."""
    at = 0 if data[:2] == b"\xff\x4f" else _box(data, (b"jp2c",))
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise ValueError("its JPEG 2000 stream tells no size")
    x1, y1, x0, y0, tile_x, tile_y, first_x, first_y, bands = _unpack(">8IH", data, at + 8)
    if min(tile_x, tile_y) < 1 or x1 <= x0 or y1 <= y0:
        raise ValueError("its JPEG 2000 stream has no pixels")
    tiles = ceil_div(max(0, x1 - first_x), tile_x) * ceil_div(max(0, y1 - first_y), tile_y)
    if tiles > MOST_TILES:
        raise ValueError(f"its JPEG 2000 stream has {tiles} tiles")
    yield Size(y1 - y0, x1 - x0, bands)


def _box(data: bytes, kinds: tuple[bytes, ...]) -> int:
    """Where the content of the first box of one of these kinds begins (ITU T.800, annex I.4)."""
    at = 0
    while at + 8 <= len(data):
        (length,), kind, head = _unpack(">I", data, at), data[at + 4 : at + 8], 8
        if length == 1:
            (length,), head = _unpack(">Q", data, at + 8), 16
        if kind in kinds:
            return at + head
        if length < head:
            break
        at += length
    raise ValueError("it has no picture")


class _Bits:
    """Reads numbers of a JPEG XL header, the least significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def __call__(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("its header ends early")
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value

    def either(self, *choices: tuple[int, int]) -> int:
        """A number whose first two bits choose its (least value, number of further bits)."""
        least, count = choices[self(2)]
        return least + self(count)


#: Width over height, by the number that a JPEG XL header has for it.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def _jpeg_xl(data: bytes) -> Iterator[Size]:
    """The size in the header of the codestream, which may lie in boxes; animations are refused."""
    at = 0
    if data[:2] != b"\xff\x0a":
        at = _box(data, (b"jxlc", b"jxlp"))
        at += 4 if data[at : at + 2] != b"\xff\x0a" else 0  # a part (jxlp) begins with its number
    if data[at : at + 2] != b"\xff\x0a":
        raise ValueError("its JPEG XL stream tells no size")
    bits = _Bits(data[at + 2 : at + 66])
    height, width = _jpeg_xl_size(bits)
    further = 0 if bits(1) else _jpeg_xl_channels(bits)
    yield Size(height, width, 3 + further)


def _jpeg_xl_size(bits: _Bits) -> tuple[int, int]:
    small = bits(1)

    def side() -> int:
        return (bits(5) + 1) * 8 if small else bits.either((1, 9), (1, 13), (1, 18), (1, 30))

    height, ratio = side(), bits(3)
    if not ratio:
        return height, side()
    return height, height * _RATIOS[ratio][0] // _RATIOS[ratio][1]


def _jpeg_xl_channels(bits: _Bits) -> int:
    """How many channels there are besides the colours."""
    if bits(1):
        bits(3)  # the orientation
        if bits(1):
            _jpeg_xl_size(bits)  # the size that it should be shown at
        if bits(1) or bits(1):
            raise ValueError("it has a preview or is an animation")
    if bits(1):  # floats
        bits.either((32, 0), (16, 0), (24, 0), (1, 6))
        bits(4)
    else:
        bits.either((8, 0), (10, 0), (12, 0), (1, 6))
    bits(1)
    return bits.either((0, 0), (1, 0), (2, 4), (1, 12))


class Blob(NamedTuple):
    """A part of a LERC stream: its size, and how many of its pixels are valid."""

    size: Size
    valid: int


def lerc_blobs(data: bytes) -> Iterator[Blob]:
    """The parts of a LERC stream: one for all bands, or one for each band.

    Raises
    ------
    ValueError : the header of a part is cut off, or makes no sense.
    """
    at = 0
    while data[at : at + 6] == b"Lerc2 ":
        (version,) = _unpack("<i", data, at + 6)
        names = 6 if version >= 4 else 5
        rows, columns, *rest = _unpack(f"<{names}i", data, at + (14 if version >= 3 else 10))
        depth, valid = (rest[0], rest[1]) if version >= 4 else (1, rest[0])
        if min(rows, columns, depth) < 1 or rest[-1] < 4 * names:
            raise ValueError("its LERC header makes no sense")
        yield Blob(Size(rows, columns, depth), valid)
        at += rest[-1]


def _lerc(data: bytes) -> Iterator[Size]:
    """The size of all parts together."""
    sizes = [blob.size for blob in lerc_blobs(data)]
    if not sizes:
        raise ValueError("its LERC stream tells no size")
    heights, widths, depths = zip(*sizes, strict=True)
    yield Size(max(heights), max(widths), sum(depths))


def _png(data: bytes) -> Iterator[Size]:
    width, height = _unpack(">II", data, 16)
    yield Size(height, width, 4)


def ended(compression: int, data: bytes | bytearray, lengths: tuple[int, int]) -> bytes | bytearray:
    """A compressed segment without bytes that follow its end.

    zstd and PackBits are the compressions whose decoders do not stop there by themselves. The others are
    returned as they are.

    Parameters
    ----------
    compression : code of the compression (TIFF tag 259).
    data : the compressed bytes.
    lengths : how long the segment may be when unpacked: the rows inside the image, or all of them.
    """
    if compression == 50000:
        return data[: _zstd_end(data)]
    if compression == 32773:
        return data[: _packbits_end(data, lengths)]
    return data


def _zstd_end(data: bytes | bytearray) -> int:
    """Where a frame of zstd ends (RFC 8878, section 3.1.1); the end of ``data`` if it is no whole frame."""
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        return len(data)
    flags = data[4]
    single, size = flags >> 5 & 1, flags >> 6
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3] + ((1 if single else 0), 2, 4, 8)[size]
    while at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            return at + (4 if flags & 4 else 0)
    return len(data)


def _packbits_end(data: bytes | bytearray, lengths: tuple[int, int]) -> int:
    """Where PackBits codes (TIFF 6.0, section 9) reach one of two lengths, the larger one if they do.

    The end of ``data`` if neither is, or if more bytes follow than a writer leaves to spare.
    """
    at = made = 0
    found = len(data)
    while at < len(data):
        code = data[at]
        at += 1 if code == 128 else 2 if code > 128 else code + 2
        made += 0 if code == 128 else 257 - code if code > 128 else code + 1
        if made in lengths and at <= len(data):
            found = at
        if made >= max(lengths):
            break
    return found if len(data) - found <= max(lengths) + SPARE_BYTES else len(data)


def _unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    if at < 0 or at + struct.calcsize(form) > len(data):
        raise ValueError("its header ends early")
    return struct.unpack_from(form, data, at)


#: Compression (TIFF tag 259) -> the sizes that a stream of it tells.
SIZES: dict[int, Callable[[bytes], Iterator[Size]]] = {
    6: _jpeg, 7: _jpeg, 33007: _jpeg, 34892: _jpeg, 50001: _webp, 33003: _jpeg2000, 33004: _jpeg2000,
    33005: _jpeg2000, 34712: _jpeg2000, 34887: _lerc, 50002: _jpeg_xl, 52546: _jpeg_xl, 34933: _png,
}  # fmt: skip
