"""The command ``learn``: the style of one painting, as a style file for ``--model painter``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import HELP, add_command, add_json
from urst_tiles.cli.terminal import one_line, progress_for, say


def add(commands: Any) -> None:
    """Add the command ``learn``."""
    text = (
        "learn the style of a painting of yours, for --model painter, in some minutes; the file that it"
        " writes, some 150 kB, is a --style"
    )
    usage = "urst-tiles learn PAINTING -o MY.style [options]"
    learn = add_command(commands, "learn", text, usage=usage)
    learn.add_argument("painting", metavar="PAINTING", help="an image of the painting")
    learn.add_argument("-o", "--output", required=True, metavar="MY.style", help="the style file to write")
    learn.add_argument("--overwrite", action="store_true", help="replace an existing MY.style")
    ends = learn.add_mutually_exclusive_group()
    ends.add_argument(
        "--minutes", type=float, default=10.0, metavar="N",
        help="how long to learn (default: 10); after a stop the same command goes on with what is left",
    )  # fmt: skip
    ends.add_argument(
        "--steps", type=int, metavar="N",
        help="how many steps to take instead; as many give the same style again, to the byte",
    )  # fmt: skip
    learn.add_argument(
        "--content", type=Path, metavar="FOLDER",
        help="photographs to learn on, up to 100 of the folder (default: a made-up scene)",
    )  # fmt: skip
    learn.add_argument(
        "--teacher", type=Path, metavar="FILE",
        help="the loss network, VGG-16, as a .pth of torchvision or as safetensors (default: what"
        " `urst-tiles weights fetch vgg16` downloaded, 528 MB)",
    )  # fmt: skip
    learn.add_argument("--weights", type=Path, metavar="PATH", help=HELP["weights"])
    learn.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default: 0)"
    )
    learn.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads (default: one per core)"
    )
    add_json(learn)
    learn.set_defaults(run=run_learn)


def run_learn(arguments: argparse.Namespace) -> None:
    """Learn the style, and print a line about it."""
    from urst_tiles.api.learn import learn

    names = ("content", "teacher", "weights", "minutes", "steps", "seed", "threads", "overwrite")
    given = {name: getattr(arguments, name) for name in names}
    made = learn(arguments.painting, arguments.output, **given, progress=progress_for(arguments.json))
    if arguments.json:
        facts = {"start": made.start, "steps": made.steps, "distances": [made.first, made.last]}
        say(json.dumps({"output": str(made.output), **facts}))
        return
    start = "from what was predicted of it" if made.start == "prediction" else "from the mean of all styles"
    say(
        f"{one_line(made.output)}: {made.steps} steps {start}, style distance {made.first:.2f} at first,"
        f" {made.last:.2f} now; paint with --model painter --style {one_line(made.output)}"
    )
