"""The overlaps of scenes: each scene is measured once on a lattice, and then every pair that overlaps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.adjustment import Whole
from urst_tiles.api.opening import told
from urst_tiles.errors import DoesNotFit
from urst_tiles.geometry import Box
from urst_tiles.machine import available_memory, trim
from urst_tiles.options import Options
from urst_tiles.overlap import Overlap, compared
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source
from urst_tiles.source.cells import (
    BLOCK,
    CELL_BYTES,
    PIXEL_BYTES,
    CellGrid,
    Cells,
    cells_box,
    lattice_for,
    measured_cells,
)
from urst_tiles.source.saved import npz
from urst_tiles.storage.publish import make_folder, megabytes, publish, remove_dead_attempts

Float = NDArray[np.float64]

#: So many cells of each scene, at equal distances, tell the range of values of all.
SAMPLED = 20_000

#: The range of values lies between these shares of all cells.
RANGE = (0.01, 0.99)

#: Bytes of memory that the solve takes for each pair of scenes, whether they overlap or not.
SOLVE_BYTES = 96

#: How many measured scenes are held in memory while pairs are compared.
HELD = 4


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of scenes. A basemap, if there is one, is the last image.

    Attributes
    ----------
    lattice : the cells in which they were compared.
    whole : the statistics of each image.
    overlaps : those of the pairs that overlap.
    spread : float64, (3,), the range of values, as a fraction of the full range.
    """

    lattice: CellGrid
    whole: Whole
    overlaps: tuple[Overlap, ...]
    spread: Float


def forget(work: Path) -> None:
    """Remove what was measured of scenes, and the folder if nothing else is in it."""
    for path in work.glob("*.npz"):
        path.unlink(missing_ok=True)
    if work.is_dir():
        remove_dead_attempts(work)
        with suppress(OSError):
            work.rmdir()


def measured_scenes(
    sources: Sequence[Source],
    base: int | Source | None,
    *,
    work: Path,
    resolution: float | None,
    options: Options,
    progress: Progress = silent,
) -> Measurements:
    """Measure scenes and their overlaps.

    Parameters
    ----------
    sources, base : the scenes, and the number of the reference, another image, or None.
    work : a folder; a scene that it holds is not measured again.
    resolution : side of a cell in units of the reference system of the reference; None to choose it.

    Raises
    ------
    DoesNotFit : measuring takes more memory than there is.
    BadInput : the resolution is too fine.
    """
    basemap = base if isinstance(base, Source) else None
    first = sources[base] if isinstance(base, int) else basemap or sources[0]
    lattice = lattice_for([*sources, *([basemap] if basemap else [])], first, resolution)
    boxes = [cells_box(one, lattice) for one in sources]
    _check_memory(sources, boxes, options)
    width, height = lattice.side
    told.warning(
        "%d scenes, compared in cells of %.6g x %.6g units on the ground (%.6g x %.6g pixels of %s)",
        len(sources), width, height, lattice.factor, lattice.factor, first.path.name,
    )  # fmt: skip
    make_folder(work)
    saved = []
    for number, source in enumerate(sources):
        saved.append(_measured(source, lattice, work, options))
        progress("measuring scenes", number + 1, len(sources))
    taken = _Taken(saved)
    whole, spread = _wholes(taken, len(sources), basemap is not None)
    pairs = list(_pairs(boxes))
    overlaps = []
    for done, (i, j) in enumerate(pairs, 1):
        overlaps.append(compared(i, j, *taken(i).common(taken(j)), spread))
        progress("comparing overlaps", done, len(pairs))
    if basemap is not None:
        overlaps += _with_basemap(basemap, taken, boxes, lattice, spread, options, progress)
    found = tuple(one for one in overlaps if one is not None)
    trim()
    return Measurements(lattice, whole, found, spread)


