"""The job folder's part files: write one, ask which are missing, read what the levels above are made from.

Done means one file in its final name, with the job's fingerprint, its own index and the checksum of every
encoded tile in it.
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

#: A block of the levels above covers so many seeds by so many: 16 files read, 2048 x 2048 pixels held for
#: tiles of 512.
SUPER = 4


@dataclass(frozen=True)
class Receipt:
    """Proof that a part was written: its index, its length, its footer's CRC-32 (which covers all others)."""

    index: int
    file_bytes: int
    checksum: int


@dataclass(frozen=True)
class Parts:
    """The parts of one job, or of one upper stage of its pyramid.

    Parameters
    ----------
    folder : where the part files lie; made when the first is written.
    fingerprint : of the plan; a part with another one counts as missing.
    grid : of the image, or of the level that an upper stage starts from.
    encoding : how pixels are stored.
    threads : encoders that work at once; the bytes do not depend on it.
    stage : 0 for the blocks of the image, 1 for the levels above them, and so on.

    Raises
    ------
    BadPlan : when grid and encoding disagree about the tile.
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
        """Where part ``index`` lies, or will."""
        row, column = divmod(index, self.grid.block_columns)
        return self.folder / f"{row:05d}-{column:05d}.tif"

    def write(self, index: int, pixels: NDArray) -> Receipt:
        """Make the levels of block ``index`` from its pixels, (h, w, channels), and publish its part.

        Raises
        ------
        DiskFull, BadInput : when the folder cannot be written; nothing half-written stays.
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
        """The levels to encode, largest first; the pool makes the smaller ones while it encodes the first."""
        binary = self.encoding.binary and pixels.shape[-1] == 4
        below = pool.submit(levels_below, pixels, self.grid.block_overviews, binary=binary)
        if self.stage == 0:
            yield pixels
        yield from below.result()

    def is_done(self, index: int) -> bool:
        """Whether part ``index`` is there, whole, and of this job."""
        try:
            return self.footer(index) is not None
        except (DamagedFile, FileNotFoundError):
            return False

    def missing(self) -> list[int]:
        """The blocks still to be made."""
        there = names_in(self.folder)
        indexes = range(len(self.grid))
        done = side_by_side(self.folder, lambda i: self.path(i).name in there and self.is_done(i), indexes)
        return [i for i in indexes if not done[i]]

    def footer(self, index: int) -> Footer:
        """What part ``index`` says about itself.

        Raises
        ------
        FileNotFoundError, DamagedFile : it is not there, not whole, or another job's.
        """
        path = self.path(index)
        footer = read_footer(path)
        if footer.fingerprint != self.fingerprint or footer.index != index:
            raise DamagedFile(f"{path} belongs to another job or another place")
        return footer

    def read_level(self, index: int, level: int) -> NDArray:
        """(h, w, channels): a block's level ``grid.block_overviews`` without loss; no other is kept so.

        Raises
        ------
        DamagedFile : when their checksum fails.
        """
        if level != self.grid.block_overviews:
            raise ValueError(f"level {self.grid.block_overviews} is kept without loss, not {level}")
        return read_seed(self.path(index), self.footer(index))

    @property
    def upper(self) -> Parts | None:
        """The stage that makes the levels above these parts; None where the image already fits one tile."""
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
        """(h, w, channels): a box of level ``grid.block_overviews`` without loss, its corner on a seed."""
        out = mapped((*box.shape, self.encoding.channels), self.encoding.dtype)
        tile = self.grid.tile

        def fill(cell: Box) -> None:
            index = cell.y0 // tile * self.grid.block_columns + cell.x0 // tile
            out[cell.within(box).slices] = self.read_level(index, self.grid.block_overviews)

        side_by_side(self.folder, fill, box.cells(tile))
        return out

    def drop_damaged(self) -> list[int]:
        """Remove every part that does not prove whole, so that the next run makes it again; returns which."""
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
