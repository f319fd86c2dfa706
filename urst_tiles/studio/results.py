"""Finished paintings in the studio: each beside the image that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from urst_tiles.api.result import (
    Finished,
    Levels,
    SourceLevels,
    is_finished_painting,
    open_result,
)
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, halved
from urst_tiles.kept import Kept
from urst_tiles.pyramid.deep_zoom import dzi_levels
from urst_tiles.source import Source
from urst_tiles.studio.asked import Asked, inside, relative

#: How many paintings are kept open, and of how many files it is known whether they are some.
OPEN, KNOWN = 2, 256


class Results:
    """The finished paintings below a root.

    Parameters
    ----------
    root : the folder of the images; nothing outside of it is read.
    folder : a folder for thumbnails and unpacked images; the caller removes it.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder
        self._open: Kept[Finished] = Kept(OPEN)
        self._known: Kept[bool] = Kept(KNOWN)

    def has(self, image: str) -> bool:
        """Whether an image is a finished painting."""
        path = inside(self._root, image)
        return self._known.made(_key(path), lambda: is_finished_painting(path))

    def result(self, image: str) -> Finished:
        """The finished painting of that name.

        Raises
        ------
        UrstError : it does not lie below the root, or cannot be read.
        """
        path = inside(self._root, image)
        return self._open.made(_key(path), lambda: open_result(path, self._root, folder=self._folder))

    def side(self, look: Asked) -> Levels:
        """The pixels of the painting, or of the image that it was made from."""
        found = self.result(look.image)
        if look.side == "made":
            return found.pixels
        if found.input is None:
            raise BadInput(found.said)
        return SourceLevels(found.input)

    def ground(self, look: Asked) -> Source:
        """The image that tells where a painting lies on the ground. Raises BadInput if none does."""
        levels, found = self.side(look), self.result(look.image).input
        source = levels.source if isinstance(levels, SourceLevels) else found
        if source is None:
            raise BadInput(f"{look.image} does not say where it lies on the ground")
        return source

    def thumbnail(self, look: Asked) -> NDArray[Any]:
        """The same in small."""
        levels = self.side(look)
        if isinstance(levels, SourceLevels):
            return levels.source.thumbnail
        halvings = max(0, levels_of(levels.shape) - 10)  # at most 512 pixels
        return levels.read(halvings, Box(0, 0, *halved(levels.shape, halvings)))

    def facts(self, image: str) -> dict[str, Any]:
        """What a viewer must know of a painting; ``before`` is itself where its input was not found."""
        found = self.result(image)
        if found.input is None:  # it may have come meanwhile
            path = inside(self._root, image)
            found = self._open.put(_key(path), open_result(path, self._root, folder=self._folder))
        source = found.input or (found.pixels.source if isinstance(found.pixels, SourceLevels) else None)
        (h, w), levels = found.pixels.shape, levels_of(found.pixels.shape)
        input, made = (Asked(image, side=side).state for side in ("input", "made"))
        return {
            "width": w,
            "height": h,
            "levels": levels,
            "exact": levels,
            "microns": microns(source) if source else None,
            "before": input if found.input else made,
            "after": made if found.input else None,
            "result": {
                "input": relative(self._root, found.input.path) if found.input else None,
                "style": found.style,
                "said": found.said,
            },
        }

    def key(self, look: Asked) -> object:
        """What changes when another file comes to lie in the place of a painting; None for other looks."""
        return _key(inside(self._root, look.image)) if look.side else None


def _key(path: Path) -> tuple[object, ...]:
    """What changes when another file comes to lie at a path."""
    told = path.stat()
    return path, told.st_ino, told.st_mtime_ns, told.st_size


def levels_of(shape: tuple[int, int]) -> int:
    """How many levels there are, from full scale to a single pixel."""
    return dzi_levels(*shape)


def microns(source: Source) -> float | None:
    """The side of a pixel in micrometres, if the file says it."""
    known = source.info.microns_per_pixel
    return known[1] if known else None
