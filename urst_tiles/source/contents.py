"""What an image file contains: its pages, their overviews, its channels and bands, with the names to choose
them by."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.source.bands import Band, plabands_of
from urst_tiles.source.channels import stored_bands
from urst_tiles.source.czi import TYPES
from urst_tiles.source.czi_opener import CziReader
from urst_tiles.source.gdal import Unrecognised, environment, library, open_dataset
from urst_tiles.source.gdal_facts import is_for_gdal, require_library
from urst_tiles.source.gdal_names import chosen_name, described, subdatasets
from urst_tiles.source.gdal_reader import told_bands
from urst_tiles.source.gdal_sources import check_sources
from urst_tiles.source.headers import check_file
from urst_tiles.source.ome_zarr import folder_at, is_zarr, shape_of
from urst_tiles.source.ome_zarr_opener import ZarrReader
from urst_tiles.source.openslide import SlideReader, can_open
from urst_tiles.source.remote import place_of
from urst_tiles.source.sidecars import find_sidecars
from urst_tiles.source.slides import check_slide, is_joined
from urst_tiles.source.vips import FORMATS, PAGED, RGB, loader_of, open_image, page_count
from urst_tiles.source.zarr_remote import RemoteFolder
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.header import is_tiff
from urst_tiles.tiff.kinds import name_of
from urst_tiles.tiff.pages import TiffFile, gather
from urst_tiles.tiff.selection import select, word_of


@dataclass(frozen=True)
class PageFacts:
    """A page of a file.

    Attributes
    ----------
    number : its number, counted from 1.
    shape : (height, width) in pixels, as stored.
    bands, dtype : how many samples a pixel has, and their type, such as "uint16"; None if unknown.
    kind : image, overview, preview, mask, label, macro, thumbnail, raw or empty.
    name : its name, or None.
    levels : (height, width) of each of its overviews.
    plane : the channel, the depth and the time that it holds of an image of several pages, counted from 1.
    """

    number: int
    shape: tuple[int, int]
    bands: int
    dtype: str | None
    kind: str
    name: str | None = None
    levels: tuple[tuple[int, int], ...] = ()
    plane: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class ChannelFacts:
    """A channel that is a page of its own: its number, counted from 1, its name, the colour in which the file
    shows it, and the image that it belongs to."""

    number: int
    name: str | None
    colour: str | None
    image: str | None


@dataclass(frozen=True)
class Contents:
    """The pages of a file, the channels of its images, and the bands of the page that is read.

    ``unlisted`` is how many pages there are behind the first thousand; they have numbers, and can be chosen.
    """

    pages: list[PageFacts] = field(default_factory=list)
    channels: list[ChannelFacts] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    unlisted: int = 0


def contents_of(path: Path, **chosen: Any) -> Contents:
    """What an image file contains. Only headers are read.

    ``chosen`` may have ``page``, ``channels`` and ``bands``, as `open_source` takes them; the bands are those
    of the page that is then read.

    Raises
    ------
    UrstError : the file does not exist, or is no image, or its header is damaged.
    """
    place, choice = place_of(path), Choice(**chosen)
    if place is not None:
        if (folder := folder_at(place.path)) is not None:
            return _of_zarr(place.path, folder)
        require_library(place)
        return _of_gdal(place.path, place.name, place.archive is None, choice)
    if is_zarr(path):
        return _of_zarr(path)
    slide = "" if path.is_dir() else check_slide(path, check_file(path))
    if slide in ("openslide", "czi"):
        return _of_slide(path) if slide == "openslide" else _of_czi(path)
    is_folder = path.is_dir() and library() is not None
    if not is_folder and is_tiff(check_file(path)):
        file = TiffFile(path)
        return _of_slide(path) if is_joined(file) and can_open(path) else _of_tiff(file, choice)
    if is_folder or is_for_gdal(path):
        with suppress(Unrecognised):
            return _of_gdal(path, str(path), False, choice)
        check_file(path)
    loader = loader_of(path)
    image = open_image(path, loader)
    count = page_count(image) if loader in PAGED else 1
    dtype = FORMATS.get(image.format)
    shape = (image.get("page-height") if image.get_typeof("page-height") else image.height, image.width)
    pages = [PageFacts(i + 1, shape, image.bands, dtype and _word(dtype), "image") for i in range(count)]
    bands = plabands_of(image.bands, image.interpretation in RGB)
    if image.hasalpha():
        bands[-1] = Band(colour="alpha")
    return Contents(pages, [], bands)


def _of_zarr(path: Path, folder: RemoteFolder | None = None) -> Contents:
    """The planes and channels of an image of Zarr; ``folder`` is what lies at an address."""
    reader = ZarrReader(path, Choice(), folder)
    image, dtype = reader.image, reader.dtype.name
    shape, count = shape_of(image.arrays[0]), max(1, len(image.channels))
    depths, times = (shape[at] if at >= 0 else 1 for at in (image.axes.z, image.axes.t))
    pages = [
        PageFacts(
            i + 1,
            reader.shape,
            count,
            dtype,
            "image",
            f"z {i % depths + 1}, t {i // depths + 1}",
            reader.levels,
        )
        for i in range(min(1000, depths * times))
    ]
    named = [] if image.rgb else zip(image.channels, image.colours, strict=True)
    channels = [ChannelFacts(i, name, colour, None) for i, (name, colour) in enumerate(named, 1)]
    return Contents(pages, channels, [], depths * times - len(pages))


def _of_slide(path: Path) -> Contents:
    """What OpenSlide sees in a slide: its levels."""
    reader = SlideReader(path, Choice())
    page = PageFacts(1, reader.shape, 3, "uint8", "image", None, reader.levels)
    return Contents([page], [], plabands_of(3, True))


def _of_czi(path: Path) -> Contents:
    """The planes of all scenes of a Zeiss image, and its channels."""
    image = CziReader(path, Choice()).image
    kinds = [TYPES[one] for one in image.types]
    count, dtype = sum(bands for _, bands in kinds), kinds[0][0]
    pages = []
    for page in range(min(1000, image.pages)):
        scene = image.scenes[image.plane(page)[0]]
        levels = tuple((scene.box.shape[0] // f, scene.box.shape[1] // f) for f in scene.factors)
        name = image.page_name(page) or None
        pages.append(PageFacts(page + 1, scene.box.shape, count, dtype, "image", name, levels))
    if len(kinds) == 1 and count == 3:
        return Contents(pages, [], plabands_of(3, True), image.pages - len(pages))
    named = zip(image.channels, image.colours, strict=True)
    channels = [ChannelFacts(i, name, colour, None) for i, (name, colour) in enumerate(named, 1)]
    return Contents(pages, channels, [], image.pages - len(pages))


def _of_gdal(path: Path, name: str, remote: bool, choice: Choice) -> Contents:
    """What GDAL sees in an image: its subdatasets are pages."""
    if not remote:
        check_sources(path)
    found = subdatasets(path, name, remote)
    with open_dataset(path, name, remote) as data, environment(remote):
        if data.count and not found:
            found = [replace(described(data, name), word="")]
    pages = [
        PageFacts(number, one.shape, one.bands, one.dtype, "image", one.word or None, one.levels)
        for number, one in enumerate(found, 1)
    ]
    bands = []
    with suppress(BadInput):
        image, _ = chosen_name(path, name, remote, choice.page)
        with open_dataset(path, image, remote) as data, environment(remote):
            bands = told_bands(data)
    return Contents(pages, [], bands)


def _of_tiff(file: TiffFile, choice: Choice) -> Contents:
    planes = {page: plane for stack in file.stacks for plane, page in stack.pages.items()}
    images = {page.offset for page in file.images}
    pages = []
    unlisted = file.count - len(file.chain)
    for place, page in enumerate(file.numbered):
        number = place if place < len(file.chain) else place + unlisted
        levels = _level_shapes(file, page) if page.offset in images else ()
        plane = planes.get(number)
        pages.append(
            PageFacts(
                number + 1, page.shape, page.bands, _dtype(page), word_of(file, page), name_of(page),
                levels, plane and (plane[0] + 1, plane[1] + 1, plane[2] + 1),
            )
        )  # fmt: skip
    channels = [
        ChannelFacts(number, channel.name, channel.colour, stack.name)
        for stack in file.stacks
        if len(stack.channels) > 1
        for number, channel in enumerate(stack.channels, 1)
    ]
    return Contents(pages, channels, _bands(file, choice), unlisted)


def _level_shapes(file: TiffFile, page: Directory) -> tuple[tuple[int, int], ...]:
    """(height, width) of the overviews of a page; none where they make no sense."""
    try:
        return tuple(pages[0].shape for pages, _ in gather(file, [page]).overviews)
    except UrstError:
        return ()


def _bands(file: TiffFile, choice: Choice) -> list[Band]:
    """The bands of the page that is read; none where it is refused."""
    try:
        selection = select(file, choice)
    except BadInput:
        return []
    pages = selection.pages
    if len(pages.mains) > 1:
        return []
    pam = find_sidecars(file.path).pam.bands
    return stored_bands(pages.main, pages.main.bands, pages.main.number(262), selection.names, pam)


def _dtype(page: Directory) -> str | None:
    """The type of the samples of a page, such as uint8, int16, float32 or uint12; None if it says none."""
    bits, form = page.number(258, 1), page.number(339, 1)
    word = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex int", 6: "complex"}.get(form)
    return f"{word}{bits}" if word else None


def _word(dtype: str) -> str:
    """NumPy's short name of a data type, such as u1, as a word."""
    return {"u": "uint", "i": "int", "f": "float"}[dtype[0]] + str(8 * int(dtype[1:]))


