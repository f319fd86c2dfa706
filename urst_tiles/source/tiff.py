"""A TIFF file as pixels: its main page, its overviews, its masks, its palette, its alpha, its nodata.

Pages are read by ``Segments``; what they mean is decided here. GDAL's conventions hold: a page with NewSubfileType 4 is the
mask of the main page, 5 the mask of an overview, 1 an overview (GDAL's GeoTIFF driver, "Internal nodata masks").
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.metadata import Validity
from urst_tiles.source import valid
from urst_tiles.source.directory import Directory, Pread, preader, read_directories
from urst_tiles.source.pool import THREADS
from urst_tiles.source.segments import Segments, Undecodable
from urst_tiles.source.valid import Samples

#: Cells are at least so large, so that small tiles do not drown in calls.
CELL = 256


class TiffFile:
    """An open TIFF: descriptor, directories, and pages made on demand. Closed when forgotten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self.descriptor)
        self.size = os.fstat(self.descriptor).st_size
        self.pread: Pread = preader(self.descriptor)
        self.directories = read_directories(path, self.pread, self.size)

    def segments(self, directories: Sequence[Directory]) -> list[Segments]:
        """The pages of these directories; raises Undecodable, DamagedFile or BadInput."""
        try:
            with tifffile.TiffFile(self.path) as tiff:
                pages = [_page(tiff, directory) for directory in directories]
                return [
                    Segments(self.path, self.pread, self.size, d, p)
                    for d, p in zip(directories, pages, strict=True)
                ]
        except (Undecodable, DamagedFile, BadInput, MemoryError):
            raise
        except Exception as error:
            raise DamagedFile(
                f"{self.path}: its TIFF directory makes no sense ({error}); the file is damaged"
            ) from error


def _page(tiff: tifffile.TiffFile, directory: Directory) -> tifffile.TiffPage:
    tiff.filehandle.seek(directory.offset)
    return tifffile.TiffPage(tiff, index=0)


@dataclass(frozen=True)
class Pages:
    """Which directories are the image, its overviews (largest first), and their masks (None where there is none)."""

    main: Directory
    mask: Directory | None
    overviews: tuple[tuple[Directory, Directory | None], ...]


def find_pages(directories: Sequence[Directory]) -> Pages:
    """Sort a file's directories; pages that are neither the first image nor belong to it are left alone."""
    images = [d for d in directories if not d.subfile & 4 and min(d.shape) > 0]
    if not images:
        raise DamagedFile(f"{directories[0].path}: no page of this TIFF has a size; the file is damaged")
    main = next((d for d in images if not d.subfile & 1), images[0])
    masks = {d.shape: d for d in reversed(directories) if d.subfile & 4}
    aperio = (main.text(270) or "").startswith("Aperio")
    overviews = [
        d
        for d in images
        if d is not main and (d.subfile & 1 or aperio and 322 in d.entries) and _same_view(main.shape, d.shape)
        and d.number(277, 1) == main.number(277, 1)
    ]  # fmt: skip
    overviews.sort(key=lambda d: d.shape, reverse=True)
    found = {d.shape: d for d in reversed(overviews)}
    return Pages(
        main, masks.get(main.shape), tuple((found[s], masks.get(s)) for s in sorted(found, reverse=True))
    )


def _same_view(full: tuple[int, int], small: tuple[int, int]) -> bool:
    """Whether ``small`` is ``full`` made smaller, its sides rounded up or down."""
    (h, w), (y, x) = full, small
    return y < h and x < w and abs(y * w - x * h) <= max(h, w) * 1.5


