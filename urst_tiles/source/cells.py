"""Georeferenced images as means in the cells of one lattice on the ground, so that they can be compared.

The lattice is that of the pixels of one image, some of which make a cell. Of any image, whatever its grid and
its reference system, each pixel counts in the cell in which its middle lies. Images on the same grid are
compared pixel by pixel in this way, and others without interpolation, which would make some smoother than
others. Places in another reference system are transformed exactly at every 64th pixel and linearly between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.progress import Progress, silent
from urst_tiles.source.crs import image_crs, transformed
from urst_tiles.source.source import Source
from urst_tiles.source.valid import full
from urst_tiles.tiff.position import Placement, affine_of, is_placed, names_system, system_tags
from urst_tiles.tiff.systems import system_of

Float = NDArray[np.floating[Any]]

#: Sides in pixels of the boxes that are read at a time, and of the squares between exact places.
BLOCK, EXACT = 1024, 64

#: At so many places along each side an image is transformed to find its outline.
MESH = 33

#: Bytes of memory for each pixel of a box while it is counted, and for each cell of an image.
PIXEL_BYTES, CELL_BYTES = 120, 40

#: An image has at most so many cells, and a narrow overlap at least so many across, if its pixels allow it.
MOST_CELLS, ACROSS = 1 << 22, 8

#: A cell has at least so many pixels of the coarsest image on each side, against shifts by about a pixel; and
#: the largest image so many cells on its longer side, if overlaps are not too narrow for either.
PIXELS, LONGEST = 4, 1024

#: A cell counts if its pixels are valid, if they fill this share of it, and if at most this share is clipped.
FILLED, CLIPPED = 0.75, 0.125

#: An overview is read instead of the image if at least so many of its pixels lie along the side of a cell.
OVERVIEW_PIXELS = 4


@dataclass(frozen=True)
class CellGrid:
    """A lattice of cells: the pixels of an image, ``factor`` by ``factor`` of which make a cell.

    Attributes
    ----------
    base : the image, of which only the header counts.
    factor : the side of a cell in its pixels; it need not be an integer.
    """

    base: Source
    factor: float = 1.0

    @property
    def place(self) -> Placement:
        """The map from the pixels of the image to the ground."""
        return placement(self.base)

    @property
    def side(self) -> tuple[float, float]:
        """(width, height) of a cell in units of the reference system."""
        a = self.place
        return float(np.hypot(a.a, a.d)) * self.factor, float(np.hypot(a.b, a.e)) * self.factor


@dataclass(frozen=True, eq=False)
class Cells:
    """An image, or a part of it, in the cells of a lattice.

    Attributes
    ----------
    box : the cells.
    mean : float32, (h, w, 3): the mean of all pixels in each cell, as fractions of the full range of values.
    good : bool, (h, w): whether the image fills the cell, with valid pixels that are not clipped.
    """

    box: Box
    mean: NDArray[np.float32]
    good: NDArray[np.bool_]

    def common(self, other: Cells) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The values of both images in the cells that are good in both, float64, (cells, 3) each."""
        box = self.box.clip(other.box)
        if box.area == 0:
            return np.empty((0, 3)), np.empty((0, 3))
        mine, theirs = box.within(self.box).slices, box.within(other.box).slices
        both = self.good[mine] & other.good[theirs]
        return self.mean[mine][both].astype(np.float64), other.mean[theirs][both].astype(np.float64)


def placement(source: Source) -> Placement:
    """The map from the pixels of an image to the ground; BadInput where it has none."""
    found = affine_of(source.info.geo)
    if found is not None:
        return found
    if is_placed(source.info.geo):
        raise BadInput(
            f"{source.path} is georeferenced by control points or polynomials, so its overlaps are not known"
            " exactly; rectify it first, for example: gdalwarp -r bilinear IN OUT"
        )
    raise BadInput(
        f"{source.path} has no georeferencing, so that its overlaps with other scenes are unknown; give it"
        " some (gdal_translate -a_ullr, or a world file)"
    )


