"""``Source``: a lazy image of one kind, RGB or RGBA in uint8 or uint16, whatever the file holds."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.machine import decoders, in_order, mapped
from urst_tiles.progress import Progress, silent
from urst_tiles.source import thumbnail as thumbs
from urst_tiles.source.openers import Opener, Reader, SpoolOpener, check_unchanged, reader_of
from urst_tiles.source.orient import oriented, shown, stored_box
from urst_tiles.source.spool import Shape, spool
from urst_tiles.source.stretch import Ranges, Stretch, parse_stretch, resolve
from urst_tiles.source.valid import Samples, full, weight_dtype
from urst_tiles.storage.publish import make_folder, publish
from urst_tiles.tiff.metadata import Info

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Facts:
    """What the header tells, resolved once.

    Attributes
    ----------
    path, info, fingerprint : as `Source` has them.
    stored : (height, width) before orientation.
    orientation : 1 to 8, as TIFF's tag 274.
    bands : the bands that were asked for; None for the default.
    colours : how many bands of colour the opener returns (1 or 3).
    file_dtype : dtype of colour in the file.
    has_valid : whether every pixel comes with a weight that says how valid it is.
    overviews : shapes of the file's overviews, as stored.
    reader_bytes : what the opener's reader holds at most, beyond what it returns.
    spooling_bytes : what decoding from top to bottom holds at most.
    opener : reaches the pixels; for files without random access, streams them (see ``streams``).
    random_access : whether ``opener`` reaches any box at any time.
    stretched : whether values are stretched to uint16 (files that are not uint8; arrays are pixels already).
    """

    path: Path
    info: Info
    fingerprint: str
    stored: tuple[int, int]
    orientation: int
    bands: tuple[int, ...] | None
    colours: int
    file_dtype: str
    has_valid: bool
    overviews: tuple[tuple[int, int], ...]
    reader_bytes: int
    spooling_bytes: int
    opener: Opener
    random_access: bool
    stretched: bool


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` made: where pixels come from, the stretch, and the thumbnail (in memory or in a
    file)."""

    opener: Opener
    ranges: Ranges | None
    origin: str
    thumbnail: NDArray[Any] | Path


