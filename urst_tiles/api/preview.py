"""The stylised thumbnail of an image, which shows within seconds what the whole will look like from afar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.opening import open_input, tell_choice
from urst_tiles.api.stylize import freeze
from urst_tiles.engine.block import stylize_block
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.statistics import measure_thumbnail
from urst_tiles.nets.keep_colours import ColourStatistics
from urst_tiles.options import Options
from urst_tiles.planning import make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import array_source
from urst_tiles.source.windows import WindowReader


def preview(
    input: str | os.PathLike[str],
    style: StyleArgument,
    options: Options | None = None,
    *,
    folder: Path,
    progress: Progress = silent,
    **changes: Any,
) -> NDArray[np.uint8]:
    """Stylise the thumbnail of an image, which shows within seconds what the whole will look like from afar.

    Parameters
    ----------
    input, style, options, changes, progress : as for `stylize`.
    folder : an existing folder for temporary files; the caller removes it.

    Returns
    -------
    uint8, (h, w, 3), or (h, w, 4) with an alpha channel if the image has invalid pixels.

    Raises
    ------
    UrstError : as `stylize`.
    """
    options = Options.of(options, changes)
    source = open_input(input, options)
    tell_choice(source)
    source = source.prepare(folder, thumbnail=options.thumbnail, progress=progress)
    prepare_mask(options, source.shape, folder, progress)
    small = array_source(source.thumbnail)
    recipe = recipe_of(style, options)
    field = field_of(recipe, source.shape, options, folder)
    recipe = recipe.over(field and field.resized(*small.shape))
    chosen = Options.of(options, {"dtype": "uint8", "compression": "deflate"})
    plan = make_plan(small, recipe, build_style(recipe), chosen)
    if recipe.preserve_color == "coral":
        recipe = recipe.in_colours(measure_thumbnail(ColourStatistics(), source)["colours"])
    subject = build_style(recipe)
    found = measure_thumbnail(
        subject, source, device=plan.device, threads=plan.threads, whole=plan.measure_at_once
    )
    net = freeze(recipe, found)
    kernel = Kernel(net, device=plan.device, precision=plan.precision, out_dtype=np.dtype("uint8"))
    return stylize_block(kernel, WindowReader(small), plan, plan.grid.image)