def as_json(contents: Contents) -> dict[str, Any]:
    """The contents of a file, as values for JSON. Sizes are [width, height]."""
    return {
        "pages": [
            {
                "page": page.number, "size": list(page.shape[::-1]), "bands": page.bands, "dtype": page.dtype,
                "kind": page.kind, "name": page.name, "levels": [list(shape[::-1]) for shape in page.levels],
                "channel": page.plane and page.plane[0], "z": page.plane and page.plane[1],
                "t": page.plane and page.plane[2],
            }
            for page in contents.pages
        ],
        "channels": [
            {"channel": c.number, "name": c.name, "colour": c.colour, "image": c.image}
            for c in contents.channels
        ],
        "bands": [
            {"band": i, "name": band.name, "colour": band.colour, "wavelength_um": band.wavelength}
            for i, band in enumerate(contents.bands, 1)
        ],
        "unlisted_pages": contents.unlisted,
    }  # fmt: skip


def rows(contents: Contents) -> dict[str, str]:
    """The contents of a file for people: what a row is called, and what it says."""
    table = {f"page {page.number}": _page_row(page) for page in contents.pages}
    if contents.unlisted:
        table["pages not listed"] = str(contents.unlisted)
    several = len({c.image for c in contents.channels}) > 1
    for channel in contents.channels:
        name = f"channel {channel.number}" + (f" of {channel.image}" if several and channel.image else "")
        table[name] = ", ".join(word for word in (channel.name, channel.colour) if word) or "no name"
    for number, band in enumerate(contents.bands, 1):
        length = f"{1000 * band.wavelength:g} nm" if band.wavelength else None
        table[f"band {number}"] = ", ".join(w for w in (band.name, band.colour, length) if w) or "no name"
    return table


def _page_row(page: PageFacts) -> str:
    """One line about a page."""
    words = [
        f"{page.shape[1]} x {page.shape[0]}",
        f"{page.bands} x {page.dtype or 'unknown samples'}",
        page.kind,
    ]
    if page.plane:
        words.append("channel {}, z {}, t {}".format(*page.plane))
    if page.name:
        words.append(page.name)
    if page.levels:
        words.append("overviews " + ", ".join(f"{w} x {h}" for h, w in page.levels))
    return ", ".join(words)
