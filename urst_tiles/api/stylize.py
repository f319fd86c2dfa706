"""The main job, `stylize`, and the six calls that it consists of, each usable alone.

They are: open the source, measure its statistics, freeze the style, plan, run the blocks, and assemble the
pyramid. Measuring and freezing are in `urst_tiles.api.measuring`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from urst_tiles import nets
from urst_tiles.api.bands import info_for
from urst_tiles.api.each import CUTTING, cut_each, each_targets
from urst_tiles.api.levels import paint_above
from urst_tiles.api.look import with_looks
from urst_tiles.api.measuring import freeze, measure, take_colours
from urst_tiles.api.opening import (
    open_input,
    tell_choice,
    tell_compression,
    tell_format,
    tell_lost,
    tell_notes,
    tell_part,
    tell_pieces,
)
from urst_tiles.api.output import (
    check_format,
    check_output,
    is_finished,
    provenance,
    refuse_existing,
    software,
    written_format,
)
from urst_tiles.api.part import measured_of
from urst_tiles.api.pieces import for_pieces
from urst_tiles.api.strokes import on_levels
from urst_tiles.api.tell_network import tell_model, tell_predicted
from urst_tiles.api.tiles import WHOLE, check_target, cut_tiles, refuse_targets, targets_of
from urst_tiles.encoding import encoding_of
from urst_tiles.engine.block import StylizeBlock
from urst_tiles.engine.counted import is_counted, saved_counts
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.moved import moved_colours
from urst_tiles.job.folder import Job
from urst_tiles.machine import available_memory, trim
from urst_tiles.nets.composition import Subject
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import guess_seconds, make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid import check_header
from urst_tiles.pyramid.finish import finish as finish_output
from urst_tiles.pyramid.formats import FORMATS
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.picture import Made
from urst_tiles.recipe import MASK, Recipe, StyleArgument, field_of, prepare_mask, recipe_of
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel
from urst_tiles.storage.publish import make_folder, remove_dead_attempts
from urst_tiles.storage.stores import path_of
from urst_tiles.workers import queues
from urst_tiles.workers.run import Cluster, cluster

#: Opens a dask cluster: `cluster`, or anything else that takes its arguments.
Opening = Callable[..., AbstractContextManager[Cluster]]


@dataclass(frozen=True)
class Report:
    """What a finished job did.

    Attributes
    ----------
    output : path of the finished file; with the options ``tiles`` and ``each`` what was named as output.
    plan : the plan that was carried out.
    seconds : wall time of each stage in seconds, by the name of the stage; empty if an earlier call had
        finished the output and was killed right after.
    blocks_run, blocks_kept : number of blocks that this call computed, and of those that earlier calls had
        finished.
    splits : how often a device ran out of memory, so that a smaller batch or window was computed instead.
    outputs : with the option ``each`` the files that were written, in the order of the features.
    moved : of a model that transfers colours, how far it moved them (`urst_tiles.engine.moved`); else empty.
    """

    output: Path
    plan: Plan
    seconds: Mapping[str, float]
    blocks_run: int
    blocks_kept: int
    splits: int
    outputs: tuple[Path, ...] = ()
    moved: Mapping[str, Any] = field(default_factory=dict)


def stylize(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleArgument = None,
    options: Options | None = None,
    *,
    replace: bool | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Report:
    """Stylise an image file of any size into a pyramidal TIFF, or into an output of another format.

    Parameters
    ----------
    input : an image file, or many that make one image, as `open_source` takes them.
    output : what to write. Its suffix, or the option ``format``, says the format: without a suffix, and with
        ``.tif``, it is a cloud-optimised GeoTIFF; docs/formats.md has the others. It appears only when it is
        complete and valid. A file that exists, also one that came into being meanwhile, is replaced only with
        the option ``overwrite``. If it is a symbolic link, the file that the link leads to is written. It
        must be none of the files that are read. With ``tiles="same"`` it is a folder for a file for each file
        of the input; with ``each`` a folder for a file for each feature of ``aoi``, or the name of these
        files with ``{id}`` in it.
    style : the path of a style image; or the name of a style that comes with the networks painter and lite;
        or a list of (style, weight) pairs, which are mixed; or, with the option ``mask``, a dict of styles by
        region number; or the result of `from_module`; or None for a model that needs no style, and with the
        option ``look``.
    options, changes : the options of the job; ``changes`` are single options by name, as in ``alpha=0.5``.
    replace : whether an existing output is replaced (default: as the option ``overwrite`` says, which also
        starts unfinished work anew).
    progress : called with the name of a stage, and how much of it is done out of how much.

    Raises
    ------
    UrstError : one of its subclasses, see `urst_tiles.errors`. If the job had begun, the same call continues
        it.
    """
    chosen = Options.of(options, changes)
    return stylize_on(input, output, style, chosen, replace=replace, progress=progress)


def stylize_on(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleArgument,
    options: Options,
    *,
    replace: bool | None = None,
    opening: Opening = cluster,
    progress: Progress = silent,
) -> Report:
    """As `stylize`, on the dask cluster that ``opening`` opens; it takes the arguments of `cluster`."""
    replace = options.overwrite if replace is None else replace
    output = check_target(output, input, options)
    source, recipe, _, job, plan = open_job(input, output, style, options)
    if not replace:
        if before := finished_before(output, job, plan, outputs_of(source, output, options)):
            return before
        refuse_existing(output, job, plan, parts_of(plan, source, job), targets_of(source, output, options))
    with job.locked():
        job.claim(plan.identity, overwrite=options.overwrite)
        return run_job(job, plan, source, recipe, output, options, progress, replace=replace, opening=opening)


def finished_before(output: Path, job: Job, plan: Plan, outputs: tuple[Path, ...] = ()) -> Report | None:
    """The report of a job that an earlier call finished, which was killed while it removed the job folder;
    None if there was no such call. What is left of the folder is removed.

    ``outputs`` are those of a job that writes one for each feature, as far as they are known.
    """
    if not is_finished(output, job, plan, outputs):
        return None
    job.bury()
    return Report(output, plan, {}, 0, len(plan.grid), 0, outputs)


def plan_job(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleArgument = None,
    options: Options | None = None,
    **changes: Any,
) -> tuple[Plan, float]:
    """The plan that `stylize` would follow, and a guess at its time in seconds; nothing is run or written."""
    options = Options.of(options, changes)
    output = check_target(output, input, options)
    _, recipe, built, _, plan = open_job(input, output, style, options)
    return plan, guess_seconds(plan, recipe, built)


def open_job(
    input: str | os.PathLike[str], output: Path, style: StyleArgument, options: Options
) -> tuple[Source, Recipe, Subject, Job, Plan]:
    """The source, the recipe, its style, the job folder and the plan of a job, before anything is written.

    Raises
    ------
    UrstError : if the job cannot be done as asked, for example because memory or disk do not suffice.
    """
    chosen = written_format(output, options.format)
    options = Options.of(options, {"format": chosen.name})
    check_format(chosen, options)
    source = open_input(input, options)
    tell_choice(source)
    tell_part(source, options)
    tell_pieces(source)
    job = Job.beside(output, options.job_dir and path_of(options.job_dir))
    if options.cluster:
        queues.require(options.cluster)
    recipe = recipe_of(style, options)
    refuse_targets(targets_of(source, output, options), read_files(source, recipe, options))
    recipe = with_looks(recipe, source, options)
    recipe = on_levels(recipe, source, options)
    recipe = recipe.over(field_of(recipe, source, options, job.folder))
    built = build_style(recipe)
    before = None if options.overwrite else job.identity or job.ended
    plan = make_plan(source, recipe, built, options, pinned=before)
    plan = plan if options.each is None else for_pieces(plan, source, options)
    check_header(
        plan.grid.output,
        encoding_of(plan, source),
        info_for(source, plan),
        name=str(source.path),
        software=software(plan.identity),
        provenance=provenance(plan.identity),
    )
    tell_model(options)
    tell_predicted(recipe)
    tell_lost(source)
    tell_format(output, source, plan)
    tell_compression(source, plan)
    room = job.room()
    if room is not None and before == dict(plan.identity) and output.is_file():
        room += output.stat().st_size  # what is written already
    plan.validate(memory=options.memory or available_memory(), disk=room)
    return source, recipe, built, job, plan


def read_files(source: Source, recipe: Recipe, options: Options) -> list[tuple[str, Path]]:
    """The files that a job reads besides weights, each with what it is in words."""
    one = source.path in source.files[:1]  # and not many files
    inputs = [("sidecar of the input" if one and n else "input", path) for n, path in enumerate(source.files)]
    what = "look" if recipe.look else "style"
    styles = [(what, style) for style, _ in recipe.styles if isinstance(style, Path)]
    mask = [("mask", options.mask)] if options.mask else []
    areas = [("mask of valid pixels", path) for area in source.areas for path in area.files]
    return [*inputs, *styles, *mask, *areas]


def run_job(
    job: Job,
    plan: Plan,
    source: Source,
    recipe: Recipe,
    output: Path,
    options: Options,
    progress: Progress,
    *,
    replace: bool = False,
    opening: Opening = cluster,
) -> Report:
    """Run the job, in a job folder that this process has locked."""
    clock = Clock()
    source = prepare(job, source, options, progress, later=counts_colours(plan, recipe, source))
    clock.lap("prepare")
    image = paint_above(job, plan, source, recipe, options, partial(run_job, opening=opening), progress)
    clock.lap("levels")
    with cluster_of(plan, options, job, progress, opening) as on:
        moved = set_up(job, plan, image, recipe, options, on, progress)
        clock.lap("measure")
        receipts, kept = run_blocks(plan, source, job, on, progress, image=image)
        clock.lap("blocks")
    finish(plan, source, job, output, options, progress, overwrite=replace)
    clock.lap("assemble")
    job.remove()
    splits, outputs = sum(r["splits"] for r in receipts), outputs_of(source, output, options)
    return Report(output, plan, clock.laps, len(receipts), kept, splits, outputs, moved)


def counts_colours(plan: Plan, recipe: Recipe, source: Source) -> bool:
    """Whether all that is measured of the image follows from its counted colours, which are saved in the job
    folder; then nothing needs a thumbnail, unless invalid pixels are filled from it."""
    exact = plan.statistics == "exact" and plan.measured == plan.grid.image
    return exact and bool(recipe.method) and is_counted(source, build_style(recipe))


def prepare(
    job: Job, source: Source, options: Options, progress: Progress = silent, later: bool = False
) -> Source:
    """Make what the blocks will read: the thumbnail, and copies of the mask and, if need be, of the source.

    All of it lies in the job folder. A source needs a copy if its file has no random access. With ``later``
    a thumbnail that no block reads is made when it is first asked for.
    """
    job.writes(source.saved_paths(job.source, thumbnail=options.thumbnail))
    if options.mask:
        job.writes([job.folder / MASK])
    try:
        source = source.prepare(job.source, thumbnail=options.thumbnail, progress=progress, later=later)
    finally:
        job.keep |= job.is_unpacked
    prepare_mask(options, source, job.folder, progress)
    return source


def set_up(
    job: Job,
    plan: Plan,
    source: Source | PaintedLevel,
    recipe: Recipe,
    options: Options,
    on: Cluster,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure the statistics, freeze the network and save it; then the job needs no style or weights.

    Returns how far a model that transfers colours moves them; of other models nothing.
    """
    seen = measured_of(source, plan, options, job, progress)
    recipe = take_colours(recipe, seen, plan, job, on, progress)
    measured = recipe if seen is source else recipe.of_part(plan.measured)
    moments = measure(measured, seen, plan, job, on, progress)
    job.writes([job.net])
    net = freeze(recipe, moments)
    net.save(job.net)
    moved: dict[str, Any] = {}
    if recipe.method and isinstance(source, Source):
        style = build_style(recipe)
        tell_notes(source, nets.notes_of(style, moments or {}))
        counts = saved_counts(source, job.moments) if counts_colours(plan, recipe, source) else None
        moved = moved_colours(net, source, style, moments, counts)
    trim()
    return moved


