"""The part files of a job: write them, list the missing ones, read the pixels for the levels above them.

A block is done when its part lies under its final name, is complete, and contains the fingerprint of the plan
and the index of the block. Every tile in a part has a checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from numpy.typing import NDArray

from urst_tiles.errors import BadPlan, DamagedFile
from urst_tiles.geometry import Box, Grid, ceil_div
from urst_tiles.machine import mapped
from urst_tiles.pyramid.budget import AHEAD, THREADS
from urst_tiles.pyramid.encode import Encoding
from urst_tiles.pyramid.part import Footer, check_part, read_footer, read_seed, write_part
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.storage.publish import make_folder, publishing
from urst_tiles.storage.stores import names_in, side_by_side

#: A block of the levels above is made from so many seeds by so many: with 4 and tiles of 512 pixels, 16 files
#: are read, and 2048 x 2048 pixels lie in memory.
SUPER = 4


@dataclass(frozen=True)
class Receipt:
    """Proof that a part was written.

    Attributes
    ----------
    index : of the block.
    file_bytes : length of the part file.
    checksum : CRC-32 of the footer, which contains the checksums of all tiles.
    """

    index: int
    file_bytes: int
    checksum: int


@dataclass(frozen=True)
class Parts:
    """The parts of an image, or of one stage of the smaller levels above them.

    Parameters
    ----------
    folder : folder of the part files; it is made when the first part is written.
    fingerprint : of the plan; a part with another fingerprint counts as missing.
    grid : how the image is cut into blocks; for an upper stage, how its first level is cut.
    encoding : how pixels are stored.
    threads : how many threads encode at the same time; the bytes of the parts do not depend on it.
    stage : 0 for the blocks of the image, 1 for the levels above them, 2 for those above stage 1, and so on.

    Raises
    ------
    BadPlan : grid and encoding have tiles of different sizes.
    """

    folder: Path
    fingerprint: str
    grid: Grid
    encoding: Encoding
    threads: int = field(default=THREADS, compare=False)
    stage: int = 0

    def __post_init__(self) -> None:
        if self.grid.tile != self.encoding.tile:
            raise BadPlan(f"the grid's tile is {self.grid.tile} px, the encoding's {self.encoding.tile} px")

    def path(self, index: int) -> Path:
        """The path of part ``index``, whether the part is written or not."""
        row, column = divmod(index, self.grid.block_columns)
        return self.folder / f"{row:05d}-{column:05d}.tif"

    def paths(self) -> Iterator[Path]:
        """The paths of all parts, written or not, and of those of the levels above them."""
        yield from map(self.path, range(len(self.grid)))
        if self.upper is not None:
            yield from self.upper.paths()

    def write(self, index: int, pixels: NDArray) -> Receipt:
        """Make the levels of block ``index`` from its pixels, (h, w, channels), and write its part.

        Raises
        ------
        ValueError : the pixels do not have the shape of the block and the dtype of the encoding.
        DiskFull : the disk is full.
        BadInput : the folder cannot be written to. After any error, no half-written part stays behind.
        """
        self._check_pixels(index, pixels)
        make_folder(self.folder)
        with publishing(self.path(index)) as file, ThreadPoolExecutor(self.threads, "encode") as pool:
            write_part(
                file,
                self._levels(pixels, pool),
                self.encoding,
                pool,
                ahead=AHEAD * self.threads,
                fingerprint=self.fingerprint,
                index=index,
            )
        footer = read_footer(self.path(index))
        return Receipt(index, footer.file_bytes, footer.checksum)

    def _check_pixels(self, index: int, pixels: NDArray) -> None:
        expected = (*self.grid.block_box(index).shape, self.encoding.channels)
        if pixels.shape != expected or pixels.dtype != self.encoding.dtype:
            raise ValueError(
                f"block {index} must be {expected} {self.encoding.dtype}, got {pixels.shape} {pixels.dtype}"
            )

    def _levels(self, pixels: NDArray, pool: ThreadPoolExecutor) -> Iterator[NDArray]:
        """The levels to encode, largest first; the smaller ones are made while the first is encoded."""
        encoding = self.encoding
        below = pool.submit(
            levels_below,
            pixels,
            self.grid.block_overviews,
            binary=encoding.binary and encoding.alpha,
            method=encoding.overviews,
            colours=encoding.colours,
        )
        if self.stage == 0:
            yield pixels
        yield from below.result()

    def is_done(self, index: int) -> bool:
        """Whether part ``index`` exists, is complete, and belongs to this job."""
        try:
            return self.footer(index) is not None
        except (DamagedFile, FileNotFoundError):
            return False

    def missing(self) -> list[int]:
        """The indices of the blocks whose parts are not done, in ascending order."""
        there = names_in(self.folder)
        indexes = range(len(self.grid))
        done = side_by_side(self.folder, lambda i: self.path(i).name in there and self.is_done(i), indexes)
        return [i for i in indexes if not done[i]]

    def footer(self, index: int) -> Footer:
        """Read the footer of part ``index``.

        Raises
        ------
        FileNotFoundError : the part does not exist.
        DamagedFile : the part is not complete, or belongs to another job or another block.
        """
        path = self.path(index)
        footer = read_footer(path)
        if footer.fingerprint != self.fingerprint or footer.index != index:
            raise DamagedFile(f"{path} belongs to another job or another place")
        return footer

    def read_level(self, index: int, level: int) -> NDArray:
        """The pixels of a block's smallest level without loss, (h, w, channels).

        Parameters
        ----------
        index : of the block.
        level : must be ``grid.block_overviews``; a part stores no other level without loss.

        Raises
        ------
        ValueError : another level.
        DamagedFile : the pixels fail their checksum.
        """
        if level != self.grid.block_overviews:
            raise ValueError(f"level {self.grid.block_overviews} is kept without loss, not {level}")
        return read_seed(self.path(index), self.footer(index))

    @property
    def upper(self) -> Parts | None:
        """The parts of the levels above these; None where the smallest level of these parts fits one tile."""
        done = self.grid.block_overviews
        if done == self.grid.overviews:
            return None
        grid = self.grid
        height, width = ceil_div(grid.height, 1 << done), ceil_div(grid.width, 1 << done)
        above = Grid(height, width, core=grid.tile, block=SUPER * grid.tile, tile=grid.tile)
        base = self.folder if self.stage == 0 else self.folder.parent
        folder = base / f"upper-{self.stage + 1}"
        return Parts(folder, self.fingerprint, above, self.encoding, self.threads, self.stage + 1)

    def gather(self, box: Box) -> NDArray:
        """The pixels of a box of level ``grid.block_overviews`` without loss, (h, w, channels).

        The upper left corner of the box must be the corner of a block's seed.
        """
        out = mapped((*box.shape, self.encoding.channels), self.encoding.dtype)
        tile = self.grid.tile

        def fill(cell: Box) -> None:
            index = cell.y0 // tile * self.grid.block_columns + cell.x0 // tile
            out[cell.within(box).slices] = self.read_level(index, self.grid.block_overviews)

        side_by_side(self.folder, fill, box.cells(tile))
        return out

    def drop_damaged(self) -> list[int]:
        """Read every part, and remove the damaged ones, so that the next run makes them again.

        Returns the indices of the removed parts.
        """
        damaged = []
        for index in range(len(self.grid)):
            try:
                check_part(self.path(index), self.footer(index))
            except FileNotFoundError:
                continue
            except DamagedFile:
                damaged.append(index)
                self.path(index).unlink(missing_ok=True)
        return damaged
