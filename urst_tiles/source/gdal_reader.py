"""Reading samples through GDAL: the meaning of bands, palettes, alpha, nodata, masks, scale and offset."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import decoder_count
from urst_tiles.source import valid
from urst_tiles.source.bands import Band, bands_said, choose_bands
from urst_tiles.source.colour import cmyk_to_rgb
from urst_tiles.source.containers import jp2_tile_bytes
from urst_tiles.source.gdal import CACHE_BYTES, LIBRARY_BYTES, Handles
from urst_tiles.source.valid import Samples
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.decodable import complex_samples
from urst_tiles.tiff.metadata import Validity

#: The least side of a cell, and how many pixels a cell of whole rows has: a call has a fixed cost.
CELL, CELL_PIXELS = 1024, 1 << 20

#: Drivers that decode from top to bottom, and begin anew for a row above.
SEQUENTIAL = frozenset({"PNG", "JPEG", "GIF", "BIGGIF", "WEBP", "JPEGXL", "HEIF", "AVIF", "CALS", "XPM"})

#: Drivers that write pixels of several bands in less time than bands apart and a copy take (measured: half of
#: it; files that are compressed pixel by pixel take longer).
DIRECT = frozenset({"ENVI", "HFA"})

#: A block of more bytes is decoded anew for each cell, as it does not stay in the cache.
MOST_BLOCK_BYTES = CACHE_BYTES // 2

#: How many times OpenJPEG holds the bytes of the tile that it decodes a block of, with its tables (measured:
#: 1.5 to 3); files of a single tile are common.
JP2_TILE_COPIES = 2

#: What GDAL calls colours -> what `choose_bands` calls them.
NO_COLOUR = {"undefined", "palette"}
CMYK = ["cyan", "magenta", "yellow", "black"]


@dataclass(frozen=True)
class Kind:
    """What the samples of the bands that are read mean.

    Attributes
    ----------
    stored : the numbers, counted from 1, of the bands that become colours.
    alpha : the number of the band of alpha, or 0; its range has ``alpha_bits`` bits, 0 for all of its type.
    dtype : the common type of the stored samples.
    nodata : the nodata value of each stored band, or None.
    masks : the bands whose masks GDAL has, in the file or beside it.
    scale : (scale, offset) of each stored band; None where all are 1 and 0.
    palette : uint8, (entries, 4), RGBA; None without one.
    cmyk : whether the stored bands are four inks.
    pick : which of the colours that follow are taken, where a palette or inks become three of them.
    """

    stored: tuple[int, ...] = ()
    alpha: int = 0
    alpha_bits: int = 0
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    nodata: tuple[float | int | None, ...] = ()
    masks: tuple[int, ...] = ()
    scale: tuple[tuple[float, float], ...] | None = None
    palette: NDArray[np.uint8] | None = None
    cmyk: bool = False
    pick: tuple[int, ...] = ()

    @property
    def out(self) -> np.dtype[Any]:
        """The type of the colours."""
        if self.palette is not None:
            return np.dtype(np.uint8)
        if self.scale is None:
            return self.dtype
        return np.dtype(np.float32 if self.dtype.itemsize <= 2 or self.dtype == np.float32 else np.float64)

    @property
    def see_through(self) -> bool:
        """Whether an entry of the palette is not opaque."""
        return self.palette is not None and bool((self.palette[:, 3] < 255).any())


class GdalReader:
    """Reads samples of a dataset of GDAL and of its overviews. Several threads may use it at the same time.

    The attributes are those of `Reader`, and:

    Attributes
    ----------
    bands : what is told of each band of the dataset.
    said : which bands are read, as a phrase; empty where all are read in their order.
    validity : how the dataset marks invalid pixels.
    random : whether any box can be read at any time without decoding all before it.
    reader_bytes : bytes of memory that reading takes at most, besides the arrays that are returned.

    Raises
    ------
    BadInput : there are no such bands, they are complex, or the dataset has none.
    """

    def __init__(self, path: Path, name: str, choice: Choice, remote: bool = False) -> None:
        self.path, self.handles = path, Handles(path, name, remote)
        with self.handles.lend() as data:
            self.shape = (int(data.height), int(data.width))
            self.bands = told_bands(data)
            self.kind, self.said = _kind(path, data, self.bands, choice)
            self.block = tuple(map(int, data.block_shapes[self.kind.stored[0] - 1]))
            self.driver = str(data.driver)
            read = (*self.kind.stored, *([self.kind.alpha] if self.kind.alpha else []))
            factors = {tuple(data.overviews(band)) for band in read}
        local = self.driver.startswith("JP2") and not remote and path.is_file()
        self._tile_bytes = jp2_tile_bytes(path) if local else 0
        self.dtype = self.kind.out
        self.colours = len(self.kind.pick or self.kind.stored)
        self.has_valid = self.validity != "none" or self.dtype.kind == "f"
        self.random = self.driver not in SEQUENTIAL and self.block_bytes <= MOST_BLOCK_BYTES
        self.alone = not self.random
        self.cell_shape = _cell(self.block, self.shape)
        self.levels = self._levels(len(next(iter(factors))) if len(factors) == 1 and self.random else 0)

    def _levels(self, count: int) -> tuple[tuple[int, int], ...]:
        """(height, width) of each overview."""
        shapes = []
        for level in range(1, count + 1):
            with self.handles.lend(level) as data:
                shapes.append((int(data.height), int(data.width)))
        return tuple(shapes)

    @property
    def validity(self) -> Validity:
        kind = self.kind
        if kind.alpha or kind.see_through:
            return "alpha"
        if kind.masks:
            return "mask"
        marked = any(value is not None for value in kind.nodata)
        return "nodata" if marked else "mask" if self.dtype.kind == "f" else "none"

    @property
    def block_bytes(self) -> int:
        return math.prod(self.block) * self.kind.dtype.itemsize

    @property
    def reader_bytes(self) -> int:
        """For each thread these are a block that is decoded, and the samples of a cell as GDAL returns them,
        as they lie in a picture, and with scale or palette once more."""
        block = self._bands * self.block_bytes
        if self.driver.startswith("JP2"):  # OpenJPEG decodes a block in 32 bits, and all its bands at once
            block += 2 * 4 * len(self.bands) * math.prod(self.block)
            block += JP2_TILE_COPIES * self._tile_bytes
        return LIBRARY_BYTES + CACHE_BYTES + self._threads * block + self.returned_bytes

    @property
    def returned_bytes(self) -> int:
        """The part of it that is made for those that read: the cells of each thread."""
        kind = self.kind
        pixel = 2 * self._bands * kind.dtype.itemsize + 4
        if kind.scale or kind.palette is not None or kind.cmyk:
            pixel += 2 * 4 * self.dtype.itemsize
        return self._threads * math.prod(self.cell_shape) * pixel

    @property
    def _bands(self) -> int:
        """How many bands are read."""
        return len(self.kind.stored) + (1 if self.kind.alpha else 0) + len(self.kind.masks)

    @property
    def _threads(self) -> int:
        return decoder_count() if self.random else 1

    @property
    def into(self) -> Callable[[Box, int, NDArray[Any]], None] | None:
        """What reads a box of a level into an array (h, w, colours), of any strides, without an array in
        between; None where the stored samples are not the colours, or may be invalid, or where that takes
        more time."""
        kind = self.kind
        plain = kind.scale is None and kind.palette is None and not kind.cmyk and not self.has_valid
        return self._read_into if plain and self.driver in DIRECT else None

    def _read_into(self, box: Box, level: int, out: NDArray[Any]) -> None:
        with self.handles.lend(level) as data:
            data.read(list(self.kind.stored), window=_window(box), out=np.moveaxis(out, -1, 0))

    def cell(self, box: Box, level: int = 0) -> Samples:
        kind = self.kind
        window = _window(box)
        with self.handles.lend(level) as data:
            raw = data.read(list(kind.stored), window=window, out_dtype=kind.dtype)
            alpha = data.read(kind.alpha, window=window) if kind.alpha else None
            masks = [data.read_masks(band, window=window) for band in kind.masks]
        colour = np.empty((*box.shape, len(raw)), raw.dtype)
        for k, band in enumerate(raw):  # to transpose the whole at once takes 16 times as long (measured)
            colour[..., k] = band
        weight = self._weight(colour, alpha, masks)
        return Samples(self._meaning(colour), weight)

    def _weight(
        self, colour: NDArray[Any], alpha: NDArray[Any] | None, masks: Sequence[NDArray[np.uint8]]
    ) -> NDArray[Any] | None:
        """The weight, (h, w), of pixels: alpha, masks, nodata and NaN together."""
        kind, out = self.kind, valid.weight_dtype(self.dtype)
        weight = None if alpha is None else valid.alpha_weight(alpha, out, kind.alpha_bits)
        if kind.palette is not None and kind.see_through:
            clear = valid.alpha_weight(kind.palette[:, 3], out)[_entries(colour, kind.palette)]
            weight = clear if weight is None else np.minimum(weight, clear)
        present = _has_data(colour, kind.nodata)
        for mask in masks[:1]:
            masked = np.bitwise_or.reduce(masks) != 0 if len(masks) > 1 else mask != 0
            present = masked if present is None else present & masked
        weight = valid.combine(weight, present, out)
        if weight is None and self.has_valid:
            weight = np.full(colour.shape[:2], valid.full(out), out)
        return weight

    def _meaning(self, colour: NDArray[Any]) -> NDArray[Any]:
        """The colours, (h, w, 1 or 3), that the stored samples stand for."""
        kind = self.kind
        if kind.palette is not None:
            return kind.palette[_entries(colour, kind.palette)][..., list(kind.pick)]
        if kind.cmyk:
            return cmyk_to_rgb(self.path, colour, None)[..., list(kind.pick)]
        if kind.scale is None:
            return colour
        scale, offset = np.array(kind.scale, kind.out).T
        return colour.astype(kind.out) * scale + offset


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    """A box as rasterio names it."""
    return (box.y0, box.y1), (box.x0, box.x1)


def _entries(colour: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[Any]:
    """The entries, (h, w), of a palette that samples stand for."""
    return np.clip(colour[..., 0], 0, len(palette) - 1).astype(np.intp)


def _has_data(colour: NDArray[Any], nodata: Sequence[float | int | None]) -> NDArray[np.bool_] | None:
    """The pixels, bool (h, w), of which a band has data; None for all.

    A pixel is invalid where each band has its own nodata value, or any is not finite.
    """
    floats = colour.dtype.kind == "f"
    if None in nodata:
        return valid.has_data(colour, None) if floats else None
    if len(set(nodata)) == 1:
        return valid.has_data(colour, nodata[0])
    some = [valid.has_data(colour[..., i : i + 1], value) for i, value in enumerate(nodata)]
    data = np.logical_or.reduce(some)
    return data & valid.has_data(colour, None) if floats else data


def told_bands(data: Any) -> list[Band]:
    """What GDAL tells of each band of a dataset: its colour, its name, its wavelength."""
    bands = []
    for number, (colour, name) in enumerate(zip(data.colorinterp, data.descriptions, strict=True), 1):
        word = None if colour.name in NO_COLOUR else colour.name
        items = data.tags(number) | data.tags(number, ns="IMAGERY")
        band = Band(name or items.get("BANDNAME"), word)
        bands.append(replace(band, wavelength=_microns(items)))
    return bands


def _microns(items: dict[str, str]) -> float | None:
    """The wavelength of a band in micrometres, from GDAL's items: its own, Sentinel-2's and ENVI's."""
    units = items.get("WAVELENGTH_UNIT", items.get("wavelength_units", "um")).lower()
    for name in ("CENTRAL_WAVELENGTH_UM", "WAVELENGTH", "wavelength"):
        try:
            value = float(items[name])
        except (KeyError, ValueError):
            continue
        return value / 1000 if name != "CENTRAL_WAVELENGTH_UM" and units.startswith("nano") else value
    return None


