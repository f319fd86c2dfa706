"""The levels of a painting, each painted only where it is looked at.

A job paints a level as a whole before it begins the one below (`urst_tiles.api.levels`). Here the picture of
a level is an image whose pixels are painted when they are read, by the windows of the job, and so is the
guide of the level below it. So a place at full scale needs a few windows of each level above it; the bytes
are those of the job. What was painted last of each level is remembered, within a limit.

The statistics of a level are measured once, when it is first painted: they need the level above under the
sample of windows that the job measures, and coarse levels are small.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.levels import options_above
from urst_tiles.api.measuring import freeze, in_colours_of_thumbnail
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.sampled import measure_sampled, samples
from urst_tiles.engine.view import stylize_box
from urst_tiles.geometry import Box
from urst_tiles.kept import Kept
from urst_tiles.machine import mapped
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe, field_of, prepare_mask
from urst_tiles.source import Source
from urst_tiles.source.halves import halves_of
from urst_tiles.source.identity import Content
from urst_tiles.source.levels import PaintedLevel, level_above, picture_of, windows_of
from urst_tiles.source.openers import Reader, bands_of
from urst_tiles.source.valid import Samples
from urst_tiles.source.windows import WindowReader

#: How many bytes of painted pixels are remembered of each level.
PAINTED_BYTES = 48 << 20

#: The most pixels of a halved image that is copied; a larger one is halved where it is read.
COPIED_PIXELS = 1 << 26

#: The recipe from which a network is frozen, and the statistics that it is frozen to.
Measured = tuple[Recipe, Mapping[str, Any] | None]


class LiveLevel:
    """A level of a painting, or of a network that paints no levels the painting, of which any place can be
    painted alone. It is measured and frozen when it is first painted.

    Parameters
    ----------
    image : what the windows are read from.
    plan : the plan of the job that would paint all of it.
    recipe : of its network; style images have the colours that they were given as.
    measuring : measures what the network is frozen from.

    Attributes
    ----------
    image, plan, recipe : as above.
    """

    def __init__(
        self, image: Source | PaintedLevel, plan: Plan, recipe: Recipe, measuring: Callable[[], Measured]
    ) -> None:
        self.image, self.plan, self.recipe, self._measuring = image, plan, recipe, measuring
        self._painted: Kept[NDArray[Any]] = Kept(PAINTED_BYTES, lambda pixels: pixels.nbytes)
        self._lock = threading.RLock()
        self._frozen: tuple[Measured, Kernel] | None = None
        self._awaited: Awaited | None = None

    @cached_property
    def reader(self) -> WindowReader:
        """Reads the windows of the level."""
        return windows_of(self.image)

    @property
    def measured(self) -> Measured:
        """The recipe and the statistics, measured on first use."""
        return self.ready()[0]

    @property
    def kernel(self) -> Kernel:
        """The frozen network of the job."""
        return self.ready()[1]

    def ready(self) -> tuple[Measured, Kernel]:
        """Measure and freeze, unless that is done; what comes of it."""
        with self._lock:
            if self._frozen is None:
                measured = self._measuring()
                self._frozen = measured, kernel_of(*measured, self.plan)
            return self._frozen

    def pixels(self, box: Box) -> NDArray[Any]:
        """The pixels, (h, w, channels), that the job of the plan writes in a box of the level."""
        return stylize_box(self.kernel, self.reader, self.plan, box)

    def painted(self, box: Box) -> NDArray[Any]:
        """The same; the cores that were used last are remembered."""
        grid = self.plan.grid
        out = mapped((*box.shape, self.plan.channels), self.plan.dtype)
        for part in box.cells(grid.core):
            core = part.align(grid.core).clip(grid.image)
            made = self._painted.made(core, lambda core=core: self._paint(core))  # type: ignore[misc]
            out[part.within(box).slices] = made[part.within(core).slices]
        return out

    def _paint(self, core: Box) -> NDArray[Any]:
        pixels = np.array(self.pixels(core))  # which is not mapped: there are many small ones
        if self._awaited is not None:
            self._awaited.came(core)
        return pixels

    @contextmanager
    def awaited(self, boxes: list[Box], progress: Progress) -> Iterator[None]:
        """Report meanwhile how many of the cores under ``boxes``, of the level below, are painted."""
        grid = self.plan.grid
        cores = set()
        for box in boxes:
            coarse = box.half().clip(grid.image)
            cores |= {part.align(grid.core).clip(grid.image) for part in coarse.cells(grid.core)}
        missing = {core for core in cores if self._painted.get(core) is None}
        awaited = self._awaited = Awaited(missing, f"painting level 1/{1 << self.plan.level}", progress)
        try:
            yield
        finally:
            self._awaited = None
        awaited.end()

    @cached_property
    def picture(self) -> Source:
        """The picture of the level as an image, painted where it is read; without validity."""
        assert isinstance(self.image, PaintedLevel)
        return picture_of(self.image.source, PictureOpener(self))


class Awaited:
    """Counts how many of some cores have been painted."""

    def __init__(self, cores: set[Box], stage: str, progress: Progress) -> None:
        self._left, self._total, self._stage, self._progress = cores, len(cores), stage, progress

    def came(self, core: Box) -> None:
        """A core has been painted."""
        self._left.discard(core)
        self._progress(self._stage, self._total - len(self._left), self._total)

    def end(self) -> None:
        """All that was needed has been painted."""
        if self._total:
            self._progress(self._stage, self._total, self._total)


class PictureOpener:
    """Opens the picture of a level; it is its reader, too, and as such it has the attributes of `Reader`.

    A process remembers openers (`reader_of`), so this one does not keep the level: the view does.

    Attributes
    ----------
    files : empty, since the pixels come from no file.
    """

    files: ClassVar[tuple[Path, ...]] = ()
    content: ClassVar[None] = None
    many: ClassVar[bool] = False

    def __init__(self, level: LiveLevel) -> None:
        self._level = weakref.ref(level)
        self.shape = self.cell_shape = level.plan.grid.image.shape
        self.dtype, self.colours, self.has_valid = np.dtype(level.plan.dtype), 3, False
        self.levels: tuple[tuple[int, int], ...] = ()
        self.alone = True

    def with_content(self, content: Content) -> PictureOpener:
        """This opener: there is no content to know."""
        return self

    def check(self) -> None:
        """Check nothing: painting reads the image, and that checks its file."""

    def open(self) -> Reader:
        return self

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        return bands_of(self, rows)

    def cell(self, box: Box, level: int = 0) -> Samples:
        painted = self._level()
        assert painted is not None
        return Samples(painted.painted(box), None)


def kernel_of(recipe: Recipe, moments: Mapping[str, Any] | None, plan: Plan) -> Kernel:
    """The network of a recipe, frozen to its statistics, as the plan runs it."""
    net = freeze(recipe, moments)
    return Kernel(net, device=plan.device, precision=plan.precision, out_dtype=np.dtype(plan.dtype))


def is_live(source: Source, plan: Plan) -> bool:
    """Whether the levels of a painting can be painted place by place, to the bytes of the job.

    They cannot where something looks at a whole picture: exact and local statistics do, and so does the fill
    of invalid pixels, from the thumbnail of the picture above. Images of 16 bits are painted as wholes, too.
    """
    plain = source.channels == 3 and source.dtype == np.uint8
    return plain and plan.levels > 1 and plan.statistics == "sampled"


def live_levels(
    source: Source, recipe: Recipe, plan: Plan, options: Options, folder: Path, progress: Progress = silent
) -> tuple[LiveLevel, ...]:
    """The levels of a painting, the finest first, none of which is painted yet.

    The image is halved on the way, which reads all of it once; the copies lie beside its thumbnail, for all
    paintings of the image.

    Parameters
    ----------
    source, recipe, plan, options : the prepared image, and what the job would paint of it.
    folder : a folder for files of this painting; the caller removes it.
    progress : called with the stage "halving"; and later, while a level is measured, with the stage
        "painting level 1/2" and so on, and numbers of windows of that level.

    Raises
    ------
    UrstError : as `stylize`.
    """
    rows = [(source, recipe, plan)]
    copies = source.saved_thumbnail.parent if source.saved_thumbnail else folder
    for _ in range(plan.levels - 1):
        finer, recipe, _ = rows[-1]
        options, finer = options_above(options, finer), _halved(finer, copies, progress)
        recipe = recipe.above()
        place = Path(mkdtemp(dir=folder, prefix="level-")) if options.mask else folder
        recipe = recipe.over(field_of(recipe, finer, options, place))
        prepare_mask(options, finer, place, progress)
        rows.append((finer, recipe, make_plan(finer, recipe, build_style(recipe), options)))
    levels: list[LiveLevel] = []
    for each in reversed(rows):
        levels.append(_level(*each, levels[-1] if levels else None, progress))
    return tuple(reversed(levels))


def _halved(source: Source, folder: Path, progress: Progress) -> Source:
    """The image at half its size: a copy of it in ``folder`` if it is small, else halved where it is read."""
    half = halves_of(source)
    if half.shape[0] * half.shape[1] > COPIED_PIXELS:
        return half
    return level_above(source, folder / f"half-{half.fingerprint[:16]}.zarr", progress)


def _level(
    source: Source, recipe: Recipe, plan: Plan, above: LiveLevel | None, progress: Progress
) -> LiveLevel:
    image = PaintedLevel(source, plan.level, None if above is None else above.picture)

    def measuring() -> Measured:
        coloured = recipe
        if recipe.preserve_color == "coral":
            coloured = in_colours_of_thumbnail(recipe, source)
        style = build_style(coloured)
        windows = [sample.window for sample in samples(style, image.shape, None)]
        with nullcontext() if above is None else above.awaited(windows, progress):
            return coloured, measure_sampled(style, image, device=plan.device, threads=plan.threads)

    return LiveLevel(image, plan, recipe, measuring)


def shown_kernel(level: LiveLevel, as_in: Recipe) -> Kernel | None:
    """The network of a level with the strength and the colours of the finest; None if these are its own."""
    recipe, moments = level.measured
    colours = "luminance" if as_in.preserve_color == "luminance" else "none"
    if (recipe.alpha, recipe.preserve_color) == (as_in.alpha, colours):
        return None
    return kernel_of(replace(recipe, alpha=as_in.alpha, preserve_color=colours), moments, level.plan)
