"""Slides that OpenSlide reads: NDPI, MIRAX, VMS, SVSLIDE, DICOM and joined tiles of Ventana; an extra.

Regions that the scanner left out have alpha 0, and are invalid. Pictures of the label and of the whole glass
are never taken for the slide. References: openslide.org/formats, openslide.org/api/openslide_8h.html.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile, in_one_line
from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count
from urst_tiles.source import valid
from urst_tiles.source.bands import choose_bands
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import Content, file_fingerprint
from urst_tiles.source.openers import FileOpener, Reader
from urst_tiles.source.spare import keep, take
from urst_tiles.source.valid import Samples
from urst_tiles.tiff.choice import Choice, Names, number_of
from urst_tiles.tiff.metadata import Info, is_rgb_profile, sane_resolution, with_items
from urst_tiles.tiff.microscopes import OBJECTIVE

#: OpenSlide's cache of decoded tiles for each slide, what it decodes beside that, and its libraries in a
#: process (measured).
CACHE_BYTES, DECODING_BYTES, LIBRARY_BYTES = 32 << 20, 16 << 20, 40 << 20

#: Side of a cell, and of the pieces in which levels are read whose pixels lie between those of the slide.
CELL, PIECE = 1024, 256

#: Bytes for each pixel of a cell: OpenSlide's, the picture that is made of it, and the samples.
PIXEL_BYTES = 14

INSTALL = "pip install 'urst-tiles[slides]'"


@cache
def library() -> Any:
    """The module openslide; None where it is not installed."""
    try:
        import openslide
    except (ImportError, OSError):  # the package may be there without its library
        return None
    return openslide


def can_open(path: Path) -> bool:
    """Whether OpenSlide is there and knows a file as a slide."""
    openslide = library()
    try:
        return openslide is not None and openslide.OpenSlide.detect_format(os.fspath(path)) is not None
    except (openslide.OpenSlideError, OSError):
        return False


def refused(path: Path) -> str:
    """Why OpenSlide, which knows a file, does not open it; empty if it does."""
    openslide = library()
    try:
        openslide.OpenSlide(os.fspath(path)).close()
    except (openslide.OpenSlideError, OSError) as error:
        return in_one_line(error, 300)
    return ""


def open_slide(path: Path) -> Any:
    """Open a slide; only its header is read. Raises DamagedFile."""
    openslide = library()
    if openslide is None:
        raise BadInput(f"{path} is a slide, which is read with OpenSlide: {INSTALL}")
    try:
        slide = openslide.OpenSlide(os.fspath(path))
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        return slide
    except (openslide.OpenSlideError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        kind = openslide.OpenSlide.detect_format(os.fspath(path)) or "unknown"
        raise DamagedFile(f"{path}, a slide of {kind}, cannot be opened; OpenSlide says: {said}") from None


class SlideReader:
    """Reads samples of a slide through OpenSlide. Several threads may use it at the same time.

    The attributes are those of `Reader`, and ``slide``, the open slide.

    Parameters
    ----------
    path : the slide.
    choice : which of red, green and blue are read.
    """

    alone = False
    has_valid = True
    cell_shape = (CELL, CELL)
    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, choice: Choice) -> None:
        self.path, self.slide = path, open_slide(path)
        self._lock = threading.Lock()
        if choice.page is not None:
            number_of(path, "page", choice.page, [Names()])
        shapes = [(int(h), int(w)) for w, h in self.slide.level_dimensions]
        self.shape, self.levels = shapes[0], tuple(shapes[1:])
        self._pick = choose_bands(path, choice.wanted, 3)
        self.colours = len(self._pick)

    @property
    def reader_bytes(self) -> int:
        """Bytes of memory that reading takes at most, besides the arrays that are returned."""
        return LIBRARY_BYTES + CACHE_BYTES + DECODING_BYTES + self.returned_bytes

    @property
    def returned_bytes(self) -> int:
        """The part of it that is made for those that read: the cells of each thread."""
        return decoder_count() * CELL * CELL * PIXEL_BYTES

    def cell(self, box: Box, level: int = 0) -> Samples:
        scale = self.slide.level_downsamples[level]
        if scale == round(scale):
            pixels = self._region(box, level)
        else:  # OpenSlide blends between pixels, by places in level 0: these must not depend on the box
            pixels = np.empty((*box.shape, 4), np.uint8)
            for piece in _pieces(box):
                whole = self._region(piece, level)
                part = piece.clip(box)
                pixels[part.within(box).slices] = whole[part.within(piece).slices]
        colour = pixels[..., :3] if self._pick == [0, 1, 2] else pixels[..., self._pick]
        return Samples(colour, valid.alpha_weight(pixels[..., 3], np.dtype(np.uint8)))

    def _region(self, box: Box, level: int) -> np.ndarray[Any, Any]:
        """The pixels, uint8 (h, w, 4), of a box of a level."""
        openslide, scale = library(), self.slide.level_downsamples[level]
        place = round(box.x0 * scale), round(box.y0 * scale)
        slide = self.slide
        try:
            return np.asarray(slide.read_region(place, level, box.shape[::-1]))
        except openslide.OpenSlideError as error:
            with self._lock:  # after an error a slide reads nothing more
                if self.slide is slide:
                    self.slide = open_slide(self.path)
            said = " ".join(str(error).split())[:300]
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot"
                f" be decoded; OpenSlide says: {said}"
            ) from None


def _pieces(box: Box) -> Iterator[Box]:
    """The cells of a lattice that a box touches."""
    for y in range(box.y0 // PIECE * PIECE, box.y1, PIECE):
        for x in range(box.x0 // PIECE * PIECE, box.x1, PIECE):
            yield Box(y, x, y + PIECE, x + PIECE)


@dataclass(frozen=True)
class SlideOpener(FileOpener):
    """Opens a slide that OpenSlide reads.

    Attributes
    ----------
    path : the slide.
    choice : what the user chose of it.
    files : all files of the slide, that with its name first.
    fingerprint : their fingerprint when the source was opened.
    content : their whole content when the job began; None outside of jobs.
    """

    path: Path
    choice: Choice
    files: tuple[Path, ...]
    fingerprint: str
    content: Content | None = None
    many: ClassVar[bool] = False

    def open(self) -> Reader:
        self.check()
        return take((self.path, self.choice), self.files) or SlideReader(self.path, self.choice)


def slide_facts(path: Path, choice: Choice) -> Facts:
    """The facts of a slide.

    Raises
    ------
    BadInput : the user chose what it does not have.
    DamagedFile : its header is damaged, or a file of it is missing.
    """
    began = time.time_ns()
    reader = SlideReader(path, choice)
    files = files_of(path)
    fingerprint = file_fingerprint(files[0], files[1:])
    keep((path, choice), files, began, reader)
    return Facts(
        path=path,
        info=_info(reader),
        fingerprint=fingerprint,
        stored=reader.shape,
        orientation=1,
        choice=choice,
        told="",
        colours=reader.colours,
        file_dtype="uint8",
        has_valid=True,
        overviews=reader.levels,
        reader_bytes=reader.reader_bytes,
        returned_bytes=reader.returned_bytes,
        once_bytes=LIBRARY_BYTES,
        spooling_bytes=0,
        opener=SlideOpener(path, choice, files, fingerprint),
        is_jpeg=_is_jpeg(reader.slide.properties),
        random_access=True,
        stretched=False,
    )


def files_of(path: Path) -> tuple[Path, ...]:
    """All files of a slide, that with its name first: those in the folder of a MIRAX slide, those that an
    index of Hamamatsu names, and all DICOM files beside a DICOM file."""
    suffix, more = path.suffix.lower(), list[Path]()
    if suffix == ".mrxs":
        more = sorted(one for one in path.with_suffix("").rglob("*") if one.is_file())
    elif suffix in (".vms", ".vmu"):
        text = path.read_text("utf-8", "replace")
        names = dict.fromkeys(name.strip() for name in re.findall(r"^[^=\n]+=(.+)$", text, re.MULTILINE))
        more = [path.parent / name for name in names if name and (path.parent / name).is_file()]
    elif _is_dicom(path):
        more = sorted(one for one in path.parent.iterdir() if one.is_file() and _is_dicom(one))
    return tuple(dict.fromkeys([path, *more]))


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _is_jpeg(known: Mapping[str, str]) -> bool:
    """Whether properties of a slide say that its pixels are JPEG, as those of these vendors always are."""
    said = [text for name, text in known.items() if name.endswith("IMAGE_FORMAT")]  # MIRAX's levels
    return known.get("openslide.vendor") in ("hamamatsu", "sakura") or said[:1] == ["JPEG"]


def _info(reader: SlideReader) -> Info:
    """What the output takes over of a slide: pixel size and magnification, the colour profile."""
    slide, known = reader.slide, reader.slide.properties
    microns = [_number(known.get(f"openslide.mpp-{axis}")) for axis in "yx"]
    per_cm = sane_resolution(1e4 / microns[0], 1e4 / microns[1]) if all(microns) else None
    power = _number(known.get(OBJECTIVE)) or None
    items = [("openslide.vendor", "", str(known.get("openslide.vendor", "")))]
    items += [(OBJECTIVE, "", f"{power:g}")] if power else []
    profile = slide.color_profile.tobytes() if slide.color_profile is not None else None
    return Info(
        icc=profile if profile and is_rgb_profile(profile) else None,
        pixels_per_cm=per_cm,
        magnification=power,
        gdal_metadata=with_items(None, items),
        validity="mask",
        lost=("further properties that its scanner wrote",),
    )


def _number(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
