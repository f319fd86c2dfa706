"""Reading the samples of a TIFF file: the meaning of its bands, its palette, alpha, nodata and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import decoder_count
from urst_tiles.source import valid
from urst_tiles.source.bands import bands_said, choose_bands
from urst_tiles.source.channels import StackedPages, open_pages, stored_bands
from urst_tiles.source.colour import cmyk_to_rgb, grey_table, lab_to_rgb, lab_values
from urst_tiles.source.valid import Samples
from urst_tiles.source.vips import bilevel
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.decodable import LAB, Undecodable
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.georeference import NO_BANDS, PamBands
from urst_tiles.tiff.metadata import Validity
from urst_tiles.tiff.pages import Pages, TiffFile
from urst_tiles.tiff.plain import BLACK_IS_ZERO, CMYK, PALETTE, RGB, WHITE_IS_ZERO, YCBCR
from urst_tiles.tiff.segments import Segments
from urst_tiles.tiff.selection import Note, Selection, select

#: The least side of a cell of a tiled file in pixels: a call has a fixed cost, so it reads several small
#: tiles.
CELL = 256

#: A fax strip of more pixels than this is left to libvips, which unpacks a few rows at a time.
FAX_PIXELS = 64 << 20

#: How many bands of colour a photometric interpretation has, if more than one.
COLOURS = {RGB: 3, CMYK: 4}

#: Kinds of further bands (tag 338): unspecified, associated alpha, unassociated alpha, and Corel Draw's
#: alpha.
EXTRA_KINDS = {0, 1, 2, 999}


class TiffReader:
    """Reads samples of the image in a TIFF and of its overviews. Several threads may use it at the same time.

    Parameters
    ----------
    path : the file.
    choice : the page, and the channels or bands, that the user chose.
    pam : what GDAL's file beside it says about the bands.

    Attributes
    ----------
    path : the file.
    file : the open file.
    main : the directory of the image at full resolution; of its first channel where channels are pages.
    notes : what was chosen where the file left a choice.
    shape : (height, width) in pixels, as stored.
    dtype : dtype of the colours.
    colours : how many bands of colour are read.
    band_names : their names in the file, "" for one without; empty where the samples only stand for colours.
    nodata : the value that marks invalid pixels, or None.
    has_valid : whether the samples come with a weight; ``validity`` says how the file marks invalid pixels.
    levels : (height, width) of each overview, largest first.
    cell_shape : (height, width) of the cells that are cheap to read.
    is_tiled : whether boxes can be read at random.
    alone : whether neighbouring bands of rows share a large segment, and should be read one after another.

    Raises
    ------
    Undecodable : tifffile cannot decode the file; libvips may be able to.
    DamagedFile : a directory contradicts itself or the file.
    BadInput : the file does not have these bands, or its segments are too large to be decoded at once.
    """

    def __init__(self, path: Path, choice: Choice, pam: PamBands = NO_BANDS) -> None:
        file = TiffFile(path)
        selection = select(file, choice)
        pages = selection.pages
        self.path, self.file, self.main, self.shape = path, file, pages.main, pages.main.shape
        fax = bilevel if math.prod(pages.main.segment) <= FAX_PIXELS else None
        self._main = _decodable(open_pages(file, pages.mains, fax))
        self._mask = None if pages.mask is None else mask_page(file, pages.mask)
        self.notes = list(selection.notes)
        self._choose(pages.main, selection, pam)
        stored = self._main.dtype if self._main.dtype.kind != "b" else np.dtype(np.uint8)
        self.nodata = valid.nodata_value(pam.nodata or pages.main.text(42113), stored)
        marked = self._alpha is not None or self._mask is not None or self.nodata is not None
        self.has_valid = marked or stored.kind == "f" or _leaves_out(self._main)
        self._overviews = self._usable(pages)
        self.levels = tuple(page.shape for page, _ in self._overviews)
        self.is_tiled, self.alone = self._main.layout.is_tiled, self._main.keeps > 0
        height, width = self._main.layout.segment
        if self.is_tiled:
            height, width = ceil_div(CELL, height) * height, ceil_div(CELL, width) * width
        self.cell_shape = height, width

    def _choose(self, main: Directory, selection: Selection, pam: PamBands) -> None:
        """Decide which of the stored bands are colours and which is alpha, and how colours are decoded."""
        page, bands = self._main, selection.bands
        extra, named = (
            _extra(main, page),
            stored_bands(main, page.bands, page.photometric, selection.names, pam),
        )
        first = page.bands - len(extra)
        alphas = [first + i for i, kind in enumerate(extra) if kind in (1, 2)]
        alphas = alphas or [i for i, band in enumerate(named) if band.colour == "alpha"]
        self._alpha = alphas[0] if alphas else None
        self._associated = bool(alphas) and alphas[0] >= first and extra[alphas[0] - first] == 1
        colours = [band for band in range(page.bands) if band != self._alpha]
        self._palette = _palette(main) if page.photometric == PALETTE else None
        self._cmyk = page.photometric == CMYK and len(colours) >= 4
        self._top, self._inverted, self.dtype = 0, False, page.dtype
        self._lab = page.photometric if page.photometric in LAB and len(colours) >= 3 else None
        self._grey = None
        self.band_names: tuple[str, ...] = ()
        if page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and len(colours) == 1:
            self._grey = grey_table(main.raw(34675), page.dtype, page.bits)
        if self._palette is not None or self._grey is not None:
            self._stored, self._pick = colours[:1], choose_bands(self.path, bands, 3)
            self.dtype = np.dtype(np.uint8) if self._grey is None else self._grey.dtype
        elif self._lab is not None:
            self._stored, self._pick = colours[:3], choose_bands(self.path, bands, 3)
            self.dtype = np.dtype(np.uint8)
        elif self._cmyk:
            self._stored, self._pick = colours[:4], choose_bands(self.path, bands, 3)
            self.dtype = np.dtype(np.uint8 if page.dtype.itemsize == 1 else np.uint16)
        else:
            known = [named[band] for band in colours]
            self._pick = choose_bands(self.path, bands, known)
            if text := bands_said(known, self._pick):
                self.notes.append(Note(text, bands is None))
            self._stored = [colours[band] for band in self._pick]
            # GDAL escapes the texts of its XML twice.
            self.band_names = tuple(unescape(known[band].name or "") for band in self._pick)
        self._inverted = page.photometric == WHITE_IS_ZERO and page.dtype.kind in "bu"
        if page.photometric != PALETTE and page.dtype.kind in "bu":
            self._top = (1 << page.bits) - 1
            if page.bits < 8 and self._grey is None:
                self.dtype = np.dtype(np.uint8)
        self.colours = len(self._pick)

    def _usable(self, pages: Pages) -> list[tuple[Segments | StackedPages, Segments | None]]:
        """The overviews, with their masks, that are stored like the main page; others are ignored."""
        covers = iter(self.file.segments([mask for _, mask in pages.overviews if mask is not None], bilevel))
        made = [open_pages(self.file, directories, bilevel) for directories, _ in pages.overviews]
        usable: list[tuple[Segments | StackedPages, Segments | None]] = []
        for page, (_, mask) in zip(made, pages.overviews, strict=True):
            cover = None if mask is None else next(covers)
            if isinstance(page, Undecodable) or isinstance(cover, Undecodable):
                continue
            alike = page.dtype == self._main.dtype and page.bits == self._main.bits
            alike &= page.photometric == self._main.photometric or {
                page.photometric,
                self._main.photometric,
            } == {RGB, YCBCR}
            if (
                alike
                and (cover is not None) == (self._mask is not None)
                and page.bands == self._main.bands
                and (self.has_valid or not _leaves_out(page))
            ):
                usable.append((page, cover))
        return usable

    @property
    def validity(self) -> Validity:
        """How the file marks invalid pixels; if it does so in several ways, the finest of them."""
        if self._alpha is not None:
            return "alpha"
        if self._mask is not None:
            return "mask"
        return "nodata" if self.nodata is not None else "mask" if self.has_valid else "none"

    @property
    def reader_bytes(self) -> int:
        """Bytes of memory that reading takes at most, besides the arrays that are returned.

        For each thread these are a segment, encoded and decoded, and the samples of a cell, with floats if
        they are stretched by a formula instead of a table. In addition there are the segments that stay in
        memory, and the tables of offsets and sizes.
        """
        pages = [self._main, *(page for page, _ in self._overviews)]
        size = max(page.layout.segment_bytes for page in pages)
        kind = self._main.dtype
        wide = kind.itemsize > 2 or self._lab is not None
        pixel = len(self._stored) * kind.itemsize * 2 + 4 + (16 * self.colours if wide else 0)
        area = math.prod(self.cell_shape) if self.is_tiled else 0
        tables = sum(page.layout.offsets.nbytes + page.layout.counts.nbytes for page in pages)
        return (
            (1 if self.alone and not self.is_tiled else decoder_count()) * (2 * size + area * pixel)
            + self.kept_bytes
            + tables
        )

    @property
    def kept_bytes(self) -> int:
        """Bytes of decoded segments that stay in memory, at most."""
        pages = [self._main, *(page for page, _ in self._overviews)]
        return sum(page.keeps * page.layout.segment_bytes for page in pages)

    @property
    def into(self) -> Callable[[Box, int, NDArray[Any]], None] | None:
        """What reads a box of a level into an array (h, w, colours), of any strides, without an array in
        between; None where the stored samples are not the colours, or some may be invalid."""
        made = self._palette is not None or self._lab is not None or self._grey is not None or self._cmyk
        changed = made or self._inverted or 0 < self._top < 255 or self.has_valid
        pages = [self._main, *(page for page, _ in self._overviews)]
        whole = all(
            isinstance(page, Segments) and not page.layout.planar and page.dtype == self.dtype
            for page in pages
        )
        every = self._stored == list(range(self._main.bands))
        return self._read_into if whole and every and not changed else None

    def _read_into(self, box: Box, level: int, out: NDArray[Any]) -> None:
        page = self._main if level == 0 else self._overviews[level - 1][0]
        assert isinstance(page, Segments)
        page.read_into(box, out)

    def cell(self, box: Box, level: int = 0) -> Samples:
        page, mask = (self._main, self._mask) if level == 0 else self._overviews[level - 1]
        stored = self._stored if self._alpha is None else [*self._stored, self._alpha]
        raw, present = page.read(box, stored)
        if raw.dtype.kind == "b":
            raw = raw.view(np.uint8)
        colour = raw[..., : len(self._stored)]
        weight = self._weight(raw, colour, present, None if mask is None else mask_of(mask, box))
        return Samples(self._meaning(colour, weight), weight)

    def _weight(
        self,
        raw: NDArray[Any],
        colour: NDArray[Any],
        present: NDArray[np.bool_] | None,
        unmasked: NDArray[np.bool_] | None,
    ) -> NDArray[Any] | None:
        """The weight, (h, w), of pixels: alpha, nodata, NaN, tiles that are not stored and the mask together.

        ``present`` is False where the file stores no tile, ``unmasked`` where the mask says invalid; None
        stands for True everywhere.
        """
        out = valid.weight_dtype(self.dtype)
        weight = None if self._alpha is None else valid.alpha_weight(raw[..., -1], out, self._main.bits)
        if self.nodata is not None or colour.dtype.kind == "f":
            data = valid.has_data(colour, self.nodata)
            present = data if present is None else present & data
        if unmasked is not None:
            present = unmasked if present is None else present & unmasked
        weight = valid.combine(weight, present, out)
        if weight is None and self.has_valid:
            weight = np.full(colour.shape[:2], valid.full(out), out)
        return weight

    def _meaning(self, colour: NDArray[Any], weight: NDArray[Any] | None) -> NDArray[Any]:
        """The colours, (h, w, 1 or 3), that the stored samples stand for."""
        if self._palette is not None:
            return self._palette[np.minimum(colour[..., 0], len(self._palette) - 1)][..., self._pick]
        if self._lab is not None:
            lab = lab_values(colour, self._lab, self.main.array(433))
            return lab_to_rgb(lab)[..., self._pick]
        if self._inverted:
            colour = colour.dtype.type(self._top) - colour
        if 0 < self._top < 255:
            colour = _to_bytes(self._top)[colour]
        if self._associated and weight is not None:
            colour = valid.unpremultiply(colour, weight)
        if self._cmyk:
            return cmyk_to_rgb(self.path, colour, self.main.raw(34675) or None)[..., self._pick]
        if self._grey is not None:
            return self._grey[np.minimum(colour[..., 0], len(self._grey) - 1)][..., self._pick]
        return colour


def _leaves_out(page: Segments | StackedPages) -> bool:
    """Whether a page says of some pixels that they are invalid: by tiles that it does not store, or in the
    streams of its tiles."""
    return page.layout.has_sparse or page.marks_invalid


def _to_bytes(top: int) -> NDArray[np.uint8]:
    """For each value from 0 to ``top`` the one that it is in 0..255, uint8, (top + 1,)."""
    return np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)


def _extra(main: Directory, page: Segments | StackedPages) -> list[int]:
    """The kinds of the bands besides the colours (tag 338). Raises DamagedFile if they make no sense."""
    if page.stream_alpha:  # it is in no directory
        return [2]
    extra = [int(kind) for kind in main.array(338)]
    spare = page.bands - COLOURS.get(page.photometric, 1)
    counted = len(extra) == spare if page.photometric == RGB else 0 < len(extra) <= spare
    if spare < 0 or (338 in main.entries and not (counted and EXTRA_KINDS.issuperset(extra))):
        raise DamagedFile(
            f"{main.path}: of its {page.bands} band(s) {max(spare, 0)} can be no colour, but it tells of"
            f" {len(extra)}, of kinds {extra[:4]}; its directory is damaged"
        )
    return extra


def _decodable(page: Segments | StackedPages | Undecodable) -> Segments | StackedPages:
    """The page; raises the error if the page cannot be decoded."""
    if isinstance(page, Undecodable):
        raise page
    return page


def mask_page(file: TiffFile, directory: Directory) -> Segments:
    """A page of a TIFF, to be read as a mask.

    Raises
    ------
    DamagedFile : the page cannot be decoded.
    """
    (page,) = file.segments([directory], bilevel)
    if isinstance(page, Undecodable):
        raise DamagedFile(
            f"{file.path}: its mask cannot be read ({page}), and without it invalid pixels would count as "
            "valid; rewrite the mask with GDAL, or remove it"
        )
    return page


def mask_of(mask: Segments, box: Box) -> NDArray[np.bool_]:
    """The pixels of a box that a mask page marks as valid; bool, (h, w).

    The page has 1 bit, or 8 bits with the values 0 and 255. Pixels of a tile that is not stored are invalid.
    """
    raw, present = mask.read(box, [0])
    marked = raw[..., 0] != 0
    return marked if present is None else marked & present


def _palette(main: Directory) -> NDArray[np.uint8]:
    """The palette, uint8, (entries, 3).

    Its values have 16 bits; some writers leave 8-bit values, which are recognised by the test that libtiff
    uses: none is above 255. Raises DamagedFile if the file has no palette.
    """
    table = main.array(320)
    if table.size < 3 or table.size % 3:
        raise DamagedFile(f"{main.path}: a palette image without a palette; the file is damaged")
    colours = table.astype(np.uint16).reshape(3, -1).T
    return (colours >> 8 if (colours > 255).any() else colours).astype(np.uint8)
