"""What a file of Zeiss's CZI holds, through pylibCZIrw, an extra: scenes, planes, channels and pyramid.

Reference: the documentation of libCZI (zeiss.github.io/libczi). A file is made of sub-blocks: pieces of one
plane at a place, those of the pyramid at a coarser zoom.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, DamagedFile, in_one_line
from urst_tiles.geometry import Box
from urst_tiles.tiff.choice import Choice, Names, colour_numbers, number_of, said
from urst_tiles.tiff.selection import Note

INSTALL = "pip install 'urst-tiles[czi]'"

#: libCZI's types of pixels: NumPy's name of the samples, and how many a pixel has.
TYPES = {
    "Gray8": ("uint8", 1), "Gray16": ("uint16", 1), "Gray32Float": ("float32", 1), "Bgr24": ("uint8", 3),
    "Bgr48": ("uint16", 3), "Bgr96Float": ("float32", 3),
}  # fmt: skip

#: The colours in which a channel is pure red, green or blue, without their alpha.
PURE = {"ff0000": "red", "00ff00": "green", "0000ff": "blue"}

#: Bytes of decoded sub-blocks that libCZI keeps.
CACHE_BYTES = 64 << 20

#: Dimensions of which the first place is read: rotation, illumination, phase, view, block.
OTHERS = "RIHVB"


@dataclass(frozen=True)
class Scene:
    """A part of the glass that was scanned.

    Attributes
    ----------
    number : by which libCZI knows it; None if the file has none but is one image.
    box : its place in the coordinates of the file, which may be below 0.
    factors : by how much each level of its pyramid is smaller, the finest first.
    """

    number: int | None
    box: Box
    factors: tuple[int, ...] = ()


@dataclass(frozen=True)
class SubBlock:
    """A sub-block: its box in the coordinates of the file, how much smaller its pixels are than that, its
    plane, and the bytes of its decoded pixels."""

    box: Box
    factor: float
    scene: int
    channel: int
    z: int
    t: int
    size_bytes: int


@dataclass(frozen=True)
class CziImage:
    """What a CZI file holds.

    Attributes
    ----------
    scenes : its scenes.
    depths, times : how many planes each has.
    channels : the names of the channels.
    colours : for each of them "red", "green" or "blue" if it is shown in just that colour, or None.
    types : libCZI's type of the pixels of each channel, a key of `TYPES`.
    microns : (y, x) size of a pixel, or None.
    magnification : that of the objective, or None.
    others : what of further dimensions is read, in words.
    pieces : its sub-blocks.
    """

    scenes: tuple[Scene, ...]
    depths: int
    times: int
    channels: tuple[str | None, ...]
    colours: tuple[str | None, ...]
    types: tuple[str, ...]
    microns: tuple[float, float] | None
    magnification: float | None
    others: tuple[str, ...] = ()
    pieces: tuple[SubBlock, ...] = field(default=(), repr=False)

    def in_colour(self, channel: int) -> bool:
        """Whether a channel, counted from 0, has red, green and blue by itself."""
        return TYPES[self.types[channel]][1] == 3

    @property
    def pages(self) -> int:
        """How many planes there are in all scenes."""
        return len(self.scenes) * self.depths * self.times

    def plane(self, page: int) -> tuple[int, int, int]:
        """The scene, the depth and the time of a page, all counted from 0: depths come first, then times."""
        rest, z = divmod(page, self.depths)
        scene, t = divmod(rest, self.times)
        return scene, z, t

    def page_name(self, page: int) -> str:
        """What a page is called."""
        scene, z, t = self.plane(page)
        words = [f"scene {scene + 1}"] if len(self.scenes) > 1 else []
        words += [f"z {z + 1}"] if self.depths > 1 else []
        return ", ".join([*words, f"t {t + 1}"] if self.times > 1 else words)


@cache
def library() -> Any:
    """The module ``pylibCZIrw.czi``; None where it is not installed."""
    try:
        from pylibCZIrw import czi
    except (ImportError, OSError):
        return None
    return czi


def open_document(path: Path) -> Any:
    """An open CZI file. Raises BadInput or DamagedFile."""
    czi = library()
    if czi is None:
        raise BadInput(f"{path} is a Zeiss image, which is read with pylibCZIrw: {INSTALL}")
    try:
        return czi.CziReader(os.fspath(path), cache_options=czi.CacheOptions(max_memory_usage=CACHE_BYTES))
    except Exception as error:  # libCZI's are RuntimeErrors
        raise DamagedFile(
            f"{path}, a Zeiss image, cannot be opened; libCZI says: {in_one_line(error)}"
        ) from None


def image_of(path: Path, document: Any) -> CziImage:
    """What an open CZI file holds; no pixels are decoded.

    Raises
    ------
    BadInput : it holds no pixels, or pixels of a type that is not read.
    DamagedFile : its metadata contradict themselves.
    """
    try:
        sizes = document.total_bounding_box
        types = tuple(document.get_channel_pixel_type(c) for c in range(sizes["C"][1]))
        pieces = tuple(_pieces(document))
        scenes = tuple(_scenes(document, pieces))
        metadata = document.metadata.get("ImageDocument", {}).get("Metadata", {}) or {}
    except Exception as error:
        raise DamagedFile(
            f"{path}: what it holds makes no sense; libCZI says: {in_one_line(error)}"
        ) from None
    wrong = sorted(set(types) - set(TYPES))
    if wrong or not scenes or not types:
        what = f"pixels of the type {wrong[0]}, which are not read" if wrong else "no pixels"
        raise BadInput(f"{path} holds {what}; export it from ZEN as OME-TIFF")
    names, colours = _channels(metadata, len(types))
    others = tuple(f"{d} 1 of {sizes[d][1]}" for d in OTHERS if d in sizes and sizes[d][1] > 1)
    return CziImage(
        scenes, sizes["Z"][1], sizes["T"][1], names, colours, types, _microns(metadata), _power(metadata),
        others, pieces,
    )  # fmt: skip


def _pieces(document: Any) -> Iterator[SubBlock]:
    found = list[SubBlock]()

    def keep(_: int, info: Any) -> bool:
        found.append(_piece(info))
        return True

    document.enumerate_subblocks(keep)
    yield from found


def _piece(info: Any) -> SubBlock:
    rect, size = info.logicalRect, info.physicalSize
    place = {str(key).rpartition(".")[2]: int(value) for key, value in info.coordinate.to_dict().items()}
    bands = TYPES.get(str(info.pixelType).rpartition(".")[2], ("float32", 3))
    itemsize = {"uint8": 1, "uint16": 2, "float32": 4}[bands[0]]
    box = Box(rect.y, rect.x, rect.y + rect.h, rect.x + rect.w)
    scene, channel, z, t = (place.get(name, 0) for name in "SCZT")
    size_bytes = size.w * size.h * bands[1] * itemsize
    return SubBlock(box, rect.w / max(1, size.w), scene, channel, z, t, size_bytes)


def _scenes(document: Any, pieces: tuple[SubBlock, ...]) -> Iterator[Scene]:
    """The scenes, or all of the file as one."""
    rects = document.scenes_bounding_rectangle_no_pyramid or {
        None: document.total_bounding_rectangle_no_pyramid
    }
    for number, rect in rects.items():
        own = [one for one in pieces if number is None or one.scene == number]
        counts = Counter(round(one.factor) for one in own if one.factor > 1.5)
        exact = (f for f in sorted(counts) if min(rect.h, rect.w) >= f)
        if rect.w > 0 and rect.h > 0:
            yield Scene(number, Box(rect.y, rect.x, rect.y + rect.h, rect.x + rect.w), tuple(exact))


def _listed(where: Any, *names: str) -> list[dict[str, Any]]:
    """The elements at a path of XML that xmltodict parsed: none, one or several."""
    for name in names:
        where = where.get(name) if isinstance(where, dict) else None
    found = where if isinstance(where, list) else [where]
    return [one for one in found if isinstance(one, dict)]


def _channels(metadata: Any, count: int) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    """The names of the channels, and the pure colours in which they are shown."""
    told = _listed(metadata, "Information", "Image", "Dimensions", "Channels", "Channel")
    shown = _listed(metadata, "DisplaySetting", "Channels", "Channel")
    names, colours = list[str | None](), list[str | None]()
    for number in range(count):
        one = told[number] if number < len(told) else {}
        display = next((s for s in shown if s.get("@Id") == one.get("@Id")), {}) if one else {}
        names.append(one.get("@Name") or display.get("@Name"))
        colour = str(display.get("Color") or one.get("Color") or "").lstrip("#").lower()
        colours.append(PURE.get(colour[-6:]))
    return tuple(names), tuple(colours)


def _microns(metadata: Any) -> tuple[float, float] | None:
    """(y, x) size of a pixel in micrometres; the file tells metres."""
    told = _listed(metadata, "Scaling", "Items", "Distance")
    metres = {one.get("@Id"): _number(one.get("Value")) for one in told}
    found = 1e6 * metres.get("Y", 0.0), 1e6 * metres.get("X", 0.0)
    return found if all(found) else None


def _power(metadata: Any) -> float | None:
    told = _listed(metadata, "Information", "Instrument", "Objectives", "Objective")
    return next((power for one in told if (power := _number(one.get("NominalMagnification")))), None)


def _number(text: Any) -> float:
    try:
        return max(0.0, float(text))
    except (TypeError, ValueError):
        return 0.0


def select(path: Path, image: CziImage, choice: Choice) -> tuple[Scene, int, int, list[int], list[Note]]:
    """The scene, the depth and the time that are read, the channels, and what was chosen.

    By default these are the first of the largest scenes, the plane in the middle of its depth, the first
    time, and the channels shown in pure red, green and blue, else the first three, or the first if there are
    fewer. A channel in colour is a picture by itself: where there are some, it is the first of these.

    Raises
    ------
    BadInput : the user chose what the file does not have, or several channels of which some are in colour.
    """
    sizes = [scene.box.area for scene in image.scenes]
    scene, z, t = sizes.index(max(sizes)), image.depths // 2, 0
    if choice.page is not None:
        names = [Names(image.page_name(page) or None) for page in range(image.pages)]
        scene, z, t = image.plane(number_of(path, "page", choice.page, names))
    notes = [Note(one, True) for one in image.others]
    if image.pages > 1:
        page = (scene * image.times + t) * image.depths + z
        told = f"page {page + 1} of {image.pages} ({image.page_name(page)})"
        notes.insert(0, Note(told, choice.page is None))
    named = [
        Names(name, (colour,) if colour else ())
        for name, colour in zip(image.channels, image.colours, strict=True)
    ]
    picks = _channels_read(path, image, named, choice)
    if len(named) > 1 and picks != list(range(len(named))):
        in_colour = image.in_colour(picks[0])
        told = f"channel {_called(named, picks[0])} of {len(named)}, which is in colour"
        notes.append(Note(told if in_colour else said("channel", named, picks), choice.wanted is None))
    return image.scenes[scene], z, t, picks, notes


def _channels_read(path: Path, image: CziImage, named: list[Names], choice: Choice) -> list[int]:
    """The numbers of the channels that are read, counted from 0. Raises BadInput as `select` does."""
    in_colour = [number for number in range(len(named)) if image.in_colour(number)]
    if choice.wanted is None or (len(named) == 1 and in_colour):  # then bands of the colours are chosen
        return in_colour[:1] or colour_numbers(image.colours) or ([0, 1, 2] if len(named) >= 3 else [0])
    picks = [number_of(path, "channel", word, named) for word in choice.wanted]
    if len(picks) > 1 and set(picks) & set(in_colour):
        one = next(number for number in picks if number in in_colour)
        raise BadInput(
            f"{path}: channel {_called(named, one)} is a picture in colour, which does not go with others;"
            f" give --channels {one + 1} alone"
        )
    return picks


def _called(named: list[Names], number: int) -> str:
    """The number of a channel, counted from 1, with its name if it has one."""
    name = named[number].name
    return f"{number + 1} ({name})" if name else str(number + 1)
