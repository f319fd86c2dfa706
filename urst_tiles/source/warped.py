"""Masks by place: a raster with a reference system and a transform is warped to a georeferenced image.

Of each pixel of the image the mask's pixel under its middle counts (nearest neighbour), as rasterio and GDAL
warp it. It is done in strips of the image, for which GDAL reads what of the mask lies under them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile, UrstError
from urst_tiles.geometry import Box
from urst_tiles.source.crs import image_crs, rasterio_for, transformed
from urst_tiles.source.gdal import CACHE_BYTES, LIBRARY_BYTES, Handles, plain
from urst_tiles.source.open import open_source
from urst_tiles.source.region_numbers import is_numeric, numbers_dtype, region_numbers
from urst_tiles.source.source import Source
from urst_tiles.tiff.metadata import Tag
from urst_tiles.tiff.position import Placement, affine_of, epsg_of, names_system, system_tags

#: How far in pixels of the image a corner of the mask may miss that of the image to count as the same.
TOLERANCE = 1e-3

#: At so many places on each side the image is transformed to see whether the mask touches it.
PLACES = 21

#: Memory in megabytes that GDAL's warper takes for what it reads of the mask at a time.
WARP_MEGABYTES = 32

#: Memory that warping takes, besides the strips: at most 70 MB were measured, of masks of 64 and 400 Mpx.
WARPING_BYTES = LIBRARY_BYTES + CACHE_BYTES + (WARP_MEGABYTES << 20)


@dataclass(frozen=True)
class WarpedMask:
    """A mask file that is warped to the pixels of an image.

    Attributes
    ----------
    path : the absolute path of the file.
    shape : (height, width) of the image.
    dtype : name of the dtype of the region numbers, "uint8" or "uint16".
    fingerprint : hex digest of every byte of the file, of the files beside it or in it, and of where it and
        the image lie.
    place : of the pixels of the image.
    crs : the reference system of the image, as WKT.
    binary : whether it only says which pixels are valid: those that are neither 0 nor transparent nor nodata.
    stored_bytes : bytes of a sample in the file.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    fingerprint: str
    place: Placement
    crs: str
    binary: bool = False
    stored_bytes: int = 1

    def strips(self, boxes: Iterable[Box]) -> Iterator[NDArray[Any]]:
        """The numbers, of ``dtype``, in boxes of the image."""
        with Handles(self.path, str(self.path), remote=False).lend() as data:
            for box in boxes:
                yield self._valid(data, box) if self.binary else self._numbers(data, box)

    def _numbers(self, data: Any, box: Box) -> NDArray[Any]:
        """The numbers of regions of an open mask in a box of the image."""
        values = self._warped(data, 1, box)
        nodata = data.nodatavals[0]
        return region_numbers(self.path, values, None if nodata is None else values == nodata)

    def _warped(self, data: Any, band: int, box: Box) -> NDArray[Any]:
        """A band of an open mask in a box of the image. Outside of the mask it has its nodata value, or 0."""
        rasterio = rasterio_for(f"the mask {self.path}")
        out = np.zeros(box.shape, data.dtypes[band - 1])
        a, b, d, e = self.place.a, self.place.b, self.place.d, self.place.e
        c, f = self.place(box.x0, box.y0)
        try:
            rasterio.warp.reproject(
                rasterio.band(data, band),
                out,
                dst_transform=rasterio.Affine(a, b, c, d, e, f),
                dst_crs=self.crs,
                resampling=rasterio.enums.Resampling.nearest,
                init_dest_nodata=not self.binary,
                warp_mem_limit=WARP_MEGABYTES,
            )
        except Exception as error:  # rasterio passes on errors of GDAL and PROJ in several types
            raise DamagedFile(
                f"the mask {self.path} cannot be warped; GDAL says: {plain(error.__cause__ or error)}"
            ) from None
        return out

    def _valid(self, data: Any, box: Box) -> NDArray[np.uint8]:
        """255 where an open mask has a colour other than 0 and is not transparent, else 0."""
        valid, opaque = np.zeros(box.shape, bool), np.ones(box.shape, bool)
        for band, meaning in enumerate((meaning.name for meaning in data.colorinterp), 1):
            values = self._warped(data, band, box)
            if meaning == "alpha":
                opaque &= values > 0
            elif meaning == "palette":
                shown = np.zeros(int(np.iinfo(values.dtype).max) + 1, bool)
                table = {n: any(colour[:3]) and colour[3] > 0 for n, colour in data.colormap(band).items()}
                shown[list(table)] = list(table.values())
                valid |= shown[values]
            else:
                valid |= (values > 0) | (values < 0)  # NaN is neither
        return (valid & opaque).astype(np.uint8) * np.uint8(255)


