"""The command ``styles``: the named styles of ``--model lite``, as a list and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import add_command
from urst_tiles.cli.terminal import one_line, say
from urst_tiles.errors import BadInput


def add(commands: Any) -> None:
    """Add the command ``styles``."""
    styles = add_command(commands, "styles", "list the named styles of the default network, --model lite")
    styles.add_argument(
        "--sheet", type=Path, metavar="PNG", help="also write a picture in all styles to this file"
    )
    styles.add_argument(
        "--input", type=Path, metavar="IMAGE", help="the picture for --sheet (default: a made-up scene)"
    )
    styles.set_defaults(run=run_styles)


def run_styles(arguments: argparse.Namespace) -> int:
    """Print the list of named styles, and write the contact sheet if ``--sheet`` names a file for it."""
    from urst_tiles.api.contact_sheet import contact_sheet, named_styles
    from urst_tiles.api.output import check_output
    from urst_tiles.source.picture import write_png

    for name, title in named_styles().items():
        say(f"{name:26} {title}")
    if arguments.sheet is None:
        return 0
    output = check_output(arguments.sheet, arguments.input or arguments.sheet.parent)
    if output.suffix.lower() != ".png":
        raise BadInput(f"a contact sheet is a PNG file; name it {output.with_suffix('.png').name}")
    sheet = contact_sheet(arguments.input)
    write_png(output, sheet)
    say(f"{one_line(output)}: the picture as it is, then in the styles above, row by row")
    return 0
