"""Many files as one image: an opener over openers, and its reader.

The files lie on one lattice of pixels (`urst_tiles.source.placing`). Pixels that no file covers are invalid.
Where files overlap, the valid pixels of a later one lie over those of an earlier one, as in `gdalbuildvrt`.
A process has at most ``MOST_OPEN`` of the files open; what was not used for the longest time is closed first.
"""

from __future__ import annotations

import pickle
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.source.identity import Content, Stamp, content_of, stamps_of
from urst_tiles.source.openers import Opener, Reader, bands_of, masked
from urst_tiles.source.survey import fingerprint_of
from urst_tiles.source.tiff import TiffReader
from urst_tiles.source.valid import Samples, full, weight_dtype
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.georeference import NO_BANDS, PamBands

#: So many of the files are open at the same time in a process, each with its mask.
MOST_OPEN = 64

#: Side of the cells in pixels that are read at once: neighbouring cells decode the tiles on their border
#: twice, since files begin anywhere.
CELL = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a mosaic.

    Attributes
    ----------
    path, sidecars, mask : as in `TiffOpener`.
    box : y0, x0, y1, x1 in the mosaic.
    opener : opens it; None for a TIFF that the choice of the mosaic, the three attributes above and ``pam``
        open.
    stamps, fingerprint : size, times and inode, and the digest of samples, of the file and its sidecars when
        the mosaic was opened.
    pam : what GDAL's file beside it says about the bands.
    """

    path: Path
    sidecars: tuple[Path, ...]
    mask: Path | None
    box: tuple[int, int, int, int]
    opener: Opener | None
    stamps: tuple[Stamp | None, ...]
    fingerprint: bytes
    pam: PamBands = NO_BANDS

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and its sidecars."""
        return (self.path, *self.sidecars)

    def open(self, choice: Choice) -> Reader:
        """Make the reader of the file, whose content was checked."""
        if self.opener is not None:
            return self.opener.open()
        return masked(TiffReader(self.path, choice, self.pam), self.mask)


@dataclass(frozen=True)
class Traits:
    """What the reader of a mosaic needs to know besides its files.

    Attributes
    ----------
    shape, dtype, colours, has_valid, alone : as in `Reader`; ``dtype`` by its name.
    factors : how much smaller each overview is, as 2, 4 and 8.
    most_open : how many of the files may be open at the same time.
    """

    shape: tuple[int, int]
    dtype: str
    colours: int
    has_valid: bool
    factors: tuple[int, ...]
    alone: bool
    most_open: int = MOST_OPEN

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each overview."""
        return tuple(reduced_shape(self.shape, factor) for factor in self.factors)


@dataclass(frozen=True, eq=False)
class MosaicOpener:
    """Opens many files as one image. It is pickled without unpacking: a worker has its files read once.

    Attributes
    ----------
    key : tells the files, their content and their places from all others.
    choice : the page, and the channels or bands, that the user chose in each file.
    look : what the reader tells.
    packed : the members, and the content of all files when the job began.
    content_digest : the digest of this content; None outside of jobs.
    """

    key: str
    choice: Choice
    look: Traits
    packed: bytes = field(repr=False)
    content_digest: str | None = None
    many: ClassVar[bool] = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MosaicOpener) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    @property
    def _id(self) -> tuple[object, ...]:
        return self.key, self.choice, self.look, self.content_digest, self.packed  # which names the files

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_unpacked", "files")}

    @cached_property
    def _unpacked(self) -> tuple[tuple[Member, ...], Content | None]:
        members, content = pickle.loads(zlib.decompress(self.packed))
        return members, content

    @property
    def members(self) -> tuple[Member, ...]:
        """The files in the order in which they lie on each other."""
        return self._unpacked[0]

    @property
    def content(self) -> Content | None:
        """The whole content of the files when the job began; None outside of jobs."""
        return self._unpacked[1]

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files, each followed by its sidecars."""
        return tuple(path for member in self.members for path in member.files)

    @classmethod
    def of(
        cls,
        key: str,
        choice: Choice,
        look: Traits,
        members: tuple[Member, ...],
        content: Content | None = None,
    ) -> MosaicOpener:
        """The opener of these members, whose content may be known."""
        packed = zlib.compress(pickle.dumps((members, content), pickle.HIGHEST_PROTOCOL), 1)
        made = cls(key, choice, look, packed, None if content is None else content.digest)
        made.__dict__["_unpacked"] = members, content  # as they are here, in this process
        return made

    def with_content(self, content: Content) -> MosaicOpener:
        """This opener, which knows the whole content that its files had when the job began."""
        return MosaicOpener.of(self.key, self.choice, self.look, self.members, content)

    def check(self) -> None:
        """Raise DamagedFile if the content of a file has changed since the source was opened."""
        if self.content is not None:
            if content_of(self.files, self.content).digest != self.content.digest:
                raise DamagedFile(
                    f"{self._changed()} was changed while in use; put the old file back, or start anew"
                )
            return
        for member in self.members:
            self.check_member(member)

    def check_member(self, member: Member) -> None:
        """Raise DamagedFile if samples of one file are not what they were when the source was opened."""
        if stamps_of(member.files) != member.stamps and (
            fingerprint_of(member.files, len(self.members)) != member.fingerprint
        ):
            raise DamagedFile(
                f"{member.path} was changed while in use; put the old file back, or start anew with the new"
                " one"
            )

    def _changed(self) -> Path:
        """A file whose samples, or whose stamps, are not what they were."""
        changed = [m for m in self.members if stamps_of(m.files) != m.stamps]
        count = len(self.members)
        return next(
            (m for m in changed if fingerprint_of(m.files, count) != m.fingerprint),
            (changed or self.members)[0],
        ).path

    def open(self) -> Reader:
        """Make the reader; the files are opened when they are needed."""
        return MosaicReader(self)

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """Yield (box, samples) for bands of ``rows`` rows and the full width, from top to bottom."""
        yield from bands_of(self.open(), rows)
        self.check()


