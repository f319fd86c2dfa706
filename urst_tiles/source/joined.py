"""One image whose bands are files of their own, as Sentinel-2 and Landsat come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source.bandfiles import Named
from urst_tiles.source.facts import Facts
from urst_tiles.source.identity import Content, content_of
from urst_tiles.source.openers import Opener, Reader
from urst_tiles.source.placing import TOLERANCE, Tile, place
from urst_tiles.source.valid import Samples, full, weight_dtype
from urst_tiles.tiff.choice import COLOURS, Choice
from urst_tiles.tiff.metadata import Info


@dataclass(frozen=True)
class JoinedOpener:
    """Opens several files of one band each as the bands of one image.

    Attributes
    ----------
    openers : the opener of each band.
    content : the whole content of the files when the job began; None outside of jobs.
    """

    openers: tuple[Opener, ...]
    content: Content | None = None
    many: ClassVar[bool] = False

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for opener in self.openers for path in opener.files)

    def with_content(self, content: Content) -> JoinedOpener:
        return replace(self, content=content)

    def check(self) -> None:
        if self.content is None:
            for opener in self.openers:
                opener.check()
        elif content_of(self.files, self.content).digest != self.content.digest:
            raise DamagedFile(
                f"{self.files[0]}, or another of its bands, was changed while in use; put the old files back,"
                " or start anew with the new ones"
            )

    def open(self) -> Reader:
        return JoinedReader([opener.open() for opener in self.openers])

    def stream(self, rows: int) -> Iterator[tuple[Box, Samples]]:
        streams = [opener.stream(rows) for opener in self.openers]
        for parts in zip(*streams, strict=True):
            yield parts[0][0], joined([samples for _, samples in parts])


class JoinedReader:
    """Reads the samples of several readers of one band each as those of one image."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers, first = readers, readers[0]
        self.shape, self.dtype, self.colours = first.shape, first.dtype, len(readers)
        self.has_valid = any(reader.has_valid for reader in readers)
        self.cell_shape, self.alone = first.cell_shape, any(reader.alone for reader in readers)
        self.levels = tuple(shape for shape in first.levels if all(shape in r.levels for r in readers))

    def cell(self, box: Box, level: int = 0) -> Samples:
        """Samples of a box of the image (level 0), or of overview ``level - 1``; as `Reader.cell`."""
        if level == 0:
            return joined([reader.cell(box) for reader in self._readers])
        shape = self.levels[level - 1]
        return joined([reader.cell(box, reader.levels.index(shape) + 1) for reader in self._readers])


def joined(bands: Sequence[Samples]) -> Samples:
    """Bands as one image, valid as the bands of one file are: where any band has data, and none is NaN."""
    colour = np.concatenate([band.colour for band in bands], axis=-1)
    if all(band.weight is None for band in bands):
        return Samples(colour, None)
    kind = weight_dtype(colour.dtype)
    weight = np.zeros(colour.shape[:2], kind)
    for band in bands:
        np.maximum(weight, full(kind) if band.weight is None else band.weight, out=weight)
    if colour.dtype.kind == "f":
        weight[~np.isfinite(colour).all(axis=-1)] = 0
    return Samples(colour, weight)


def open_joined(path: Path, named: Named, choice: Choice, open_one: Callable[[Path, Choice], Facts]) -> Facts:
    """The facts of the image whose bands are these files; of one file these are its own.

    Parameters
    ----------
    path : what the user named.
    named : the files of the bands with their names.
    choice : the page that the user chose in each file.
    open_one : opens a single file.

    Raises
    ------
    BadInput : a file has several bands; or two of them differ in size, place, resolution or data type.
    """
    alone = Choice(choice.page)
    found = [open_one(file, alone) for _, file in named]
    if len(found) == 1:
        return found[0]
    _check_alike(found)
    first = found[0]
    has_valid = any(facts.has_valid for facts in found)
    words = zip(COLOURS, (name for name, _ in named), strict=True)
    chosen = "bands " + ", ".join(f"{name} as {colour}" for colour, name in words)
    overviews = tuple(s for s in first.overviews if all(s in facts.overviews for facts in found))
    digest = hashlib.sha256("".join(facts.fingerprint for facts in found).encode()).hexdigest()
    once = max(facts.once_bytes for facts in found)
    return replace(
        first,
        path=path.absolute(),
        info=replace(_info(found, has_valid), chosen=chosen),
        fingerprint=digest,
        choice=choice,
        told="",
        colours=len(found),
        has_valid=has_valid,
        overviews=overviews,
        reader_bytes=sum(facts.reader_bytes - facts.once_bytes for facts in found) + once,
        returned_bytes=sum(facts.handed_bytes for facts in found),
        once_bytes=once,
        spooling_bytes=sum(facts.spooling_bytes for facts in found),
        opener=JoinedOpener(tuple(facts.opener for facts in found)),
        random_access=all(facts.random_access for facts in found),
        made_of=f"{len(found)} files as the bands of one image",
    )


def _check_alike(found: Sequence[Facts]) -> None:
    """Raise BadInput unless the files are bands of one image."""
    first = found[0]
    for facts in found:
        if facts.colours != 1:
            raise BadInput(
                f"{facts.path} has several bands, and as a band of an image a file has one; extract it first:"
                " gdal_translate -b 1 IN OUT"
            )
        if facts.file_dtype != first.file_dtype or facts.orientation != first.orientation:
            raise BadInput(
                f"{facts.path} is {facts.file_dtype} and {first.path} is {first.file_dtype}, and the bands of"
                f" one image are alike; make them so first: gdalwarp -ot {first.file_dtype.capitalize()} IN"
                " OUT"
            )
    tiles = [Tile(facts.path, facts.info.geo, facts.stored, 1, facts.file_dtype) for facts in found]
    placed = place(tiles) if any(facts.info.geo for facts in found) else None
    for number, facts in enumerate(found):
        apart = placed is not None and (
            (placed.boxes[number] != placed.boxes[0]).any() or placed.shifts[number] > TOLERANCE
        )
        if facts.stored != first.stored or apart:
            raise BadInput(
                f"{facts.path} has {facts.stored[1]} x {facts.stored[0]} pixels and {first.path}"
                f" {first.stored[1]} x {first.stored[0]}, or lies elsewhere, and the bands of one image cover"
                " each other; make them so first: gdalwarp -te XMIN YMIN XMAX YMAX -tr X Y IN OUT"
            )


def _info(found: Sequence[Facts], has_valid: bool) -> Info:
    """The metadata of the image: what the bands say of their place and validity, and no texts of one band."""
    infos = [facts.info for facts in found]
    first = infos[0]
    ways = {info.validity for info in infos} - {"none"}
    nodata = first.nodata if len({info.nodata for info in infos}) == 1 else None
    return Info(
        geo=first.geo,
        pixels_per_cm=first.pixels_per_cm,
        in_inches=first.in_inches,
        measured=first.measured,
        nodata=nodata,
        validity="none" if not has_valid else "nodata" if ways == {"nodata"} and nodata else "mask",
    )
