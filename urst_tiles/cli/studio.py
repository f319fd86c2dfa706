"""The command ``studio``: an image and its painting in the browser."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import add_command
from urst_tiles.cli.terminal import complain, one_line, say
from urst_tiles.errors import BadInput
from urst_tiles.machine import serve_beside_others


def add(commands: Any) -> None:
    """Add the command ``studio``."""
    studio = add_command(
        commands,
        "studio",
        "look at an image and its painting in the browser, at every scale, before anything is written",
    )
    studio.add_argument("input", metavar="INPUT", nargs="?", help="the image to show first")
    studio.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="the folder whose images can be chosen, and below which paintings are written; nothing outside"
        " of it is read (default: the folder of INPUT, or else the current one)",
    )
    studio.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen on this address, so that other machines reach the studio, unencrypted (default:"
        " 127.0.0.1, for this machine alone)",
    )
    studio.add_argument("--port", type=int, default=0, metavar="N", help="listen on this port (default: any)")
    studio.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    studio.set_defaults(run=run_studio)


def run_studio(arguments: argparse.Namespace) -> None:
    """Serve the studio until it is interrupted; print its address."""
    serve_beside_others()
    try:
        from urst_tiles.studio.serve import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise BadInput(
            f"the studio needs the package {error.name}; install it with: pip install 'urst-tiles[studio]'"
        ) from None
    with suppress(KeyboardInterrupt):
        serve(
            arguments.input,
            arguments.root,
            host=arguments.host,
            port=arguments.port,
            browse=not arguments.no_browser,
            told=lambda url: say(f"the studio is open at {one_line(url)} (Ctrl-C closes it)"),
            warned=complain,
        )
