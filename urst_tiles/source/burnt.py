"""Masks of polygons: the regions of a GeoJSON file or a GeoPackage, each with the number in an attribute.

A pixel has the number of the last polygon in which its middle lies, as `rasterio.features.rasterize` burns
it, and 0 outside of all. The polygons are burnt in strips of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.source.aoi import read_features
from urst_tiles.source.features import Feature
from urst_tiles.source.polygons import Polygon, insides, reaches
from urst_tiles.source.region_numbers import MOST
from urst_tiles.source.source import Source
from urst_tiles.storage.publish import check_room

#: Side in pixels of the squares in which `burn` burns polygons.
SQUARE = 1024


@dataclass(frozen=True, eq=False)
class BurntMask:
    """Polygons as a mask with the pixels of an image.

    Attributes
    ----------
    path : the absolute path of the file.
    shape : (height, width) of the image.
    dtype : name of the dtype of the region numbers, "uint8" or "uint16".
    fingerprint : hex digest of every byte of the file, of the attribute, and of where the image lies.
    polygons : in pixels of the upright image, in the order of the file.
    numbers : of each polygon.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    fingerprint: str
    polygons: tuple[Polygon, ...]
    numbers: tuple[int, ...]

    def strips(self, boxes: Iterable[Box]) -> Iterator[NDArray[Any]]:
        """The numbers, of ``dtype``, in boxes of the image."""
        reach = reaches(self.polygons)
        for box in boxes:
            out = np.zeros(box.shape, self.dtype)
            xs: NDArray[np.float64] = np.arange(box.x0, box.x1, dtype=np.float64) + 0.5
            ys: NDArray[np.float64] = np.arange(box.y0, box.y1, dtype=np.float64) + 0.5
            for number, part, inside in insides(self.polygons, reach, xs, ys):
                out[part][inside] = self.numbers[number]
            yield out


def burnt_mask(source: Source, path: Path, digest: str, attribute: str | None) -> BurntMask:
    """The polygons of a file as a mask over an image.

    Parameters
    ----------
    digest : of every byte of the file.
    attribute : the name of the attribute that is the number of a polygon; None for the only one of integers.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    BadInput : it holds no polygon, or none that touches the image; its reference system cannot be used; or
        there is no such attribute, or one of a polygon is no number of a region.
    """
    found = read_features(source, path, "--mask")
    features = [feature for feature, _ in found]
    name = _attribute(path, features, attribute)
    numbers = [_number(path, feature, n, name) for n, feature in enumerate(features, 1)]
    pairs = [(polygon, n) for (_, polygons), n in zip(found, numbers, strict=True) for polygon in polygons]
    polygons = tuple(polygon for polygon, _ in pairs)
    check_touch(source, path, polygons)
    said = repr((digest, name, source.shape, source.info.geo))
    return BurntMask(
        path=path,
        shape=source.shape,
        dtype="uint8" if max(numbers) <= np.iinfo(np.uint8).max else "uint16",
        fingerprint=sha256(said.encode()).hexdigest(),
        polygons=polygons,
        numbers=tuple(n for _, n in pairs),
    )


def burn(mask: BurntMask, target: Path) -> None:
    """Write a mask as `urst_tiles.source.mask.spool_mask` does, but only where polygons are: the rest of the
    file is a hole, which reads as 0. So a few polygons on a large image take little time and room.

    Raises
    ------
    DiskFull : there is not enough room.
    """
    attempt = target.with_name(f"{target.name}.part")
    out = np.lib.format.open_memmap(attempt, "w+", np.dtype(mask.dtype), mask.shape, version=(2, 0))
    image = Box(0, 0, *mask.shape)
    squares: dict[Box, None] = {}
    for x0, y0, x1, y1 in reaches(mask.polygons):
        reach = Box(*(int(n) for n in np.floor((y0, x0, y1 + 1, x1 + 1))))
        if reach.y0 < image.y1 and reach.x0 < image.x1 and reach.y1 > 0 and reach.x1 > 0:
            squares |= dict.fromkeys(
                cell.align(SQUARE).clip(image) for cell in reach.clip(image).cells(SQUARE)
            )
    check_room(target.parent, sum(square.area for square in squares) * out.itemsize)
    for square, numbers in zip(squares, mask.strips(squares), strict=True):
        out[square.slices] = numbers
    del out
    attempt.rename(target)


def check_touch(source: Source, path: Path, polygons: Sequence[Polygon]) -> None:
    """Raise BadInput if the boxes around polygons, in pixels of an image, all lie outside of it."""
    height, width = source.shape
    x0, y0, x1, y1 = reaches(polygons).T
    if not ((x0 < width) & (x1 > 0) & (y0 < height) & (y1 > 0)).any():
        raise BadInput(f"{path} does not touch the image {source.path}; give polygons of the same place")


def _attribute(path: Path, features: Sequence[Feature], wanted: str | None) -> str:
    """The name of the attribute that holds the numbers: ``wanted``, or the only one of integers."""
    names = list(dict.fromkeys(name for feature in features for name in feature.attributes))
    if wanted is not None and wanted in names:
        return wanted
    listed = ", ".join(names)
    if wanted is not None:
        has = f"its attributes are {listed}" if names else "its polygons have no attributes"
        raise BadInput(f"{path} has no attribute {wanted}: {has}; choose one by --mask-attribute")
    whole = [name for name in names if _is_whole(features, name)]
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise BadInput(
            f"{path} has several attributes that are integers ({', '.join(whole)}); say which one numbers"
            " the regions by --mask-attribute"
        )
    raise BadInput(
        f"{path} has no attribute that is an integer"
        + (f" (its attributes are {listed})" if names else "")
        + "; give each polygon the number of its region in one"
    )


def _is_whole(features: Sequence[Feature], name: str) -> bool:
    """Whether an attribute is an integer wherever it has a value, and has one somewhere."""
    values = [feature.attributes.get(name) for feature in features]
    values = [value for value in values if value is not None]
    return bool(values) and all(type(value) is int for value in values)


def _number(path: Path, feature: Feature, position: int, name: str) -> int:
    """The number of a feature in the attribute ``name``; BadInput if it is no number of a region."""
    value = feature.attributes.get(name)
    whole = value if type(value) is int else int(value) if type(value) is float and value.is_integer() else -1
    if not 0 <= whole <= MOST:
        which = f"polygon {position}" if feature.id is None else f"the polygon {feature.id!r}"
        raise BadInput(
            f"{path}: {which} has {name} = {value!r}, and a region has an integer from 0 to {MOST}"
        )
    return whole