def warped_mask(
    source: Source, path: Path, digest: str, *, binary: bool = False, stretches: bool = True
) -> WarpedMask | None:
    """The mask file ``path`` as it lies on the ground of an image; None where proportions place it: where the
    mask or the image has no reference system and transform, or where both have the same corners.

    Parameters
    ----------
    digest : of every byte of the file.
    binary : whether the mask only says which pixels are valid.
    stretches : whether proportions can place it where the corners are the same, as libvips reads it.

    Raises
    ------
    BadInput : rasterio is not installed; the mask does not touch the image, or has no region numbers; or the
        image has ground control points or rational polynomials alone.
    DamagedFile : the mask cannot be opened.
    """
    flag = f"{'--valid' if binary else '--mask'} {path}"
    mask = _placed(path) if source.info.geo else None
    if mask is None:
        return None
    here, there = affine_of(source.info.geo), affine_of(mask.info.geo)
    if here is None:
        raise BadInput(
            f"{source.path} has ground control points or rational polynomials alone, by which {flag} cannot"
            " be placed; warp it with gdalwarp first"
        )
    if there is None or not names_system(source.info.geo):
        return None
    same = stretches and _same_corners(here, source.shape, there, mask.shape)
    if same and _same_system(source, mask, flag):
        return None
    crs, system = image_crs(source, flag), image_crs(mask, flag)
    if not _touch(source.shape, here, crs, mask.shape, there, system):
        raise BadInput(f"{path} does not touch the image {source.path}; give a mask of the same place")
    dtype, stored = _types(path, binary)
    systems = [epsg_of(one.info.geo) or system_tags(one.info.geo) for one in (source, mask)]
    fingerprint = sha256(
        repr((digest, mask.fingerprint, source.shape, here, there, systems)).encode()
    ).hexdigest()
    return WarpedMask(path, source.shape, dtype, fingerprint, here, crs.to_wkt(), binary, stored)


def _placed(path: Path) -> Source | None:
    """A mask that has a reference system and a transform; None for any other file. Raises DamagedFile."""
    try:
        mask = open_source(path)
    except DamagedFile:
        raise
    except UrstError:
        return None  # what is wrong with it is said where it is opened as a mask
    geo = mask.info.geo
    return mask if affine_of(geo) is not None and names_system(geo) else None


def _same_corners(here: Placement, image: tuple[int, int], there: Placement, mask: tuple[int, int]) -> bool:
    """Whether an image and a mask in the same reference system, of these shapes, have the same corners."""
    (height, width), (h, w) = image, mask
    for fx, fy in ((0, 0), (1, 0), (0, 1)):
        x, y = here.inverse(*there(fx * w, fy * h))
        if not (abs(x - fx * width) <= TOLERANCE and abs(y - fy * height) <= TOLERANCE):
            return False
    return True


def _same_system(source: Source, mask: Source, flag: str) -> bool:
    """Whether an image and a mask have the same reference system."""
    codes = [epsg_of(one.info.geo) for one in (source, mask)]
    if None not in codes:
        return codes[0] == codes[1]
    tags: list[tuple[Tag, ...]] = [system_tags(one.info.geo) for one in (source, mask)]
    return tags[0] == tags[1] or image_crs(source, flag) == image_crs(mask, flag)


def _touch(
    image: tuple[int, int], here: Placement, crs: Any, mask: tuple[int, int], there: Placement, system: Any
) -> bool:
    """Whether an image and a mask, of these shapes, touch: the box around one, as it lies in the other, does.

    Both ways are tried, as a small one may lie between the places at which a large one is transformed, and a
    large one reaches beyond where the system of a small one holds.
    """
    return _reaches(image, here, crs, mask, there, system) or _reaches(mask, there, system, image, here, crs)


def _reaches(
    one: tuple[int, int], place: Placement, crs: Any, other: tuple[int, int], there: Placement, system: Any
) -> bool:
    """Whether the box around ``one`` raster, as it lies in the ``other``, touches that."""
    (height, width), (h, w) = one, other
    xs, ys = np.meshgrid(np.linspace(0, width, PLACES), np.linspace(0, height, PLACES))
    ground = np.array([place(x, y) for x, y in zip(xs.ravel(), ys.ravel(), strict=True)])
    moved = ground if crs == system else transformed(ground, crs, system)
    moved = moved[np.isfinite(moved).all(1)]
    if not len(moved):
        return False
    x, y = there.inverse(*moved.T)
    return bool(x.min() < w and x.max() > 0 and y.min() < h and y.max() > 0)


def _types(path: Path, binary: bool) -> tuple[str, int]:
    """The dtype of the numbers in a mask, and the bytes of a sample in its file.

    Raises
    ------
    BadInput : a mask of region numbers has several bands, or complex samples.
    """
    with Handles(path, str(path), remote=False).lend() as data:
        count, dtype = data.count, str(data.dtypes[0])
    if binary:
        return "uint8", 8
    if count != 1 or dtype.startswith("complex") or not is_numeric(dtype):
        raise BadInput(
            f"the mask {path} has {count} band(s) of {dtype}; it must have one band, of whole numbers of"
            " regions"
        )
    return numbers_dtype(dtype), np.dtype(dtype).itemsize
