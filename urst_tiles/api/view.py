"""Looking at places of a finished picture before it is made: at full scale, with the bytes of the job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from numpy.typing import NDArray

from urst_tiles.api.levels import paint_above
from urst_tiles.api.live_levels import LiveLevel, is_live, kernel_of, live_levels, shown_kernel
from urst_tiles.api.look import with_looks
from urst_tiles.api.measuring import measure, take_colours
from urst_tiles.api.opening import open_input
from urst_tiles.api.strokes import on_levels
from urst_tiles.api.stylize import cluster_of, run_job
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.view import stylize_box
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.job.folder import Job
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.recipe import MASK, Recipe, StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel, windows_of
from urst_tiles.source.scaled import ScaledSource
from urst_tiles.workers.run import Cluster, plain

#: The most pixels of an image whose levels above are painted as wholes before a place is seen, where it
#: cannot be had otherwise.
MOST_PAINTED = 1 << 27

#: The most pixels of the picture of a level that are reduced to one box.
MOST_PIXELS = 1 << 22

#: The side of a core of the windows in which a reduced image is painted, at most.
REDUCED_CORE = 512


@dataclass(frozen=True)
class View:
    """An image as `stylize` paints it, of which any box can be had alone; made by `open_view`.

    Attributes
    ----------
    source : the prepared source.
    levels : what is painted at full scale; and behind it, of a painting whose levels can be painted place by
        place, the coarser levels.
    """

    source: Source
    levels: tuple[LiveLevel, ...]
    _kernels: dict[object, Kernel] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan of the job that would make all of it."""
        return self.levels[0].plan

    def pixels(self, box: Box) -> NDArray[Any]:
        """The pixels, (h, w, channels), that `stylize` with the same options writes in a box of the image.

        They are those before compression, in the dtype of the plan; ``compression="jpeg"`` and ``"webp"`` do
        not keep them. Of a painting with levels the first call measures all of them that are not yet.

        Raises
        ------
        ValueError : the box is empty or reaches beyond the image.
        DamagedFile : the source cannot be decoded there, or was changed.
        """
        return self.levels[0].pixels(box)

    def reduced(self, halvings: int, box: Box) -> NDArray[Any]:
        """About what the picture shows in a box of the image that was halved so often, (h, w, channels).

        A painting with levels is shown as the level of that scale is painted; farther out than the coarsest
        one, as that one, reduced. Of any other network it is the reduced image, painted.
        """
        number = min(halvings, len(self.levels) - 1)
        level, times = self.levels[number], halvings - number
        inside = box.times(1 << times).clip(level.plan.grid.image)
        if number == 0 or (times and inside.area > MOST_PIXELS):
            return self._reduced_image(level, halvings, box)
        kernel = self._shown_kernel(number)
        pixels = (
            level.painted(inside) if kernel is None else _painted(kernel, level.plan, level.image, inside)
        )
        return [pixels, *levels_below(pixels, times)][-1]

    def _shown_kernel(self, number: int) -> Kernel | None:
        """The network that shows a level; None for that which paints it."""
        if number not in self._kernels:
            kernel = shown_kernel(self.levels[number], self.levels[0].recipe)
            if kernel is None:
                return None
            self._kernels[number] = kernel
        return self._kernels[number]

    def _reduced_image(self, level: LiveLevel, halvings: int, box: Box) -> NDArray[Any]:
        """The reduced image, painted by the network of a level: the same statistics and styles, at the places
        where they are there."""
        image: Any = ScaledSource(self.source, halvings)
        recipe, moments = level.measured
        key, kernel = image.shape, level.kernel
        if recipe.field is not None:
            if key not in self._kernels:
                field = recipe.field.resized(*image.shape)
                self._kernels[key] = kernel_of(recipe.over(field), moments, level.plan)
            kernel = self._kernels[key]
        if isinstance(level.image, PaintedLevel):
            above: Any = level.image.above and ScaledSource(level.image.above, halvings)
            image = PaintedLevel(image, halvings, above)
        return _painted(kernel, level.plan, image, box)