class Places:
    """The map from the pixels of an image to those of the base of a lattice.

    Raises
    ------
    BadInput : one of the two has a reference system and the other has none; or they differ, and rasterio is
        not installed.
    """

    def __init__(self, source: Source, lattice: CellGrid) -> None:
        self._here, self._there = placement(source), lattice.place
        self._systems = _systems(source, lattice.base)

    def __call__(self, x: Float, y: Float) -> tuple[Float, Float]:
        """(column, row) in the base of positions (column, row) in the image; infinite where there are
        none."""
        place = self._here
        ground = np.stack([place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f], -1)
        if self._systems is not None:
            shape = ground.shape
            ground = transformed(ground.reshape(-1, 2), *self._systems).reshape(shape)
        column, row = self._there.inverse(ground[..., 0], ground[..., 1])
        return column, row

    def of_pixels(self, box: Box, scale: tuple[float, float]) -> tuple[Float, Float]:
        """The same of the middles of the pixels of a box, (h, w) each.

        ``scale`` is the size (x, y) of these pixels in pixels of the image, of which they are an overview.
        """
        ys, xs = np.arange(box.y0, box.y1) + 0.5, np.arange(box.x0, box.x1) + 0.5
        if self._systems is None:
            return self(xs[None, :] * scale[0], ys[:, None] * scale[1])
        rows, by_row = _knots(ys)
        columns, by_column = _knots(xs)
        grid = np.meshgrid(columns * scale[0], rows * scale[1])
        exact = self(*grid)
        with np.errstate(invalid="ignore"):
            column, row = (by_row @ one @ by_column.T for one in exact)
        return column, row

    def outline(self, shape: tuple[int, int]) -> Float:
        """(column, row) in the base, (n, 2), of places all over an image of ``shape``, its border among
        them."""
        found = self._mesh(shape).reshape(-1, 2)
        return found[np.isfinite(found).all(1)]

    def pixel(self, shape: tuple[int, int]) -> float:
        """The side of a pixel of an image of ``shape`` in pixels of the base, in the middle of its sizes all
        over the image; 1 where it has no place there."""
        mesh = self._mesh(shape)
        with np.errstate(invalid="ignore"):
            down, across = mesh[1:, :-1] - mesh[:-1, :-1], mesh[:-1, 1:] - mesh[:-1, :-1]
            areas = np.abs(down[..., 0] * across[..., 1] - down[..., 1] * across[..., 0])
        areas = areas[np.isfinite(areas)]
        if not len(areas):
            return 1.0
        return float(np.sqrt(np.median(areas) * (MESH - 1) ** 2 / (shape[0] * shape[1])))

    def _mesh(self, shape: tuple[int, int]) -> Float:
        """(column, row) in the base of 33 x 33 places of an image of ``shape``, (33, 33, 2)."""
        grid = np.meshgrid(np.linspace(0, shape[1], MESH), np.linspace(0, shape[0], MESH))
        return np.stack(self(*grid), -1)


def _systems(source: Source, base: Source) -> tuple[Any, Any] | None:
    """The reference systems of an image and of a base; None if they are the same."""
    one, other = source.info.geo, base.info.geo
    if system_tags(one) == system_tags(other) or system_of(one) == system_of(other):
        return None
    for here, there in ((source, base), (base, source)):
        if not names_system(here.info.geo) and names_system(there.info.geo):
            raise BadInput(
                f"{here.path} does not tell its reference system, and {there.path} does; write it into the"
                " file with gdal_edit -a_srs"
            )
    found, wanted = image_crs(source, "comparing scenes"), image_crs(base, "comparing scenes")
    return None if found == wanted else (found, wanted)


def _knots(at: Float) -> tuple[Float, Float]:
    """Every 64th of some positions and the last, and the matrix that interpolates all between these."""
    knots = np.append(at[:-1:EXACT], at[-1]) if len(at) > 1 else at
    if len(knots) == 1:
        return knots, np.ones((1, 1))
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    part = (at - knots[left]) / (knots[left + 1] - knots[left])
    matrix = np.zeros((len(at), len(knots)))
    rows = np.arange(len(at))
    matrix[rows, left], matrix[rows, left + 1] = 1.0 - part, part
    return knots, matrix


def lattice_for(sources: Sequence[Source], base: Source, side: float | None = None) -> CellGrid:
    """The lattice in whose cells images are compared.

    Parameters
    ----------
    sources : the images.
    base : the image whose pixels the cells consist of.
    side : the side of a cell in units of the reference system of ``base``; None to choose it: a cell has
        about 4 x 4 pixels of the coarsest image, or more for large images, or fewer where overlaps are
        narrow.
    """
    pixels = CellGrid(base)
    outlines = [Places(one, pixels).outline(one.shape) for one in sources]
    sizes = [Places(one, pixels).pixel(one.shape) for one in sources]
    ends = np.array([[*outline.min(0), *outline.max(0)] for outline in outlines if len(outline)])
    lengths = ends[:, 2:] - ends[:, :2]
    least = max(max(sizes), float(np.sqrt(lengths.prod(1).max() / MOST_CELLS)))
    if side is not None:
        wanted = side / pixels.side[0]
        if not np.isfinite(wanted) or wanted < least * (1 - 1e-6):
            raise BadInput(
                f"--resolution {side:.12g} is finer than can be compared; give at least"
                f" {least * pixels.side[0]:.6g}, or leave it out"
            )
        return replace(pixels, factor=wanted)
    wanted = min(max(PIXELS * max(sizes), float(lengths.max()) / LONGEST), _narrowest(ends) / ACROSS)
    whole = float(max(1, round(max(least, wanted))))  # so that cells hold whole pixels of the base
    return replace(pixels, factor=whole if whole >= 0.999 * least else least)


def _narrowest(ends: Float) -> float:
    """The width of the widest overlap of each image (of the boxes around them), of that image where it is
    smallest; infinite without overlaps."""
    best = np.zeros(len(ends))
    for number, one in enumerate(ends):
        wide = np.minimum(one[2:], ends[:, 2:]) - np.maximum(one[:2], ends[:, :2])
        wide[number] = 0.0
        best[number] = wide.min(1).max(initial=0.0)
    some = best[best > 0]
    return float(some.min()) if len(some) else float("inf")


