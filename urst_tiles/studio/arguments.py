"""A look as arguments: of a view, and of the command that makes the painting, with its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.options import Options
from urst_tiles.source import Source
from urst_tiles.storage.names import cut
from urst_tiles.storage.publish import create_file
from urst_tiles.studio.asked import Asked, is_upload, relative
from urst_tiles.studio.drawn import Drawings
from urst_tiles.studio.uploads import Uploads

#: Statistics for which the whole image is read, and the most pixels of which the studio measures them.
WHOLE, MOST_WHOLE = ("exact", "local"), 1 << 27

#: Files by a word: the path where each is to be written, and its content.
Files = Mapping[str, tuple[Path, bytes]]


@dataclass(frozen=True)
class Brought:
    """What the page brought: pictures, and drawn polygons."""

    uploads: Uploads
    drawings: Drawings

    @classmethod
    def into(cls, root: Path, folder: Path) -> Brought:
        """Nothing yet; ``folder`` is for temporary files, and the caller removes it."""
        return cls(Uploads(root, folder), Drawings(folder))

    def style(self, look: Asked) -> Any:
        """The style of a look, as `urst_tiles.stylize` takes it.

        Raises
        ------
        MissingFile : an upload or polygons are those of another studio.
        BadInput : no style is chosen.
        """
        mixed = [(self._file(style), percent / 100) for style, percent in look.styles]
        if not look.mask:
            if not mixed:
                raise BadInput("no style is chosen")
            return mixed[0][0] if len(mixed) == 1 else mixed
        numbered = self.drawings.get(look.mask).styles(look.style)
        if not numbered:
            raise BadInput("no style is chosen")
        return {number: self._file(style) for number, style in numbered.items()}

    def _file(self, style: str) -> str | Path:
        return self.uploads.path(style) if is_upload(style) else style

    def options(self, look: Asked, source: Source) -> Options:
        """The options of a look.

        Raises
        ------
        BadInput : polygons cannot be placed on the image.
        """
        options = look.options()
        return replace(options, mask=self.drawings.file(look.mask, source)) if look.mask else options

    def named(self, look: Asked) -> str:
        """A word for the style of a look, for the name of a file."""
        if look.mask or len(look.styles) > 1:
            return "drawn" if look.mask else "mixed"
        style = look.styles[0][0]
        return self.uploads.path(style).stem if is_upload(style) else style

    # The command

    def files(self, look: Asked, output: Path, source: Source) -> Files:
        """The files that the command reads and that are not below the root yet: by the word of the upload,
        or the id of the polygons, the path where each is to be written, and its content. They lie beside the
        output; a name that has another content is not taken."""
        drawn = self.drawings.get(look.mask) if look.mask else None
        words = [look.image, *(style for style, _ in look.styles)]
        words += [style for style, _ in drawn.polygons] if drawn else []
        contents: dict[str, tuple[str, bytes]] = {}
        for word in dict.fromkeys(filter(is_upload, words)):
            path = self.uploads.path(word)
            contents[word] = path.name, path.read_bytes()
        if drawn:
            contents[look.mask] = f"{cut(output.stem, 200)}.mask.geojson", drawn.geojson(source)
        taken: dict[Path, bytes] = {output: b""}
        placed = {}
        for word, (name, content) in contents.items():
            path = _free(output.parent / name, content, taken)
            taken[path] = content
            placed[word] = path, content
        return placed

    def flags(self, look: Asked, name_of: Callable[[str], str]) -> list[str]:
        """The flags of a look; ``name_of`` gives the name of an upload, or of the file of polygons."""

        def named(style: str) -> str:
            return name_of(style) if is_upload(style) else style

        flags: list[str] = []
        if look.mask:
            flags += ["--mask", name_of(look.mask)]
            for number, style in self.drawings.get(look.mask).styles(look.style).items():
                flags += ["--style", f"{number}={named(style)}"]
            return flags + look.flags()
        for style, _ in look.styles:
            flags += ["--style", named(style)]
        for _, share in look.styles if len(look.styles) > 1 else ():
            flags += ["--style-weight", f"{share / 100:g}"]
        return flags + look.flags()


def write(root: Path, files: Files) -> list[str]:
    """Write files that are not there yet; their names below the root.

    Raises
    ------
    BadInput : another file has come to have that name, or it cannot be written.
    """
    for path, content in files.values():
        if not create_file(path, content) and path.read_bytes() != content:
            raise BadInput(f"{relative(root, path)} is another file by now; try again")
    return [relative(root, path) for path, _ in files.values()]


def check_measuring(look: Asked, source: Source) -> None:
    """Raise BadInput if the statistics of a look need all of an image that is too large for that."""
    h, w = source.shape
    if look.statistics in WHOLE and h * w > MOST_WHOLE:
        raise BadInput(
            f"--statistics {look.statistics} reads the whole image before the first place is seen; the studio"
            f" does that up to {MOST_WHOLE / 1e6:.0f} megapixels, and this image has {h * w / 1e6:.0f}"
        )


def _free(path: Path, content: bytes, taken: Mapping[Path, Any]) -> Path:
    """The path, or with a number after its stem, that no file of another content has."""
    number, stem, suffix = 1, path.name.split(".")[0], path.name[len(path.name.split(".")[0]) :]
    while True:
        one = path if number == 1 else path.with_name(f"{stem}-{number}{suffix}")
        is_free = not os.path.lexists(one) or (one.is_file() and one.read_bytes() == content)
        if one not in taken and is_free:
            return one
        number += 1