class MosaicReader:
    """Reads the samples of many files as those of one image. Several threads may use it at the same time."""

    cell_shape = (CELL, CELL)

    def __init__(self, opener: MosaicOpener) -> None:
        look = opener.look
        self.shape, self.dtype, self.colours = look.shape, np.dtype(look.dtype), look.colours
        self.has_valid, self.levels, self.alone = look.has_valid, look.levels, look.alone
        self._factors = look.factors
        self._boxes = np.array([member.box for member in opener.members], np.int64)
        self._open = OpenFiles(opener)

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box of the image (level 0), or of overview ``level - 1``; as `Reader.cell`."""
        colour = np.zeros((*box.shape, self.colours), self.dtype)
        weight = np.zeros(box.shape, weight_dtype(self.dtype)) if self.has_valid else None
        self._lay_all(box, level, colour, weight)
        return Samples(colour, weight)

    @property
    def into(self) -> Callable[[Box, int, NDArray[Any]], None] | None:
        """What reads a box of a level into an array (h, w, colours), without an array of its size in between;
        None where pixels may be invalid."""
        return None if self.has_valid else lambda box, level, out: self._lay_all(box, level, out, None)

    def _lay_all(self, box: Box, level: int, colour: NDArray[Any], weight: NDArray[Any] | None) -> None:
        """Lay the pixels of all files that a box of a level touches over its colours and weights."""
        factor = 1 if level == 0 else self._factors[level - 1]
        boxes = self._boxes if factor == 1 else _reduced(self._boxes, factor)
        for number in _touching(boxes, box):
            whole = Box(*boxes[number].tolist())
            shared = whole.clip(box)
            part, at = shared.within(whole), shared.within(box)
            self._open.read(
                number, partial(_lay, box=part, factor=factor, at=at, colour=colour, weight=weight)
            )


def _touching(boxes: NDArray[np.int64], box: Box) -> list[int]:
    """The numbers of the boxes, (n, 4), that share pixels with a box, in their order."""
    rows = np.flatnonzero((boxes[:, 0] < box.y1) & (boxes[:, 2] > box.y0))
    near = boxes[rows]
    return [int(n) for n in rows[(near[:, 1] < box.x1) & (near[:, 3] > box.x0)]]


def _reduced(boxes: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """The boxes, (n, 4), in an overview: each has the size of the file's own overview."""
    start, size = boxes[:, :2] // factor, boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([start, start - (-size // factor)], axis=1)


def _read(reader: Reader, box: Box, factor: int) -> Samples:
    """Samples of a box of a file, reduced by ``factor``: from its overview of that size, or where it has none
    the first of each group of pixels."""
    if factor == 1:
        return reader.cell(box)
    size = reduced_shape(reader.shape, factor)
    if size in reader.levels:
        return reader.cell(box, reader.levels.index(size) + 1)
    whole = Box(box.y0 * factor, box.x0 * factor, box.y1 * factor, box.x1 * factor)
    colour, weight = reader.cell(whole.clip(Box(0, 0, *reader.shape)))
    return Samples(colour[::factor, ::factor], None if weight is None else weight[::factor, ::factor])


