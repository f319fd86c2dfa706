"""What varies over an image: members that share it out, each with a weight at every place.

A *field* is a partition of unity over the image. Regions of a mask with soft edges are one, a lattice of
places with hats around them is another. Each member has its own statistics and its own style; at every place
their maps are mixed by the members' weights. Weights depend on absolute positions alone, so that every window
sees the same ones, to the bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div, reflect
from urst_tiles.storage.stores import fetched, path_of

Members = tuple[int, ...]
Weights = NDArray[np.float32]


class Field(Protocol):
    """A partition of unity over an image of some size."""

    @property
    def members(self) -> int:
        """How many there are."""

    def active(self, box: Box) -> Members:
        """The members that weigh more than nothing somewhere in ``box``, or a few more."""

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        """Members and their weights, float32 (members, h / stride, w / stride), which sum to 1 in each cell.

        ``box`` lies in the padded image, its sides on the stride.
        """

    def resized(self, height: int, width: int) -> Field:
        """The same over the same image at another resolution."""

    def described(self) -> dict[str, Any]:
        """What `restored` makes it from, as JSON-able values."""


@dataclass(frozen=True)
class Everywhere:
    """One member, which is all there is."""

    members: int = 1

    def active(self, box: Box) -> Members:
        """The one."""
        return (0,)

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        """All of it."""
        h, w = box.shape
        return (0,), np.ones((1, h // stride, w // stride), np.float32)

    def resized(self, height: int, width: int) -> Everywhere:
        """Itself."""
        return self

    def described(self) -> dict[str, Any]:
        """Its kind."""
        return {"kind": "everywhere"}


@dataclass(frozen=True)
class Lattice:
    """Places in rows and columns over an image; a member's weight falls linearly to 0 at its neighbours, and
    is constant from the outermost place to the image's edge.

    Parameters
    ----------
    height, width : of the image.
    rows, columns : places along each side; place i lies at (i + 1/2) height / rows.
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def of_scale(cls, height: int, width: int, scale: int) -> Lattice:
        """With places about ``scale`` pixels apart."""
        return cls(height, width, *(max(1, (2 * n + scale) // (2 * scale)) for n in (height, width)))

    @property
    def members(self) -> int:
        """One for each place."""
        return self.rows * self.columns

    def active(self, box: Box) -> Members:
        """Those of `weights`."""
        rows = _places(self.height, self.rows, box.y0, box.y1)
        columns = _places(self.width, self.columns, box.x0, box.x1)
        return tuple(r * self.columns + c for r in rows for c in columns)

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        """Bilinear interpolation between the four places around a cell's middle."""
        down = _hats(self.height, self.rows, box.y0, box.y1, stride)
        across = _hats(self.width, self.columns, box.x0, box.x1, stride)
        weights = down[:, None, :, None] * across[None, :, None, :]
        return self.active(box), weights.reshape(-1, *weights.shape[2:]).astype(np.float32)

    def resized(self, height: int, width: int) -> Lattice:
        """The same places."""
        return replace(self, height=height, width=width)

    def described(self) -> dict[str, Any]:
        """Sizes and counts."""
        return {"kind": "lattice"} | asdict(self)


def _positions(length: int, count: int, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where half pixels ``at`` / 2 lie between places, in 0..count - 1."""
    return np.clip(at * count / (2.0 * length) - 0.5, 0.0, count - 1.0)


def _places(length: int, count: int, start: int, stop: int) -> range:
    """Places that pixels start..stop - 1 lie at or between."""
    first, last = _positions(length, count, np.array([2 * start + 1, 2 * stop - 1]))
    return range(int(first), min(int(last) + 1, count - 1) + 1)


def _hats(length: int, count: int, start: int, stop: int, stride: int) -> NDArray[np.float64]:
    """(places, cells): each place's weight at the middle of every cell."""
    at = _positions(length, count, np.arange(2 * start + stride, 2 * stop + stride, 2 * stride))
    places = np.array(_places(length, count, start, stop))
    return np.maximum(0.0, 1.0 - np.abs(at[None, :] - places[:, None]))


@dataclass(frozen=True)
class Regions:
    """Numbered regions of a mask, with soft edges; the last member is all that has no number of ours.

    Parameters
    ----------
    height, width : of the image.
    path : a ``.npy`` file, uint8 or uint16 (h, w), of any resolution over the same extent; read per window.
    labels : the numbers, in the order of the members.
    feather : pixels over which one region fades into the next; at least one pixel of the mask.
    fingerprint : of the mask: another one may take the same path later.
    """

    height: int
    width: int
    path: Path
    labels: tuple[int, ...]
    feather: int
    fingerprint: str = ""

    @property
    def members(self) -> int:
        """One for each label, and the rest."""
        return len(self.labels) + 1

    @property
    def rest(self) -> int:
        """The member without a label."""
        return len(self.labels)

    def active(self, box: Box) -> Members:
        """The members in ``box``, and as far around it as edges are soft."""
        return _shares(self, box)[0]

    def weights(self, box: Box, stride: int) -> tuple[Members, Weights]:
        """Each member's share of a cell, of the mask smoothed by a triangle."""
        members, counts, total = _shares(self, box)
        h, w = (side // stride for side in box.shape)
        if counts is None:
            return members, np.ones((1, h, w), np.float32)
        cells = counts.reshape(len(members), h, stride, w, stride).sum((2, 4))
        return members, (cells / (total * stride**2)).astype(np.float32)

    def resized(self, height: int, width: int) -> Regions:
        """The same mask, edges as soft in relation to the image."""
        feather = max(1, self.feather * height // self.height)
        return replace(self, height=height, width=width, feather=feather)

    def described(self) -> dict[str, Any]:
        """Sizes, path and labels."""
        return {"kind": "regions"} | asdict(self) | {"path": str(self.path)}


@lru_cache(maxsize=4)
def _shares(regions: Regions, box: Box) -> tuple[Members, NDArray[np.int64] | None, int]:
    """Members in ``box``; their shares of every pixel as integers, which are exact whatever the window; and
    what these sum to. No shares where one member is alone."""
    mask = _raster(regions.path, regions.fingerprint)
    coarse = max(ceil_div(n, m) for n, m in zip((regions.height, regions.width), mask.shape, strict=True))
    radius = max(regions.feather, coarse) // 2
    wide = box.grow(2 * radius)
    rows = _lines(wide.y0, wide.y1, regions.height, mask.shape[0])
    columns = _lines(wide.x0, wide.x1, regions.width, mask.shape[1])
    top, left = rows.min(), columns.min()
    part = np.array(mask[top : rows.max() + 1, left : columns.max() + 1])
    found = {v: regions.labels.index(v) if v in regions.labels else regions.rest for v in np.unique(part)}
    members = tuple(sorted(set(found.values())))
    if len(members) == 1:
        return members, None, 1
    member = np.zeros(int(part.max()) + 1, np.intp)
    member[list(found)] = list(found.values())
    who = member[part][np.ix_(rows - top, columns - left)]
    counts = np.stack([_smooth(who == m, radius) for m in members])
    return members, counts, (2 * radius + 1) ** 4


def _lines(start: int, stop: int, length: int, count: int) -> NDArray[np.int64]:
    """Lines of a mask of ``count`` lines at the middles of the image's lines start..stop - 1."""
    return (2 * np.array(reflect(start, stop, length), np.int64) + 1) * count // (2 * length)


def _smooth(inside: NDArray[np.bool_], radius: int) -> NDArray[np.int64]:
    """Sums over a square of 2 radius + 1, twice: without the margin of 2 radius that this takes."""
    sums = inside.astype(np.int64)
    for axis in (0, 0, 1, 1):
        ahead = np.cumsum(sums, axis=axis)
        ahead = np.concatenate([np.zeros_like(ahead.take([0], axis)), ahead], axis)
        n = 2 * radius + 1
        sums = ahead.take(range(n, ahead.shape[axis]), axis) - ahead.take(range(ahead.shape[axis] - n), axis)
    return sums


@lru_cache(maxsize=4)
def _raster(path: Path, fingerprint: str) -> NDArray[Any]:
    """The mask of this fingerprint, mapped; DamagedFile where it is none."""
    try:
        return np.load(fetched(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DamagedFile(f"the mask in the job folder {path} cannot be read ({error})") from error


def restored(described: dict[str, Any]) -> Field:
    """The field that ``described`` itself."""
    values = dict(described)
    kind = values.pop("kind")
    if kind == "regions":
        return Regions(**values | {"path": path_of(values["path"]), "labels": tuple(values["labels"])})
    return Lattice(**values) if kind == "lattice" else Everywhere()
