"""Running the jobs of a table: what is finished is left alone, what fails is listed, the others go on.

Beside each output lies its record, OUTPUT.json: what was *asked for* (the content of the input, of the
styles, mask and weights, and the options that decide pixels), and a fingerprint of the file that came of it.
A job is finished when its output is there, is still that file, and was made for the same request. The plan's
identity would not do: it names the machine and the versions of libraries too, and a new torch is no reason
to make a year's work again.

The record is written when a job starts (so that an output which appears just before a kill is known for what
it is) and completed when it ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from urst_tiles import weights
from urst_tiles.api.stylize import stylize
from urst_tiles.api.table import Entry
from urst_tiles.errors import BadInput, JobDiffers, UrstError
from urst_tiles.job.folder import Job
from urst_tiles.job.request import chosen
from urst_tiles.job.shard import Shard
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import recipe_of
from urst_tiles.source import open_source
from urst_tiles.source.identity import file_fingerprint
from urst_tiles.source.mask import open_mask
from urst_tiles.storage.publish import make_folder, publish

Status = Literal["done", "skipped", "failed"]

#: Options that decide where and how fast, or whose files are compared by content.
APART = ("weights", "mask", "device", "threads", "workers", "scheduler", "cluster", "memory")


@dataclass(frozen=True)
class Outcome:
    """How one job ended; ``error`` is the sentence of a failure."""

    entry: Entry
    status: Status
    seconds: float
    megapixels: float = 0.0
    error: str = ""


def run_batch(
    entries: Sequence[Entry],
    shard: Shard | None = None,
    *,
    overwrite: bool = False,
    starting: Callable[[int, int, Entry], None] = lambda number, total, entry: None,
    progress: Progress = silent,
) -> Iterator[Outcome]:
    """Run the jobs of ``read_table`` one after the other, or this shard's; yields each as it ends.

    Parameters
    ----------
    overwrite : make outputs anew that are there for another request, and jobs that are not finished.
    starting : called with (number, total, job) before each.
    progress : as `stylize` has it, for the job that runs.
    """
    mine = (shard or Shard()).of(len(entries))
    for number, index in enumerate(mine, 1):
        starting(number, len(mine), entries[index])
        yield _outcome(entries[index], overwrite, progress)


def _outcome(entry: Entry, overwrite: bool, progress: Progress) -> Outcome:
    started = time.perf_counter()

    def ended(status: Status, megapixels: float = 0.0, error: str = "") -> Outcome:
        return Outcome(entry, status, time.perf_counter() - started, megapixels, error)

    try:
        made = _run(entry, overwrite, progress)
        return ended("skipped") if made is None else ended("done", made)
    except UrstError as error:
        return ended("failed", error=str(error))
    except Exception as error:  # one job's misfortune is not the others'
        return ended("failed", error=f"{type(error).__name__}: {error}")


def _run(entry: Entry, overwrite: bool, progress: Progress) -> float | None:
    """Megapixels that were made; None where the output was finished before."""
    record, request = Record.beside(entry.output), request_of(entry)
    begun = record.request == request
    if begun and record.is_finished(entry.output):
        return None
    there, going_on = entry.output.exists(), begun and record.output is None
    if there and not going_on and not overwrite:
        raise BadInput(
            f"{entry.output} exists and is not what this request made; give --overwrite to replace it"
        )
    if overwrite or not going_on:
        make_folder(entry.output.parent)
        old = file_fingerprint(entry.output) if there else None
        record = Record(record.path, request, replaces=old).publish()
    # An output of before, without a job that goes on, is what an interrupted --overwrite was to replace.
    anew = overwrite or (there and Job.beside(entry.output).identity is None)
    try:
        report = stylize(
            entry.input, entry.output, entry.style, replace(entry.options, overwrite=anew), progress=progress
        )
    except UrstError as error:
        if error.exit_status == 2 and not there and not going_on:
            record.path.unlink(missing_ok=True)  # nothing was begun
        raise
    made = {"plan": dict(report.plan.identity), "seconds": dict(report.seconds)}
    replace(record, output=file_fingerprint(entry.output), made=made).publish()
    return report.plan.grid.image.area / 1e6


@dataclass(frozen=True)
class Record:
    """What lies beside an output.

    Attributes
    ----------
    request : what was asked for; None where there is no record.
    replaces : fingerprint of the file that was there before, to be overwritten.
    output : fingerprint of the finished file.
    made : for the reader: the plan's identity, and seconds by stage.
    """

    path: Path
    request: dict[str, Any] | None = None
    replaces: str | None = None
    output: str | None = None
    made: dict[str, Any] | None = None

    @classmethod
    def beside(cls, output: Path) -> Record:
        """The record of ``output``."""
        path = output.with_name(f"{output.name}.json")
        try:
            values = json.loads(path.read_text())
            return cls(path, values["request"], values["replaces"], values["output"], values["made"])
        except FileNotFoundError:
            return cls(path)
        except (ValueError, KeyError, TypeError) as error:
            raise JobDiffers(f"{path} is no record of {output.name} ({error!r}); move it away") from None

    def publish(self) -> Record:
        """Write it."""
        values = {
            "urst-tiles": version("urst-tiles"),
            "request": self.request,
            "replaces": self.replaces,
            "output": self.output,
            "made": self.made,
        }
        publish(self.path, json.dumps(values, indent=1).encode())
        return self

    def is_finished(self, output: Path) -> bool:
        """Whether ``output`` is what came of the request (an output appears only when it is whole)."""
        if not output.exists():
            return False
        now = file_fingerprint(output)
        return now == self.output if self.output else now != self.replaces


def request_of(entry: Entry) -> dict[str, Any]:
    """What a job asks for, as JSON has it; equal for jobs whose outputs are the same picture.

    Of a network of one's own (package.module:function) only the name is known.
    """
    options = entry.options
    source = open_source(
        entry.input, bands=options.bands, stretch=options.stretch, overviews=options.overviews
    )
    recipe = recipe_of(entry.style, options)
    styles = [[_content(style) if isinstance(style, Path) else style, w] for style, w in recipe.styles]
    folder = weights.place(options.model, options.weights) if options.model in weights.TABLE else None
    files = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    return {
        "source": source.fingerprint,
        "styles": styles,
        "regions": list(recipe.regions),
        "mask": open_mask(options.mask, source.shape).fingerprint if options.mask else None,
        "weights": {file.name: _content(file) for file in files if file.is_file()},
        "options": {name: value for name, value in chosen(options).items() if name not in APART},
    }


def _content(path: Path) -> str:
    """Fingerprint of a file, taken once for as long as it is not touched."""
    state = path.stat()
    return _fingerprint(path, state.st_size, state.st_mtime_ns)


@cache
def _fingerprint(path: Path, size: int, changed: int) -> str:
    return file_fingerprint(path)
