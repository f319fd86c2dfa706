"""Where the tiles or strips of a TIFF page lie, checked against the file before any of them is read.

Tiles and strips together are called segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import ceil_div
from urst_tiles.tiff.directory import Directory

#: A tile or strip that takes more than this when decoded is refused before it is read.
MOST_BYTES = 1 << 30

#: A tile or strip whose stored bytes are more than this many times its decoded bytes, and ``EXTRA_BYTES``
#: more, holds something else: no compression makes pixels so much longer.
LONGER, EXTRA_BYTES = 4, 16 << 20

#: Up to so many bytes may follow the samples of an uncompressed segment: some writers fill up a word.
PADDING_BYTES = 3

#: Uncompressed strips that are larger than this are read in pieces of at most this size.
PIECE_BYTES = 4 << 20


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
        height = self.shape[0]
        return replace(
            self, segment=(height, self.segment[1]), offsets=self.offsets[:1], counts=self.counts[:1]
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


def read_layout(directory: Directory, size: int, dtype: np.dtype[Any], plain: bool) -> Layout:
    """Read where the segments of a page lie, and check it.

    Parameters
    ----------
    directory : the page's directory.
    size : length of the file in bytes.
    dtype : of the decoded samples.
    plain : whether samples are stored uncompressed, in whole bytes.

    Raises
    ------
    DamagedFile : the tables of offsets and sizes do not describe this file.
    BadInput : segments are too large to be decoded at once.
    """
    height, width = directory.shape
    bands = directory.number(277, 1)
    is_tiled = 322 in directory.entries
    planes = directory.number(284, 1)
    if planes not in (1, 2):
        raise DamagedFile(
            f"{directory.path}: bands are side by side (1) or apart (2), not {planes}; it is damaged"
        )
    planar = planes == 2 and bands > 1
    rows = min(directory.number(278, height) or height, height)
    segment = (directory.number(323), directory.number(322)) if is_tiled else (rows, width)
    if min(segment) < 1:
        raise DamagedFile(
            f"{directory.path}: its tiles are {segment[1]} x {segment[0]} pixels; the file is damaged"
        )
    need = ceil_div(width, segment[1]) * ceil_div(height, segment[0]) * (bands if planar else 1)
    offsets, counts = _tables(directory, size, need, height * width * bands * dtype.itemsize if plain else 0)
    layout = Layout(
        path=directory.path,
        shape=directory.shape,
        segment=segment,
        is_tiled=is_tiled,
        planar=planar,
        samples=1 if planar else bands,
        itemsize=dtype.itemsize,
        offsets=offsets,
        counts=counts,
    )
    _check_inside(layout, size)
    _check_lengths(layout)
    _check_apart(layout, directory)
    if plain:
        _check_sizes(layout)
    if plain and not is_tiled and layout.segment_bytes > PIECE_BYTES:
        layout = _in_pieces(layout)
    if layout.segment_bytes > MOST_BYTES:
        raise BadInput(
            f"{directory.path}: one {'tile' if is_tiled else 'strip'} of it is {segment[1]} x {segment[0]} "
            f"pixels and would take {layout.segment_bytes / 1e9:.1f} GB at once (limit "
            f"{MOST_BYTES / 1e9:.1f} GB); rewrite it with tiles, for example: "
            "gdal_translate -co TILED=YES -co BIGTIFF=YES IN OUT"
        )
    return layout


def _tables(
    directory: Directory, size: int, need: int, plain_bytes: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Offsets and sizes of ``need`` segments.

    ``plain_bytes`` is the size of the whole picture where its samples are stored uncompressed, else 0.
    """
    listed = [directory.entries[code].count for code in directory.table_codes if code in directory.entries]
    if max(listed, default=0) > max(need, 1):  # found out before the tables are read
        listed += [0] * (2 - len(listed))
        raise DamagedFile(_wrong_tables(directory, need, *listed))
    offsets, counts = directory.segment_tables
    if not counts.size and plain_bytes and offsets.size == 1:
        # TIFF 6.0 requires the sizes, but old writers of a single strip left them out.
        counts = np.array([min(plain_bytes, max(1, size - int(offsets[0])))], np.uint64)
    if not offsets.size == counts.size == need:
        raise DamagedFile(_wrong_tables(directory, need, offsets.size, counts.size))
    return offsets, counts