class Source:
    """A lazy image. Pickles; files are opened once per process; ``read`` may be called from many threads.

    Attributes
    ----------
    path : the file.
    shape : (height, width), upright.
    channels : 3 where every pixel is valid by construction, else 4: the 4th is validity or alpha, 0 where
    invalid.
    dtype : uint8 for uint8 files, else uint16.
    file_dtype : dtype of the file's samples.
    info : metadata for the output.
    random_access : whether boxes can be read without spooling.
    fingerprint : hex; identity of the file's content (size, directories, byte counts, samples), never its
    time.
    spool_bytes : disk that ``prepare`` takes at most, 0 with random access.
    reader_bytes : memory the reader takes at most, beyond the arrays it returns.
    overviews : (height, width) of the file's own overviews.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        stretch: str = "2%,98%",
        use_overviews: bool = True,
        prepared: Prepared | None = None,
    ) -> None:
        self._facts, self._stretch_text, self._use_overviews = facts, stretch, use_overviews
        self._bounds = parse_stretch(stretch)
        self._prepared = prepared
        self._lock = threading.RLock()
        self._cache: dict[str, Any] = {}
        self.path, self.info, self.fingerprint = facts.path, facts.info, facts.fingerprint
        self.shape = oriented(facts.stored, facts.orientation)
        self.channels = 4 if facts.has_valid else 3
        self.file_dtype = np.dtype(facts.file_dtype)
        self.dtype = weight_dtype(self.file_dtype)
        self.random_access = facts.random_access
        self.reader_bytes = facts.reader_bytes if facts.random_access else self._spool_shape.reader_bytes
        self.overviews = [oriented(s, facts.orientation) for s in facts.overviews]

    def __repr__(self) -> str:
        (h, w), kind = self.shape, "RGBA" if self.channels == 4 else "RGB"
        return f"<Source {self.path.name}: {w} x {h} {kind} {self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._cache = threading.RLock(), {}

    @property
    def _spool_shape(self) -> Shape:
        f = self._facts
        return Shape(f.stored, f.colours, f.file_dtype, f.has_valid)

    def prepare_bytes(self, thumbnail: int = 1024) -> int:
        """Memory that ``prepare`` takes at most, besides libraries: spooling, then averaging."""
        f = self._facts
        spooling = 0 if f.random_access else f.spooling_bytes + self._spool_shape.writer_bytes
        h, w = thumbs.thumbnail_shape(f.stored, thumbnail)
        each = f.colours * 12 + (12 if f.has_valid else 0) + self.channels * self.dtype.itemsize * 2
        return max(spooling, 2 * self.reader_bytes + h * w * each)

    @property
    def spool_bytes(self) -> int:
        """Disk that ``prepare`` takes at most."""
        return 0 if self.random_access else self._spool_shape.disk_bytes

    def prepare(self, folder: Path | None, *, thumbnail: int = 1024, progress: Progress = silent) -> Source:
        """Spool if needed, make the thumbnail, resolve the stretch; what is found in ``folder`` is not made
        again.

        Parameters
        ----------
        folder : keeps the spool and the thumbnail. None keeps the thumbnail in memory (random access only).
        thumbnail : its short side in pixels; its area is at most four times the square of it.
        progress : told "spooling" and "thumbnail", in pixels.

        Returns
        -------
        A source whose ``read``, ``thumbnail`` and ``array`` work.

        Raises
        ------
        DoesNotFit, DiskFull : the disk; DamagedFile : the file's content; BadInput : no folder where one is
        needed.
        """
        if thumbnail < 1:
            raise BadInput(f"--thumbnail must be at least 1 px, got {thumbnail}")
        if folder is not None:
            make_folder(folder)
        opener = self._reached(folder, progress)
        reader = reader_of(opener)
        made = self._thumbnail(reader, folder, thumbnail, progress)
        ranges = None
        if self._facts.stretched:
            ranges = resolve(self._bounds, made.colour, made.weight)
        pixels = self._finished(made, ranges)
        kept: NDArray[Any] | Path = pixels
        if folder is not None:
            kept = folder / f"thumbnail-{self._key(thumbnail, self._use_overviews, self._stretch_text)}.npz"
            if _kept(kept) is None:
                publish(kept, _npz(pixels=pixels))
        return Source(
            self._facts,
            stretch=self._stretch_text,
            use_overviews=self._use_overviews,
            prepared=Prepared(opener, ranges, made.origin, kept),
        )

    def _key(self, *more: object) -> str:
        """Short name of this source under these options."""
        f = self._facts
        words = (f.fingerprint, f.bands, *more)
        return hashlib.sha256(repr(words).encode()).hexdigest()[:16]

    def _reached(self, folder: Path | None, progress: Progress) -> Opener:
        """An opener with random access; spools where the file has none."""
        f = self._facts
        if f.random_access:
            return f.opener
        if folder is None:
            raise BadInput(
                f"{f.path} has no random access and must be unpacked first; give prepare() a folder for it"
            )
        what = self._spool_shape
        place = folder / f"spool-{self._key()}.zarr"
        return SpoolOpener(spool(place, what, f.opener.stream(what.rows), progress), what)

    def _thumbnail(
        self, reader: Reader, folder: Path | None, side: int, progress: Progress
    ) -> thumbs.Thumbnail:
        """The thumbnail in the file's own values, as stored; kept in the folder."""
        kept = None if folder is None else folder / f"average-{self._key(side, self._use_overviews)}.npz"
        found = _kept(kept)
        if found is not None:
            return thumbs.Thumbnail(found["colour"], found.get("weight"), str(found["origin"]))
        f = self._facts
        shape = thumbs.thumbnail_shape(f.stored, side)
        level = thumbs.best_level(shape, reader.levels) if self._use_overviews else None
        if shape == f.stored:
            origin, level = "the image itself", None
        elif level is None:
            origin = "one streamed pass"
        else:
            h, w = oriented(reader.levels[level], f.orientation)
            origin = f"overview {w} x {h} of the file"
        number = 0 if level is None else level + 1
        full_shape = f.stored if level is None else reader.levels[level]
        made = thumbs.average(
            lambda box: reader.cell(box, number),
            full_shape,
            shape,
            reader.cell_shape,
            bands=f.colours,
            has_valid=f.has_valid,
            origin=origin,
            progress=progress,
        )
        if f.random_access:
            check_unchanged(f.opener)
        if kept is not None:
            publish(kept, _npz(**made._asdict()))
        return made

    def _finished(self, made: thumbs.Thumbnail, ranges: Ranges | None) -> NDArray[Any]:
        """The thumbnail as pixels, upright."""
        top = full(self.dtype)
        out = np.empty((*made.colour.shape[:2], self.channels), self.dtype)
        for k in range(3):  # band by band: a long image has a large thumbnail
            band = min(k, made.colour.shape[-1] - 1)
            values = made.colour[..., band : band + 1]
            if ranges is None:
                out[..., k] = np.rint(np.clip(values[..., 0], 0, top))
            else:
                out[..., k] = Stretch(ranges[band : band + 1], np.dtype(np.float32))(values)[..., 0]
        if self.channels == 4:
            weight = made.weight if made.weight is not None else np.ones(out.shape[:2], np.float32)
            # A pixel that is valid to the smallest part stays valid: rounding must not make a hole of it.
            out[..., 3] = np.where(weight > 0, np.maximum(np.rint(weight * top), 1), 0)
        return shown(out, self._facts.orientation)

    def _ready(self) -> Prepared:
        with self._lock:
            if self._prepared is None:
                if not self.random_access:
                    raise BadInput(
                        f"{self.path} has no random access; call prepare(folder) and use what it returns"
                    )
                self._prepared = self.prepare(None)._prepared
            assert self._prepared is not None
            return self._prepared

    @property
    def thumbnail(self) -> NDArray[Any]:
        """Pixels (h, w, channels) of ``dtype``: area averages, weighted by validity."""
        with self._lock:
            if "thumbnail" not in self._cache:
                kept = self._ready().thumbnail
                self._cache["thumbnail"] = kept if isinstance(kept, np.ndarray) else _load(kept)["pixels"]
            return self._cache["thumbnail"]

    @property
    def thumbnail_origin(self) -> str:
        """Where the thumbnail comes from."""
        return self._ready().origin

    @property
    def stretch(self) -> Ranges | None:
        """(low, high) per colour band that become 0 and 65535; None for uint8."""
        return self._ready().ranges if self._facts.stretched else None

    def read(self, box: Box) -> NDArray[Any]:
        """Pixels (h, w, channels) of ``dtype`` of a box inside the image.

        Raises
        ------
        ValueError : the box is empty or reaches outside.
        DamagedFile : something of it cannot be decoded, or the file was changed; never wrong pixels.
        """
        if box.area == 0 or not Box(0, 0, *self.shape).contains(box):
            raise ValueError(f"{box} does not lie inside an image of {self.shape[1]} x {self.shape[0]}")
        try:
            return self._read(box)
        finally:
            # Also where something could not be decoded: that it was changed is the better explanation.
            if self.random_access:
                check_unchanged(self._facts.opener)

    def _read(self, box: Box) -> NDArray[Any]:
        reader, finish = self._tools()
        orientation = self._facts.orientation
        stored = stored_box(box, self._facts.stored, orientation)
        out = mapped((*stored.shape, self.channels), self.dtype)

        def put(cell: Box) -> None:
            finish(reader.cell(cell), out[cell.within(stored).slices])

        cells = _lattice(stored, reader.cell_shape)
        if len(cells) == 1:
            put(cells[0])
        else:
            for _ in in_order(decoders(), put, cells):
                pass
        return out if orientation == 1 else shown(out, orientation)

    def _tools(self) -> tuple[Reader, Callable[[Samples, NDArray[Any]], None]]:
        """The reader of this process, and what turns its samples into pixels."""
        with self._lock:
            if "tools" not in self._cache:
                needs = not self.random_access or self._facts.stretched
                prepared = self._ready() if needs or self._prepared else None
                opener = prepared.opener if prepared else self._facts.opener
                ranges = prepared.ranges if prepared else None
                self._cache["tools"] = reader_of(opener), _finisher(ranges, self.file_dtype)
            return self._cache["tools"]

    @property
    def array(self) -> zarr.Array[Any]:
        """zarr array (height, width, channels), read only, chunks of (1024, 1024, channels) made on
        demand."""
        from urst_tiles.source.zarr_view import as_zarr

        return as_zarr(self)


