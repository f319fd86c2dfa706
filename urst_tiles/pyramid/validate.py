"""Check a pyramidal TIFF, and say in sentences what is wrong with it.

The structure is checked first: every level is tiled and smaller than the level before it, the smallest level
fits one tile, all directories lie before the tiles, the tiles of small levels lie before those of large ones,
every tile lies inside the file, and either every level has a mask or none has. A deep check also decodes
every tile, and compares each overview of a mask with the mask it was made from.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile, MissingFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import in_order
from urst_tiles.storage.names import require_file
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import Directory, read_chain, read_children
from urst_tiles.tiff.header import read_header
from urst_tiles.tiff.streams import SIZES, Size, check_size

_GHOST = re.compile(rb"GDAL_STRUCTURAL_METADATA_SIZE=(\d{6}) bytes\n")

#: Larger tiles are not decoded: they would take too much memory.
_MOST_TILE_BYTES = 1 << 28

#: More sentences of the same kind are left out of the report.
_MOST_SENTENCES = 5

#: No sane directory has more entries; a file with more of them is called damaged, not read.
_MOST_ENTRIES = 4096


@dataclass(frozen=True)
class ValidationReport:
    """The result of `validate`.

    Attributes
    ----------
    path : the file that was checked.
    levels : (height, width) of each level in pixels, full resolution first.
    tiles : how many tiles were decoded, those of masks included.
    problems : one sentence for each thing that is wrong; empty for a valid file.
    """

    path: Path
    levels: tuple[tuple[int, int], ...] = ()
    tiles: int = 0
    problems: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the file has no problems."""
        return not self.problems

    def __str__(self) -> str:
        sizes = ", ".join(f"{w} x {h}" for h, w in self.levels)
        head = f"{self.path}: {'valid' if self.valid else 'not valid'} ({len(self.levels)} levels: {sizes})"
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


#: The number of a page, or with that of a SubIFD of it.
Page = int | tuple[int, int]


@dataclass(frozen=True)
class _Image:
    """A level, or the mask of a level, as its directory describes it."""

    page: Page
    directory_offset: int
    height: int
    width: int
    tile: tuple[int, int]
    subfile: int
    planes: int
    tile_bytes: int
    offsets: NDArray
    counts: NDArray

    @property
    def name(self) -> str:
        kind = "mask" if self.is_mask else "level"
        return f"the {self.width} x {self.height} {kind}"

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def is_mask(self) -> bool:
        return bool(self.subfile & 4)

    @property
    def tiled(self) -> bool:
        return self.tile[0] > 0 and self.tile[1] > 0

    @property
    def grid(self) -> tuple[int, int]:
        """How many rows and columns of tiles there are."""
        return ceil_div(self.height, self.tile[0]), ceil_div(self.width, self.tile[1])

    @property
    def first_byte(self) -> int:
        """Position in the file of the first tile; 0 when no tile is stored."""
        stored = self.offsets[self.offsets > 0]
        return int(stored.min()) if stored.size else 0


@dataclass
class _Findings:
    """The problems of a file as sentences; of many sentences of one kind only the first few are listed."""

    problems: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.problems.append(sentence)

    def many(self, sentences: Iterator[str]) -> None:
        """Add the first few of these sentences, and one that says that there are more."""
        self.problems += few(sentences)


def few(sentences: Iterator[str]) -> list[str]:
    """The first few of these sentences, and one that says that there are more."""
    found = list(islice(sentences, _MOST_SENTENCES + 1))
    return [*found[:_MOST_SENTENCES], "and more of the same"] if len(found) > _MOST_SENTENCES else found


def validate(
    path: str | os.PathLike[str], *, deep: bool = True, descriptor: int | None = None
) -> ValidationReport:
    """Check whether a file is a valid pyramidal TIFF in the cloud-optimised layout.

    Parameters
    ----------
    path : the file, written by this package or by any other program.
    deep : whether every tile is decoded, too. This is done only where the tables of all tiles are right.
    descriptor : the file if it is open already; ``path`` is then only its name, and ``deep`` must be false.

    Raises
    ------
    MissingFile : the file does not exist or may not be read.
    BadInput : it is a folder or a device.
    """
    if descriptor is None:
        require_file(path)
    path, findings = Path(path), _Findings()
    images: list[_Image] = []
    tiles = 0
    file = _opened(path, descriptor)
    try:
        images.extend(_images(file))
        levels = [image for image in images if not image.is_mask]
        masks = [image for image in images if image.is_mask]
        _check_pyramid(levels, masks, findings)
        _check_order(file, images, levels, findings)
        before = len(findings.problems)
        for image in images:
            _check_tiles(image, file, findings)
        deep = deep and len(findings.problems) == before
    except (DamagedFile, BadInput) as error:
        findings.add(str(error))
        deep = False
    if deep:
        try:
            tiles = _check_content(file, images, findings)
        except Exception as error:  # whatever a stranger's file makes a library raise belongs in the report
            findings.add(f"{path} cannot be opened to decode its tiles ({error})")
    shapes = tuple(image.shape for image in images if not image.is_mask)
    return ValidationReport(path, shapes, tiles, tuple(findings.problems))


