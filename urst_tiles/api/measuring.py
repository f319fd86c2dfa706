"""The statistics of a job's image, and the network that is frozen to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from urst_tiles import nets
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.sampled import measure_sampled
from urst_tiles.engine.statistics import measure_exact, measure_thumbnail, saved_paths
from urst_tiles.engine.threads import ComputeThreads
from urst_tiles.errors import BadInput
from urst_tiles.job.folder import Job
from urst_tiles.nets import LocalNet
from urst_tiles.nets.keep_colours import ColourRecipe, ColourStatistics
from urst_tiles.options import Options, Statistics
from urst_tiles.plan import Plan
from urst_tiles.planning import resolve_statistics
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel
from urst_tiles.workers.run import Cluster


def statistics_of(model: str) -> tuple[Statistics, ...]:
    """Those values of the option ``statistics`` that a model can be given."""

    def can(statistics: Statistics) -> bool:
        try:
            resolve_statistics(Options(statistics=statistics), model)
        except BadInput:
            return False
        return True

    return tuple(filter(can, get_args(Statistics)))


def measure(
    recipe: Recipe,
    source: Source | PaintedLevel,
    plan: Plan,
    job: Job,
    on: Cluster,
    progress: Progress = silent,
) -> dict[str, Any] | None:
    """The moments of the image at each site of the network, measured as the plan says.

    None if they are those of a look, or if the plan has each window use the statistics of its pixels alone,
    as some benchmarks do.
    """
    if plan.statistics in ("tile", "look"):
        return None
    if plan.statistics == "sampled":
        return measure_sampled(build_style(recipe), source, device=plan.device, threads=plan.threads)
    if plan.statistics == "thumbnail":
        assert isinstance(source, Source)  # networks that paint levels measure no thumbnail
        return measure_thumbnail(
            build_style(recipe),
            source,
            device=plan.device,
            threads=plan.threads,
            whole=plan.measure_at_once,
        )
    job.keep = True
    job.writes(saved_paths(build_style(recipe), source, job.moments, plan.device))
    return measure_exact(
        recipe,
        source,
        job.moments,
        on,
        device=plan.device,
        compute=ComputeThreads.sharing(plan.threads, plan.measuring_threads),
        progress=progress,
    )


def take_colours(
    recipe: Recipe,
    source: Source | PaintedLevel,
    plan: Plan,
    job: Job,
    on: Cluster,
    progress: Progress = silent,
) -> Recipe:
    """The recipe; with ``preserve_color="coral"`` its style images get the colours of the image."""
    if recipe.preserve_color != "coral":
        return recipe
    source = source.source if isinstance(source, PaintedLevel) else source
    if plan.statistics in ("thumbnail", "sampled"):
        return in_colours_of_thumbnail(recipe, source)
    job.keep = True
    job.writes(saved_paths(ColourStatistics(), source, job.moments))
    found = measure_exact(ColourRecipe(), source, job.moments, on, progress=progress)
    return recipe.in_colours(found["colours"])


def in_colours_of_thumbnail(recipe: Recipe, source: Source) -> Recipe:
    """The recipe, whose style images get the colours of the thumbnail of the image."""
    return recipe.in_colours(measure_thumbnail(ColourStatistics(), source)["colours"])


def freeze(recipe: Recipe, moments: Mapping[str, Any] | None) -> LocalNet:
    """The local network of a recipe whose statistics are fixed to ``moments``, as `measure` returns them.

    The network of a look is frozen already, and needs no moments.
    """
    if recipe.look:
        return recipe.finish(recipe.frozen_look().net)
    return recipe.finish(nets.freeze(build_style(recipe), moments))
