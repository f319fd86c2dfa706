"""Running the jobs of a table: finished jobs are skipped, and a job that fails does not stop the others.

Beside each output lies a record of it, OUTPUT.json. The record holds the request, that is, the content of the
input, of the styles, of the mask and of the weights, and the options that decide pixels; and it holds a
fingerprint of the output. A job is finished if its output exists, has this fingerprint, and was made for the
same request. The identity of the plan would not do instead of the request: it also names the machine and the
versions of libraries, and a new version of torch is no reason to compute the work of a year again.

The record is written when a job starts, so that an output that appears just before the process is killed can
be recognised, and completed when the job ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from urst_tiles import weights
from urst_tiles.api.opening import open_input
from urst_tiles.api.output import check_output
from urst_tiles.api.stylize import Opening, read_files, stylize_on
from urst_tiles.api.table import BatchJob
from urst_tiles.errors import BadInput, JobDiffers, UrstError
from urst_tiles.job.folder import Job
from urst_tiles.job.request import chosen
from urst_tiles.job.shard import Shard
from urst_tiles.options import Options
from urst_tiles.planning import valid_said
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid import validate
from urst_tiles.recipe import recipe_of
from urst_tiles.source.identity import Content, content_of, file_fingerprint
from urst_tiles.source.mask import open_mask
from urst_tiles.storage.names import beside
from urst_tiles.storage.publish import make_folder, publish, refuse_special, remove_dead_attempts
from urst_tiles.workers.run import SharedCluster

Status = Literal["done", "skipped", "failed"]

#: Options that are not compared by value: they decide where and how fast a job runs, or name files, which are
#: compared by content.
APART = (
    "weights", "look", "mask", "valid", "aoi", "device", "threads", "workers", "scheduler", "cluster",
    "memory",
)  # fmt: skip


@dataclass(frozen=True)
class BatchOutcome:
    """How a job ended, its wall time in seconds, and the megapixels that it computed.

    ``error`` is the error message of a job that failed. ``moved`` says how far a model that transfers
    colours moved them (`urst_tiles.engine.moved`); it is empty for other models, and for outputs that older
    versions made.
    """

    entry: BatchJob
    status: Status
    seconds: float
    megapixels: float = 0.0
    error: str = ""
    moved: Mapping[str, Any] = field(default_factory=dict)


def run_batch(
    entries: Sequence[BatchJob],
    shard: Shard | None = None,
    *,
    overwrite: bool = False,
    starting: Callable[[int, int, BatchJob], None] = lambda number, total, entry: None,
    progress: Progress = silent,
) -> Iterator[BatchOutcome]:
    """Run jobs one after the other, and yield how each of them ended.

    Jobs that want the same workers share one dask cluster.

    Parameters
    ----------
    entries : the jobs, as `read_table` returns them.
    shard : the share of the jobs to run (default: all of them).
    overwrite : replace outputs that were made for another request, and start unfinished jobs again.
    starting : called before each job with its number within the share, the number of jobs of the share, and
        the job.
    progress : as for `stylize`, with the progress of the job that is running.
    """
    mine = (shard or Shard()).of(len(entries))
    with SharedCluster() as shared:
        for number, index in enumerate(mine, 1):
            starting(number, len(mine), entries[index])
            yield _outcome(entries[index], overwrite, shared, progress)


def _outcome(entry: BatchJob, overwrite: bool, opening: Opening, progress: Progress) -> BatchOutcome:
    started = time.perf_counter()

    def ended(status: Status, megapixels: float = 0.0, error: str = "", **more: Any) -> BatchOutcome:
        return BatchOutcome(entry, status, time.perf_counter() - started, megapixels, error, **more)

    try:
        megapixels, moved = _run(entry, overwrite, opening, progress)
        if megapixels is None:
            return ended("skipped", moved=moved)
        return ended("done", megapixels, moved=moved)
    except UrstError as error:
        return ended("failed", error=str(error))
    except Exception as error:  # a job that fails must not stop the others
        return ended("failed", error=f"{type(error).__name__}: {error}")


def _run(
    entry: BatchJob, overwrite: bool, opening: Opening, progress: Progress
) -> tuple[float | None, Mapping[str, Any]]:
    """Run one job and return the megapixels that were computed, None if the job was finished before; and how
    far colours were moved."""
    output = check_output(entry.output, entry.input, makes_folder=True, format=entry.options.format)
    entry = replace(entry, output=output)
    record, job = Record.beside(entry.output), Job.beside(entry.output)
    request, files = _asked(entry)
    content = content_of(files, record.content, progress)
    begun = record.request == request and record.was_made_from(content)
    going_on = begun and record.output is None
    held = going_on and _is_in_work(job)
    # As long as the job folder is there, an output may be somebody else's; assembling finds out.
    if begun and not held and record.is_finished(entry.output):
        if job.ended is not None:
            job.bury()
        if record.content != content:
            replace(record, content=content).publish()  # the same bytes at another time: read once
        return None, (record.made or {}).get("moved", {})
    old = output_fingerprint(entry.output) if entry.output.exists() else None
    replaced = old is not None and (overwrite or (going_on and old == record.replaces))
    if old is not None and not replaced and not held:
        raise BadInput(
            f"{entry.output} exists and is not what this request made; give --overwrite to replace it"
        )
    if overwrite or not going_on:
        make_folder(entry.output.parent)
        record = Record(record.path, request, content, replaces=old).publish()
    # An output without a job folder is what an interrupted call with --overwrite was about to replace.
    anew = overwrite or (replaced and not held)
    options = replace(entry.options, overwrite=anew)
    try:
        report = stylize_on(
            entry.input,
            entry.output,
            entry.style,
            options,
            replace=replaced,
            opening=opening,
            progress=progress,
        )
    except UrstError as error:
        if error.exit_status == 2 and old is None and not going_on:
            record.path.unlink(missing_ok=True)  # the job did not begin
        raise
    made = {"plan": dict(report.plan.identity), "seconds": dict(report.seconds)}
    if report.moved:
        made["moved"] = dict(report.moved)
    replace(record, output=output_fingerprint(entry.output), made=made).publish()
    return report.plan.grid.made.area / 1e6, report.moved


def _is_in_work(job: Job) -> bool:
    """Whether the job folder holds a job, be it a damaged one."""
    try:
        return job.identity is not None
    except JobDiffers:
        return True


@dataclass(frozen=True)
class Record:
    """The record of an output, in a JSON file beside it.

    Attributes
    ----------
    path : the JSON file.
    request : what was asked for, as `request_of` returns it; None if there is no record yet.
    content : every byte of the files that were read; None in older records.
    replaces : fingerprint of an older file at the path of the output, which the job replaces.
    output : fingerprint of the finished output; None before the job has ended.
    made : how the output was made, for people who read the record: the identity of the plan, and the seconds
        of each stage.
    """

    path: Path
    request: dict[str, Any] | None = None
    content: Content | None = None
    replaces: str | None = None
    output: str | None = None
    made: dict[str, Any] | None = None

    @classmethod
    def beside(cls, output: Path) -> Record:
        """The record of ``output``; without a request if there is none. JobDiffers if it cannot be read."""
        path = beside(output, ".json")
        refuse_special(path)
        try:
            values = json.loads(path.read_text())
            content = Content.from_json(values.get("content"))
            return cls(
                path, values["request"], content, *(values[key] for key in ("replaces", "output", "made"))
            )
        except FileNotFoundError:
            return cls(path)
        except (ValueError, KeyError, TypeError) as error:
            raise JobDiffers(f"{path} is no record of {output.name} ({error!r}); move it away") from None

    def publish(self) -> Record:
        """Write the record into its file, and return it."""
        values = {
            "urst-tiles": version("urst-tiles"),
            "request": self.request,
            "content": self.content and self.content.to_json(),
            "replaces": self.replaces,
            "output": self.output,
            "made": self.made,
        }
        remove_dead_attempts(self.path.parent, self.path.name)
        publish(self.path, json.dumps(values, indent=1).encode())
        return self

    def was_made_from(self, content: Content) -> bool:
        """Whether the files that are read have the bytes that they had when the record was made."""
        return self.content is None or self.content.digest == content.digest

    def is_finished(self, output: Path) -> bool:
        """Whether the file ``output`` is the result of the request.

        If the job was killed before it completed the record, any new file is that is a valid pyramid, since
        an output appears only when it is complete.
        """
        if not output.exists():
            return False
        now = output_fingerprint(output)
        if self.output:
            return now == self.output
        return now != self.replaces and validate(output, deep=False).valid


def output_fingerprint(output: Path) -> str:
    """The fingerprint of an output; of a folder, that of the file in it which describes it."""
    if not output.is_dir():
        return file_fingerprint(output)
    names = [output / name for name in ("zarr.json", "info.json")]
    return next((file_fingerprint(path) for path in names if path.is_file()), "folder")


def _weights(options: Options) -> list[Path]:
    """The files of the weights of a network that has a folder of them."""
    if options.look is not None or options.network not in weights.TABLE:
        return []
    folder = weights.model_folder(options.network, options.weights)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.is_file()]


def request_of(entry: BatchJob) -> dict[str, Any]:
    """What a job asks for, in a form that JSON can hold; equal requests give the same picture.

    Of a network that a function of the user returns (``package.module:function``) only the name is compared.
    """
    return _asked(entry)[0]


def _asked(entry: BatchJob) -> tuple[dict[str, Any], list[Path]]:
    """The request of a job, and the files that it reads and that may be edited: its input, style images, mask
    and weights."""
    options = entry.options
    source = open_input(entry.input, options)
    recipe = recipe_of(entry.style, options)
    weight_files = _weights(options)
    mask = open_mask(options.mask, source, options.mask_attribute) if options.mask else None
    request = {
        "source": source.fingerprint,
        "styles": [[_content(style) if isinstance(style, Path) else style, w] for style, w in recipe.styles],
        "regions": list(recipe.regions),
        "mask": mask.fingerprint if mask else None,
        **({"valid": valid_said(source)} if source.areas else {}),
        "weights": {file.name: _content(file) for file in weight_files},
        "options": {name: value for name, value in chosen(options).items() if name not in APART},
    }
    files = [path for _, path in read_files(source, recipe, options)]
    return request, [*files, *weight_files]


def _content(path: Path) -> str:
    """Fingerprint of the content of a file, computed again only after the file has changed."""
    state = path.stat()
    return _fingerprint(path, state.st_size, state.st_mtime_ns)


@cache
def _fingerprint(path: Path, size: int, changed: int) -> str:
    return file_fingerprint(path)
