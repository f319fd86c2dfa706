"""A finished painting beside the image that it was made from.

An output tells the fingerprint of its input, but no name and no folder (`urst_tiles.pyramid.provenance`). So
images near it are opened until one has that fingerprint; an image that was edited since has another.
"""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles.api.opening import open_input
from urst_tiles.errors import BadInput, UrstError
from urst_tiles.geometry import Box
from urst_tiles.options import Options
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.deep_zoom_reader import DeepZoom
from urst_tiles.pyramid.provenance import provenance_of
from urst_tiles.source import Source, open_source
from urst_tiles.source.members import is_many
from urst_tiles.source.part import cut_out
from urst_tiles.source.scaled import ScaledSource

#: So many images are opened at most to find an input, for so many seconds.
MOST_OPENED, MOST_SECONDS = 500, 20.0

#: So many names in folders are looked at.
MOST_NAMES = 20000

#: Suffixes of files that are no inputs.
NO_INPUTS = (".json", ".txt", ".dzi", ".xml", ".toml", ".csv", ".py", ".safetensors")

#: The values of a painting in 16 bits are shown as they are.
AS_STORED = "0,65535"


class Levels(Protocol):
    """A picture at 1 / 2 ** n of its size, for each n.

    Attributes
    ----------
    shape : (height, width) at full scale, in pixels.
    """

    shape: tuple[int, int]

    def read(self, halvings: int, box: Box) -> NDArray[np.uint8]:
        """The pixels, (h, w, 3 or 4), of a box of the picture that was halved so often."""


class SourceLevels:
    """The levels of a prepared source."""

    def __init__(self, source: Source) -> None:
        self.source, self.shape = source, source.shape

    def read(self, halvings: int, box: Box) -> NDArray[np.uint8]:
        """The pixels, in 8 bits; see `ScaledSource`."""
        return eight_bits((ScaledSource(self.source, halvings) if halvings else self.source).read(box))


def eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels in 8 bits."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


@dataclass(frozen=True)
class Finished:
    """A finished painting.

    Attributes
    ----------
    path : the file, or the folder of an OME-Zarr.
    made : what made it, see `provenance_of`; None if it does not say.
    pixels : its pixels.
    input : the image that it was made from, or the part of it, prepared; None if it was not found.
    said : why it was not found, as a sentence; empty if it was.
    """

    path: Path
    made: Mapping[str, Any] | None
    pixels: Levels
    input: Source | None
    said: str

    @property
    def style(self) -> str:
        """What it was painted in: the titles of its styles, or the name of the network."""
        styles = self.made.get("styles") if self.made else None
        titles = nets.named_styles.titles()
        names = [str(one.get("name", "")) for one in styles or () if isinstance(one, dict)]
        said = ", ".join(titles.get(name, name) for name in names if name)
        return said or str((self.made or {}).get("model", ""))


def is_finished_painting(path: Path) -> bool:
    """Whether `open_result` opens a file or folder: it says what made it, or is a Deep Zoom image."""
    return path.suffix.lower() == ".dzi" or provenance_of(path) is not None


def open_result(
    path: Path,
    root: Path,
    *,
    folder: Path,
    input: Path | None = None,
    progress: Progress = silent,
) -> Finished:
    """Open a finished painting, and find the image that it was made from.

    Parameters
    ----------
    path : a TIFF, OME-TIFF, OME-Zarr or Deep Zoom image that this program wrote.
    root : the folder below which the input is looked for, first near the painting.
    folder : a folder for thumbnails and unpacked images; the caller removes it.
    input : the image that it was made from, if that is known.

    Raises
    ------
    UrstError : the painting cannot be read; or ``input`` is not the image that it was made from.
    """
    made = provenance_of(path)
    pixels = _pixels(path, folder)
    if made is None and input is None:
        return Finished(path, None, pixels, None, f"{path.name} does not say what it was made from.")
    options = _options_of(made or {})
    found, said = (open_input(input, options), "") if input else _found(path, root, made or {}, options)
    if found is not None and made is not None and found.fingerprint != made["source"]:
        raise BadInput(f"{input} is not the image that {path} was made from, or was edited since")
    if found is None:
        return Finished(path, made, pixels, None, said)
    shown = _part(found.prepare(folder, progress=progress), made or {})
    if shown.shape == pixels.shape:
        return Finished(path, made, pixels, shown, "")
    said = (
        f"{path.name} has {pixels.shape[1]} x {pixels.shape[0]} px, and {found.path.name} {shown.shape[1]} x"
        f" {shown.shape[0]}, so that they do not lie over each other."
    )
    if input is not None:
        raise BadInput(said)
    return Finished(path, made, pixels, None, said)


