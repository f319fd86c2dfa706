"""Where the tiles or strips of a TIFF page lie, checked against the file before any of them is read.

Tiles and strips together are called segments.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import ceil_div
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.lattice import Layout
from urst_tiles.tiff.tables import mended, read_tables

#: A tile or strip that takes more than this when decoded is refused before it is read.
MOST_BYTES = 1 << 30

#: Uncompressed strips that are larger than this are read in pieces of at most this size.
PIECE_BYTES = 4 << 20


def read_layout(
    directory: Directory, size: int, dtype: np.dtype[Any], pixel_bits: int = 0, plain: bool = False
) -> Layout:
    """Read where the segments of a page lie, and check it.

    Parameters
    ----------
    directory : the page's directory.
    size : length of the file in bytes.
    dtype : of the decoded samples.
    pixel_bits : bits of a sample as stored where the page is not compressed, else 0.
    plain : whether samples are stored uncompressed, in whole bytes, so that strips can be cut anywhere.

    Raises
    ------
    DamagedFile : the tables of offsets and sizes do not describe this file.
    BadInput : segments are too large to be decoded at once.
    """
    height, width = directory.shape
    bands = directory.bands
    planes = directory.number(284, 1)
    if planes not in (1, 2):
        raise DamagedFile(
            f"{directory.path}: bands are side by side (1) or apart (2), not {planes}; it is damaged"
        )
    planar = planes == 2 and bands > 1
    is_tiled, segment = directory.is_tiled, directory.segment
    if min(segment) < 1:
        raise DamagedFile(
            f"{directory.path}: its tiles are {segment[1]} x {segment[0]} pixels; the file is damaged"
        )
    down = ceil_div(height, segment[0])
    need = ceil_div(width, segment[1]) * down * (bands if planar else 1)
    offsets, counts = read_tables(directory, need, down - 1 if is_tiled else None)
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
        trimmed=np.zeros(offsets.size, bool),
    )
    row_bytes = ceil_div(segment[1] * layout.samples * pixel_bits, 8)
    counts, trimmed = mended(layout, directory, size, row_bytes)
    layout = replace(layout, counts=counts, trimmed=trimmed)
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
    offsets, counts, trimmed = [], [], []
    for plane in range(planes):
        at = strip + plane * layout.per_plane
        there = layout.counts[at] > 0
        offsets.append(np.where(there, layout.offsets[at] + (inside * row_bytes).astype(np.uint64), 0))
        counts.append(np.where(there, sizes, 0))
        trimmed.append(layout.trimmed[at])
    return replace(
        layout,
        segment=(piece, layout.segment[1]),
        offsets=np.concatenate(offsets).astype(np.uint64),
        counts=np.concatenate(counts).astype(np.uint64),
        trimmed=np.concatenate(trimmed),
    )
