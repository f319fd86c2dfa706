"""Pages of one sample each that are read as the bands of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source.bands import Band, gdal_bands, pam_bands, plabands_of
from urst_tiles.tiff.choice import Names
from urst_tiles.tiff.decodable import Undecodable
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.georeference import NO_BANDS, PamBands
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.plain import RGB, YCBCR
from urst_tiles.tiff.segments import DecodeTiff, Segments

#: How many bands a TIFF can have at most: their number is one of 16 bits.
MOST_BANDS = (1 << 16) - 1


@dataclass(frozen=True)
class StackLayout:
    """How several pages lie in the file; the attributes are those of `urst_tiles.tiff.layout.Layout` that
    readers ask for."""

    segment: tuple[int, int]
    is_tiled: bool
    has_sparse: bool
    segment_bytes: int
    offsets: NDArray[Any]
    counts: NDArray[Any]


class StackedPages:
    """Pages of the same size and data type, of one sample each, read as the bands of one image.

    It has those attributes and methods of `Segments` that a reader uses, and several threads may use it.

    Parameters
    ----------
    pages : the pages, one for each band.

    Raises
    ------
    BadInput : the pages differ in size, data type or meaning, or have several samples.
    """

    stream_alpha = False

    def __init__(self, pages: Sequence[Segments]) -> None:
        first = pages[0]
        for page in pages:
            if page.bands != 1 or _nature(page) != _nature(first):
                raise BadInput(
                    f"{first.path}: its channels differ in size, data type or photometric interpretation, and"
                    " cannot be read as one picture; choose one of them with --page"
                )
        self._pages = tuple(pages)
        self.path, self.shape, self.bands = first.path, first.shape, len(pages)
        self.dtype, self.bits = first.dtype, first.bits
        self.photometric, self.compression = first.photometric, first.compression
        self.marks_invalid = any(page.marks_invalid for page in pages)
        self.keeps = max(page.keeps for page in pages) and sum(page.keeps for page in pages)
        layouts = [page.layout for page in pages]
        self.layout = StackLayout(
            segment=(max(one.segment[0] for one in layouts), max(one.segment[1] for one in layouts)),
            is_tiled=all(one.is_tiled for one in layouts),
            has_sparse=any(one.has_sparse for one in layouts),
            segment_bytes=max(one.segment_bytes for one in layouts),
            offsets=np.concatenate([one.offsets for one in layouts]),
            counts=np.concatenate([one.counts for one in layouts]),
        )

    def read(self, box: Box, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a box, as `Segments.read`: (h, w, len(bands)), and where anything is stored."""
        out = np.empty((*box.shape, len(bands)), self.dtype)
        there: NDArray[np.bool_] | None = np.zeros(box.shape, bool)
        for k, band in enumerate(bands):
            part, stored = self._pages[band].read(box, [0])
            out[..., k] = part[..., 0]
            there = None if stored is None or there is None else there | stored
        return out, there


def _nature(page: Segments) -> tuple[object, ...]:
    """What the pages of an image must have in common."""
    return page.shape, page.dtype, page.bits, page.photometric


def open_pages(
    file: TiffFile, directories: Sequence[Directory], fax: DecodeTiff | None = None
) -> Segments | StackedPages | Undecodable:
    """One page, or several as the bands of one image, ready to be read; or why one cannot be decoded.

    ``fax`` decodes fax compressions, as for `TiffFile.segments`.

    Raises
    ------
    DamagedFile, BadInput : as `TiffFile.segments` and `StackedPages`.
    """
    made = file.segments(directories, fax)
    pages = [page for page in made if not isinstance(page, Undecodable)]
    if len(pages) < len(made):
        return next(page for page in made if isinstance(page, Undecodable))
    return pages[0] if len(pages) == 1 else StackedPages(pages)


def stored_bands(
    main: Directory, count: int, photometric: int, names: Sequence[Names] = (), pam: PamBands = NO_BANDS
) -> list[Band]:
    """What is told of each band of a page.

    Parameters
    ----------
    main : the directory of the page.
    count, photometric : how many bands are read of it, and their photometric interpretation (TIFF tag 262).
    names : the names of the bands that the file keeps elsewhere; empty for none.
    pam : what GDAL's file beside it says.

    Raises
    ------
    DamagedFile : there are more bands than a TIFF can have, whose number (tag 277) has 16 bits.
    """
    if count > MOST_BANDS:
        raise DamagedFile(
            f"{main.path}: a pixel would have {count} bands, more than a TIFF can have; it is damaged"
        )
    bands = plabands_of(count, photometric in (RGB, YCBCR))
    if len(names) == len(bands):
        bands = [replace(band, name=told.name) for band, told in zip(bands, names, strict=True)]
    kinds = [int(kind) for kind in main.array(338)]
    for number, kind in zip(range(count - len(kinds), count), kinds, strict=True):
        if kind in (1, 2) and number >= 0:
            bands[number] = replace(bands[number], colour="alpha")
    return pam_bands(gdal_bands(bands, main.text(42112)), pam)
