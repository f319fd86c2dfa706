"""libvips: the reference reader, the one for everything that is no plain TIFF, and the colour management.

Every image is opened with ``fail_on="warning"``: a weaker level lets damaged tiles pass as pixels (measured). The handle is
opened anew for each cell or pass: a handle's tile cache grows with the image's width and images do not pickle.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile, UrstError
from urst_tiles.geometry import Box
from urst_tiles.source.valid import Samples, alpha_weight, weight_dtype

#: libvips before this loads some compressed TIFFs as zeros.
LEAST = (8, 17, 2)

#: libvips format -> NumPy dtype; complex samples have no place here.
FORMATS = {
    "uchar": "u1", "char": "i1", "ushort": "u2", "short": "i2", "uint": "u4", "int": "i4", "float": "f4", "double": "f8",
}  # fmt: skip

#: Loaders that make pixels from pictures (not from text, tables, drawings or a shell): loader -> random access.
LOADERS = {
    "tiffload": False, "jpegload": False, "pngload": False, "webpload": False, "gifload": False, "heifload": False,
    "jxlload": False, "jp2kload": True, "openslideload": True, "ppmload": False, "radload": False, "fitsload": False,
    "openexrload": False, "niftiload": False, "vipsload": True,
}  # fmt: skip


@functools.cache
def libvips() -> ModuleType:
    """pyvips, with libvips new enough and its operation cache off (it would hold files open and memory)."""
    import pyvips

    version = tuple(pyvips.version(i) for i in range(3))
    if version < LEAST:
        raise BadInput(
            f"libvips {'.'.join(map(str, version))} reads some compressed TIFFs as zeros; install "
            f"{'.'.join(map(str, LEAST))} or newer (pip install -U pyvips-binary)"
        )
    pyvips.cache_set_max(0)
    return pyvips


def loader_of(path: Path) -> str:
    """Name of the libvips loader for a file, such as "jpegload". Raises BadInput where there is none."""
    vips = libvips()
    found = vips.ffi.NULL if not path.exists() else vips.vips_lib.vips_foreign_find_load(str(path).encode())
    vips.vips_lib.vips_error_clear()
    name = "" if found == vips.ffi.NULL else vips.ffi.string(found).decode()
    name = name.removeprefix("VipsForeignLoad").removesuffix("File").lower() + "load"
    name = {
        "uhdrload": "jpegload",
        "jpegload": "jpegload",
        "nsgifload": "gifload",
        "jp2kload": "jp2kload",
    }.get(name, name)
    if name not in LOADERS:
        raise BadInput(f"{path} is not an image that can be read here (TIFF, JPEG, PNG, WebP and others can)")
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
    """How a vips image becomes colour bands and a weight; decided from the header."""

    def __init__(self, path: Path, image: Any, bands: Sequence[int] | None) -> None:
        from urst_tiles.source.tiff import choose_bands

        self.path = path
        image = in_rgb(image)
        if image.format not in FORMATS:
            raise BadInput(
                f"{path}: samples of type {image.format} are not supported (integers and floats are)"
            )
        alpha = bool(image.hasalpha())
        self.dtype = np.dtype(FORMATS[image.format])
        self._alpha = image.bands - 1 if alpha else None
        self._pick = choose_bands(path, bands, image.bands - alpha)
        self.colours = len(self._pick)
        self.has_valid = alpha or self.dtype.kind == "f"

    def samples(self, raw: NDArray[Any]) -> Samples:
        """Colour and weight of pixels (h, w, bands) as libvips made them."""
        out = weight_dtype(self.dtype)
        weight = None if self._alpha is None else alpha_weight(raw[..., self._alpha], out)
        colour = raw[..., self._pick]
        if self.dtype.kind == "f":
            from urst_tiles.source.valid import combine, has_data

            weight = combine(weight, has_data(colour, None), out)
        return Samples(colour, weight)


def in_rgb(image: Any) -> Any:
    """The image with CMYK and Lab converted to RGB through its profile (or libvips' own CMYK profile)."""
    if image.coding != "none":
        image = image.rad2float() if image.coding == "rad" else image.LabQ2Lab()
    if image.interpretation == "cmyk":
        depth = 8 if image.format in ("uchar", "char") else 16
        return image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", depth=depth, intent="relative"
        )
    if image.interpretation in ("lab", "labs", "labq", "lch", "xyz", "hsv", "yxy", "cmc"):
        return image.colourspace("srgb")
    return image


def cmyk_to_rgb(pixels: NDArray[Any], profile: bytes | None) -> NDArray[Any]:
    """RGB (h, w, 3) in the same depth from CMYK (h, w, 4), uint8 or uint16, through the profile."""
    vips = libvips()
    if pixels.dtype.kind == "i":
        pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    image = vips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation="cmyk")
    if profile:
        image = image.copy()
        image.set_type(vips.GValue.blob_type, "icc-profile-data", profile)
    try:
        return np.asarray(in_rgb(image).numpy())
    except vips.Error:
        raise DamagedFile(
            "the CMYK profile of this image cannot be used; convert the image to RGB first"
        ) from None


class VipsReader:
    """Random access through libvips, cell by cell; thread-safe because nothing is shared."""

    levels: tuple[tuple[int, int], ...] = ()
    alone = False

    def __init__(self, path: Path, loader: str, bands: Sequence[int] | None) -> None:
        image = open_image(path, loader)
        self.path, self._loader = path, loader
        self._decoded = Decoded(path, image, bands)
        self.shape = (image.height, image.width)
        self.dtype, self.colours = self._decoded.dtype, self._decoded.colours
        self.has_valid = self._decoded.has_valid
        self.cell_shape = (1024, 1024)

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box. Raises DamagedFile."""
        vips = libvips()
        image = in_rgb(open_image(self.path, self._loader))
        try:
            (h, w) = box.shape
            data = vips.Region.new(image).fetch(box.x0, box.y0, w, h)
        except vips.Error:
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot be decoded; "
                "the file is damaged, get a new copy of it"
            ) from None
        return self._decoded.samples(_as_array(data, image, box.shape))


def stream(path: Path, loader: str, bands: Sequence[int] | None, rows: int) -> Iterator[tuple[Box, Samples]]:
    """Samples from top to bottom in bands of ``rows`` rows. Raises DamagedFile where the file's content does."""
    vips = libvips()
    original = open_image(path, loader, sequential=True)
    decoded = Decoded(path, original, bands)
    image = in_rgb(original)
    region = vips.Region.new(image)
    for y in range(0, image.height, rows):
        box = Box(y, 0, min(y + rows, image.height), image.width)
        try:
            data = region.fetch(0, y, image.width, box.y1 - y)
        except vips.Error:
            raise DamagedFile(
                f"{path}: its pixels cannot be decoded beyond row {y}; the file is damaged or cut off"
            ) from None
        yield box, decoded.samples(_as_array(data, image, box.shape))


def _as_array(data: Any, image: Any, shape: tuple[int, int]) -> NDArray[Any]:
    return np.frombuffer(data, FORMATS[image.format]).reshape(*shape, image.bands)


__all__ = [
    "LOADERS",
    "UrstError",
    "VipsReader",
    "cmyk_to_rgb",
    "libvips",
    "loader_of",
    "open_image",
    "stream",
]