def _kind(path: Path, data: Any, bands: Sequence[Band], choice: Choice) -> tuple[Kind, str]:
    """What is read of a dataset, and a phrase about it if it is not all of it in its order."""
    if not bands:
        raise BadInput(f"{path} has no bands of an image; `urst-tiles info` lists what it has")
    words = [colour.name for colour in data.colorinterp]
    alphas = [i for i, word in enumerate(words) if word == "alpha"]
    alpha = alphas[0] + 1 if alphas and len(bands) > 1 else 0
    colours = [i for i in range(len(bands)) if i + 1 != alpha]
    palette, cmyk = None, [words[i] for i in colours] == CMYK
    if len(colours) == 1 and words[colours[0]] == "palette":
        palette = _palette(data, colours[0] + 1)
    said, pick = "", tuple[int, ...]()
    if palette is not None or cmyk:
        pick = tuple(choose_bands(path, choice.wanted, 3))
        stored = colours
    else:
        known = [bands[i] for i in colours]
        chosen = choose_bands(path, choice.wanted or _one_of_series(data, known), known)
        said, stored = bands_said(known, chosen), [colours[i] for i in chosen]
    numbers = tuple(i + 1 for i in stored)
    return _kind_of(path, data, numbers, alpha, Kind(palette=palette, cmyk=cmyk, pick=pick)), said


