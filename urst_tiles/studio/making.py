"""Making the whole painting: what it takes, and the command for it, which `urst_tiles.studio.queue` runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from urst_tiles.api.output import check_output
from urst_tiles.api.stylize import plan_job
from urst_tiles.source.source import Source
from urst_tiles.studio.arguments import Brought, Files, write
from urst_tiles.studio.asked import Asked, inside, inside_to_write, relative


def output_of(root: Path, look: Asked, name: str, brought: Brought) -> Path:
    """The file that a job writes; its name is relative to the root, and by default stands beside the image.

    Raises
    ------
    BadInput : it would lie outside of the root, or is no name of a TIFF.
    """
    image = brought.uploads.find(look.image)
    beside = Path(relative(root, image)) if image.is_relative_to(root) else Path(image.name)
    path = Path(name) if name else beside.with_suffix(f".{brought.named(look)}.tif")
    return check_output(inside_to_write(root, str(path)), image)


def command_of(
    root: Path, look: Asked, output: Path, source: Source, brought: Brought, files: Files
) -> list[str]:
    """The command line that makes the painting, with names relative to the root; ``files`` are those that
    `Brought.files` returned."""
    deep = ["--dtype", "uint8"] if source.file_dtype == "uint16" else []

    def name_of(word: str) -> str:
        return _plain(relative(root, files[word][0] if word in files else inside(root, word)))

    flags = brought.flags(look, name_of)
    return ["urst-tiles", "stylize", name_of(look.image), _plain(relative(root, output)), *flags, *deep]


def keep_files(root: Path, look: Asked, name: str, source: Source, brought: Brought) -> list[str]:
    """Write what the page brought and the command reads beside the output; the names of these files."""
    return write(root, brought.files(look, output_of(root, look, name, brought), source))


def _plain(name: str) -> str:
    """A name that is taken for no option."""
    return f"./{name}" if name.startswith("-") else name


def plan_of(root: Path, look: Asked, name: str, source: Source, brought: Brought) -> dict[str, Any]:
    """What making the painting takes: sizes in pixels and bytes, seconds, and the command line.

    Raises
    ------
    UrstError : it cannot be made; the message says why.
    """
    output = output_of(root, look, name, brought)
    image, options = brought.uploads.find(look.image), brought.options(look, source)
    files = brought.files(look, output, source)
    plan, seconds = plan_job(image, output, brought.style(look), options)
    return {
        "output": relative(root, output),
        "exists": output.exists(),
        "width": plan.grid.made.shape[1],
        "height": plan.grid.made.shape[0],
        "blocks": len(plan.grid),
        "memory": plan.peak_bytes,
        "disk": plan.disk_bytes,
        "seconds": seconds,
        "folder": str(root),
        "files": [relative(root, path) for path, _ in files.values()],
        "command": shlex.join(command_of(root, look, output, source, brought, files)),
    }
