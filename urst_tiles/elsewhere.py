"""A plan on another machine: the same plan gives the same bytes, or is refused in one sentence (law 7)."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from urst_tiles.errors import BadInput, JobDiffers
from urst_tiles.job import differences
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import PINNED_LIBRARIES, device_kind, installed, resolve_device
from urst_tiles.progress import Progress
from urst_tiles.saved import Request
from urst_tiles.source import Source, open_source


def plan_here(plan: Plan, device: str | None, threads: int | None, workers: int | None) -> Plan:
    """The plan on this machine; refused where law 7, same plan, same bytes, would not hold."""
    Options(threads=threads, workers=1 if workers is None else workers)  # refuses what is below 1
    device = resolve_device(device or plan.device)
    now = {"device": device_kind(device), "urst-tiles": version("urst-tiles")}
    now |= {name: installed(name) for name in PINNED_LIBRARIES}
    planned = {name: plan.identity[name] for name in now}
    if planned != now:
        raise JobDiffers(
            f"the bytes of the output might differ here: {differences(planned, now)}; work on machines alike,"
            " or plan anew with --overwrite"
        )
    if threads not in (None, plan.threads) and device == "cpu":
        raise BadInput(
            f"--threads must be the plan's {plan.threads}, got {threads}: on a CPU their number decides how"
            " sums round; plan with another number, or take more --workers"
        )
    workers = min(workers or plan.workers, len(plan.grid))
    return replace(plan, device=device, threads=threads or plan.threads, workers=workers)


def same_source(request: Request, folder: Path, progress: Progress) -> Source:
    """The input of a saved job, prepared as ``folder`` has it; JobDiffers where the file is another."""
    options = request.options
    source = open_source(
        request.input, bands=options.bands, stretch=options.stretch, overviews=options.overviews
    )
    before, now = ({"fingerprint": text} for text in (request.plan.identity["source"], source.fingerprint))
    if before != now:
        raise JobDiffers(
            f"{request.input} is not the image that was planned:"
            f" {differences(before, now)}; put it back, or plan anew with --overwrite"
        )
    return source.prepare(folder, thumbnail=options.thumbnail, progress=progress)
