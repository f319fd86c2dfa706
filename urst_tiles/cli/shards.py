"""The commands ``work`` and ``assemble``: run a job that ``plan --save`` prepared, on machines that share its
folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urst_tiles.cli.arguments import add_command, add_json
from urst_tiles.cli.stylize import describe, facts, split
from urst_tiles.cli.terminal import event, one_line, progress_for, say
from urst_tiles.job.shard import Shard

if TYPE_CHECKING:
    from urst_tiles.api.shards import Worked

#: The help of ``--shard``.
SHARD = "do only share I of N equal shares, counted from 1 (default: everything)"


def add(commands: Any) -> None:
    """Add the commands ``work`` and ``assemble``."""
    work = add_command(
        commands, "work",
        "compute the missing blocks of a job that `urst-tiles plan --save` prepared; any number of"
        " processes may do this at once",
    )  # fmt: skip
    work.add_argument("--shard", metavar="I/N", help=SHARD)
    work.add_argument(
        "--device", metavar="DEVICE", help="another device of the kind that was planned, for example cuda:1"
    )
    work.add_argument(
        "--threads", type=int, metavar="N",
        help="threads of the network; on a CPU only the number that was planned gives the same bytes",
    )  # fmt: skip
    work.add_argument(
        "--workers", type=int, metavar="N",
        help="number of processes on this machine, each on a GPU of its own with --device cuda (default: as"
        " planned)",
    )  # fmt: skip
    work.add_argument(
        "--model", metavar="PACKAGE.MODULE:FUNCTION",
        help="the function of yours that the job was planned with; no job folder can make this command run"
        " code that is not named here",
    )  # fmt: skip
    work.set_defaults(run=run_work)
    assemble = add_command(
        commands,
        "assemble",
        "write the output of a job whose blocks are all finished, and remove the job folder",
    )
    assemble.add_argument(
        "--output", metavar="OUTPUT", help="file to write (default: the one that was planned)"
    )
    assemble.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing OUTPUT, also if it came into being after the job was planned",
    )
    assemble.set_defaults(run=run_assemble)
    for command in (work, assemble):
        command.add_argument("job", metavar="JOB", help="the job folder, possibly as s3://bucket/folder")
        add_json(command, "print progress and the result as JSON lines on stdout")


def run_work(arguments: argparse.Namespace) -> None:
    """Compute missing blocks, and print how many were computed and how many are still missing."""
    shard = Shard.parse(arguments.shard) if arguments.shard else None
    from urst_tiles.api.shards import work_job

    done = work_job(
        arguments.job, shard, device=arguments.device, threads=arguments.threads, workers=arguments.workers,
        model=arguments.model, progress=progress_for(arguments.json),
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
    say(f"{one_line(done.folder)}: {describe_work(done)}{split(done.splits)}")


def describe_work(done: Worked) -> str:
    """One line for people: how many blocks this call computed, and how many are still missing."""
    total = len(done.plan.grid)
    left = (
        f"{done.missing} of {total} are missing" if done.missing else f"all {total} are there, assemble them"
    )
    made = f"{done.blocks_run} blocks made in {done.seconds:.1f} s, {done.blocks_kept} were there"
    return f"shard {done.shard}: {made}; {left}"


def run_assemble(arguments: argparse.Namespace) -> None:
    """Write the output of a job from its blocks; print a line about where it will be, and one about it."""
    from urst_tiles.api.shards import assemble_job

    def starting(output: Path) -> None:
        if not arguments.json:
            say(f"{one_line(arguments.job)}: all blocks are there, writing {one_line(output)}")

    report = assemble_job(
        arguments.job,
        arguments.output,
        overwrite=arguments.overwrite,
        starting=starting,
        progress=progress_for(arguments.json),
    )
    if arguments.json:
        event("done", **facts(report), blocks=report.blocks_run, kept=report.blocks_kept)
        return
    say(describe(report))
