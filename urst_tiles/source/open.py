"""Opening a source: the header decides whether tifffile, libvips or GDAL reads the pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput
from urst_tiles.machine import decoder_count
from urst_tiles.source import headers
from urst_tiles.source.bandfiles import band_files
from urst_tiles.source.czi_opener import czi_facts
from urst_tiles.source.facts import Facts
from urst_tiles.source.gdal import INSTALL, Unrecognised, library
from urst_tiles.source.gdal_facts import gdal_facts, is_for_gdal, place_facts
from urst_tiles.source.identity import array_fingerprint, file_fingerprint, tiff_fingerprint
from urst_tiles.source.info import tiff_info, vips_info
from urst_tiles.source.joined import open_joined
from urst_tiles.source.level import at_level
from urst_tiles.source.many import open_many
from urst_tiles.source.members import is_many
from urst_tiles.source.ome_zarr import folder_at, is_zarr
from urst_tiles.source.ome_zarr_opener import zarr_facts
from urst_tiles.source.openers import ArrayOpener, TiffOpener, VipsOpener, check_mask, inner_mask
from urst_tiles.source.openslide import can_open, slide_facts
from urst_tiles.source.remote import place_of
from urst_tiles.source.sidecars import Sidecars, find_sidecars
from urst_tiles.source.slides import JoinedSlide, check_slide, check_slide_pages
from urst_tiles.source.source import Source
from urst_tiles.source.spool import CHUNK_PIXELS
from urst_tiles.source.stretch import AS_IS
from urst_tiles.source.tiff import TiffReader
from urst_tiles.source.vips import (
    LOADERS,
    PAGED,
    Decoded,
    Place,
    check_codec,
    loader_of,
    open_image,
    page_count,
)
from urst_tiles.storage.names import require_file
from urst_tiles.tiff.choice import Choice, Names, choice_of, number_of
from urst_tiles.tiff.decodable import Undecodable
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.header import is_tiff
from urst_tiles.tiff.metadata import POSITION_TAGS, RPC, Info, Validity
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.selection import Note, chosen, select, told

#: Bytes of memory that a libvips pipeline takes besides its rows or tiles (measured).
VIPS_BYTES = 40 << 20

#: TIFF's codes of JPEG, the old and the new.
JPEGS = (6, 7)

#: How many rows a libvips pipeline holds that decodes from top to bottom (measured).
VIPS_ROWS = 1200

#: TIFF compressions that libtiff decodes in every build (none, fax, LZW, JPEG, deflate, PackBits, LogLuv),
#: and WebP. Old-style JPEG (6) is none of them.
LIBTIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 34676, 34677, 50001}

#: Photometric interpretations that are defined: those of TIFF 6.0, ICC and ITU Lab, colour filter arrays,
#: LogL and LogLuv, and linear raw.
PHOTOMETRICS = {*range(7), 8, 9, 10, 32803, 32844, 32845, 34892}


def open_source(
    path: str | os.PathLike[str],
    *,
    page: int | str | None = None,
    channels: Sequence[int | str] | None = None,
    bands: Sequence[int | str] | None = None,
    level: int | None = None,
    magnification: float | None = None,
    stretch: str = "2%,98%",
    overviews: bool = True,
) -> Source:
    """Open an image file, or many as one. This is cheap: only headers are read, no pixels are decoded.

    Parameters
    ----------
    path : any image file that tifffile, libvips or, where it is installed, GDAL can read; with GDAL also an
        address such as ``https://...`` or ``s3://...``, or a name such as ``/vsizip/...``; an OME-Zarr at an
        address is read through fsspec. A folder, a
        pattern such as ``tiles/*.tif``, or ``@`` and the path of a list stand for georeferenced parts of one
        image; of a STAC item the assets are the bands.
    page : a page of the file by its number, counted from 1, or by its name; by default the main image (see
        "Which picture of a file" in docs/formats.md).
    channels : one or three channels that become grey, or red, green and blue, by their numbers, counted from
        1, or by their names; by default the first three, or the first if there are fewer than three.
    bands : one or three bands, likewise, or the names of files that hold a band each, in the folder ``path``
        or beside the file ``path``, or of assets of a STAC item; by default those that the file calls red,
        green and blue, else the first three, or the first if there are fewer than three. Any other number of
        bands, or ("all",), is read as it is: the pixels then have so many channels.
    level : a level of the image instead of the image itself: 0 is the image, 1 its first overview.
    magnification : the magnification of the level, within 5 %, instead of its number.
    stretch : the values or percentiles LOW,HIGH that become black and white, as in "2%,98%" or "0,10000", or
        for each band as in "0,900;0,800;10,700";
        used only for files that are not uint8.
    overviews : whether the thumbnail may be made from the overviews in the file.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read, or there is nothing at the address.
    BadInput : the file is empty, no image, or not safe to decode; or an option does not fit the file; or many
        files do not make one image.
    DamagedFile : the header is cut off or contradicts itself.
    """
    choice = Choice(page, _words(channels), _words(bands))
    facts = at_level(_facts_of(path, choice), level, magnification)
    return Source(facts, stretch=stretch, use_overviews=overviews)


def _facts_of(path: str | os.PathLike[str], choice: Choice) -> Facts:
    """The facts of what a name stands for: bands in files of their own, a place elsewhere, an image that is a
    folder, many files, or one."""
    named = band_files(path, choice.bands)
    if named is not None:
        return open_joined(Path(path), named, choice, file_facts)
    place = place_of(path)
    if place is not None:
        folder = folder_at(place.path)
        return place_facts(place, choice) if folder is None else zarr_facts(place.path, choice, folder)
    facts = folder_facts(path, choice)
    if facts is None:
        facts = open_many(path, choice, file_facts) if is_many(path) else file_facts(path, choice)
    return facts


def has_contents(path: str | os.PathLike[str], bands: Sequence[int | str] | None) -> bool:
    """Whether a name stands for one file or folder, whose pages, channels and bands `contents_of` lists."""
    if band_files(path, _words(bands)) is not None:
        return False
    return not is_many(path) or folder_facts(path, Choice()) is not None


def folder_facts(path: str | os.PathLike[str], choice: Choice) -> Facts | None:
    """The facts of an image that is a folder; None for anything else, of which `require_file` will speak."""
    if not os.fspath(path) or not os.path.isdir(path):
        return None
    path = Path(path).absolute()
    if is_zarr(path):
        return zarr_facts(path, choice)
    if library() is None:
        if (path / ".zgroup").is_file() or (path / "zarr.json").is_file():
            raise BadInput(f"{path} is a group of Zarr and no OME-Zarr, which GDAL may read: {INSTALL}")
        return None
    try:
        return gdal_facts(path, choice)
    except Unrecognised:
        return None


def file_facts(path: str | os.PathLike[str], choice: Choice) -> Facts:
    """The facts of a file, from its header, whichever library reads it."""
    require_file(path)
    path = Path(path).absolute()
    start = headers.check_file(path)
    slide = check_slide(path, start)
    if slide == "openslide":
        return slide_facts(path, choice)
    if slide == "czi":
        return czi_facts(path, choice)
    if not slide and not is_tiff(start) and is_for_gdal(path):
        try:
            return gdal_facts(path, choice)
        except Unrecognised:
            loader_of(path)  # says what can be read
    sidecars = find_sidecars(path)
    try:
        facts = _tiff_facts(path, choice, sidecars) if is_tiff(start) and not slide else None
        facts = facts or _vips_facts(path, choice, sidecars)
    except JoinedSlide:
        if not can_open(path):
            raise
        return slide_facts(path, choice)
    check_mask(path, sidecars.mask, facts.stored)
    return facts


def _words(words: Sequence[int | str] | None) -> tuple[int | str, ...] | None:
    """What the user chose, as `Choice` holds it; a single text is a single name."""
    return (words,) if isinstance(words, str) else None if words is None else tuple(words)


def _tiff_facts(path: Path, choice: Choice, sidecars: Sidecars) -> Facts | None:
    """The facts of a TIFF; None if tifffile cannot decode it, but libvips perhaps can."""
    try:
        reader = TiffReader(path, choice, sidecars.pam.bands)
    except Undecodable:
        return None
    check_slide_pages(reader.file)
    orientation = _orientation(reader.main)
    fingerprint = tiff_fingerprint(reader.file, sidecars.all)
    validity, first = _validity(reader.validity, sidecars), reader.file.directories[0]
    info = tiff_info(reader.main, validity, sidecars, orientation, first)
    if choice.plain:
        info = replace(info, bands=reader.band_names)
    return Facts(
        path=path,
        info=replace(info, chosen=chosen(reader.notes)),
        fingerprint=fingerprint,
        stored=reader.shape,
        orientation=orientation,
        choice=choice,
        told=told(reader.notes),
        colours=reader.colours,
        file_dtype=reader.dtype.name,
        has_valid=reader.has_valid or sidecars.mask is not None,
        overviews=reader.levels,
        reader_bytes=reader.reader_bytes,
        spooling_bytes=0 if reader.is_tiled else reader.reader_bytes,
        opener=TiffOpener(path, choice, sidecars.all, sidecars.mask, fingerprint, sidecars.pam.bands),
        is_jpeg=reader.main.number(259, 1) in JPEGS,
        random_access=reader.is_tiled,
        stretched=reader.dtype != np.uint8,
    )


def _vips_facts(path: Path, choice: Choice, sidecars: Sidecars) -> Facts:
    """The facts of any other image, which libvips decodes."""
    loader = loader_of(path)
    main, masked, place, notes = _vips_page(path, loader, choice)
    _check_header(path, loader, main)
    image = open_image(path, loader, place, sequential=True)
    if main is None:
        notes = [*notes, *_paged(image, place)]
    nodata = sidecars.pam.bands.nodata or (main.text(42113) if main is not None else None)
    decoded = Decoded(path, image, choice.wanted, nodata)
    if decoded.said:
        notes = [*notes, Note(decoded.said, choice.wanted is None)]
    shape = (image.height, image.width)
    if (main is not None and main.shape != shape) or (masked and inner_mask(path, choice).shape != shape):
        raise BadInput(f"{path}: libvips finds another picture at its page; extract that page first")
    sample_bytes = decoded.dtype.itemsize
    whole = headers.check_whole(path, loader, shape, sample_bytes, image.bands)
    check_codec(path, image)
    random = LOADERS[loader] or (main is not None and main.is_tiled)
    tag = image.get("orientation") if image.get_typeof("orientation") else 1
    orientation = _orientation(main) if main is not None else tag if tag in range(1, 9) else 1
    in_file: Validity = "alpha" if decoded.alpha else "mask" if decoded.has_valid or masked else "none"
    validity = _validity(in_file, sidecars)
    fingerprint = file_fingerprint(path, sidecars.all)
    info = (
        vips_info(path, loader, image, validity, sidecars, orientation)
        if main is None
        else tiff_info(main, validity, sidecars, orientation)
    )
    cells = decoder_count() * CHUNK_PIXELS * image.bands * 8 + VIPS_BYTES
    return Facts(
        path=path,
        info=replace(info, chosen=chosen(notes)),
        fingerprint=fingerprint,
        stored=shape,
        orientation=orientation,
        choice=choice,
        told=told(notes),
        colours=decoded.colours,
        file_dtype=decoded.dtype.name,
        has_valid=decoded.has_valid or masked or sidecars.mask is not None,
        overviews=(),
        reader_bytes=cells,
        spooling_bytes=whole + VIPS_BYTES + VIPS_ROWS * shape[1] * image.bands * sample_bytes,
        opener=VipsOpener(
            path, loader, choice, nodata, sidecars.all, sidecars.mask, fingerprint, masked, place
        ),
        is_jpeg=loader == "jpegload" or (main is not None and main.number(259, 1) in JPEGS),
        random_access=random,
        stretched=decoded.dtype != np.uint8,
    )


def _vips_page(path: Path, loader: str, choice: Choice) -> tuple[Directory | None, bool, Place, list[Note]]:
    """The page that libvips is to read: its directory if the file is a TIFF, whether a page is its mask, its
    place, and what was chosen.

    Raises
    ------
    BadInput : there is no such page, or its channels are pages of their own, which libvips does not join.
    """
    if loader != "tiffload":
        if choice.page is None:
            return None, False, None, []
        return None, False, (_page_number(path, loader, choice.page), -1), []
    file = TiffFile(path)
    check_slide_pages(file)
    selection = select(file, choice)
    pages = selection.pages
    if len(pages.mains) > 1:
        raise BadInput(
            f"{path}: its channels are pages in a compression or a layout that cannot be joined here; choose"
            " one of them with --page"
        )
    place = file.place_of(pages.main)
    return pages.main, pages.mask is not None, None if place == (0, -1) else place, list(selection.notes)


def _page_number(path: Path, loader: str, word: int | str) -> int:
    """The number, counted from 0, of a page of a file that is no TIFF. Raises BadInput."""
    image = open_image(path, loader)
    count = page_count(image) if loader in PAGED else 1
    return number_of(path, "page", word, [Names()] * count)


def _paged(image: Any, place: Place) -> list[Note]:
    """Which page of a file that is no TIFF is read, if it has several."""
    count = page_count(image)
    first = int(image.get("heif-primary")) if image.get_typeof("heif-primary") else 0
    number = (first if place is None else place[0]) + 1
    return [Note(f"page {number} of {count}", place is None)] if count > 1 else []


def _check_header(path: Path, loader: str, main: Directory | None) -> None:
    """Raise BadInput or DamagedFile for a file that libvips should not be asked to open."""
    if loader == "pngload":
        headers.check_png(path)
    if main is not None:
        _check_compression(main)


def _check_compression(main: Directory) -> None:
    """Raise BadInput if libvips cannot decode this TIFF, or if the meaning of its samples is undefined."""
    code = main.number(259, 1)
    if code not in LIBTIFF_COMPRESSIONS:
        raise BadInput(
            f"{main.path} is compressed in a way that cannot be read here (TIFF compression {code}); rewrite "
            "it, for example: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT"
        )
    if main.number(262, -1) not in PHOTOMETRICS:
        raise BadInput(f"{main.path}: its samples mean nothing that is known (TIFF tag 262); it is damaged")


def array_source(
    array: Any,
    *,
    info: Info | None = None,
    name: str = "array",
    colours: int = 3,
    as_is: bool = False,
) -> Source:
    """A source whose pixels are those of an array; `Source.prepare` need not be called.

    Parameters
    ----------
    array : NumPy or zarr array, uint8 or uint16, (H, W, 3) for RGB, or (H, W, 4) for RGBA, where a fourth
        channel of 0 marks invalid pixels.
    colours : the number of bands, if they are not red, green and blue; the array has as many channels, or
        one more that marks invalid pixels.
    as_is : whether the array holds floats that stay as they are, float32; 1 then marks valid pixels.
    info : metadata for the output; by default only how validity is marked.
    name : the name of the array in error messages.

    Raises
    ------
    BadInput : the array has another shape or dtype.
    """
    if getattr(array, "ndim", 0) != 3 or array.shape[2] not in (colours, colours + 1) or 0 in array.shape:
        shape = getattr(array, "shape", type(array).__name__)
        wanted = f"(height, width, {colours} or {colours + 1})"
        raise BadInput(f"an array must be {wanted} with at least one pixel, got {shape}")
    if np.dtype(array.dtype) not in ((np.float32,) if as_is else (np.uint8, np.uint16)):
        raise BadInput(f"an array must be uint8 or uint16, got {array.dtype}")
    has_valid = array.shape[2] > colours
    facts = Facts(
        path=Path(name),
        info=info or Info(validity="alpha" if has_valid else "none"),
        fingerprint=array_fingerprint(array),
        stored=(int(array.shape[0]), int(array.shape[1])),
        orientation=1,
        choice=choice_of(colours),
        told="",
        colours=colours,
        file_dtype=np.dtype(array.dtype).name,
        has_valid=has_valid,
        overviews=(),
        reader_bytes=decoder_count() * CHUNK_PIXELS * max(4, array.shape[2]) * np.dtype(array.dtype).itemsize,
        spooling_bytes=0,
        opener=ArrayOpener(array, colours),
        random_access=True,
        stretched=False,
    )
    return Source(facts, stretch=AS_IS) if as_is else Source(facts)


def _orientation(main: Directory) -> int:
    """The orientation of a TIFF (tag 274), 1 to 8.

    As in GDAL, it is 1 for a georeferenced file: the georeferencing applies to the pixels as they are stored.
    """
    if any(code in main.entries for code in (*POSITION_TAGS, RPC)):
        return 1
    value = main.number(274, 1)
    return value if value in range(1, 9) else 1


def _validity(in_file: Validity, sidecars: Sidecars) -> Validity:
    """How validity is marked, by the file and its sidecars together."""
    return "mask" if sidecars.mask is not None and in_file != "alpha" else in_file
