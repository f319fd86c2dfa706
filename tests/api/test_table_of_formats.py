"""The table of formats in docs/formats.md: each row is tried on a file that is made here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from format_files import PLACES
from format_rows import ROWS, Row
from helpers import picture

import urst_tiles as ut
from urst_tiles.geometry import Box
from urst_tiles.source import Source, open_source

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}

#: A stretch that leaves samples of each type as they are, up to a factor or an offset.
STRETCH = {"uint8": "0,255", "uint16": "0,65535", "int16": "0,65535", "float32": "0,1"}

#: The opener of each reader.
READERS = {
    "TiffOpener": "own reader", "VipsOpener": "libvips", "GdalOpener": "GDAL", "SlideOpener": "OpenSlide",
    "ZarrOpener": "zarr", "MosaicOpener": "own mosaic", "JoinedOpener": "own reader, or GDAL",
}  # fmt: skip


def samples(row: Row, dtype: str) -> np.ndarray:
    """A made-up picture in a type of samples."""
    pixels = picture(200, 260)[..., 0] if row.grey else picture(200, 260)
    pixels = np.ascontiguousarray(pixels)
    if dtype == "uint16":
        return pixels.astype(np.uint16) * 257
    return (pixels / np.float32(255)).astype(np.float32) if dtype == "float32" else pixels.astype(dtype)


def expected(row: Row, path: Path | str, pixels: np.ndarray) -> np.ndarray:
    """The colours, (h, w, 3), that a picture of these samples has: in 8 bits, or in 16."""
    right = pixels if row.right is None else row.right(Path(path))
    right = np.repeat(right[..., None], 3, -1) if right.ndim == 2 else right
    if right.dtype.kind == "f":
        right = np.rint(np.clip(right.astype(np.float64), 0, 1) * 65535)
    return right.astype(np.uint8 if right.dtype == np.uint8 else np.uint16)


def read(source: Source, folder: Path) -> np.ndarray:
    source = source.prepare(folder, thumbnail=64)
    return source.read(Box(0, 0, *source.shape))[..., :3]


@pytest.mark.parametrize("name", ROWS)
def test_a_format_is_read(name: str, tmp_path: Path) -> None:
    """A whole job with a network that changes nothing: pixels, place, levels, and who reads."""
    row = ROWS[name]
    (tmp_path / "in").mkdir()
    path = row.write(tmp_path / "in", pixels := samples(row, row.types[0]))
    source = open_source(path, stretch=STRETCH[row.types[0]])
    assert READERS[type(source._facts.opener).__name__] == row.by
    assert bool(source.overviews) == bool(row.levels)
    ut.stylize(path, tmp_path / "out.tif", None, **SMALL, stretch=STRETCH[row.types[0]])
    found, right = tifffile.imread(tmp_path / "out.tif", key=0)[..., :3], expected(row, path, pixels)
    assert found.dtype == right.dtype
    np.testing.assert_array_equal(found, right)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert (not out.transform.is_identity) == bool(row.place)
        if row.place:
            assert out.transform.almost_equals(PLACES[row.at]["transform"], 1e-6)
        assert (out.crs is not None) == (row.place == "inside")


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, row in ROWS.items() for dtype in row.types[1:]]
)
def test_samples_of_other_types_are_read(name: str, dtype: str, tmp_path: Path) -> None:
    row = ROWS[name]
    (tmp_path / "in").mkdir()
    path = row.write(tmp_path / "in", pixels := samples(row, dtype))
    found = read(open_source(path, stretch=STRETCH[dtype]), tmp_path / "job")
    np.testing.assert_array_equal(found, expected(row, path, pixels))
