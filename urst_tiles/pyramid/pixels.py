"""The finished pyramid as pixels: the tiles of the parts decoded, for formats that encode them anew.

What is read is what a reader of the TIFF would get: colours, and validity as alpha.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import in_order, mapped
from urst_tiles.pyramid.encode import Encoding, codecs
from urst_tiles.pyramid.levels import LEADER_BYTES, TRAILER_BYTES
from urst_tiles.pyramid.part import Footer, read_cells
from urst_tiles.pyramid.parts import Parts

#: Footers of part files that are kept; each has some kilobytes.
_FOOTERS = 2048

_DECODERS: dict[str, Any] = {
    "deflate": codecs.deflate_decode,
    "lzw": codecs.lzw_decode,
    "zstd": codecs.zstd_decode,
}


def decode_tile(image: bytes, mask: bytes | None, encoding: Encoding) -> NDArray:
    """The pixels of a tile that `encode_tile` encoded without loss.

    Returns
    -------
    (tile, tile, colours), or with validity as alpha behind them, 0 or the largest value of the dtype where
    the file holds only whether a pixel is valid.
    """
    side, top = encoding.tile, np.iinfo(encoding.dtype).max  # floats are in TIFFs alone
    raw = _DECODERS[encoding.compression](image, out=side * side * encoding.samples * (1 + (top > 255)))
    samples = np.frombuffer(raw, encoding.dtype).reshape(side, side, encoding.samples)
    if encoding.predictor:
        samples = np.cumsum(samples, axis=1, dtype=encoding.dtype)
    if mask is not None:
        bits = np.frombuffer(codecs.deflate_decode(mask, out=side * ceil_div(side, 8)), np.uint8)
        valid = np.unpackbits(bits.reshape(side, -1), axis=1, count=side)
    elif encoding.stored_validity == "nodata" and encoding.alpha:
        valid = (samples != encoding.nodata).any(axis=-1)
    else:
        return samples
    alpha = valid.astype(encoding.dtype) * np.array(top, encoding.dtype)
    return np.concatenate([samples, alpha[..., None]], axis=-1)


@dataclass(frozen=True)
class StoredLevel:
    """One level of the whole image in the part files.

    Attributes
    ----------
    stage : the parts that hold it.
    local : its number within each of these parts.
    height, width : its size in pixels.
    """

    stage: Parts
    local: int
    height: int
    width: int
    _footer: Any = field(compare=False, repr=False)

    @property
    def tile_side(self) -> int:
        """Side of a tile in pixels."""
        return self.stage.grid.tile

    @property
    def rows(self) -> int:
        """How many rows of tiles there are."""
        return ceil_div(self.height, self.tile_side)

    @property
    def columns(self) -> int:
        """How many columns of tiles there are."""
        return ceil_div(self.width, self.tile_side)

    @property
    def channels(self) -> int:
        """Channels of the pixels that are read: 3, or 4 with alpha."""
        return self.stage.encoding.channels

    @property
    def dtype(self) -> str:
        """Data type of the pixels."""
        return self.stage.encoding.dtype

    def tile(self, row: int, column: int) -> NDArray:
        """The pixels of a tile, without what lies outside the image: (h, w, channels)."""
        grid, encoding = self.stage.grid, self.stage.encoding
        side = grid.block // grid.tile >> (self.local + (1 if self.stage.stage else 0))
        index = row // side * grid.block_columns + column // side
        part = self._footer(index).levels[self.local]
        number = row % side * ceil_div(part.width, grid.tile) + column % side
        cell = read_cells(self.stage.path(index), part, number, 1)
        image, at = int(part.sizes.image[number]), LEADER_BYTES
        encoded, mask = cell[at : at + image], None
        if part.sizes.mask is not None:
            at += image + TRAILER_BYTES + LEADER_BYTES
            mask = cell[at : at + int(part.sizes.mask[number])]
        pixels = decode_tile(encoded, mask, encoding)
        return pixels[: self.height - row * grid.tile, : self.width - column * grid.tile]

    def read(self, box: Box, pool: ThreadPoolExecutor) -> NDArray:
        """The pixels of a box of the level, (h, w, channels), in an array of their own; ``pool`` decodes."""
        side = self.tile_side
        cells = list(box.cells(side))
        out = mapped((*box.shape, self.channels), self.dtype)
        tiles = in_order(pool, lambda cell: self.tile(cell.y0 // side, cell.x0 // side), cells)
        for cell, pixels in zip(cells, tiles, strict=True):
            out[cell.within(box).slices] = pixels[
                cell.y0 % side : cell.y0 % side + cell.shape[0],
                cell.x0 % side : cell.x0 % side + cell.shape[1],
            ]
        return out

    def strips(self, pool: ThreadPoolExecutor) -> Iterator[NDArray]:
        """The pixels row of tiles by row of tiles, each (h, width, channels); a new array for each."""
        side = self.tile_side
        for row in range(self.rows):
            height = min(side, self.height - row * side)
            strip = mapped((height, self.width, self.channels), self.dtype)
            tiles = in_order(pool, partial(self.tile, row), range(self.columns))
            for column, pixels in enumerate(tiles):
                strip[:, column * side : column * side + pixels.shape[1]] = pixels
            yield strip


def stored_levels(stages: Sequence[Parts]) -> list[StoredLevel]:
    """The levels of the pyramid that the parts of all stages hold together, full resolution first."""
    levels = []
    for stage in stages:
        grid, first = stage.grid, 1 if stage.stage else 0
        footer = _remembering(stage)
        for local, halved in enumerate(range(first, grid.block_overviews + 1)):
            shape = ceil_div(grid.height, 1 << halved), ceil_div(grid.width, 1 << halved)
            levels.append(StoredLevel(stage, local, *shape, footer))
    return levels


def _remembering(stage: Parts) -> Any:
    """The footers of a stage by index; the last few are remembered."""

    @lru_cache(maxsize=_FOOTERS)
    def footer(index: int) -> Footer:
        return stage.footer(index)

    return footer
