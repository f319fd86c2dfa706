"""Deep Zoom (DZI) and IIIF: folders of tiles that a viewer in a browser reads without any server program.

    NAME.dzi, NAME_files/LEVEL/COLUMN_ROW.jpg               level 0 is one pixel, each next one twice as wide
    NAME/info.json, NAME/REGION/SIZE/0/default.jpg          IIIF Image API 3.0, level 0

Tiles are JPEG, or PNG where pixels may be invalid. References: Deep Zoom file format (Microsoft, 2011); IIIF
Image API 3.0, sections 4 and 5; names of tiles are those that OpenSeadragon asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.machine import in_order
from urst_tiles.progress import Progress
from urst_tiles.pyramid.encode import codecs, encode_jpeg
from urst_tiles.pyramid.formats import tiles_of_dzi
from urst_tiles.pyramid.picture import Made
from urst_tiles.pyramid.pixels import StoredLevel
from urst_tiles.pyramid.reduce import smaller
from urst_tiles.tiff.metadata import PROVENANCE, Info

_SCHEMA = "http://schemas.microsoft.com/deepzoom/2008"

#: Where a tile of (level counted from full resolution, row, column) lies.
_Place = Callable[[int, int, int], Path]


def write_dzi(path: Path, levels: Sequence[StoredLevel], info: Info, made: Made, progress: Progress) -> None:
    """Write a DZI: the file ``path``, and the folder of its tiles beside it.

    Parameters
    ----------
    levels : the finished pyramid; the levels below one tile, down to one pixel, are made here.
    made : has the quality of JPEG, and what made the picture.
    progress : called with "writing" and how many tiles there are.
    """
    first, kind = levels[0], tile_kind(levels[0])
    top = dzi_levels(first.height, first.width) - 1
    folder = tiles_of_dzi(path)

    def place(level: int, row: int, column: int) -> Path:
        return folder / str(top - level) / f"{column}_{row}.{kind}"

    _write_tiles(levels, place, made, progress)
    pixels = levels[-1].tile(0, 0)
    for level in range(len(levels), top + 1):
        pixels = smaller(pixels, first.stage.encoding)
        place(level, 0, 0).parent.mkdir(parents=True, exist_ok=True)
        place(level, 0, 0).write_bytes(encode(pixels, made.quality))
    path.write_text(description((first.height, first.width), first.tile_side, kind, made.provenance))


def description(shape: tuple[int, int], side: int, kind: str, provenance: str | None = None) -> str:
    """The text of a file ``.dzi``.

    Parameters
    ----------
    shape : (height, width) of the image in pixels.
    side : of a tile, in pixels.
    kind : the suffix of the tiles, jpg or png.
    provenance : what made the picture, as JSON in ASCII. It stands in a processing instruction, which other
        readers of XML pass over (XML 1.0, section 2.6).
    """
    (height, width), said = shape, ""
    if provenance is not None:
        said = f"<?{PROVENANCE} {provenance.replace('?>', '?' + chr(92) + 'u003e')}?>\n"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{said}<Image xmlns="{_SCHEMA}" Format="{kind}" Overlap="0"'
        f' TileSize="{side}">\n  <Size Width="{width}" Height="{height}"/>\n</Image>\n'
    )


def dzi_levels(height: int, width: int) -> int:
    """How many levels a DZI has, from one pixel to full resolution."""
    return (max(height, width) - 1).bit_length() + 1


def write_iiif(path: Path, levels: Sequence[StoredLevel], info: Info, made: Made, progress: Progress) -> None:
    """Write the folder ``path`` of a static IIIF image, with its ``info.json``; see `write_dzi`."""
    first, kind = levels[0], tile_kind(levels[0])
    shape, side = (first.height, first.width), first.tile_side

    def place(level: int, row: int, column: int) -> Path:
        return path / iiif_name(shape, side, level, row, column) / f"default.{kind}"

    _write_tiles(levels, place, made, progress)
    small = levels[-1]
    facts = {
        "@context": "http://iiif.io/api/image/3/context.json",
        "id": path.name,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level0",
        "width": first.width,
        "height": first.height,
        "sizes": [{"width": small.width, "height": small.height}],
        "tiles": [{"width": side, "height": side, "scaleFactors": [1 << n for n in range(len(levels))]}],
    }
    if kind != "jpg":
        facts |= {"preferredFormats": [kind], "extraFormats": [kind]}
    (path / "info.json").write_text(json.dumps(facts, indent=1) + "\n")


def iiif_name(shape: tuple[int, int], side: int, level: int, row: int, column: int) -> str:
    """The part REGION/SIZE/0 of the name of a tile of ``side`` pixels; ``shape`` is that of the image."""
    (height, width), scale = shape, 1 << level
    y, x = row * side * scale, column * side * scale
    h, w = min(side * scale, height - y), min(side * scale, width - x)
    region = "full" if (h, w) == shape else f"{x},{y},{w},{h}"
    size = ceil_div(w, scale), ceil_div(h, scale)
    return f"{region}/{'max' if size == (width, height) else f'{size[0]},{size[1]}'}/0"


def tile_kind(level: StoredLevel) -> str:
    """The suffix of tiles: jpg, or png for pixels with alpha."""
    return "jpg" if level.channels == 3 else "png"


def encode(pixels: NDArray, quality: int) -> bytes:
    """A tile as JPEG, or with alpha as PNG."""
    pixels = np.ascontiguousarray(pixels)
    return encode_jpeg(pixels, quality) if pixels.shape[-1] == 3 else bytes(codecs.png_encode(pixels))


def _write_tiles(levels: Sequence[StoredLevel], place: _Place, made: Made, progress: Progress) -> None:
    """Write the tiles of all levels."""
    total = sum(level.rows * level.columns for level in levels)

    def write(tile: tuple[int, int, int]) -> None:
        number, row, column = tile
        path = place(number, row, column)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(levels[number].tile(row, column), made.quality))

    with ThreadPoolExecutor(max(2, levels[0].stage.threads), "encode") as pool:
        for done, _ in enumerate(in_order(pool, write, _tiles(levels)), 1):
            progress("writing", done, total)


def _tiles(levels: Sequence[StoredLevel]) -> Iterator[tuple[int, int, int]]:
    """(level, row, column) of all tiles."""
    for number, level in enumerate(levels):
        for row in range(level.rows):
            for column in range(level.columns):
                yield number, row, column