def _wrong_tables(directory: Directory, need: int, offsets: int, counts: int) -> str:
    return (
        f"{directory.path}: the image needs {need} tiles or strips, but its tables list {offsets} places and "
        f"{counts} sizes; the file is damaged"
    )


def _check_inside(layout: Layout, size: int) -> None:
    """Raises DamagedFile unless every segment lies inside the file."""
    offsets, counts = layout.offsets, layout.counts
    # Each alone first: their sum could wrap around.
    wrong = (offsets > size) | (counts > size) | (offsets + counts > size) | ((offsets == 0) & (counts > 0))
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} should lie at bytes {offsets[i]} to "
            f"{int(offsets[i]) + int(counts[i])}, but the file has {size}; it is cut off or damaged"
        )


def _check_lengths(layout: Layout) -> None:
    """Raises DamagedFile where a segment has far more bytes than its pixels can need."""
    most = LONGER * layout.segment_bytes + EXTRA_BYTES
    wrong = np.flatnonzero(layout.counts > most)
    if wrong.size:
        i = int(wrong[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} has {layout.counts[i]} bytes, and its pixels take "
            f"{layout.segment_bytes} when they are decoded; the file is damaged"
        )


def _check_apart(layout: Layout, directory: Directory) -> None:
    """Raises DamagedFile where a segment shares bytes with another segment or with the directory.

    Several segments may lie at exactly the same bytes: some writers store equal empty segments only once.
    """
    there = np.flatnonzero(layout.counts)
    order = there[np.lexsort((layout.counts[there], layout.offsets[there]))]
    starts, counts = layout.offsets[order], layout.counts[order]
    ends = starts + counts
    again = (starts[1:] == starts[:-1]) & (counts[1:] == counts[:-1])
    clashes = order[1:][(starts[1:] < ends[:-1]) & ~again].tolist()
    for start, end in directory.spans:
        last = int(np.searchsorted(starts, end)) - 1
        if last >= 0 and ends[last] > start:
            clashes.append(int(order[last]))
    if clashes:
        raise DamagedFile(
            f"{layout.path}: {layout.name(clashes[0])} should lie where something else lies; its tables of "
            "places and sizes are damaged, get a new copy of it"
        )


def _check_sizes(layout: Layout) -> None:
    """Raises DamagedFile where an uncompressed segment has another size than its pixels need."""
    counts = layout.counts.astype(np.int64)
    need = layout.rows(np.arange(counts.size)) * (layout.segment_bytes // layout.segment[0])
    fits = (counts >= need) & (counts <= need + PADDING_BYTES) | (counts == layout.segment_bytes)
    wrong = np.flatnonzero(~fits & (counts > 0))
    if wrong.size:
        i = int(wrong[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} has {counts[i]} bytes, and its pixels take {need[i]}; the file"
            " is damaged"
        )


def _in_pieces(layout: Layout) -> Layout:
    """The same strips, cut into pieces of whole rows that all have the same height."""
    height = layout.shape[0]
    rows, row_bytes = layout.segment[0], layout.segment_bytes // layout.segment[0]
    most = max(1, PIECE_BYTES // row_bytes)
    piece = most if rows >= height else max(d for d in range(1, min(most, rows) + 1) if rows % d == 0)
    planes = layout.offsets.size // layout.per_plane
    starts = np.arange(0, height, piece, dtype=np.int64)
    strip, inside = starts // rows, starts % rows
    sizes = np.minimum(piece, np.minimum(rows - inside, height - starts)) * row_bytes
    offsets, counts = [], []
    for plane in range(planes):
        at = strip + plane * layout.per_plane
        there = layout.counts[at] > 0
        offsets.append(np.where(there, layout.offsets[at] + (inside * row_bytes).astype(np.uint64), 0))
        counts.append(np.where(there, sizes, 0))
    return Layout(
        path=layout.path,
        shape=layout.shape,
        segment=(piece, layout.segment[1]),
        is_tiled=False,
        planar=layout.planar,
        samples=layout.samples,
        itemsize=layout.itemsize,
        offsets=np.concatenate(offsets).astype(np.uint64),
        counts=np.concatenate(counts).astype(np.uint64),
    )
