"""The command ``balance``: georeferenced scenes made alike where they overlap."""

from __future__ import annotations

import argparse
from typing import Any

from urst_tiles.cli.arguments import HELP, add_command, add_json, add_option
from urst_tiles.cli.batch import Reporter, report, row
from urst_tiles.cli.terminal import event, one_line, say
from urst_tiles.options import Options

#: The options of a job that a balance takes.
READING = (
    "page",
    "channels",
    "bands",
    "level",
    "magnification",
    "stretch",
    "valid",
    "overviews",
    "thumbnail",
)
WRITING = (
    "alpha", "dtype", "format", "compression", "quality", "predictor", "blocksize", "overview_resampling",
    "bigtiff", "provenance", "overwrite",
)  # fmt: skip
RUNNING = ("block", "tile", "device", "threads", "memory", "workers", "cluster", "scheduler")


def add(commands: Any) -> None:
    """Add the command ``balance``."""
    parser = add_command(
        commands, "balance",
        "make georeferenced scenes alike where they overlap, by a gain and an offset for each scene and"
        " channel from one solve over all overlaps, and write each of them into a folder; the same command"
        " again does what is left",
        usage="urst-tiles balance SCENE... -o FOLDER [--reference FILE] [options]",
    )  # fmt: skip
    parser.add_argument(
        "scenes", nargs="+", metavar="SCENE",
        help="a georeferenced image; or a folder, a pattern in quotes or @LIST, whose files are scenes",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER",
        help="the folder of the outputs, with balance.json, the table of gains, offsets and overlaps",
    )  # fmt: skip
    parser.add_argument(
        "--reference", metavar="FILE",
        help="the scene that keeps its colours, or another georeferenced image whose colours all get"
        " (default: the mean of all scenes)",
    )  # fmt: skip
    parser.add_argument(
        "--method", default="mean-std", metavar="{mean-std,gain}",
        help="mean-std solves for a gain and an offset of each scene and channel, gain for a gain alone"
        " (default: mean-std)",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=float, metavar="X",
        help="side of the cells in which scenes are compared, in units of the reference system of the"
        " reference, or of the first scene (default: about 4 pixels, or more for large scenes)",
    )  # fmt: skip
    assert set(HELP) >= {*READING, *WRITING, *RUNNING}
    for title, names in (("reading", READING), ("writing", WRITING), ("where and how it runs", RUNNING)):
        group = parser.add_argument_group(title)
        for name in names:
            add_option(group, name)
    add_json(parser, "print progress, every job and the result as JSON lines on stdout")
    parser.set_defaults(run=run_balance)


def run_balance(arguments: argparse.Namespace) -> int:
    """Balance the scenes, print the summary, and return the exit status: 1 if a scene failed, else 0."""
    from urst_tiles.api.balance import balance

    options = Options(**{name: getattr(arguments, name) for name in (*READING, *WRITING, *RUNNING)})
    reporter = Reporter(arguments.json)
    made = balance(
        arguments.scenes,
        arguments.output,
        options,
        reference=arguments.reference,
        method=arguments.method,
        resolution=arguments.resolution,
        starting=reporter.starting,
        progress=reporter.progress,
    )
    before, after = made.table.seams
    if arguments.json:
        for outcome in made.outcomes:
            event("job", **row(outcome))
        event("balance", table=str(made.path), before=before, after=after)
    status = report(list(made.outcomes), arguments.json)
    if not arguments.json:
        say(f"gains, offsets and overlaps: {one_line(made.path)}")
    return status