def _painted(kernel: Kernel, plan: Plan, image: Source | PaintedLevel, box: Box) -> NDArray[Any]:
    """A box of an image, painted in smaller windows than those of the job of the plan."""
    (height, width), grid = image.shape, plan.grid
    core = max(grid.stride, REDUCED_CORE // grid.stride * grid.stride)
    grid = replace(grid, height=height, width=width, core=core, block=core, tile=core)
    return stylize_box(kernel, windows_of(image), replace(plan, grid=grid), box)


def prepare_input(
    input: str | os.PathLike[str], options: Options, *, folder: Path, progress: Progress = silent
) -> Source:
    """The image of a view, prepared, and with the option ``mask`` the mask; both in ``folder``.

    Raises
    ------
    UrstError : as `stylize`.
    """
    source = open_input(input, options).prepare(folder, thumbnail=options.thumbnail, progress=progress)
    prepare_mask(options, source, folder, progress)
    return source


def mask_file(folder: Path) -> Path:
    """Where `open_view` with this folder finds the mask of its options, unpacked into a ``.npy`` file."""
    return folder / MASK


def open_view(
    source: Source,
    style: StyleArgument,
    options: Options | None = None,
    *,
    folder: Path,
    progress: Progress = silent,
    **changes: Any,
) -> View:
    """Measure the statistics and freeze the style, as `stylize` does before its first block.

    Parameters
    ----------
    source : what `prepare_input` returned for the same options.
    style, options, changes, progress : as for `stylize`.
    folder : the folder that was given to `prepare_input`.

    Raises
    ------
    BadInput : the levels above must be painted as wholes, and the image is too large for that in a view.
    UrstError : as `stylize`.
    """
    options = Options.of(options, changes).without_part()
    recipe = with_looks(recipe_of(style, options), source, options)
    recipe = on_levels(recipe, source, options)
    recipe = recipe.over(field_of(recipe, source, options, folder))
    plan = make_plan(source, recipe, build_style(recipe), options)
    if is_live(source, plan):
        return View(source, live_levels(source, recipe, plan, options, folder, progress))
    _check_size(source, plan)
    with _scratch(folder, keep=plan.levels > 1) as scratch:
        image, coloured, moments = _measured(source, recipe, plan, options, Job(scratch / "job"), progress)
    level = LiveLevel(image, plan, recipe, lambda: (coloured, moments))
    level.ready()
    return View(source, (level,))


def _check_size(source: Source, plan: Plan) -> None:
    """Refuse an image whose levels above would be painted as wholes, if that takes long."""
    h, w = source.shape
    if plan.levels < 2 or h * w <= MOST_PAINTED:
        return
    why = (
        f"--statistics {plan.statistics} measures each level of it as a whole" if plan.statistics != "sampled"
        else "the levels of an image with invalid pixels, or of 16 bits, are painted as wholes"
    )  # fmt: skip
    raise BadInput(
        f"a place of this painting cannot be shown alone: {why}, which is done for images of up to"
        f" {MOST_PAINTED / 1e6:.0f} megapixels, and this one has {h * w / 1e6:.0f}; choose another --model,"
        " or `urst-tiles stylize`"
    )


@contextmanager
def _scratch(folder: Path, keep: bool) -> Iterator[Path]:
    """A folder in ``folder`` that is removed at the end, or with ``keep`` only after an error."""
    scratch = Path(mkdtemp(dir=folder))
    try:
        yield scratch
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            rmtree(scratch, ignore_errors=True)


def _measured(
    source: Source, recipe: Recipe, plan: Plan, options: Options, job: Job, progress: Progress
) -> tuple[Source | PaintedLevel, Recipe, Mapping[str, Any] | None]:
    """What the windows are read from, the levels above painted; the recipe in its final colours; and the
    statistics, measured as the plan says."""
    with job.locked():
        job.claim(plan.identity)
        image = paint_above(job, plan, source, recipe, options, run_job, progress)
        with _tasks(plan, options, job, progress) as on:
            recipe = take_colours(recipe, image, plan, job, on, progress)
            return image, recipe, measure(recipe, image, plan, job, on, progress)


def _tasks(plan: Plan, options: Options, job: Job, progress: Progress) -> AbstractContextManager[Cluster]:
    """Where measuring runs: without dask, which takes time to open, unless tasks read the whole image."""
    return cluster_of(plan, options, job, progress) if plan.passes > 1 else nullcontext(Cluster(plain))


def place(shape: tuple[int, int], at: tuple[int, int], size: tuple[int, int]) -> Box:
    """The part inside an image of a box.

    Parameters
    ----------
    shape : (height, width) of the image.
    at : (x, y) of the upper left corner of the box.
    size : (width, height) of the box.

    Raises
    ------
    BadInput : nothing of the box lies inside the image.
    """
    (x, y), (width, height) = at, size
    box = Box(y, x, y + height, x + width).clip(Box(0, 0, *shape))
    if not box.area:
        raise BadInput(
            f"--at {x},{y} lies outside the image, which is {shape[1]} x {shape[0]} px: x goes from 0 to"
            f" {shape[1] - 1}, y from 0 to {shape[0] - 1}"
        )
    return box
