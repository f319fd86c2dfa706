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
    from urst_tiles.api import Report as Report
    from urst_tiles.api import preview as preview
    from urst_tiles.api import stylize as stylize
    from urst_tiles.batch import run_batch as run_batch
    from urst_tiles.execute import cluster as cluster
    from urst_tiles.job import Job as Job
    from urst_tiles.kernel import Kernel as Kernel
    from urst_tiles.lazy import map_blocks as map_blocks
    from urst_tiles.moments import Moments as Moments
    from urst_tiles.nets.module import from_module as from_module
    from urst_tiles.shard import Shard as Shard
    from urst_tiles.source import open_source as open_source
    from urst_tiles.steps import assemble_job as assemble_job
    from urst_tiles.steps import save_job as save_job
    from urst_tiles.steps import work_job as work_job
    from urst_tiles.table import read_table as read_table

#: Public names that live in modules with heavy imports.
_LATE = {
    "stylize": "api",
    "preview": "api",
    "Report": "api",
    "save_job": "steps",
    "work_job": "steps",
    "assemble_job": "steps",
    "Shard": "shard",
    "read_table": "table",
    "run_batch": "batch",
    "recipe_of": "request",
    "named_styles": "sheet",
    "contact_sheet": "sheet",
    "measure": "api",
    "freeze": "api",
    "run_blocks": "api",
    "assemble": "api",
    "make_plan": "planning",
    "open_source": "source",
    "array_source": "source",
    "Source": "source",
    "Job": "job",
    "Recipe": "recipe",
    "Moments": "moments",
    "Kernel": "kernel",
    "cluster": "execute",
    "from_module": "nets.module",
    "map_blocks": "lazy",
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
