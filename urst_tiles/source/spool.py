"""The spool: a copy, as zarr arrays on disk, of the samples of a file that has no random access.

The file is decoded once, from top to bottom. The folder of the spool holds the array ``colour`` in the dtype
of the file and, if the samples have weights, the array ``weight``; every chunk ends in a CRC-32C. The folder
gets its name only when it is complete, so a folder of that name is always a whole spool. Rows of chunks that
were damaged or lost since then are made again from the file when they are read.

A spool may come from somebody else, and its ``zarr.json`` could name any codec that zarr knows. So what a
spool is made of is known beforehand, and that file is never read.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from urst_tiles.errors import BadInput, DamagedFile, DiskFull, DoesNotFit, UrstError
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import decoder_count, decoders, decoding_apart, in_order
from urst_tiles.progress import Progress, silent
from urst_tiles.source.valid import Samples, weight_dtype
from urst_tiles.storage.publish import publish, sync_folder, writing
from urst_tiles.storage.stores import is_remote, put, side_by_side

log = logging.getLogger(__name__)

#: Bytes of memory that a band of rows takes at most while spooling, unless it has only 16 rows.
BAND_BYTES = 16 << 20

#: Pixels of a chunk, at most.
CHUNK_PIXELS = 1 << 20


#: The last object of a spool on an object store: it says that the spool is whole.
MARK = "whole"


def chunk_name(array: str, row: int, column: int) -> str:
    """The name of the file of a chunk of the array ``colour`` or ``weight``, relative to the spool."""
    return f"{array}/c/{row}/{column}" + ("/0" if array == "colour" else "")


#: Held by the thread of this process that makes a part of a spool again.
_mending = threading.Lock()


class Original(Protocol):
    """The file that a spool was made from; the openers in `urst_tiles.source.openers` are such."""

    def check(self) -> None:
        """Raise DamagedFile if the content of the file has changed."""

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """Yield (box, samples) for bands of ``rows`` rows and the full width, from top to bottom."""


@dataclass(frozen=True)
class Shape:
    """The shape of a spool, from which its chunks and its sizes in bytes follow.

    Attributes
    ----------
    shape : (height, width) in pixels, as stored.
    colours : how many bands of colour there are, 1 or 3.
    dtype : name of the dtype of the colours.
    has_valid : whether every pixel has a weight that says how valid it is.
    """

    shape: tuple[int, int]
    colours: int
    dtype: str
    has_valid: bool

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel, its weight included."""
        kind = np.dtype(self.dtype)
        return self.colours * kind.itemsize + (weight_dtype(kind).itemsize if self.has_valid else 0)

    @property
    def rows(self) -> int:
        """Rows of a chunk and of a band: 1024, or for wide images a smaller power of two, at least 16."""
        rows = 1024
        while rows > 16 and rows * self.shape[1] * self.pixel_bytes > BAND_BYTES:
            rows //= 2
        return rows

    @property
    def chunk(self) -> tuple[int, int]:
        """(height, width) of a chunk, at most ``CHUNK_PIXELS`` pixels."""
        return self.rows, min(CHUNK_PIXELS // self.rows, max(1, self.shape[1]))

    def files(self) -> Iterator[str]:
        """The names of all files of a spool, relative to its folder; the mark is on object stores only."""
        yield from (f"{name}/zarr.json" for name in ("colour", "weight"))
        yield from self.files_of(range(ceil_div(self.shape[0], self.rows)))
        yield MARK

    def files_of(self, rows: Iterable[int]) -> Iterator[str]:
        """The names of the files of these rows of chunks."""
        columns = ceil_div(self.shape[1], self.chunk[1])
        for row in rows:
            for name in ("colour", "weight") if self.has_valid else ("colour",):
                yield from (chunk_name(name, row, column) for column in range(columns))

    @property
    def reader_bytes(self) -> int:
        """Bytes of memory for reading: for each thread a chunk, encoded, decoded and copied."""
        return decoder_count() * 3 * CHUNK_PIXELS * self.pixel_bytes

    @property
    def writer_bytes(self) -> int:
        """Bytes of memory for writing: the bands in work, and for each thread a chunk, copied and encoded."""
        band = self.rows * self.shape[1] * self.pixel_bytes
        return (decoder_count() + 2) * band + decoder_count() * 2 * CHUNK_PIXELS * self.pixel_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes of disk that the spool takes at most.

        This assumes chunks that do not compress, that are whole at the edges too, and that have checksums.
        """
        (h, w), (r, c) = self.shape, self.chunk
        chunks = ceil_div(h, r) * ceil_div(w, c)
        return chunks * (r * c * self.pixel_bytes * 257 // 256 + 2 * 4096) + 65536


def spool(
    folder: Path, what: Shape, bands: Iterable[tuple[Box, Samples]], progress: Progress = silent
) -> Path:
    """Write a spool as ``folder``, unless that exists, and return ``folder``.

    A spool for an object store is first written to the disk of this machine.

    Parameters
    ----------
    folder : the path of the spool, in a folder that exists.
    what : the shape and the dtype of the samples.
    bands : (box, samples) from top to bottom, each of ``what.rows`` full rows (the last of fewer).
    progress : called with the stage "spooling" and numbers of pixels.

    Raises
    ------
    DoesNotFit : the disk does not have enough room; raised before anything is decoded.
    DiskFull : the disk became full while writing; the incomplete spool is removed.
    DamagedFile : the file cannot be decoded.
    """
    if is_remote(folder):
        return _spool_and_put(folder, what, bands, progress)
    if folder.exists():
        return folder
    free = shutil.disk_usage(folder.parent).free
    if free < what.disk_bytes:
        raise DoesNotFit(
            f"this file has no random access and must be unpacked to {folder.parent}, which needs up to "
            f"{what.disk_bytes / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free there; make room or "
            "choose another --job-dir"
        )
    for unfinished in folder.parent.glob(f".{folder.name}.*"):
        if not _alive(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with _attempt_folder(folder) as temporary:
            _write(temporary, what, bands, progress)
            _sync(temporary)
            try:
                os.rename(temporary, folder)
            except OSError:
                if not folder.exists():
                    raise
            sync_folder(folder.parent)
    except OSError as error:
        if isinstance(error, UrstError):  # about the input, which may be gone or damaged by now
            raise
        raise DiskFull(
            f"{folder} cannot be written: {error.strerror or error}; make room and try again"
        ) from None
    return folder


def _spool_and_put(
    folder: Path, what: Shape, bands: Iterable[tuple[Box, Samples]], progress: Progress
) -> Path:
    """Write a spool to an object store; its last object is a mark that says that the spool is whole.

    A mark is needed since an object store cannot rename a folder.
    """
    mark = folder / MARK
    if not mark.exists():
        with tempfile.TemporaryDirectory(prefix="urst-tiles-") as scratch:
            made = spool(Path(scratch) / folder.name, what, bands, progress)
            names = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
            side_by_side(folder, lambda name: put(made / name, folder / name), names)
        publish(mark, b"")
    return folder


def _store(folder: Path) -> Any:
    """A store of zarr that reads ``folder``."""
    if not is_remote(folder):
        return zarr.storage.LocalStore(folder, read_only=True)
    options = {**folder.storage_options}  # type: ignore[attr-defined]
    return zarr.storage.FsspecStore.from_url(str(folder), storage_options=options, read_only=True)


def _alive(temporary: Path) -> bool:
    """Whether the process that made a temporary folder still runs on this machine."""
    try:
        os.kill(int(temporary.name.split(".")[-2]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _write(folder: Path, what: Shape, bands: Iterable[tuple[Box, Samples]], progress: Progress) -> None:
    """Write all bands into new arrays in ``folder``. Raises DamagedFile if they do not cover the image."""
    arrays = _create_both(folder, what)
    total, done = what.shape[0] * what.shape[1], 0
    for box, samples in bands:
        _write_band(arrays, what, box, samples)
        done += box.area
        progress("spooling", done, total)
    if done != total:
        raise DamagedFile(f"only {done} of {total} pixels could be read; the file is cut off")


def _create_both(folder: Path, what: Shape) -> dict[str, Any]:
    """The arrays of a spool in ``folder``, by name."""
    names = ("colour", "weight") if what.has_valid else ("colour",)
    return {name: _create(str(folder / name), what, name) for name in names}


def _write_band(arrays: dict[str, Any], what: Shape, box: Box, samples: Samples) -> None:
    """Write the samples of a band of rows into the arrays."""

    def write(part: Box) -> None:
        arrays["colour"][part.slices] = samples.colour[part.within(box).slices]
        if "weight" in arrays and samples.weight is not None:
            arrays["weight"][part.slices] = samples.weight[part.within(box).slices]

    columns = range(0, box.x1, what.chunk[1])
    parts = (Box(box.y0, x, box.y1, x + what.chunk[1]).clip(box) for x in columns)
    for _ in in_order(decoders(), write, parts):
        pass


def mend(folder: Path, what: Shape, original: Original, rows: set[int]) -> None:
    """Make rows of chunks of a spool again, and with them any others of which a file is gone.

    The file is decoded from the top down to the last of these rows. Others may read the spool meanwhile, and
    make the same rows again: each file is replaced at once, by the same bytes.

    Raises
    ------
    DamagedFile : the file cannot be decoded, or was changed since it was spooled.
    DiskFull : the disk is full.
    """
    log.warning("rows %s of %s are damaged and are made again", sorted(rows), folder)
    rows = rows | _rows_with_gaps(folder, what)
    with decoding_apart(), _attempt_folder(folder) as made, writing(made.parent):
        arrays, left = _create_both(made, what), set(rows)
        try:
            for box, samples in original.stream(what.rows):
                if box.y0 // what.rows in left:
                    _write_band(arrays, what, box, samples)
                    left.remove(box.y0 // what.rows)
                if not left:
                    break
            original.check()
        except (BadInput, DamagedFile) as error:
            raise DamagedFile(f"{folder} is damaged, and cannot be made again: {error}") from error
        if left:
            raise DamagedFile(f"{folder} is damaged, and the file it was made from is cut off")
        _sync(made)
        _replace(made, folder, what, rows)


def _replace(made: Path, folder: Path, what: Shape, rows: set[int]) -> None:
    """Move the chunks of these rows from ``made`` into the spool ``folder``."""
    for name in what.files_of(rows):
        if is_remote(folder):
            put(made / name, folder / name)
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(made / name, folder / name)


def _rows_with_gaps(folder: Path, what: Shape) -> set[int]:
    """The rows of which a chunk is gone. An object store is not asked, which would take long."""
    if is_remote(folder):
        return set()
    every = range(ceil_div(what.shape[0], what.rows))
    return {row for row in every if not all(map(_is_file, (folder / n for n in what.files_of({row}))))}


def _is_file(path: Path) -> bool:
    """Whether there is a regular file or an object, and no link to one."""
    if is_remote(path):
        return path.exists()
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


@contextmanager
def _attempt_folder(folder: Path) -> Iterator[Path]:
    """The path of a temporary folder beside ``folder``, or on this machine if that is on an object store."""
    if is_remote(folder):
        with tempfile.TemporaryDirectory(prefix="urst-tiles-") as scratch:
            yield Path(scratch) / folder.name
        return
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _create(store: Any, what: Shape, name: str) -> Any:
    """A new zarr array, ``colour`` or ``weight``, whose chunks have checksums."""
    kind, last = np.dtype(what.dtype), (what.colours,) if name == "colour" else ()
    return zarr.create_array(
        store=store,
        shape=(*what.shape, *last),
        chunks=(*what.chunk, *last),
        dtype=kind if name == "colour" else weight_dtype(kind),
        serializer=BytesCodec(),
        compressors=(ZstdCodec(level=1), Crc32cCodec()),
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def _existing(folder: Path, what: Shape, name: str) -> Any:
    """The zarr array of a spool, for reading, with the metadata that `_create` gives it."""
    known = _create(zarr.storage.MemoryStore(), what, name).metadata
    return zarr.Array(zarr.AsyncArray(known, zarr.storage.StorePath(_store(folder / name))))


def _sync(folder: Path) -> None:
    """Make all files in ``folder`` durable."""
    for base, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(base) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(base))


class SpoolReader:
    """Reads samples from a spool. Several threads may use it at the same time.

    A chunk that is missing or fails its checksum is never read as zeros: its row of chunks is made again from
    the file, or DamagedFile is raised.

    Parameters
    ----------
    folder, what : the spool, and what is in it.
    original : the file that the spool was made from.
    """

    levels: tuple[tuple[int, int], ...] = ()
    alone = False

    def __init__(self, folder: Path, what: Shape, original: Original) -> None:
        self.folder, self.shape, self.dtype = folder, what.shape, np.dtype(what.dtype)
        self.colours, self.has_valid, self.cell_shape = what.colours, what.has_valid, what.chunk
        self._what, self._original = what, original
        self._colour = _existing(folder, what, "colour")
        self._weight = _existing(folder, what, "weight") if what.has_valid else None

    def cell(self, box: Box, level: int = 0) -> Samples:
        weight = None if self._weight is None else self._read("weight", self._weight, box)
        return Samples(self._read("colour", self._colour, box), weight)

    def _read(self, name: str, array: Any, box: Box) -> NDArray[Any]:
        try:
            return self._read_once(name, array, box)
        except DamagedFile:
            pass
        with _mending:
            try:  # another thread may have made it again meanwhile
                return self._read_once(name, array, box)
            except DamagedFile:
                rows = range(box.y0 // self._what.rows, ceil_div(box.y1, self._what.rows))
                mend(self.folder, self._what, self._original, set(rows))
        return self._read_once(name, array, box)

    def _read_once(self, name: str, array: Any, box: Box) -> NDArray[Any]:
        """The samples of one array. Raises DamagedFile if a chunk is gone or damaged."""
        for chunk in self._chunks(name, box):
            if not _is_file(chunk):
                raise DamagedFile(f"{chunk} is gone")
        try:
            return np.asarray(array[box.slices])
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedFile(f"{self.folder / name} is damaged ({error})") from error

    def _chunks(self, name: str, box: Box) -> Iterator[Path]:
        rows, columns = self.cell_shape
        for r in range(box.y0 // rows, ceil_div(box.y1, rows)):
            for c in range(box.x0 // columns, ceil_div(box.x1, columns)):
                yield self.folder / chunk_name(name, r, c)
