"""From options to a plan: what was left open is decided here, once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch

from urst_tiles import nets
from urst_tiles.errors import BadInput
from urst_tiles.execute import current_style
from urst_tiles.geometry import Grid, round_up
from urst_tiles.measure import CORE
from urst_tiles.nets import Style
from urst_tiles.options import Options
from urst_tiles.plan import Footprint, Plan
from urst_tiles.pyramid import Encoding, write_bytes
from urst_tiles.recipe import Recipe
from urst_tiles.source import Source

TILE = 512
DEFAULT_CORE = 1024

#: Libraries whose version may change the bytes of the output.
PINNED_LIBRARIES = ("torch", "imagecodecs", "tifffile", "pyvips-binary")


def make_plan(
    source: Source, recipe: Recipe, options: Options, *, pinned: Mapping[str, str] | None = None
) -> Plan:
    """The plan of a job.

    Parameters
    ----------
    pinned : identity of an earlier run of the job; where options leave something open that the machine would decide
        (threads, precision), its choice is kept, so that a job may go on elsewhere.

    Raises
    ------
    BadPlan : for options that do not go together.
    """
    pinned = pinned or {}
    style = current_style(recipe)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, recipe.model, device, pinned)
    seam, halo = resolve_seam(options, style)
    grid = make_grid(source, options, style, halo)
    encoding = _encoding(source, options, grid)
    threads = options.threads or int(pinned.get("threads", 0)) or cpu_count()
    plan = Plan(
        grid=grid,
        footprint=footprint(style, precision),
        seam=seam,
        source_channels=source.channels,
        source_dtype=str(source.dtype),
        dtype=encoding.dtype,
        compression=encoding.compression,
        quality=encoding.quality,
        precision=precision,
        device=device,
        threads=threads,
        batch=1,
        in_flight=min(2, len(grid)),
        workers=min(options.workers, len(grid)),
        reader_bytes=source.reader_bytes,
        writer_bytes=write_bytes(grid, encoding),
        spool_bytes=source.spool_bytes,
        statistics=options.statistics,
        measure_bytes=measure_bytes(style, source, options),
        passes=1 + len(style.sites) * (options.statistics == "exact"),
        identity={},
    )
    return plan.identified(_identity(plan, source, style, options))


def resolve_device(device: str) -> str:
    """``auto`` is CUDA where there is one; raises BadInput for a device that is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise BadInput(f"there is no device {device!r} here; --device takes cpu{', cuda' * torch.cuda.is_available()} or auto")
    return device


def resolve_precision(
    wanted: str, model: str, device: str, pinned: Mapping[str, str]
) -> Literal["float32", "bfloat16", "float16"]:
    """``auto`` is the fastest that keeps the float32 picture (or what the job chose before)."""
    chosen = wanted if wanted != "auto" else pinned.get("precision") or nets.best_precision(model, device)
    return cast(Literal["float32", "bfloat16", "float16"], chosen)


def resolve_seam(options: Options, style: Style) -> tuple[Literal["crop", "blend", "cut"], int]:
    """How windows are joined, and the halo: cropping where the halo suffices, else blending."""
    halo = style.halo if options.halo is None else options.halo
    seam = options.seam
    if seam == "auto":
        seam = "crop" if halo >= style.halo else "blend"
    if seam == "crop" and halo < style.halo:
        raise BadInput(f"--seam crop needs --halo of at least {style.halo} for this network, got {halo}")
    return seam, halo


def make_grid(source: Source, options: Options, style: Style, halo: int) -> Grid:
    """The grid of the options, with the network's needs."""
    core = options.tile or min(DEFAULT_CORE, options.block)
    height, width = source.shape
    return Grid(height, width, halo, style.stride, core, options.block, min(TILE, options.block), style.minimum)


def footprint(style: Style, precision: str) -> Footprint:
    """What the network needs, at ``precision``."""
    return Footprint(style.halo, style.stride, style.minimum, style.bytes_per_pixel(precision), style.weight_bytes)


def measure_bytes(style: Style, source: Source, options: Options) -> int:
    """Peak of one measuring forward, float32 and unfused."""
    if options.statistics == "tile":
        return 0
    side = CORE + 2 * style.halo
    h, w = source.shape
    area = min(side, round_up(h, style.stride)) * min(side, round_up(w, style.stride))
    return int(area * style.bytes_per_pixel("measure"))


def _encoding(source: Source, options: Options, grid: Grid) -> Encoding:
    dtype = options.dtype
    if dtype == "auto":
        dtype = "uint16" if source.file_dtype == "uint16" else "uint8"
    nodata = output_nodata(source.info.nodata, str(source.file_dtype), dtype)
    return Encoding(
        compression=options.compression,
        quality=options.quality,
        dtype=dtype,
        channels=source.channels,
        validity=source.info.validity,
        nodata=nodata if source.info.validity == "nodata" else None,
        tile=grid.tile,
    )


def encoding_of(plan: Plan, source: Source) -> Encoding:
    """The encoding of a plan's output."""
    nodata = output_nodata(source.info.nodata, str(source.file_dtype), plan.dtype)
    return Encoding(
        compression=cast(Any, plan.compression),
        quality=plan.quality,
        dtype=cast(Any, plan.dtype),
        channels=source.channels,
        validity=source.info.validity,
        nodata=nodata if source.info.validity == "nodata" else None,
        tile=plan.grid.tile,
    )


def output_nodata(nodata: str | None, file_dtype: str, dtype: str) -> int:
    """The source's nodata value where the output keeps its dtype and can hold it, else 0."""
    try:
        value = float(nodata) if nodata is not None and file_dtype == dtype else 0.0
    except ValueError:
        return 0
    top = 255 if dtype == "uint8" else 65535
    return int(value) if value.is_integer() and 0 <= value <= top else 0


def _identity(plan: Plan, source: Source, style: Style, options: Options) -> dict[str, str]:
    grid = plan.grid
    facts: dict[str, Any] = {
        "source": source.fingerprint,
        "bands": options.bands or "default",
        "stretch": options.stretch if str(source.file_dtype) != "uint8" else "none",
        "overviews": options.overviews,
        "model": options.model,
        "style": style.fingerprint,
        "alpha": options.alpha,
        "statistics": plan.statistics,
        "thumbnail": options.thumbnail,
        "size": f"{grid.width} x {grid.height}",
        "tile": grid.core,
        "block": grid.block,
        "halo": grid.halo,
        "seam": plan.seam,
        "precision": plan.precision,
        "threads": plan.threads,
        "batch": plan.batch,
        "device": device_kind(plan.device),
        "dtype": plan.dtype,
        "compression": plan.compression,
        "quality": plan.quality if plan.compression in ("jpeg", "webp") else "lossless",
        "urst-tiles": version("urst-tiles"),
        **{name: _version(name) for name in PINNED_LIBRARIES},
    }
    return {name: str(value) for name, value in facts.items()}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return "none"


def device_kind(device: str) -> str:
    """What decides how sums round: the processor's vector width, or the card's name."""
    if device == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name(device)


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes this process may take: of the machine, or of its cgroup where that allows less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return total
