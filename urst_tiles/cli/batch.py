"""The command ``run``: the jobs of a table, one after the other, and a summary of how they ended."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urst_tiles.cli.arguments import add_command, add_json
from urst_tiles.cli.shards import SHARD
from urst_tiles.cli.terminal import clock, complain, event, one_line, progress_for, say
from urst_tiles.job.shard import Shard
from urst_tiles.progress import Progress

if TYPE_CHECKING:
    from urst_tiles.api.batch import BatchOutcome
    from urst_tiles.api.table import BatchJob

#: The columns of the CSV file that ``--summary`` names, and the facts of a job with ``--json``.
COLUMNS = ("status", "input", "style", "output", "seconds", "megapixels", "error")


def add(commands: Any) -> None:
    """Add the command ``run``."""
    run = add_command(
        commands, "run",
        "run all jobs of a TOML table, many images in many styles; the same command again does what is left",
    )  # fmt: skip
    run.add_argument(
        "table", type=Path, metavar="JOBS.toml", help="the table of jobs; README.md describes it"
    )
    run.add_argument("--shard", metavar="I/N", help=SHARD)
    run.add_argument("--summary", metavar="CSV", help="also write the table of results to this file")
    run.add_argument(
        "--cohort", metavar="FILE",
        help="of jobs with --model colour or stain, also write how far each image was moved and which stand"
        " out, as CSV or, if the name ends in .json, as JSON",
    )  # fmt: skip
    run.add_argument(
        "--overwrite", action="store_true",
        help="replace outputs that were made from other inputs or options, and start unfinished jobs again",
    )  # fmt: skip
    run.add_argument(
        "--model", action="append", default=[], metavar="PACKAGE.MODULE:FUNCTION",
        help="a function of yours that the table may name as its model, repeated for several; no table can"
        " make this command run code that is not named here",
    )  # fmt: skip
    add_json(run, "print progress, every job and the result as JSON lines on stdout")
    run.set_defaults(run=run_table)


def run_table(arguments: argparse.Namespace) -> int:
    """Run the jobs of the table, print the summary, and return the exit status: 1 if a job failed, else 0."""
    shard = Shard.parse(arguments.shard) if arguments.shard else None
    from urst_tiles.api.batch import run_batch
    from urst_tiles.api.output import check_output
    from urst_tiles.api.table import files_named, read_table

    entries = read_table(arguments.table, arguments.model)
    if arguments.summary:
        others = [path for entry in entries for path in (entry.input, entry.output, *files_named(entry))]
        arguments.summary = check_output(arguments.summary, arguments.table, *others, suffixes=None)
    if arguments.cohort:
        arguments.cohort = check_output(arguments.cohort, arguments.table, suffixes=None)
    reporter = Reporter(arguments.json)
    outcomes: list[BatchOutcome] = []
    try:
        for outcome in run_batch(
            entries,
            shard,
            overwrite=arguments.overwrite,
            starting=reporter.starting,
            progress=reporter.progress,
        ):
            outcomes.append(outcome)
            if arguments.json:
                event("job", **row(outcome))
    finally:
        if arguments.summary:
            _write_csv(arguments.summary, outcomes)
    status = report(outcomes, arguments.json)
    _report_cohorts(outcomes, arguments.cohort, arguments.json)
    return status


def _report_cohorts(outcomes: list[BatchOutcome], path: Path | None, as_json: bool) -> None:
    """Print how far the colours of the images were moved and which stand out, and write it to a file."""
    from urst_tiles.api.cohort import cohorts_of, report_text
    from urst_tiles.storage.publish import publish

    cohorts = cohorts_of(outcomes)
    if path is not None:
        publish(path, report_text(cohorts, path).encode("utf-8", "surrogateescape"))
    for cohort in cohorts:
        if as_json:
            rows = [image.row() for image in cohort.images]
            event("cohort", cohort=cohort.name, images=rows, outliers=len(cohort.outliers))
        else:
            say("\n".join(map(one_line, cohort.summary())))


class Reporter:
    """Reports progress, with the number of the job that is running and the name of its output."""

    def __init__(self, as_json: bool) -> None:
        self._inner: Progress = progress_for(as_json)
        self._prefix = ""

    def starting(self, number: int, total: int, entry: BatchJob) -> None:
        self._prefix = f"{number}/{total} {entry.output.name}: "

    def progress(self, stage: str, done: int, total: int) -> None:
        self._inner(self._prefix + stage, done, total)


def row(outcome: BatchOutcome) -> dict[str, Any]:
    """How a job ended: a value for each name in `COLUMNS`."""
    entry = outcome.entry
    values = (
        outcome.status, str(entry.input), entry.style_name, str(entry.output), round(outcome.seconds, 3),
        round(outcome.megapixels, 6), outcome.error,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _write_csv(path: Path, outcomes: list[BatchOutcome]) -> None:
    from urst_tiles.storage.publish import publish

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(row, outcomes))
    publish(path.absolute(), text.getvalue().encode("utf-8", "surrogateescape"))


def report(outcomes: list[BatchOutcome], as_json: bool) -> int:
    """Print the summary on stdout and the errors on stderr; return the exit status."""
    count = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
    if as_json:
        event("done", **count, seconds=sum(o.seconds for o in outcomes))
    else:
        say(summary(outcomes, count))
    for outcome in outcomes:
        if outcome.error:
            complain(f"{outcome.entry}: {outcome.error}")
    return 1 if count["failed"] else 0


def summary(outcomes: list[BatchOutcome], count: dict[str, int]) -> str:
    """The summary as text: a line for each job, and a line with the number of jobs by how they ended."""
    width = max((len(one_line(o.entry.input.name)) for o in outcomes), default=0)
    styles = max((len(one_line(o.entry.style_name)) for o in outcomes), default=0)
    lines = [
        f"{o.status:8} {clock(o.seconds):>8} {o.megapixels:9.1f} Mpx  {one_line(o.entry.input.name):{width}}"
        f"  {one_line(o.entry.style_name):{styles}}  {one_line(o.entry.output)}"
        for o in outcomes
    ]
    total = f"{count['done']} done, {count['skipped']} were done before, {count['failed']} failed"
    again = "; the same command tries these again" if count["failed"] else ""
    return "\n".join([*lines, total + again])
