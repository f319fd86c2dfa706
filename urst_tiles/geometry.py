"""Integer geometry: how an image is cut into blocks, windows and TIFF tiles. Order is always y, x.

Questions go from output to input: which part of the image a block owns, which windows that part needs, and
which pixels must be read for them. Nothing here knows pixel values, bands or files, and all numbers are
integers.

The *padded image* is the image grown at the bottom and right to a multiple of the stride, and at least to the
smallest size that the network accepts. Windows lie inside it; they all have the same shape, and their origins
are multiples of the stride. The *core* of a window is the part of its result that the output takes; the cores
partition the image.

A grid may make only a *part* of the image. Windows and cores remain those of the whole image, so each pixel
of the part is that of the whole result; blocks and TIFF tiles are laid from the corner of the part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from urst_tiles.errors import BadPlan


def ceil_div(a: int, b: int) -> int:
    """The smallest integer >= a / b, for b > 0."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """The smallest multiple of b that is >= a."""
    return ceil_div(a, b) * b


def halved(shape: tuple[int, int], times: int) -> tuple[int, int]:
    """(height, width) of an image that was halved so often, each time rounded up."""
    return ceil_div(shape[0], 1 << times), ceil_div(shape[1], 1 << times)


@dataclass(frozen=True, order=True)
class Box:
    """A half-open integer rectangle [y0, y1) x [x0, x1), in pixels."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def area(self) -> int:
        """The number of pixels in the box; 0 if it is empty."""
        return max(0, self.y1 - self.y0) * max(0, self.x1 - self.x0)

    @property
    def xywh(self) -> str:
        """The box as users name it: "x,y,width,height"."""
        return f"{self.x0},{self.y0},{self.x1 - self.x0},{self.y1 - self.y0}"

    @property
    def slices(self) -> tuple[slice, slice]:
        """The index of this box in an array whose origin is (0, 0)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def shift(self, dy: int, dx: int) -> Box:
        """This box moved by (dy, dx)."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def times(self, n: int) -> Box:
        """The same box in an image that is n times as large."""
        return Box(self.y0 * n, self.x0 * n, self.y1 * n, self.x1 * n)

    def half(self) -> Box:
        """The box of the image at half its size whose pixels show those of this box."""
        return Box(self.y0 // 2, self.x0 // 2, ceil_div(self.y1, 2), ceil_div(self.x1, 2))

    def within(self, outer: Box) -> Box:
        """The same box in coordinates whose origin is the corner of ``outer``."""
        return self.shift(-outer.y0, -outer.x0)

    def grow(self, n: int) -> Box:
        """This box grown by n pixels on every side."""
        return Box(self.y0 - n, self.x0 - n, self.y1 + n, self.x1 + n)

    def clip(self, outer: Box) -> Box:
        """The part of this box inside ``outer``; it may be empty, but y1 >= y0 and x1 >= x0 always hold."""
        y0, x0 = max(self.y0, outer.y0), max(self.x0, outer.x0)
        return Box(y0, x0, max(y0, min(self.y1, outer.y1)), max(x0, min(self.x1, outer.x1)))

    def align(self, stride: int) -> Box:
        """The smallest box that holds this box and whose four sides are multiples of ``stride``."""
        return Box(
            self.y0 // stride * stride,
            self.x0 // stride * stride,
            round_up(self.y1, stride),
            round_up(self.x1, stride),
        )

    def at_least(self, side: int, outer: Box) -> Box:
        """This box grown to at least ``side`` pixels on each axis, but not beyond ``outer``."""
        y0 = max(outer.y0, min(self.y0, outer.y1 - side))
        x0 = max(outer.x0, min(self.x0, outer.x1 - side))
        return Box(y0, x0, max(self.y1, y0 + side), max(self.x1, x0 + side)).clip(outer)

    def union(self, other: Box) -> Box:
        """The smallest box that holds both boxes."""
        return Box(
            min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1)
        )

    def contains(self, other: Box) -> bool:
        """Whether ``other`` lies wholly inside this box."""
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    def cells(self, size: int) -> Iterator[Box]:
        """Yield the cells that meet this box, clipped to it, row by row.

        The cells are squares of ``size`` pixels in a lattice whose origin is (0, 0).
        """
        if not self.area:
            return
        for y in range(self.y0 // size * size, self.y1, size):
            for x in range(self.x0 // size * size, self.x1, size):
                yield Box(y, x, y + size, x + size).clip(self)


def reflect(start: int, stop: int, n: int) -> Sequence[int]:
    """The pixels that lie at positions start..stop-1 of a line of n pixels continued by reflection.

    The edge pixel is not repeated, as in the mode ``reflect`` of PyTorch and NumPy. The line is reflected as
    often as needed, and a line of one pixel is replicated. Positions inside the line give a plain range.
    """
    if 0 <= start and stop <= n:
        return range(start, stop)
    if n == 1:
        return [0] * (stop - start)
    period = 2 * (n - 1)
    return [min(i % period, period - i % period) for i in range(start, stop)]


def overview_count(height: int, width: int, tile: int) -> int:
    """How many times an image must be halved, rounding up, until it fits into one tile of ``tile`` pixels."""
    return max(0, (ceil_div(max(height, width), tile) - 1).bit_length())


@dataclass(frozen=True)
class Grid:
    """How an image is cut into blocks, windows and tiles; all lengths are in pixels of the full resolution.

    Parameters
    ----------
    height, width : size of the image, at least 1.
    halo : how far a window reaches beyond its core on each side; a multiple of ``stride``.
    stride : the origins of windows are multiples of it.
    core : side of the square that the output takes from a window; a multiple of ``stride`` and a divisor of
        ``block``.
    block : side of the square that a task computes; ``tile`` times a power of two.
    tile : side of a TIFF tile; a multiple of 16 (TIFF 6.0, section 15).
    minimum : smallest side of a window that the network accepts.
    part : the box of the image that is made; None for the whole image.

    Raises
    ------
    BadPlan : if the lengths break one of these rules.
    """

    height: int
    width: int
    halo: int = 0
    stride: int = 1
    core: int = 1024
    block: int = 4096
    tile: int = 512
    minimum: int = 1
    part: Box | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise BadPlan(f"an image must have at least one pixel, got {self.width} x {self.height}")
        if self.part is not None and not (self.part.area and self.image.contains(self.part)):
            raise BadPlan(f"{self.part} is no part of an image of {self.width} x {self.height} px")
        if self.tile < 16 or self.tile % 16:
            raise BadPlan(f"a TIFF tile must be a multiple of 16 px, got {self.tile}")
        ratio, rest = divmod(self.block, self.tile)
        if rest or ratio < 1 or ratio & (ratio - 1):
            raise BadPlan(
                f"--block must be {self.tile} px (the TIFF tile) times a power of two, got {self.block}"
            )
        if self.stride < 1 or self.core < 1 or self.core % self.stride:
            raise BadPlan(f"--tile must be a multiple of the network's stride {self.stride}, got {self.core}")
        if self.block % self.core:
            raise BadPlan(f"--tile must divide --block {self.block}, got {self.core}")
        if self.halo < 0 or self.halo % self.stride:
            raise BadPlan(f"--halo must be a multiple of the network's stride {self.stride}, got {self.halo}")

    @property
    def image(self) -> Box:
        """The box of the whole image."""
        return Box(0, 0, self.height, self.width)

    @property
    def made(self) -> Box:
        """The box of the image that is made: the part, or the whole image."""
        return self.image if self.part is None else self.part

    @property
    def output(self) -> Grid:
        """How the output is cut into blocks and tiles: the grid of an image of the size of ``made``, without
        the network's needs."""
        height, width = self.made.shape
        return Grid(height, width, core=self.block, block=self.block, tile=self.tile)

    @property
    def padded(self) -> Box:
        """The box of the padded image, inside which windows lie."""
        height, width = (round_up(max(n, self.minimum), self.stride) for n in (self.height, self.width))
        return Box(0, 0, height, width)

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of every window."""
        side = max(self.core + 2 * self.halo, round_up(self.minimum, self.stride))
        return min(side, self.padded.y1), min(side, self.padded.x1)

    @property
    def block_rows(self) -> int:
        """The number of rows of blocks."""
        return ceil_div(self.made.shape[0], self.block)

    @property
    def block_columns(self) -> int:
        """The number of columns of blocks."""
        return ceil_div(self.made.shape[1], self.block)

    def __len__(self) -> int:
        return self.block_rows * self.block_columns

    @property
    def window_count(self) -> int:
        """The number of windows that cropping needs for all blocks.

        Where a part begins between two cores, the cores at the edges of blocks are computed for each block.
        """
        made = self.made
        return sum(self._cores_along(made.y0, made.y1)) * sum(self._cores_along(made.x0, made.x1))

    @property
    def read_shape(self) -> tuple[int, int]:
        """(height, width) of the padded image that the windows of a block cover, at most."""
        (h, w), made, padded = self.window, self.made, self.padded
        rows, columns = self._most_cores(made.y0, made.y1), self._most_cores(made.x0, made.x1)
        return min(padded.y1, h + (rows - 1) * self.core), min(padded.x1, w + (columns - 1) * self.core)

    def _cores_along(self, start: int, stop: int) -> tuple[int, int]:
        """How many cores all whole blocks of the line start..stop - 1 have, and how many the rest of it."""
        (whole, rest), before = divmod(stop - start, self.block), start % self.core
        return whole * ceil_div(before + self.block, self.core), ceil_div(before + rest, self.core) * (
            rest > 0
        )

    def _most_cores(self, start: int, stop: int) -> int:
        """How many cores a block of the line start..stop - 1 has, at most."""
        return ceil_div(start % self.core + min(self.block, stop - start), self.core)

    @property
    def overviews(self) -> int:
        """The number of pyramid levels below full resolution; the last fits into one tile."""
        return overview_count(*self.made.shape, self.tile)

    @property
    def block_overviews(self) -> int:
        """How many of the ``overviews`` a block makes alone, until the block has shrunk to one tile."""
        return min((self.block // self.tile).bit_length() - 1, self.overviews)

    def block_box(self, index: int) -> Box:
        """The pixels of the image that block ``index`` computes; raises IndexError for an index out of
        range."""
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        row, column = divmod(index, self.block_columns)
        y, x = self.made.y0 + row * self.block, self.made.x0 + column * self.block
        return Box(y, x, y + self.block, x + self.block).clip(self.made)

    def cores(self, box: Box) -> list[Box]:
        """The cores that meet ``box``, clipped to it, row by row."""
        return list(box.cells(self.core))

    def whole_core(self, core: Box) -> Box:
        """The core of which ``core`` is a part: a block that makes a part of an image may begin inside of
        it."""
        y, x = core.y0 // self.core * self.core, core.x0 // self.core * self.core
        return Box(y, x, y + self.core, x + self.core).clip(self.image)

    def window_box(self, core: Box) -> Box:
        """The window for ``core``, which is a core of the grid or a part of it.

        It is the whole core grown by the halo, and moved where it would reach beyond the padded image.
        """
        (h, w), padded = self.window, self.padded
        y = core.y0 // self.core * self.core - self.halo
        x = core.x0 // self.core * self.core - self.halo
        y, x = max(0, min(y, padded.y1 - h)), max(0, min(x, padded.x1 - w))
        return Box(y, x, y + h, x + w)

    def read_box(self, cores: Sequence[Box]) -> Box:
        """The part of the padded image that the windows of ``cores``, listed row by row, cover together."""
        first, last = self.window_box(cores[0]), self.window_box(cores[-1])
        return first.union(last)
