"""The class `Source`: an image that is read on demand, always as RGB or RGBA in uint8 or uint16."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, JobDiffers
from urst_tiles.geometry import Box
from urst_tiles.machine import decoders, in_order, mapped
from urst_tiles.progress import Progress, silent
from urst_tiles.source import thumbnail as thumbs
from urst_tiles.source.area import Area, area_bytes
from urst_tiles.source.averages import averages_of, in_areas, weighed
from urst_tiles.source.facts import Facts, Prepared
from urst_tiles.source.identity import Content, content_of
from urst_tiles.source.openers import (
    Opener,
    Reader,
    SpoolOpener,
    check_unchanged,
    reader_of,
)
from urst_tiles.source.orient import oriented, shown, stored_box
from urst_tiles.source.saved import load_if_whole, npz, read_thumbnail
from urst_tiles.source.spool import Shape, spool
from urst_tiles.source.stretch import AS_IS, Ranges, Stretch, finisher, parse_stretches, resolve_each
from urst_tiles.source.valid import Samples, full, weight_dtype
from urst_tiles.storage.publish import make_folder, publish
from urst_tiles.storage.stores import names_in, read_file, remove
from urst_tiles.tiff.metadata import Info

if TYPE_CHECKING:
    import zarr

told = logging.getLogger("urst_tiles.told")


class Source:
    """An image that is read on demand, box by box; made by `open_source` and `array_source`.

    It can be pickled. Each process opens the files once; threads may call ``read`` at the same time.

    Attributes
    ----------
    path : the file.
    shape : (height, width) in pixels, upright.
    channels : 3 for RGB if all pixels are valid, else 4 for RGBA. The fourth channel is alpha or validity; it
        is 0 for invalid pixels.
    dtype : uint8 for uint8 files, else uint16; float32 for floats that stay as they are.
    file_dtype : dtype of the samples in the file.
    info : metadata that the output takes over.
    made_of : how many files make the image, as a phrase, if it is several; else empty.
    told : what the program chose where the file has several pages, channels or bands and the user did not
        choose, as a phrase; empty if there was no choice.
    random_access : whether boxes can be read without spooling.
    fingerprint : hex digest that identifies the content of the file: size, directories, byte counts and
        samples, but never the time.
    spool_bytes : bytes of disk that ``prepare`` takes at most for the spool; 0 with random access.
    reader_bytes : bytes of memory that reading takes at most, besides the arrays that are returned.
    returned_bytes : the part of it that is made for those that read, and not held by libraries.
    overviews : (height, width) of each overview in the file, upright.
    halvings : how often the image was halved from the one that the user named, for a level of a painting.
    stretch_text : the values or percentiles that become black and white, as they were asked for.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        stretch: str = "2%,98%",
        use_overviews: bool = True,
        prepared: Prepared | None = None,
    ) -> None:
        self._facts, self._use_overviews = facts, use_overviews
        as_is = stretch == AS_IS and np.dtype(facts.file_dtype).kind == "f"
        self._stretched = facts.stretched and not as_is
        self._bounds = () if stretch == AS_IS else parse_stretches(stretch)
        if self._stretched and len(self._bounds) not in (1, facts.colours):
            raise BadInput(
                f"{facts.path}: the stretch has {len(self._bounds)} pairs LOW,HIGH and the image"
                f" {facts.colours} band(s); give one pair, or one for each band"
            )
        self._prepared = prepared
        self._lock = threading.RLock()
        self._cache: dict[str, Any] = {}
        self.path, self.info, self.fingerprint = facts.path, facts.info, facts.fingerprint
        self.shape = oriented(facts.stored, facts.orientation)
        self.told, self.made_of = facts.told, facts.made_of
        self.stretch_text = stretch
        self.channels = self.colours + bool(facts.has_valid or facts.areas)
        self.file_dtype = np.dtype(facts.file_dtype)
        self.dtype: np.dtype[Any] = np.dtype(np.float32) if as_is else weight_dtype(self.file_dtype)
        self.random_access, self.halvings = facts.random_access, facts.halvings
        spooled, areas = self._spool_shape.reader_bytes, area_bytes(facts.areas)
        self.reader_bytes = areas + (facts.reader_bytes if facts.random_access else spooled)
        self.returned_bytes = areas + (facts.handed_bytes if facts.random_access else spooled)
        self.overviews = [oriented(s, facts.orientation) for s in facts.overviews]

    @property
    def colours(self) -> int:
        """How many channels are colours: red, green and blue, or the bands that were chosen as they are."""
        return self._facts.colours if self._facts.choice.plain else 3

    @property
    def has_valid(self) -> bool:
        """Whether a channel behind the colours says how valid a pixel is."""
        return self.channels > self.colours

    @property
    def kind(self) -> str:
        """What the channels are, as a word."""
        colours = "RGB" if self.colours == 3 else f"{self.colours} band(s) "
        return (colours + ("A" if self.has_valid else "")).strip()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and its sidecars; empty for an array."""
        return self._facts.opener.files

    @property
    def members(self) -> tuple[tuple[Path, Box], ...]:
        """Each of the files that make the image, with its box in it; empty for a single file."""
        found = getattr(self._facts.opener, "members", ())
        return tuple((member.path, Box(*member.box)) for member in found)

    def __repr__(self) -> str:
        (h, w), kind = self.shape, self.kind
        return f"<Source {self.path.name}: {w} x {h} {kind} {self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._cache = threading.RLock(), {}

    @property
    def _spool_shape(self) -> Shape:
        """The shape and the dtype of the samples that a spool would hold."""
        f = self._facts
        return Shape(f.stored, f.colours, f.file_dtype, f.has_valid)

    def prepare_bytes(self, thumbnail: int = 1024) -> int:
        """Bytes of memory that ``prepare`` takes at most, besides libraries, to spool and then to average.

        ``thumbnail`` is the shorter side of the thumbnail in pixels, as in ``prepare``.
        """
        f = self._facts
        spooling = 0 if f.random_access else f.spooling_bytes + self._spool_shape.writer_bytes
        h, w = thumbs.thumbnail_shape(f.stored, thumbnail)
        # The averages as float32, and again as the file that they are saved in; or with them the pixels, of
        # which one band is made at a time.
        average = 4 * f.colours + (4 if self.has_valid else 0) + (40 if f.areas else 0)
        pixel = average + max(average, self.channels * self.dtype.itemsize + 12)
        return max(spooling, self.reader_bytes + self.returned_bytes + h * w * pixel)

    @property
    def spool_bytes(self) -> int:
        """Bytes of disk that ``prepare`` takes at most for the spool; 0 with random access."""
        return 0 if self.random_access else self._spool_shape.disk_bytes

    def prepare(
        self,
        folder: Path | None,
        *,
        thumbnail: int = 1024,
        progress: Progress = silent,
        later: bool = False,
    ) -> Source:
        """Spool the file if needed, make the thumbnail, and compute the stretch.

        Parameters
        ----------
        folder : the folder in which the spool and the thumbnail are saved, and taken from if they exist. With
            None the thumbnail stays in memory; this needs random access.
        thumbnail : the shorter side of the thumbnail in pixels; the area is at most 4 ``thumbnail``².
        progress : called with the stage "reading" and numbers of bytes, as long as the whole content of the
            file is not known, and with the stages "spooling" and "thumbnail" and numbers of pixels.
        later : whether the thumbnail may be made when it is first asked for. It is made at once nevertheless
            where a stretch follows from it, or invalid pixels are filled from it.

        Returns
        -------
        A source whose ``read``, ``thumbnail`` and ``array`` work.

        Raises
        ------
        DoesNotFit : the disk does not have enough room for the spool.
        DiskFull : the disk is full.
        DamagedFile : the file cannot be decoded, or was changed.
        JobDiffers : the file is not the one from which ``folder`` was begun.
        BadInput : ``thumbnail`` is less than 1, ``folder`` is None although the file must be spooled, or this
            user may not write into ``folder``.
        """
        if thumbnail < 1:
            raise BadInput(f"--thumbnail must be at least 1 px, got {thumbnail}")
        if folder is None:
            return self._prepare(None, thumbnail, progress)
        make_folder(folder)
        pinned = self._pinned(folder, progress)
        try:
            return pinned._prepare(folder, thumbnail, progress, later)
        except BaseException:
            if names_in(folder) == {self._content_name}:
                remove(folder / self._content_name)  # nothing was made from this content
            raise

    @property
    def _content_name(self) -> str:
        return f"content-{self._key()}.json"

    def _pinned(self, folder: Path, progress: Progress) -> Source:
        """This source, whose opener knows the whole content that its files had when ``folder`` was begun.

        What is made from an image that was edited in between would be neither the old image nor the new one.

        Raises
        ------
        JobDiffers : the files have another content now.
        """
        opener = self._facts.opener
        if not opener.files:
            return self
        path = folder / self._content_name
        before = Content.from_json(read_file(path)) if path.exists() else None
        now = content_of(opener.files, before, progress)
        if before is not None and before.digest != now.digest:
            raise JobDiffers(
                f"{self.path} was edited since this job began; put it back as it was, or start anew with"
                " --overwrite"
            )
        if before != now:
            publish(path, json.dumps(now.to_json()).encode())
        facts = replace(self._facts, opener=opener.with_content(now))
        return self._like(facts, None)

    def _prepare(
        self, folder: Path | None, thumbnail: int, progress: Progress, later: bool = False
    ) -> Source:
        """As ``prepare``, of a source whose content is known."""
        opener = self._random_opener(folder, progress)
        if later and folder is not None and not (self._stretched or self.has_valid):
            path = self._thumbnail_path(folder, thumbnail)
            return self._like(self._facts, Prepared(opener, None, "", path, thumbnail))
        opener, averages = self._averages(opener, folder, thumbnail, progress)
        if averages.is_invalid and self.files:  # arrays are made by programs, which know what is in them
            what = "--valid, --aoi, alpha" if self._facts.areas else "alpha"
            told.warning(
                "%s has no valid pixel: %s, mask or nodata mark all of it as invalid", self.path, what
            )
        ranges = None
        if self._stretched:
            ranges = resolve_each(self._bounds, averages.colour, averages.weight)
        pixels = self._as_pixels(averages, ranges)
        saved: NDArray[Any] | Path = pixels
        if folder is not None:
            saved = self._thumbnail_path(folder, thumbnail)
            if load_if_whole(saved) is None:
                publish(saved, npz(pixels=pixels))
        return self._like(self._facts, Prepared(opener, ranges, averages.origin, saved))

    def _like(self, facts: Facts, prepared: Prepared | None) -> Source:
        """A source of other facts with the options of this one."""
        return Source(facts, stretch=self.stretch_text, use_overviews=self._use_overviews, prepared=prepared)

    def with_valid(self, *areas: Area) -> Source:
        """The same image, of which only what lies in ``areas`` is valid, and of that what was valid before.

        It has four channels. What lies outside counts in no statistics; ``read`` returns its colours as they
        are in the file, with a fourth channel of 0. Call `prepare` anew.
        """
        info = self.info if self.info.validity != "none" else replace(self.info, validity="mask")
        return self._like(replace(self._facts, info=info, areas=(*self.areas, *areas)), None)

    @property
    def areas(self) -> tuple[Area, ...]:
        """What the user calls valid, see `with_valid`."""
        return self._facts.areas

    @property
    def stored(self) -> tuple[int, int]:
        """(height, width) in pixels as they lie in the file, before the orientation."""
        return self._facts.stored

    @property
    def opener(self) -> Opener:
        """Gives the samples as they are in the file, before the orientation, the stretch and areas."""
        return self._facts.opener

    @property
    def is_jpeg(self) -> bool:
        """Whether the pixels in the file are compressed as JPEG."""
        return self._facts.is_jpeg

    @property
    def is_grey(self) -> bool:
        """Whether one band becomes red, green and blue alike."""
        return self._facts.colours == 1 and not self._facts.choice.plain

    @property
    def bare(self) -> Source:
        """The same image without the areas of `with_valid`; it is not prepared."""
        return self if not self.areas else self._like(replace(self._facts, areas=()), None)

    @property
    def unpainted(self) -> bool:
        """Whether what lies outside of the areas comes out as it is in the image, and not black."""
        return any(area.unpainted for area in self.areas)

    def _key(self, *more: object) -> str:
        """A short name, in hex, for the pixels of this source and the options ``more``."""
        f = self._facts
        words = (f.fingerprint, f.choice, *(area.fingerprint for area in f.areas), *more)
        return hashlib.sha256(repr(words).encode()).hexdigest()[:16]

    def _thumbnail_path(self, folder: Path, side: int) -> Path:
        return folder / f"thumbnail-{self._key(side, self._use_overviews, self.stretch_text)}.npz"

    def _average_path(self, folder: Path, side: int) -> Path:
        return folder / f"average-{self._key(side, self._use_overviews)}.npz"

    def _spool_path(self, folder: Path) -> Path:
        return folder / f"spool-{self._key()}.zarr"

    def saved_paths(self, folder: Path, *, thumbnail: int = 1024) -> Iterator[Path]:
        """All files that `prepare`, called with the same arguments, writes into ``folder``."""
        if self.files:
            yield folder / self._content_name
        for source in (self, self.bare) if self.areas else (self,):
            yield source._average_path(folder, thumbnail)
            yield source._thumbnail_path(folder, thumbnail)
        for area in self._facts.areas:
            yield from area.saved_paths(folder)
        if not self.random_access:
            yield from (self._spool_path(folder) / name for name in self._spool_shape.files())

    def _random_opener(self, folder: Path | None, progress: Progress) -> Opener:
        """An opener with random access; if the file does not allow that, it is spooled into ``folder``."""
        f = self._facts
        if f.random_access:
            return f.opener
        if folder is None:
            raise BadInput(
                f"{f.path} has no random access and must be unpacked first; give prepare() a folder for it"
            )
        what = self._spool_shape
        target = self._spool_path(folder)
        return SpoolOpener(spool(target, what, f.opener.stream(what.rows), progress), what, f.opener)

    def _averages(
        self, opener: Opener, folder: Path | None, side: int, progress: Progress
    ) -> tuple[Opener, thumbs.Thumbnail]:
        """An opener of the valid pixels, and the thumbnail in the values of the file, as stored; it is saved
        in the folder for later calls."""
        f = self._facts
        if not f.areas:
            path = None if folder is None else self._average_path(folder, side)
            return opener, averages_of(f, reader_of(opener), side, self._use_overviews, path, progress)
        bare = None
        if any(area.needs_thumbnail for area in f.areas):
            bare = self.bare._averages(opener, folder, side, progress)[1]
        valid = in_areas(f, opener, folder, bare, progress)
        if bare is not None and all(area.needs_thumbnail for area in f.areas):
            return valid, weighed(bare, valid)
        path = None if folder is None else self._average_path(folder, side)
        return valid, averages_of(f, valid.open(), side, self._use_overviews, path, progress)

    def _as_pixels(self, made: thumbs.Thumbnail, ranges: Ranges | None) -> NDArray[Any]:
        """The thumbnail as upright pixels, (h, w, channels), of ``dtype``."""
        top = full(self.dtype)
        out = np.empty((*made.colour.shape[:2], self.channels), self.dtype)
        for k in range(self.colours):  # band by band to save memory: a long image has a large thumbnail
            band = min(k, made.colour.shape[-1] - 1)
            values = made.colour[..., band : band + 1]
            if ranges is None:
                whole = self.dtype.kind == "u"
                out[..., k] = np.rint(np.clip(values[..., 0], 0, top)) if whole else values[..., 0]
            else:
                out[..., k] = Stretch(ranges[band : band + 1], np.dtype(np.float32))(values)[..., 0]
        if self.has_valid:
            weight = made.weight if made.weight is not None else np.ones(out.shape[:2], np.float32)
            # A pixel that is valid in its smallest part stays valid: rounding must not turn it into a hole.
            least = weight if self.dtype.kind == "f" else np.maximum(np.rint(weight * top), 1)
            out[..., -1] = np.where(weight > 0, least, 0)
        return shown(out, self._facts.orientation)

    def _ready(self) -> Prepared:
        """The prepared state; with random access it is made on first use, with the thumbnail in memory."""
        with self._lock:
            if self._prepared is None:
                if not self.random_access:
                    raise BadInput(
                        f"{self.path} has no random access; call prepare(folder) and use what it returns"
                    )
                self._prepared = self.prepare(None)._prepared
            assert self._prepared is not None
            return self._prepared

    def _with_thumbnail(self) -> Prepared:
        """The prepared state, with a thumbnail that is made."""
        with self._lock:
            found = self._ready()
            if found.later is not None:
                assert isinstance(found.thumbnail, Path)
                self._prepared = self._prepare(found.thumbnail.parent, found.later, silent)._ready()
            return self._ready()

    @property
    def thumbnail(self) -> NDArray[Any]:
        """A small version of the image: area averages weighted by validity, (h, w, channels), of ``dtype``.

        Raises
        ------
        BadInput : the file has no random access, and ``prepare`` was not called.
        DamagedFile : the file, or the saved thumbnail, cannot be read.
        """
        with self._lock:
            if "thumbnail" not in self._cache:
                saved = self._with_thumbnail().thumbnail
                self._cache["thumbnail"] = saved if isinstance(saved, np.ndarray) else read_thumbnail(saved)
            return self._cache["thumbnail"]

    @property
    def saved_thumbnail(self) -> Path | None:
        """The file that ``prepare`` saved the thumbnail in; None if the thumbnail is in memory."""
        saved = self._with_thumbnail().thumbnail
        return None if isinstance(saved, np.ndarray) else saved

    def without_metadata(self) -> Source:
        """The same pixels without the metadata for the output, which may be large, and which no task needs
        that reads pixels: what is sent to workers with every task."""
        info = Info(nodata=self.info.nodata, validity=self.info.validity)
        return self._like(replace(self._facts, info=info), self._prepared)

    @property
    def thumbnail_origin(self) -> str:
        """A phrase that says from what the thumbnail was made, such as "one streamed pass"."""
        return self._with_thumbnail().origin

    @property
    def stretch(self) -> Ranges | None:
        """(low, high) of each colour band, the values that become 0 and 65535; None without a stretch."""
        return self._ready().ranges if self._stretched else None

    def read(self, box: Box) -> NDArray[Any]:
        """The pixels, (h, w, channels), of ``dtype``, of a box inside the image.

        Raises
        ------
        ValueError : the box is empty or reaches beyond the image.
        BadInput : the file has no random access, and ``prepare`` was not called.
        DamagedFile : the box cannot be decoded, or the file was changed; wrong pixels are never returned.
        """
        if box.area == 0 or not Box(0, 0, *self.shape).contains(box):
            raise ValueError(f"{box} does not lie inside an image of {self.shape[1]} x {self.shape[0]}")
        try:
            return self._read(box)
        finally:
            # Also after an error: if the file was changed, that is the better explanation.
            if self.random_access:
                check_unchanged(self._facts.opener)

    def read_overview(self, box: Box, number: int) -> NDArray[Any]:
        """The same of a box of overview ``number`` of the file, counted from 1; see ``overviews``."""
        try:
            return self._read(box, number)
        finally:
            check_unchanged(self._facts.opener)

    def _read(self, box: Box, number: int = 0) -> NDArray[Any]:
        """The pixels of a box of the image, or of an overview, without the checks of ``read``."""
        reader, finish = self._tools()
        orientation = self._facts.orientation
        whole = self._facts.overviews[number - 1] if number else self._facts.stored
        stored = stored_box(box, whole, orientation)
        out = mapped((*stored.shape, self.channels), self.dtype)

        alike = reader.dtype == out.dtype and reader.colours == self.channels  # grey becomes three channels
        into = getattr(reader, "into", None) if self.stretch is None and alike else None

        def put(cell: Box) -> None:
            place = out[cell.within(stored).slices]
            if into is not None:
                into(cell, number, place)
            else:
                finish(reader.cell(cell, number), place)

        cells = _lattice(stored, reader.cell_shape)
        if len(cells) == 1:
            put(cells[0])
        else:
            for _ in in_order(decoders(), put, cells):
                pass
        return out if orientation == 1 else shown(out, orientation)

    def _tools(self) -> tuple[Reader, Callable[[Samples, NDArray[Any]], None]]:
        """The reader of this process, and a function that writes its samples as pixels into an array."""
        with self._lock:
            if "tools" not in self._cache:
                needs = not self.random_access or self._stretched or self._facts.areas
                prepared = self._ready() if needs or self._prepared else None
                opener = prepared.opener if prepared else self._facts.opener
                ranges = prepared.ranges if prepared else None
                self._cache["tools"] = reader_of(opener), finisher(ranges, self.file_dtype, self.colours)
            return self._cache["tools"]

    @property
    def array(self) -> zarr.Array[Any]:
        """The image as a read-only zarr array, (height, width, channels).

        Its chunks are (1024, 1024, channels) and are read when they are asked for.
        """
        from urst_tiles.source.zarr_view import as_zarr

        return as_zarr(self)


def _lattice(box: Box, cell: tuple[int, int]) -> list[Box]:
    """The parts of a box in each cell of a lattice with origin (0, 0); ``cell`` is (height, width)."""
    return [
        Box(y, x, y + cell[0], x + cell[1]).clip(box)
        for y in range(box.y0 // cell[0] * cell[0], box.y1, cell[0])
        for x in range(box.x0 // cell[1] * cell[1], box.x1, cell[1])
    ]
