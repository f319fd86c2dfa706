"""Access to the pixels of an image that GDAL reads, and how its content is recognised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from urst_tiles.geometry import Box
from urst_tiles.source.gdal_reader import GdalReader
from urst_tiles.source.identity import Content
from urst_tiles.source.openers import FileOpener, Reader, check_same
from urst_tiles.source.remote import state_of
from urst_tiles.source.spare import take
from urst_tiles.tiff.budget import MOST_TEXT_BYTES
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.georeference import Pam, read_pam

#: What a PAM file may say besides what `Pam` holds, and what decides how pixels are read.
ABOUT_PIXELS = ("<ColorInterp", "<ColorTable", "<Mask", "<NoDataValue", "<Scale", "<Offset", "<Description")

#: Of how many places the pixels enter the fingerprint of a remote image, and the side of each.
PLACES, SIDE = 16, 64


@dataclass(frozen=True)
class GdalOpener(FileOpener):
    """Opens an image that GDAL reads, at random or from top to bottom.

    Attributes
    ----------
    path : the file, or the address as the user gave it.
    name : GDAL's name of the image in it.
    choice : the page, and the channels or bands, that the user chose.
    files : the files of this machine that the image consists of, those beside it and those that a virtual
        dataset names included; empty for an address.
    fingerprint : the fingerprint of all that when the source was opened.
    content : the whole content of these files when the job began; None outside of jobs.
    """

    path: Path
    name: str
    choice: Choice
    files: tuple[Path, ...]
    fingerprint: str
    content: Content | None = None
    many: ClassVar[bool] = False

    @property
    def remote(self) -> bool:
        """Whether GDAL may use the network."""
        return not self.files

    def check(self) -> None:
        if not self.remote:
            super().check()
            return
        reader = GdalReader(self.path, self.name, self.choice, remote=True)
        check_same(self.path, self.fingerprint, remote_fingerprint(self.path, reader))

    def open(self) -> Reader:
        self.check()
        kept = take((self.path, self.name, self.choice), self.files) if self.files else None
        return kept or GdalReader(self.path, self.name, self.choice, self.remote)


def files_of(path: Path, named: Sequence[str]) -> tuple[Path, ...]:
    """The files of an image, that with its name first, then the others that GDAL names.

    Those in folders, as of Zarr, are listed. A PAM file that tells nothing but statistics does not belong to
    it: GDAL and its users write one beside any image that they look at.
    """
    found = dict.fromkeys([path, *(Path(os.path.abspath(name)) for name in named)])
    files = dict[Path, None]()
    for one in found:
        if one.is_dir():
            files |= dict.fromkeys(sorted(p for p in one.rglob("*") if p.is_file()))
        elif one.is_file() and not _tells_nothing(one):
            files[one] = None
    return tuple(files)


def _tells_nothing(path: Path) -> bool:
    """Whether a file is a PAM file with nothing in it that an image is read by, or that an output has."""
    if not path.name.endswith(".aux.xml") or path.stat().st_size >= MOST_TEXT_BYTES:
        return False
    text = path.read_text("utf-8", "replace")
    return read_pam(text) == Pam() and not any(word in text for word in ABOUT_PIXELS)


def remote_fingerprint(path: Path, reader: GdalReader) -> str:
    """SHA-256, in hex, of what tells the content of a remote image: size, ETag and time of the last change if
    its server tells them, the shape of the image, and the pixels at some places, spread evenly."""
    kind = reader.kind
    facts = state_of(path), reader.shape, reader.driver, kind.stored, kind.dtype.name, reader.levels
    digest = hashlib.sha256(repr(facts).encode())
    height, width = reader.shape
    across = down = round(PLACES**0.5)
    for i in range(PLACES):
        y, x = height * (i // across) // down, width * (i % across) // across
        box = Box(y, x, min(y + SIDE, height), min(x + SIDE, width))
        for part in reader.cell(box):
            if part is not None:
                digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