def _finisher(ranges: Ranges | None, dtype: np.dtype[Any]) -> Callable[[Samples, NDArray[Any]], None]:
    stretch = None if ranges is None else Stretch(ranges, dtype)

    def finish(samples: Samples, out: NDArray[Any]) -> None:
        out[..., :3] = samples.colour if stretch is None else stretch(samples.colour)
        if out.shape[-1] == 4:
            out[..., 3] = full(out.dtype) if samples.weight is None else samples.weight

    return finish


def _lattice(box: Box, cell: tuple[int, int]) -> list[Box]:
    """The cells of a lattice (origin 0, 0) that meet a box, clipped to it."""
    return [
        Box(y, x, y + cell[0], x + cell[1]).clip(box)
        for y in range(box.y0 // cell[0] * cell[0], box.y1, cell[0])
        for x in range(box.x0 // cell[1] * cell[1], box.x1, cell[1])
    ]


def _npz(**arrays: object) -> bytes:
    """Arrays as the bytes of an .npz file, whose members carry a CRC-32."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    np.savez(buffer, **members)
    return buffer.getvalue()


def _kept(path: Path | None) -> dict[str, NDArray[Any]] | None:
    """What `_npz` wrote; None where it is not there, or damaged: then it is made again."""
    try:
        return None if path is None or not path.exists() else _load(path)
    except DamagedFile:
        return None


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """What `_npz` wrote. Raises DamagedFile."""
    try:
        with path.open("rb") as file, np.load(file) as found:
            return dict(found)
    except Exception as error:
        raise DamagedFile(
            f"{path} is damaged ({error}); delete it and give the same command again"
        ) from error
