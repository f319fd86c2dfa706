"""Access to the pixels of an image of OME-Zarr, or of a plain array of Zarr, in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import decoder_count
from urst_tiles.source import valid
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import Content, file_fingerprint
from urst_tiles.source.ome_zarr import ZarrImage, image_of, plane_of, shape_of
from urst_tiles.source.openers import Reader, bands_of, check_same, is_whole
from urst_tiles.source.valid import Samples
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.metadata import Info, sane_resolution
from urst_tiles.tiff.selection import chosen, told

#: The least side of a cell in pixels: a call has a fixed cost, and decodes several chunks at the same time.
CELL = 2048

#: How many files of a folder are watched for changes, spread evenly, and of how many samples are read.
MOST_WATCHED, SAMPLED = 4096, 64

#: A chunk of more bytes is refused.
MOST_CHUNK_BYTES = 1 << 30


class ZarrReader:
    """Reads samples of an image of Zarr and of its levels. Several threads may use it at the same time.

    The attributes are those of `Reader`, and ``image``, ``notes`` and ``reader_bytes``.
    """

    alone = False

    def __init__(self, path: Path, choice: Choice) -> None:
        self.path, self.image = path, image_of(path)
        self.plane, self.notes = plane_of(path, self.image, choice)
        axes, shape = self.image.axes, shape_of(self.image.arrays[0])
        self._arrays = [_array(path, folder) for folder in self.image.arrays]
        self.shape = shape[axes.y], shape[axes.x]
        self.levels = tuple((int(a.shape[axes.y]), int(a.shape[axes.x])) for a in self._arrays[1:])
        self._alpha = 3 if self.image.rgb and len(self.image.channels) == 4 else None
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
        return 3 * self.returned_bytes + decoder_count() * 4 * self._chunk_bytes

    @property
    def returned_bytes(self) -> int:
        """The part of it that is made for those that read: the cells of each thread."""
        cell = self.cell_shape[0] * self.cell_shape[1] * max(4, self.colours) * self.dtype.itemsize
        return decoder_count() * cell

    def cell(self, box: Box, level: int = 0) -> Samples:
        axes, array, first = self.image.axes, self._arrays[level], self._arrays[0]
        wanted = [*self.plane.picks, *([self._alpha] if self._alpha is not None else [])]
        where: list[Any] = [slice(None)] * array.ndim
        where[axes.y], where[axes.x] = slice(box.y0, box.y1), slice(box.x0, box.x1)
        if axes.z >= 0:  # levels may have fewer planes
            z = self.plane.z * array.shape[axes.z] // first.shape[axes.z]
            where[axes.z] = min(z, array.shape[axes.z] - 1)
        if axes.t >= 0:
            where[axes.t] = self.plane.t
        low = min(wanted)
        if axes.c >= 0:
            where[axes.c] = slice(low, max(wanted) + 1)
        try:
            raw = np.asarray(array[tuple(where)])
        except Exception as error:  # of whatever codec
            said = " ".join(str(error).split())[:200]
            raise DamagedFile(
                f"{self.path}: the pixels at rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} cannot"
                f" be decoded ({type(error).__name__}: {said})"
            ) from None
        pixels = self._in_order(raw).astype(self.dtype, copy=False)
        if wanted != list(range(low, low + pixels.shape[-1])):
            pixels = pixels[..., [band - low for band in wanted]]
        colour, out = pixels[..., : self.colours], valid.weight_dtype(self.dtype)
        weight = None if self._alpha is None else valid.alpha_weight(pixels[..., -1], out)
        if self.dtype.kind == "f":
            weight = valid.combine(weight, valid.has_data(colour, None), out)
        return Samples(colour, weight)

    def _in_order(self, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What was read, as (h, w, channels)."""
        axes = self.image.axes
        places = sorted((at, name) for name, at in (("c", axes.c), ("y", axes.y), ("x", axes.x)) if at >= 0)
        left = [name for _, name in places]
        if "c" not in left:
            raw, left = raw[None], ["c", *left]
        return raw.transpose([left.index(name) for name in "yxc"])


def _array(path: Path, folder: Path) -> Any:
    """An array of Zarr, read-only. Raises DamagedFile."""
    import zarr  # not at the top, where it would make every command slow

    shape_of(folder)  # refuses codecs before zarr makes them
    try:
        return zarr.open_array(store=os.fspath(folder), mode="r")
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise DamagedFile(f"{path}: its array {folder.name} cannot be opened ({said})") from None


@dataclass(frozen=True)
class ZarrOpener:
    """Opens an image of Zarr.

    Attributes
    ----------
    path : the folder.
    choice : the plane and the channels that the user chose.
    files : the files in it that are watched for changes.
    fingerprint : that of the folder when the source was opened.
    content : the whole content of these files when the job began; None outside of jobs.
    """

    path: Path
    choice: Choice
    files: tuple[Path, ...]
    fingerprint: str
    content: Content | None = None
    many: ClassVar[bool] = False

    def with_content(self, content: Content) -> ZarrOpener:
        return replace(self, content=content)

    def check(self) -> None:
        if not is_whole(self):
            check_same(self.path, self.fingerprint, folder_fingerprint(self.path)[0])

    def open(self) -> Reader:
        self.check()
        return ZarrReader(self.path, self.choice)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        yield from bands_of(self.open(), rows)
        self.check()


def folder_fingerprint(path: Path) -> tuple[str, tuple[Path, ...]]:
    """SHA-256, in hex, of the names and sizes of all files in a folder and of samples of some of them, spread
    evenly; and the files that are watched."""
    files = sorted(one for one in path.rglob("*") if one.is_file())
    if not files:
        raise DamagedFile(f"{path} has no file in it")
    names = [(str(one.relative_to(path)), one.stat().st_size) for one in files]
    digest = hashlib.sha256(repr(names).encode())
    sampled = _spread(files, SAMPLED)
    digest.update(file_fingerprint(sampled[0], sampled[1:]).encode())
    return digest.hexdigest(), _spread(files, MOST_WATCHED)


def _spread(files: Sequence[Path], most: int) -> tuple[Path, ...]:
    """At most ``most`` files, spread evenly over all."""
    count = min(len(files), most)
    return tuple(files[i * len(files) // count] for i in range(count))


def zarr_facts(path: Path, choice: Choice) -> Facts:
    """The facts of an image of OME-Zarr, or of a plain array.

    Raises
    ------
    BadInput, DamagedFile : as `image_of` and `plane_of`.
    """
    reader = ZarrReader(path, choice)
    fingerprint, files = folder_fingerprint(path)
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
