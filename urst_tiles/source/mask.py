"""Mask files: of numbered regions, and of which pixels are valid.

A mask is checked by its header, and unpacked once into a ``.npy`` file, of which every window reads its part.
A picture covers the image in proportion, unless both are georeferenced (`warped`); polygons are burnt
(`burnt`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile, UrstError
from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count
from urst_tiles.progress import Progress, silent
from urst_tiles.source.aoi import is_vector, read_polygons
from urst_tiles.source.area import Area, RasterInside
from urst_tiles.source.burnt import BurntMask, burnt_mask, check_touch
from urst_tiles.source.headers import check_file
from urst_tiles.source.identity import content_of
from urst_tiles.source.open import open_source
from urst_tiles.source.openers import Opener
from urst_tiles.source.region_numbers import PLAIN, is_numeric, numbers_dtype, region_numbers
from urst_tiles.source.source import Source
from urst_tiles.source.thumbnail import Thumbnail
from urst_tiles.source.vips import FORMATS, loader_of, open_image, pushed
from urst_tiles.source.warped import WARPING_BYTES, WarpedMask, warped_mask
from urst_tiles.storage.publish import check_room, publishing

#: How many rows are decoded at a time, and how many pixels these have at most.
ROWS, STRIP_PIXELS = 256, 1 << 22


@dataclass(frozen=True)
class Mask:
    """A mask file whose header has been checked.

    Attributes
    ----------
    path : the absolute path of the file.
    shape : (height, width) in pixels. The mask covers the same extent as the image, at any resolution.
    dtype : name of the dtype of the region numbers, "uint8" or "uint16".
    fingerprint : hex digest of every byte of the file, and of a nodata value.
    binary : whether it only says which pixels are valid: those that are not 0, not transparent and not
        nodata.
    opener : gives the samples, where these are of other types or some are nodata; None for libvips.
    stored_bytes : bytes of a pixel as it is read.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    fingerprint: str
    binary: bool = False
    opener: Opener | None = None
    stored_bytes: int = 1

    def strips(self, boxes: Sequence[Box]) -> Iterator[NDArray[Any]]:
        """The numbers, of ``dtype``, in boxes of the mask that are as wide as it and follow each other down
        it, all but the last with equally many rows.

        Raises
        ------
        DamagedFile : the mask cannot be decoded.
        BadInput : a value is no number of a region.
        """
        if self.opener is not None:
            yield from self._opened(self.opener, boxes)
            return
        image = open_image(self.path, loader_of(self.path), sequential=True)
        image = _validity(image) if self.binary else image
        with closing(pushed(image, boxes[0].shape[0])) as decoded:
            for box, data in zip(boxes, decoded, strict=True):
                if data is None:
                    raise DamagedFile(f"the mask {self.path} cannot be decoded; get a new copy of it")
                yield np.frombuffer(data, self.dtype).reshape(box.shape)

    def _opened(self, opener: Opener, boxes: Sequence[Box]) -> Iterator[NDArray[Any]]:
        """The same from the samples that an opener gives."""
        for _, (colour, weight) in opener.stream(boxes[0].shape[0]):
            valid = np.ones(colour.shape[:2], bool) if weight is None else weight > 0
            if self.binary:
                seen = ((colour > 0) | (colour < 0)).any(axis=-1)  # NaN is neither
                yield (seen & valid).astype(np.uint8) * np.uint8(255)
            else:
                yield region_numbers(self.path, colour[..., 0], ~valid)


#: A mask whose file has been checked, and which gives its numbers from top to bottom.
AnyMask = Mask | WarpedMask | BurntMask


def spool_bytes(mask: AnyMask) -> int:
    """Bytes of the unpacked mask on disk."""
    return mask.shape[0] * mask.shape[1] * np.dtype(mask.dtype).itemsize + 128


def reading_bytes(mask: AnyMask) -> int:
    """Bytes of memory that unpacking a mask takes at most: its strips, and what they are made of."""
    pixel = np.dtype(mask.dtype).itemsize
    if isinstance(mask, Mask | WarpedMask):
        pixel = max(pixel, mask.stored_bytes)
    strips = 6 * max(STRIP_PIXELS, mask.shape[1]) * pixel
    return strips + (WARPING_BYTES if isinstance(mask, WarpedMask) else 0)


def open_mask(path: Path, source: Source, attribute: str | None = None) -> AnyMask:
    """Check the header of the mask file ``path`` for an image.

    It is a picture, which is warped to the image if both are georeferenced, or a file of polygons, whose
    numbers are in ``attribute``, or by default in their only attribute of integers.

    Raises
    ------
    MissingFile : the file does not exist or cannot be read.
    DamagedFile : the header of the file cannot be read.
    BadInput : the file is no image, has more than one band or complex samples, or its
        aspect ratio is not that of the image; or it does not touch the image; or as `burnt_mask`.
    """
    path = Path(path).absolute()
    start, digest = check_file(path, "mask"), content_of((path,)).digest
    if is_vector(path, start):
        return burnt_mask(source, path, digest, attribute)
    if attribute is not None:
        raise BadInput(
            f"--mask-attribute is for polygons, and the mask {path} is a picture; leave it out, or give"
            " GeoJSON or a GeoPackage"
        )
    header = _header(path)
    numbered = header is not None and header.bands == 1 and _dtype_of(header) in PLAIN
    warped = warped_mask(source, path, digest, stretches=numbered or _is_typed(path))
    if warped is not None:
        return warped
    if not numbered:
        return _typed(path, source, digest, bands=1 if header is None else header.bands)
    shape = header.height, header.width
    _check_extent(path, shape, source.shape)
    return Mask(path, shape, _dtype_of(header), digest)


