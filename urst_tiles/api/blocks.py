"""The finished blocks of a job that is not finished yet, to be looked at while the others are made."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import UrstError
from urst_tiles.geometry import Box, ceil_div, halved
from urst_tiles.job.folder import Job
from urst_tiles.pyramid.reduce import halve
from urst_tiles.source.cutting import stored_reader
from urst_tiles.source.tiff import TiffReader
from urst_tiles.storage.stores import names_in

#: Of each finished block so many pixels on a side are kept, which views from afar are made of.
SMALL = 64

_PART = re.compile(r"(\d{5})-(\d{5})\.tif")


@dataclass(frozen=True)
class FinishedBlocks:
    """The blocks that a job of an image in 8 bits has finished; made by `blocks_of`.

    Attributes
    ----------
    folder : the folder of their part files.
    shape : (height, width) of the whole picture in pixels.
    side : of a block in pixels, a power of two.
    part : the part of the picture that is made; its upper left corner is that of the first block.
    names : the names of the part files that are there.
    """

    folder: Path
    shape: tuple[int, int]
    side: int
    part: Box
    names: frozenset[str] = field(default_factory=frozenset)

    @property
    def total(self) -> int:
        """How many blocks there are, finished or not."""
        h, w = self.part.shape
        return ceil_div(h, self.side) * ceil_div(w, self.side)

    def read(self, halvings: int, box: Box) -> NDArray[np.uint8]:
        """The pixels, uint8, (h, w, 4), of a box of the picture that was halved so often; where no block is
        finished they are transparent.

        Those of a part whose corner lies between the pixels of a level are moved by less than one of them. A
        block that cannot be read, since the job has ended meanwhile, counts as not finished.
        """
        out = np.zeros((*box.shape, 4), np.uint8)
        side = self.side >> halvings
        if not side:
            return out
        y0, x0 = self.part.y0 >> halvings, self.part.x0 >> halvings
        whole = Box(0, 0, *halved(self.part.shape, halvings))
        for cell in box.shift(-y0, -x0).clip(whole).cells(side):
            row, column = cell.y0 // side, cell.x0 // side
            name = f"{row:05d}-{column:05d}.tif"
            if name in self.names:
                inner, place = cell.shift(-row * side, -column * side), cell.shift(y0, x0).within(box)
                with suppress(UrstError, OSError):
                    out[place.slices] = self._block(self.folder / name, halvings, inner)
        return out

    def _block(self, path: Path, halvings: int, box: Box) -> NDArray[np.uint8]:
        """The pixels of a box of a block that was halved so often."""
        told = path.stat()
        key = path, told.st_ino, told.st_mtime_ns
        if self.side >> halvings <= SMALL:
            small, times = _small(*key, self.side)
            for _ in range(halvings - times):
                small = halve(small)
            return small[box.slices]
        return _pixels(_reader(*key), halvings, box)


def blocks_of(output: Path) -> FinishedBlocks | None:
    """The finished blocks of the job that writes ``output``; None if there is no such job in 8 bits.

    Raises
    ------
    JobDiffers : the job folder cannot be read.
    """
    job = Job.beside(output)
    said = job.identity
    if said is None or said.get("dtype") != "uint8":
        return None
    width, _, height = said.get("size", "").partition(" x ")
    try:
        shape, side = (int(height), int(width)), int(said["block"])
        x, y, w, h = map(int, said.get("region", f"0,0,{width},{height}").split(","))
    except (KeyError, ValueError):
        return None
    names = frozenset(name for name in names_in(job.parts) if _PART.fullmatch(name))
    return (
        FinishedBlocks(job.parts, shape, side, Box(y, x, y + h, x + w), names)
        if side & (side - 1) == 0
        else None
    )


@lru_cache(maxsize=64)
def _reader(path: Path, inode: int, changed: int) -> TiffReader:
    return stored_reader(path)


def _pixels(reader: TiffReader, halvings: int, box: Box) -> NDArray[np.uint8]:
    """The pixels, RGBA, of a box of a part that was halved so often, from the nearest of its levels."""
    level = min(halvings, len(reader.levels))
    times = halvings - level
    h, w = reader.levels[level - 1] if level else reader.shape
    wanted = box.times(1 << times).clip(Box(0, 0, h, w))
    samples = reader.cell(wanted, level)
    pixels = np.empty((*wanted.shape, 4), np.uint8)
    pixels[..., :3] = samples.colour
    pixels[..., 3] = 255 if samples.weight is None else samples.weight
    for _ in range(times):
        pixels = halve(pixels)
    return pixels


@lru_cache(maxsize=4096)
def _small(path: Path, inode: int, changed: int, side: int) -> tuple[NDArray[np.uint8], int]:
    """A whole block in at most ``SMALL`` pixels on a side, RGBA, and how often it was halved for that."""
    halvings = max(0, (side // SMALL).bit_length() - 1)
    reader = _reader(path, inode, changed)
    return _pixels(reader, halvings, Box(0, 0, *halved(reader.shape, halvings))), halvings
