"""Reading with libvips: files that are no TIFF, and TIFFs that tifffile does not decode.

Every image is opened with ``fail_on="warning"``: with a weaker level, damaged tiles are returned as pixels
(measured). What libraries warn of although no pixel is damaged is kept from them: fax strips are decoded from
TIFFs without any other tag (`bilevel`), and the heads of JPEGs are mended (`jpeg_head`). An image is opened
anew for each cell or pass, since the tile cache of an open image grows with the width of the image, threads
must not share a region, and images cannot be pickled. The error text of libvips belongs to the whole process,
so messages do not quote it. Tests compare the other readers with this module.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from queue import Full, Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import valid
from urst_tiles.source.bands import bands_said, choose_bands, plabands_of
from urst_tiles.source.colour import in_rgb, libvips
from urst_tiles.source.jpeg_head import mended_file
from urst_tiles.source.refusals import refusal
from urst_tiles.source.valid import Samples
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.choice import Word
from urst_tiles.tiff.decodable import complex_samples
from urst_tiles.tiff.directory import check_chain

#: The NumPy dtype of each format of libvips; complex samples are not supported.
FORMATS = {
    "uchar": "u1",
    "char": "i1",
    "ushort": "u2",
    "short": "i2",
    "uint": "u4",
    "int": "i4",
    "float": "f4",
    "double": "f8",
}

#: Loaders of pictures (not of text, tables or drawings) that decode from top to bottom.
STREAMED = ("tiff", "jpeg", "png", "webp", "gif", "heif", "jxl", "ppm", "rad", "fits", "openexr", "nifti")

#: Loaders of pictures that decode any box.
RANDOM = ("jp2k", "openslide", "vips")

#: For each accepted loader, whether it allows random access; a tiled TIFF allows it as well.
LOADERS = {f"{name}load": name in RANDOM for name in STREAMED + RANDOM}

#: The operation to use for a class of loaders whose name is not in ``LOADERS``.
ALIASES = {"nsgifload": "gifload", "uhdrload": "jpegload"}

#: Loaders that can open any page of a file; of the others the first page is read.
PAGED = ("tiffload", "gifload", "webpload", "heifload", "jxlload")

#: The number of a page, counted from 0, and of a SubIFD of it, or -1; None for the loader's default.
Place = tuple[int, int] | None

#: Interpretations of libvips whose first three bands are red, green and blue.
RGB = ("srgb", "rgb", "rgb16", "scrgb")

#: Side of a cell in pixels; it is large, since opening the image for each cell takes about a millisecond.
CELL = 1024


def loader_of(path: Path) -> str:
    """The name of the libvips loader for the file ``path``, such as "jpegload".

    Raises
    ------
    BadInput : libvips does not recognise the file, or its loader is not in ``LOADERS``.
    DamagedFile : the directories of a TIFF are damaged, or made to take all time or memory.
    """
    vips = libvips()
    # Without the empty options, what is in brackets at the end of a name would be taken for options.
    loader_class = vips.vips_lib.vips_foreign_find_load(os.fsencode(path) + b"[]")
    vips.vips_lib.vips_error_clear()
    name = "" if loader_class == vips.ffi.NULL else vips.ffi.string(loader_class).decode()
    name = name.removeprefix("VipsForeignLoad").removesuffix("File").lower() + "load"
    name = ALIASES.get(name, name)
    if name not in LOADERS:
        raise BadInput(refusal(path))
    if name == "tiffload":
        check_chain(FileBytes(path))  # libtiff goes through all directories, whatever they take
    return name


def open_image(path: Path, loader: str, place: Place = None, *, sequential: bool = False) -> Any:
    """Open a page of a file as a pyvips image; only the header is read.

    Parameters
    ----------
    path : the file.
    loader : its loader, as `loader_of` returns it.
    place : the number of the page, counted from 0, and in a TIFF the number of the SubIFD in that page, or
        -1 for the page itself. None for the page that the loader takes by default.
    sequential : whether the pixels will be read from top to bottom only.

    Raises
    ------
    DamagedFile : the header cannot be read.
    """
    vips = libvips()
    access = "sequential" if sequential else "random"
    mended = mended_file(path) if loader == "jpegload" else None
    where: dict[str, Any] = {} if place is None else {"page": place[0]}
    if place is not None and place[1] >= 0:
        where["subifd"] = place[1]
    try:
        if mended is not None:
            return vips.Image.jpegload_buffer(mended, access=access, fail_on="warning")
        return getattr(vips.Image, loader)(os.fsencode(path), access=access, fail_on="warning", **where)
    except vips.Error:
        if loader == "tiffload":  # whose directories have been read without finding damage
            raise BadInput(
                f"{path} is a TIFF whose kind of samples or compression cannot be read here; rewrite it, for "
                "example: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT"
            ) from None
        raise DamagedFile(f"{path}: its header cannot be read; the file is damaged or cut off") from None


def check_codec(path: Path, image: Any) -> None:
    """Raise BadInput if an image of HEIF is in HEVC (HEIC), and libvips was built without a decoder of that.

    libheif reads its header nevertheless; only a pixel tells.
    """
    if not image.get_typeof("heif-compression") or image.get("heif-compression") != "hevc":
        return
    try:
        open_image(path, "heifload").getpoint(0, 0)
    except libvips().Error:
        raise BadInput(
            f"{path} is a HEIC picture: libvips has no decoder of its pixels (HEVC) here, or they are"
            " damaged; convert it, for example: heif-convert IN OUT.png"
        ) from None


def page_count(image: Any) -> int:
    """How many pages the file of a pyvips image has."""
    return int(image.get("n-pages")) if image.get_typeof("n-pages") else 1


def bilevel(tiff: bytes) -> NDArray[np.uint8]:
    """Decode a TIFF in memory whose samples have one bit; uint8, (h, w), 0 or 255.

    Raises
    ------
    ValueError : the TIFF is damaged.
    """
    vips = libvips()
    try:
        image = vips.Image.tiffload_buffer(tiff, fail_on="warning")
        return np.asarray(image.numpy(), np.uint8).reshape(image.height, image.width)
    except vips.Error:
        raise ValueError("its fax codes are damaged") from None


class Decoded:
    """The way in which the pixels of a pyvips image become samples; it follows from the header.

    Parameters
    ----------
    path : the file, for messages.
    image : the pyvips image, as `open_image` returns it.
    bands : the colour bands to read, as `choose_bands` takes them.
    nodata : the nodata value as GDAL writes it, or None.

    Attributes
    ----------
    dtype : dtype of the colours.
    colours : how many bands of colour are read, 1 or 3.
    alpha : whether the file has an alpha band.
    has_valid : whether the samples come with a weight.
    said : which bands are read, as a phrase; empty where all are read in their order.

    Raises
    ------
    DamagedFile : the colour profile cannot be used.
    BadInput : the samples are complex, or the file does not have these bands.
    """

    def __init__(
        self, path: Path, image: Any, bands: Sequence[Word] | None, nodata: str | None = None
    ) -> None:
        try:
            image = in_rgb(image)
        except libvips().Error:
            raise DamagedFile(
                f"{path}: its colour profile cannot be used; convert the image to RGB first"
            ) from None
        if image.format not in FORMATS:
            raise BadInput(complex_samples(path))
        self.dtype = np.dtype(FORMATS[image.format])
        self.alpha = bool(image.hasalpha()) and image.bands > 1
        known = plabands_of(image.bands - self.alpha, image.interpretation in RGB)
        self._pick = choose_bands(path, bands, known)
        self.said = bands_said(known, self._pick)
        self.colours = len(self._pick)
        self._nodata = valid.nodata_value(nodata, self.dtype)
        self.has_valid = self.alpha or self.dtype.kind == "f" or self._nodata is not None

    def samples(self, raw: NDArray[Any]) -> Samples:
        """The samples of pixels that libvips decoded, (h, w, bands)."""
        out = valid.weight_dtype(self.dtype)
        weight = valid.alpha_weight(raw[..., -1], out) if self.alpha else None
        colour = raw[..., self._pick]
        if self._nodata is not None or self.dtype.kind == "f":
            weight = valid.combine(weight, valid.has_data(colour, self._nodata), out)
        return Samples(colour, weight)


class VipsReader:
    """Reads samples at random through libvips. Several threads may use it at the same time.

    The parameters are those of `open_image` and `Decoded`, the attributes those of `Reader`.
    """

    levels: tuple[tuple[int, int], ...] = ()
    alone = False
    cell_shape = (CELL, CELL)

    def __init__(
        self, path: Path, loader: str, bands: Sequence[Word] | None, nodata: str | None = None,
        place: Place = None,
    ) -> None:  # fmt: skip
        image = open_image(path, loader, place)
        self.path, self._loader, self._place = path, loader, place
        self._decoded = Decoded(path, image, bands, nodata)
        self.shape = (image.height, image.width)
        self.dtype, self.colours = self._decoded.dtype, self._decoded.colours
        self.has_valid = self._decoded.has_valid

    def cell(self, box: Box, level: int = 0) -> Samples:
        vips = libvips()
        image = in_rgb(open_image(self.path, self._loader, self._place))
        try:
            data = vips.Region.new(image).fetch(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)
        except vips.Error:
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot "
                "be decoded; the file is damaged, get a new copy of it"
            ) from None
        return self._decoded.samples(_as_array(data, image, box.shape))


def stream(
    path: Path,
    loader: str,
    bands: Sequence[Word] | None,
    nodata: str | None,
    rows: int,
    place: Place = None,
) -> Iterator[tuple[Box, Samples]]:
    """Yield (box, samples) for bands of ``rows`` rows and the full width, from top to bottom.

    The next band is decoded ahead. A single libvips pipeline decodes the whole image: it holds about a
    thousand rows, while fetching regions one after another holds three times as many (measured). The other
    parameters are those of `open_image` and `Decoded`.

    Raises
    ------
    DamagedFile : the pixels cannot be decoded.
    """
    original = open_image(path, loader, place, sequential=True)
    decoded = Decoded(path, original, bands, nodata)
    image = in_rgb(original)
    with closing(pushed(image, rows)) as decoded_bands:
        y = 0
        for data in decoded_bands:
            if data is None:
                raise DamagedFile(
                    f"{path}: its pixels cannot be decoded beyond row {y}; the file is damaged or cut off"
                )
            box = Box(y, 0, min(y + rows, image.height), image.width)
            yield box, decoded.samples(_as_array(data, image, box.shape))
            y = box.y1


def pushed(image: Any, rows: int) -> Generator[bytearray | None, None, None]:
    """Yield the raw pixels of bands of rows, which another thread decodes; None at last if decoding fails."""
    vips = libvips()
    ready: Queue[bytearray | None] = Queue(maxsize=1)
    stop = threading.Event()
    band_bytes = rows * image.width * image.bands * np.dtype(FORMATS[image.format]).itemsize
    filling = bytearray()

    def offer(item: bytearray | None) -> None:
        while not stop.is_set():
            with suppress(Full):
                return ready.put(item, timeout=0.1)

    def take(chunk: bytes) -> int:
        nonlocal filling
        view = memoryview(chunk)
        while view and not stop.is_set():
            room = band_bytes - len(filling)
            filling += view[:room]
            view = view[room:]
            if len(filling) == band_bytes:
                offer(filling)
                filling = bytearray()
        return -1 if stop.is_set() else len(chunk)

    def run() -> None:
        target = vips.TargetCustom()
        target.on_write(take)
        try:
            image.rawsave_target(target)
            if filling:
                offer(filling)
            offer(bytearray())
        except BaseException:
            offer(None)

    thread = threading.Thread(target=run, name="urst-stream", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is None or len(item):
            yield item
    finally:
        stop.set()
        thread.join()


def _as_array(data: Any, image: Any, shape: tuple[int, int]) -> NDArray[Any]:
    """Raw pixels as an array, (h, w, bands)."""
    return np.frombuffer(data, FORMATS[image.format]).reshape(*shape, image.bands)
