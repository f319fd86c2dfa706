"""The commands ``stylize``, ``plan`` (what stylize would do) and ``preview`` (its result in small).

What ``preview`` shows with ``--at`` and ``--styles`` is made by `urst_tiles.cli.place`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urst_tiles.cli import place
from urst_tiles.cli.arguments import add_command, add_options, add_styles, options_of, styles_of
from urst_tiles.cli.terminal import event, one_line, progress_for, say
from urst_tiles.errors import BadInput

if TYPE_CHECKING:
    from urst_tiles.api.stylize import Report
    from urst_tiles.plan import Plan

#: The help of INPUT.
INPUT = (
    "image to stylise: a file; or georeferenced files that are parts of one image, as a folder, a pattern in"
    " quotes ('tiles/*.tif'), or @LIST, a file with a path on each line"
)


def add(commands: Any) -> None:
    """Add the commands ``stylize``, ``plan`` and ``preview``."""
    tiff = (
        "what to write: a TIFF (.tif, or no suffix), or by its suffix .ome.tif, .ome.zarr, .dzi, .png, .jpg,"
        " .webp or .jp2; with --tiles same a folder; with --each a folder, or a name with {id} in it"
    )
    for name, run, text, written in (
        (
            "stylize",
            run_stylize,
            "stylise the image INPUT into OUTPUT, by default a pyramidal TIFF; if it is interrupted, the same"
            " command continues it",
            tiff,
        ),
        (
            "plan",
            run_plan,
            "print what stylize would do and need (blocks, memory, disk, time), without doing it",
            tiff,
        ),
        (
            "preview",
            run_preview,
            "stylise a thumbnail of the image INPUT, or with --at a place of it at full scale, into the PNG"
            " or JPEG file OUTPUT, in seconds",
            "file to write: .png, .jpg or .jpeg",
        ),
    ):
        usage = f"urst-tiles {name} INPUT OUTPUT --style STYLE [options]"
        command = add_command(commands, name, text, usage=usage)
        command.add_argument("input", metavar="INPUT", help=INPUT)
        command.add_argument("output", metavar="OUTPUT", help=written)
        add_styles(command)
        add_options(command)
        command.set_defaults(run=run)
        if name == "preview":
            place.add_place(command)
        if name == "plan":
            command.add_argument(
                "--save", metavar="JOB",
                help="prepare the job in the folder JOB (read INPUT, measure it, fix the network) for"
                " `urst-tiles work JOB` and `urst-tiles assemble JOB` on any machines that share the folder",
            )  # fmt: skip


def run_stylize(arguments: argparse.Namespace) -> None:
    """Stylise an image, and print a line about the result."""
    from urst_tiles.api.stylize import stylize

    progress = progress_for(arguments.json)
    report = stylize(
        arguments.input, arguments.output, styles_of(arguments), options_of(arguments), progress=progress
    )
    if arguments.json:
        event("done", **facts(report), blocks=report.blocks_run, kept=report.blocks_kept)
        return
    if not report.seconds:
        say(describe(report))
        return
    kept = f"; {report.blocks_kept} blocks were finished before" if report.blocks_kept else ""
    say(f"{describe(report)}, {report.plan.precision} on {report.plan.device}{kept}{split(report.splits)}")


def facts(report: Report) -> dict[str, Any]:
    """The facts about a finished output that ``--json`` prints; ``seconds`` is the time of each stage."""
    several = {"outputs": [str(path) for path in report.outputs]} if report.outputs else {}
    return {
        "output": str(report.output),
        **several,
        "seconds": dict(report.seconds),
        "splits": report.splits,
        "megapixels": report.plan.grid.made.area / 1e6,
    }


def describe(report: Report) -> str:
    """One line for people about a finished output: its size, the time, and the megapixels per second."""
    made, seconds = report.plan.grid.made, sum(report.seconds.values())
    size = f"{made.shape[1]} x {made.shape[0]}"
    if count := len(report.outputs):
        size = f"{count} file{'s' * (count > 1)} of features within {size}"
    if not report.seconds:
        return f"{one_line(report.output)}: {size}, is finished (by an earlier run)"
    rate = made.area / 1e6 / seconds
    return f"{one_line(report.output)}: {size}, {seconds:.1f} s ({rate:.2f} Mpx/s)"


def split(count: int) -> str:
    """A remark on how often memory ran out; empty if it never did."""
    return f"; memory ran out {count} times and was answered by smaller windows" if count else ""


def run_plan(arguments: argparse.Namespace) -> None:
    """Print the plan and a guess at its time; with ``--save`` prepare the job folder instead."""
    from urst_tiles.api.stylize import plan_job
    from urst_tiles.cli.terminal import clock

    if arguments.save:
        save_plan(arguments)
        return
    plan, seconds = plan_job(arguments.input, arguments.output, styles_of(arguments), options_of(arguments))
    if arguments.json:
        say(json.dumps(plan_facts(plan) | {"seconds": seconds}, default=str))
        return
    say(describe_plan(plan))
    say(f"{'time':12} about {clock(seconds)} on a machine like this (guessed from one window)")


def save_plan(arguments: argparse.Namespace) -> None:
    """Prepare the job folder that ``--save`` names, and print the plan."""
    from urst_tiles.api.shards import save_job

    progress = progress_for(arguments.json)
    saved = save_job(
        arguments.save, arguments.input, arguments.output, styles_of(arguments), options_of(arguments),
        progress=progress,
    )  # fmt: skip
    if arguments.json:
        event("saved", job=str(saved.folder), seconds=dict(saved.seconds), plan=plan_facts(saved.plan))
        return
    say(describe_plan(saved.plan))
    say(
        f"{'saved':12} {one_line(saved.folder)}; now `urst-tiles work` on any machines, then"
        " `urst-tiles assemble`"
    )


def plan_facts(plan: Plan) -> dict[str, Any]:
    """The fields of the plan, and the bytes that it needs, as ``--json`` prints them."""
    known = ("peak_bytes", "device_bytes", "disk_bytes", "expected_output_bytes")
    return asdict(plan) | {name: getattr(plan, name) for name in known}


def describe_plan(plan: Plan) -> str:
    """The plan for people, with one subject on each line."""
    from urst_tiles.pyramid.formats import FORMATS
    from urst_tiles.storage.publish import megabytes

    grid = plan.grid
    rows = {
        "image": f"{grid.width} x {grid.height} px, {plan.source_dtype} -> {plan.dtype} {plan.compression}",
        **({"region": f"{grid.part.xywh} (x,y,w,h)"} if grid.part else {}),
        **({"files": f"{plan.outputs}, one for each feature"} if plan.outputs else {}),
        "blocks": f"{len(grid)} of {grid.block} px, {plan.in_flight} in flight, {plan.workers} process(es)",
        "windows": f"{plan.forwards} of {grid.window[1]} x {grid.window[0]} px"
        f" (core {grid.core}, halo {grid.halo}, stride {grid.stride}), {plan.seam}",
        "statistics": f"{plan.statistics}, {plan.passes} pass(es)",
        "network": f"{plan.identity['model']}, {plan.precision} on {plan.device}, {plan.threads} thread(s)",
        "memory": f"at most {megabytes(plan.peak_bytes)}"
        + (f", device {megabytes(plan.device_bytes)}" if plan.device_bytes else ""),
        "disk": f"about {megabytes(plan.disk_bytes)} while it runs",
        "output": f"about {megabytes(plan.expected_output_bytes)}, {FORMATS[plan.format].title} (a guess,"
        " from photographs)",
        "fingerprint": plan.fingerprint[:16],
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())


def run_preview(arguments: argparse.Namespace) -> None:
    """Write the stylised thumbnail, or what ``--at`` and ``--styles`` ask for, as a PNG or JPEG file."""
    from tempfile import TemporaryDirectory

    from urst_tiles.api.output import PICTURE, check_output, refuse_inputs
    from urst_tiles.source.picture import write_picture
    from urst_tiles.storage.names import cut

    looks, options = place.looks_of(arguments), options_of(arguments)
    if options.each is not None:
        raise BadInput(
            "--each is for stylize and plan, and preview shows the area as one picture; leave it out"
        )
    output = check_output(arguments.output, arguments.input, suffixes=PICTURE)
    masks = [("mask", Path(one)) for one in (options.mask, options.valid, options.aoi) if one is not None]
    masks += [("look", options.look)] if options.look is not None else []
    refuse_inputs(output, [*(("style", Path(one)) for one in place.files_of(looks)), *masks])
    with TemporaryDirectory(dir=output.parent, prefix=f".{cut(output.name, 200)}.") as folder:
        pixels, said = place.pictures(arguments, looks, options, Path(folder))
    write_picture(output, pixels)
    if not arguments.json:
        say(f"{one_line(output)}: {pixels.shape[1]} x {pixels.shape[0]}{said}")
