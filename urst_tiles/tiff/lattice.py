"""The lattice of the tiles or strips of a TIFF page. Tiles and strips together are called segments."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div


@dataclass(frozen=True, eq=False)
class Layout:
    """The lattice of segments of one page.

    Attributes
    ----------
    path : the file.
    shape : (height, width) of the page in pixels.
    segment : (height, width) of a tile or strip in pixels.
    is_tiled : whether the segments are tiles; otherwise they are strips.
    planar : whether every band lies in separate segments.
    samples : how many bands one segment holds.
    itemsize : bytes of one sample.
    offsets : uint64, (segments,): position of every segment in the file; 0 where GDAL left it out.
    counts : uint64, (segments,): bytes of every segment as stored; 0 where GDAL left it out.
    trimmed : bool, (segments,): where the file claims more bytes than there are before the next segment.
    """

    path: Path
    shape: tuple[int, int]
    segment: tuple[int, int]
    is_tiled: bool
    planar: bool
    samples: int
    itemsize: int
    offsets: NDArray[np.uint64]
    counts: NDArray[np.uint64]
    trimmed: NDArray[np.bool_]

    @property
    def across(self) -> int:
        """How many segments lie side by side."""
        return ceil_div(self.shape[1], self.segment[1])

    @property
    def per_plane(self) -> int:
        """How many segments one plane has; without separate planes, how many segments there are."""
        return self.across * ceil_div(self.shape[0], self.segment[0])

    @property
    def segment_bytes(self) -> int:
        """Bytes of one decoded segment."""
        return math.prod(self.segment) * self.samples * self.itemsize

    def rows(self, index: Any) -> Any:
        """How many rows of a segment lie inside the image; ``index`` is a number or an array.

        A file may store the rows below the image, or leave them out.
        """
        row = index % self.per_plane // self.across
        return np.minimum(self.segment[0], self.shape[0] - row * self.segment[0])

    def as_one(self) -> Layout:
        """The same strips as a single segment, which lies where the first strip does."""
        return replace(
            self,
            segment=(self.shape[0], self.segment[1]),
            offsets=self.offsets[:1],
            counts=self.counts[:1],
            trimmed=self.trimmed[:1],
        )

    @property
    def has_sparse(self) -> bool:
        """Whether some segments are not stored in the file."""
        return bool((self.counts == 0).any())

    def name(self, index: int) -> str:
        """The name of a segment for error messages."""
        row, column = divmod(index % self.per_plane, self.across)
        kind = "tile" if self.is_tiled else "strip"
        return f"{kind} {index} (at row {row * self.segment[0]}, column {column * self.segment[1]})"
