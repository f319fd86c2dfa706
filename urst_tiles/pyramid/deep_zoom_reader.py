"""Reading Deep Zoom images (DZI), as `urst_tiles.pyramid.deep_zoom` describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, halved
from urst_tiles.pyramid.deep_zoom import dzi_levels
from urst_tiles.pyramid.encode import codecs
from urst_tiles.pyramid.formats import tiles_of_dzi
from urst_tiles.tiff.bytes import FileBytes

#: The most bytes of a description that are read.
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class DziFacts:
    """What the description of a Deep Zoom image says.

    Attributes
    ----------
    shape : (height, width) in pixels.
    side : of a tile, in pixels.
    kind : the suffix of the tiles.
    said : the texts of its processing instructions, by their names.
    """

    shape: tuple[int, int]
    side: int
    kind: str
    said: dict[str, str] = field(default_factory=dict)


def dzi_facts(path: Path) -> DziFacts | None:
    """What the file ``path`` says of a Deep Zoom image without overlap; None for a file that is no such
    description."""
    found: dict[str, str] = {}
    said: dict[str, str] = {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag in ("Image", "Size"):
            found.update(attributes)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.ProcessingInstructionHandler = said.__setitem__
    try:
        parser.Parse(FileBytes(path)(0, MOST_BYTES), True)
        height, width, side = (int(found[name]) for name in ("Height", "Width", "TileSize"))
    except (expat.ExpatError, KeyError, ValueError):
        return None
    kind = found.get("Format", "")
    good = height > 0 and width > 0 and side > 0 and re.fullmatch(r"\w{1,8}", kind)
    return DziFacts((height, width), side, kind, said) if good and found.get("Overlap", "0") == "0" else None


class DeepZoom:
    """The pixels of a Deep Zoom image at each of its levels.

    Attributes
    ----------
    path : the file that describes it.
    shape : (height, width) in pixels.
    facts : what that file says.

    Raises
    ------
    DamagedFile : the file describes no Deep Zoom image whose tiles can be read.
    """

    def __init__(self, path: Path) -> None:
        facts = dzi_facts(path)
        if facts is None or facts.kind not in ("jpg", "jpeg", "png"):
            raise DamagedFile(f"{path} describes no Deep Zoom image with tiles of JPEG or PNG")
        self.path, self.facts, self.shape = path, facts, facts.shape
        self.folder, self._top = tiles_of_dzi(path), dzi_levels(*facts.shape) - 1

    def tile_path(self, halvings: int, row: int, column: int) -> Path:
        """The file of a tile of the level that was halved so often."""
        return self.folder / str(self._top - halvings) / f"{column}_{row}.{self.facts.kind}"

    def read(self, halvings: int, box: Box) -> NDArray[np.uint8]:
        """The pixels, uint8, (h, w, 3 or 4), of a box of the level that was halved so often.

        Raises
        ------
        DamagedFile : a tile is missing, cannot be decoded, or has another size than it should.
        """
        pieces = {cell: self._tile(halvings, cell) for cell in box.cells(self.facts.side)}
        out = np.empty((*box.shape, max(piece.shape[2] for piece in pieces.values())), np.uint8)
        out[..., 3:] = 255
        for cell, piece in pieces.items():
            out[cell.within(box).slices][..., : piece.shape[2]] = piece
        return out

    def _tile(self, halvings: int, cell: Box) -> NDArray[np.uint8]:
        """The pixels of a box that lies inside one tile."""
        side = self.facts.side
        row, column = cell.y0 // side, cell.x0 // side
        path = self.tile_path(halvings, row, column)
        name = f"{path}, a tile of {self.path.name},"
        whole = Box(row * side, column * side, (row + 1) * side, (column + 1) * side)
        whole = whole.clip(Box(0, 0, *halved(self.shape, halvings)))
        try:
            data = path.read_bytes()
            decode = codecs.png_decode if self.facts.kind == "png" else codecs.jpeg_decode
            pixels = np.asarray(decode(data))
        except OSError as error:
            raise DamagedFile(f"{name} cannot be read: {error.strerror}") from None
        except (RuntimeError, ValueError):
            raise DamagedFile(f"{name} is damaged") from None
        if (
            pixels.dtype != np.uint8
            or pixels.shape[:2] != whole.shape
            or pixels.shape[2:] not in ((3,), (4,))
        ):
            raise DamagedFile(f"{name} has another size than it should")
        return pixels[cell.within(whole).slices]
