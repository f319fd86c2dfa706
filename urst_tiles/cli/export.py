"""The command ``export``: a folder with a page on which a finished painting is swiped over its image."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import add_command, add_json
from urst_tiles.cli.terminal import event, one_line, progress_for, say
from urst_tiles.errors import BadInput


def add(commands: Any) -> None:
    """Add the command ``export``."""
    export = add_command(
        commands,
        "export",
        "write a folder to share, with a page on which a finished painting is swiped over the image that it"
        " was made from; it needs no server and no internet",
    )
    export.add_argument(
        "result", type=Path, metavar="RESULT", help="a finished painting: TIFF, OME-TIFF, OME-Zarr or DZI"
    )
    export.add_argument("folder", type=Path, metavar="DIR", help="the folder to write, which must not exist")
    export.add_argument(
        "--input",
        type=Path,
        metavar="INPUT",
        help="the image that RESULT was made from (default: it is looked for by its fingerprint, in the"
        " folder of RESULT and below)",
    )
    export.add_argument(
        "--quality", type=int, default=90, metavar="N", help="quality of the tiles, 1 to 100 (default: 90)"
    )
    export.add_argument(
        "--dry-run", action="store_true", help="say how large DIR would be, and write nothing"
    )
    add_json(export, "print progress and the result as JSON lines on stdout")
    export.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> None:
    """Say how large the folder will be, write it, and print a line about it."""
    from urst_tiles.api.output import check_output
    from urst_tiles.api.result import open_result
    from urst_tiles.source.ome_zarr import is_zarr
    from urst_tiles.storage.names import require_file
    from urst_tiles.storage.publish import megabytes
    from urst_tiles.studio.export import export, size_of

    if not 1 <= arguments.quality <= 100:
        raise BadInput(f"--quality must lie between 1 and 100, got {arguments.quality}")
    if not is_zarr(arguments.result):
        require_file(arguments.result, "finished painting")
    if arguments.folder.exists():
        raise BadInput(f"{arguments.folder} exists; name a folder that does not")
    folder = check_output(arguments.folder, suffixes=None)
    result = arguments.result.resolve()
    with tempfile.TemporaryDirectory(prefix="urst-tiles-export-") as scratch:
        progress = progress_for(arguments.json)
        found = open_result(
            result, result.parent, folder=Path(scratch), input=arguments.input, progress=progress
        )
        size = size_of(found, arguments.quality)
        if arguments.json:
            event("size", bytes=size.about_bytes, files=size.files)
        else:
            say(f"{one_line(folder)}: about {megabytes(size.about_bytes)} in {size.files} files")
        if arguments.dry_run:
            return
        export(found, folder, size, arguments.quality, progress)
    if arguments.json:
        event("done", output=str(folder))
    else:
        say(f"{one_line(folder / 'index.html')} shows {one_line(result.name)}; open it in a browser")
