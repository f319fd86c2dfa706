"""Masks of numbered regions: opened by their header, spooled once so that any window reads its part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.progress import Progress, silent
from urst_tiles.source.colour import libvips
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import file_fingerprint
from urst_tiles.source.vips import FORMATS, loader_of, open_image
from urst_tiles.storage.publish import check_room, publishing

#: Rows that are decoded at a time.
ROWS = 256


@dataclass(frozen=True)
class Mask:
    """A mask as it lies on disk.

    Attributes
    ----------
    shape : (height, width), of any resolution over the extent of the image.
    dtype : uint8 or uint16.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    fingerprint: str

    @property
    def spool_bytes(self) -> int:
        """On disk, unpacked."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize + 128


def open_mask(path: Path, image: tuple[int, int]) -> Mask:
    """Look at a mask's header.

    Raises
    ------
    MissingFile, DamagedFile : not there, or no image.
    BadInput : more than one band, no integers of 8 or 16 bits, or another aspect ratio than ``image``
        (height, width).
    """
    path = Path(path).absolute()
    check_file(path)
    found = open_image(path, loader_of(path))
    dtype = np.dtype(FORMATS.get(found.format, "f4")).name
    if found.bands != 1 or dtype not in ("uint8", "uint16"):
        raise BadInput(
            f"the mask {path} has {found.bands} band(s) of {found.format}; it must have one, of region"
            " numbers in 8 or 16 bits"
        )
    (height, width), (h, w) = image, (found.height, found.width)
    if abs(w * height - h * width) > max(height, width):
        raise BadInput(
            f"the mask {path} is {w} x {h} and the image {width} x {height}: it must cover the same extent,"
            " at any resolution but in the same proportion"
        )
    return Mask(path, (h, w), dtype, file_fingerprint(path))


def spool_mask(mask: Mask, target: Path, progress: Progress = silent) -> Path:
    """Write a mask as ``target``, a ``.npy`` file, unless it is there.

    Raises
    ------
    DiskFull, DamagedFile
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
