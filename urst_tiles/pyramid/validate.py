"""What is wrong with a pyramid, in sentences.

Structure: tiled, halved level by level down to one tile, directories first, overviews before full resolution,
every tile inside the file, masks beside every level. With ``deep`` every tile is decoded as well, and each
overview of a mask compared with the mask it was made from.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import in_order
from urst_tiles.pyramid.read import Directory, TiffFile

_GHOST = re.compile(rb"GDAL_STRUCTURAL_METADATA_SIZE=(\d{6}) bytes\n")

#: A tile that decodes to more than this is not decoded.
_MOST_TILE_BYTES = 1 << 28

#: So many sentences of one kind are enough.
_MOST = 5


@dataclass(frozen=True)
class Report:
    """What `validate` found.

    Attributes
    ----------
    path : the file.
    levels : (height, width) of each level, full resolution first.
    tiles : how many tiles were decoded.
    problems : one sentence each; none for a good file.
    """

    path: Path
    levels: tuple[tuple[int, int], ...] = ()
    tiles: int = 0
    problems: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        sizes = ", ".join(f"{w} x {h}" for h, w in self.levels)
        head = f"{self.path}: {'valid' if self.valid else 'not valid'} ({len(self.levels)} levels: {sizes})"
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


@dataclass(frozen=True)
class _Image:
    """A level, or a level's mask, as its directory describes it."""

    page: int
    position: int
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
        """Rows and columns of tiles."""
        return ceil_div(self.height, self.tile[0]), ceil_div(self.width, self.tile[1])

    @property
    def first_byte(self) -> int:
        """Position of the first tile's data; 0 when all tiles are sparse."""
        stored = self.offsets[self.offsets > 0]
        return int(stored.min()) if stored.size else 0


@dataclass
class _Findings:
    """Sentences, each kind cut short before it becomes a list of every tile."""

    problems: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.problems.append(sentence)

    def many(self, sentences: Iterator[str]) -> None:
        """The first few, and that there are more."""
        for i, sentence in enumerate(sentences):
            if i == _MOST:
                self.add("and more of the same")
                return
            self.add(sentence)


def validate(path: Path, *, deep: bool = True) -> Report:
    """Look at a TIFF of ours or anybody's.

    Raises
    ------
    MissingFile : there is nothing to look at.
    """
    path, found = Path(path), _Findings()
    images: list[_Image] = []
    tiles = 0
    try:
        with TiffFile(path) as file:
            images.extend(_image(page, directory) for page, directory in enumerate(file.directories()))
            levels = [image for image in images if not image.is_mask]
            masks = [image for image in images if image.is_mask]
            _check_pyramid(levels, masks, found)
            _check_order(file, images, levels, found)
            before = len(found.problems)
            for image in images:
                _check_tiles(image, file, found)
            deep = deep and len(found.problems) == before
    except DamagedFile as error:
        found.add(str(error))
        deep = False
    if deep:
        try:
            tiles = _check_content(path, images, found)
        except Exception as error:  # what a stranger's file does to a library is part of the report
            found.add(f"{path} cannot be opened to decode its tiles ({error})")
    shapes = tuple(image.shape for image in images if not image.is_mask)
    return Report(path, shapes, tiles, tuple(found.problems))


def _image(page: int, directory: Directory) -> _Image:
    samples = directory.number(277, 1)
    planes = samples if directory.number(284, 1) == 2 else 1
    tiled = 324 in directory.entries
    height, width = directory.number(257), directory.number(256)
    tile = directory.number(323), directory.number(322)
    rows, columns = tile if tiled else (min(height, directory.number(278, height)), width)
    return _Image(
        page,
        directory.position,
        height,
        width,
        tile,
        directory.number(254),
        planes,
        rows * columns * samples // planes * directory.number(258, 1) // 8,
        directory.array(324 if tiled else 273).astype(np.uint64),
        directory.array(325 if tiled else 279).astype(np.uint64),
    )


def _check_pyramid(levels: list[_Image], masks: list[_Image], found: _Findings) -> None:
    if not levels:
        found.add("the file holds no image")
        return
    images = [*levels, *masks]
    found.many(f"{image.name} has no pixels" for image in images if not image.height or not image.width)
    found.many(f"{image.name} is stored in strips, not in tiles" for image in images if not image.tiled)
    for above, below in zip(levels, levels[1:], strict=False):
        if not (below.height <= above.height and below.width <= above.width and below.shape != above.shape):
            found.add(
                f"{below.name} follows {above.name}, but an overview must be smaller than the level before it"
            )
        if not below.subfile & 1:
            found.add(f"{below.name} is not marked as an overview (NewSubfileType 1)")
    last = levels[-1]
    if last.tiled and len(levels) == 1 and (last.height > last.tile[0] or last.width > last.tile[1]):
        found.add(f"{last.name} has no overviews")
    if masks and [mask.shape for mask in masks] != [level.shape for level in levels]:
        found.add(f"there are {len(masks)} masks for {len(levels)} levels, or their sizes differ")


