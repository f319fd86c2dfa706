"""The main job in three steps, which may run on different machines and share only the job folder.

`save_job` plans the job, measures the image and freezes the network. Then any number of processes call
`work_job`, on any machines that can read the job folder and the input, to compute the blocks. At last
`assemble_job` writes the output. The job folder is the same as that of `stylize`, and may be on an object
store; the bytes of the output are the same, too.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from urst_tiles.api.levels import level_of, paint_above
from urst_tiles.api.opening import open_input
from urst_tiles.api.output import check_name, check_output, refuse_existing, written_format
from urst_tiles.api.stylize import (
    Clock,
    Report,
    cluster_of,
    finish,
    finished_before,
    open_job,
    outputs_of,
    parts_of,
    prepare,
    run_job,
    set_up,
)
from urst_tiles.api.tiles import check_target, targets_of
from urst_tiles.engine.block import StylizeBlock
from urst_tiles.errors import BadInput, DamagedFile, JobDiffers, JobError, MissingFile
from urst_tiles.job.folder import Job, differences
from urst_tiles.job.request import Request
from urst_tiles.job.shard import Shard
from urst_tiles.machine import available_memory
from urst_tiles.nets.module import is_module, only_here
from urst_tiles.nets.module.style import ModuleStyle
from urst_tiles.nets.saved import check_code
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import contradictions, plan_here, valid_said
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.formats import FORMATS
from urst_tiles.pyramid.parts import Parts
from urst_tiles.recipe import Recipe, StyleArgument
from urst_tiles.source import Source
from urst_tiles.source.members import absolute
from urst_tiles.storage.publish import publish
from urst_tiles.storage.stores import open_file, path_of
from urst_tiles.workers.run import cluster

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Saved:
    """A job that is ready for workers: its folder, its plan, and the seconds that each stage took."""

    folder: Path
    plan: Plan
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Worked:
    """What one call of `work_job` did.

    Attributes
    ----------
    folder, plan, shard : the job folder, the plan, and the share of the blocks that this call had to compute.
    blocks_run, blocks_kept : number of blocks of this share that this call computed, and of those that were
        finished before.
    missing : number of blocks of the whole job that are still missing.
    splits : how often a device ran out of memory, so that a smaller batch or window was computed instead.
    seconds : wall time of the call in seconds.
    """

    folder: Path
    plan: Plan
    shard: Shard
    blocks_run: int
    blocks_kept: int
    missing: int
    splits: int
    seconds: float


def save_job(
    folder: AnyPath,
    input: AnyPath,
    output: AnyPath,
    style: StyleArgument = None,
    options: Options | None = None,
    *,
    progress: Progress = silent,
    **changes: Any,
) -> Saved:
    """Plan a job, measure its input and freeze its network, and save all that in ``folder`` for workers.

    Parameters
    ----------
    folder : the job folder, on a file system that all workers share, or on an object store (``s3://...``).
    input, output, style, options, changes, progress : as for `stylize`.

    Raises
    ------
    UrstError : as `stylize`. The same call continues, and does not compute finished blocks again.
    """
    folder, input = path_of(folder), absolute(input)
    _refuse_made_here(style)
    options = _in_folder(Options.of(options, changes), folder)
    output = check_target(output, input, options)
    source, recipe, _, job, plan = open_job(input, output, style, options)
    if not options.overwrite:
        refuse_existing(output, job, plan, parts_of(plan, source, job), targets_of(source, output, options))
    clock = Clock()
    with job.locked():
        job.claim(plan.identity, overwrite=options.overwrite)
        if not _is_ready(job):
            _make_ready(job, plan, source, recipe, options, progress)
        request = Request(
            input, output, _styles(recipe), _without_look(options, source), plan, _digest(job.net)
        )
        job.writes([job.request, *parts_of(plan, source, job).paths()])
        publish(job.request, request.to_json())
    clock.lap("prepare and measure")
    return Saved(folder, plan, clock.laps)


def work_job(
    folder: AnyPath,
    shard: Shard | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    model: str | None = None,
    progress: Progress = silent,
) -> Worked:
    """Compute the missing blocks of a saved job, or those of them that belong to a share.

    Parameters
    ----------
    folder : the job folder that `save_job` prepared. Any number of processes may work in it at the same time,
        even on the same share.
    shard : the share of the blocks to compute (default: all of them).
    device : another device of the kind that was planned, as ``cuda:1``.
    threads : threads of torch. On a CPU the rounding of sums depends on this number, so that only the planned
        number is allowed.
    workers : number of processes on this machine (default: as planned).
    model : the network that was planned. It must be given, and be the same, if that is a function of yours
        ("package.module:function"): a job folder alone never names code that is run.
    progress : as for `stylize`.

    Raises
    ------
    JobDiffers : if the input or this machine is not what was planned, so that the bytes might differ.
    BadInput : if ``model`` is not what was planned, or is needed and not given.
    BlocksFailed : if some blocks failed repeatedly; the others are saved, and the next call tries again.
    """
    job, clock = Job(path_of(folder)), Clock()
    with job.shared():
        request = _load(job)
        _check_model(job, request.plan, model)
        plan = plan_here(request.plan, device, threads, workers)
        plan.validate(memory=request.options.memory or available_memory())
        source = same_source(request, job.source, progress)
        parts, own = parts_of(plan, source, job), shard or Shard()
        mine = own.of(len(plan.grid))
        missing = _turned([index for index in parts.missing() if index in mine])
        job.keep = True
        with cluster(workers=plan.workers, in_flight=plan.in_flight, device=plan.device) as on:
            image = level_of(job, plan, source, progress)
            task = SkipFinished(StylizeBlock(plan, image.without_metadata(), job.net, parts, model))
            receipts = on.run_all(
                task, missing, total=len(mine), progress=lambda done, of: progress("stylising", done, of)
            )
        made = [receipt for receipt in receipts if receipt is not None]
        clock.lap("blocks")
        return Worked(
            job.folder,
            plan,
            own,
            blocks_run=len(made),
            blocks_kept=len(mine) - len(made),
            missing=len(parts.missing()),
            splits=sum(receipt["splits"] for receipt in made),
            seconds=clock.laps["blocks"],
        )


def assemble_job(
    folder: AnyPath,
    output: AnyPath | None = None,
    *,
    overwrite: bool = False,
    starting: Callable[[Path], None] = lambda output: None,
    progress: Progress = silent,
) -> Report:
    """Write the output of a saved job from its blocks, and remove the job folder.

    Parameters
    ----------
    folder : the job folder.
    output : the file to write (default: the one that was given to `save_job`).
    overwrite : replace the output if it exists. An output that existed when the job was saved is no
        exception.
    starting : called with the path of the output before it is written.
    progress : as for `stylize`.

    Raises
    ------
    BadInput : if the output exists, unless ``overwrite`` is true or it has the same bytes already.
    JobError : if blocks are missing; the message names them.
    DamagedFile : if a block is damaged; it is removed, so that the next `work_job` computes it again.
    """
    job, clock = Job(path_of(folder)), Clock()
    before = _finished_before(job, output)
    if before is not None:
        return before
    job.require()
    with job.locked():
        request = _load(job)
        job.keep = True
        source = same_source(request, job.source, progress)
        target = check_target(
            _target(request, output),
            request.input,
            request.options,
            *_masks(request.options),
            *_style_files(request),
        )
        parts = parts_of(request.plan, source, job)
        _require(job, parts)
        job.writes(parts.paths())
        starting(target)
        with _explaining(job, target):
            finish(request.plan, source, job, target, request.options, progress, overwrite=overwrite)
        clock.lap("assemble")
        job.remove()
    outputs = outputs_of(source, target, request.options)
    return Report(target, request.plan, clock.laps, 0, len(request.plan.grid), 0, outputs)


def _masks(options: Options) -> list[Path]:
    """The files that say where something applies."""
    return [Path(one) for one in (options.mask, options.valid, options.aoi) if one is not None]


def _style_files(request: Request) -> list[str]:
    """The styles of a saved job, of which those that are no names are files."""
    return [style for style, _ in request.styles["mixture"]]


def _target(request: Request, output: AnyPath | None) -> Path:
    if output is None:
        return request.output
    if request.options.tiles == "same" or request.options.each is not None:
        return check_name(output, None)
    path, planned = check_output(output, format=request.options.format), FORMATS[request.plan.format]
    if written_format(path, request.options.format) is not planned:
        raise BadInput(
            f"the job was planned for {planned.title}, and {path.name} is no name of one: give a name that"
            f" ends in {planned.suffixes[0]}, or plan anew"
        )
    return path


def _finished_before(job: Job, output: AnyPath | None) -> Report | None:
    """What a call did that was killed while it removed the job folder; None if there was no such call."""
    try:
        request = Request.from_json(job.request)
    except FileNotFoundError:
        if job.last_request is None:
            return None
        request = Request.from_values(job.last_request, job.folder)
    except (OSError, JobDiffers):
        return None
    if job.identity is not None:
        return None
    return finished_before(_target(request, output), job, request.plan)


@contextmanager
def _explaining(job: Job, output: Path) -> Iterator[None]:
    """Say in errors of assembling how to go on with a saved job."""
    try:
        yield
    except DamagedFile as error:
        raise DamagedFile(
            f"{error.__cause__ or error}; what is damaged was removed: `urst-tiles work {job.folder}`"
            " makes it anew"
        ) from error
    except MissingFile:
        raise
    except BadInput as error:
        if not output.exists():
            raise
        raise BadInput(f"{error}; --output names another file") from error
    except FileNotFoundError as error:
        raise JobError(
            f"{job.folder} was removed while {output} was written ({error}): another process has assembled it"
        ) from error


@dataclass(frozen=True)
class SkipFinished:
    """A task that computes a block, unless another worker has finished it in the meantime."""

    task: StylizeBlock

    def __call__(self, index: int) -> dict[str, Any] | None:
        """Compute block ``index`` and return its receipt; None if the block is finished already."""
        return None if self.task.parts.is_done(index) else self.task(index)


def _turned(indexes: list[int]) -> list[int]:
    """``indexes``, rotated differently in each process: workers of the same share seldom meet at a block."""
    start = crc32(f"{socket.gethostname()} {os.getpid()}".encode()) % max(1, len(indexes))
    return indexes[start:] + indexes[:start]


def _in_folder(options: Options, folder: Path) -> Options:
    if options.job_dir is not None and path_of(options.job_dir) != folder:
        raise BadInput(f"--save {folder} names the job folder; leave --job-dir {options.job_dir} out")
    return replace(options, job_dir=folder)


def _refuse_made_here(style: StyleArgument) -> None:
    if isinstance(style, ModuleStyle) and only_here(style.model):
        raise BadInput(
            "a network handed over in Python is known to this process alone, and workers need others: give"
            " model='package.module:function'"
        )


def _without_look(options: Options, source: Source) -> Options:
    """The options without a look, whose network is in the job folder, and whose stretch they name instead:
    those who work on the job need not have its file."""
    if options.look is None:
        return options
    return replace(
        options, look=None, stretch=None if str(source.file_dtype) == "uint8" else source.stretch_text
    )


def _styles(recipe: Recipe) -> dict[str, Any]:
    pairs = [[str(style), weight] for style, weight in recipe.styles]
    return {"mixture": pairs} | ({"regions": list(recipe.regions)} if recipe.regions else {})


def _is_ready(job: Job) -> bool:
    """Whether the job was saved before, with the network that is in its folder now."""
    try:
        return Request.from_json(job.request).net == _digest(job.net)
    except (FileNotFoundError, DamagedFile, JobDiffers):
        return False


def _digest(path: Path) -> str:
    """The SHA-256 of a file of the job, in hex."""
    with open_file(path) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def _make_ready(
    job: Job, plan: Plan, source: Source, recipe: Recipe, options: Options, progress: Progress
) -> None:
    source = prepare(job, source, options, progress)
    image = paint_above(job, plan, source, recipe, options, run_job, progress)
    with cluster_of(plan, options, job, progress) as on:
        set_up(job, plan, image, recipe, options, on, progress)


def _load(job: Job) -> Request:
    """The saved request of a job that is ready for workers; JobError if the job is not ready."""
    try:
        request = Request.from_json(job.request)
        if different := contradictions(request.plan):
            raise JobDiffers(
                f"{job.request} was edited: in its plan {different}; save the job anew, with --overwrite"
            )
        if request.net == _digest(job.net) and job.identity == dict(request.plan.identity):
            return request
        reason = "its network or its job.json is not what was saved"
    except FileNotFoundError:
        reason = "it was not saved to its end"
    raise JobError(
        f"{job.folder} is not ready for workers ({reason}): `urst-tiles plan --save {job.folder}"
        " INPUT OUTPUT ...` makes it so, and keeps finished blocks"
    )


def _check_model(job: Job, plan: Plan, model: str | None) -> None:
    """Raise BadInput unless the user named the code that the job would run, and no other network."""
    planned = plan.identity["model"]
    if model is None and is_module(planned):
        raise BadInput(
            f"{job.folder} was planned with a function of the user, {planned}, which is run only if you name"
            f" it too: give --model {planned} if you wrote it or trust it"
        )
    if model not in (None, planned):
        raise BadInput(f"{job.folder} was planned with --model {planned}, got --model {model}")
    check_code(job.net, model)


def _require(job: Job, parts: Parts) -> None:
    """Raise JobError if blocks are missing."""
    missing = parts.missing()
    if not missing:
        return
    names = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if missing[10:] else "")
    raise JobError(
        f"{len(missing)} of {len(parts.grid)} blocks are missing ({names}): `urst-tiles work {job.folder}`"
        " makes them, then assemble again"
    )


def same_source(request: Request, folder: Path, progress: Progress) -> Source:
    """The input of a saved job, with the thumbnail in ``folder``; JobDiffers if the file has changed."""
    options = request.options
    source = open_input(request.input, options)
    identity = request.plan.identity
    before = {"fingerprint": identity["source"], "valid": identity.get("valid", "")}
    now = {"fingerprint": source.fingerprint, "valid": valid_said(source)}
    if before != now:
        raise JobDiffers(
            f"{request.input} is not the image that was planned:"
            f" {differences(before, now)}; put it back, or plan anew with --overwrite"
        )
    return source.prepare(folder, thumbnail=options.thumbnail, progress=progress)
