"""Names that stand for many files: a folder, a pattern, or a list of paths in a text file."""

from __future__ import annotations

import glob
import os
import re
from fnmatch import fnmatch
from pathlib import Path

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.storage.names import address, missing, reason, require_file

AnyPath = str | os.PathLike[str]

#: The suffixes of the files of a folder that are read: of the first kind of which there are any.
SUFFIXES = (
    (".tif", ".tiff", ".btf", ".tf8", ".tf2"),
    (".jp2", ".j2k", ".jpf"),
    (".png", ".jpg", ".jpeg", ".webp"),
)

#: The suffixes of what lies beside images, which no pattern takes in.
BESIDE = (
    ".msk", ".xml", ".ovr", ".tfw", ".tifw", ".tiffw", ".wld", ".jgw", ".jpgw", ".pgw", ".pngw", ".j2w",
    ".prj", ".rpb", ".txt", ".json", ".md5",
)  # fmt: skip

#: Folders that are one data set each, and no folder of images.
_DATA_SETS = (".zarr", ".gdb", ".n5")

#: In so many bytes the description of an IIIF image says what it is.
IIIF_BYTES = 1 << 12

#: A list of files has at most so many bytes.
MOST_LIST_BYTES = 64 << 20


def is_many(name: AnyPath) -> bool:
    """Whether a name stands for many files: a folder, a pattern with ``*``, ``?`` or ``[``, or ``@`` and the
    path of a list. A name that leads to a file is that file, whatever it looks like."""
    text = os.fspath(name)
    if not text or os.path.isfile(text):
        return False
    if os.path.isdir(text):
        return not text.rstrip(os.sep).lower().endswith(_DATA_SETS)
    if text.startswith("@"):
        return len(text) > 1
    if address(text) or os.path.lexists(text):
        return False
    return any(sign in text for sign in "*?") or ("[" in text and bool(glob.glob(text)))


def absolute(name: AnyPath) -> Path:
    """The path of an input that does not depend on the current folder; of a list with its ``@`` in front."""
    text = os.fspath(name)
    if text.startswith("@") and is_many(text):
        return Path(f"@{Path(text[1:]).absolute()}")
    return Path(text).absolute()


def own_path(name: AnyPath) -> Path:
    """The path of what the user named itself: of ``@list`` that of the list."""
    text = os.fspath(name)
    return Path(text[1:] if text.startswith("@") and is_many(text) else text)


def takes_in(name: AnyPath, path: Path) -> bool:
    """Whether a file at ``path`` would be one of the many files that ``name`` stands for."""
    if not is_many(name) or os.fspath(name).startswith("@"):
        return False
    whole = Path(name).absolute()
    if whole.is_dir():
        return path.suffix.lower() in SUFFIXES[0] and path.parent.resolve() == whole.resolve()
    deep = "**" in whole.parts
    return fnmatch(str(path), str(whole)) and (deep or len(path.parts) == len(whole.parts))


def find_members(name: AnyPath) -> list[Path]:
    """The absolute paths of the files that a name stands for, in the order in which they lie on each other.

    Those of a folder or a pattern are in the natural order of their names, in which 9 comes before 10; those
    of a list in its order. Of a folder all TIFFs are taken, or if there is none all JPEG 2000 files, or else
    all PNG, JPEG and WebP files; no hidden files, and none in folders of the folder. A pattern takes no
    sidecars such as masks and world files.

    Raises
    ------
    MissingFile : there is no such list, or no file.
    BadInput : the list is no text, or names a file twice.
    """
    text = os.fspath(name)
    if text.startswith("@"):
        return _listed(Path(text[1:]).absolute())
    if os.path.isdir(text):
        return _in_folder(Path(text).absolute())
    names = [one for one in glob.glob(text, recursive=True) if not one.lower().endswith(BESIDE)]
    found = [Path(one).absolute() for one in names if os.path.isfile(one)]
    if not found:
        raise MissingFile(f"no file matches {text}{reason(text)}")
    return sorted(found, key=natural)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts paths by their names with numbers by their values: a2 before a10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def _in_folder(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
    except OSError as error:
        raise MissingFile(f"the folder {folder} cannot be read: {error.strerror}") from None
    for suffixes in SUFFIXES:
        if found := [folder / one for one in names if one.lower().endswith(suffixes)]:
            return sorted(found, key=natural)
    if "info.json" in names and b"iiif.io/api/image" in (folder / "info.json").read_bytes()[:IIIF_BYTES]:
        raise BadInput(
            f"{folder} is an IIIF image, which cannot be read here: its picture lies in thousands of tiles;"
            " give the image that they were made from"
        )
    raise BadInput(f"{folder} is a folder without an image in it; name a file, or a folder of TIFFs")


def _listed(path: Path) -> list[Path]:
    if require_file(path, "list of files").st_size > MOST_LIST_BYTES:
        raise BadInput(f"the list {path} has more than {MOST_LIST_BYTES >> 20} MB; it is no list of paths")
    try:
        lines = path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise MissingFile(f"the list {path} cannot be read: {error.strerror}") from None
    if any("\0" in line for line in lines):
        raise BadInput(f"{path} is no list of paths, one on each line; name the image without @")
    found = [path.parent / line.strip() for line in lines if line.strip()]
    if not found:
        raise BadInput(f"the list {path} names no file; write a path on each line")
    seen: set[Path] = set()
    for one in found:
        if not one.is_file():
            raise missing(one, f"file, which {path} names,")
        if one in seen:
            raise BadInput(f"the list {path} names {one} twice; remove one of the two lines")
        seen.add(one)
    return found
