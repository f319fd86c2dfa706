"""The levels of a picture that is painted from coarse to fine.

At each level a network reads more than the image: noise, and the picture that was painted at the level above,
which has half as many pixels each way. All of it is read by windows, from the level's own position on, so a
network that paints levels stays local, and tiles fit together as those of any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import mapped
from urst_tiles.progress import Progress, silent
from urst_tiles.source.facts import Facts
from urst_tiles.source.fours import even, sums_of_four, wide
from urst_tiles.source.level import reduced
from urst_tiles.source.openers import Opener, SpoolOpener
from urst_tiles.source.source import Source
from urst_tiles.source.spool import MARK, Shape, spool
from urst_tiles.source.valid import Samples
from urst_tiles.source.windows import WindowReader
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.metadata import Info, Tag


@dataclass(frozen=True)
class PaintedLevel:
    """A level of a picture that is painted from coarse to fine. It can be pickled.

    Attributes
    ----------
    source : the image at this level, prepared.
    number : how often the image was halved for it; 0 is full resolution.
    above : the picture painted at the level above, prepared; None for the coarsest level.
    seed : of the noise.
    """

    source: Source
    number: int
    above: Source | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels of this level."""
        return self.source.shape

    @property
    def thumbnail(self) -> NDArray[Any]:
        """The thumbnail of the image at this level."""
        return self.source.thumbnail

    def without_metadata(self) -> PaintedLevel:
        """The same level for the tasks of a job, see `Source.without_metadata`."""
        above = None if self.above is None else self.above.without_metadata()
        return replace(self, source=self.source.without_metadata(), above=above)

    def windows(self) -> LevelReader:
        """A reader of the windows of this level."""
        return LevelReader(self)


def windows_of(image: Source | PaintedLevel) -> WindowReader:
    """The reader of the windows that a network sees of an image, or of a level of it."""
    return image.windows() if isinstance(image, PaintedLevel) else WindowReader(image)


def extra_channels(levels: int) -> int:
    """How many channels a window has besides those of the image, at a level that has ``levels - 1`` above
    itself: noise, and three of the picture of the level above. 0 levels are an image that is read alone."""
    return 0 if levels == 0 else 1 if levels == 1 else 4


class LevelReader(WindowReader):
    """Reads the windows of a level: the image's colours, noise, and the picture of the level above, each of
    its pixels four times; at last the validity of the image."""

    def __init__(self, level: PaintedLevel) -> None:
        super().__init__(level.source)
        self._level = level
        self._above = None if level.above is None else WindowReader(level.above)

    def read(self, box: Box) -> NDArray[np.generic]:
        """The pixels, (h, w, 4 or 7, and 1 more for validity), of ``dtype``, of a box inside the image."""
        image = super().read(box)
        extra = extra_channels(1 if self._above is None else 2)
        out = mapped((*box.shape, image.shape[-1] + extra), self.dtype)
        guide = None if self._above is None else self._guide(box)
        for k in range(3):  # one band after the other: all at once takes five times as long (measured)
            out[..., k] = image[..., k]
            if guide is not None:
                out[..., 4 + k] = guide[..., k]
        out[..., 3] = noise(box, self._level.number, self._level.seed, self.dtype)
        if self.channels == 4:
            out[..., -1] = image[..., 3]
        return out

    def _guide(self, box: Box) -> NDArray[np.generic]:
        """The picture of the level above at ``box`` of this level, (h, w, 3)."""
        assert self._above is not None
        coarse = box.half()
        pixels = self._above.read(coarse)[..., :3].repeat(2, axis=0).repeat(2, axis=1)
        y, x = box.y0 - 2 * coarse.y0, box.x0 - 2 * coarse.x0
        return pixels[y : y + box.shape[0], x : x + box.shape[1]]


#: The factors of the noise's hash (C. Wellons, "Hash Prospector", github.com/skeeto/hash-prospector), and
#: what is added to a column so that its hash is not that of the row of the same number.
FACTORS, COLUMN = (0x21F0AAAD, 0x735A2D97), 0x9E3779B9


