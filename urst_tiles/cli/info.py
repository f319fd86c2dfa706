"""The commands ``info`` (how this program reads an image file) and ``validate`` (checks a pyramidal TIFF)."""

from __future__ import annotations

import argparse
import json
from typing import Any

from urst_tiles.cli.arguments import add_command, add_json
from urst_tiles.cli.terminal import one_line, say


def add(commands: Any) -> None:
    """Add the commands ``info`` and ``validate``."""
    info = add_command(
        commands, "info", "print how this program reads an image file: size, data type, metadata"
    )
    info.set_defaults(run=run_info)
    validate = add_command(
        commands, "validate", "check whether a file is a valid pyramidal TIFF; if not, the exit status is 1"
    )
    validate.set_defaults(run=run_validate)
    for command in (info, validate):
        command.add_argument("file", metavar="FILE", help="the file to look at")
        add_json(command)


def run_info(arguments: argparse.Namespace) -> int:
    """Print the facts about an image file, as a table or as JSON."""
    from urst_tiles.source import open_source

    source = open_source(arguments.file)
    info = source.info
    facts = {
        "file": str(source.path),
        "size": f"{source.shape[1]} x {source.shape[0]}",
        "file dtype": str(source.file_dtype),
        "read as": f"{source.channels} x {source.dtype}",
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
    if arguments.json:
        say(json.dumps(facts))
    else:
        say("\n".join(f"{name:18} {one_line(value)}" for name, value in facts.items() if value is not None))
    return 0


def run_validate(arguments: argparse.Namespace) -> int:
    """Print what is wrong with a pyramidal TIFF; return 0 if it is valid, else 1."""
    from urst_tiles.pyramid import validate

    report = validate(arguments.file)
    if arguments.json:
        say(json.dumps({"file": str(arguments.file), "valid": report.valid, "problems": report.problems}))
    else:
        say(str(report).replace(str(report.path), one_line(report.path)))
    return 0 if report.valid else 1