def _one_of_series(data: Any, bands: Sequence[Band]) -> tuple[int] | None:
    """The first band, where bands are steps of time or depth and no colours, as in netCDF."""
    steps = "NETCDF_DIM_EXTRA" in data.tags() and not any(band.colour or band.wavelength for band in bands)
    return (1,) if steps else None


def _kind_of(path: Path, data: Any, numbers: tuple[int, ...], alpha: int, kind: Kind) -> Kind:
    """``kind`` with what the bands ``numbers``, and the band ``alpha``, say of themselves."""
    types = [data.dtypes[n - 1] for n in numbers]
    if any("complex" in one for one in types):
        raise BadInput(complex_samples(path))
    dtype = np.result_type(*types)
    values = [data.nodatavals[n - 1] for n in numbers]
    flags = [{flag.name for flag in data.mask_flag_enums[n - 1]} for n in numbers]
    own = [n for n, words in zip(numbers, flags, strict=True) if not words]
    shared = [n for n, words in zip(numbers, flags, strict=True) if words == {"per_dataset"}]
    pairs = tuple((float(data.scales[n - 1]), float(data.offsets[n - 1])) for n in numbers)
    plain = kind.palette is not None or kind.cmyk or all(pair == (1.0, 0.0) for pair in pairs)
    bits = data.tags(alpha, ns="IMAGE_STRUCTURE").get("NBITS", "0") if alpha else "0"
    return replace(
        kind,
        stored=numbers,
        alpha=alpha,
        alpha_bits=int(bits) if bits.isdecimal() else 0,
        dtype=dtype,
        nodata=tuple(None if v is None else valid.nodata_value(repr(v), dtype) for v in values),
        masks=tuple(own or shared[:1]),
        scale=None if plain else pairs,
    )


def _palette(data: Any, band: int) -> NDArray[np.uint8] | None:
    """The palette of a band, uint8, (entries, 4); None where it has none."""
    try:
        table = data.colormap(band)
    except ValueError:
        return None
    palette = np.zeros((max(table) + 1, 4), np.uint8)
    for entry, colour in table.items():
        palette[entry] = colour
    return palette


def _cell(block: Sequence[int], shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a cell: whole blocks, and whole rows where blocks are rows."""
    height, width = min(block[0], shape[0]), min(block[1], shape[1])
    if width == shape[1] and height * 4 < width:
        rows = max(1, CELL_PIXELS // width // height) * height
        return min(rows, ceil_div(shape[0], height) * height), width
    return ceil_div(CELL, height) * height, ceil_div(CELL, width) * width
