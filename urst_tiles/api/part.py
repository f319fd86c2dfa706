"""A job that makes a part of an image: what of it is measured, and the metadata of its output."""

from __future__ import annotations

from urst_tiles.job.folder import Job
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel
from urst_tiles.source.part import cut_out, part_info
from urst_tiles.tiff.metadata import Info


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


def info_of(plan: Plan, source: Source) -> Info:
    """The metadata of the output: that of the source, or of the part of it that is made."""
    return source.info if plan.grid.part is None else part_info(source.info, plan.grid.part)
