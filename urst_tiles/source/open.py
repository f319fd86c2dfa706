"""``open_source``: look at the header, decide who reads the pixels, and gather what is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.metadata import PLACE_TAGS, Info, Validity
from urst_tiles.source import headers
from urst_tiles.source.base import Facts, Source
from urst_tiles.source.directory import Directory, is_tiff
from urst_tiles.source.identity import array_fingerprint, file_fingerprint, tiff_fingerprint
from urst_tiles.source.info import mask_sidecar, read_world_file, tiff_info, vips_info
from urst_tiles.source.openers import ArrayOpener, TiffOpener, VipsOpener, sidecar_mask
from urst_tiles.source.pool import THREADS
from urst_tiles.source.segments import Undecodable
from urst_tiles.source.spool import BAND_BYTES
from urst_tiles.source.tiff import TiffFile, TiffReader
from urst_tiles.source.vips import LOADERS, Decoded, loader_of, open_image

#: What a libvips pipeline holds besides its tile cache (measured).
VIPS_BYTES = 64 << 20


def open_source(
    path: str | os.PathLike[str],
    *,
    bands: Sequence[int] | None = None,
    stretch: str = "2%,98%",
    overviews: bool = True,
) -> Source:
    """Open an image by its header; cheap, nothing is decoded.

    Parameters
    ----------
    path : any image libvips or tifffile can read.
    bands : one or three colour bands, counted from one; by default the first three, or the first where there are fewer.
    stretch : LOW,HIGH in values or percentiles; only for files that are not uint8.
    overviews : whether the file's own overviews may serve for the thumbnail.

    Raises
    ------
    MissingFile : not there, or no right to read. BadInput : a folder, empty, no image, too large to decode safely.
    DamagedFile : the header is cut off or makes no sense.
    """
    path = Path(path)
    start = headers.check_file(path)
    mask, chosen = mask_sidecar(path), tuple(bands) if bands is not None else None
    facts = None
    if is_tiff(start):
        facts = _tiff_facts(path, chosen, mask)
    if facts is None:
        facts = _vips_facts(path, chosen, mask)
    height, width = facts.stored
    if height < 1 or width < 1:
        raise DamagedFile(f"{path} has {width} x {height} pixels; the file is damaged")
    if mask is not None and sidecar_mask(mask).shape != facts.stored:
        raise BadInput(f"{mask} is not of the size of {path}; remove it or make it anew")
    return Source(facts, stretch=stretch, use_overviews=overviews)


def _tiff_facts(path: Path, bands: tuple[int, ...] | None, mask: Path | None) -> Facts | None:
    """Facts of a TIFF that tifffile decodes; None leaves it to libvips."""
    try:
        reader = TiffReader(path, bands)
    except Undecodable:
        return None
    main = reader.main
    orientation = _orientation(main)
    info = tiff_info(main, _validity(reader.validity, mask), read_world_file(path), orientation)
    opener = TiffOpener(path, bands, mask)
    return Facts(
        path=path,
        info=info,
        fingerprint=tiff_fingerprint(TiffFile(path), _sidecars(path, mask)),
        stored=reader.shape,
        orientation=orientation,
        colours=reader.colours,
        file_dtype=reader.dtype.name,
        has_valid=reader.has_valid or mask is not None,
        overviews=reader.levels,
        reader_bytes=reader.reader_bytes if reader.is_tiled else _spool_reader_bytes(),
        opener=opener,
        random_access=reader.is_tiled,
        stretched=reader.dtype != np.uint8,
    )


def _vips_facts(path: Path, bands: tuple[int, ...] | None, mask: Path | None) -> Facts:
    """Facts of everything else, as libvips tells them."""
    loader = loader_of(path)
    if loader == "pngload":
        headers.check_png(path)
    image = open_image(path, loader, sequential=True)
    decoded = Decoded(path, image, bands)
    shape = (image.height, image.width)
    sample_bytes = decoded.dtype.itemsize
    headers.check_whole(path, headers.whole_bytes(path, loader, shape, sample_bytes, image.bands), shape)
    random = LOADERS[loader] or (loader == "tiffload" and _is_tiled(path))
    tag = image.get("orientation") if image.get_typeof("orientation") else 1
    orientation = tag if tag in range(1, 9) else 1
    validity: Validity = "alpha" if image.hasalpha() else "mask" if decoded.has_valid else "none"
    return Facts(
        path=path,
        info=vips_info(image, _validity(validity, mask), read_world_file(path), orientation),
        fingerprint=file_fingerprint(path, _sidecars(path, mask)),
        stored=shape,
        orientation=orientation,
        colours=decoded.colours,
        file_dtype=decoded.dtype.name,
        has_valid=decoded.has_valid or mask is not None,
        overviews=(),
        reader_bytes=VIPS_BYTES + THREADS * 1024 * 1024 * 4 * 8 if random else _spool_reader_bytes(),
        opener=VipsOpener(path, loader, bands, mask),
        random_access=random,
        stretched=decoded.dtype != np.uint8,
    )


def array_source(array: Any, *, info: Info | None = None, name: str = "array") -> Source:
    """A source over pixels that are already there: NumPy or zarr, uint8 or uint16, (H, W, 3) or (H, W, 4). Needs no preparing."""
    if getattr(array, "ndim", 0) != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise BadInput(
            f"an array must be (height, width, 3 or 4), got {getattr(array, 'shape', type(array).__name__)}"
        )
    if np.dtype(array.dtype) not in (np.uint8, np.uint16):
        raise BadInput(f"an array must be uint8 or uint16, got {array.dtype}")
    has_valid = array.shape[2] == 4
    facts = Facts(
        path=Path(name),
        info=info or Info(validity="alpha" if has_valid else "none"),
        fingerprint=array_fingerprint(array),
        stored=(int(array.shape[0]), int(array.shape[1])),
        orientation=1,
        colours=3,
        file_dtype=np.dtype(array.dtype).name,
        has_valid=has_valid,
        overviews=(),
        reader_bytes=THREADS * 1024 * 1024 * 4 * np.dtype(array.dtype).itemsize,
        opener=ArrayOpener(array),
        random_access=True,
        stretched=False,
    )
    return Source(facts)


def _orientation(main: Directory) -> int:
    """EXIF orientation; where the file is georeferenced its tags speak of stored pixels, so none (as GDAL does)."""
    if any(code in main.entries for code in PLACE_TAGS):
        return 1
    value = main.number(274, 1)
    return value if value in range(1, 9) else 1


def _validity(own: Validity, mask: Path | None) -> Validity:
    return "mask" if mask is not None and own != "alpha" else own


def _is_tiled(path: Path) -> bool:
    return any(322 in directory.entries for directory in TiffFile(path).directories[:1])


def _sidecars(path: Path, mask: Path | None) -> list[Path]:
    return [mask] if mask is not None else []


def _spool_reader_bytes() -> int:
    """Reading a spool: per thread a chunk, encoded and decoded; while making it, bands of rows."""
    return THREADS * (BAND_BYTES // 2) + 2 * BAND_BYTES
