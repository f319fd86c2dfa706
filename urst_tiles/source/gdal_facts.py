"""The facts, the metadata and the contents of an image that GDAL reads."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source.containers import is_plain_jp2
from urst_tiles.source.facts import Facts
from urst_tiles.source.gdal import CACHE_BYTES, INSTALL, LIBRARY_BYTES, Unrecognised, library, quiet
from urst_tiles.source.gdal_names import chosen_name
from urst_tiles.source.gdal_opener import GdalOpener, files_of, remote_fingerprint
from urst_tiles.source.gdal_reader import GdalReader
from urst_tiles.source.gdal_sources import check_sources
from urst_tiles.source.identity import file_fingerprint
from urst_tiles.source.info import geo_tags, vips_info
from urst_tiles.source.remote import Place, state_of
from urst_tiles.source.sidecars import Sidecars
from urst_tiles.source.spare import keep
from urst_tiles.source.vips import loader_of, open_image
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.metadata import (
    GEO_TAGS,
    RPC,
    Info,
    Validity,
    is_measured,
    stays_true,
    tag_resolution,
    with_items,
)
from urst_tiles.tiff.selection import Note, chosen, told

#: A decoded block of more bytes is refused.
MOST_BLOCK_BYTES = 1 << 30


def is_for_gdal(path: Path) -> bool:
    """Whether GDAL is to read a file that is no TIFF: what libvips does not know, and JPEG 2000 with
    georeferencing or with other bands than those of a picture."""
    if library() is None:
        return False
    try:
        loader = loader_of(path)
    except BadInput:
        return True
    if loader != "jp2kload":
        return False
    return not is_plain_jp2(path) or open_image(path, loader).bands not in (1, 3, 4)


def place_facts(place: Place, choice: Choice) -> Facts:
    """The facts of an image at an address, or in an archive of this machine.

    Raises
    ------
    MissingFile : there is no such image, or no way to its server.
    BadInput : GDAL is not installed.
    """
    require_library(place)
    files = None if place.archive is None else (place.archive,)
    if files is None:
        state_of(place.path)
    try:
        return gdal_facts(place.path, choice, name=place.name, files=files)
    except Unrecognised:
        raise MissingFile(
            f"there is no image that GDAL can read at {place.path}; check the name, and for a store that asks"
            " who you are the environment (AWS_ACCESS_KEY_ID and so on, as for gdalinfo)"
        ) from None


def require_library(place: Place) -> None:
    """Raise BadInput if there is no GDAL to read an image at a place that only GDAL knows."""
    if library() is None:
        what, instead = ("an address", "download") if place.archive is None else ("in an archive", "unpack")
        raise BadInput(
            f"{place.path} is {what}, and is read with GDAL: {INSTALL}, or {instead} it, and give its path"
        )


def gdal_facts(
    path: Path, choice: Choice, *, name: str | None = None, files: tuple[Path, ...] | None = ()
) -> Facts:
    """The facts of an image that GDAL reads.

    Parameters
    ----------
    path : the file, or folder, or address.
    choice : what the user chose of it.
    name : GDAL's name of it, if that is not the path.
    files : the files of this machine in which it lies, if these are not the path; None at an address.

    Raises
    ------
    Unrecognised : GDAL has no driver for it.
    BadInput, DamagedFile : it is not safe to read, or cannot be read.
    """
    remote = files is None
    if not remote:
        check_sources(path)
    image, notes = chosen_name(path, name or str(path), remote, choice.page)
    began, reader = time.time_ns(), GdalReader(path, image, choice, remote)
    if reader.block_bytes > MOST_BLOCK_BYTES:
        raise BadInput(
            f"{path}: a block of it has {reader.block[1]} x {reader.block[0]} pixels, too many to be decoded"
            " at once; rewrite it, for example: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT"
        )
    if reader.said:
        notes = [*notes, Note(reader.said, choice.wanted is None)]
    with reader.handles.lend() as data:
        compression = data.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        owned = () if remote else files or files_of(path, data.files)
        info = _info(path, data, reader, is_file=not remote and not files)
    fingerprint = remote_fingerprint(path, reader) if remote else file_fingerprint(owned[0], owned[1:])
    if owned:
        keep((path, image, choice), owned, began, reader)
    return Facts(
        path=path,
        info=replace(info, chosen=chosen(notes)),
        fingerprint=fingerprint,
        stored=reader.shape,
        orientation=1,
        choice=choice,
        told=told(notes),
        colours=reader.colours,
        file_dtype=reader.dtype.name,
        has_valid=reader.has_valid,
        overviews=reader.levels,
        reader_bytes=reader.reader_bytes,
        returned_bytes=reader.returned_bytes,
        once_bytes=LIBRARY_BYTES + CACHE_BYTES,
        spooling_bytes=0 if reader.random else reader.reader_bytes,
        opener=GdalOpener(path, image, choice, owned, fingerprint),
        is_jpeg=compression in ("JPEG", "YCbCr JPEG"),  # and not JPEG2000
        random_access=reader.random,
        stretched=reader.dtype.name != "uint8",
    )


def _info(path: Path, data: Any, reader: GdalReader, is_file: bool) -> Info:
    """What the output takes over of an open dataset; ``is_file`` is whether it is a file of this machine."""
    validity: Validity = reader.validity
    items: Mapping[str, str] = data.tags()
    kept = [
        (key, "", text)
        for key, text in items.items()
        if stays_true({"name": key}) and key != "AREA_OR_POINT" and not key.startswith("TIFFTAG_")
    ]
    info = Info(validity=validity)
    if is_file and reader.driver.startswith("JP2"):
        info = vips_info(path, "jp2kload", _Silent(), validity, Sidecars(), 1)
    unit = (items.get("TIFFTAG_RESOLUTIONUNIT", "2").split() or ["2"])[0]
    density = tag_resolution(
        _number(items.get("TIFFTAG_YRESOLUTION")),
        _number(items.get("TIFFTAG_XRESOLUTION")),
        int(unit) if unit.isdecimal() else 0,
    )
    if density is not None and info.pixels_per_cm is None:
        inches = unit == "2"
        info = replace(info, pixels_per_cm=density, in_inches=inches, measured=is_measured(density, inches))
    value = reader.kind.nodata[0] if reader.kind.nodata else None
    lost = ["its geolocation arrays (gdalwarp -geoloc uses them)"] if data.tags(ns="GEOLOCATION") else []
    return replace(
        info,
        geo=geo_tags(_one_pixel(data), str(path), (*GEO_TAGS, RPC)),
        gdal_metadata=with_items(info.gdal_metadata, kept) if kept else info.gdal_metadata,
        nodata=None if value is None else f"{value:.17g}",
        lost=(*info.lost, *lost),
    )


class _Silent:
    """In place of an image of libvips that says nothing."""

    def get_typeof(self, name: str) -> int:
        return 0


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _transform(data: Any) -> Any:
    """The transform of an open dataset as an Affine; None where it has none.

    Some drivers leave the numbers of a transform that they do not have as they find them in memory (PNM in
    GDAL 3.10); rasterio then warns, unless there are ground control points.
    """
    with quiet(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        numbers = data.read_transform()
    missing = any(issubclass(one.category, library().errors.NotGeoreferencedWarning) for one in told)
    transform = type(data.transform).from_gdal(*numbers)
    sound = all(math.isfinite(n) for n in numbers) and abs(transform.determinant) > 1e-100
    return None if missing or transform.is_identity or not sound else transform


def _one_pixel(data: Any) -> bytes:
    """A GeoTIFF of one pixel that has the georeferencing of an open dataset: reference system, transform or
    ground control points, rational polynomials. Empty where there is none."""
    points, system = data.gcps
    system = data.crs or system
    transform = _transform(data)
    placed = transform is not None
    if not (system or points or placed or data.rpcs):
        return b""
    with library().MemoryFile() as memory, quiet():
        with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8") as one:
            if "AREA_OR_POINT" in data.tags():
                one.update_tags(AREA_OR_POINT=data.tags()["AREA_OR_POINT"])
            if points and not placed:
                one.gcps = points, system
            elif system:
                one.crs = system
            if placed:
                one.transform = transform
            if data.rpcs:
                one.rpcs = data.rpcs
        return bytes(memory.read())
