"""One flat picture from the finished pyramid: PNG, JPEG or WebP, with what it carries inside.

PNG and JPEG are written strip by strip, of one row of tiles each. WebP cannot be: its encoder wants the whole
picture, which has at most 16383 x 16383 pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Grid
from urst_tiles.machine import mapped
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.encode import Encoding, encode_webp
from urst_tiles.pyramid.jpeg import SEGMENT_BYTES, write_jpeg
from urst_tiles.pyramid.pixels import StoredLevel
from urst_tiles.pyramid.png import PIECE_ROWS, write_png
from urst_tiles.tiff.metadata import PROVENANCE, Info
from urst_tiles.tiff.texts import IPTC, XMP
from urst_tiles.tiff.types import SHORT
from urst_tiles.tiff.writing import (
    CLASSIC,
    DirectoryField,
    directory,
    directory_field,
    field,
    header,
    rational,
    tag_field,
    text,
)

#: The names under which PNG and JPEG keep XMP and colour profiles (XMP part 3; PNG 11.3.2.3; ICC.1, annex B).
_XMP_PNG, _XMP_JPEG = b"XML:com.adobe.xmp", b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE = b"ICC_PROFILE\0"

#: The largest EXIF block, which must fit a segment of a JPEG behind its name.
_MOST_EXIF = SEGMENT_BYTES - 6

#: Memory of the pieces of a PNG that are filtered and wait, in pieces; those of a JPEG take less.
_FILTERING = 48

#: Bytes of memory for each pixel of a WebP while it is encoded, by channels (measured with noise, also in
#: alpha): the picture, and as the encoder has it.
_WEBP_BYTES = {3: 13, 4: 42}


@dataclass(frozen=True)
class Made:
    """How a picture is made, and what made it.

    Attributes
    ----------
    quality : 1 to 100, for JPEG and WebP.
    software, provenance, bigtiff : as for `urst_tiles.pyramid.assemble.assemble`.
    """

    quality: int = 90
    software: str | None = None
    provenance: str | None = None
    bigtiff: str = "yes"


def picture_bytes(name: str, grid: Grid, encoding: Encoding) -> int:
    """Peak memory of writing a picture of the format ``name``, in bytes."""
    pixel = encoding.channels * np.dtype(encoding.dtype).itemsize
    if name == "webp":
        return grid.height * grid.width * _WEBP_BYTES[encoding.channels]
    strip = min(grid.height, grid.tile) * grid.width * pixel
    piece = PIECE_ROWS * grid.width * pixel
    return 3 * strip + _FILTERING * piece + 16 * encoding.tile_bytes


def write_picture_of(
    name: str, file: BinaryIO, level: StoredLevel, info: Info, made: Made, progress: Progress = silent
) -> None:
    """Write the picture of the format ``name`` (png, jpg, webp) from the level of full resolution.

    ``file`` is opened for writing, and empty; ``info`` has the metadata that the picture carries.
    """
    with ThreadPoolExecutor(2, "encode") as pool:
        _WRITERS[name](file, level, info, made, pool, progress)


def _strips(level: StoredLevel, pool: ThreadPoolExecutor, progress: Progress) -> Iterator[NDArray]:
    for row, strip in enumerate(level.strips(pool)):
        yield strip
        progress("writing", row + 1, level.rows)


def _png(
    file: BinaryIO, level: StoredLevel, info: Info, made: Made, pool: ThreadPoolExecutor, progress: Progress
) -> None:
    shape = level.height, level.width, level.channels
    chunks = [*_png_chunks(info, made)]
    with ThreadPoolExecutor(2, "decode") as decoders:
        write_png(file, _strips(level, decoders, progress), shape, level.dtype, chunks, pool)


def _png_chunks(info: Info, made: Made) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that stand before the pixels."""
    if info.icc:
        yield b"iCCP", b"icc\0\0" + zlib.compress(info.icc)
    if info.pixels_per_cm:
        y, x = (min(max(round(n * 100), 1), (1 << 31) - 1) for n in info.pixels_per_cm)
        yield b"pHYs", struct.pack(">IIB", x, y, 1)
    if block := exif_block(info, made):
        yield b"eXIf", block
    if xmp := _bytes_of(info, XMP):
        yield b"iTXt", _XMP_PNG + b"\0\0\0\0\0" + xmp
    for name, said in ((b"Software", made.software), (PROVENANCE.encode(), made.provenance)):
        if said:
            yield b"iTXt", name + b"\0\0\0\0\0" + said.encode()


def _jpg(
    file: BinaryIO, level: StoredLevel, info: Info, made: Made, pool: ThreadPoolExecutor, progress: Progress
) -> None:
    with ThreadPoolExecutor(2, "decode") as decoders:
        strips = (
            without_alpha(strip[y : y + PIECE_ROWS])
            for strip in _strips(level, decoders, progress)
            for y in range(0, len(strip), PIECE_ROWS)
        )
        shape = level.height, level.width
        write_jpeg(file, strips, shape, made.quality, [*_jpeg_segments(info, made)], pool)


