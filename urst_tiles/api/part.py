"""A job that makes a part of an image: what of it is measured."""

from __future__ import annotations

from urst_tiles.job.folder import Job
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel
from urst_tiles.source.part import cut_out


def measured_of(
    source: Source | PaintedLevel, plan: Plan, options: Options, job: Job, progress: Progress = silent
) -> Source | PaintedLevel:
    """What of a prepared image is measured: all of it, or the part that is made.

    That part is an image of its own, whose thumbnail is saved in the job folder.
    """
    if plan.measured == plan.grid.image:
        return source
    assert isinstance(source, Source)  # networks that paint levels measure the whole image
    part = cut_out(source, plan.measured)
    job.writes(part.saved_paths(job.source, thumbnail=options.thumbnail))
    return part.prepare(job.source, thumbnail=options.thumbnail, progress=progress)