def reduced_shape(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """(height, width) of the overview of an image at 1 / ``factor`` of its size, rounded up."""
    return ceil_div(shape[0], factor), ceil_div(shape[1], factor)


def _lay(
    reader: Reader, box: Box, factor: int, at: Box, colour: NDArray[Any], weight: NDArray[Any] | None
) -> None:
    """Lay the valid pixels of a box of a file, reduced by ``factor``, over a box ``at`` of ``colour`` and
    ``weight``."""
    into = getattr(reader, "into", None) if factor == 1 and weight is None else None
    if into is not None and reader.dtype == colour.dtype:
        into(box, 0, colour[at.slices])
    else:
        _lay_samples(_read(reader, box, factor), at.slices, colour, weight)


def _lay_samples(
    samples: Samples, at: tuple[slice, slice], colour: NDArray[Any], weight: NDArray[Any] | None
) -> None:
    """Lay the valid pixels of ``samples`` over a part of ``colour`` and ``weight``."""
    if samples.weight is None or (samples.weight > 0).all():
        colour[at] = samples.colour
        if weight is not None:
            weight[at] = full(weight.dtype) if samples.weight is None else samples.weight
        return
    seen = samples.weight > 0
    np.copyto(colour[at], samples.colour, where=seen[..., None])
    if weight is not None:
        np.copyto(weight[at], samples.weight, where=seen)


class OpenFiles:
    """The files of a mosaic that are open in this process."""

    def __init__(self, opener: MosaicOpener) -> None:
        self._opener, self._members = opener, opener.members
        self._lock = threading.Condition()
        self._readers: OrderedDict[int, Reader | None] = OrderedDict()  # None while it is being opened
        self._users: dict[int, int] = {}
        self._checking = threading.Lock()
        self._masked = any(member.mask is not None for member in self._members)
        self._seen = self._stamps()

    def _stamps(self) -> dict[int, tuple[Stamp | None, ...]]:
        """The stamps of each member: those when the job began, or when the source was opened."""
        content = self._opener.content
        if content is None:
            return {number: member.stamps for number, member in enumerate(self._members)}
        found, at = {}, 0
        for number, member in enumerate(self._members):
            count = len(member.files)
            found[number], at = content.stamps[at : at + count], at + count
        return found

    def read(self, number: int, use: Callable[[Reader], None]) -> None:
        """Have ``use`` read from the reader of a file, which stays open until then.

        Raises
        ------
        DamagedFile : the file cannot be opened, or its content has changed, before or while it was read.
        """
        try:
            reader = self._take(number)
            try:
                use(reader)
            finally:
                del reader  # else the file would be open for as long as this frame
                self._release(number)
        finally:
            self._check(number)  # also after an error: if the file was changed, that explains it better

    def _take(self, number: int) -> Reader:
        with self._lock:
            while number in self._readers and self._readers[number] is None:
                self._lock.wait()
            found = self._readers.get(number)
            if found is not None:
                self._users[number] = self._users.get(number, 0) + 1
                self._readers.move_to_end(number)
                return found
            self._make_room(number)
            self._readers[number], self._users[number] = None, 1
        try:
            self._check(number)
            made = self._members[number].open(self._opener.choice)
        except BaseException:
            with self._lock:
                del self._readers[number], self._users[number]
                self._lock.notify_all()
            raise
        with self._lock:
            self._readers[number] = made
            self._lock.notify_all()
        return made

    def _make_room(self, number: int) -> None:
        """Close what was not used for the longest time until one more file may be opened."""
        most = self._opener.look.most_open
        while True:
            count = self._count((*self._readers, number))
            idle = next((one for one in self._readers if not self._users.get(one)), None)
            if count <= most or (idle is None and not self._readers):
                return
            if idle is None:
                self._lock.wait()
                continue
            del self._readers[idle]
            self._users.pop(idle, None)

    def _count(self, numbers: Collection[int]) -> int:
        """How many files of these members stay open."""
        if not self._masked:
            return len(numbers)
        return sum(1 if self._members[number].mask is None else 2 for number in numbers)

    def _release(self, number: int) -> None:
        with self._lock:
            self._users[number] -= 1
            self._lock.notify_all()

    def _check(self, number: int) -> None:
        """Raise DamagedFile if the content of a file has changed; cheap while it looks the same."""
        member = self._members[number]
        now = stamps_of(member.files)
        if now == self._seen[number]:
            return
        if self._opener.content is None:
            self._opener.check_member(member)
            self._seen[number] = now
            return
        with self._checking:  # one digest covers all files, so all of them are read
            if stamps_of(member.files) != self._seen[number]:
                present = {n: stamps_of(one.files) for n, one in enumerate(self._members)}
                self._opener.check()
                self._seen = present
