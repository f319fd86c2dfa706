"""Check the structure of a JPEG 2000 file (JP2), and decode it.

Reference: ISO/IEC 15444-1, annexes A (codestream) and I (file format).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from urst_tiles.geometry import ceil_div
from urst_tiles.source.gdal import environment, library, plain, quiet

#: How a JP2 begins: its signature box.
JP2_MAGIC = b"\0\0\0\x0cjP  "

#: Markers of a codestream: its start and end, its size, and the start of a part of a tile.
_SOC, _EOC, _SIZ, _SOT = 0xFF4F, 0xFFD9, 0xFF51, 0xFF90

Shape = tuple[int, int]


def jp2_shape(file: BinaryIO) -> Shape:
    """The size of a JP2 whose boxes and whose tiles are whole, (height, width).

    Raises
    ------
    ValueError : something is wrong, which the message says.
    """
    size = file.seek(0, os.SEEK_END)
    position, told = 0, (0, 0)
    while position < size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", file.read(8)), 16
        end = position + length if length else size
        if end > size or end < position + head:
            raise ValueError(f"its box {name.decode('latin-1')} is cut off")
        if name == b"jp2h":
            told = _told(file.read(end - position - head))
        elif name == b"jp2c":
            found = _codestream(file, position + head, end)
            if found != told:
                raise ValueError("its header tells another size than its codestream")
            return found
        position = end
    raise ValueError("it has no codestream: it is cut off")


def _told(header: bytes) -> Shape:
    """The size in the box of the image header, which is the first in the header."""
    height, width = struct.unpack_from(">4sII", header, 4)[1:]
    return int(height), int(width)


def _codestream(file: BinaryIO, position: int, end: int) -> Shape:
    """The size of the picture in a codestream all of whose tiles are there."""
    file.seek(position)
    start, siz, _, _, x1, y1, x0, y0, width, height, left, top = struct.unpack(">HHHH8I", file.read(40))
    if (start, siz) != (_SOC, _SIZ) or not (width and height and x1 > x0 and y1 > y0):
        raise ValueError("its codestream has no size")
    count = ceil_div(x1 - left, width) * ceil_div(y1 - top, height)
    seen, position = set[int](), position + 2
    while True:
        file.seek(position)
        marker = struct.unpack(">H", file.read(2))[0]
        if marker == _EOC:
            break
        (length,) = struct.unpack(">H", file.read(2))
        if marker == _SOT:
            tile, bytes_of_part = struct.unpack(">HI", file.read(6))
            seen.add(tile)
            length = bytes_of_part - 2 if bytes_of_part else end - 2 - position - 2
        position += 2 + length
        if position + 2 > end:
            raise ValueError("its codestream ends without a mark of its end: it is cut off")
    if seen != set(range(count)):
        raise ValueError(f"it has {len(seen)} tiles instead of {count}")
    return y1 - y0, x1 - x0


def gdal_says(path: Path, shape: Shape | None = None) -> str | None:
    """Why a JP2 cannot be decoded, as the end of a sentence; None if it is good, or if there is no GDAL that
    could decode it."""
    rasterio = library()
    if rasterio is None:
        return None
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        name = f"/proc/self/fd/{folder}/{path.name}"
        with environment(remote=False), quiet(), rasterio.open(name) as file:
            if shape is not None and file.shape != shape:
                return f"has {file.width} x {file.height} pixels instead of {shape[1]} x {shape[0]}"
            for _, window in file.block_windows(1):
                file.read(window=window)
    except rasterio.errors.RasterioError as error:
        return f"cannot be decoded: it is damaged; GDAL says: {plain(error.__cause__ or error)}"
    except UnicodeEncodeError:
        return None  # GDAL opens no such name
    finally:
        os.close(folder)
    return None
