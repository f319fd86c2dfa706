"""Small TIFFs of any tags, and what other readers make of them, for tests of what samples mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.tiff.types import ASCII, LONG, RATIONAL, SHORT, SRATIONAL, TYPES, UNDEFINED, WIDTHS
from urst_tiles.tiff.writing import DirectoryField, directory, header

HEIGHT, WIDTH = 64, 96
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([200 - X, 60 + Y, (X + Y) // 2], -1).astype(np.uint8)
HOLE = (X - 40) ** 2 + (Y - 30) ** 2 < 300
ALPHA = np.where(HOLE, 0, 255).astype(np.uint8)
APERIO = b"Aperio Image Library v11|AppMag = 20|MPP = 0.4990\0"

#: The TIFF types of the tags that the files of these tests have, where it is not SHORT.
KINDS = {273: LONG, 279: LONG, 324: LONG, 325: LONG,
         270: ASCII, 42113: ASCII, 34675: UNDEFINED, 529: RATIONAL, 532: RATIONAL, 433: SRATIONAL,
         50674: LONG, 513: LONG, 514: LONG, 519: LONG, 520: LONG, 521: LONG}  # fmt: skip


def write(
    path: Path,
    data: bytes,
    photometric: int,
    bits: tuple[int, ...] = (8, 8, 8),
    tiled: bool = False,
    **more: Any,
) -> Path:
    """A BigTIFF of one strip or tile of HEIGHT x WIDTH; further tags are given as ``_CODE=values``, and None
    leaves one out."""
    values: dict[int, Any] = {
        256: WIDTH,
        257: HEIGHT,
        258: bits,
        259: 1,
        262: photometric,
        277: len(bits),
        284: 1,
    }
    values |= (
        {322: WIDTH, 323: HEIGHT, 324: 16, 325: len(data)}
        if tiled
        else {273: 16, 278: HEIGHT, 279: len(data)}
    )
    values |= {int(name[1:]): value for name, value in more.items()}
    fields = []
    for code, value in values.items():
        if value is None:
            continue
        kind = KINDS.get(code, SHORT)
        raw = value if isinstance(value, bytes) else np.array(value, f"<{TYPES[kind]}").tobytes()
        fields.append(DirectoryField(code, kind, len(raw) // WIDTHS[kind], raw))
    place = 16 + (len(data) + 7 & ~7)
    path.write_bytes(header(place) + data.ljust(place - 16, b"\0") + b"".join(directory(fields, place, 0)))
    return path


def read(path: Path, stretch: str = "0,65535") -> np.ndarray:
    """All pixels, RGB or RGBA; values of 16 bits stay as they are."""
    source = open_source(path, stretch=stretch).prepare(path.parent / f"{path.name}.job")
    return source.read(Box(0, 0, *source.shape))


def gdal(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All bands as GDAL reads them, (h, w, bands), and the pixels that are valid for it, bool, (h, w)."""
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1), file.dataset_mask() > 0


def make(path: Path, bands: np.ndarray, **options: Any) -> Path:
    """A GeoTIFF as GDAL writes it, of (bands, h, w)."""
    count, height, width = bands.shape
    kind = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype.name}
    with rasterio.open(path, "w", **kind, **options) as file:
        file.write(bands)
    return path


def assert_near(found: np.ndarray, expected: np.ndarray, most: int = 1) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= most
