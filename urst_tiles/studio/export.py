"""A folder to share: a page on which a finished painting is swiped over the image that it was made from.

    index.html, swipe.js, swipe.css     the page
    openseadragon.min.js, its licence   what shows tiles
    facts.js                            sizes and names
    before.dzi, before_files/           the image, as a Deep Zoom image
    after.dzi, after_files/             the painting

It needs no server: a browser opens ``index.html`` from a disk as well as from any place of static files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.result import Finished, SourceLevels
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.deep_zoom import dzi_levels, encode
from urst_tiles.pyramid.deep_zoom_reader import DeepZoom
from urst_tiles.pyramid.deep_zoom_tree import TILE, Picture, tile_count, write_tree
from urst_tiles.pyramid.formats import tiles_of_dzi
from urst_tiles.storage.folders import attempting_folder, give_name, remove_dead_folders, sync_tree
from urst_tiles.storage.publish import check_room

#: The files of the page, and of OpenSeadragon.
PAGE = Path(__file__).parent / "swipe"
OPENSEADRAGON = Path(__file__).parent / "page" / "openseadragon"

#: A folder is measured by so many tiles on a side.
SAMPLES = 3

#: All levels of a pyramid have so many times the pixels of full scale.
PYRAMID = 4 / 3


@dataclass(frozen=True)
class FolderSize:
    """What a folder takes: about so many bytes, in so many files."""

    about_bytes: int
    files: int


def size_of(found: Finished, quality: int) -> FolderSize:
    """How large the exported folder of a painting will be; some tiles of it are made for that.

    Raises
    ------
    UrstError : the pictures cannot be read.
    """
    sides = [found.pixels, _input(found)]
    pixels = sum(_bytes(one.shape, lambda box, one=one: one.read(0, box), quality) for one in sides)  # type: ignore[misc]
    page = [path for folder in (PAGE, OPENSEADRAGON) for path in folder.iterdir()]
    tiles = sum(tile_count(one.shape, one.facts.side if isinstance(one, DeepZoom) else TILE) for one in sides)
    return FolderSize(pixels + sum(path.stat().st_size for path in page), tiles + len(page) + 3)


def _input(found: Finished) -> SourceLevels:
    """The image that a painting was made from. Raises BadInput where it was not found."""
    if found.input is None:
        raise BadInput(f"{found.said.rstrip('.')}; name it with --input INPUT")
    return SourceLevels(found.input)


def _bytes(shape: tuple[int, int], read: Callable[[Box], NDArray[np.uint8]], quality: int) -> int:
    """About the bytes of all tiles of a picture, from some of them."""
    h, w = shape
    steps = [[(2 * k + 1) * n // (2 * SAMPLES) // TILE * TILE for k in range(SAMPLES)] for n in shape]
    corners = {(y, x) for y in steps[0] for x in steps[1]}
    boxes = [Box(y, x, y + TILE, x + TILE).clip(Box(0, 0, h, w)) for y, x in corners]
    made = sum(len(encode(read(box), quality)) for box in boxes)
    return int(made * PYRAMID * h * w / sum(box.area for box in boxes))


def export(
    found: Finished, folder: Path, size: FolderSize, quality: int = 90, progress: Progress = silent
) -> None:
    """Write the folder; it gets its name when all is in it.

    Parameters
    ----------
    folder : its absolute path; there must be nothing.
    size : what `size_of` returned.
    quality : of tiles, 1 to 100. Those of a painting that is a Deep Zoom image are copied as they are.
    progress : called with "writing" and numbers of pixels, of the image and then of the painting.

    Raises
    ------
    BadInput : there is something at ``folder``, or the image that the painting was made from was not found.
    DiskFull, UrstError : the disk is full; the pictures cannot be read.
    """
    before = _input(found)
    if os.path.lexists(folder):
        raise BadInput(f"{folder} exists; name a folder that does not")
    check_room(folder.parent, size.about_bytes)
    remove_dead_folders(folder.parent, folder.name)
    with attempting_folder(folder) as attempt:
        made = attempt / "made"
        made.mkdir()
        facts = {
            "before": _written(made / "before.dzi", before, quality, progress),
            "after": _written(made / "after.dzi", found.pixels, quality, progress),
            "names": {"before": before.source.path.name, "after": found.path.name, "style": found.style},
        }
        for path in (*PAGE.iterdir(), OPENSEADRAGON / "openseadragon.min.js"):
            shutil.copyfile(path, made / path.name)
        shutil.copyfile(OPENSEADRAGON / "LICENSE.txt", made / "openseadragon.LICENSE.txt")
        (made / "facts.js").write_text(f"window.facts = {json.dumps(facts, indent=1)};\n")
        sync_tree(made)
        try:
            give_name(made, folder, replace=False)
        except FileExistsError:
            raise BadInput(f"{folder} exists; name a folder that does not") from None


def _written(path: Path, levels: Any, quality: int, progress: Progress) -> dict[str, Any]:
    """Write a picture as a Deep Zoom image; what the page must know of it."""
    side = TILE
    if isinstance(levels, DeepZoom):
        side = levels.facts.side
        shutil.copytree(levels.folder, tiles_of_dzi(path))
        shutil.copyfile(levels.path, path)
    else:
        binary = levels.source.info.validity != "alpha"
        write_tree(path, Picture(levels.shape, lambda box: levels.read(0, box), binary), quality, progress)
    first = next(tiles_of_dzi(path).glob("0/*"))
    return {
        "folder": tiles_of_dzi(path).name,
        "kind": first.suffix[1:],
        "width": levels.shape[1],
        "height": levels.shape[0],
        "tile": side,
        "levels": dzi_levels(*levels.shape),
    }
