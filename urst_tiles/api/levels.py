"""Painting from coarse to fine: each level of a picture is a job of its own.

A network that paints levels needs, at each level but the coarsest, the picture that it painted at the level
above, on half as many pixels each way. That picture is made first, by the same job on the halved image; its
folder lies in the folder of the level below, and so on up to the coarsest level. So statistics, resuming and
workers are those of any job, and the memory of a run is that of its finest level.

Files in a job folder, if there is a level above
  half.zarr    the image at half its size
  above        the job folder of the level above, until its picture is finished
  above.tif    the picture of the level above; on an object store a copy of its pixels, above.zarr, since a
               TIFF there cannot be read in windows without further libraries
  above-source thumbnail and fingerprint of that picture
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from urst_tiles.engine.block import cores_of
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.sampled import samples
from urst_tiles.errors import JobError
from urst_tiles.geometry import Grid
from urst_tiles.job.ending import mark_beside, marks_of
from urst_tiles.job.folder import Job
from urst_tiles.nets.composition import Subject
from urst_tiles.options import Dtype, Options
from urst_tiles.plan import Plan
from urst_tiles.planning import make_plan
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe, field_of
from urst_tiles.source import Source, open_source
from urst_tiles.source.levels import (
    PaintedLevel,
    is_kept,
    keep_picture,
    kept_picture,
    level_above,
    shape_above,
)
from urst_tiles.storage.stores import is_remote, remove

#: Runs the job of one level: (job, plan, source, recipe, output, options, progress).
RunLevel = Callable[[Job, Plan, Source, Recipe, Path, Options, Progress], object]


def paint_above(
    job: Job,
    plan: Plan,
    source: Source,
    recipe: Recipe,
    options: Options,
    run: RunLevel,
    progress: Progress = silent,
) -> Source | PaintedLevel:
    """What the blocks of a job read: the source, or if its network paints levels, the level of the picture,
    whose levels above are painted first.

    Parameters
    ----------
    source : the prepared source of the job.
    run : runs the job of the level above.

    Raises
    ------
    UrstError : as `urst_tiles.stylize`.
    """
    if plan.levels > 1 and not _is_painted(job):
        _paint(job, plan, source, recipe, options, run, progress)
    return level_of(job, plan, source, progress)


def level_of(job: Job, plan: Plan, source: Source, progress: Progress = silent) -> Source | PaintedLevel:
    """The same, once the levels above are painted.

    Raises
    ------
    JobError : the picture of the level above is not there.
    """
    if plan.levels == 0:
        return source
    if plan.levels == 1:
        return PaintedLevel(source, plan.level)
    if not _is_painted(job):
        raise JobError(f"{_picture(job)} is gone; start the job anew with --overwrite")
    folder = job.folder / "above-source"
    picture = kept_picture(_picture(job), source) if is_remote(job.folder) else _opened(_picture(job))
    job.writes(picture.saved_paths(folder))
    return PaintedLevel(source, plan.level, picture.prepare(folder, progress=progress))


def _opened(picture: Path) -> Source:
    """The picture of a level, whose values mean what they are: one of 16 bits is not stretched again."""
    return open_source(picture, stretch="0,65535")


def _picture(job: Job) -> Path:
    return job.folder / ("above.zarr" if is_remote(job.folder) else "above.tif")


def _is_painted(job: Job) -> bool:
    return is_kept(_picture(job)) if is_remote(job.folder) else _picture(job).exists()


def _paint(
    job: Job, below: Plan, source: Source, recipe: Recipe, options: Options, run: RunLevel, progress: Progress
) -> None:
    """Paint the level above, in a job of its own, as far as the level ``below`` needs it."""
    number = recipe.number + 1
    said = f", level 1/{1 << number}"

    def report(stage: str, done: int, total: int) -> None:
        progress(stage + ("" if "level 1/" in stage else said), done, total)

    copy = job.folder / "half.zarr"
    job.keep = True
    job.writes(copy / name for name in shape_above(source).files())
    remote = is_remote(job.folder)
    picture = _picture(job)
    job.writes([picture / name for name in shape_above(source).files()] if remote else [picture])
    half = level_above(source, copy, report)
    own = replace(options_above(options, source), overwrite=remote and options.overwrite)
    above = Job(job.folder / "above")
    coarser = recipe.above()
    coarser = coarser.over(field_of(coarser, half, own, above.folder))
    job.writes_folder(above.folder)
    # A program keeps a mark beside until it ends, when this folder is gone.
    job.writes(marks_of(above.folder) if remote else [mark_beside(above.folder)])
    before = None if own.overwrite else above.identity or above.ended
    plan = make_plan(half, coarser, build_style(coarser), own, pinned=before)
    plan = plan.for_blocks(blocks_above(below, build_style(recipe), source, plan.grid))
    with above.locked():
        above.claim(plan.identity, overwrite=own.overwrite)
        if not remote:
            run(above, plan, half, coarser, picture, own, report)
            return
        with TemporaryDirectory(prefix="urst-tiles-") as scratch:
            made = Path(scratch) / "above.tif"
            run(above, plan, half, coarser, made, own, report)
            keep_picture(_opened(made).prepare(Path(scratch) / "source"), picture, source, report)
        remove(above.folder)  # the mark of the finished job, and on stores that have folders the folder


def blocks_above(plan: Plan, style: Subject, source: Source, above: Grid) -> tuple[int, ...] | None:
    """The blocks of the level above whose picture a level needs; None for all of them.

    These are the blocks under the windows of what is made of the level, and under the windows whose sample
    gives its statistics. All of them are needed where a whole level is made or measured; and where pixels are
    invalid, since these are filled from the thumbnail of the picture above.
    """
    if plan.grid.part is None and plan.wanted is None:
        return None
    if plan.statistics != "sampled" or source.channels == 4:
        return None
    indexes = range(len(plan.grid)) if plan.wanted is None else plan.wanted
    seen = [plan.grid.read_box(cores_of(plan, plan.grid.block_box(index))) for index in indexes]
    seen += [sample.window for sample in samples(style, source.shape, None)]
    needed: set[int] = set()
    for box in seen:
        box = box.grow(plan.grid.stride)  # what the image is continued with lies near its edge
        coarse = box.half().clip(above.image)
        needed |= {
            cell.y0 // above.block * above.block_columns + cell.x0 // above.block
            for cell in coarse.cells(above.block)
        }
    return tuple(sorted(needed))


def options_above(options: Options, source: Source) -> Options:
    """The options of the level above: lengths are half as long, and nothing is lost in its file."""
    return replace(
        options.without_part(),
        dtype=cast(Dtype, str(source.dtype)),
        provenance=False,
        format="tif",
        predictor="yes",
        blocksize=None,
        overview_resampling="average",
        bigtiff="yes",
        tiles="one",
        page=None,
        level=None,
        magnification=None,
        channels=None,
        bands=None,
        compression="deflate",
        preserve_color="none",
        feather=max(1, options.feather // 2),
        local_scale=max(1, options.local_scale // 2),
        job_dir=None,
        overwrite=False,
    )
