"""The stylised thumbnail: what the whole image will look like from afar, in seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.stylize import freeze
from urst_tiles.engine.block import stylize_block
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import current_style
from urst_tiles.engine.statistics import measure_thumbnail
from urst_tiles.nets.keep_colours import ColourStatistics
from urst_tiles.options import Options
from urst_tiles.planning import make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import array_source, open_source
from urst_tiles.source.windows import Reader


def preview(
    input: str | os.PathLike[str],
    style: StyleArgument,
    options: Options | None = None,
    *,
    folder: Path,
    progress: Progress = silent,
    **changes: Any,
) -> NDArray[np.uint8]:
    """The stylised thumbnail, uint8 (h, w, 3 or 4): what the whole will look like from afar, in seconds.

    ``folder`` takes a spool and the thumbnail where the file needs them.
    """
    options = Options.of(options, changes)
    source = open_source(
        Path(input), bands=options.bands, stretch=options.stretch, overviews=options.overviews
    )
    source = source.prepare(folder, thumbnail=options.thumbnail, progress=progress)
    prepare_mask(options, source.shape, folder, progress)
    small = array_source(source.thumbnail)
    recipe = recipe_of(style, options)
    field = field_of(recipe, source.shape, options, folder)
    recipe = recipe.over(field and field.resized(*small.shape))
    plan = make_plan(small, recipe, Options.of(options, {"dtype": "uint8", "compression": "deflate"}))
    if recipe.preserve_color == "coral":
        recipe = recipe.in_colours(measure_thumbnail(ColourStatistics(), source)["colours"])
    subject = current_style(recipe)
    found = measure_thumbnail(
        subject, source, device=plan.device, threads=plan.threads, whole=plan.measure_at_once
    )
    net = freeze(recipe, found)
    kernel = Kernel(net, device=plan.device, precision=plan.precision, out_dtype=np.dtype("uint8"))
    return stylize_block(kernel, Reader(small), plan, plan.grid.image)