def noise(box: Box, level: int, seed: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Even noise over the whole range of ``dtype``, (h, w): a hash of position, level and seed.

    It is the same in a window and in the whole, and on every machine.
    """
    key = _mixed(_mixed(np.array([seed & 0xFFFFFFFF], np.uint32)) ^ np.uint32(level))
    rows = np.arange(box.y0, box.y1, dtype=np.int64).astype(np.uint32)
    columns = np.arange(box.x0, box.x1, dtype=np.int64).astype(np.uint32) + np.uint32(COLUMN)
    bits = _mixed(_mixed(rows ^ key)[:, None] ^ _mixed(columns)[None])
    return (bits >> np.uint32(32 - 8 * dtype.itemsize)).astype(dtype)


def _mixed(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A permutation of the numbers of 32 bits that leaves no pattern."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(FACTORS[0])
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(FACTORS[1])
    return x ^ (x >> np.uint32(15))


# The image at the level above


@dataclass(frozen=True)
class Halves:
    """The pixels of a prepared source at half its size, from top to bottom."""

    source: Source

    def check(self) -> None:
        """Check nothing: reading the source checks that its file has not changed."""

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        """Yield (box, samples) for bands of ``rows`` rows and the full width."""
        for box, pixels in bands(self.source, 2 * rows):
            yield box.half(), as_samples(halved(pixels))


def bands(source: Source, rows: int) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Yield (box, pixels) of a prepared source for bands of ``rows`` rows and the full width."""
    height, width = source.shape
    for y in range(0, height, rows):
        box = Box(y, 0, min(y + rows, height), width)
        yield box, source.read(box)


def as_samples(pixels: NDArray[Any]) -> Samples:
    """Pixels (h, w, 3 or 4) as colours and, of four channels, the weight of each."""
    return Samples(pixels[..., :3], pixels[..., 3] if pixels.shape[2] == 4 else None)


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Means of 2 x 2 pixels, uint8 or uint16: (h, w, 3 or 4) -> (ceil(h / 2), ceil(w / 2), 3 or 4).

    A fourth channel is the weight of a pixel in the mean of the colours. A pixel that is valid in its
    smallest part stays valid. The last row or column of an odd image counts twice.
    """
    h, w, channels = pixels.shape
    if channels == 3:
        return _rounded_mean(even(pixels))
    cells = even(pixels).reshape(ceil_div(h, 2), 2, ceil_div(w, 2), 2, channels).astype(np.float32)
    weight = cells[..., 3:]
    total = weight.sum((1, 3))
    colour = (cells[..., :3] * weight).sum((1, 3)) / np.maximum(total, 1)
    share = np.where(total > 0, np.maximum(np.rint(total / 4), 1), 0)
    return np.concatenate([np.rint(colour), share], -1).astype(pixels.dtype)


def _rounded_mean(pixels: NDArray[Any]) -> NDArray[Any]:
    """The means of 2 x 2 unsigned pixels, halves rounded to even as ``np.rint`` does, in integers: a tenth of
    the time of the formula in floats (measured)."""
    total = sums_of_four(pixels, wide(pixels.dtype))
    total += 1 + ((total >> 2) & 1)
    total >>= 2
    return total.astype(pixels.dtype)


def shape_above(source: Source) -> Shape:
    """The shape of the copy that `level_above` makes."""
    shape = (ceil_div(source.shape[0], 2), ceil_div(source.shape[1], 2))
    return Shape(shape, 3, source.dtype.name, source.channels == 4)


def level_above(source: Source, folder: Path, progress: Progress = silent) -> Source:
    """The image at half its size, as a copy in ``folder``, which is made if it does not exist.

    Parameters
    ----------
    source : a prepared source.
    folder : the path of the copy, a spool, in a folder that exists.
    progress : called with the stage "halving" and numbers of pixels.

    Raises
    ------
    DoesNotFit, DiskFull, DamagedFile : as `spool`.
    """
    what, halves = shape_above(source), Halves(source)
    spool(folder, what, halves.stream(what.rows), lambda _, done, total: progress("halving", done, total))
    return source_above(source, SpoolOpener(folder, what, halves), what.reader_bytes)


def source_above(source: Source, opener: Opener, reader_bytes: int) -> Source:
    """The image at half its size, whose pixels ``opener`` gives; the same whoever has them.

    ``reader_bytes`` is the memory that reading takes at most, besides the arrays that are returned.
    """
    said = f"half of {source.fingerprint} {source.stretch}"
    said += "".join(f" {area.fingerprint}" for area in source.areas)
    geo = reduced(source.info, 2, 2).geo
    above = _image(source.path, shape_above(source), said, geo, opener, reader_bytes)
    return Source(replace(above, halvings=source.halvings + 1))


def picture_of(source: Source, opener: Opener) -> Source:
    """The picture that is painted of an image, without validity and in the dtype of the image; ``opener``
    gives its pixels."""
    what = Shape(source.shape, 3, source.dtype.name, False)
    return Source(_image(source.path, what, f"picture of {source.fingerprint}", (), opener, 0))


def _image(
    path: Path, what: Shape, said: str, geo: tuple[Tag, ...], opener: Opener, reader_bytes: int
) -> Facts:
    return Facts(
        path=path,
        info=Info(validity="alpha" if what.has_valid else "none", geo=geo),
        fingerprint=sha256(said.encode()).hexdigest(),
        stored=what.shape,
        orientation=1,
        choice=Choice(),
        told="",
        colours=3,
        file_dtype=what.dtype,
        has_valid=what.has_valid,
        overviews=(),
        reader_bytes=reader_bytes,
        spooling_bytes=0,
        opener=opener,
        random_access=True,
        stretched=False,
    )


# The picture of the level above, where the job folder is on an object store


@dataclass(frozen=True)
class Nothing:
    """Stands for a file that is gone, from which a spool cannot be made again."""

    folder: Path

    def check(self) -> None:
        raise DamagedFile("the picture that it is a copy of is gone; start the job anew with --overwrite")

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        self.check()
        yield from ()


def keep_picture(picture: Source, folder: Path, source: Source, progress: Progress = silent) -> None:
    """Copy the picture of the level above, prepared, into the spool ``folder``.

    Parameters
    ----------
    picture : the picture, half as large as ``source``, of the same data type and with as many channels.
    progress : called with the stage "copying" and numbers of pixels.
    """
    what = shape_above(source)
    stream = ((box, as_samples(pixels)) for box, pixels in bands(picture, what.rows))
    spool(folder, what, stream, lambda _, done, total: progress("copying", done, total))


def is_kept(folder: Path) -> bool:
    """Whether `keep_picture` has finished a spool on an object store."""
    return (folder / MARK).exists()


def kept_picture(folder: Path, source: Source) -> Source:
    """The picture of the level above that `keep_picture` has copied, for the level of ``source``."""
    what = shape_above(source)
    said = f"picture above {source.fingerprint} {source.stretch}"
    opener = SpoolOpener(folder, what, Nothing(folder))
    return Source(_image(folder, what, said, (), opener, what.reader_bytes))
