"""Looking at places of a finished picture before it is made: at full scale, with the bytes of the job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles.api.look import with_looks
from urst_tiles.api.measuring import freeze, measure, take_colours
from urst_tiles.api.opening import open_input
from urst_tiles.api.stylize import cluster_of
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
from urst_tiles.recipe import MASK, Recipe, StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import Source
from urst_tiles.source.windows import WindowReader


@dataclass(frozen=True)
class View:
    """An image as `stylize` paints it, of which any box can be had alone; made by `open_view`.

    Attributes
    ----------
    source : the prepared source.
    plan : the plan of the job that would make all of it.
    kernel : the frozen network of that job.
    recipe, moments : what it was frozen from.
    """

    source: Source
    plan: Plan
    kernel: Kernel
    recipe: Recipe
    moments: Mapping[str, Any] | None
    _kernels: dict[tuple[int, int], Kernel] = field(default_factory=dict)

    @cached_property
    def reader(self) -> WindowReader:
        """Reads the windows of the source."""
        return WindowReader(self.source)

    def pixels(self, box: Box) -> NDArray[Any]:
        """The pixels, (h, w, channels), that `stylize` with the same options writes in a box of the image.

        They are those before compression, in the dtype of the plan; ``compression="jpeg"`` and ``"webp"`` do
        not keep them.

        Raises
        ------
        ValueError : the box is empty or reaches beyond the image.
        DamagedFile : the source cannot be decoded there, or was changed.
        """
        return stylize_box(self.kernel, self.reader, self.plan, box)

    def kernel_for(self, shape: tuple[int, int]) -> Kernel:
        """The network for the image resized to (height, width): the same statistics and styles, at the places
        where they are there."""
        laid = self.recipe.field
        if laid is None:
            return self.kernel
        if shape not in self._kernels:
            self._kernels[shape] = _kernel(self.recipe.over(laid.resized(*shape)), self.moments, self.plan)
        return self._kernels[shape]


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
    BadInput : the network paints levels, so that a place needs the pictures of all levels above it.
    UrstError : as `stylize`.
    """
    options = Options.of(options, changes).without_part()
    recipe = recipe_of(style, options)
    _refuse_levels(recipe)
    recipe = with_looks(recipe, source, options)
    recipe = recipe.over(field_of(recipe, source, options, folder))
    plan = make_plan(source, recipe, build_style(recipe), options)
    recipe, moments = _measured(source, recipe, plan, options, folder, progress)
    return View(source, plan, _kernel(recipe, moments, plan), recipe, moments)


def _refuse_levels(recipe: Recipe) -> None:
    if nets.family(recipe.model).paints_levels:
        raise BadInput(
            f"--model {recipe.model} paints a place over the pictures of all levels above it, so no place can"
            " be shown at full scale before they are painted; choose another model, or `urst-tiles stylize`"
        )


def _kernel(recipe: Recipe, moments: Mapping[str, Any] | None, plan: Plan) -> Kernel:
    net = freeze(recipe, moments)
    return Kernel(net, device=plan.device, precision=plan.precision, out_dtype=np.dtype(plan.dtype))


def _measured(
    source: Source, recipe: Recipe, plan: Plan, options: Options, folder: Path, progress: Progress
) -> tuple[Recipe, Mapping[str, Any] | None]:
    """The recipe in its final colours, and the statistics, measured as the plan says; what measuring writes
    is removed."""
    with TemporaryDirectory(dir=folder) as scratch:
        job = Job(Path(scratch) / "job")
        with job.locked():
            job.claim(plan.identity)
            with cluster_of(plan, options, job, progress) as on:
                recipe = take_colours(recipe, source, plan, job, on, progress)
                return recipe, measure(recipe, source, plan, job, on, progress)


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
