"""The colours of an image, counted: 8 bits of red, green and blue tell 16.8 million colours apart, no more.

What a point operation measures follows from how often each colour occurs, wherever it does. So an image is
read once, whatever the number of sites, and each site is measured over the colours that occur, each with its
count as the weight. Counts are whole numbers and add up exactly, in any order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray

from urst_tiles.engine.colour_table import COLOURS, PLANE, STRIP, Numbers, Pixels, colours_of
from urst_tiles.engine.site_moments import SiteMoments, usable
from urst_tiles.engine.threads import ONE_THREAD, ComputeThreads
from urst_tiles.errors import DamagedFile
from urst_tiles.field import Everywhere
from urst_tiles.geometry import Box, Grid
from urst_tiles.moments import MemberMoments
from urst_tiles.nets.composition import Subject, composed, measured_sites
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel, windows_of
from urst_tiles.source.windows import WindowReader
from urst_tiles.storage.publish import publish
from urst_tiles.storage.stores import read_file, side_by_side
from urst_tiles.workers.run import Cluster

log = logging.getLogger(__name__)

#: How often each colour occurs, uint32 or float64, (COLOURS,), by its number.
Counts = NDArray[Any]

#: Side in pixels of what is read at a time.
BLOCK = 2048
#: An image of fewer pixels is measured sooner window by window, which takes less memory, too.
FEWEST = 1 << 22
#: The fewest and the most pixels that one task counts, since counts take 64 MiB whatever the number of pixels
#: and none must pass 31 bits; and about how many tasks count a large image.
LEAST, MOST, TASKS = 1 << 27, 1 << 30, 256

#: Memory of the counts of one task, and of the sum of all, with those of one that are added to it.
COUNT_BYTES, SUM_BYTES = 4 * COLOURS, (8 + 4) * COLOURS


def is_counted(source: Source | PaintedLevel, style: Subject) -> TypeGuard[Source]:
    """Whether the source is measured by its counted colours: all follows from them, since the network sees
    one pixel at a time, every pixel has the same style, and the image is red, green and blue of 8 bits."""
    over = composed(style)
    pointwise = over.halo == 0 and over.stride == 1 and over.minimum == 1 and over.reads == 3
    measures = pointwise and bool(measured_sites(style)) and isinstance(over.field, Everywhere)
    if not measures or not isinstance(source, Source):
        return False
    return source.dtype == np.uint8 and source.colours == 3 and prod(source.shape) >= FEWEST


def measuring_passes(style: Subject, source: Source | PaintedLevel) -> int:
    """How many passes over the whole source measure its statistics: one for each site, or one in all."""
    sites = len(measured_sites(style))
    return min(sites, 1) if is_counted(source, style) else sites


class Counter:
    """Counts colours.

    Attributes
    ----------
    counts : uint32, (COLOURS,): how often each colour was seen, by its number.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(COLOURS, np.uint32)
        self._numbers = Numbers()
        self._ones = torch.ones(STRIP, dtype=torch.int32)

    def add(self, rgb: Pixels, valid: NDArray[Any] | None) -> None:
        """Count the pixels ``rgb``, (h, w, 3), that are ``valid``, (h, w); None if all are."""
        counts = torch.from_numpy(self.counts.view(np.int32))
        for place, numbers in self._numbers.of(rgb):
            seen = numbers.ravel() if valid is None else numbers[valid[place] > 0]
            counts.index_add_(0, torch.from_numpy(seen), self._ones[: len(seen)])


def counting_grid(shape: tuple[int, int]) -> Grid:
    """The blocks in which an image is read."""
    return Grid(*shape, core=BLOCK, block=BLOCK)


