"""A file that says it has a mask gives it, or is refused: no invalid pixel ever becomes a pixel."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile

from urst_tiles.errors import BadInput, DamagedFile, UrstError
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.types import LONG8, SHORT
from urst_tiles.tiff.writing import DirectoryField, directory, directory_bytes, field, header

PIXELS = np.random.default_rng(4).integers(0, 256, (150, 130, 3), np.uint8)
Y, X = np.mgrid[:150, :130]
VALID = ((Y - 70) ** 2 + (X - 60) ** 2 < 3000) | (np.random.default_rng(5).random((150, 130)) < 0.02)


def read_all(path: Path) -> np.ndarray:
    source = open_source(path).prepare(path.parent / f"{path.name}.job", thumbnail=16)
    return source.read(Box(0, 0, *source.shape))


def page(pixels: np.ndarray, folder: Path, **options: Any) -> tuple[list[DirectoryField], list[bytes]]:
    """The fields of an image as libvips writes it, without its tables, and its strips or tiles."""
    image = pyvips.Image.new_from_array(pixels)
    image.copy(interpretation="srgb" if image.bands > 1 else "b-w").tiffsave(str(folder / "x.tif"), **options)
    with tifffile.TiffFile(folder / "x.tif") as tif:
        first, handle = tif.pages.first, tif.filehandle
        data = []
        for offset, count in zip(first.dataoffsets, first.databytecounts, strict=True):
            handle.seek(offset)
            data.append(handle.read(count))
        codes = (256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323)
        values = {code: first.tags[code].value for code in codes if code in first.tags}
    kinds = {code: np.atleast_1d(value) for code, value in values.items()}
    return [field(code, SHORT, *map(int, value)) for code, value in kinds.items()], data


def write(path: Path, *pages: tuple[list[DirectoryField], list[bytes]]) -> Path:
    """A BigTIFF of these pages."""
    position, at, out = 16, 16, []
    for fields, data in pages:
        tables = 273 if not any(f.code == 322 for f in fields) else 324
        fields = [f for f in fields if f.code not in (273, 279, 324, 325)]
        offsets = position + np.cumsum([0, *(len(item) for item in data[:-1])])
        fields += [field(tables, LONG8, *offsets.tolist()),
                   field(279 if tables == 273 else 325, LONG8, *map(len, data))]  # fmt: skip
        position += sum(map(len, data)) + 7 & ~7
        out.append((fields, b"".join(data)))
    places = []
    at += sum(len(data) + 7 & ~7 for _, data in out)
    for fields, _ in out:
        places.append(at)
        at += directory_bytes(fields, 0)
    body = b"".join(data.ljust(len(data) + 7 & ~7, b"\0") for _, data in out)
    tail = [
        b"".join(directory(fields, place, following)).ljust(directory_bytes(fields, 0), b"\0")
        for (fields, _), place, following in zip(out, places, [*places[1:], 0], strict=True)
    ]
    path.write_bytes(header(places[0]) + body + b"".join(tail))
    return path


def mask_page(folder: Path, valid: np.ndarray = VALID, code: int = 4, **options: Any) -> Any:
    settings = {"compression": "ccittfax4", "bitdepth": 1} | options
    fields, data = page((valid * 255).astype(np.uint8), folder, **settings)
    meaning = [field(254, SHORT, code), field(262, SHORT, 4)]
    return [f for f in fields if f.code != 262] + meaning, data


def with_mask(path: Path, mask: Any, **options: Any) -> Path:
    settings = {"compression": "deflate", "tile": True, "tile_width": 64, "tile_height": 64} | options
    return write(path, page(PIXELS, path.parent, **settings), mask)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("mask_options", [
    {}, {"tile": True, "tile_width": 64, "tile_height": 64}, {"compression": "none"},
    {"compression": "deflate", "predictor": "none"},
])  # fmt: skip
def test_every_legal_mask_is_read(tiled: bool, mask_options: dict[str, Any], tmp_path: Path) -> None:
    path = with_mask(tmp_path / "a.tif", mask_page(tmp_path, **mask_options), tile=tiled)
    found = read_all(path)
    np.testing.assert_array_equal(found[..., 3] > 0, VALID)
    np.testing.assert_array_equal(found[..., :3], PIXELS)
    assert open_source(path).info.validity == "mask"


def test_a_mask_of_an_image_that_only_libvips_reads(tmp_path: Path) -> None:
    """A bilevel image in a fax compression: its mask was left out together with its reader."""
    bits = (PIXELS[..., 0] > 99).astype(np.uint8) * 255
    options = {"compression": "ccittfax4", "bitdepth": 1}
    path = write(tmp_path / "a.tif", page(bits, tmp_path, **options), mask_page(tmp_path))
    found = read_all(path)
    np.testing.assert_array_equal(found[..., 3] > 0, VALID)
    np.testing.assert_array_equal(found[..., 0] > 0, bits > 0)


def changed(code: int, *values: int) -> Callable[[Any], Any]:
    def change(mask: Any) -> Any:
        fields, data = mask
        return [f for f in fields if f.code != code] + [field(code, SHORT, *values)], data

    return change


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "a compression nobody has": changed(259, 4242),
    "a compression that is no mask's": changed(259, 34892),
    "another width": changed(256, 131),
    "another height": changed(257, 149),
    "no width": changed(256, 0),
    "half its size": lambda mask: changed(256, 65)(changed(257, 75)(mask)),
    "more samples": changed(277, 3),
    "more bits": changed(258, 5),
    "another unit of planes": changed(284, 9),
    "a strip of zeros": lambda mask: (mask[0], [bytes(len(item)) for item in mask[1]]),
    "a strip cut off": lambda mask: (mask[0], [item[: len(item) // 2] for item in mask[1]]),
}


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_mask_is_refused(name: str, tiled: bool, tmp_path: Path) -> None:
    path = with_mask(tmp_path / "a.tif", DAMAGE[name](mask_page(tmp_path)), tile=tiled)
    with pytest.raises((DamagedFile, BadInput)) as caught:
        read_all(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mark", [{254: 0}, {254: 1}, {262: 1}, {262: 0}])
def test_one_damaged_mark_of_a_mask_does_not_hide_it(mark: dict[int, int], tmp_path: Path) -> None:
    """It is marked twice, as a mask (NewSubfileType) and by what its samples mean."""
    ((code, value),) = mark.items()
    path = with_mask(tmp_path / "a.tif", changed(code, value)(mask_page(tmp_path)))
    np.testing.assert_array_equal(read_all(path)[..., 3] > 0, VALID)


def test_the_mask_of_another_page_is_no_reason(tmp_path: Path) -> None:
    """Of a file of several images the first is read; the mask is that of the second."""
    other = page(PIXELS[:99, :77], tmp_path, compression="deflate")
    first = page(PIXELS, tmp_path, compression="deflate")
    path = write(tmp_path / "a.tif", first, other, mask_page(tmp_path, VALID[:99, :77]))
    assert read_all(path).shape[-1] == 3


def test_the_mask_of_an_overview_alone_is_not_enough(tmp_path: Path) -> None:
    first = page(PIXELS, tmp_path, compression="deflate")
    fields, data = page(PIXELS[::2, ::2], tmp_path, compression="deflate")
    overview = [*fields, field(254, SHORT, 1)], data
    path = write(tmp_path / "a.tif", first, overview, mask_page(tmp_path, VALID[::2, ::2], code=5))
    with pytest.raises(DamagedFile, match="none that fits"):
        open_source(path)


def test_a_mask_behind_a_thousand_pages_is_seen(tmp_path: Path) -> None:
    tiny = page(PIXELS[:8, :8], tmp_path)
    path = write(tmp_path / "a.tif", page(PIXELS, tmp_path), *[tiny] * 1100, mask_page(tmp_path))
    np.testing.assert_array_equal(read_all(path)[..., 3] > 0, VALID)


def test_a_chain_that_is_cut_before_the_mask_is_noticed(tmp_path: Path) -> None:
    """The header of a cloud-optimised file says that there is a mask (GDAL's structural metadata)."""
    rgba = np.dstack([PIXELS, (VALID * 255).astype(np.uint8)])
    made = cog(tmp_path / "a.tif", rgba)
    np.testing.assert_array_equal(read_all(made)[..., 3] > 0, VALID)
    data, first = bytearray(made.read_bytes()), TiffFile(made).directories[0]
    count = struct.unpack_from("<H", data, first.offset)[0]
    struct.pack_into("<I", data, first.offset + 2 + 12 * count, 0)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(data)
    with pytest.raises(DamagedFile, match="says that it has a mask"):
        open_source(cut)


def cog(path: Path, rgba: np.ndarray) -> Path:
    """A cloud-optimised GeoTIFF with a mask, as GDAL makes it."""
    import rasterio
    from rasterio.shutil import copy

    height, width = rgba.shape[:2]
    place = rasterio.Affine(10, 0, 500, 0, -10, 500)
    options = {"height": height, "width": width, "count": 3, "dtype": "uint8", "transform": place}
    plain = path.with_suffix(".plain.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(plain, "w", "GTiff", **options) as file:
        file.write(np.moveaxis(rgba[..., :3], -1, 0))
        file.write_mask(rgba[..., 3])
    copy(plain, path, driver="COG", blocksize=128, overviews="NONE", compress="DEFLATE")
    return path


def test_every_flip_in_the_directory_of_a_mask_is_refused_or_seen(tmp_path: Path) -> None:
    """Never RGB without validity, whatever byte of the directory is another one."""
    path = with_mask(tmp_path / "a.tif", mask_page(tmp_path))
    good, mask = path.read_bytes(), TiffFile(path).directories[1]
    (count,) = struct.unpack_from("<Q", good, mask.offset)
    random = np.random.default_rng(8)
    for at in range(mask.offset, mask.offset + 8 + 20 * count):
        data = bytearray(good)
        data[at] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        try:
            source = open_source(path)
            assert source.channels == 4, at
        except UrstError as error:
            assert str(path) in str(error)
