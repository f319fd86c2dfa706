"""The images below the root, to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.source.ome_zarr import is_zarr
from urst_tiles.studio.asked import inside, relative

#: Suffixes of files that are listed as images.
IMAGES = (
    ".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".vmu", ".jpg", ".jpeg",
    ".png", ".webp", ".jp2", ".jxl", ".avif", ".heic", ".gif", ".ppm", ".vrt", ".img", ".dzi",
)  # fmt: skip

#: How many names are listed at most.
MOST = 2000


def listed(root: Path, name: str) -> dict[str, Any]:
    """The folders and images in a folder below the root, by name; hidden ones and job folders are left out.

    Raises
    ------
    BadInput : it lies elsewhere, is no folder, or may not be read.
    """
    folder = inside(root, name)
    if not folder.is_dir():
        raise BadInput(f"{name} is no folder")
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name.lower())
    except OSError as error:
        raise BadInput(f"{name or 'the folder'} cannot be read: {error.strerror}") from None
    entries = [path for path in entries if not path.name.startswith(".") and _stays(root, path)]
    tiles = {path.with_name(f"{path.stem}_files") for path in entries if path.suffix.lower() == ".dzi"}
    folders = [one for one in entries if one.is_dir() and one.suffix not in (".job", ".zarr")]
    folders = [path for path in folders if path not in tiles]
    images = [path for path in entries if _is_image(path)]
    return {
        "folder": relative(root, folder),
        "above": relative(root, folder.parent) if folder != root else None,
        "folders": [{"name": path.name, "path": relative(root, path)} for path in folders[:MOST]],
        "images": [
            {"name": path.name, "path": relative(root, path), "bytes": _size(path)} for path in images[:MOST]
        ],
        "more": max(0, len(folders) - MOST) + max(0, len(images) - MOST),
    }


def _is_image(path: Path) -> bool:
    """Whether a path is that of an image: a file, or a folder of Zarr."""
    if path.suffix == ".zarr":
        try:
            return is_zarr(path)
        except (UrstError, OSError):
            return False
    return path.suffix.lower() in IMAGES and path.is_file()


def _size(path: Path) -> int | None:
    """The bytes of a file; None for a folder."""
    return None if path.is_dir() else path.stat().st_size


def _stays(root: Path, path: Path) -> bool:
    """Whether a path leads to no place outside of the root, and to one that is there."""
    try:
        return path.resolve().is_relative_to(root) and path.exists()
    except (OSError, RuntimeError):
        return False
