"""Fields: how several styles, or several sets of statistics, share out an image.

A field has *members*, each with a weight at every place of the image; the weights of all members sum to 1
there (a partition of unity). The members may be the regions of a mask with soft edges, or the places of a
lattice, each with a hat function around it. Each member has statistics of its own, and in a mask a style of
its own; at every place their maps are mixed by the members' weights. Weights depend on absolute positions
alone, so every window sees the same weights, to the bit.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div, reflect
from urst_tiles.storage.stores import fetched, open_regular, path_of

Members = tuple[int, ...]
Weights = NDArray[np.float32]


class Field(Protocol):
    """A partition of unity over an image of a given size."""

    @property
    def members(self) -> int:
        """The number of members; they are numbered from 0."""

    def active(self, box: Box) -> Members:
        """All members whose weight is above 0 somewhere in ``box``; a few others may be among them."""

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        """The members in ``box``, and their weights in each cell of stride x stride pixels.

        ``box`` lies in the padded image, and its sides are multiples of ``stride``. The weights are float32,
        (members, h / stride, w / stride), and sum to 1 in each cell.
        """

    def resized(self, height: int, width: int) -> Field:
        """The same field over the same image, or the same part of it, at another resolution."""

    def of_part(self, box: Box) -> Field:
        """The same field as seen from the corner of a part of the image: its boxes are those of the part."""

    def described(self) -> dict[str, Any]:
        """A description of the field, of values that JSON can hold; `restored` makes the field from it."""


@dataclass(frozen=True)
class Everywhere:
    """A field of one member, whose weight is 1 everywhere."""

    members: int = 1

    def active(self, box: Box) -> Members:
        return (0,)

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        h, w = box.shape
        return (0,), np.ones((1, h // stride, w // stride), np.float32)

    def resized(self, height: int, width: int) -> Everywhere:
        return self

    def of_part(self, box: Box) -> Everywhere:
        return self

    def described(self) -> dict[str, Any]:
        return {"kind": "everywhere"}


@dataclass(frozen=True)
class Lattice:
    """A field whose members are places in rows and columns over the image.

    The weight of a member falls linearly from its place to 0 at the neighbouring places. It does not change
    from the outermost places out to the edge of the image.

    Parameters
    ----------
    height, width : size of the image in pixels.
    rows : number of places down the image; place i lies at (i + 1/2) height / rows.
    columns : number of places across the image, at (i + 1/2) width / columns.
    part : the part of the image from whose corner boxes are counted; None for the whole image.
    """

    height: int
    width: int
    rows: int
    columns: int
    part: Box | None = None

    @classmethod
    def of_scale(cls, height: int, width: int, scale: int) -> Lattice:
        """The lattice over an image of this size whose places are about ``scale`` pixels apart."""
        rows, columns = (max(1, (2 * n + scale) // (2 * scale)) for n in (height, width))
        return cls(height, width, rows, columns)

    @property
    def members(self) -> int:
        return self.rows * self.columns

    def active(self, box: Box) -> Members:
        box = _in_image(box, self.part)
        rows = _places(self.height, self.rows, box.y0, box.y1)
        columns = _places(self.width, self.columns, box.x0, box.x1)
        return tuple(r * self.columns + c for r in rows for c in columns)

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        # This is bilinear interpolation between the four places around the middle of a cell.
        there = _in_image(box, self.part)
        down = _hats(self.height, self.rows, there.y0, there.y1, stride)
        across = _hats(self.width, self.columns, there.x0, there.x1, stride)
        weights = down[:, None, :, None] * across[None, :, None, :]
        return self.active(box), weights.reshape(-1, *weights.shape[2:]).astype(np.float32)

    def resized(self, height: int, width: int) -> Lattice:
        (whole_height, whole_width), part = _resized((self.height, self.width), self.part, height, width)
        return replace(self, height=whole_height, width=whole_width, part=part)

    def of_part(self, box: Box) -> Lattice:
        return replace(self, part=box)

    def described(self) -> dict[str, Any]:
        return {"kind": "lattice"} | _values(self)


def _in_image(box: Box, part: Box | None) -> Box:
    """A box of the image that is counted from the corner of a part of it."""
    return box if part is None else box.shift(part.y0, part.x0)


def _resized(
    image: tuple[int, int], part: Box | None, height: int, width: int
) -> tuple[tuple[int, int], Box | None]:
    """(height, width) of an image and the part of it, once the part, or without one the image, is resized to
    ``height`` x ``width``."""
    if part is None:
        return (height, width), None
    (h, w), (rows, columns) = part.shape, image
    whole = max(height, round(rows * height / h)), max(width, round(columns * width / w))
    y = min(round(part.y0 * height / h), whole[0] - height)
    x = min(round(part.x0 * width / w), whole[1] - width)
    return whole, Box(y, x, y + height, x + width)


def _values(field: Lattice | Regions) -> dict[str, Any]:
    """The values of a field over a whole image."""
    return {name: value for name, value in asdict(field).items() if name != "part"}


def _positions(length: int, count: int, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Positions ``at`` / 2, in pixels of a line of ``length``, as fractional numbers of places, 0..count -
    1."""
    return np.clip(at * count / (2.0 * length) - 0.5, 0.0, count - 1.0)


def _places(length: int, count: int, start: int, stop: int) -> range:
    """The numbers of the places at which, or between which, pixels start..stop - 1 lie."""
    first, last = _positions(length, count, np.array([2 * start + 1, 2 * stop - 1]))
    return range(int(first), min(int(last) + 1, count - 1) + 1)


