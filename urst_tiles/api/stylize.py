"""The main job as one sentence, and each of its six calls on its own.

open the source; measure the statistics; freeze the style; plan; run the blocks; assemble the pyramid
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urst_tiles import nets
from urst_tiles.api.output import check_output, refuse_existing
from urst_tiles.engine.block import StylizeBlock
from urst_tiles.engine.loaded import current_style
from urst_tiles.engine.statistics import measure_exact, measure_thumbnail
from urst_tiles.engine.threads import Lanes
from urst_tiles.job.folder import Job
from urst_tiles.machine import available_memory
from urst_tiles.nets import LocalNet
from urst_tiles.nets.keep_colours import ColourRecipe, ColourStatistics
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import encoding_of, guess_seconds, make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid import assemble as assemble_parts
from urst_tiles.pyramid.parts import Parts
from urst_tiles.recipe import Recipe, StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import Source, open_source
from urst_tiles.storage.publish import make_folder
from urst_tiles.storage.stores import place
from urst_tiles.workers import queues
from urst_tiles.workers.run import Cluster, cluster


@dataclass(frozen=True)
class Report:
    """What a finished job tells.

    Attributes
    ----------
    output : the finished file.
    plan : what was done.
    seconds : wall time of each stage, by name.
    blocks_run, blocks_kept : blocks of this call, and those found finished.
    splits : how often a device out of memory was answered by a smaller batch or window.
    """

    output: Path
    plan: Plan
    seconds: Mapping[str, float]
    blocks_run: int
    blocks_kept: int
    splits: int


def stylize(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleArgument,
    options: Options | None = None,
    *,
    progress: Progress = silent,
    **changes: Any,
) -> Report:
    """Stylise an image file of any size into a pyramidal TIFF.

    Parameters
    ----------
    input : any file that libvips opens.
    output : the COG to write; it appears only when it is complete and valid.
    style : a style image or the name of a style that ships with lite; (style, weight) pairs to be mixed; with
        ``mask``, a style for each of its numbers; what `from_module` returns, or None for a model that is a
        style by itself.
    options, changes : see `Options`; ``changes`` are single options by name.
    progress : called with (stage, done, total).

    Raises
    ------
    UrstError : see ``errors``; a second identical call goes on where this one stopped.
    """
    options = Options.of(options, changes)
    output = check_output(Path(output).absolute(), Path(input))
    source, recipe, job, plan = open_job(input, output, style, options)
    refuse_existing(output, job, plan, options)
    with job.locked():
        job.claim(plan.identity, overwrite=options.overwrite)
        return _run(job, plan, source, recipe, output, options, progress)


def plan_job(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleArgument,
    options: Options | None = None,
    **changes: Any,
) -> tuple[Plan, float]:
    """The plan that `stylize` would follow, and a guess at its seconds; runs nothing, writes nothing."""
    options = Options.of(options, changes)
    output = check_output(Path(output).absolute(), Path(input))
    _, recipe, _, plan = open_job(input, output, style, options)
    return plan, guess_seconds(plan, recipe)


def open_job(
    input: str | os.PathLike[str], output: Path, style: StyleArgument, options: Options
) -> tuple[Source, Recipe, Job, Plan]:
    """Everything known before the first byte is written; refused here if it does not fit."""
    source = open_source(input, bands=options.bands, stretch=options.stretch, overviews=options.overviews)
    job = Job.beside(output, options.job_dir and place(options.job_dir))
    if options.cluster:
        queues.require(options.cluster)
    recipe = recipe_of(style, options)
    recipe = recipe.over(field_of(recipe, source.shape, options, job.folder))
    plan = make_plan(source, recipe, options, pinned=None if options.overwrite else job.identity)
    plan.validate(memory=options.memory or available_memory(), disk=job.room())
    return source, recipe, job, plan


def _run(
    job: Job, plan: Plan, source: Source, recipe: Recipe, output: Path, options: Options, progress: Progress
) -> Report:
    """The job proper, in a folder that is ours."""
    clock = Clock()
    source = prepare(job, source, options, progress)
    clock.lap("prepare")
    with cluster_of(plan, options, job.folder, progress) as on:
        set_up(job, plan, source, recipe, on, progress)
        clock.lap("measure")
        receipts, kept = run_blocks(plan, source, job, on, progress)
        clock.lap("blocks")
    assemble(plan, source, job, output, progress)
    clock.lap("assemble")
    job.remove()
    return Report(output, plan, clock.laps, len(receipts), kept, sum(r["splits"] for r in receipts))


def prepare(job: Job, source: Source, options: Options, progress: Progress = silent) -> Source:
    """The source, spooled where it needs that, with thumbnail and stretch; and the mask: kept in the job."""
    try:
        source = source.prepare(job.source, thumbnail=options.thumbnail, progress=progress)
    finally:
        job.keep |= job.is_unpacked
    prepare_mask(options, source.shape, job.folder, progress)
    return source


def set_up(
    job: Job, plan: Plan, source: Source, recipe: Recipe, on: Cluster, progress: Progress = silent
) -> None:
    """Measure and freeze: from here on the job needs no style and no weights."""
    recipe = take_colours(recipe, source, plan, job, on, progress)
    freeze(recipe, measure(recipe, source, plan, job, on, progress)).save(job.net)


def measure(
    recipe: Recipe, source: Source, plan: Plan, job: Job, on: Cluster, progress: Progress = silent
) -> dict[str, Any] | None:
    """The moments of every site that the plan asks for; None where each window uses its own (``tile``)."""
    if plan.statistics == "tile":
        return None
    if plan.statistics == "thumbnail":
        return measure_thumbnail(
            current_style(recipe),
            source,
            device=plan.device,
            threads=plan.threads,
            whole=plan.measure_at_once,
        )
    job.keep = True
    return measure_exact(
        recipe,
        source,
        job.moments,
        on,
        device=plan.device,
        lanes=Lanes.sharing(plan.threads, plan.measure_lanes),
        progress=progress,
    )


def take_colours(
    recipe: Recipe, source: Source, plan: Plan, job: Job, on: Cluster, progress: Progress = silent
) -> Recipe:
    """The recipe with the image's colours in its style images, where it preserves them so (``coral``)."""
    if recipe.preserve_color != "coral":
        return recipe
    if plan.statistics == "thumbnail":
        return recipe.in_colours(measure_thumbnail(ColourStatistics(), source)["colours"])
    job.keep = True
    found = measure_exact(ColourRecipe(), source, job.moments, on, progress=progress)
    return recipe.in_colours(found["colours"])