def _check_tiles(image: _Image, file: TiffFile, found: _Findings) -> None:
    """Arrays of the right length, and every tile inside the file."""
    if image.tiled and image.height and image.width:
        rows, columns = image.grid
        if image.offsets.size != rows * columns * image.planes:
            found.add(
                f"{image.name} has {image.offsets.size} tiles instead of {rows * columns * image.planes}"
            )
    if image.offsets.size != image.counts.size:
        found.add(f"{image.name} has {image.offsets.size} offsets but {image.counts.size} sizes")
        return
    ends = image.offsets + image.counts
    outside = np.flatnonzero((ends > file.size) | (ends < image.offsets))
    found.many(f"tile {i} of {image.name} lies beyond the end of the file" for i in outside)
    empty = np.flatnonzero((image.offsets > 0) & (image.counts == 0))
    found.many(f"tile {i} of {image.name} has no bytes" for i in empty)


def _check_order(file: TiffFile, images: list[_Image], levels: list[_Image], found: _Findings) -> None:
    """What makes a TIFF cloud optimised: directories first, and small levels before large ones."""
    if not images:
        return
    ghost_end, lines = _ghost(file)
    if images[0].position != (ghost_end + ghost_end % 2):
        found.add(f"the first directory lies at byte {images[0].position}, not behind the header")
    positions = [image.position for image in images]
    if positions != sorted(positions):
        found.add("the directories do not follow each other from full resolution to the smallest overview")
    starts = [image.first_byte for image in levels if image.first_byte]
    if starts and min(starts) < max(positions):
        found.add("tile data begins before the last directory")
    if starts != sorted(starts, reverse=True):
        found.add("tile data is not ordered from the smallest overview to full resolution")
    if "BLOCK_LEADER=SIZE_AS_UINT4" in lines:
        for image in images:
            found.many(_wrong_leaders(file, image))


def _ghost(file: TiffFile) -> tuple[int, list[str]]:
    """Where GDAL's structural metadata ends (the header's end when there is none), and its lines."""
    start = os.pread(file.descriptor, 43, file.header_bytes)
    match = _GHOST.fullmatch(start)
    if match is None:
        return file.header_bytes, []
    begin = file.header_bytes + 43
    lines = (
        file.bytes_at(begin, int(match[1]), "the structural metadata").decode("ascii", "replace").splitlines()
    )
    return begin + int(match[1]), lines


def _wrong_leaders(file: TiffFile, image: _Image) -> Iterator[str]:
    """The first, the middle and the last tile stand for all."""
    stored = np.flatnonzero((image.offsets >= 4) & (image.offsets <= file.size))
    if not stored.size:
        return
    for i in sorted({int(stored[0]), int(stored[stored.size // 2]), int(stored[-1])}):
        offset, count = int(image.offsets[i]), int(image.counts[i])
        if struct.unpack("<I", file.bytes_at(offset - 4, 4, "a leader"))[0] != count:
            yield f"tile {i} of {image.name} is not preceded by its size, as the file announces"


def _check_content(path: Path, images: list[_Image], found: _Findings) -> int:
    """Decode every tile; returns how many."""
    import tifffile

    large = [image for image in images if image.tile_bytes > _MOST_TILE_BYTES]
    for image in large:
        found.add(f"{image.name} has tiles or strips of {image.tile_bytes} bytes, too large to decode safely")
    if large:
        return 0
    done, before = 0, len(found.problems)
    with tifffile.TiffFile(path) as tif, ThreadPoolExecutor() as pool:
        for image in images:
            decoder = _Decoder(tif.pages[image.page], image, tif.filehandle.fileno())
            indexes = range(image.offsets.size)
            results = in_order(pool, decoder.problem, indexes, 16)
            found.many(sentence for sentence in results if sentence)
            done += image.offsets.size
        masks = [
            _Decoder(tif.pages[i.page], i, tif.filehandle.fileno()) for i in images if i.is_mask and i.tiled
        ]
        if len(found.problems) == before:
            for above, below in zip(masks, masks[1:], strict=False):
                found.many(_wrong_mask_tiles(above, below))
    return done


@dataclass(frozen=True)
class _Decoder:
    """Decodes the tiles of one directory."""

    page: Any
    image: _Image
    file: int

    def tile(self, index: int) -> NDArray | None:
        """(h, w, samples) as far as inside the image; None for a sparse tile."""
        offset, count = int(self.image.offsets[index]), int(self.image.counts[index])
        if not offset:
            return None
        data = os.pread(self.file, count, offset)
        tables = {"jpegtables": self.page.jpegtables, "jpegheader": self.page.jpegheader}
        pixels, _, shape = self.page.decode(data, index, **tables)
        return None if pixels is None else pixels[0, : shape[1], : shape[2]]

    def problem(self, index: int) -> str | None:
        """A sentence when a tile does not decode."""
        try:
            self.tile(index)
        except Exception as error:  # each codec has its own
            return f"tile {index} of {self.image.name} cannot be decoded ({error})"
        return None

    def valid(self, box: Box) -> NDArray:
        """bool, box.shape: a box of a mask, read from its tiles."""
        out = np.zeros(box.shape, bool)
        size = self.image.tile[0]
        for cell in box.cells(size):
            tile = self.tile(cell.y0 // size * self.image.grid[1] + cell.x0 // size)
            if tile is not None:
                inside = cell.within(Box(cell.y0 // size * size, cell.x0 // size * size, 0, 0))
                out[cell.within(box).slices] = tile[..., 0][inside.slices] > 0
        return out


def _wrong_mask_tiles(above: _Decoder, below: _Decoder) -> Iterator[str]:
    """Where four pixels agree, the mask's overview must agree with them, whatever rule decides the others."""
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