def _images(file: FileBytes) -> Iterator[_Image]:
    """The levels and masks of a file; of an OME-TIFF, whose only image has SubIFDs, these are the overviews.

    ``page`` of an image is its number in the chain, or the pair of that and the number of the SubIFD.
    """
    chain = list(read_chain(file, checked=False, most_entries=_MOST_ENTRIES))
    for page, directory in enumerate(chain):
        yield _image(page, directory)
    if len(chain) == 1:
        for number, directory in enumerate(read_children(file, chain[0])):
            yield _image((0, number), directory)


def _opened(path: Path, descriptor: int | None) -> FileBytes:
    try:
        return FileBytes(path, descriptor)
    except OSError as error:
        raise MissingFile(f"{path} cannot be read: {error.strerror}") from error


def _image(page: Page, directory: Directory) -> _Image:
    samples = directory.bands
    planes = max(1, samples) if directory.number(284, 1) == 2 else 1
    tiled = 324 in directory.entries
    height, width = directory.shape
    tile = directory.number(323), directory.number(322)
    rows, columns = tile if tiled else (min(height, directory.number(278, height)), width)
    return _Image(
        page,
        directory.offset,
        height,
        width,
        tile,
        directory.subfile,
        planes,
        rows * columns * samples // planes * directory.number(258, 1) // 8,
        *directory.segment_tables,
    )


def _check_pyramid(levels: list[_Image], masks: list[_Image], findings: _Findings) -> None:
    """Every level is tiled and smaller than the one before it; either all levels have a mask or none has."""
    if not levels:
        findings.add("the file holds no image")
        return
    images = [*levels, *masks]
    findings.many(f"{image.name} has no pixels" for image in images if not image.height or not image.width)
    findings.many(f"{image.name} is stored in strips, not in tiles" for image in images if not image.tiled)
    for above, below in zip(levels, levels[1:], strict=False):
        if not (below.height <= above.height and below.width <= above.width and below.shape != above.shape):
            findings.add(
                f"{below.name} follows {above.name}, but an overview must be smaller than the level before it"
            )
        if not below.subfile & 1:
            findings.add(f"{below.name} is not marked as an overview (NewSubfileType 1)")
    last = levels[-1]
    if last.tiled and len(levels) == 1 and (last.height > last.tile[0] or last.width > last.tile[1]):
        findings.add(f"{last.name} has no overviews")
    if masks and [mask.shape for mask in masks] != [level.shape for level in levels]:
        findings.add(f"there are {len(masks)} masks for {len(levels)} levels, or their sizes differ")


def _check_tiles(image: _Image, file: FileBytes, findings: _Findings) -> None:
    """Both tables of tiles have the right length, and every tile lies inside the file."""
    if image.tiled and image.height and image.width:
        rows, columns = image.grid
        if image.offsets.size != rows * columns * image.planes:
            findings.add(
                f"{image.name} has {image.offsets.size} tiles instead of {rows * columns * image.planes}"
            )
    if image.offsets.size != image.counts.size:
        findings.add(f"{image.name} has {image.offsets.size} offsets but {image.counts.size} sizes")
        return
    ends = image.offsets + image.counts
    outside = np.flatnonzero((ends > file.size) | (ends < image.offsets))
    findings.many(f"tile {i} of {image.name} lies beyond the end of the file" for i in outside)
    empty = np.flatnonzero((image.offsets > 0) & (image.counts == 0))
    findings.many(f"tile {i} of {image.name} has no bytes" for i in empty)


def _check_order(file: FileBytes, images: list[_Image], levels: list[_Image], findings: _Findings) -> None:
    """The file is cloud optimised: directories come first, and small levels before large ones."""
    if not images:
        return
    ghost_end, lines = _ghost(file)
    if images[0].directory_offset != (ghost_end + ghost_end % 2):
        findings.add(f"the first directory lies at byte {images[0].directory_offset}, not behind the header")
    positions = [image.directory_offset for image in images]
    if positions != sorted(positions):
        findings.add("the directories do not follow each other from full resolution to the smallest overview")
    starts = [image.first_byte for image in levels if image.first_byte]
    if starts and min(starts) < max(positions):
        findings.add("tile data begins before the last directory")
    if starts != sorted(starts, reverse=True):
        findings.add("tile data is not ordered from the smallest overview to full resolution")
    if "BLOCK_LEADER=SIZE_AS_UINT4" in lines:
        for image in images:
            findings.many(_wrong_leaders(file, image))


def _ghost(file: FileBytes) -> tuple[int, list[str]]:
    """Where GDAL's structural metadata ends, and its lines; without such metadata the end of the header."""
    header_bytes = read_header(file).size
    match = _GHOST.fullmatch(file(header_bytes, 43))
    if match is None:
        return header_bytes, []
    begin, length = header_bytes + 43, int(match[1])
    lines = file.exactly(begin, length, "the structural metadata").decode("ascii", "replace")
    return begin + length, lines.splitlines()