def _typed(path: Path, source: Source, digest: str, bands: int) -> Mask:
    """A mask whose numbers are of another type than unsigned integers of 8 or 16 bits, in proportion.

    ``bands`` are those that libvips finds, or 1 if it does not read the file.

    Raises
    ------
    UrstError : as `open_mask`.
    """
    mask = open_source(path)
    dtype = mask.file_dtype
    if not (mask.is_grey and is_numeric(dtype.name)) or bands > 1:
        raise BadInput(
            f"the mask {path} has several bands, or samples that are no numbers; it must have one band, of"
            " whole numbers of regions"
        )
    shape = mask.stored
    _check_extent(path, shape, source.shape)
    digest = _with_nodata(digest, mask)
    return Mask(
        path, shape, numbers_dtype(dtype.name), digest, opener=mask.opener, stored_bytes=dtype.itemsize
    )


def _is_typed(path: Path) -> bool:
    """Whether a file has one band of numbers that are no unsigned integers of 8 or 16 bits."""
    try:
        mask = open_source(path)
    except UrstError:
        return False
    return mask.is_grey and is_numeric(mask.file_dtype.name) and mask.file_dtype.name not in PLAIN


def _with_nodata(digest: str, mask: Source) -> str:
    """The digest of a mask file and of its nodata value, which may stand in a file beside it."""
    if mask.info.nodata is None:
        return digest
    return sha256(f"{digest} {mask.info.nodata}".encode()).hexdigest()


def _dtype_of(header: Any) -> str:
    return np.dtype(FORMATS.get(header.format, "f4")).name


def _header(path: Path) -> Any:
    """A file as a pyvips image, of which only the header is read; None if libvips does not read it."""
    try:
        return open_image(path, loader_of(path))
    except UrstError:
        return None


def valid_area(path: Path, source: Source) -> Area:
    """The area of an image that a file calls valid: a picture of any kind, or polygons.

    Errors are those of `open_mask`, but that bands and dtype may be any, and polygons need no attribute.
    """
    path = Path(path).absolute()
    start = check_file(path, "file of --valid")
    if is_vector(path, start):
        area = read_polygons(source, path, "--valid")
        check_touch(source, path, area.polygons)
        return area
    digest = content_of((path,)).digest
    header = _header(path)
    warped = warped_mask(source, path, digest, binary=True, stretches=header is not None)
    if warped is not None:
        return MaskArea(warped)
    opened = _with_values(path, is_picture=header is not None)
    if opened is not None:
        _check_extent(path, opened.stored, source.shape)
        stored, digest = opened.file_dtype.itemsize * 3, _with_nodata(digest, opened)
        return MaskArea(Mask(path, opened.stored, "uint8", digest, True, opened.opener, stored))
    if header is None:
        header = open_image(path, loader_of(path))  # which says what is wrong with it
    shape = header.height, header.width
    _check_extent(path, shape, source.shape)
    return MaskArea(Mask(path, shape, "uint8", digest, binary=True))


def _with_values(path: Path, *, is_picture: bool) -> Source | None:
    """A file of valid pixels that libvips does not read as it is meant: one with a nodata value, or of a type
    that libvips lacks; None for any other. ``is_picture`` is whether libvips reads it."""
    try:
        opened = open_source(path)
    except DamagedFile:
        raise
    except UrstError:
        return None  # what is wrong with it libvips says
    return opened if opened.info.nodata is not None or not is_picture else None


def _check_extent(path: Path, mask: tuple[int, int], image: tuple[int, int]) -> None:
    """Raise BadInput if a mask of the shape ``mask`` has another aspect ratio than the image."""
    (height, width), (h, w) = image, mask
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


def spool_mask(mask: AnyMask, target: Path, progress: Progress = silent) -> Path:
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
    check_room(target.parent, spool_bytes(mask))
    height, width = mask.shape
    at_once = decoder_count() if isinstance(mask, Mask) and mask.opener is not None else 1
    rows = max(1, min(ROWS, STRIP_PIXELS // at_once // width))
    boxes = [Box(y, 0, min(y + rows, height), width) for y in range(0, height, rows)]
    header = {"descr": npy.dtype_to_descr(np.dtype(mask.dtype)), "fortran_order": False, "shape": mask.shape}
    with publishing(target) as file:
        npy.write_array_header_2_0(file, header)
        for box, strip in zip(boxes, mask.strips(boxes), strict=True):
            file.write(strip.tobytes())
            progress("reading the mask", box.y1, height)
    return target


@dataclass(frozen=True)
class MaskArea:
    """The area in which a mask file is not 0.

    Attributes
    ----------
    mask : the file, checked by `valid_area`.
    """

    mask: Mask | WarpedMask
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
