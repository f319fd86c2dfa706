"""Masks of numbered regions.

A mask is checked by its header, and unpacked once into a ``.npy`` file, of which every window reads its part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.progress import Progress, silent
from urst_tiles.source.colour import libvips
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import content_of
from urst_tiles.source.vips import FORMATS, loader_of, open_image
from urst_tiles.storage.publish import check_room, publishing

#: How many rows are decoded at a time.
ROWS = 256


@dataclass(frozen=True)
class Mask:
    """A mask file whose header has been checked.

    Attributes
    ----------
    path : the absolute path of the file.
    shape : (height, width) in pixels. The mask covers the same extent as the image, at any resolution.
    dtype : name of the dtype of the region numbers, "uint8" or "uint16".
    fingerprint : hex digest of every byte of the file.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    fingerprint: str

    @property
    def spool_bytes(self) -> int:
        """Bytes of the unpacked mask on disk."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize + 128


def open_mask(path: Path, image: tuple[int, int]) -> Mask:
    """Check the header of the mask file ``path`` for an image of shape ``image`` (height, width).

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    DamagedFile : the header of the file cannot be read.
    BadInput : the file is no image, has more than one band or no unsigned integers of 8 or 16 bits, or its
        aspect ratio is not that of the image.
    """
    path = Path(path).absolute()
    check_file(path, "mask")
    header = open_image(path, loader_of(path))
    dtype = np.dtype(FORMATS.get(header.format, "f4")).name
    if header.bands != 1 or dtype not in ("uint8", "uint16"):
        raise BadInput(
            f"the mask {path} has {header.bands} band(s) of {header.format}; it must have one, of region"
            " numbers in 8 or 16 bits"
        )
    (height, width), (h, w) = image, (header.height, header.width)
    if abs(w * height - h * width) > max(height, width):
        raise BadInput(
            f"the mask {path} is {w} x {h} and the image {width} x {height}: it must cover the same extent,"
            " at any resolution but in the same proportion"
        )
    return Mask(path, (h, w), dtype, content_of((path,)).digest)


def spool_mask(mask: Mask, target: Path, progress: Progress = silent) -> Path:
    """Unpack a mask into the ``.npy`` file ``target``, unless that exists. Returns ``target``.

    ``progress`` is called with the stage "reading the mask" and numbers of rows.

    Raises
    ------
    DiskFull : there is not enough room for the unpacked mask.
    DamagedFile : the mask cannot be decoded.
    BadInput, MissingFile, JobError : ``target`` cannot be written, see `publishing`.
    """
    if target.exists():
        return target
    check_room(target.parent, mask.spool_bytes)
    height, width = mask.shape
    image = open_image(mask.path, loader_of(mask.path), sequential=True)
    header = {"descr": npy.dtype_to_descr(np.dtype(mask.dtype)), "fortran_order": False, "shape": mask.shape}
    with publishing(target) as file:
        npy.write_array_header_2_0(file, header)
        for y in range(0, height, ROWS):
            try:
                rows = image.crop(0, y, width, min(ROWS, height - y)).numpy()
            except libvips().Error:
                raise DamagedFile(f"the mask {mask.path} cannot be decoded; get a new copy of it") from None
            file.write(np.ascontiguousarray(rows).tobytes())
            progress("reading the mask", min(y + ROWS, height), height)
    return target