def _wrong_leaders(file: FileBytes, image: _Image) -> Iterator[str]:
    """Problems of the sizes before tiles; the first, the middle and the last tile stand for all tiles."""
    stored = np.flatnonzero((image.offsets >= 4) & (image.offsets <= file.size))
    if not stored.size:
        return
    for i in sorted({int(stored[0]), int(stored[stored.size // 2]), int(stored[-1])}):
        offset, count = int(image.offsets[i]), int(image.counts[i])
        if struct.unpack("<I", file.exactly(offset - 4, 4, "the size before a tile"))[0] != count:
            yield f"tile {i} of {image.name} is not preceded by its size, as the file announces"


def _check_content(file: FileBytes, images: list[_Image], findings: _Findings) -> int:
    """Decode every tile; returns how many there are."""
    import tifffile

    large = [image for image in images if image.tile_bytes > _MOST_TILE_BYTES]
    for image in large:
        findings.add(
            f"{image.name} has tiles or strips of {image.tile_bytes} bytes, too large to decode safely"
        )
    if large:
        return 0
    done, before = 0, len(findings.problems)
    with tifffile.TiffFile(file.path) as tif, ThreadPoolExecutor() as pool:
        for image in images:
            decoder = _Decoder(_page(tif, image.page), image, file)
            indexes = range(image.offsets.size)
            results = in_order(pool, decoder.problem, indexes, 16)
            findings.many(sentence for sentence in results if sentence)
            done += image.offsets.size
        masks = [_Decoder(_page(tif, i.page), i, file) for i in images if i.is_mask and i.tiled]
        if len(findings.problems) == before:
            for above, below in zip(masks, masks[1:], strict=False):
                findings.many(_wrong_mask_tiles(above, below))
    return done


def _page(tif: Any, page: Page) -> Any:
    """A page, or a SubIFD, as tifffile sees it."""
    return tif.pages[page] if isinstance(page, int) else tif.pages[page[0]].pages[page[1]]


@dataclass(frozen=True)
class _Decoder:
    """Decodes the tiles of one directory; ``page`` is the same directory as tifffile sees it."""

    page: Any
    image: _Image
    file: FileBytes

    def tile(self, index: int) -> NDArray | None:
        """(h, w, samples): the part of a tile inside the image; None for a tile that is not stored."""
        offset, count = int(self.image.offsets[index]), int(self.image.counts[index])
        if not offset:
            return None
        data = self.file(offset, count)
        self._check_size(data)
        tables = {"jpegtables": self.page.jpegtables, "jpegheader": self.page.jpegheader}
        pixels, _, shape = self.page.decode(data, index, **tables)
        return None if pixels is None else pixels[0, : shape[1], : shape[2]]

    def _check_size(self, data: bytes) -> None:
        """Raise ValueError where a tile says that it is larger than it may be."""
        import tifffile

        code, samples = int(self.page.compression), int(self.page.samplesperpixel)
        if code in SIZES:
            strip = min(self.image.height, int(self.page.rowsperstrip)), self.image.width
            shape = self.image.tile if self.image.tiled else strip
            check_size(code, data, Size(*shape, samples), self.page.jpegtables)
        elif code in tifffile.TIFF.IMAGE_COMPRESSIONS:
            raise ValueError(f"tiles of compression {code} cannot be checked before they are decoded")

    def problem(self, index: int) -> str | None:
        """A sentence where a tile cannot be decoded, else None."""
        try:
            self.tile(index)
        except Exception as error:  # each codec has its own
            return f"tile {index} of {self.image.name} cannot be decoded ({error})"
        return None

    def valid(self, box: Box) -> NDArray:
        """bool, box.shape: which pixels of a box are valid, read from the tiles of a mask."""
        out = np.zeros(box.shape, bool)
        size = self.image.tile[0]
        for cell in box.cells(size):
            tile = self.tile(cell.y0 // size * self.image.grid[1] + cell.x0 // size)
            if tile is not None:
                inside = cell.within(Box(cell.y0 // size * size, cell.x0 // size * size, 0, 0))
                out[cell.within(box).slices] = tile[..., 0][inside.slices] > 0
        return out


def _wrong_mask_tiles(above: _Decoder, below: _Decoder) -> Iterator[str]:
    """Problems of a mask's overview: where four pixels of the mask agree, the overview must agree with them.

    Which rule decides the other pixels does not matter.
    """
    size, whole = below.image.tile[0], Box(0, 0, *above.image.shape)
    if (ceil_div(whole.y1, 2), ceil_div(whole.x1, 2)) != below.image.shape:
        return
    for i, cell in enumerate(Box(0, 0, *below.image.shape).cells(size)):
        box = Box(2 * cell.y0, 2 * cell.x0, 2 * cell.y1, 2 * cell.x1)
        four = above.valid(box.clip(whole))
        four = np.pad(
            four, ((0, box.shape[0] - four.shape[0]), (0, box.shape[1] - four.shape[1])), mode="edge"
        )
        quads = four.reshape(cell.shape[0], 2, cell.shape[1], 2)
        small = below.valid(cell)
        if (quads.all((1, 3)) & ~small).any() or (~quads.any((1, 3)) & small).any():
            yield f"tile {i} of {below.image.name} contradicts the mask it is an overview of"
