"""Images that lie in several pages: each page holds one channel at one depth (z) and one time (t).

OME-TIFF says in XML which page is which (the OME data model, "OME-TIFF specification"), ImageJ in a few lines
of text, and Akoya's QPTIFF in a description of each page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.elements import Element, each, elements
from urst_tiles.tiff.kinds import akoya, description_of, is_akoya, kind_of

#: An image may have so many planes.
MOST_PLANES = 1 << 17

#: A channel, a depth and a time, each counted from 0.
Plane = tuple[int, int, int]


@dataclass(frozen=True)
class Channel:
    """A channel of an image.

    Attributes
    ----------
    name : its name, such as "DAPI", or None.
    colour : "red", "green" or "blue" if the file says that it is shown in exactly this colour, or None.
    """

    name: str | None = None
    colour: str | None = None


@dataclass(frozen=True)
class Stack:
    """An image that lies in several pages.

    Attributes
    ----------
    name : the name of the image, or None.
    shape : (height, width) in pixels.
    channels : its channels, in the order of the file.
    depths, times : how many planes each channel has over the depth, and over time.
    pages : the number of the page, counted from 0, of each plane that lies in this file.
    """

    name: str | None
    shape: tuple[int, int]
    channels: tuple[Channel, ...]
    depths: int
    times: int
    pages: dict[Plane, int]

    def plane_of(self, page: int) -> Plane | None:
        """The plane that the page with this number, counted from 0, holds; None for another page."""
        return next((plane for plane, number in self.pages.items() if number == page), None)


def find_stacks(chain: Sequence[Directory], count: int) -> list[Stack]:
    """The images that the file describes as stacks of pages, in the order of the file.

    What contradicts the directories, such as another size, counts as not said.

    Parameters
    ----------
    chain : the first directories of the file, in their order.
    count : how many directories the chain has.
    """
    text = description_of(chain[0])
    if text.startswith("ImageJ="):
        stacks = _imagej(text, chain[0].shape)
    elif is_akoya(text):
        stacks = _akoya(chain)
    else:
        stacks = ome_stacks(text, chain[0].path.name)
    checked = (_checked(stack, chain, count) for stack in stacks)
    return [stack for stack in checked if stack.pages]


def _checked(stack: Stack, chain: Sequence[Directory], count: int) -> Stack:
    """The stack without planes that lie in no page of this file, or in one of another size."""
    good = {
        plane: page
        for plane, page in stack.pages.items()
        if page < count and (page >= len(chain) or chain[page].shape == stack.shape)
    }
    return Stack(stack.name, stack.shape, stack.channels, stack.depths, stack.times, good)


def ome_stacks(text: str, file_name: str) -> list[Stack]:
    """The images of OME-XML; empty where the text is none.

    Parameters
    ----------
    text : the image description of the first page.
    file_name : the name of the file, by which planes are told from those in other files of the same set.
    """
    if "<OME" not in text and ":OME" not in text:
        return []
    found = elements(text)
    if not found or found[0].name != "OME":
        return []
    own = found[0].attributes.get("UUID")
    files = {e.attributes.get("FileName") for e in found if e.name == "UUID"}
    stacks = []
    for part in each(found, "OME", "Image"):
        try:
            stacks.append(_ome_image(part, own, None if len(files) <= 1 else file_name))
        except (ValueError, KeyError, IndexError, StopIteration):
            continue  # what makes no sense is not said
    return stacks


def _ome_image(part: Sequence[Element], own: str | None, file_name: str | None) -> Stack:
    """The image that these elements of OME-XML describe. Raises ValueError and the like for nonsense."""
    pixels = next(e for e in part if e.name == "Pixels").attributes
    channels = [e for e in part if e.path[-2:] == ("Pixels", "Channel")]
    told = tuple(Channel(e.attributes.get("Name"), _ome_colour(e.attributes.get("Color"))) for e in channels)
    told = told or (Channel(),) * min(_count(pixels["SizeC"]), MOST_PLANES)
    sizes = {"C": len(told), "Z": _count(pixels["SizeZ"]), "T": _count(pixels["SizeT"])}
    if sizes["C"] * sizes["Z"] * sizes["T"] > MOST_PLANES:
        raise ValueError("too many planes")
    order = pixels.get("DimensionOrder", "XYCZT")[2:]
    if sorted(order) != ["C", "T", "Z"]:
        raise ValueError("no order of dimensions")
    planes = list(_in_order(order, sizes))
    pages: dict[Plane, int] = {}
    for data, uuid in _tiff_data(part):
        if (
            file_name is None
            or uuid is None
            or uuid.text == own
            or uuid.attributes.get("FileName") == file_name
        ):
            _place(data, planes, pages)
    name, shape = part[0].attributes.get("Name"), (_count(pixels["SizeY"]), _count(pixels["SizeX"]))
    return Stack(name, shape, told, sizes["Z"], sizes["T"], pages)


def _tiff_data(part: Sequence[Element]) -> Iterator[tuple[dict[str, str], Element | None]]:
    """The attributes of each element TiffData, and the UUID inside it; all planes where there is none."""
    found = [i for i, e in enumerate(part) if e.path[-2:] == ("Pixels", "TiffData")]
    for i in found:
        inside = part[i + 1] if i + 1 < len(part) and part[i + 1].path[-2:] == ("TiffData", "UUID") else None
        yield part[i].attributes, inside
    if not found:
        yield {}, None


def _place(data: dict[str, str], planes: Sequence[Plane], pages: dict[Plane, int]) -> None:
    """Enter the planes that one element TiffData tells of: so many pages from IFD on."""
    first = tuple(int(data.get(f"First{axis}", 0)) for axis in "CZT")
    start, page = planes.index(first), int(data.get("IFD", 0))
    count = int(data.get("PlaneCount", 1 if "IFD" in data else len(planes) - start))
    if page < 0:
        raise ValueError("a negative page")
    for k, plane in enumerate(planes[start : start + count]):
        pages.setdefault(plane, page + k)


def _in_order(order: str, sizes: dict[str, int]) -> Iterator[Plane]:
    """All planes (c, z, t), the first letter of ``order`` running fastest."""
    fast, middle, slow = order[0], order[1], order[2]
    for k in range(sizes[slow]):
        for j in range(sizes[middle]):
            for i in range(sizes[fast]):
                at = {fast: i, middle: j, slow: k}
                yield at["C"], at["Z"], at["T"]


def _count(text: str) -> int:
    """A number of pixels or planes. Raises ValueError where it is not at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} is no size")
    return number