def run_blocks(
    plan: Plan,
    source: Source,
    job: Job,
    on: Cluster,
    progress: Progress = silent,
    *,
    image: Source | PaintedLevel | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Compute the missing blocks, and write each as a part file into the job folder.

    ``image`` is what the blocks read, if it is not the source alone. Returns the receipts of the blocks that
    this call computed, and the number of blocks that were finished before.
    """
    parts = parts_of(plan, source, job)
    job.writes(parts.paths())
    make_folder(job.parts)
    remove_dead_attempts(job.parts)
    job.keep = True
    missing = parts.missing()
    total = len(plan.grid)
    task = StylizeBlock(
        plan, (image or source).without_metadata(), job.net, parts, plan.identity.get("model")
    )
    receipts = on.run_all(
        task, missing, total=total, progress=lambda done, of: progress("stylising", done, of)
    )
    return receipts, total - len(missing)


def assemble(
    plan: Plan,
    source: Source,
    job: Job,
    output: str | os.PathLike[str],
    progress: Progress = silent,
    *,
    overwrite: bool = False,
) -> None:
    """Write the output from all part files; it appears under its name only when it is complete and valid.

    Raises
    ------
    BadInput : if blocks are missing; or if the output exists, unless ``overwrite`` is true or it has the same
        bytes already.
    """
    finish_output(
        parts_of(plan, source, job),
        info_for(source, plan),
        check_output(output, format=plan.format),
        FORMATS[plan.format],
        Made(plan.quality, software(plan.identity), provenance(plan.identity), plan.bigtiff),
        overwrite=overwrite,
        progress=progress,
    )


def finish(
    plan: Plan,
    source: Source,
    job: Job,
    output: Path,
    options: Options,
    progress: Progress = silent,
    *,
    overwrite: bool = False,
) -> None:
    """As `assemble`; with the option ``tiles`` the output is a folder with a part of it for each input, and
    with the option ``each`` there is a part of it for each feature."""
    if options.each is not None:
        job.writes_folder(job.folder / CUTTING)
        return cut_each(parts_of(plan, source, job), source, job, output, options, plan, progress, overwrite)
    if options.tiles == "one":
        return assemble(plan, source, job, output, progress, overwrite=overwrite)
    whole = job.folder / WHOLE
    job.writes([whole])
    if not whole.exists():
        assemble(plan, source, job, whole, progress)
    cut_tiles(whole, parts_of(plan, source, job), source, job, output, options, plan, progress, overwrite)


def parts_of(plan: Plan, source: Source, job: Job) -> Parts:
    """The part files of a job, one for each block of the plan."""
    encoding = encoding_of(plan, source)
    return Parts(job.parts, plan.fingerprint, plan.grid.output, encoding, threads=plan.encoders)


def outputs_of(source: Source, output: Path, options: Options) -> tuple[Path, ...]:
    """The outputs of a job that writes one for each feature; empty for any other."""
    return tuple(each_targets(source, output, options)) if options.each is not None else ()


class Clock:
    """Measures the wall time of stages that follow one another; ``laps`` has the seconds by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End the stage ``name``, which began when the last stage ended."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def cluster_of(
    plan: Plan, options: Options, job: Job, progress: Progress = silent, opening: Opening = cluster
) -> AbstractContextManager[Cluster]:
    """The dask cluster that the options ask for, whose workers can all read and write the job folder."""
    if options.cluster:
        job.writes_folder(queues.own_folder(job.folder))
    jobs = options.cluster and queues.QueueRequest(
        options.cluster,
        count=min(options.workers, len(plan.grid)),
        cores=plan.threads,
        memory_bytes=plan.process_bytes,
        folder=job.folder,
    )
    return opening(
        workers=plan.workers,
        in_flight=plan.in_flight,
        device=plan.device,
        scheduler=options.scheduler,
        jobs=jobs or None,
        progress=progress,
    )
