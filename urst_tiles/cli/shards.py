"""``work`` and ``assemble``: a job that ``plan --save`` saved, on machines that share its folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from urst_tiles.cli.arguments import HELP, add_json
from urst_tiles.cli.stylize import describe, facts, split
from urst_tiles.cli.terminal import event, progress_for, say
from urst_tiles.job.shard import Shard

if TYPE_CHECKING:
    from urst_tiles.api.shards import Worked

SHARD = "the I-th of N shares, counted from 1; without it: all"


def add(commands: Any) -> None:
    """The parsers."""
    text = "make the missing blocks of a job that `plan --save` saved; as many at once as you like"
    work = commands.add_parser("work", help=text, description=text)
    work.add_argument("--shard", metavar="I/N", help=SHARD)
    work.add_argument("--device", help="another of the plan's kind, as cuda:1")
    work.add_argument("--threads", type=int, metavar="INT", help="torch threads; on a CPU the plan's alone")
    work.add_argument("--workers", type=int, metavar="INT", help=HELP["workers"] + " (default: the plan's)")
    work.set_defaults(run=run_work)
    text = "make the output of a job from its blocks, and remove the job's folder"
    assemble = commands.add_parser("assemble", help=text, description=text)
    assemble.set_defaults(run=run_assemble)
    for command in (work, assemble):
        command.add_argument("job", metavar="JOB", help="its folder, or s3://bucket/folder")
        add_json(command, "progress and result as JSON lines on stdout")


def run_work(arguments: argparse.Namespace) -> None:
    """``urst-tiles work``."""
    shard = Shard.parse(arguments.shard) if arguments.shard else None
    from urst_tiles.api.shards import work_job

    done = work_job(
        arguments.job, shard, device=arguments.device, threads=arguments.threads, workers=arguments.workers,
        progress=progress_for(arguments.json),
    )  # fmt: skip
    if arguments.json:
        event(
            "done",
            job=str(done.folder),
            shard=str(done.shard),
            blocks=done.blocks_run,
            kept=done.blocks_kept,
            missing=done.missing,
            splits=done.splits,
            seconds={"blocks": done.seconds},
        )
        return
    say(f"{done.folder}: {describe_work(done)}{split(done.splits)}")


def describe_work(done: Worked) -> str:
    """What one worker did, and what is left."""
    total = len(done.plan.grid)
    left = (
        f"{done.missing} of {total} are missing" if done.missing else f"all {total} are there, assemble them"
    )
    made = f"{done.blocks_run} blocks made in {done.seconds:.1f} s, {done.blocks_kept} were there"
    return f"shard {done.shard}: {made}; {left}"


def run_assemble(arguments: argparse.Namespace) -> None:
    """``urst-tiles assemble``."""
    from urst_tiles.api.shards import assemble_job

    report = assemble_job(arguments.job, progress=progress_for(arguments.json))
    if arguments.json:
        event("done", **facts(report), blocks=report.blocks_run, kept=report.blocks_kept)
        return
    say(describe(report))
