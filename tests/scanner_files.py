"""Small slides of further scanners, as OpenSlide reads them: MIRAX, Hamamatsu's VMS, Sakura's SVSLIDE.

Reference: the sources of OpenSlide 4 (``openslide-vendor-mirax.c``, ``-hamamatsu.c``, ``-sakura.c``).
"""

from __future__ import annotations

import io
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

#: Side of the pictures that a slide is made of.
SIDE = 64


def parts(pixels: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """(row, column, pixels) of the squares of a picture; those at the edges are filled up by their last
    pixels."""
    height, width = pixels.shape[:2]
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    full = np.pad(pixels, ((0, rows * SIDE - height), (0, columns * SIDE - width), (0, 0)), mode="edge")
    for row in range(rows):
        for column in range(columns):
            y, x = row * SIDE, column * SIDE
            yield row, column, np.ascontiguousarray(full[y : y + SIDE, x : x + SIDE])


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


SLIDEDAT = """[GENERAL]
SLIDE_ID = 0123456789ABCDEF
IMAGENUMBER_X = {columns}
IMAGENUMBER_Y = {rows}
OBJECTIVE_MAGNIFICATION = 20
CameraImageDivisionsPerSide = 1
[HIERARCHICAL]
HIER_COUNT = 1
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 1
HIER_0_VAL_0_SECTION = LEVEL_0
NONHIER_COUNT = 0
INDEXFILE = Index.dat
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
[LEVEL_0]
IMAGE_CONCAT_FACTOR = 0
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = 0.5
MICROMETER_PER_PIXEL_Y = 0.5
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = 64
DIGITIZER_HEIGHT = 64
IMAGE_FORMAT = PNG
"""


def write_mirax(path: Path, pixels: np.ndarray) -> Path:
    """A slide of half a micron per pixel and magnification 20, in PNGs: NAME.mrxs, which is a JPEG thumbnail,
    and the folder NAME. Its size is a multiple of `SIDE`."""
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(encoded(np.ascontiguousarray(pixels[::4, ::4]), "JPEG"))
    data, items = b"", []
    columns, rows = -(-pixels.shape[1] // SIDE), -(-pixels.shape[0] // SIDE)
    for row, column, part in parts(pixels):
        one = encoded(part, "PNG")
        items.append(struct.pack("<4i", row * columns + column, len(data), len(one), 0))
        data += one
    (folder / "Data0000.dat").write_bytes(data)
    index = b"01.02" + b"0123456789ABCDEF"
    at = len(index) + 8  # behind the pointers to levels and to the rest; each level points to its page
    index += (
        struct.pack("<6i", at, 0, at + 4, 0, at + 12, len(items)) + struct.pack("<i", 0) + b"".join(items)
    )
    (folder / "Index.dat").write_bytes(index)
    (folder / "Slidedat.ini").write_text(SLIDEDAT.format(columns=columns, rows=rows))
    return path


def write_vms(path: Path, pixels: np.ndarray) -> Path:
    """A slide of magnification 20: an index, the picture, a JPEG with restart markers, and its map."""
    blocks = {"quality": 95, "subsampling": 0, "restart_marker_rows": 1}
    for name, picture in (("picture.jpg", pixels), ("map.jpg", pixels[::4, ::4])):
        (path.parent / name).write_bytes(encoded(np.ascontiguousarray(picture), "JPEG", **blocks))
    path.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=picture.jpg\n"
        "MapFile=map.jpg\nSourceLens=20\n"
    )
    return path


def write_svslide(path: Path, pixels: np.ndarray) -> Path:
    """A slide in a database: each channel of each square is a grey JPEG."""
    height, width = pixels.shape[:2]
    rows = [("++MagicBytes", b"SVGigaPixelImage"), ("Header", struct.pack("<5I", SIDE, width, height, 0, 1))]
    for row, column, part in parts(pixels):
        for channel in range(3):
            name = f"T;{column * SIDE}|{row * SIDE};1;{channel};0"
            rows.append((name, encoded(np.ascontiguousarray(part[..., channel]), "JPEG", quality=95)))
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE DataManagerSQLiteConfigXPO (TableName TEXT)")
    base.execute("INSERT INTO DataManagerSQLiteConfigXPO VALUES ('slide')")
    base.execute("CREATE TABLE slide (id TEXT PRIMARY KEY, size INTEGER, data BLOB)")
    base.executemany("INSERT INTO slide VALUES (?, 0, ?)", rows)
    base.commit()
    base.close()
    return path
