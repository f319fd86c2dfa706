"""Mask files: of numbered regions, and of which pixels are valid.

A mask is checked by its header, and unpacked once into a ``.npy`` file, of which every window reads its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.progress import Progress, silent
from urst_tiles.source.area import RasterInside
from urst_tiles.source.colour import libvips
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import content_of
from urst_tiles.source.thumbnail import Thumbnail
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
    binary : whether it only says which pixels are valid: those that are not 0, and not transparent.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    fingerprint: str
    binary: bool = False

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
    _check_extent(path, header, image)
    return Mask(path, (header.height, header.width), dtype, content_of((path,)).digest)


def open_valid_mask(path: Path, image: tuple[int, int]) -> Mask:
    """Check the header of a picture of any kind that says which pixels of an image are valid.

    Parameters and errors are those of `open_mask`, but for bands and dtype, which may be any.
    """
    path = Path(path).absolute()
    check_file(path, "file of --valid")
    header = open_image(path, loader_of(path))
    _check_extent(path, header, image)
    return Mask(path, (header.height, header.width), "uint8", content_of((path,)).digest, binary=True)


def _check_extent(path: Path, header: Any, image: tuple[int, int]) -> None:
    """Raise BadInput if a mask, opened as ``header``, has another aspect ratio than the image."""
    (height, width), (h, w) = image, (header.height, header.width)
    if abs(w * height - h * width) > max(height, width):
        raise BadInput(
            f"the mask {path} is {w} x {h} and the image {width} x {height}: it must cover the same extent,"
            " at any resolution but in the same proportion"
        )


def _validity(image: Any) -> Any:
    """A pyvips image of one band, uint8: 255 where a picture is neither 0 in all colours nor transparent."""
    colours, alpha = image, None
    if image.hasalpha():
        colours, alpha = image[: image.bands - 1], image[image.bands - 1]
    valid = ((colours > 0) | (colours < 0)).bandor()  # NaN is neither
    return valid if alpha is None else valid & (alpha > 0)


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
    image = _validity(image) if mask.binary else image
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


@dataclass(frozen=True)
class MaskArea:
    """The area in which a mask file is not 0.

    Attributes
    ----------
    mask : the file, as `open_valid_mask` returns it.
    """

    mask: Mask
    outline: ClassVar[Box | None] = None
    needs_thumbnail: ClassVar[bool] = False
    unpainted: ClassVar[bool] = False

    @property
    def fingerprint(self) -> str:
        return self.mask.fingerprint

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.mask.path,)

    def saved_paths(self, folder: Path) -> Iterator[Path]:
        yield folder / f"valid-{self.fingerprint[:16]}.npy"

    def placed(self, folder: Path | None, thumbnail: Thumbnail | None, progress: Progress) -> RasterInside:
        if folder is None:
            with TemporaryDirectory() as temporary:
                path = spool_mask(self.mask, Path(temporary) / "valid.npy", progress)
                return RasterInside(np.load(path))
        return RasterInside(spool_mask(self.mask, next(self.saved_paths(folder)), progress))
