"""The stylised thumbnail of an image, which shows within seconds what the whole will look like from afar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles.api.look import with_looks
from urst_tiles.api.measuring import freeze
from urst_tiles.api.opening import open_input, tell_choice, tell_part
from urst_tiles.api.view import open_view
from urst_tiles.engine.block import rescale, stylize_block
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.seen import seen_by
from urst_tiles.engine.statistics import measure_thumbnail
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.nets.keep_colours import ColourStatistics
from urst_tiles.options import Options
from urst_tiles.planning import make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe, StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import Source, array_source
from urst_tiles.source.levels import windows_of
from urst_tiles.source.part import cut_out, part_of


def preview(
    input: str | os.PathLike[str],
    style: StyleArgument = None,
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
    if options.stains or options.plain_bands:
        raise BadInput("a preview shows red, green and blue: leave --stains out, and take three --bands")
    source = open_input(input, options)
    tell_choice(source)
    tell_part(source, options)
    source = source.prepare(folder, thumbnail=options.thumbnail, progress=progress)
    prepare_mask(options, source, folder, progress)
    recipe = with_looks(recipe_of(style, options), source, options)
    recipe = recipe.over(field_of(recipe, source, options, folder))
    shown, of_shown, unpainted = source, recipe, source.unpainted
    part = part_of(source, options.region, options.bbox, options.bbox_crs)
    if part is not None:
        shown = cut_out(source, part.box).prepare(folder, thumbnail=options.thumbnail, progress=progress)
        of_shown = recipe.of_part(part.box)
    if options.statistics_of == "region":
        source, recipe = shown, of_shown
    small = array_source(shown.thumbnail)
    chosen = Options.of(options.without_part(), {"dtype": "uint8", "compression": "deflate", "format": "tif"})
    if _on_levels(recipe, options, part is not None):
        view = open_view(small, style, chosen, folder=folder, progress=progress)
        return _unpainted(view.pixels(view.plan.grid.image), small, unpainted)
    return _unpainted(_painted(source, recipe, small, of_shown, chosen), small, unpainted)


def _on_levels(recipe: Recipe, options: Options, of_part: bool) -> bool:
    """Whether a preview is painted on levels, as a job would paint the thumbnail: its coarsest strokes are
    then as large as those of the whole. They are not where they have a size of their own; and a field, or the
    statistics of the whole for a part of it, belong to the whole image."""
    paints = nets.family(recipe.model).paints_levels
    return paints and options.stroke is None and recipe.field is None and not of_part


def _painted(
    measured: Source, recipe: Recipe, small: Source, of_small: Recipe, options: Options
) -> NDArray[np.uint8]:
    """The thumbnail ``small`` in the style of ``of_small``, by the statistics of ``measured`` in that of
    ``recipe``; the two differ in the field alone, which is seen from one and the other.
    """
    plan = make_plan(small, of_small, build_style(of_small), options)
    if recipe.preserve_color == "coral":
        colours = measure_thumbnail(ColourStatistics(), measured)["colours"]
        recipe, of_small = recipe.in_colours(colours), of_small.in_colours(colours)
    found = None
    if not recipe.look:
        found = measure_thumbnail(
            build_style(recipe), measured, device=plan.device, threads=plan.threads,
            whole=plan.measure_at_once,
        )  # fmt: skip
    field = of_small.field
    net = freeze(of_small.over(field and field.resized(*small.shape)), found)
    kernel = Kernel(net, device=plan.device, precision=plan.precision, out_dtype=np.dtype("uint8"))
    return stylize_block(kernel, windows_of(seen_by(recipe.model, small)), plan, plan.grid.image)


def _unpainted(painted: NDArray[np.uint8], small: Source, unpainted: bool) -> NDArray[np.uint8]:
    """A picture of the thumbnail ``small`` whose invalid pixels have its colours, if they are to be left
    ``unpainted``."""
    if unpainted:
        pixels = rescale(small.read(Box(0, 0, *small.shape)), "uint8")
        np.copyto(painted[..., :3], pixels[..., :3], where=pixels[..., 3:] == 0)
    return painted