def _check_memory(sources: Sequence[Source], boxes: Sequence[Box], options: Options) -> None:
    """Raise DoesNotFit if a scene takes more memory than there is, to be measured or to be compared."""
    cells = max(box.area for box in boxes) * CELL_BYTES * (HELD + 1) + SOLVE_BYTES * len(sources) ** 2
    need = max(source.reader_bytes for source in sources) + BLOCK * BLOCK * PIXEL_BYTES + cells
    room = options.memory or available_memory()
    if need > room:
        raise DoesNotFit(
            f"measuring the overlaps takes {megabytes(need)} of memory, and there are {megabytes(room)};"
            " give a coarser --resolution, or more --memory"
        )


def _measured(source: Source, lattice: CellGrid, work: Path, options: Options) -> Path:
    """The file in which the cells of a scene are saved; it is measured if it does not exist."""
    read = (options.page, options.channels, options.bands, options.level, options.magnification)
    areas = [area.fingerprint for area in source.areas]
    grid = (lattice.base.fingerprint, lattice.factor, options.overviews)
    key = repr((source.fingerprint, source.stretch_text, read, areas, grid))
    path = work / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if not path.exists():
        with _ready(source, options) as ready:
            cells = measured_cells(ready, lattice, overviews=options.overviews)
        box = np.array([cells.box.y0, cells.box.x0, cells.box.y1, cells.box.x1])
        publish(path, npz(box=box, mean=cells.mean, good=cells.good))
    return path


@contextmanager
def _ready(source: Source, options: Options) -> Iterator[Source]:
    """The image, unpacked into a folder of its own if it needs that, to be read at any place."""
    if source.random_access and not source.areas:
        yield source
        return
    with TemporaryDirectory(prefix="urst-tiles-") as folder:
        yield source.prepare(Path(folder), thumbnail=options.thumbnail)


class _Taken:
    """The saved cells of scenes by their numbers, a few of which stay in memory."""

    def __init__(self, saved: Sequence[Path]) -> None:
        self._take = lru_cache(maxsize=HELD)(lambda number: _loaded(saved[number]))

    def __call__(self, number: int) -> Cells:
        found: Cells = self._take(number)
        return found


def _loaded(path: Path) -> Cells:
    with np.load(path, allow_pickle=False) as file:
        return Cells(Box(*file["box"].tolist()), file["mean"], file["good"])


def _wholes(taken: _Taken, count: int, basemap: bool) -> tuple[Whole, Float]:
    """The statistics of each scene, of a basemap none, and the range of values of all scenes."""
    rows, samples = [], []
    for number in range(count):
        cells = taken(number)
        values = cells.mean[cells.good].astype(np.float64)
        some = values if len(values) else np.zeros((1, 3))
        rows.append((float(len(values)), some.mean(0), some.std(0)))
        samples.append(values[:: max(1, len(values) // SAMPLED)])
    if basemap:
        rows.append((0.0, np.zeros(3), np.zeros(3)))
    every = np.concatenate(samples)
    low, high = np.quantile(every if len(every) else np.array([[0.0] * 3, [1.0] * 3]), RANGE, axis=0)
    n, mean, deviation = (np.array(column) for column in zip(*rows, strict=True))
    return Whole(n, mean, deviation), np.maximum(high - low, 1 / 255)


def _pairs(boxes: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """The pairs of scenes whose boxes of cells overlap."""
    ends = np.array([(box.y0, box.x0, box.y1, box.x1) for box in boxes])
    for i in range(len(boxes)):
        y0, x0, y1, x1 = ends[i]
        rest = ends[i + 1 :]
        touch = (rest[:, 0] < y1) & (rest[:, 2] > y0) & (rest[:, 1] < x1) & (rest[:, 3] > x0)
        for j in np.flatnonzero(touch):
            yield i, i + 1 + int(j)


def _with_basemap(
    basemap: Source,
    taken: _Taken,
    boxes: Sequence[Box],
    lattice: CellGrid,
    spread: Float,
    options: Options,
    progress: Progress,
) -> list[Any]:
    """What each scene has in common with a basemap, of which only what lies under that scene is read."""
    found = []
    with _ready(basemap, options) as ready:
        for number, box in enumerate(boxes):
            under = measured_cells(ready, lattice, box, overviews=options.overviews)
            found.append(compared(number, len(boxes), *taken(number).common(under), spread))
            progress("comparing with the reference", number + 1, len(boxes))
    return found
