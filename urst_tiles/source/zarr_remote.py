"""Folders of Zarr at addresses (http, https, s3, gs, az, ...), which fsspec reads.

Nothing is listed, since a server of HTTP cannot: every file is asked for by its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from urst_tiles.source.remote_files import RemoteFiles
from urst_tiles.storage.stores import REQUESTS

#: Bytes of memory of fsspec, of its libraries for a store, and of their connections (measured: 39 MB for S3).
LIBRARY_BYTES = 44 << 20


def is_zarr_address(path: Path) -> bool:
    """Whether an address may be that of a Zarr: a part of it ends in ``.zarr``, or the last part has no
    suffix. GDAL's own names, as ``/vsis3/...``, are GDAL's."""
    text = str(path)
    if "://" not in text or text.startswith("/"):
        return False
    parts = urlsplit(text)
    return names_zarr(path) or not (PurePosixPath(parts.path).suffix or parts.query)


def names_zarr(path: Path) -> bool:
    """Whether a part of an address ends in ``.zarr``."""
    return any(part.lower().endswith(".zarr") for part in PurePosixPath(urlsplit(str(path)).path).parts)


class RemoteFolder:
    """A folder at an address, or a file or folder in it.

    All folders that are made of one ask the same server, and share what they have read.

    Attributes
    ----------
    name : its last part.
    """

    def __init__(self, address: str, files: RemoteFiles | None = None) -> None:
        self._address = address.rstrip("/")
        self._files = RemoteFiles(self._address) if files is None else files
        self.name = self._address.rpartition("/")[2]

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self._address}/{name.strip('/')}", self._files)

    def __str__(self) -> str:
        return self._address

    @property
    def refused(self) -> str:
        """Why its server did not let a file be read, as `RemoteFiles`."""
        return self._files.refused

    def read(self, most: int) -> bytes | None:
        """The content of this file, as `RemoteFiles.read`."""
        return self._files.read(self._address, most)

    def store(self) -> Any:
        """This folder as a read-only store of zarr, whose errors say what happened."""
        from urst_tiles.source.remote_store import RemoteStore  # imports zarr, which takes time

        return RemoteStore(self._address, self._files)

    def states(self, keys: list[str]) -> list[str]:
        """What its server tells of the files with these names in this folder, as `RemoteFiles.state`."""
        with ThreadPoolExecutor(REQUESTS, "requests") as pool:
            return list(pool.map(lambda key: self._files.state(f"{self._address}/{key}"), keys))


def spread(axes: Sequence[range], most: int) -> Iterator[tuple[int, ...]]:
    """At most ``most`` places of a lattice, spread evenly; ``axes`` are the places along each axis."""
    total = math.prod(map(len, axes))
    count = min(total, most)
    for i in range(count):
        at, place = i * (total - 1) // max(1, count - 1), list[int]()
        for axis in reversed(axes):
            at, rest = divmod(at, len(axis))
            place.insert(0, axis[rest])
        yield tuple(place)