def _ome_colour(text: str | None) -> str | None:
    """The word for a pure colour, which OME writes as a signed number of 32 bits, RGBA."""
    try:
        rgb = (int(text or "") & 0xFFFFFFFF) >> 8
    except ValueError:
        return None
    return {0xFF0000: "red", 0x00FF00: "green", 0x0000FF: "blue"}.get(rgb)


def _imagej(text: str, shape: tuple[int, int]) -> list[Stack]:
    """The stack that ImageJ describes: its channels run fastest, then its slices, then its frames.

    Of a stack of more than 4 GB only the first plane has a page.
    """
    told = {
        key: int(value)
        for key, value in re.findall(r"(?m)^(images|channels|slices|frames)=(\d{1,9})\s*$", text)
    }
    channels, frames = max(1, told.get("channels", 1)), max(1, told.get("frames", 1))
    images = told.get("images", 1)
    slices = max(1, told.get("slices", images // (channels * frames)))
    if channels * slices * frames > min(MOST_PLANES, max(images, 1)) or images < 2:
        return []
    planes = _in_order("CZT", {"C": channels, "Z": slices, "T": frames})
    pages = {plane: number for number, plane in enumerate(planes)}
    return [Stack(None, shape, (Channel(),) * channels, slices, frames, pages)]


def _akoya(chain: Sequence[Directory]) -> list[Stack]:
    """The channels of a QPTIFF: its pages at full resolution, each of which names its channel and colour."""
    whole = [i for i, d in enumerate(chain) if kind_of(d) == "image" and d.shape == chain[0].shape]
    if len(whole) < 2:
        return []
    told = [akoya(description_of(chain[i])) for i in whole]
    colours = {"255,0,0": "red", "0,255,0": "green", "0,0,255": "blue"}
    channels = tuple(
        Channel(page.get("Name"), colours.get(page.get("Color", "").replace(" ", ""))) for page in told
    )
    pages = {(c, 0, 0): page for c, page in enumerate(whole)}
    return [Stack(None, chain[0].shape, channels, 1, 1, pages)]