def freeze(recipe: Recipe, moments: Mapping[str, Any] | None) -> LocalNet:
    """The plain local network of a recipe with these statistics."""
    return recipe.finish(nets.freeze(current_style(recipe), moments))


def run_blocks(
    plan: Plan, source: Source, job: Job, on: Cluster, progress: Progress = silent
) -> tuple[list[dict[str, Any]], int]:
    """Make every missing part; returns the receipts of this call and how many parts were there already."""
    parts = parts_of(plan, source, job)
    make_folder(job.parts)
    job.keep = True
    missing = parts.missing()
    total = len(plan.grid)
    task = StylizeBlock(plan, source, job.net, parts)
    receipts = on.run_all(
        task, missing, total=total, progress=lambda done, of: progress("stylising", done, of)
    )
    return receipts, total - len(missing)


def assemble(
    plan: Plan, source: Source, job: Job, output: str | os.PathLike[str], progress: Progress = silent
) -> None:
    """Make the output from all parts; it appears under its name only when it is whole and valid."""
    assemble_parts(parts_of(plan, source, job), source.info, Path(output), progress=progress)


def parts_of(plan: Plan, source: Source, job: Job) -> Parts:
    """The part files of a job."""
    return Parts(job.parts, plan.fingerprint, plan.grid, encoding_of(plan, source), threads=plan.encoders)


class Clock:
    """Wall time of one stage after the other."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The stage ``name`` ends here."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def cluster_of(
    plan: Plan, options: Options, folder: Path, progress: Progress = silent
) -> AbstractContextManager[Cluster]:
    """The cluster that a job asks for; ``folder`` is the job's, which all its workers see."""
    jobs = options.cluster and queues.Jobs(
        options.cluster,
        count=min(options.workers, len(plan.grid)),
        cores=plan.threads,
        memory_bytes=plan.process_bytes,
        folder=folder,
    )
    return cluster(
        workers=plan.workers,
        in_flight=plan.in_flight,
        device=plan.device,
        scheduler=options.scheduler,
        jobs=jobs or None,
        progress=progress,
    )