def _hats(length: int, count: int, start: int, stop: int, stride: int) -> NDArray[np.float64]:
    """The weight of each place at the middle of each cell of ``stride`` pixels, float64, (places, cells)."""
    at = _positions(length, count, np.arange(2 * start + stride, 2 * stop + stride, 2 * stride))
    places = np.array(_places(length, count, start, stop))
    return np.maximum(0.0, 1.0 - np.abs(at[None, :] - places[:, None]))


@dataclass(frozen=True)
class Regions:
    """A field whose members are numbered regions of a mask, with soft edges.

    The last member is the rest: everything whose number in the mask is not among ``labels``.

    Parameters
    ----------
    height, width : size of the image in pixels.
    path : a ``.npy`` file with the mask, uint8 or uint16, (h, w). It has any resolution, but the extent of
        the image. Each window reads the part that it needs.
    labels : the numbers in the mask, in the order of the members.
    feather : pixels over which a region fades into the next; it fades over one pixel of the mask at least.
    fingerprint : identifies the mask, since another mask may take the same path later.
    part : the part of the image from whose corner boxes are counted; None for the whole image.
    """

    height: int
    width: int
    path: Path
    labels: tuple[int, ...]
    feather: int
    fingerprint: str = ""
    part: Box | None = None

    @property
    def members(self) -> int:
        return len(self.labels) + 1

    @property
    def rest(self) -> int:
        """The number of the member that has no label."""
        return len(self.labels)

    def active(self, box: Box) -> Members:
        return _shares(self, box)[0]

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        # A weight is the member's share of the cell, in the mask smoothed by a triangle.
        members, counts, total = _shares(self, box)
        h, w = (side // stride for side in box.shape)
        if counts is None:
            return members, np.ones((1, h, w), np.float32)
        cells = counts.reshape(len(members), h, stride, w, stride).sum((2, 4))
        return members, (cells / (total * stride**2)).astype(np.float32)

    def resized(self, height: int, width: int) -> Regions:
        (whole_height, whole_width), part = _resized((self.height, self.width), self.part, height, width)
        feather = max(1, self.feather * whole_height // self.height)
        return replace(self, height=whole_height, width=whole_width, feather=feather, part=part)

    def of_part(self, box: Box) -> Regions:
        return replace(self, part=box)

    def described(self) -> dict[str, Any]:
        return {"kind": "regions"} | _values(self) | {"path": str(self.path)}


@lru_cache(maxsize=4)
def _shares(regions: Regions, box: Box) -> tuple[Members, NDArray[np.int64] | None, int]:
    """The members in ``box`` and as far around it as edges are soft; their shares; and the sum of the shares.

    The shares are int64, (members, h, w): the share of each member in each pixel, exact whatever the window.
    They are None if there is one member alone.
    """
    mask = raster_at(regions.path)
    coarse = max(ceil_div(n, m) for n, m in zip((regions.height, regions.width), mask.shape, strict=True))
    radius = max(regions.feather, coarse) // 2
    wide = _in_image(box, regions.part).grow(2 * radius)
    rows = _lines(wide.y0, wide.y1, regions.height, mask.shape[0])
    columns = _lines(wide.x0, wide.x1, regions.width, mask.shape[1])
    (down, row_of), (across, column_of) = (np.unique(n, return_inverse=True) for n in (rows, columns))
    part = np.array(mask[np.ix_(down, across)])  # of a mask finer than the image no more than is needed
    member_of = {v: regions.labels.index(v) if v in regions.labels else regions.rest for v in np.unique(part)}
    members = tuple(sorted(set(member_of.values())))
    if len(members) == 1:
        return members, None, 1
    by_label = np.zeros(int(part.max()) + 1, np.intp)
    by_label[list(member_of)] = list(member_of.values())
    here = by_label[part][np.ix_(row_of, column_of)]
    counts = np.stack([_smooth(here == m, radius) for m in members])
    return members, counts, (2 * radius + 1) ** 4


def _lines(start: int, stop: int, length: int, count: int) -> NDArray[np.int64]:
    """For the middle of each line start..stop - 1 of an image, the line of the mask that lies there.

    The image has ``length`` lines, continued by reflection, and the mask has ``count``.
    """
    return (2 * np.array(reflect(start, stop, length), np.int64) + 1) * count // (2 * length)


def _smooth(inside: NDArray[np.bool_], radius: int) -> NDArray[np.int64]:
    """Smooth twice by sums over a square of side 2 radius + 1, which takes off a margin of 2 radius."""
    sums = inside.astype(np.int64)
    for axis in (0, 0, 1, 1):
        ahead = np.cumsum(sums, axis=axis)
        ahead = np.concatenate([np.zeros_like(ahead.take([0], axis)), ahead], axis)
        n = 2 * radius + 1
        sums = ahead.take(range(n, ahead.shape[axis]), axis) - ahead.take(range(ahead.shape[axis] - n), axis)
    return sums


def raster_at(path: Path) -> NDArray[Any]:
    """The unpacked mask at ``path``, memory-mapped; raises DamagedFile if the file is not an array.

    It is mapped anew for each window: the pages that were read would stay resident as long as it is mapped,
    in the end the whole mask.
    """
    try:
        local = fetched(path)
        os.close(open_regular(local))  # neither a link nor a FIFO, which would hang
        return np.load(local, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DamagedFile(f"the mask in the job folder {path} cannot be read ({error})") from error


def restored(described: dict[str, Any]) -> Field:
    """The field whose method ``described`` returned this dict."""
    values = dict(described)
    kind = values.pop("kind")
    if kind == "regions":
        return Regions(**values | {"path": path_of(values["path"]), "labels": tuple(values["labels"])})
    return Lattice(**values) if kind == "lattice" else Everywhere()
