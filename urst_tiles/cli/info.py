"""The commands ``info`` (how this program reads an image file) and ``validate`` (checks an output)."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urst_tiles.cli.arguments import add_command, add_json, add_option
from urst_tiles.cli.terminal import one_line, say
from urst_tiles.errors import UrstError

if TYPE_CHECKING:
    from urst_tiles.source import Source

#: The options that say which picture of a file is read.
CHOICES = ("page", "channels", "bands")
LEVELS = ("level", "magnification")


def add(commands: Any) -> None:
    """Add the commands ``info`` and ``validate``."""
    info = add_command(
        commands, "info", "print how this program reads an image file: size, data type, metadata"
    )
    info.set_defaults(run=run_info)
    validate = add_command(
        commands,
        "validate",
        "check whether an output is valid: a pyramidal TIFF, OME-TIFF, OME-Zarr, DZI, IIIF image, PNG, JPEG"
        " or WebP; if not, the exit status is 1",
    )
    validate.set_defaults(run=run_validate)
    for name in (*CHOICES, *LEVELS):
        add_option(info, name)
    for command in (info, validate):
        command.add_argument("file", metavar="FILE", help="the file to look at")
        add_json(command)


def run_info(arguments: argparse.Namespace) -> int:
    """Print the facts about an image file; of one that is refused, what it contains."""
    from urst_tiles.source import open_source
    from urst_tiles.source.contents import Contents, as_json, contents_of, rows
    from urst_tiles.source.open import has_contents
    from urst_tiles.source.remote import is_place
    from urst_tiles.storage.names import require_file

    choice: dict[str, Any] = {name: getattr(arguments, name, None) for name in CHOICES}
    found = Contents()
    try:
        path = Path(arguments.file).absolute()
        if has_contents(arguments.file, choice["bands"]):
            if not is_place(arguments.file) and not os.path.isdir(path):
                require_file(arguments.file)
            found = contents_of(path, **choice)
        level: dict[str, Any] = {name: getattr(arguments, name, None) for name in LEVELS}
        facts = facts_of(open_source(arguments.file, **choice, **level))
    except UrstError:
        if found.pages:
            file = str(arguments.file)
            say(json.dumps({"file": file} | as_json(found)) if arguments.json else _table(rows(found)))
        raise
    say(json.dumps(facts | as_json(found)) if arguments.json else _table(facts | rows(found)))
    return 0


def _table(facts: Mapping[str, Any]) -> str:
    """Facts as lines for people, without those that are None."""
    return "\n".join(f"{one_line(name):18} {one_line(v)}" for name, v in facts.items() if v is not None)


def facts_of(source: Source) -> dict[str, Any]:
    """The facts about how a file is read."""
    info = source.info
    return {
        "file": str(source.path),
        "made of": source.made_of or None,
        "size": f"{source.shape[1]} x {source.shape[0]}",
        "file dtype": str(source.file_dtype),
        "read as": f"{source.channels} x {source.dtype}",
        "reads": info.chosen or None,
        "access": "random" if source.random_access else "read once into the job folder",
        "overviews": ", ".join(f"{w} x {h}" for h, w in source.overviews) or "none",
        "validity": info.validity,
        "nodata": info.nodata,
        "georeferenced": bool(info.geo),
        "microns per pixel": info.microns_per_pixel and info.microns_per_pixel[1],
        "pixels per inch": info.pixels_per_cm[1] * 2.54
        if info.pixels_per_cm and not info.microns_per_pixel
        else None,
        "magnification": info.magnification,
        "colour profile": f"{len(info.icc)} bytes" if info.icc else None,
        "not taken over": ", ".join(info.lost) or None,
        "fingerprint": source.fingerprint,
    }


def run_validate(arguments: argparse.Namespace) -> int:
    """Print what is wrong with an output; return 0 if it is valid, else 1."""
    from urst_tiles.pyramid import validate

    report = validate(arguments.file)
    if arguments.json:
        say(json.dumps({"file": str(arguments.file), "valid": report.valid, "problems": report.problems}))
    else:
        say(str(report).replace(str(report.path), one_line(report.path)))
    return 0 if report.valid else 1
