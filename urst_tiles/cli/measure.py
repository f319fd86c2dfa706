"""The command ``measure``: the statistics of many images, as a look file."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import add_command, add_json, add_option, add_styles, styles_of
from urst_tiles.cli.terminal import one_line, progress_for, say
from urst_tiles.errors import BadInput
from urst_tiles.options import TRANSFERS, Options

#: The options of a job that decide what is measured.
CHOICES = (
    "model", "method", "white", "weights", "alpha", "style_size", "statistics", "thumbnail", "overviews",
    "page", "channels", "bands", "level", "magnification", "stretch", "valid", "device", "threads",
)  # fmt: skip

#: Options of a job that no look can have; they are taken so that one sentence can refuse them.
REFUSED = ("mask", "stroke", "preserve_color", "look")


def add(commands: Any) -> None:
    """Add the command ``measure``."""
    text = (
        "measure many images once: with a painting network and --style a look for `stylize --look`, which"
        " paints all of them alike; with --model colour or stain what these take from references"
    )
    measure = add_command(
        commands, "measure", text,
        usage="urst-tiles measure INPUT... -o LOOK.safetensors --style STYLE [options]\n"
        "       urst-tiles measure INPUT... -o LOOK.json --model colour [options]",
    )  # fmt: skip
    measure.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="an image; several are measured as one, and references of colours count the same each",
    )  # fmt: skip
    measure.add_argument(
        "-o", "--output", required=True, metavar="LOOK",
        help="the file to write: .safetensors for a painting network, .json for colour and stain",
    )  # fmt: skip
    measure.add_argument("--overwrite", action="store_true", help="replace an existing LOOK")
    add_styles(measure)
    for name in (*CHOICES, *REFUSED):
        add_option(measure, name)
    add_json(measure)
    measure.set_defaults(run=run_measure)


def run_measure(arguments: argparse.Namespace) -> None:
    """Measure the images, write the look, and print a line about it."""
    from urst_tiles.api.output import check_output, refuse_inputs

    options = Options(**{name: getattr(arguments, name) for name in (*CHOICES, *REFUSED)}).for_looks()
    suffix = ".json" if options.network in TRANSFERS else ".safetensors"
    output = check_output(arguments.output, *arguments.inputs, suffixes=None)
    refuse_inputs(output, [("style", Path(one)) for one in arguments.style])
    if output.suffix.lower() != suffix:
        raise BadInput(
            f"a look of --model {options.network} is a {suffix} file: name it {output.stem}{suffix}, not"
            f" {output.name} (.json is for --model colour or stain, .safetensors for a painting network)"
        )
    if os.path.lexists(output) and not arguments.overwrite:
        raise BadInput(f"{output} exists; give --overwrite to make it anew, or choose another output")
    inputs = [Path(one) for one in arguments.inputs]
    made = _colours if options.network in TRANSFERS else _painting
    facts, said = made(arguments, output, inputs, options)
    if arguments.json:
        say(json.dumps({"output": str(output), "model": options.network, **facts, "images": len(inputs)}))
        return
    say(f"{one_line(output)}: the look of {len(inputs)} image(s) for {said}")


def _colours(
    arguments: argparse.Namespace, output: Path, inputs: list[Path], options: Options
) -> tuple[dict[str, Any], str]:
    """Write the look of a model that transfers colours; facts about it, and what it is for."""
    from urst_tiles.api.look import measure_look
    from urst_tiles.storage.publish import publish

    if arguments.style:
        raise BadInput(f"the references of --model {options.network} are INPUT; leave --style out")
    look = measure_look(inputs, options, progress=progress_for(arguments.json))
    publish(output, look.to_json().encode())
    return {"method": look.method}, f"--model {look.model} --method {look.method}"


def _painting(
    arguments: argparse.Namespace, output: Path, inputs: list[Path], options: Options
) -> tuple[dict[str, Any], str]:
    """Write the look of a painting network; facts about it, and what it is for."""
    from urst_tiles.api.painting_look import measure_painting_look, refuse_unfit

    refuse_unfit(options, None)
    look = measure_painting_look(inputs, styles_of(arguments), options, progress=progress_for(arguments.json))
    look.save(output)
    stretch = look.facts["stretch"]
    stretched = f", values stretched by {stretch}" if stretch else ""
    return {"stretch": stretch}, f"--look (--model {look.model}){stretched}"