class TiffReader:
    """Samples of a TIFF's image and overviews.

    Attributes
    ----------
    shape : (height, width) as stored.
    dtype : of colour; ``colours`` of them (1 or 3).
    has_valid : whether a weight comes along.
    validity : how the file tells what is valid.
    levels : shapes of the overviews, largest first.
    """

    def __init__(self, path: Path, bands: Sequence[int] | None) -> None:
        file = TiffFile(path)
        pages = find_pages(file.directories)
        main = pages.main
        self._file, self.path, self.main = file, path, main
        self._main = file.segments([main])[0]
        self._overviews = _usable(file, pages, self._main)
        self._mask = file.segments([pages.mask])[0] if pages.mask else None
        self.shape = main.shape
        self.levels = tuple(page.shape for page, _ in self._overviews)
        self._choose(main, bands)
        self.nodata = valid.nodata_value(main.text(42113), self._main.dtype)
        self.has_valid = (
            self._alpha is not None or self._mask is not None or self.nodata is not None
            or self.dtype.kind == "f" or self._main.has_sparse
        )  # fmt: skip
        self.is_tiled = self._main.is_tiled
        self.alone = self._main.kept_bytes > 0
        step = self._main.segment
        self.cell_shape = tuple(ceil_div(CELL, s) * s for s in step) if self.is_tiled else step

    def _choose(self, main: Directory, bands: Sequence[int] | None) -> None:
        """Decide which stored bands are colour and which is alpha."""
        page = self._main
        extra = main.array(338).astype(int).tolist()[: page.bands]
        first_extra = page.bands - len(extra)
        alphas = [first_extra + i for i, kind in enumerate(extra) if kind in (1, 2)]
        self._alpha = alphas[0] if alphas else None
        self._associated = bool(alphas) and extra[alphas[0] - first_extra] == 1
        colours = [b for b in range(page.bands) if b != self._alpha]
        self._palette = _palette(main) if page.photometric == 3 else None
        self._cmyk = page.photometric == 5 and len(colours) >= 4
        if self._palette is not None or self._cmyk:
            self._stored = colours[:4] if self._cmyk else colours[:1]
            self._pick = choose_bands(self.path, bands, 3)
            self.dtype, self.colours = np.dtype(np.uint8), 3
            if self._cmyk and page.dtype.itemsize > 1:
                self.dtype = np.dtype(np.uint16)
            return
        picked = choose_bands(self.path, bands, len(colours))
        self._stored, self._pick = [colours[b] for b in picked], None
        self.dtype, self.colours = page.dtype if page.dtype.kind != "b" else np.dtype(np.uint8), len(picked)
        self._scale = 255 // ((1 << page.bits) - 1) if page.bits < 8 and page.dtype.kind in "ub" else 1
        self._inverted = page.photometric == 0 and page.dtype.kind in "ub"

    @property
    def validity(self) -> Validity:
        """How the file tells which pixels are valid; the finest way wins where there are several."""
        if self._alpha is not None:
            return "alpha"
        if self._mask is not None or (self.nodata is None and self.has_valid):
            return "mask"
        return "nodata" if self.nodata is not None else "none"

    @property
    def reader_bytes(self) -> int:
        """What decoding takes at most: per thread a cell and its segment (encoded, decoded, as floats), and what is kept."""
        cell = math.prod(self.cell_shape) * max(1, len(self._stored)) * self.dtype.itemsize
        pages = [self._main, *(page for page, _ in self._overviews)]
        each = max(page.segment_bytes for page in pages) * 3 + cell * 4
        tables = sum(page.offsets.nbytes + page.counts.nbytes for page in pages)
        return THREADS * each + sum(page.kept_bytes for page in pages) + tables

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box of the image (level 0) or of overview ``level - 1``. Raises DamagedFile."""
        page, mask = (self._main, self._mask) if level == 0 else self._overviews[level - 1]
        stored = [*self._stored, *([] if self._alpha is None else [self._alpha])]
        raw, there = page.read(box, stored)
        alpha = raw[..., -1] if self._alpha is not None else None
        colour = raw[..., : len(self._stored)]
        out = valid.weight_dtype(self.dtype)
        weight = None if alpha is None else valid.alpha_weight(alpha, out)
        if self.nodata is not None or colour.dtype.kind == "f":
            data = valid.has_data(colour, self.nodata)
            there = data if there is None else there & data
        if mask is not None:
            seen = mask_of(mask, box)
            there = seen if there is None else there & seen
        weight = valid.combine(weight, there, out)
        if weight is None and self.has_valid:
            weight = np.full(box.shape, valid.full(out), out)
        return Samples(self._meaning(colour, weight), weight)

    def _meaning(self, colour: NDArray[Any], weight: NDArray[Any] | None) -> NDArray[Any]:
        """Stored samples as colour."""
        if self._palette is not None:
            index = colour[..., 0].astype(np.int64)
            return self._palette[np.minimum(index, len(self._palette) - 1)][..., self._pick]
        if self._cmyk:
            from urst_tiles.source.vips import cmyk_to_rgb

            return cmyk_to_rgb(colour, self.main.raw(34675) or None)[..., self._pick]
        if colour.dtype.kind == "b" or self._scale > 1:
            colour = colour.astype(np.uint8) * np.uint8(self._scale)
        if self._inverted:
            colour = np.iinfo(colour.dtype).max - colour
        if self._associated and weight is not None:
            colour = valid.unpremultiply(colour, weight)
        return colour


def _usable(file: TiffFile, pages: Pages, main: Segments) -> list[tuple[Segments, Segments | None]]:
    """Overviews that are stored as the main page is; others are not looked at."""
    found = []
    for directory, mask in pages.overviews:
        try:
            page, *rest = file.segments([directory, *([mask] if mask else [])])
        except Undecodable:
            continue
        if (
            page.dtype == main.dtype
            and page.photometric in (main.photometric, 2, 6)
            and (mask or not pages.mask)
        ):
            found.append((page, rest[0] if rest else None))
    return found


def mask_of(mask: Segments, box: Box) -> NDArray[np.bool_]:
    """bool (h, w): where a mask page (1 bit, or 8 with 0 and 255) says valid; an absent tile says invalid."""
    raw, there = mask.read(box, [0])
    seen = raw[..., 0] != 0
    return seen if there is None else seen & there


def _palette(main: Directory) -> NDArray[np.uint8]:
    """uint8 (entries, 3): TIFF's 16-bit colour map (or one of 8 bits by mistake, as libtiff tells them apart)."""
    table = main.array(320).astype(np.uint16)
    if table.size < 3 or table.size % 3:
        raise DamagedFile(f"{main.path}: a palette image without a palette; the file is damaged")
    colours = table.reshape(3, -1).T
    return (colours >> 8 if (colours > 255).any() else colours).astype(np.uint8)


def choose_bands(path: Path, bands: Sequence[int] | None, available: int) -> list[int]:
    """Zero-based colour bands to hand out: three, or one (which is then replicated).

    ``bands`` counts from one, as ``--bands 3,2,1``. Without it: the first three, or the first where there are fewer.
    """
    if bands is None:
        return [0, 1, 2] if available >= 3 else [0]
    if len(bands) not in (1, 3):
        raise BadInput(f"--bands takes one or three bands, got {len(bands)}")
    for band in bands:
        if not 1 <= band <= available:
            raise BadInput(f"{path} has the colour bands 1 to {available}, but --bands asks for {band}")
    return [band - 1 for band in bands]
