"""Placing many files in one image: they must be alike, and their pixels must lie on one lattice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.tiff.metadata import GEO_CODES, POSITION_TAGS, Tag
from urst_tiles.tiff.position import Placement, affine_of, is_placed, moved, system_tags
from urst_tiles.tiff.systems import system_name, system_of

#: How far, in pixels, the sides of a file may be off those in pixels of the first; a larger shift is told.
TOLERANCE = 0.01

#: The image may have so many rows and columns: what a TIFF can say.
MOST_SIDE = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Tile:
    """A file as far as its place counts: its path, its GeoTIFF tags, (height, width) in pixels, how many
    samples a pixel has, and their dtype."""

    path: Path
    geo: tuple[Tag, ...]
    shape: tuple[int, int]
    bands: int
    dtype: str


@dataclass(frozen=True)
class Placed:
    """Where many files lie in one image.

    Attributes
    ----------
    shape : (height, width) of the image, the smallest that holds all files.
    boxes : int64, (files, 4): y0, x0, y1, x1 of each file in it.
    geo : the georeferencing of the image as GeoTIFF tags.
    shifts : float64, (files,): by how much of a pixel each file lies off the lattice of the first. It is
        taken at the nearest pixel, up to a half away, as with GDAL's nearest neighbour.
    """

    shape: tuple[int, int]
    boxes: NDArray[np.int64]
    geo: tuple[Tag, ...]
    shifts: NDArray[np.float64]

    @property
    def has_gaps(self) -> bool:
        """Whether there are pixels that no file covers."""
        return self.covered < self.shape[0] * self.shape[1]

    @property
    def has_overlaps(self) -> bool:
        """Whether there are pixels that several files cover."""
        sizes = self.boxes[:, 2:] - self.boxes[:, :2]
        return int((sizes[:, 0] * sizes[:, 1]).sum()) > self.covered

    @cached_property
    def covered(self) -> int:
        """How many pixels the files cover together."""
        y0, x0, y1, x1 = self.boxes[np.argsort(self.boxes[:, 1])].T
        edges = np.unique(self.boxes[:, [0, 2]])
        pixels = 0
        for top, bottom in pairwise(edges.tolist()):
            here = (y0 <= top) & (y1 > top)
            if here.any():
                start, reach = x0[here], np.maximum.accumulate(x1[here])
                before = np.concatenate([start[:1], reach[:-1]])
                pixels += (bottom - top) * int((reach - np.maximum(start, before)).clip(0).sum())
        return pixels


def place(tiles: Sequence[Tile]) -> Placed:
    """Where the files lie in the image that they make together.

    Raises
    ------
    BadInput : a file has no georeferencing; or two of them differ in bands, dtype, reference system or
        resolution. The message names both.
    """
    first = tiles[0]
    base, keys, system = _affine(first), system_tags(first.geo), system_of(first.geo)
    boxes, shifts = np.empty((len(tiles), 4), np.int64), np.empty(len(tiles))
    for number, tile in enumerate(tiles):
        affine = _affine(tile)
        check_alike(first, tile)
        if system_tags(tile.geo) != keys and system_of(tile.geo) != system:
            raise BadInput(
                f"{tile.path} is in {system_name(tile.geo)} and {first.path} in {system_name(first.geo)}, and"
                " one image has one CRS; bring them into one first, for example: gdalwarp -t_srs"
                f" {_code(first)} IN OUT"
            )
        boxes[number], shifts[number] = _box(first, base, tile, affine)
    corner = boxes[:, :2].min(axis=0)
    height, width = (int(side) for side in boxes[:, 2:].max(axis=0) - corner)
    if max(height, width) > MOST_SIDE:
        raise BadInput(
            f"the files from {first.path} on span {width} x {height} pixels, more than an image can have; are"
            " all of them where they belong? (gdalinfo tells)"
        )
    nearest = int(np.abs(boxes[:, :2] - corner).sum(axis=1).argmin())
    rows, columns = (int(n) for n in corner - boxes[nearest, :2])
    kept = (*POSITION_TAGS, *GEO_CODES)  # rational polynomials are of one file
    geo = moved([tag for tag in tiles[nearest].geo if tag.code in kept], rows, columns)
    return Placed((height, width), boxes - np.tile(corner, 2), geo, shifts)


def check_alike(first: Tile, tile: Tile) -> None:
    """Raise BadInput if two files differ in the number of bands or in the dtype."""
    if (tile.bands, tile.dtype) == (first.bands, first.dtype):
        return
    raise BadInput(
        f"{tile.path} has {tile.bands} band(s) of {tile.dtype} and {first.path} has {first.bands} of"
        f" {first.dtype}, and the files of one image are alike; make them so first, for example: gdalwarp -ot"
        f" {first.dtype.capitalize()} IN OUT, or gdal_translate -b to choose bands"
    )


def _code(tile: Tile) -> str:
    name = system_name(tile.geo)
    return name if name.startswith("EPSG:") else "EPSG:CODE"


def _affine(tile: Tile) -> Placement:
    """The affine map of a file. Raises BadInput where it has none."""
    affine = affine_of(tile.geo)
    if affine is not None:
        return affine
    if is_placed(tile.geo):
        raise BadInput(
            f"{tile.path} is georeferenced by control points or polynomials, which place no pixel on a"
            " lattice; rectify the files first, for example: gdalwarp -r bilinear IN OUT"
        )
    raise BadInput(
        f"{tile.path} has no georeferencing, so that its place among the other files is unknown; give it"
        " some (gdal_translate -a_ullr, or a world file), or name a single file as INPUT"
    )


def _box(
    first: Tile, base: Placement, tile: Tile, affine: Placement
) -> tuple[tuple[int, int, int, int], float]:
    """y0, x0, y1, x1 of a file in the pixels of the first, and its shift against their lattice in pixels.

    Raises
    ------
    BadInput : its pixels have another size or direction.
    """
    h, w = tile.shape
    wanted = ((0, 0), (w, 0), (0, h), (w, h))
    corners = [base.inverse(*affine(column, row)) for column, row in wanted]
    left, top = corners[0]
    off = [
        abs(at - start - side)
        for corner, sides in zip(corners, wanted, strict=True)
        for at, start, side in zip(corner, (left, top), sides, strict=True)
    ]
    if not all(distance <= TOLERANCE for distance in off):  # neither is what is no number
        raise BadInput(
            f"{tile.path} has pixels of {_size(affine)} and {first.path} of {_size(base)}, and one image has"
            f" one resolution; resample first, for example: gdalwarp -tr {abs(base.a):.12g}"
            f" {abs(base.e):.12g} -tap IN OUT"
        )
    y, x = round(top), round(left)
    return (y, x, y + h, x + w), max(abs(top - y), abs(left - x))


def _size(affine: Placement) -> str:
    """The size of a pixel in words."""
    return f"{np.hypot(affine.a, affine.d):.12g} x {np.hypot(affine.b, affine.e):.12g}"