def cells_box(source: Source, lattice: CellGrid) -> Box:
    """The cells of a lattice that an image may touch; empty if it has no place there."""
    outline = Places(source, lattice).outline(source.shape) / lattice.factor
    if not len(outline):
        return Box(0, 0, 0, 0)
    (x0, y0), (x1, y1) = np.floor(outline.min(0)) - 1, np.ceil(outline.max(0)) + 1
    return Box(int(y0), int(x0), int(y1), int(x1))


def measured_cells(
    source: Source,
    lattice: CellGrid,
    window: Box | None = None,
    *,
    overviews: bool = True,
    progress: Progress = silent,
) -> Cells:
    """The means of an image in the cells of a lattice, from one pass over its pixels or over an overview.

    Parameters
    ----------
    source : the image, prepared if it has no random access.
    window : the cells that are wanted; None for all that the image touches.
    overviews : whether an overview may be read that has at least 4 x 4 pixels in a cell.
    """
    box = cells_box(source, lattice)
    box = box if window is None else box.clip(window)
    counted = _Counted(box)
    if box.area:
        places = Places(source, lattice)
        number, shape = _level(source, places, lattice.factor, overviews)
        scale = source.shape[1] / shape[1], source.shape[0] / shape[0]
        boxes = list(Box(0, 0, *shape).cells(BLOCK))
        for done, part in enumerate(boxes, 1):
            column, row = places.of_pixels(part, scale)
            inside = counted.inside(column / lattice.factor, row / lattice.factor)
            if inside is not None:
                pixels = source.read_overview(part, number) if number else source.read(part)
                counted.add(pixels, *inside)
            progress("measuring", done, len(boxes))
        pixel = places.pixel(source.shape) * float(np.sqrt(scale[0] * scale[1]))
        return counted.cells((lattice.factor / pixel) ** 2, float(full(source.dtype)))
    return counted.cells(1.0, 1.0)


def _level(source: Source, places: Places, factor: float, overviews: bool) -> tuple[int, tuple[int, int]]:
    """The number and the shape of the coarsest overview that is fine enough; 0 for the image itself."""
    best = 0, source.shape
    if not overviews or source.areas:
        return best
    pixel = places.pixel(source.shape)
    for number, shape in enumerate(source.overviews, 1):
        coarser = max(source.shape[0] / shape[0], source.shape[1] / shape[1])
        if pixel * coarser * OVERVIEW_PIXELS <= factor and shape[0] < best[1][0]:
            best = number, shape
    return best


class _Counted:
    """Sums and counts of pixels in the cells of a box."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._sum = np.zeros((3, *box.shape), np.float32)
        self._all, self._valid, self._clipped = (np.zeros(box.shape, np.int32) for _ in range(3))

    def inside(self, column: Float, row: Float) -> tuple[Float, Float] | None:
        """The cells of pixels, counted from the corner of the box; None if none of them lies in it."""
        with np.errstate(invalid="ignore"):
            x, y = np.floor(column) - self.box.x0, np.floor(row) - self.box.y0
        h, w = self.box.shape
        (left, right), (upper, lower) = ((np.fmin.reduce(a, None), np.fmax.reduce(a, None)) for a in (x, y))
        if not (right >= 0 and lower >= 0 and left < w and upper < h):  # also where all of them are NaN
            return None
        return x, y

    def add(self, pixels: NDArray[Any], x: Float, y: Float) -> None:
        """Count pixels (h, w, channels) in the cells (x, y), float64, which broadcast to (h, w)."""
        x, y = np.broadcast_arrays(x, y)
        h, w = self.box.shape
        with np.errstate(invalid="ignore"):
            here = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        if not here.any():
            return
        columns, rows, values = x[here].astype(np.int64), y[here].astype(np.int64), pixels[here]
        x0, y0 = int(columns.min()), int(rows.min())
        part = Box(y0, x0, int(rows.max()) + 1, int(columns.max()) + 1)
        flat = (rows - y0) * part.shape[1] + (columns - x0)
        top = full(pixels.dtype)

        def summed(weights: NDArray[Any] | None) -> Float:
            return np.bincount(flat, weights, part.area).reshape(part.shape).astype(np.float64)

        self._all[part.slices] += summed(None).astype(np.int32)
        colours = values[:, :3]
        clipped = (colours == 0).any(1) | (colours == top).any(1)
        self._clipped[part.slices] += summed(clipped).astype(np.int32)
        valid = None if values.shape[1] == 3 else values[:, 3] == top
        self._valid[part.slices] += summed(valid).astype(np.int32)
        for channel in range(3):
            self._sum[channel][part.slices] += summed(colours[:, channel]).astype(np.float32)

    def cells(self, expected: float, top: float) -> Cells:
        """The means; ``expected`` pixels fill a cell, and ``top`` is the largest value."""
        count = np.maximum(self._all, 1)
        good = (self._valid == self._all) & (self._all >= max(1.0, FILLED * expected))
        good &= self._clipped <= CLIPPED * self._all
        mean = self._sum / (count * top)
        return Cells(self.box, np.moveaxis(mean.astype(np.float32), 0, -1), good)
