"""GDAL, which reads what neither our TIFF reader nor libvips reads best; it comes with rasterio, an extra.

What GDAL may do is decided here, for every call: which drivers it has, that no Python in a virtual dataset
(VRT) is run, that a file of this machine leads to no network, and how large its cache of blocks is. A dataset
of GDAL must not be used by two threads at the same time, so `Handles` lends each of them one of its own.

References: GDAL's "Raster Data Model", "Configuration options" and "GDAL Virtual File Systems".
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.machine import is_decoder
from urst_tiles.storage.addresses import gdal_options

#: GDAL's cache of decoded blocks, which all datasets of a process share.
CACHE_BYTES = 64 << 20

#: Memory of GDAL's libraries in a process, with PROJ's database (measured with rasterio 1.4).
LIBRARY_BYTES = 90 << 20

#: Drivers that fetch from a network what a file only names.
REFUSED = frozenset({
    "WMS", "WMTS", "WCS", "HTTP", "OGCAPI", "EEDA", "EEDAI", "PLMOSAIC", "DAAS", "STACIT", "STACTA", "GTI",
    "KMLSUPEROVERLAY",
})  # fmt: skip

#: Drivers that take almost any text for an image; they are asked only for files of this suffix.
TEXTS = {"XYZ": ".xyz"}

#: Options of GDAL for every call: one thread for each dataset, since cells are read on threads of our own; no
#: code in virtual datasets, and no raw bytes of files elsewhere.
SETTINGS: dict[str, object] = {
    "GDAL_CACHEMAX": CACHE_BYTES,
    "GDAL_NUM_THREADS": "1",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE": "SIBLING_OR_CHILD_OF_VRT_PATH",
}

#: Further options for files of this machine: GDAL's file systems on the network have this one file alone.
LOCAL: dict[str, object] = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "/nothing/on/the/network"}

INSTALL = "pip install 'urst-tiles[gdal]'"


class Unrecognised(BadInput):
    """GDAL has no driver for a file."""


@cache
def library() -> Any:
    """The module rasterio; None where it is not installed.

    Its log has a handler that does nothing, as errors of GDAL become exceptions.
    """
    try:
        import rasterio
        import rasterio.errors
        import rasterio.io
        import rasterio.session
    except ImportError:
        return None
    logging.getLogger("rasterio").addHandler(logging.NullHandler())
    return rasterio


def copier() -> Any:
    """The function of rasterio that writes a dataset in the format of a driver."""
    import rasterio.shutil

    return rasterio.shutil.copy


@contextmanager
def environment(remote: bool) -> Iterator[None]:
    """A ``with`` block in which GDAL has our options; ``remote`` is whether it may use the network.

    To enter it takes some tenths of a millisecond. Threads that do nothing but decode stay in it for files of
    this machine: the options are those of the thread, as in rasterio for any thread but the main one.
    """
    stays = getattr(_thread, "stays", None)
    if stays is not None and not remote:
        yield
        return
    if stays is not None:
        _thread.stays = None
        stays.__exit__(None, None, None)
    if remote or not is_decoder():
        with _made(remote):
            yield
        return
    made = _made(remote)
    made.__enter__()
    _thread.stays = made
    yield


#: What a thread stays in.
_thread = threading.local()


def _made(remote: bool) -> Any:
    rasterio = library()
    settings = SETTINGS | (gdal_options() if remote else LOCAL)
    return rasterio.Env(session=rasterio.session.DummySession(), **settings)


@cache
def _drivers() -> frozenset[str]:
    with environment(remote=False):
        return frozenset(library().Env().drivers()) - REFUSED - TEXTS.keys()


def drivers_for(path: Path) -> list[str]:
    """The drivers of GDAL that may open the file ``path``."""
    return sorted(_drivers()) + [name for name, suffix in TEXTS.items() if path.suffix.lower() == suffix]


_quiet = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """A ``with`` block, for one thread at a time, in which rasterio does not warn that an image is not
    georeferenced."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_dataset(path: Path, name: str, remote: bool, level: int = 0) -> Any:
    """Open a dataset with rasterio; only its header is read.

    Parameters
    ----------
    path : the file, for messages.
    name : GDAL's name of it, or of a subdataset in it.
    remote : whether it may lie on a network.
    level : 0 for the image, or the number of one of its overviews, counted from 1.

    Raises
    ------
    Unrecognised : GDAL has no driver for it.
    DamagedFile : GDAL has one, which cannot read it.
    """
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    rasterio = library()
    try:
        with environment(remote), quiet():
            return rasterio.io.DatasetReader(name, driver=drivers_for(path), sharing=False, **options)
    except UnicodeEncodeError:
        raise BadInput(f"{path}: GDAL reads no names that are not in UTF-8; rename the file") from None
    except rasterio.errors.RasterioError as error:
        text = str(error)
        if any(words in text for words in ("not recognized as", "does not exist in the file system")):
            raise Unrecognised(f"{path} is no image that GDAL can read") from None
        raise DamagedFile(f"{path} cannot be opened; GDAL says: {plain(text)}") from None


def plain(text: object) -> str:
    """A message of GDAL as a part of one sentence."""
    return " ".join(str(text).split()).rstrip(".")[:300] or "nothing"


#: Virtual datasets whose sources could not be read in this process, and why. GDAL would return zeros for
#: such a source from then on, and say nothing.
_broken: dict[str, str] = {}


class Handles:
    """Open datasets of one image, each of which serves one thread at a time.

    Parameters
    ----------
    path, name, remote : as `open_dataset` takes them.
    """

    def __init__(self, path: Path, name: str, remote: bool) -> None:
        self.path, self.name, self.remote = path, name, remote
        self._idle: dict[int, list[Any]] = {}
        self._lock, self._process = threading.Lock(), os.getpid()

    @contextmanager
    def lend(self, level: int = 0) -> Iterator[Any]:
        """A dataset of the image, or of an overview, that nobody else uses in this ``with`` block.

        Errors of GDAL inside it are raised as DamagedFile.
        """
        if self.name in _broken:
            raise DamagedFile(_broken[self.name])
        data = self._take(level)
        rasterio = library()
        try:
            with environment(self.remote):
                yield data
        except rasterio.errors.RasterioError as error:
            said = plain(error.__cause__ or error)
            said = f"{self.path}: its pixels cannot be decoded; GDAL says: {said}"
            if data.driver == "VRT":
                _broken[self.name] = said
            raise DamagedFile(said) from None
        else:
            with self._lock:
                self._idle.setdefault(level, []).append(data)

    def _take(self, level: int) -> Any:
        with self._lock:
            if self._process != os.getpid():  # a forked child must not share file positions
                self._idle, self._process = {}, os.getpid()
            idle = self._idle.get(level)
            if idle:
                return idle.pop()
        return open_dataset(self.path, self.name, self.remote, level)