def stretches(shape: tuple[int, int]) -> list[range]:
    """The numbers of the blocks that each task counts."""
    each = max(1, min(max(prod(shape) // TASKS, LEAST), MOST) // BLOCK**2)
    count = len(counting_grid(shape))
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


def counted(reader: WindowReader, blocks: range) -> NDArray[np.uint32]:
    """How often each colour occurs in some blocks of an image."""
    counter, grid = Counter(), counting_grid(reader.shape)
    for index in blocks:
        counter.add(*reader.padded(grid.block_box(index)))  # type: ignore[arg-type]
    return counter.counts


@dataclass(frozen=True)
class CountPass:
    """The task that counts the colours of a stretch of the image, and publishes them as a file.

    It may be repeated without harm.
    """

    source: Source
    folder: Path

    def path(self, index: int) -> Path:
        """The path of the file of stretch ``index``."""
        return self.folder / f"colours-{index}.zst"

    def __call__(self, index: int) -> None:
        """Count stretch ``index`` and publish the counts."""
        blocks = stretches(self.source.shape)[index]
        counts = counted(windows_of(self.source), blocks)
        publish(self.path(index), bytes(imagecodecs.zstd_encode(counts.tobytes(), level=1)))

    def is_done(self, index: int) -> bool:
        """Whether an earlier run has counted stretch ``index``."""
        try:
            return self.load(index) is not None
        except FileNotFoundError:
            return False
        except DamagedFile as error:
            log.warning("%s, and is made again", error)
            return False

    def load(self, index: int) -> NDArray[np.uint32]:
        """The counts of stretch ``index``.

        Raises
        ------
        FileNotFoundError : the file does not exist.
        DamagedFile : it cannot be read.
        """
        path = self.path(index)
        data = read_file(path)
        try:
            return np.frombuffer(imagecodecs.zstd_decode(data, out=COUNT_BYTES), np.uint32, COLOURS)
        except (RuntimeError, ValueError) as error:
            raise DamagedFile(f"{path} is damaged ({error})") from error


def count_exact(source: Source, folder: Path, cluster: Cluster, progress: Progress) -> Counts:
    """The same counts as those of `count_here`, by tasks on a cluster. Finished stretches are saved in
    ``folder``, and a later call with the same folder does not count them again."""
    task, number = CountPass(source.without_metadata(), folder), len(stretches(source.shape))
    finished = side_by_side(folder, task.is_done, range(number))
    missing = [index for index, is_finished in enumerate(finished) if not is_finished]
    cluster.run_all(task, missing, total=number, progress=partial(progress, "measuring colours"))
    return saved_counts(source, folder)


def saved_counts(source: Source, folder: Path) -> Counts:
    """The counts that `count_exact` saved in ``folder``."""
    task, number = CountPass(source, folder), len(stretches(source.shape))
    return sum_of(map(task.load, range(number)), prod(source.shape))


def count_here(source: Source, progress: Progress = silent) -> Counts:
    """How often each colour occurs in an image, in a plain loop."""
    reader, parts = windows_of(source), stretches(source.shape)

    def each() -> Iterator[NDArray[np.uint32]]:
        for index, blocks in enumerate(parts):
            yield counted(reader, blocks)
            progress("measuring colours", index + 1, len(parts))

    return sum_of(each(), prod(source.shape))


def sum_of(parts: Iterator[NDArray[np.uint32]], pixels: int) -> Counts:
    """The sum of the counts of so many pixels, exact: float64 holds whole numbers up to 2^53."""
    total = next(parts).astype(np.uint32 if pixels < 1 << 32 else np.float64)
    for part in parts:
        np.add(total, part, out=total)
    return total


def saved_paths(source: Source, folder: Path) -> list[Path]:
    """All files that `count_exact` writes into ``folder``."""
    return [CountPass(source, folder).path(index) for index in range(len(stretches(source.shape)))]


def measure_counted(
    style: Subject,
    counts: Counts,
    device: str = "cpu",
    compute: ComputeThreads = ONE_THREAD,
) -> dict[str, MemberMoments]:
    """The moments at every measured site, by name, of an image whose colours were counted: ``counts``,
    (COLOURS,), are the weights of the colours, by their numbers."""
    over = composed(style)
    moments: dict[str, MemberMoments] = {}
    for site in measured_sites(style):
        at_site = SiteMoments(over, site, over.mixtures(moments), device, compute)
        total = MemberMoments({})
        for colours, weights in occurring(counts):
            box = Box(0, 0, 1, len(weights))
            total += at_site.moments(colours, box, box, weights)
        moments[site.name] = usable(over, site, total)
    return moments


def occurring(counts: Counts) -> Iterator[tuple[Pixels, NDArray[np.float64]]]:
    """The colours that occur, as pixels (1, n, 3), and their counts, (n,); those of one blue at a time."""
    for blue, plane in enumerate(counts.reshape(-1, PLANE)):
        found = np.flatnonzero(plane)
        if len(found):
            yield colours_of(found, blue)[None], plane[found].astype(np.float64)
