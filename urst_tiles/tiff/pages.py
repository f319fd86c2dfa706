"""Which pages of a TIFF belong together: the image, its overviews, and their masks.

A page is one image of the file with its directory. GDAL's conventions hold: a page with NewSubfileType 1 is
an overview, 4 the mask of the main image, and 5 the mask of an overview (see "Internal nodata masks" and
"Overviews" of GDAL's GeoTIFF driver).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.decodable import Undecodable
from urst_tiles.tiff.directory import (
    MOST_DIRECTORIES,
    Directory,
    count_directories,
    read_chain,
    read_children,
    read_pages,
)
from urst_tiles.tiff.kinds import Kind, description_of, kind_of
from urst_tiles.tiff.segments import DecodeTiff, Segments, short
from urst_tiles.tiff.stacks import Stack, find_stacks


class TiffFile:
    """An open TIFF.

    Attributes
    ----------
    path : the file.
    bytes : its bytes.
    directories : the first ``MOST_DIRECTORIES`` pages, those behind them that are masks, and the SubIFDs of
        the first page.
    chain : those of them that are pages of the file, each of which names the next.
    children : those of them that are SubIFDs of the first page.

    Parameters
    ----------
    path : the file.
    opened : the same, if it is open already.

    Raises
    ------
    DamagedFile : the directories cannot be read.
    """

    def __init__(self, path: Path, opened: FileBytes | None = None) -> None:
        self.path, self.bytes = path, opened or FileBytes(path)
        pages = read_pages(self.bytes)
        self.chain = pages[:MOST_DIRECTORIES]
        self.children = read_children(self.bytes, pages[0], (page.offset for page in pages))
        self.directories = [*pages, *self.children]
        self._count = len(self.chain) if len(self.chain) < MOST_DIRECTORIES else None
        self._kinds: dict[int, Kind] = {}

    @property
    def count(self) -> int:
        """How many pages the chain of directories has."""
        if self._count is None:
            self._count = count_directories(self.bytes)
        return self._count

    @property
    def numbered(self) -> list[Directory]:
        """The directories in the order in which pages are numbered: the chain, then the first page's SubIFDs.

        Pages behind the first ``MOST_DIRECTORIES`` have numbers, too, but are not listed.
        """
        return [*self.chain, *self.children]

    def page(self, number: int) -> Directory:
        """The page with this number, counted from 0: a page of the chain, or behind these a SubIFD."""
        if number < len(self.chain):
            return self.chain[number]
        if number < self.count:
            return next(islice(read_chain(self.bytes), number, None))
        return self.children[number - self.count]

    def number_of(self, directory: Directory) -> int:
        """The number of a page, counted from 0, as `page` takes it."""
        for number, page in enumerate(self.chain):
            if page.offset == directory.offset:
                return number
        for number, page in enumerate(self.children):
            if page.offset == directory.offset:
                return self.count + number
        offsets = (page.offset for page in read_chain(self.bytes, checked=False))
        return next(number for number, offset in enumerate(offsets) if offset == directory.offset)

    def place_of(self, directory: Directory) -> tuple[int, int]:
        """Where libtiff finds a page: the number of a page of the chain, and of the SubIFD in it, or -1."""
        number = self.number_of(directory)
        return (number, -1) if number < self.count else (0, number - self.count)

    def kind(self, page: Directory) -> Kind:
        """What a page is. The first page is never a mask, unless NewSubfileType says so."""
        if page.offset not in self._kinds:
            kind = kind_of(page)
            bare = kind == "mask" and page.offset == self.chain[0].offset and not page.subfile & 4
            self._kinds[page.offset] = "image" if bare else kind
        return self._kinds[page.offset]

    def is_overview(self, main: Directory, page: Directory) -> bool:
        """Whether a page is the page ``main`` at a smaller size, each side rounded up or down."""
        if not _alike(main.shape, page.shape):
            return False
        kind = self.kind(page)
        marked = kind == "reduced" or (kind == "image" and page.is_tiled and self._plain_levels)
        return marked and page.bands == main.bands

    @cached_property
    def _plain_levels(self) -> bool:
        """Whether levels are not marked as reduced, only tiled: so it is in slides of Aperio and Leica."""
        text = description_of(self.chain[0])
        return text.startswith("Aperio") or "leica-microsystems.com/scn" in text[:1000]

    @cached_property
    def images(self) -> list[Directory]:
        """The images of the file at full resolution, in the order in which pages are numbered."""
        images = [page for page in self.numbered if self.kind(page) == "image"]
        first = {page.shape: page for page in reversed(images)}
        return [page for page in images if not any(self.is_overview(d, page) for d in first.values())]

    @cached_property
    def image_of(self) -> dict[tuple[int, int], Directory]:
        """The first of the ``images`` of each shape, by its shape."""
        return {page.shape: page for page in reversed(self.images)}

    @cached_property
    def stacks(self) -> list[Stack]:
        """The images that the file describes as stacks of pages, as `find_stacks` returns them."""
        return find_stacks(self.chain, self.count)

    def segments(
        self, directories: Sequence[Directory], fax: DecodeTiff | None = None
    ) -> list[Segments | Undecodable]:
        """The tiles or strips of these directories, each ready to be read, or why they cannot be decoded.

        Parameters
        ----------
        directories : directories of this file.
        fax : decodes the fax compressions (CCITT); with None they are undecodable.

        Raises
        ------
        DamagedFile : a directory contradicts itself or the file.
        BadInput : a tile or strip is too large to be decoded at once.
        """
        return [self._segments(directory, fax) for directory in directories]

    def _segments(self, directory: Directory, fax: DecodeTiff | None) -> Segments | Undecodable:
        try:
            return Segments(self.bytes, directory, fax)
        except Undecodable as error:
            return error
        except (DamagedFile, BadInput, MemoryError):
            raise
        except Exception as error:
            raise DamagedFile(
                f"{self.path}: its TIFF directory makes no sense ({short(error)}); the file is damaged"
            ) from error


def _alike(whole: tuple[int, int], reduced: tuple[int, int]) -> bool:
    """Whether an image of the second shape can be one of the first shape at a smaller size."""
    (h, w), (y, x) = whole, reduced
    return 0 < y < h and 0 < x < w and abs(y * w - x * h) <= max(h, w) * 1.5


@dataclass(frozen=True)
class Pages:
    """The directories of an image, of its overviews, and of their masks.

    Attributes
    ----------
    mains : the image at full resolution: one page, or three pages of the same size, of which each is a
        channel.
    mask : its mask, or None.
    overviews : (overview, its mask or None), largest first; an overview has as many pages as the image.
    """

    mains: tuple[Directory, ...]
    mask: Directory | None
    overviews: tuple[tuple[tuple[Directory, ...], Directory | None], ...]

    @property
    def main(self) -> Directory:
        """The image at full resolution, or its first channel."""
        return self.mains[0]


def gather(file: TiffFile, mains: Sequence[Directory]) -> Pages:
    """The overviews and masks of an image among all directories of its file.

    Parameters
    ----------
    file : the open file.
    mains : the pages of the image at full resolution: one, or one for each channel.

    Raises
    ------
    DamagedFile : the file has a mask that belongs to no page, or it says that it has a mask and has none.
    """
    main = mains[0]
    masks = [d for d in file.directories if file.kind(d) == "mask" and d.offset != main.offset]
    images = [d for d in file.directories if file.kind(d) not in ("mask", "empty")]
    mask_of = {d.shape: d for d in reversed(_belonging(file, main, masks))}
    levels = [_levels(file, page, images) for page in mains]
    shapes = sorted(set(levels[0]).intersection(*levels[1:]), reverse=True)
    if main.shape not in mask_of:
        _check_no_mask(
            main, masks, {d.shape for d in images if d.offset != main.offset and d.shape not in levels[0]}
        )
    overviews = tuple((tuple(level[shape] for level in levels), mask_of.get(shape)) for shape in shapes)
    return Pages(tuple(mains), mask_of.get(main.shape), overviews)


def _levels(file: TiffFile, main: Directory, images: Sequence[Directory]) -> dict[tuple[int, int], Directory]:
    """The overviews of a page by their shapes."""
    inside = [] if main.offset == file.chain[0].offset else read_children(file.bytes, main)
    alike = [d for d in images if d.offset != main.offset and file.is_overview(main, d)]
    found = [*_belonging(file, main, alike), *(d for d in inside if file.is_overview(main, d))]
    return {d.shape: d for d in reversed(found)}


def _belonging(file: TiffFile, main: Directory, candidates: Sequence[Directory]) -> list[Directory]:
    """Those of some overviews, or of some masks, that belong to a page.

    In a file with one image that is all of them. Where there are several, a page has what follows it before
    the next image of such a shape, and its SubIFDs; or, where all follow the last image, the one with its own
    number of each size. What remains belongs to the first page, as in GDAL. A mask that may be that of two
    pages is that of both: it is never left out.
    """
    images = file.images
    if len(images) < 2 or not candidates:
        return list(candidates)
    if main.offset not in {d.offset for d in images}:
        return []
    runs, masks = _runs(file, candidates), file.kind(candidates[0]) == "mask"
    inside = {d.offset for d in file.children}
    peers = [d for d in images if d.shape == main.shape and d.offset not in inside]
    if len(runs) == 1 and len(peers) > 1 and peers[-1].offset in runs:
        return _by_rank(main, peers, candidates, masks)
    own = runs.get(main.offset, [])
    return list(candidates) if masks and not own and peers and main is peers[0] else own


def _by_rank(
    main: Directory, peers: Sequence[Directory], candidates: Sequence[Directory], masks: bool
) -> list[Directory]:
    """The candidate of each shape that has the same rank among its like as the page among its peers.

    A single candidate belongs to the first of them; if it is a mask, to the last as well.
    """
    rank, shapes = peers.index(main), dict.fromkeys(d.shape for d in candidates)
    groups = [[d for d in candidates if d.shape == shape] for shape in shapes]
    single = rank == 0 or (masks and rank == len(peers) - 1)
    return [
        group[rank] if len(group) == len(peers) else group[0]
        for group in groups
        if len(group) == len(peers) or (single and len(group) == 1)
    ]


def _runs(file: TiffFile, candidates: Sequence[Directory]) -> dict[int, list[Directory]]:
    """The candidates by the offset of the last image before them that has their shape, or is larger."""
    begins = {d.offset: number for number, d in enumerate(file.images)}
    inside, wanted = {d.offset for d in file.children}, {d.offset for d in candidates}
    first, latest, runs = file.chain[0], dict[tuple[int, int], int](), dict[int, list[Directory]]()
    for page in file.directories:
        if page.offset in begins:
            latest.pop(page.shape, None)
            latest[page.shape] = page.offset  # the latest comes last
        if page.offset not in wanted:
            continue
        owners = [
            offset for shape, offset in latest.items() if shape == page.shape or _alike(shape, page.shape)
        ]
        owner = owners[-1] if owners else file.images[0].offset
        if page.offset in inside and first.offset in begins:
            owner = first.offset
        runs.setdefault(owner, []).append(page)
    return runs


def _check_no_mask(main: Directory, masks: Sequence[Directory], others: Set[tuple[int, int]]) -> None:
    """Raise DamagedFile unless every mask belongs to another picture, whose shape is among ``others``."""
    for mask in masks:
        if mask.shape not in others:
            raise DamagedFile(
                f"{main.path}: it has a mask of {mask.shape[1]} x {mask.shape[0]} pixels and none that fits "
                f"its image of {main.shape[1]} x {main.shape[0]}; the mask is damaged, get a new copy of the "
                "file"
            )
    if main.announces_mask and not masks:
        raise DamagedFile(
            f"{main.path}: its header says that it has a mask, and its directories lead to none; the file is "
            "damaged, get a new copy of it"
        )
