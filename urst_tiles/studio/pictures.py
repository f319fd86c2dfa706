"""Tiles of images and of their paintings, at every scale.

At full scale a tile of a painting has the very bytes that the job writes. Reduced tiles are made from those
where they are few; where they would be many, the same network paints the reduced image. Its strokes are too
large then, and the tile is called approximate.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.blocks import blocks_of
from urst_tiles.api.contact_sheet import in_style
from urst_tiles.api.result import Levels, SourceLevels, eight_bits
from urst_tiles.api.view import View, mask_file, open_view, prepare_input
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, halved
from urst_tiles.kept import Kept
from urst_tiles.options import Options
from urst_tiles.pyramid.reduce import halve, levels_below
from urst_tiles.source import Source
from urst_tiles.source.burnt import BurntMask, burn
from urst_tiles.source.mask import open_mask
from urst_tiles.source.picture import encoded_jpeg, encoded_png
from urst_tiles.studio.arguments import Brought, check_measuring
from urst_tiles.studio.asked import Asked, is_upload
from urst_tiles.studio.lane import Dropped, check_wanted
from urst_tiles.studio.results import Results, levels_of, microns

#: Side of a tile in pixels.
TILE = 512

#: A reduced tile is made from pixels of full scale, if these are at most so many.
MOST_PIXELS = 1 << 20

#: Memory for pixels at full scale, and for encoded tiles.
CORE_BYTES, TILE_BYTES = 192 << 20, 96 << 20

#: How many images are kept open, and how many frozen networks: a painting with levels has one for each.
IMAGES, VIEWS = 2, 8

#: Side of what is painted for the small squares that show each style, and which is shown at half of that:
#: strokes are smaller so.
SWATCH = 256


@dataclass(frozen=True)
class Shown:
    """An encoded tile; ``approximate`` tells that it is not what the finished pyramid shows there."""

    data: bytes
    media: str
    approximate: bool


class Pictures:
    """The images below a root and their paintings.

    Parameters
    ----------
    root : the folder of the images; nothing outside of it is read.
    folder : a folder for thumbnails and unpacked images; the caller removes it.
    brought : what the page brought.
    """

    def __init__(self, root: Path, folder: Path, brought: Brought) -> None:
        self.root, self._folder, self._brought = root, folder, brought
        self._sources: Kept[Source] = Kept(IMAGES)
        self._views: Kept[View] = Kept(VIEWS, lambda view: len(view.levels))
        self._cores: Kept[NDArray[Any]] = Kept(CORE_BYTES, lambda pixels: pixels.nbytes)
        self._tiles: Kept[Shown] = Kept(TILE_BYTES, lambda tile: len(tile.data))
        self.results = Results(root, folder)
        self._opening = threading.Lock()
        self.stage: tuple[str, int, int] | None = None

    def source(self, image: str) -> Source:
        """An image, prepared.

        Raises
        ------
        UrstError : it does not lie below the root, or cannot be read.
        """
        path = self._brought.uploads.find(image)
        with self._opening:
            try:
                return self._sources.made(path, lambda: self._open(path))
            finally:
                self.stage = None

    def _open(self, path: Path) -> Source:
        return prepare_input(path, Options(dtype="uint8"), folder=self._folder, progress=self._tell)

    def _tell(self, stage: str, done: int, total: int) -> None:
        """Note how far something is that takes long."""
        self.stage = None if done >= total else (stage, done, total)

    def _tell_if_wanted(self, stage: str, done: int, total: int) -> None:
        """The same of a painting, which ends here once nobody waits for it."""
        self._tell(stage, done, total)
        try:
            check_wanted()
        except Dropped:
            self.stage = None
            raise

    def view(self, look: Asked) -> View:
        """The painting that a look shows."""
        return self._views.made(look.painting, lambda: self._viewed(look.painting))

    def _viewed(self, look: Asked) -> View:
        source, style = self.source(look.image), self._brought.style(look)
        check_measuring(look, source)
        options = self._brought.options(look, source)
        folder = Path(mkdtemp(dir=self._folder))
        try:
            if options.mask is not None:
                mask = open_mask(options.mask, source)
                assert isinstance(mask, BurntMask)
                burn(mask, mask_file(folder))
            view = open_view(source, style, options, folder=folder, progress=self._tell_if_wanted)
        except BaseException:
            rmtree(folder, ignore_errors=True)
            raise
        finally:
            self.stage = None
        finalize(view, rmtree, folder, ignore_errors=True)  # masks and pictures of levels may be large
        return view

    def is_quick(self, look: Asked) -> bool:
        """Whether the painting of a look can be frozen within a second or so: the image is open, and no more
        than its thumbnail is measured."""
        is_open = self._sources.get(self._brought.uploads.find(look.image)) is not None
        return is_open and look.model == "lite" and look.statistics in ("auto", "thumbnail") and not look.mask

    def facts(self, look: Asked) -> dict[str, Any]:
        """What a viewer must know of an image."""
        if not (look.paints or is_upload(look.image)) and self.results.has(look.image):
            return self.results.facts(look.image) | {"tile": TILE}
        source = self.source(look.image)
        h, w = source.shape
        return {
            "width": w,
            "height": h,
            "tile": TILE,
            "levels": levels_of(source.shape),
            "exact": exact_levels(),
            "microns": microns(source),
            "before": look.before.state,
            "after": look.painting.state if look.paints else None,
        }

    def tile(self, look: Asked, level: int, x: int, y: int, suffix: str) -> Shown:
        """A tile; levels count from 0, the smallest, up to full scale.

        Raises
        ------
        BadInput : there is no such tile.
        UrstError : the image cannot be read there.
        """
        key = look, self.results.key(look), level, x, y, suffix
        return self._tiles.made(key, lambda: self._tile(look, level, x, y, suffix))

    def _tile(self, look: Asked, level: int, x: int, y: int, suffix: str) -> Shown:
        shape = self._levels(look).shape
        halvings = levels_of(shape) - 1 - level
        pixels, approximate = self._pixels(look, halvings, tile_box(shape, halvings, x, y))
        return encoded(pixels, suffix, approximate)

    def _pixels(self, look: Asked, halvings: int, box: Box) -> tuple[NDArray[np.uint8], bool]:
        """The pixels of the box of a tile, and whether they are approximate."""
        if not look.paints:
            return self._levels(look).read(halvings, box), False
        if halvings < exact_levels():
            return self._reduced(look, halvings, box), False
        return self.view(look).reduced(halvings, box), True

    def _levels(self, look: Asked) -> Levels:
        """The image of a look as it is stored."""
        return self.results.side(look) if look.side else SourceLevels(self.source(look.image))

    def pixels(self, look: Asked, halvings: int, box: Box) -> tuple[NDArray[np.uint8], bool]:
        """The pixels, (h, w, 3 or 4), of any box of what was halved so often, as the tiles show them, and
        whether they are approximate."""
        image = Box(0, 0, *halved(self.ground(look).shape, halvings))
        out, approximate = np.full((*box.shape, 4), 255, np.uint8), False
        for part in box.cells(TILE):
            whole = part.align(TILE).clip(image)

            def made(whole: Box = whole) -> NDArray[np.uint8]:
                return self._pixels(look, halvings, whole)[0]

            seen = self._cores.made((look, halvings, whole), made)
            out[part.within(box).slices][..., : seen.shape[2]] = seen[part.within(whole).slices]
            approximate = look.paints and halvings >= exact_levels()
        return out, approximate

    def ground(self, look: Asked) -> Source:
        """The image that tells where a look lies on the ground.

        Raises
        ------
        BadInput : it is a finished painting that tells nothing of it.
        """
        return self.results.ground(look) if look.side else self.source(look.image)

    def _reduced(self, look: Asked, halvings: int, box: Box) -> NDArray[np.uint8]:
        """The painting at full scale, reduced as the pyramid of the job is."""
        view = self.view(look)
        grid = view.plan.grid
        whole = box.times(1 << halvings).clip(grid.image)
        pixels = np.empty((*whole.shape, view.source.channels), np.uint8)
        for part in whole.cells(grid.core):
            core = part.align(grid.core).clip(grid.image)
            made = self._cores.made((look, core), lambda core=core: np.array(view.pixels(core)))  # type: ignore[misc]
            pixels[part.within(whole).slices] = made[part.within(core).slices]
        binary = view.source.info.validity != "alpha"
        return [pixels, *levels_below(pixels, halvings, binary=binary)][-1]

    def swatch(self, look: Asked, style: str) -> Shown:
        """A small square of the image in a style; as it is if ``style`` is empty."""
        styled = Asked(look.image, style)  # refuses styles that do not exist
        return self._tiles.made((look, styled, "swatch"), lambda: self._swatch(look, styled))

    def _swatch(self, look: Asked, styled: Asked) -> Shown:
        source = None if look.side else self.source(look.image)
        pixels = eight_bits(source.thumbnail if source else self.results.thumbnail(look))
        while min(pixels.shape[:2]) >= 2 * SWATCH:
            pixels = halve(pixels)
        (h, w), side = pixels.shape[:2], min(SWATCH, *pixels.shape[:2])
        top, left = (h - side) // 2, (w - side) // 2
        square = np.ascontiguousarray(pixels[top : top + side, left : left + side, :3])
        made = in_style(square, self._brought.style(styled), styled.model) if styled.paints else square
        return Shown(encoded_jpeg(halve(made) if side == SWATCH else made), "image/jpeg", True)


def block_tile(output: Path, level: int, x: int, y: int) -> bytes:
    """A tile, as PNG, of the finished blocks of the job that writes ``output``; what is not finished is
    transparent. BadInput if there is no such tile."""
    blocks = blocks_of(output)
    if blocks is None:
        return encoded_png(np.zeros((1, 1, 4), np.uint8))
    halvings = levels_of(blocks.shape) - 1 - level
    return encoded_png(blocks.read(halvings, tile_box(blocks.shape, halvings, x, y)), compression=1)


def encoded(pixels: NDArray[np.uint8], suffix: str, approximate: bool) -> Shown:
    """A tile as JPEG or PNG."""
    if suffix == "jpg":
        return Shown(encoded_jpeg(pixels), "image/jpeg", approximate)
    return Shown(encoded_png(pixels, compression=1), "image/png", approximate)


def exact_levels() -> int:
    """How many levels, from full scale on, show the pixels of the job."""
    return (MOST_PIXELS // TILE**2).bit_length() // 2 + 1


def tile_box(shape: tuple[int, int], halvings: int, x: int, y: int) -> Box:
    """The box of a tile in the image that was halved so often; BadInput if there is no such tile."""
    if not 0 <= halvings < levels_of(shape):
        raise BadInput("there is no such level")
    box = Box(y * TILE, x * TILE, (y + 1) * TILE, (x + 1) * TILE).clip(Box(0, 0, *halved(shape, halvings)))
    if not (box.area and x >= 0 and y >= 0):
        raise BadInput("there is no such tile")
    return box
