"""Checks of a file before it is decoded: does it exist, and would decoding it take too much memory?

libvips does not report whether it must hold the whole picture at once to decode it (progressive or interlaced
files), nor whether a file can contain the pixels that it declares. This module reads that from the headers of
JPEG (ITU T.81, annex B) and PNG (ISO 15948, section 11) files.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from urst_tiles.errors import BadInput, DamagedFile, MissingFile
from urst_tiles.storage.names import missing, require_file
from urst_tiles.tiff.markers import FRAMES

#: The kind of a file follows from so many of its first bytes; of DICOM from the last of them.
START_BYTES = 132

#: How many bytes of memory a picture may take that can only be decoded as a whole.
MOST_WHOLE_BYTES = 1 << 30

#: Deflate makes data at most this many times smaller (zlib's "Maximum compression factor").
DEFLATE_MOST = 1032


def check_file(path: Path, what: str = "file") -> bytes:
    """The first ``START_BYTES`` bytes of a file, fewer if it is shorter; ``what`` it is to be, in words.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    BadInput : ``path`` is a folder or a device, or the file is empty.
    """
    if require_file(path, what).st_size == 0:
        raise BadInput(f"{path} is empty (0 bytes); get a new copy of it")
    try:
        with open(path, "rb") as file:
            return file.read(START_BYTES)
    except FileNotFoundError:
        raise missing(path, what) from None
    except PermissionError:
        raise MissingFile(f"{path} may not be read by this user; change its rights (chmod u+r)") from None
    except (OSError, ValueError) as error:
        raise MissingFile(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def check_whole(path: Path, loader: str, shape: tuple[int, int], sample_bytes: int, bands: int) -> int:
    """Bytes of memory that decoding takes because the picture must be held as a whole.

    0 if the picture can be decoded row by row or in parts.

    Parameters
    ----------
    path : the file.
    loader : the libvips loader of the file, such as "jpegload".
    shape : (height, width) in pixels.
    sample_bytes, bands : bytes of a sample, and number of bands.

    Raises
    ------
    BadInput : decoding would take more than ``MOST_WHOLE_BYTES``.
    """
    needed = _whole_bytes(path, loader, shape[0] * shape[1], sample_bytes, bands)
    if needed > MOST_WHOLE_BYTES:
        raise BadInput(
            f"{path} has {shape[1]} x {shape[0]} pixels in a layout that must be decoded whole (progressive, "
            f"interlaced, or of a format without rows), which would take {needed / 1e9:.1f} GB (limit "
            f"{MOST_WHOLE_BYTES / 1e9:.1f} GB); save it as a tiled TIFF first"
        )
    if loader == "webpload" and webp_is_lossless(path):
        needed += 4 * shape[0] * shape[1]  # libwebp decodes into an array of its own
    return needed


def _whole_bytes(path: Path, loader: str, pixels: int, sample_bytes: int, bands: int) -> int:
    """Bytes for a picture that must be held as a whole, else 0."""
    if loader == "jpegload":
        # libjpeg stores each coefficient of each component in 16 bits
        return pixels * bands * 2 if jpeg_is_progressive(path) else 0
    if loader == "pngload":
        return pixels * bands * sample_bytes if png_is_interlaced(path) else 0
    if loader in ("ppmload", "radload", "tiffload", "vipsload", "jp2kload", "openslideload"):
        return 0
    return pixels * max(bands, 4) * sample_bytes


def check_png(path: Path) -> None:
    """Raise DamagedFile if a PNG has no valid header or declares more pixels than its bytes can contain."""
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


def webp_is_lossless(path: Path) -> bool:
    """Whether the first frame of the WebP file ``path`` is in the lossless format (a chunk VP8L)."""
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 12
        while at + 8 <= size:
            file.seek(at)
            kind, length = struct.unpack("<4sI", file.read(8))
            if kind in (b"VP8L", b"VP8 "):
                return bool(kind == b"VP8L")
            at += 24 if kind == b"ANMF" else 8 + length + length % 2  # the head of a frame; any other chunk
        return False


def png_is_interlaced(path: Path) -> bool:
    """Whether the PNG file ``path`` is interlaced (Adam7)."""
    with open(path, "rb") as file:
        head = file.read(29)
    return len(head) == 29 and head[28] != 0


def jpeg_is_progressive(path: Path) -> bool:
    """Whether the JPEG file ``path`` must be decoded as a whole.

    This holds for all frames (progressive, hierarchical, lossless) except baseline and extended sequential.
    """
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
            if code in FRAMES:
                return code not in (0xC0, 0xC1, 0xC9)
            length = file.read(2)
            if code in (0xD9, 0xDA) or len(length) < 2:
                return False
            file.seek(max(0, struct.unpack(">H", length)[0] - 2), os.SEEK_CUR)
