"""libvips as a reader: of everything that is no TIFF, of TIFFs that tifffile does not decode, and the tests'
reference.

Every image is opened with ``fail_on="warning"``: a weaker level lets damaged tiles pass as pixels
(measured). It is opened anew for each cell or pass: a handle's tile cache grows with the image's width, one
region must not be shared by threads, and images do not pickle. libvips' error text belongs to the whole
process, so it is not quoted.
"""

from __future__ import annotations

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
from urst_tiles.source.bands import choose_bands
from urst_tiles.source.colour import in_rgb, libvips
from urst_tiles.source.valid import Samples

#: libvips format -> NumPy dtype; complex samples have no place here.
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

#: Loaders that make pixels from pictures (not from text, tables or drawings): row by row, or at random.
STREAMED = ("tiff", "jpeg", "png", "webp", "gif", "heif", "jxl", "ppm", "rad", "fits", "openexr", "nifti")
RANDOM = ("jp2k", "openslide", "vips")

#: Loader -> random access (a tiled TIFF has it too).
LOADERS = {f"{name}load": name in RANDOM for name in STREAMED + RANDOM}

#: Class names that differ from the operation's.
ALIASES = {"nsgifload": "gifload", "uhdrload": "jpegload"}

#: Side of a cell read through libvips: an opening costs about a millisecond.
CELL = 1024


def loader_of(path: Path) -> str:
    """Name of the libvips loader for a file, such as "jpegload". Raises BadInput where there is none."""
    vips = libvips()
    found = vips.vips_lib.vips_foreign_find_load(str(path).encode())
    vips.vips_lib.vips_error_clear()
    name = "" if found == vips.ffi.NULL else vips.ffi.string(found).decode()
    name = name.removeprefix("VipsForeignLoad").removesuffix("File").lower() + "load"
    name = ALIASES.get(name, name)
    if name not in LOADERS:
        raise BadInput(
            f"{path} is no image that can be read here; TIFF, JPEG, PNG and WebP can, among others"
        )
    return name


def open_image(path: Path, loader: str, *, sequential: bool = False) -> Any:
    """A pyvips image of the file's first page; only the header is read. Raises DamagedFile."""
    vips = libvips()
    access = "sequential" if sequential else "random"
    try:
        return getattr(vips.Image, loader)(str(path), access=access, fail_on="warning")
    except vips.Error:
        raise DamagedFile(f"{path}: its header cannot be read; the file is damaged or cut off") from None


class Decoded:
    """How a vips image becomes colour and weight; decided from the header.

    Attributes
    ----------
    dtype, colours : of colour, and how many bands of it.
    alpha : whether the file has an alpha band.
    has_valid : whether a weight comes along.
    """

    def __init__(
        self, path: Path, image: Any, bands: Sequence[int] | None, nodata: str | None = None
    ) -> None:
        try:
            image = in_rgb(image)
        except libvips().Error:
            raise DamagedFile(
                f"{path}: its colour profile cannot be used; convert the image to RGB first"
            ) from None
        if image.format not in FORMATS:
            raise BadInput(
                f"{path}: samples of type {image.format} are not supported; integers and floats are"
            )
        self.dtype = np.dtype(FORMATS[image.format])
        self.alpha = bool(image.hasalpha()) and image.bands > 1
        self._pick = choose_bands(path, bands, image.bands - self.alpha)
        self.colours = len(self._pick)
        self._nodata = valid.nodata_value(nodata, self.dtype)
        self.has_valid = self.alpha or self.dtype.kind == "f" or self._nodata is not None

    def samples(self, raw: NDArray[Any]) -> Samples:
        """Colour and weight of pixels (h, w, bands) as libvips made them."""
        out = valid.weight_dtype(self.dtype)
        weight = valid.alpha_weight(raw[..., -1], out) if self.alpha else None
        colour = raw[..., self._pick]
        if self._nodata is not None or self.dtype.kind == "f":
            weight = valid.combine(weight, valid.has_data(colour, self._nodata), out)
        return Samples(colour, weight)


class VipsReader:
    """Random access through libvips, cell by cell; thread-safe, as nothing is shared."""

    levels: tuple[tuple[int, int], ...] = ()
    alone = False
    cell_shape = (CELL, CELL)

    def __init__(
        self, path: Path, loader: str, bands: Sequence[int] | None, nodata: str | None = None
    ) -> None:
        image = open_image(path, loader)
        self.path, self._loader = path, loader
        self._decoded = Decoded(path, image, bands, nodata)
        self.shape = (image.height, image.width)
        self.dtype, self.colours = self._decoded.dtype, self._decoded.colours
        self.has_valid = self._decoded.has_valid

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box. Raises DamagedFile."""
        vips = libvips()
        image = in_rgb(open_image(self.path, self._loader))
        try:
            data = vips.Region.new(image).fetch(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)
        except vips.Error:
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot "
                "be decoded; the file is damaged, get a new copy of it"
            ) from None
        return self._decoded.samples(_as_array(data, image, box.shape))


def stream(
    path: Path, loader: str, bands: Sequence[int] | None, nodata: str | None, rows: int
) -> Iterator[tuple[Box, Samples]]:
    """Samples from top to bottom in bands of ``rows`` rows, decoded ahead by one band.

    One libvips pipeline, pushed to the end: it holds about a thousand rows, while regions fetched one after
    another hold three times as many (measured). Raises DamagedFile where the content is damaged.
    """
    original = open_image(path, loader, sequential=True)
    decoded = Decoded(path, original, bands, nodata)
    image = in_rgb(original)
    with closing(_pushed(image, rows)) as pushed:
        y = 0
        for data in pushed:
            if data is None:
                raise DamagedFile(
                    f"{path}: its pixels cannot be decoded beyond row {y}; the file is damaged or cut off"
                )
            box = Box(y, 0, min(y + rows, image.height), image.width)
            yield box, decoded.samples(_as_array(data, image, box.shape))
            y = box.y1


def _pushed(image: Any, rows: int) -> Generator[bytearray | None, None, None]:
    """Raw pixels of bands of rows, made on a thread of their own; None at the end where decoding failed."""
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
    return np.frombuffer(data, FORMATS[image.format]).reshape(*shape, image.bands)
