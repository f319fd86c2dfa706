"""Looks at a file before any decoder does: is it there, is it an image, and would decoding it blow up?

JPEG (ITU T.81 annex B) and PNG (ISO 15948 section 11) headers are read for what libvips does not tell:
whether the whole picture must be held at once (progressive, interlaced), and whether the file can hold what
it declares.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from urst_tiles.errors import BadInput, DamagedFile, MissingFile

#: A picture that can only be decoded whole may take this much memory.
MOST_WHOLE_BYTES = 1 << 30

#: Deflate cannot shrink further than this (zlib's "Maximum compression factor").
DEFLATE_MOST = 1032


def check_file(path: Path) -> bytes:
    """The first bytes of a regular, readable, non-empty file.

    Raises
    ------
    MissingFile : not there, or no right to read it.
    BadInput : a directory or device, or empty.
    """
    try:
        mode = path.stat()
        if stat.S_ISDIR(mode.st_mode):
            raise BadInput(f"{path} is a folder; name the image file in it")
        if not stat.S_ISREG(mode.st_mode):
            raise BadInput(f"{path} is no regular file; copy the image into one first")
        if mode.st_size == 0:
            raise BadInput(f"{path} is empty (0 bytes); get a new copy of it")
        with open(path, "rb") as file:
            return file.read(64)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"there is no file {path}") from None
    except PermissionError:
        raise MissingFile(f"{path} may not be read by this user; change its rights (chmod u+r)") from None
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise MissingFile(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def check_whole(path: Path, loader: str, shape: tuple[int, int], sample_bytes: int, bands: int) -> int:
    """Memory that decoding takes because the picture must be held whole, 0 where it streams.

    Raises BadInput where that is too much, before anything is decoded.
    """
    needed = _whole_bytes(path, loader, shape[0] * shape[1], sample_bytes, bands)
    if needed > MOST_WHOLE_BYTES:
        raise BadInput(
            f"{path} has {shape[1]} x {shape[0]} pixels in a layout that must be decoded whole (progressive, "
            f"interlaced, or of a format without rows), which would take {needed / 1e9:.1f} GB (limit "
            f"{MOST_WHOLE_BYTES / 1e9:.1f} GB); save it as a tiled TIFF first"
        )
    return needed


def _whole_bytes(path: Path, loader: str, pixels: int, sample_bytes: int, bands: int) -> int:
    if loader == "jpegload":
        # libjpeg keeps every coefficient of every component as 16 bits
        return pixels * bands * 2 if jpeg_is_progressive(path) else 0
    if loader == "pngload":
        return pixels * bands * sample_bytes if png_is_interlaced(path) else 0
    if loader in ("ppmload", "radload", "tiffload", "vipsload", "jp2kload", "openslideload"):
        return 0
    return pixels * max(bands, 4) * sample_bytes


def check_png(path: Path) -> None:
    """Raises DamagedFile where a PNG declares more pixels than its bytes can hold."""
    with open(path, "rb") as file:
        head = file.read(33)
        size = os.fstat(file.fileno()).st_size
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise DamagedFile(f"{path}: the PNG header is cut off or damaged")
    width, height, bits, kind = struct.unpack(">IIBB", head[16:26])
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 1)
    if height * ((width * bits * samples + 7) // 8) > size * DEFLATE_MOST:
        raise DamagedFile(
            f"{path} declares {width} x {height} pixels, more than its {size} bytes can hold; "
            "it is cut off or made to harm"
        )


def png_is_interlaced(path: Path) -> bool:
    """Whether a PNG is Adam7 interlaced."""
    with open(path, "rb") as file:
        head = file.read(29)
    return len(head) == 29 and head[28] != 0


def jpeg_is_progressive(path: Path) -> bool:
    """Whether a JPEG's frame is progressive, hierarchical or lossless, or anything but baseline or extended
    sequential."""
    with open(path, "rb") as file:
        file.seek(2)
        while True:
            marker = file.read(2)
            if len(marker) < 2 or marker[0] != 0xFF:
                return False
            code = marker[1]
            if code == 0xFF:
                file.seek(-1, os.SEEK_CUR)
                continue
            if code in (0x01, *range(0xD0, 0xD9)):
                continue
            if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
                return code not in (0xC0, 0xC1, 0xC9)
            length = file.read(2)
            if code in (0xD9, 0xDA) or len(length) < 2:
                return False
            file.seek(max(0, struct.unpack(">H", length)[0] - 2), os.SEEK_CUR)
