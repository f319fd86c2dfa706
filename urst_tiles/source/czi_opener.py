"""Access to the pixels of Zeiss's CZI through pylibCZIrw."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count
from urst_tiles.source import valid
from urst_tiles.source.bands import choose_bands
from urst_tiles.source.czi import CACHE_BYTES, TYPES, SubBlock, image_of, open_document, select
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import Content, file_fingerprint
from urst_tiles.source.openers import FileOpener, Reader
from urst_tiles.source.valid import Samples
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.metadata import Info, sane_resolution, with_items
from urst_tiles.tiff.microscopes import OBJECTIVE
from urst_tiles.tiff.selection import chosen, told

#: Side of a cell: a sub-block is decoded whole for any part of it.
CELL = 2048

#: Bytes of memory of libCZI (measured), and the most that a decoded sub-block may have.
LIBRARY_BYTES, MOST_PIECE_BYTES = 24 << 20, 1 << 30

#: Up to how many cells between the edges of sub-blocks it is found out whether these cover the image.
MOST_CELLS = 1 << 24


class CziReader:
    """Reads samples of a plane of a CZI file and of its pyramid. Several threads may use it at the same time.

    The attributes are those of `Reader`, and ``image``, ``notes`` and ``reader_bytes``. What no sub-block
    covers is invalid.
    """

    alone = False
    cell_shape = (CELL, CELL)

    def __init__(self, path: Path, choice: Choice) -> None:
        self.path, self._document = path, open_document(path)
        self.image = image_of(path, self._document)
        self._scene, self._z, self._t, picks, self.notes = select(path, self.image, choice)
        self._lock, self._picks = threading.Lock(), picks
        types = [self.image.types[c] for c in picks]
        self._rgb = self.image.in_colour(picks[0])
        self._bands = choose_bands(path, choice.wanted, 3) if self._rgb and len(self.image.types) == 1 else []
        self.dtype = np.result_type(*(np.dtype(TYPES[one][0]) for one in types))
        self.colours = len(self._bands) or (3 if self._rgb else len(picks))
        box = self._scene.box
        self.shape = box.shape
        self.levels = tuple((box.shape[0] // f, box.shape[1] // f) for f in self._scene.factors)
        own = [one for one in self.image.pieces if self._is_read(one)]
        places = [(one.box.y0, one.box.x0, one.box.y1, one.box.x1) for one in own if one.factor <= 1.5]
        self._places = np.array(places, np.int64).reshape(-1, 4)
        self._largest = max((one.size_bytes for one in own), default=0)
        if self._largest > MOST_PIECE_BYTES:
            raise BadInput(
                f"{path}: its sub-blocks are too large to be decoded at once; export it as OME-TIFF"
            )
        self.has_valid = self.dtype.kind == "f" or not _fills(self._places, box)

    def _is_read(self, piece: SubBlock) -> bool:
        own = self._scene.number is None or piece.scene == self._scene.number
        return own and (piece.z, piece.t) == (self._z, self._t) and piece.channel == self._picks[0]

    @property
    def reader_bytes(self) -> int:
        """Bytes of memory that reading takes at most, besides the arrays that are returned."""
        cell = CELL * CELL * (3 if self._rgb else len(self._picks) + 1) * self.dtype.itemsize * 2
        return LIBRARY_BYTES + CACHE_BYTES + 2 * self._largest + decoder_count() * cell

    def cell(self, box: Box, level: int = 0) -> Samples:
        factor = 1 if level == 0 else self._scene.factors[level - 1]
        y0, x0 = self._scene.box.y0, self._scene.box.x0
        there = Box(y0 + box.y0 * factor, x0 + box.x0 * factor, y0 + box.y1 * factor, x0 + box.x1 * factor)
        with self._lock:  # libCZI is no faster on several threads
            parts = [self._channel(box, there, factor, channel) for channel in self._picks]
        if self._rgb:
            colour = parts[0][..., ::-1]
            colour = colour[..., self._bands] if self._bands not in ([], [0, 1, 2]) else colour
        else:
            colour = np.concatenate([part.astype(self.dtype, copy=False) for part in parts], axis=-1)
        out = valid.weight_dtype(self.dtype)
        weight = None
        if self.has_valid:
            weight = self._covered(there, factor).astype(out) * out.type(valid.full(out))
            if self.dtype.kind == "f":
                weight = valid.combine(weight, valid.has_data(colour, None), out)
        return Samples(np.ascontiguousarray(colour), weight)

    def _channel(self, box: Box, there: Box, factor: int, channel: int) -> NDArray[Any]:
        """The samples, (h, w, 1 or 3), of a channel in a box, which is ``there`` in the file."""
        (height, width), plane = there.shape, {"C": channel, "Z": self._z, "T": self._t}
        roi = (there.x0, there.y0, width, height)
        try:
            found = self._document.read(roi, plane, self._scene.number, 1 / factor)
        except Exception as error:  # libCZI's are RuntimeErrors
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot"
                f" be decoded; libCZI says: {' '.join(str(error).split())[:200]}"
            ) from None
        if found.shape[:2] != box.shape:
            raise DamagedFile(f"{self.path}: libCZI gives {found.shape[:2]} pixels of {box.shape}")
        return found

    def _covered(self, there: Box, factor: int = 1) -> NDArray[np.bool_]:
        """Which pixels of a box of the file some sub-block of full resolution covers; with a ``factor``, of
        its coarser pixels those that it covers wholly."""
        out = np.zeros((there.shape[0] // factor, there.shape[1] // factor), bool)
        edge = there.y0, there.x0
        for y0, x0, y1, x1 in self._places[_meeting(self._places, there)].tolist():
            rows = slice(max(0, -((edge[0] - y0) // factor)), max(0, (y1 - edge[0]) // factor))
            columns = slice(max(0, -((edge[1] - x0) // factor)), max(0, (x1 - edge[1]) // factor))
            out[rows, columns] = True
        return out


def _fills(places: NDArray[Any], box: Box) -> bool:
    """Whether boxes, rows of (y0, x0, y1, x1), cover all of a box. For very many of them that is not found
    out, and they count as if they did not."""
    inside = np.clip(places, (box.y0, box.x0) * 2, (box.y1, box.x1) * 2)
    rows = np.unique([*inside[:, [0, 2]].ravel(), box.y0, box.y1])
    columns = np.unique([*inside[:, [1, 3]].ravel(), box.x0, box.x1])
    if rows.size * columns.size > MOST_CELLS:
        return False
    seen = np.zeros((rows.size - 1, columns.size - 1), bool)
    for y0, x0, y1, x1 in inside.tolist():
        down, across = np.searchsorted(rows, (y0, y1)), np.searchsorted(columns, (x0, x1))
        seen[down[0] : down[1], across[0] : across[1]] = True
    return bool(seen.all())


def _meeting(places: NDArray[Any], box: Box) -> NDArray[np.bool_]:
    """Which of the boxes, rows of (y0, x0, y1, x1), meet a box."""
    rows = (places[:, 0] < box.y1) & (places[:, 2] > box.y0)
    found: NDArray[np.bool_] = rows & (places[:, 1] < box.x1) & (places[:, 3] > box.x0)
    return found


@dataclass(frozen=True)
class CziOpener(FileOpener):
    """Opens a CZI file through pylibCZIrw.

    Attributes
    ----------
    path : the file.
    choice : the page and the channels that the user chose.
    fingerprint : that of the file when the source was opened.
    content : its whole content when the job began; None outside of jobs.
    """

    path: Path
    choice: Choice
    fingerprint: str
    content: Content | None = None
    many: ClassVar[bool] = False

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def open(self) -> Reader:
        self.check()
        return CziReader(self.path, self.choice)


def czi_facts(path: Path, choice: Choice) -> Facts:
    """The facts of a CZI file that pylibCZIrw reads.

    Raises
    ------
    BadInput, DamagedFile : as `open_document`, `image_of` and `select`.
    """
    reader = CziReader(path, choice)
    fingerprint = file_fingerprint(path)
    return Facts(
        path=path,
        info=_info(reader),
        fingerprint=fingerprint,
        stored=reader.shape,
        orientation=1,
        choice=choice,
        told=told(reader.notes),
        colours=reader.colours,
        file_dtype=reader.dtype.name,
        has_valid=reader.has_valid,
        overviews=reader.levels,
        reader_bytes=reader.reader_bytes,
        spooling_bytes=0,
        opener=CziOpener(path, choice, fingerprint),
        random_access=True,
        stretched=reader.dtype != np.uint8,
    )


def _info(reader: CziReader) -> Info:
    """What the output takes over: pixel size and magnification."""
    image = reader.image
    per_cm = None if image.microns is None else sane_resolution(*(1e4 / size for size in image.microns))
    items: Sequence[tuple[str, str, str]] = [("openslide.vendor", "", "zeiss")]
    items = [*items, (OBJECTIVE, "", f"{image.magnification:g}")] if image.magnification else items
    return Info(
        pixels_per_cm=per_cm,
        magnification=image.magnification,
        gdal_metadata=with_items(None, items),
        validity="mask" if reader.has_valid else "none",
        chosen=chosen(reader.notes),
        lost=("further properties that its microscope wrote",),
    )
