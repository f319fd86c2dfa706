"""Formulas for the host memory and the disk space that writing takes, known before the first block."""

from __future__ import annotations

from urst_tiles.geometry import Grid, overview_count
from urst_tiles.pyramid.encode import Compression, Encoding
from urst_tiles.pyramid.levels import tiles_of

#: Encoder threads of one `Parts.write`, and the encoded tiles per thread that may wait to be written.
THREADS, AHEAD = 2, 2

#: Bytes that halving takes besides the levels it makes, without and with alpha: strips of 1 MB in wider
#: types, and their weights.
_REDUCE_BYTES = {False: 4 << 20, True: 14 << 20}

#: How many raw tiles of memory one encoder thread takes: the tile padded or repainted, its differences, the
#: buffer of the codec, and the result.
_TILES_PER_THREAD = 5

#: The most encoded bytes per raw byte, whatever the pixels: deflate and zstd store incompressible blocks
#: unchanged, LZW may write a 12-bit code for every byte, JPEG and WebP encode noise at quality 100.
_WORST: dict[Compression, float] = {"deflate": 1.01, "zstd": 1.01, "lzw": 1.51, "jpeg": 2.0, "webp": 2.0}


def write_bytes(grid: Grid, encoding: Encoding, threads: int = THREADS) -> int:
    """Peak host memory of one `Parts.write` in bytes, besides the pixels passed to it."""
    h, w = min(grid.block, grid.height), min(grid.block, grid.width)
    raw = h * w * encoding.tile_bytes // encoding.tile**2
    levels = raw // 3 if grid.block_overviews else 0
    return (
        levels + _REDUCE_BYTES[encoding.alpha] + threads * (_TILES_PER_THREAD + AHEAD) * encoding.tile_bytes
    )


def part_bytes(grid: Grid, encoding: Encoding) -> int:
    """The most bytes that one part file can take on disk, whatever its pixels."""
    box = min(grid.block, grid.height), min(grid.block, grid.width)
    cells = _pyramid_bytes(*box, grid.block_overviews, encoding)
    return cells + int(1.01 * encoding.tile_bytes) + 4096


def output_bytes(grid: Grid, encoding: Encoding) -> int:
    """The most bytes that the finished file can take, without its metadata."""
    return (
        _pyramid_bytes(grid.height, grid.width, overview_count(grid.height, grid.width, grid.tile), encoding)
        + 65536
    )


def _pyramid_bytes(height: int, width: int, overviews: int, encoding: Encoding) -> int:
    """Bytes of the tiles of all levels in the worst case, with leaders, checksums and tables of tiles."""
    tiles = 0
    for level in range(overviews + 1):
        rows, columns = tiles_of(-(-height // (1 << level)), -(-width // (1 << level)), encoding.tile)
        tiles += rows * columns
    mask = encoding.tile**2 // 8 + 64 if encoding.masked else 0
    return tiles * (int(encoding.tile_bytes * _WORST[encoding.compression]) + mask + 1024) + 1024 * (
        overviews + 1
    )
