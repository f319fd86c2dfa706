"""The format of a part file: one block's share of the pyramid, with checksums.

    header         of a BigTIFF
    tiles          level by level from the largest, row by row; each tile with its leader and trailer, and
                   behind it its mask tile with leader and trailer
    directories    with them any TIFF reader opens the block as a small pyramid
    seed           the pixels of the smallest level without loss, zstd; the levels above the block are made
                   from them
    footer         JSON (fingerprint of the plan, index of the block, levels, seed), then for each level three
                   arrays of uint32: sizes of the tiles, sizes of the mask tiles (if any), CRC-32 of the cells
    trailer        position and lengths of the footer, its CRC-32, and a magic word: the last bytes of the
                   file, and the last to be written

A cell is a tile with its mask, leaders and trailers: consecutive bytes that the assembler copies unchanged.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.machine import in_order
from urst_tiles.pyramid.encode import Encoding, codecs, encode_tile
from urst_tiles.pyramid.levels import TileSizes, frame, level_of, tiles_of
from urst_tiles.storage.stores import read_at, size_of
from urst_tiles.tiff.writing import header

_MAGIC = b"urstpart"
_TRAILER = struct.Struct("<QIII8s")  # footer offset, JSON bytes, array bytes, CRC-32 of both, magic
_TAIL = 1 << 16  # bytes at the end of a part that are read first: they hold the footer of any usual block
_TOGETHER = 16  # cells that are read at once when a whole part is verified
_SEED_LEVEL = 1  # zstd level of the seed, which is 1.6 % of a part's pixels and not worth more time

crc32 = codecs.deflate_crc32


@dataclass(frozen=True)
class PartLevel:
    """One level of a part.

    Attributes
    ----------
    height, width : size in pixels.
    start : position of the first cell in the part file.
    sizes : the sizes of all tiles.
    checksums : uint32, (tiles,): CRC-32 of each cell.
    """

    height: int
    width: int
    start: int
    sizes: TileSizes
    checksums: NDArray[np.uint32]


@dataclass(frozen=True)
class Footer:
    """The footer of a part.

    Attributes
    ----------
    fingerprint : of the plan of the job that made the part.
    index : of the block.
    levels : the levels in the part, largest first.
    seed : "offset", "bytes", "crc32", "shape" and "dtype" of the seed.
    file_bytes : length of the part file.
    checksum : CRC-32 of the footer.
    """

    fingerprint: str
    index: int
    levels: tuple[PartLevel, ...]
    seed: dict[str, Any]
    file_bytes: int
    checksum: int


def write_part(
    file: BinaryIO,
    levels: Iterable[NDArray],
    encoding: Encoding,
    pool: ThreadPoolExecutor,
    *,
    ahead: int,
    fingerprint: str,
    index: int,
) -> None:
    """Write a part.

    Parameters
    ----------
    file : opened for writing, empty.
    levels : RGB or RGBA, (h, w, channels) each, largest first.
    encoding : how pixels are stored.
    pool : threads that encode tiles.
    ahead : at most so many encoded tiles wait to be written.
    fingerprint : of the plan.
    index : of the block.
    """
    file.write(header(0))
    position, written = 16, []
    for pixels in levels:
        written.append(_write_level(file, position, pixels, encoding, pool, ahead))
        position += written[-1].sizes.total_bytes
    position = _write_directories(file, position, written, encoding)
    blob, facts = _pack_seed(pixels, position)
    file.write(blob)
    _write_footer(file, position + len(blob), written, facts, fingerprint, index)


def _write_level(
    file: BinaryIO, start: int, pixels: NDArray, encoding: Encoding, pool: ThreadPoolExecutor, ahead: int
) -> PartLevel:
    h, w = pixels.shape[:2]
    rows, columns = tiles_of(h, w, encoding.tile)
    sizes = TileSizes.empty(rows * columns, encoding.masked)
    checksums = np.zeros(rows * columns, np.uint32)
    boxes = Box(0, 0, h, w).cells(encoding.tile)
    encode = partial(_encode, pixels, encoding)
    for i, (cell, image, mask, checksum) in enumerate(in_order(pool, encode, boxes, ahead)):
        file.writelines(cell)
        sizes.image[i], checksums[i] = image, checksum
        if sizes.mask is not None:
            sizes.mask[i] = mask
    return PartLevel(h, w, start, sizes, checksums)


def _encode(pixels: NDArray, encoding: Encoding, box: Box) -> tuple[list[bytes], int, int, int]:
    """The pieces of a cell, the size of its tile, the size of its mask tile (0 without mask), its CRC-32."""
    image, mask = encode_tile(pixels[box.slices], encoding)
    cell = [*frame(image), *(frame(mask) if mask is not None else ())]
    checksum = 0
    for piece in cell:
        checksum = crc32(piece, checksum)
    return cell, len(image), len(mask or b""), checksum


def _write_directories(file: BinaryIO, position: int, levels: Sequence[PartLevel], encoding: Encoding) -> int:
    """Write the directories behind the tiles, then the header again; returns the end of the directories."""
    padding = -position % 8
    file.write(bytes(padding))
    first = position = position + padding
    for i, part in enumerate(levels):
        level = level_of(encoding, part.height, part.width, part.sizes, overview=i > 0)
        file.writelines(level.directories(position, part.start, last=i == len(levels) - 1))
        position += level.directory_bytes
    file.seek(0)
    file.write(header(first))
    file.seek(position)
    return position


def _pack_seed(pixels: NDArray, position: int) -> tuple[bytes, dict[str, Any]]:
    blob = codecs.zstd_encode(np.ascontiguousarray(pixels), level=_SEED_LEVEL)
    facts = {
        "offset": position,
        "bytes": len(blob),
        "crc32": crc32(blob),
        "shape": list(pixels.shape),
        "dtype": pixels.dtype.name,
    }
    return blob, facts


def _write_footer(
    file: BinaryIO,
    position: int,
    levels: Sequence[PartLevel],
    seed: dict[str, Any],
    fingerprint: str,
    index: int,
) -> None:
    facts = {
        "fingerprint": fingerprint,
        "index": index,
        "levels": [[level.height, level.width, level.start, level.sizes.image.size] for level in levels],
        "masked": levels[0].sizes.mask is not None,
        "seed": seed,
    }
    words = json.dumps(facts, sort_keys=True).encode()
    columns = [column for level in levels for column in _columns(level)]
    arrays = b"".join(column.astype("<u4").tobytes() for column in columns)
    file.write(words + arrays)
    file.write(_TRAILER.pack(position, len(words), len(arrays), crc32(words + arrays), _MAGIC))


def _columns(level: PartLevel) -> list[NDArray[np.uint32]]:
    mask = [] if level.sizes.mask is None else [level.sizes.mask]
    return [level.sizes.image, *mask, level.checksums]


def read_footer(path: Path) -> Footer:
    """Read the footer of the part at ``path``.

    Raises
    ------
    FileNotFoundError : there is no such file.
    DamagedFile : the file is cut off or not finished, or its footer fails its checksum.
    """
    size = size_of(path)
    tail = read_at(path, max(0, size - _TAIL), _TAIL)
    trailer = tail[-_TRAILER.size :]
    if len(trailer) < _TRAILER.size or trailer[-8:] != _MAGIC:
        raise DamagedFile(f"{path} is no finished part")
    offset, words, arrays, checksum, _ = _TRAILER.unpack(trailer)
    if offset + words + arrays + _TRAILER.size != size:
        raise DamagedFile(f"{path} has {size} bytes, its footer says otherwise")
    length, before = words + arrays, offset - (size - len(tail))
    content = tail[before : before + length] if before >= 0 else read_at(path, offset, length)
    if crc32(content) != checksum:
        raise DamagedFile(f"the footer of {path} fails its checksum")
    return _parse_footer(content, words, size, checksum)


def _parse_footer(content: bytes, words: int, size: int, checksum: int) -> Footer:
    facts = json.loads(content[:words])
    numbers = np.frombuffer(content, "<u4", offset=words)
    levels, at = [], 0
    for height, width, start, tiles in facts["levels"]:
        columns = [numbers[at + i * tiles : at + (i + 1) * tiles] for i in range(2 + facts["masked"])]
        at += tiles * len(columns)
        sizes = TileSizes(columns[0], columns[1] if facts["masked"] else None)
        levels.append(PartLevel(height, width, start, sizes, columns[-1]))
    return Footer(facts["fingerprint"], facts["index"], tuple(levels), facts["seed"], size, checksum)


def read_cells(path: Path, level: PartLevel, first: int, count: int) -> bytes:
    """Read the bytes of ``count`` cells from cell ``first`` on, and verify the checksum of each.

    Raises
    ------
    DamagedFile : a checksum is wrong; the message names the tile.
    """
    cells = level.sizes.cells
    start = level.start + int(cells[:first].sum())
    lengths = cells[first : first + count].tolist()
    data = read_at(path, start, sum(lengths))
    view, at = memoryview(data), 0
    for i, length in enumerate(lengths, first):
        if crc32(view[at : at + length]) != level.checksums[i]:
            raise DamagedFile(
                f"tile {i} of a {level.width} x {level.height} level of {path} fails its checksum"
            )
        at += length
    return data


def read_seed(path: Path, footer: Footer) -> NDArray:
    """Read the pixels of a part's smallest level without loss, (h, w, channels).

    Raises
    ------
    DamagedFile : the pixels fail their checksum.
    """
    facts = footer.seed
    blob = read_at(path, facts["offset"], facts["bytes"])
    if crc32(blob) != facts["crc32"]:
        raise DamagedFile(f"the smallest level of {path} fails its checksum")
    return np.frombuffer(codecs.zstd_decode(blob), facts["dtype"]).reshape(facts["shape"])


def check_part(path: Path, footer: Footer) -> None:
    """Read the whole part and verify every checksum in it.

    Raises
    ------
    DamagedFile : a checksum is wrong.
    """
    for level in footer.levels:
        for first in range(0, level.checksums.size, _TOGETHER):
            read_cells(path, level, first, _TOGETHER)
    read_seed(path, footer)
