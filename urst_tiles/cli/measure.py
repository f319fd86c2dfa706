"""The command ``measure``: the statistics of reference images, as a look file."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import add_command, add_json, add_option
from urst_tiles.cli.terminal import one_line, progress_for, say
from urst_tiles.errors import BadInput
from urst_tiles.options import Options

#: The options of a job that decide what is measured.
CHOICES = ("model", "method", "white", "statistics", "thumbnail", "overviews", "channels", "bands", "stretch")


def add(commands: Any) -> None:
    """Add the command ``measure``."""
    text = "measure what --model colour or --model stain takes from a reference, into a look file for --style"
    measure = add_command(
        commands, "measure", text, usage="urst-tiles measure INPUT... -o LOOK.json --model colour [options]"
    )
    measure.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="a reference image; several count the same"
    )
    measure.add_argument("-o", "--output", required=True, metavar="LOOK", help="the file to write: .json")
    measure.add_argument("--overwrite", action="store_true", help="replace an existing LOOK")
    for name in CHOICES:
        add_option(measure, name)
    add_json(measure)
    measure.set_defaults(run=run_measure)


def run_measure(arguments: argparse.Namespace) -> None:
    """Measure the references, write the look, and print a line about it."""
    from urst_tiles.api.look import measure_look
    from urst_tiles.api.output import check_output
    from urst_tiles.storage.publish import publish

    output = check_output(arguments.output, *arguments.inputs, suffixes=None)
    if output.suffix.lower() != ".json":
        raise BadInput(f"a look is a .json file; name it {output.stem}.json, not {output.name}")
    if os.path.lexists(output) and not arguments.overwrite:
        raise BadInput(f"{output} exists; give --overwrite to make it anew, or choose another output")
    options = Options(**{name: getattr(arguments, name) for name in CHOICES})
    look = measure_look(
        [Path(one) for one in arguments.inputs], options, progress=progress_for(arguments.json)
    )
    publish(output, look.to_json().encode())
    facts = {"output": str(output), "model": look.model, "method": look.method, "images": len(look.sources)}
    if arguments.json:
        say(json.dumps(facts))
        return
    made = f"--model {look.model} --method {look.method}"
    say(f"{one_line(output)}: the look of {len(look.sources)} image(s) for {made}")
