"""Making the whole painting: what it takes, and the command for it, which `urst_tiles.studio.queue` runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from urst_tiles.api.output import check_output
from urst_tiles.api.stylize import plan_job
from urst_tiles.source.source import Source
from urst_tiles.studio.asked import Asked, inside, relative


def output_of(root: Path, look: Asked, name: str) -> Path:
    """The file that a job writes; its name is relative to the root, and by default stands beside the image.

    Raises
    ------
    BadInput : it would lie outside of the root, or is no name of a TIFF.
    """
    image = inside(root, look.image)
    path = Path(name) if name else Path(relative(root, image)).with_suffix(f".{look.style}.tif")
    folder = inside(root, str(path.parent))
    return check_output(folder / path.name, image)


def command_of(root: Path, look: Asked, output: Path, source: Source) -> list[str]:
    """The command line that makes the painting, with names relative to the root."""
    deep = ["--dtype", "uint8"] if source.file_dtype == "uint16" else []
    image, made = (_plain(relative(root, path)) for path in (inside(root, look.image), output))
    return ["urst-tiles", "stylize", image, made, *look.flags(), *deep]


def _plain(name: str) -> str:
    """A name that is taken for no option."""
    return f"./{name}" if name.startswith("-") else name


def plan_of(root: Path, look: Asked, name: str, source: Source) -> dict[str, Any]:
    """What making the painting takes: sizes in pixels and bytes, seconds, and the command line.

    Raises
    ------
    UrstError : it cannot be made; the message says why.
    """
    output = output_of(root, look, name)
    plan, seconds = plan_job(inside(root, look.image), output, look.style, look.options())
    return {
        "output": relative(root, output),
        "exists": output.exists(),
        "width": plan.grid.width,
        "height": plan.grid.height,
        "blocks": len(plan.grid),
        "memory": plan.peak_bytes,
        "disk": plan.disk_bytes,
        "seconds": seconds,
        "folder": str(root),
        "command": shlex.join(command_of(root, look, output, source)),
    }