def _pixels(path: Path, folder: Path) -> Levels:
    """The pixels of a painting as it stores them."""
    if path.suffix.lower() == ".dzi":
        return DeepZoom(path)
    return SourceLevels(open_source(path, stretch=AS_STORED).prepare(folder))


def _options_of(made: Mapping[str, Any]) -> Options:
    """The options by which the input was opened, as far as they decide what is seen of it."""
    said = made.get("options")
    said = said if isinstance(said, dict) else {}
    given: dict[str, Any] = {"dtype": "uint8"}
    for name in ("page", "channels", "bands"):
        if said.get(name, "default") != "default":
            given[name] = said[name]
    for name, option, kind in (
        ("input level", "level", int),
        ("input magnification", "magnification", float),
    ):
        if name in said:
            given[option] = kind(said[name])
    if said.get("stretch", "none") != "none":
        given["stretch"] = said["stretch"]
    try:
        for name in ("channels", "bands"):
            if name in given:
                given[name] = tuple(ast.literal_eval(given[name]))
        return Options(**given)
    except (ValueError, TypeError, SyntaxError, UrstError):
        return Options(dtype="uint8")


def _part(source: Source, made: Mapping[str, Any]) -> Source:
    """The part of the input that was painted."""
    said = made.get("options")
    words = str(said.get("region", "")).split(",") if isinstance(said, dict) else []
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        return source
    x, y, w, h = map(int, words)
    box = Box(y, x, y + h, x + w)
    return cut_out(source, box) if box.area and Box(0, 0, *source.shape).contains(box) else source


def _found(path: Path, root: Path, made: Mapping[str, Any], options: Options) -> tuple[Source | None, str]:
    """The image that a painting was made from, opened; or why there is none."""
    until, alike = time.monotonic() + MOST_SECONDS, ""
    for number, one in enumerate(_candidates(path, root)):
        if number >= MOST_OPENED or time.monotonic() > until:
            break
        with suppress(UrstError, OSError):
            source = open_input(one, options)
            if source.fingerprint == made["source"]:
                return source, ""
            if _is_named_after(path, one) and not alike and provenance_of(one) is None:
                alike = one.name
    said = f"The image that {path.name} was made from was not found in the folder {root.name or root}"
    return None, said + (f"; {alike} is another, or was edited since." if alike else ".")


def _candidates(path: Path, root: Path) -> Iterator[Path]:
    """The images below the root, first those by whose name the painting is named, then those near it."""
    names = list(_images(path, root))
    yield from sorted(names, key=lambda one: not _is_named_after(path, one))  # a stable sort


def _images(path: Path, root: Path) -> Iterator[Path]:
    """The images below the root: those in the folder of the painting, then those in the folders above it."""
    seen: set[Path] = set()
    count = 0
    for above in [one for one in path.parents if one.is_relative_to(root)]:
        for folder, folders, files in os.walk(above):
            here = Path(folder)
            folders[:] = sorted(
                one for one in folders if _may_be_entered(here / one) and here / one not in seen
            )
            for name in (*folders, *sorted(files)):
                count += 1
                if count > MOST_NAMES:
                    return
                if here / name != path and _may_be_input(path, here / name, root):
                    yield here / name
            folders[:] = [one for one in folders if not one.endswith(".zarr")]
            if here != above:
                seen.add(here)
        seen.add(above)


def _may_be_entered(folder: Path) -> bool:
    """Whether images of the user may lie in a folder."""
    name = folder.name
    of_dzi = name.endswith("_files") and folder.with_name(f"{name.removesuffix('_files')}.dzi").exists()
    return not (name.startswith(".") or name.endswith(".job") or of_dzi)


def _may_be_input(path: Path, one: Path, root: Path) -> bool:
    """Whether a file may be an input, or a folder one of many files."""
    if one.name.startswith(".") or not one.resolve().is_relative_to(root):
        return False
    if one.is_dir():
        return one.suffix == ".zarr" or (_is_named_after(path, one) and is_many(one))
    return one.is_file() and one.suffix.lower() not in NO_INPUTS


def _is_named_after(path: Path, one: Path) -> bool:
    """Whether the name of a painting begins with that of an image."""
    return path.name.startswith(one.name.split(".")[0])