def without_alpha(pixels: NDArray) -> NDArray:
    """Pixels laid over black, as libvips lays them for a format without alpha; (h, w, 3)."""
    if pixels.shape[-1] == 3:
        return pixels
    alpha, top = pixels[..., 3:].astype(np.uint32), int(np.iinfo(pixels.dtype).max)
    return ((pixels[..., :3] * alpha + top // 2) // top).astype(pixels.dtype)


def _jpeg_segments(info: Info, made: Made) -> Iterator[tuple[int, bytes]]:
    """The segments that stand first: JFIF with the density, EXIF, XMP, profile, IPTC, and a comment."""
    yield 0xE0, b"JFIF\0\1\2" + _density(info) + b"\0\0"
    if block := exif_block(info, made):
        yield 0xE1, b"Exif\0\0" + block
    xmp = _bytes_of(info, XMP)
    if xmp and len(_XMP_JPEG + xmp) <= SEGMENT_BYTES:
        yield 0xE1, _XMP_JPEG + xmp
    if info.icc:
        size = SEGMENT_BYTES - 14
        pieces = [info.icc[at : at + size] for at in range(0, len(info.icc), size)]
        for number, piece in enumerate(pieces, 1):
            yield 0xE2, _PROFILE + bytes([number, len(pieces)]) + piece
    iptc = _bytes_of(info, IPTC)
    resource = struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    if iptc and len(resource) + 14 <= SEGMENT_BYTES:
        yield 0xED, b"Photoshop 3.0\0" + resource
    if made.provenance:
        yield 0xFE, f"{PROVENANCE} {made.provenance}".encode()[:SEGMENT_BYTES]


def _density(info: Info) -> bytes:
    """Unit and density of JFIF: per inch, per cm, or a mere ratio where it is unknown or out of range."""
    factor, unit = (2.54, 1) if info.in_inches else (1.0, 2)
    y, x = (round(n * factor) for n in info.pixels_per_cm or (0.0, 0.0))
    return struct.pack(">BHH", unit, x, y) if 1 <= min(y, x) <= max(y, x) < 65536 else b"\0\0\1\0\1"


def _webp(
    file: BinaryIO, level: StoredLevel, info: Info, made: Made, pool: ThreadPoolExecutor, progress: Progress
) -> None:
    whole = mapped((level.height, level.width, level.channels), level.dtype)
    side = level.tile_side
    for row, strip in enumerate(_strips(level, pool, progress)):
        whole[row * side : row * side + len(strip)] = strip
    opaque = level.channels == 3 or bool((whole[..., 3] == 255).all())
    pixels = np.ascontiguousarray(whole[..., :3]) if opaque else whole
    chunks = _riff_chunks(encode_webp(pixels, made.quality))
    file.write(_webp_file(chunks, (level.height, level.width), not opaque, info, made))


def _riff_chunks(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of pixels in a WebP."""
    chunks, at = [], 12
    while at + 8 <= len(stream):
        name, size = struct.unpack_from("<4sI", stream, at)
        chunks.append((name, stream[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return [chunk for chunk in chunks if chunk[0] in (b"VP8 ", b"VP8L", b"ALPH")]


def _webp_file(
    pixels: list[tuple[bytes, bytes]], shape: tuple[int, int], alpha: bool, info: Info, made: Made
) -> bytes:
    """The file of the extended format (RFC 9649, section 2.7): what it has, profile, pixels, EXIF, XMP."""
    block, xmp = exif_block(info, made), _bytes_of(info, XMP)
    flags = 32 * bool(info.icc) | 16 * alpha | 8 * bool(block) | 4 * bool(xmp)
    height, width = (struct.pack("<I", n - 1)[:3] for n in shape)
    chunks = [
        (b"VP8X", struct.pack("<I", flags) + width + height),
        *([(b"ICCP", info.icc)] if info.icc else []),
        *pixels,
        *([(b"EXIF", block)] if block else []),
        *([(b"XMP ", xmp)] if xmp else []),
    ]
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def exif_block(info: Info, made: Made) -> bytes:
    """A block of EXIF: a classic TIFF without pixels, with texts, resolution, EXIF and GPS; empty if there is
    nothing to say. What is too long for a JPEG's segment is left out."""
    fields = [tag_field(tag) for tag in info.tags if tag.code not in (XMP, IPTC)]
    fields += [directory_field(code, tags) for code, tags in ((34665, info.exif), (34853, info.gps)) if tags]
    if info.pixels_per_cm:
        factor, unit = (2.54, 2) if info.in_inches else (1.0, 3)
        y, x = (round(n * factor, 6) for n in info.pixels_per_cm)
        fields += [rational(282, x), rational(283, y), field(296, SHORT, unit)]
    if made.software:
        fields.append(text(305, made.software))
    fields.sort(key=lambda one: one.value_bytes(CLASSIC))
    while fields and len(block := _block(fields)) > _MOST_EXIF:
        fields.pop()
    return block if fields else b""


def _block(fields: list[DirectoryField]) -> bytes:
    return header(8, CLASSIC) + b"".join(directory(fields, 8, 0, CLASSIC))


def _bytes_of(info: Info, code: int) -> bytes:
    """The bytes of a tag that the input has; empty if it has none."""
    found = next((tag.value for tag in info.tags if tag.code == code), b"")
    return found if isinstance(found, bytes) else b""


_Writer = Callable[[BinaryIO, StoredLevel, Info, Made, ThreadPoolExecutor, Progress], None]

_WRITERS: dict[str, _Writer] = {"png": _png, "jpg": _jpg, "webp": _webp}
