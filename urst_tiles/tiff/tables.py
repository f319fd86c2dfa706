"""The tables of a page: where its tiles and strips (segments) lie, and how many bytes each has.

Many writers get the sizes wrong, and readers put up with it, since the sizes follow from other things: an
uncompressed segment has as many bytes as its pixels take, and a compressed one ends by itself, at the latest
where the next thing in the file begins. What is mended here:

- sizes that are missing, or 0 beside a place in the file, are taken from the pixels or from what lies behind;
- an uncompressed segment with bytes to spare, or the only one with too small a size, has the size of its
  pixels;
- sizes that reach into the next segment end there, where so many do that the sizes must be wrong, and not
  the places;
- tables may be longer than the picture needs.

A segment of size 0 at place 0 is not stored in the file. A place of 0 with a size is damage.

References: ``EstimateStripByteCounts`` and ``TIFFFetchStripThing`` in libtiff's tif_dirread.c; "Sparse files"
of GDAL's GeoTIFF driver.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.lattice import Layout

#: A tile or strip whose stored bytes are more than this many times its decoded bytes, and ``EXTRA_BYTES``
#: more, holds something else: no compression makes pixels so much longer.
LONGER, EXTRA_BYTES = 4, 16 << 20

#: An uncompressed segment may have so many bytes to spare, or as many as its pixels take.
SPARE_BYTES = 4096

#: Of a compressed segment whose size nobody tells, at most twice its decoded bytes and so many more are read.
MORE_BYTES = 1 << 16

#: The last byte that a file can have.
LAST = (1 << 64) - 1

Table = NDArray[np.uint64]


def read_tables(directory: Directory, need: int, spare: int | None) -> tuple[Table, Table]:
    """Offsets and sizes of the ``need`` segments of a page, uint64, (need,); sizes of 0 where there are none.

    ``spare`` is how many more a table may list, any number with None: strips too many are no reason to doubt
    the others, but of tiles there would be one too many in every row if the width were damaged.

    Raises
    ------
    DamagedFile : the tables list too few segments, or too many.
    """
    places, sizes = directory.table_codes
    listed = {code: directory.entries[code].count for code in (places, sizes) if code in directory.entries}
    most = max(listed.values(), default=0)
    fits = most <= need + spare if spare is not None else True
    if not fits or listed.get(places, 0) < need or listed.get(sizes, need) < need:
        raise DamagedFile(
            f"{directory.path}: the image needs {need} tiles or strips, but its tables list "
            f"{listed.get(places, 0)} places and {listed.get(sizes, 0)} sizes; the file is damaged"
        )
    counts = directory.whole_numbers(sizes, need)
    return directory.whole_numbers(places, need), counts if sizes in listed else np.zeros(need, np.uint64)


def mended(
    layout: Layout, directory: Directory, size: int, row_bytes: int
) -> tuple[Table, NDArray[np.bool_]]:
    """The true sizes of the segments, and which of them the file had told too large.

    Parameters
    ----------
    layout : the segments with the sizes that the file tells.
    directory : the page's directory.
    size : length of the file in bytes.
    row_bytes : bytes of a row of a segment where the page is not compressed, else 0.

    Raises
    ------
    DamagedFile : a segment does not lie in the file, is too short or too long for its pixels, or lies where
        another segment or the directory lies.
    """
    counts = layout.counts.copy()
    if row_bytes:
        counts = _as_pixels_need(layout, size, row_bytes)
    elif ((counts == 0) & (layout.offsets > 0)).any():
        counts = _up_to_the_next(layout, directory, size)
    _check_inside(layout, counts, size)
    _check_lengths(layout, counts)
    return _apart(layout, directory, counts, bool(row_bytes))


def _as_pixels_need(layout: Layout, size: int, row_bytes: int) -> Table:
    """The sizes of uncompressed segments.

    Raises DamagedFile where a segment is too short, or has so many bytes to spare that its pixels must be
    others than the directory says.
    """
    told, there = layout.counts.astype(np.float64), layout.offsets > 0
    whole = np.full(told.size, layout.segment[0] * row_bytes, np.int64)
    inside = layout.rows(np.arange(told.size)) * row_bytes
    room = size - layout.offsets.astype(np.float64)
    ends = np.where(told > 0, np.minimum(told, room), room) if layout.is_tiled else np.zeros(told.size)
    need = np.where(ends >= whole, whole, inside)
    wrong = there & (told > 0) & (told < inside) if told.size > 1 else np.zeros(told.size, bool)
    longer = there & (told > need) & (told != whole) & ((told <= room) | (told.size > 1))
    spare = np.where(longer, told - need, 0)
    wrong |= spare > np.maximum(need, SPARE_BYTES)
    if (spare > 0).any() and _fits_other_pixels(layout, told[spare > 0], inside[spare > 0] // row_bytes):
        wrong |= spare > 0
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} has {layout.counts[i]} bytes, and its pixels take {inside[i]}; "
            "the file is damaged"
        )
    return np.where(there, need, layout.counts.astype(np.int64)).astype(np.uint64)


def _fits_other_pixels(layout: Layout, sizes: NDArray[Any], rows: NDArray[Any]) -> bool:
    """Whether all these sizes, of segments of so many rows, fit pixels with another number of bits."""
    across = layout.segment[1]
    bits = sizes // rows * 8 // across
    fits = rows * -(-across * bits // 8) == sizes
    return bool((fits & (rows > 1)).all() and sizes.size > 1)


def _up_to_the_next(layout: Layout, directory: Directory, size: int) -> Table:
    """The sizes of compressed segments; one that has a place and no size ends where the next thing begins."""
    offsets, counts = layout.offsets, layout.counts.copy()
    lost = (counts == 0) & (offsets > 0) & (offsets <= size)
    starts = np.array([start for start, _ in directory.spans], np.uint64)
    marks = np.unique(np.concatenate([offsets[offsets > 0], starts, np.array([size], np.uint64)]))
    following = marks[np.minimum(np.searchsorted(marks, offsets[lost], side="right"), marks.size - 1)]
    room = np.maximum(following, offsets[lost]) - offsets[lost]
    counts[lost] = np.minimum(room, np.uint64(2 * layout.segment_bytes + MORE_BYTES))
    return counts


def _check_inside(layout: Layout, counts: Table, size: int) -> None:
    """Raises DamagedFile unless every segment lies inside the file."""
    offsets = layout.offsets
    # Each alone first: their sum could wrap around.
    wrong = (offsets > size) | (counts > size) | (offsets + counts > size) | ((offsets == 0) & (counts > 0))
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} should lie at bytes {offsets[i]} to "
            f"{int(offsets[i]) + int(counts[i])}, but the file has {size}; it is cut off or damaged"
        )


def _check_lengths(layout: Layout, counts: Table) -> None:
    """Raises DamagedFile where a segment has far more bytes than its pixels can need."""
    wrong = np.flatnonzero(counts > LONGER * layout.segment_bytes + EXTRA_BYTES)
    if wrong.size:
        i = int(wrong[0])
        raise DamagedFile(
            f"{layout.path}: {layout.name(i)} has {counts[i]} bytes, and its pixels take "
            f"{layout.segment_bytes} when they are decoded; the file is damaged"
        )


def _apart(
    layout: Layout, directory: Directory, counts: Table, exact: bool
) -> tuple[Table, NDArray[np.bool_]]:
    """The sizes, cut so that no segment shares bytes with another one, and where they were cut.

    Several segments may lie at exactly the same bytes: some writers store equal empty segments only once.
    ``exact`` says that the sizes are beyond doubt.

    Raises
    ------
    DamagedFile : a segment begins in the directory or in another one, and its place must be wrong.
    """
    trimmed = np.zeros(counts.size, bool)
    there = np.flatnonzero(counts)
    order = there[np.lexsort((counts[there], layout.offsets[there]))]
    starts, sizes = layout.offsets[order], counts[order]
    wrong = [*order[1:][(starts[1:] == starts[:-1]) & (sizes[1:] != sizes[:-1])].tolist()]
    spans = [(start, min(end, LAST)) for start, end in directory.spans]
    begin, end = np.array(spans, np.uint64).T
    first = np.searchsorted(starts, begin)
    wrong += order[first[np.searchsorted(starts, end) > first]].tolist()
    marks = np.unique(np.concatenate([starts, begin]))
    at = np.minimum(np.searchsorted(marks, starts, side="right"), marks.size - 1)
    room = np.where(marks[at] > starts, marks[at] - starts, sizes)
    over = order[sizes > room]
    if over.size and not exact and 2 * over.size >= max(2, order.size - 1):
        trimmed[over], counts = True, counts.copy()
        counts[over] = room[sizes > room]
    else:
        wrong += over[:1].tolist()
    if wrong:
        raise DamagedFile(misplaced(layout, wrong[0]))
    return counts, trimmed


def misplaced(layout: Layout, index: int) -> str:
    """The sentence about a segment that lies where something else lies."""
    return (
        f"{layout.path}: {layout.name(index)} should lie where something else lies; its tables of places and "
        "sizes are damaged, get a new copy of it"
    )
