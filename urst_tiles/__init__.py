"""Style transfer at any resolution: a gigapixel image in, a stylised pyramidal TIFF out, in bounded memory,
without seams.

    import urst_tiles as ut

    ut.stylize("scene.tif", "stylised.tif", style="painting.jpg")

The same as six calls, each usable alone::

    source = ut.open_source("scene.tif")
    ...

Importing the package is fast: torch, dask and pyvips are loaded when first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from urst_tiles.errors import (
    BadInput,
    BadPlan,
    BadWeights,
    BlocksFailed,
    DamagedFile,
    DiskFull,
    DoesNotFit,
    JobBusy,
    JobDiffers,
    JobError,
    MissingFile,
    UrstError,
)
from urst_tiles.geometry import Box, Grid
from urst_tiles.options import Options
from urst_tiles.plan import Plan

if TYPE_CHECKING:
    from urst_tiles.api.batch import run_batch as run_batch
    from urst_tiles.api.dask_array import map_blocks as map_blocks
    from urst_tiles.api.preview import preview as preview
    from urst_tiles.api.shards import assemble_job as assemble_job
    from urst_tiles.api.shards import save_job as save_job
    from urst_tiles.api.shards import work_job as work_job
    from urst_tiles.api.stylize import Report as Report
    from urst_tiles.api.stylize import stylize as stylize
    from urst_tiles.api.table import read_table as read_table
    from urst_tiles.engine.kernel import Kernel as Kernel
    from urst_tiles.job.folder import Job as Job
    from urst_tiles.job.shard import Shard as Shard
    from urst_tiles.moments import Moments as Moments
    from urst_tiles.nets.module import from_module as from_module
    from urst_tiles.source import open_source as open_source
    from urst_tiles.workers.run import cluster as cluster

#: Public names that live in modules with heavy imports.
_LATE = {
    "stylize": "api.stylize",
    "preview": "api.preview",
    "Report": "api.stylize",
    "save_job": "api.shards",
    "work_job": "api.shards",
    "assemble_job": "api.shards",
    "Shard": "job.shard",
    "read_table": "api.table",
    "run_batch": "api.batch",
    "recipe_of": "recipe",
    "named_styles": "api.contact_sheet",
    "contact_sheet": "api.contact_sheet",
    "build_style": "engine.loaded",
    "measure": "api.stylize",
    "freeze": "api.stylize",
    "run_blocks": "api.stylize",
    "assemble": "api.stylize",
    "make_plan": "planning",
    "open_source": "source",
    "array_source": "source",
    "Source": "source",
    "Job": "job.folder",
    "Recipe": "recipe",
    "Moments": "moments",
    "Kernel": "engine.kernel",
    "cluster": "workers.run",
    "from_module": "nets.module",
    "map_blocks": "api.dask_array",
    "validate": "pyramid",
}

__all__ = [
    "BadInput", "BadPlan", "BadWeights", "BlocksFailed", "Box", "DamagedFile", "DiskFull", "DoesNotFit",
    "Grid", "JobBusy", "JobDiffers", "JobError", "MissingFile", "Options", "Plan", "UrstError", *_LATE,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
