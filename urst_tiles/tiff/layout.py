"""Where a TIFF page's tiles or strips lie, checked against the file before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import ceil_div
from urst_tiles.tiff.directory import Directory

#: One tile or strip may take this much decoded; a bigger one is refused before it is read.
MOST_BYTES = 1 << 30

#: Samples that are stored as they are may be followed by so many bytes that fill up a word.
PADDING_BYTES = 3

#: Strips that are stored as they are need not be read whole: larger ones are cut into such pieces.
PIECE_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Layout:
    """The lattice of segments of one page.

    Attributes
    ----------
    path : of the file.
    shape : (height, width) of the page.
    segment : (height, width) of a tile or strip.
    is_tiled, planar : tiles, not strips; every band in segments of its own.
    samples : bands in one segment.
    offsets, counts : uint64, first byte and size of every segment; both 0 where GDAL left it out.
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
        """Segments side by side."""
        return ceil_div(self.shape[1], self.segment[1])

    @property
    def per_plane(self) -> int:
        """Segments of one plane."""
        return self.across * ceil_div(self.shape[0], self.segment[0])

    @property
    def segment_bytes(self) -> int:
        """Size of one decoded segment."""
        return math.prod(self.segment) * self.samples * self.itemsize

    def rows(self, index: Any) -> Any:
        """Rows of a segment (or of an array of them) inside the image; the rest may be stored or left out."""
        row = index % self.per_plane // self.across
        return np.minimum(self.segment[0], self.shape[0] - row * self.segment[0])

    @property
    def has_sparse(self) -> bool:
        """Whether some segments are absent."""
        return bool((self.counts == 0).any())

    def name(self, index: int) -> str:
        """A segment as a sentence names it."""
        row, column = divmod(index % self.per_plane, self.across)
        kind = "tile" if self.is_tiled else "strip"
        return f"{kind} {index} (at row {row * self.segment[0]}, column {column * self.segment[1]})"


def read_layout(directory: Directory, size: int, dtype: np.dtype[Any], plain: bool) -> Layout:
    """The lattice of a page in a file of ``size`` bytes; ``plain`` says that samples are stored as they are.

    Raises
    ------
    DamagedFile : the tables do not describe this file.
    BadInput : segments too large to decode at once.
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
    """First bytes and sizes of ``need`` segments; ``plain_bytes``: of a picture stored as it is, else 0."""
    offsets, counts = directory.segment_tables
    if not counts.size and plain_bytes and offsets.size == 1:
        # TIFF 6.0 requires the sizes, but old writers of a single strip left them out.
        counts = np.array([min(plain_bytes, max(1, size - int(offsets[0])))], np.uint64)
    if not offsets.size == counts.size == need:
        raise DamagedFile(
            f"{directory.path}: the image needs {need} tiles or strips, but its tables list {offsets.size} "
            f"places and {counts.size} sizes; the file is damaged"
        )
    return offsets, counts


def _check_inside(layout: Layout, size: int) -> None:
    """Every segment lies inside the file."""
    offsets, counts = layout.offsets, layout.counts
    # Each alone first: their sum could wrap around.
    wrong = (offsets > size) | (counts > size) | (offsets + counts > size) | ((offsets == 0) & (counts > 0))
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} should lie at bytes {offsets[i]} to "
            f"{int(offsets[i]) + int(counts[i])}, but the file has {size}; it is cut off or damaged"
        )


def _check_apart(layout: Layout, directory: Directory) -> None:
    """No segment shares bytes with another, nor with the directory; but the same bytes may serve several
    segments, as some writers store empty ones once."""
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
    """Samples stored as they are take so many bytes, or the directory describes another picture."""
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
    """The same strips cut into pieces of whole rows, all of one height."""
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
