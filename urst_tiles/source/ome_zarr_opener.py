"""Access to the pixels of an image of OME-Zarr, or of a plain array of Zarr, in a folder or at an address."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import decoder_count
from urst_tiles.source import valid
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import (
    SAMPLE_BYTES,
    SAMPLES,
    Content,
    Looks,
    Stamp,
    remembered,
    sampled,
    stamp,
)
from urst_tiles.source.ome_zarr import Axes, Folder, ZarrImage, image_of, metadata_of, plane_of, shape_of
from urst_tiles.source.openers import FileOpener, Reader, check_same, is_whole
from urst_tiles.source.remote import Address
from urst_tiles.source.valid import Samples
from urst_tiles.source.zarr_remote import LIBRARY_BYTES, RemoteFolder, spread
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.metadata import Info, sane_resolution
from urst_tiles.tiff.selection import chosen, told

#: The least side of a cell in pixels: a call has a fixed cost, and decodes several chunks at the same time.
CELL = 2048

#: How many files of a folder are watched for changes, spread evenly, and of how many samples are read.
MOST_WATCHED, SAMPLED = 4096, 64

#: Of how many chunks of each coarser level a server is asked.
SAMPLED_LEVEL = 4

#: How many decoded chunks a call holds at the same time, of a folder of this machine, and of an address,
#: whose chunks are asked for side by side.
HELD, HELD_REMOTE = 4, 12

#: A chunk of more bytes is refused.
MOST_CHUNK_BYTES = 1 << 30


class ZarrReader:
    """Reads samples of an image of Zarr and of its levels. Several threads may use it at the same time.

    The attributes are those of `Reader`, and ``image``, ``notes`` and ``reader_bytes``.

    Parameters
    ----------
    path : the folder, or its address.
    choice : the plane and the channels that the user chose.
    folder : the folder at that address, if it is known already.
    """

    alone = False

    def __init__(self, path: Path, choice: Choice, folder: RemoteFolder | None = None) -> None:
        self.remote = isinstance(path, Address)
        self.path, self.image = path, image_of(folder or (RemoteFolder(str(path)) if self.remote else path))
        self.plane, self.notes = plane_of(path, self.image, choice)
        axes, shape = self.image.axes, shape_of(self.image.arrays[0])
        self._arrays = [_array(path, folder) for folder in self.image.arrays]
        self.shape = shape[axes.y], shape[axes.x]
        self.levels = tuple((int(a.shape[axes.y]), int(a.shape[axes.x])) for a in self._arrays[1:])
        self._alpha = 3 if self.image.rgb and len(self.image.channels) == 4 else None
        self._wanted = [*self.plane.picks, *([] if self._alpha is None else [self._alpha])]
        self.dtype = np.dtype(self._arrays[0].dtype).newbyteorder("=")
        if self.dtype.kind == "b":
            self.dtype = np.dtype(np.uint8)
        self.colours = len(self.plane.picks)
        self.has_valid = self._alpha is not None or self.dtype.kind == "f"
        chunks = [a.chunks for a in self._arrays]
        self._chunk_bytes = max(int(np.prod(one)) * self.dtype.itemsize for one in chunks)
        if self._chunk_bytes > MOST_CHUNK_BYTES:
            raise BadInput(
                f"{path}: its chunks {chunks[0]} are too large to be decoded at once; write smaller ones"
            )
        tall, wide = chunks[0][axes.y], chunks[0][axes.x]
        self.cell_shape = ceil_div(CELL, tall) * tall, ceil_div(CELL, wide) * wide

    @property
    def reader_bytes(self) -> int:
        """Bytes of memory that reading takes at most, besides the arrays that are returned."""
        held = HELD_REMOTE if self.remote else HELD
        libraries = LIBRARY_BYTES if self.remote else 0
        return 3 * self.returned_bytes + decoder_count() * held * self._chunk_bytes + libraries

    @property
    def returned_bytes(self) -> int:
        """The part of it that is made for those that read: the cells of each thread."""
        cell = self.cell_shape[0] * self.cell_shape[1] * max(4, self.colours) * self.dtype.itemsize
        return decoder_count() * cell

    @property
    def into(self) -> Callable[[Box, int, NDArray[Any]], None] | None:
        """What reads a box of a level into an array (h, w, colours), without an array in between; None where
        the arrays do not hold just the colours of a pixel side by side, or some pixels may be invalid."""
        axes, count = self.image.axes, len(self.image.channels)
        side_by_side = axes == Axes(-1, 2, -1, 0, 1) and self._wanted == list(range(count))
        alike = all(np.dtype(array.dtype) == self.dtype for array in self._arrays)
        return self._read_into if side_by_side and alike and not self.has_valid else None

    def _read_into(self, box: Box, level: int, out: NDArray[Any]) -> None:
        from zarr.buffer import cpu

        array = self._arrays[level]
        where = (slice(box.y0, box.y1), slice(box.x0, box.x1), slice(None))
        self._read(box, lambda: array.get_basic_selection(where, out=cpu.NDBuffer.from_numpy_array(out)))

    def cell(self, box: Box, level: int = 0) -> Samples:
        axes, array, wanted = self.image.axes, self._arrays[level], self._wanted
        where: list[Any] = [slice(None)] * array.ndim
        for axis, (first, last) in self._planes(array).items():
            where[axis] = slice(first, last + 1) if axis == axes.c else first
        where[axes.y], where[axes.x] = slice(box.y0, box.y1), slice(box.x0, box.x1)
        low = min(wanted)
        raw = np.asarray(self._read(box, lambda: array[tuple(where)]))
        pixels = self._in_order(raw).astype(self.dtype, copy=False)
        if wanted != list(range(low, low + pixels.shape[-1])):
            pixels = pixels[..., [band - low for band in wanted]]
        colour, out = pixels[..., : self.colours], valid.weight_dtype(self.dtype)
        weight = None if self._alpha is None else valid.alpha_weight(pixels[..., -1], out)
        if self.dtype.kind == "f":
            weight = valid.combine(weight, valid.has_data(colour, None), out)
        return Samples(colour, weight)

    def _read(self, box: Box, read: Callable[[], Any]) -> Any:
        """What ``read`` returns. Raises DamagedFile where it cannot decode the box."""
        try:
            return read()
        except BadInput:  # of a server
            raise
        except Exception as error:  # of whatever codec
            said = " ".join(str(error).split())[:200]
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot"
                f" be decoded ({type(error).__name__}: {said})"
            ) from None

    def _in_order(self, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What was read, as (h, w, channels)."""
        axes = self.image.axes
        places = sorted((at, name) for name, at in (("c", axes.c), ("y", axes.y), ("x", axes.x)) if at >= 0)
        left = [name for _, name in places]
        if "c" not in left:
            raw, left = raw[None], ["c", *left]
        if left[2] == "c":
            return raw.transpose(left.index("y"), left.index("x"), 2)
        bands = raw.transpose([left.index(name) for name in "cyx"])
        # a copy band by band takes a quarter of the time of one that transposes all (measured)
        return np.stack(list(bands), -1)

    def remote_fingerprint(self) -> str:
        """SHA-256, in hex, of the metadata of an image at an address, and of what its server tells of some
        chunks of the planes that are read, spread evenly: size and checksum, or time of the last change."""
        image, digest = self.image, hashlib.sha256()
        digest.update(repr((image.axes, image.channels, image.colours, image.microns, image.rgb)).encode())
        for level, (folder, array) in enumerate(zip(image.arrays, self._arrays, strict=True)):
            digest.update(json.dumps(metadata_of(folder), sort_keys=True).encode())
            keys = [
                array.metadata.encode_chunk_key(place)
                for place in spread(self._files(array), SAMPLED if level == 0 else SAMPLED_LEVEL)
            ]
            assert isinstance(folder, RemoteFolder)
            digest.update(repr(list(zip(keys, folder.states(keys), strict=True))).encode())
        return digest.hexdigest()

    def _files(self, array: Any) -> list[range]:
        """Along each axis, the numbers of the chunks or shards of an array in which the planes lie."""
        held = array.shards or array.chunks
        files = [range(ceil_div(n, size)) for n, size in zip(array.shape, held, strict=True)]
        for axis, (low, high) in self._planes(array).items():
            files[axis] = range(low // held[axis], high // held[axis] + 1)
        return files

    def _planes(self, array: Any) -> dict[int, tuple[int, int]]:
        """The first and the last place that is read of an array along the axes of depth, time and channels.

        Levels may have fewer depths than the image.
        """
        axes, first, planes = self.image.axes, self._arrays[0], dict[int, tuple[int, int]]()
        if axes.z >= 0:
            z = self.plane.z * array.shape[axes.z] // first.shape[axes.z]
            planes[axes.z] = (min(z, array.shape[axes.z] - 1),) * 2
        if axes.t >= 0:
            planes[axes.t] = (self.plane.t,) * 2
        if axes.c >= 0:
            planes[axes.c] = min(self._wanted), max(self._wanted)
        return planes


def _array(path: Path, folder: Folder) -> Any:
    """An array of Zarr, read-only. Raises DamagedFile.

    It is made from the metadata whose codecs were checked: they are not read a second time, when a server
    might tell others.
    """
    import zarr  # not at the top, where it would make every command slow
    from zarr.storage import LocalStore, StorePath

    shape_of(folder)  # refuses codecs before zarr makes them
    store = folder.store() if isinstance(folder, RemoteFolder) else LocalStore(folder, read_only=True)
    try:
        return zarr.Array.from_dict(StorePath(store), metadata_of(folder))
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise DamagedFile(f"{path}: its array {folder.name} cannot be opened ({said})") from None


@dataclass(frozen=True)
class ZarrOpener(FileOpener):
    """Opens an image of Zarr.

    Attributes
    ----------
    path : the folder, or its address.
    choice : the plane and the channels that the user chose.
    files : the files in it that are watched for changes; empty for an address.
    fingerprint : that of the folder when the source was opened.
    content : the whole content of these files when the job began; None outside of jobs.
    """

    path: Path
    choice: Choice
    files: tuple[Path, ...]
    fingerprint: str
    content: Content | None = None
    many: ClassVar[bool] = False

    def check(self) -> None:
        if not self.files:
            self._reader()
        elif not is_whole(self):
            check_same(self.path, self.fingerprint, folder_fingerprint(self.path)[0])

    def open(self) -> Reader:
        if not self.files:
            return self._reader()
        self.check()
        return ZarrReader(self.path, self.choice)

    def _reader(self) -> ZarrReader:
        """A reader of an image at an address, which was asked whether it is still the same."""
        reader = ZarrReader(self.path, self.choice)
        check_same(self.path, self.fingerprint, reader.remote_fingerprint())
        return reader


def folder_fingerprint(path: Path) -> tuple[str, tuple[Path, ...]]:
    """SHA-256, in hex, of the names and sizes of all files in a folder and of 64 to 128 samples of what some
    of them hold, spread evenly; and the files that are watched."""
    looks = list[Looks]()

    def look() -> Looks:
        looks.append(_listed(path))
        return looks[-1]

    fingerprint = remembered("folder", path, look, lambda found: _taken(path, found))
    return fingerprint, tuple(path / name for name in _spread(list(looks[0]), MOST_WATCHED))


def _taken(path: Path, found: Looks) -> str:
    if not found:
        raise DamagedFile(f"{path} has no file in it")
    names = [(name, seen[0]) for name, seen in found.items() if seen]
    digest = hashlib.sha256(repr(names).encode())
    some = _spread(list(found), SAMPLED)
    contents = (FileBytes(path / name) for name in some)
    digest.update(sampled(contents, max(2, SAMPLES // len(some)), SAMPLE_BYTES))
    return digest.hexdigest()


def _listed(folder: Path) -> dict[str, Stamp]:
    """The stamps of all files in a folder and the folders in it that may be listed, by their names in it, in
    the order of `pathlib`."""
    found, waiting = dict[str, Stamp](), [""]
    while waiting:
        inside = waiting.pop()
        with contextlib.suppress(PermissionError), os.scandir(f"{folder}/{inside}") as entries:
            for entry in entries:
                name = inside + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name + "/")
                elif entry.is_file():
                    found[name] = stamp(entry.stat())
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))


def _spread(files: Sequence[str], most: int) -> tuple[str, ...]:
    """At most ``most`` files, spread evenly over all."""
    count = min(len(files), most)
    return tuple(files[i * len(files) // count] for i in range(count))


def zarr_facts(path: Path, choice: Choice, folder: RemoteFolder | None = None) -> Facts:
    """The facts of an image of OME-Zarr, or of a plain array; ``folder`` is what lies at an address.

    Raises
    ------
    BadInput, DamagedFile : as `image_of` and `plane_of`.
    MissingFile : the server does not answer, or not this user.
    """
    reader = ZarrReader(path, choice, folder)
    fingerprint, files = (reader.remote_fingerprint(), ()) if folder else folder_fingerprint(path)
    return Facts(
        path=path,
        info=_info(reader.image, reader),
        fingerprint=fingerprint,
        stored=reader.shape,
        orientation=1,
        choice=choice,
        told=told(reader.notes),
        colours=reader.colours,
        file_dtype=reader.dtype.name,
        has_valid=reader.has_valid,
        overviews=reader.levels,
        reader_bytes=reader.reader_bytes,
        returned_bytes=reader.returned_bytes,
        spooling_bytes=0,
        opener=ZarrOpener(path, choice, files, fingerprint),
        random_access=True,
        stretched=reader.dtype != np.uint8,
    )


def _info(image: ZarrImage, reader: ZarrReader) -> Info:
    """What the output takes over: the size of a pixel."""
    microns = image.microns
    per_cm = None if microns is None else sane_resolution(1e4 / microns[0], 1e4 / microns[1])
    marked = "alpha" if reader.has_valid and reader.dtype.kind != "f" else "mask"
    return Info(
        pixels_per_cm=per_cm,
        validity=marked if reader.has_valid else "none",  # type: ignore[arg-type]
        chosen=chosen(reader.notes),
    )
