"""Subdatasets: the images inside a file that GDAL calls by names of its own, as those of netCDF and HDF5."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urst_tiles.errors import DamagedFile
from urst_tiles.source.gdal import Unrecognised, environment, open_dataset
from urst_tiles.tiff.choice import Names, Word, number_of
from urst_tiles.tiff.selection import Note

#: The most subdatasets of a file that are looked at.
MOST = 1000


@dataclass(frozen=True)
class Subdataset:
    """An image in a file.

    Attributes
    ----------
    name : GDAL's name of it.
    word : the part of that name behind those of the driver and the file.
    shape, bands, dtype : (height, width) in pixels, how many samples a pixel has, and their type.
    levels : (height, width) of its overviews, about.
    """

    name: str
    word: str
    shape: tuple[int, int]
    bands: int
    dtype: str
    levels: tuple[tuple[int, int], ...] = ()


def word_of(name: str) -> str:
    """What a user may call a subdataset besides its number, or nothing.

    It is ``temp`` for ``NETCDF:"a.nc":temp``, ``10m:EPSG_32632`` for ``SENTINEL2_L1C:a.xml:10m:EPSG_32632``.
    """
    if re.match(r"(?:NITF_IM|GTIFF_DIR):\d", name):
        return ""
    match = re.fullmatch(r'[A-Za-z0-9_]+:(?:"[^"]*"|.*?/?[^/:]*\.[A-Za-z0-9]+):(.+)', name, re.DOTALL)
    rest = match[1] if match else name.rpartition(":")[2]
    return rest.strip('"').strip("/") or name


def described(data: Any, name: str) -> Subdataset:
    """The facts about an open dataset with bands."""
    shape = int(data.height), int(data.width)
    levels = tuple((-(-shape[0] // f), -(-shape[1] // f)) for f in data.overviews(1))
    return Subdataset(name, word_of(name), shape, int(data.count), str(data.dtypes[0]), levels)


def subdatasets(path: Path, name: str, remote: bool) -> list[Subdataset]:
    """The images in a file; empty where GDAL sees one image and no more. Those without bands are left out.

    Raises
    ------
    Unrecognised, DamagedFile : as `open_dataset`.
    """
    with open_dataset(path, name, remote) as data:
        names = [str(one) for one in data.subdatasets[:MOST]]
    found = []
    for one in names:
        try:
            with open_dataset(path, one, remote) as data, environment(remote):
                if data.count:
                    found.append(described(data, one))
        except (DamagedFile, Unrecognised):  # it is no image, as a table of numbers
            continue
    return found


def chosen_name(path: Path, name: str, remote: bool, page: Word | None) -> tuple[str, list[Note]]:
    """GDAL's name of the image that is read, and what was chosen.

    Without ``page`` it is what GDAL opens by the name of the file; if that is no image, the first of the
    largest in it.

    Raises
    ------
    BadInput : there is no such image.
    """
    with open_dataset(path, name, remote) as data:
        whole = data.count > 0
        inside = bool(data.subdatasets)
    if page is None and whole:
        return name, []
    found = subdatasets(path, name, remote) if inside else []
    if not found:
        if page is not None:
            number_of(path, "page", page, [Names()])
        return name, []
    if page is not None:
        full = [one.name for one in found]
        names = [Names(one.word or None) for one in found]
        number = full.index(page) if page in full else number_of(path, "page", page, names)
    else:
        number = max(range(len(found)), key=lambda i: (found[i].shape[0] * found[i].shape[1], -i))
    called = f" ({found[number].word})" if found[number].word else ""
    several = f"page {number + 1}{called} of {len(found)}"
    return found[number].name, [Note(several, page is None)] if len(found) > 1 else []
