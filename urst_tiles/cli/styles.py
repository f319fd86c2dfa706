"""The command ``styles``: the named styles of the networks lite and painter, as a list and a picture."""

from __future__ import annotations

import argparse
from typing import Any

from urst_tiles.cli.arguments import add_command
from urst_tiles.cli.terminal import one_line, say
from urst_tiles.errors import BadInput


def add(commands: Any) -> None:
    """Add the command ``styles``."""
    styles = add_command(commands, "styles", "list the named styles of --model lite and painter")
    styles.add_argument(
        "--sheet", metavar="FILE", help="also write a picture in all styles to this PNG or JPEG file"
    )
    styles.add_argument("--input", metavar="IMAGE", help="the picture for --sheet (default: a made-up scene)")
    styles.add_argument(
        "--model", metavar="MODEL", help="the network that paints --sheet, painter or lite (default: painter)"
    )
    styles.add_argument("--labels", action="store_true", help="write the names of the styles into --sheet")
    styles.set_defaults(run=run_styles)


def run_styles(arguments: argparse.Namespace) -> int:
    """Print the list of named styles, and write the contact sheet if ``--sheet`` names a file for it."""
    from urst_tiles.api.contact_sheet import contact_sheet, named_styles
    from urst_tiles.api.output import PICTURE, check_output
    from urst_tiles.source.picture import write_picture

    given = [name for name in ("input", "model", "labels") if getattr(arguments, name)]
    if arguments.sheet is None and given:
        what = {"input": "is the picture for", "model": "paints", "labels": "writes into"}[given[0]]
        raise BadInput(
            f"--{given[0]} {what} --sheet; give --sheet a file to write, or leave --{given[0]} out"
        )
    output = arguments.sheet and check_output(arguments.sheet, arguments.input, suffixes=PICTURE)
    for name, title in named_styles().items():
        say(f"{name:26} {title}")
    if output is None:
        return 0
    sheet = contact_sheet(arguments.input, model=arguments.model, labels=arguments.labels)
    write_picture(output, sheet)
    say(f"{one_line(output)}: the picture as it is, then in the styles above, row by row")
    return 0
