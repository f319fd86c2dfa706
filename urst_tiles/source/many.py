"""Opening many files as one image: their headers are read and compared, and become the facts of a source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from urst_tiles.errors import BadInput
from urst_tiles.machine import decoder_count
from urst_tiles.source.facts import Facts
from urst_tiles.source.members import AnyPath, absolute, find_members
from urst_tiles.source.mosaic import CELL, MOST_OPEN, Member, MosaicOpener, Traits, reduced_shape
from urst_tiles.source.openers import TiffOpener
from urst_tiles.source.placing import TOLERANCE, Placed, Tile, place
from urst_tiles.source.survey import Surveyed, survey
from urst_tiles.source.tiff import TiffReader
from urst_tiles.source.valid import weight_dtype
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.georeference import NO_BANDS
from urst_tiles.tiff.metadata import Info, Validity

#: Opens one file: its path and the choice in it.
OpenOne = Callable[[Path, Choice], Facts]

#: Bytes of memory of an open file besides what it keeps decoded (9 kB measured, with the tables of one tile;
#: this has room for those of some thousand tiles), and of the record of a file (2.7 kB measured).
OPEN_BYTES, MEMBER_BYTES = 100_000, 3_000

#: What all open files together may keep decoded; fewer are open at once where they would keep more.
KEPT_BYTES = 256 << 20

#: An overview is used if at least this part of the pixels lies in files that have it.
OVERVIEW_SHARE = 0.9

#: Overviews are looked for at these sizes.
FACTORS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class _Kind:
    """Files whose pixels are read alike.

    Attributes
    ----------
    facts : the facts of the first of them.
    cell : (height, width) of the cells that are cheap to read in it; None if it is no tiled TIFF.
    alone : whether bands of rows should be read one after another.
    kept_bytes : bytes that one open file keeps decoded, at most.
    """

    facts: Facts
    cell: tuple[int, int] | None = None
    alone: bool = False
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """One file: what its header tells, and its kind."""

    seen: Surveyed
    kind: _Kind

    @property
    def facts(self) -> Facts:
        return self.kind.facts

    @property
    def shape(self) -> tuple[int, int]:
        return self.facts.stored if self.seen.kind is None else self.seen.shape

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return self.facts.overviews if self.seen.kind is None else self.seen.levels

    @property
    def tile(self) -> Tile:
        own = self.seen.kind is None
        bands = self.facts.colours + (self.facts.info.validity == "alpha") if own else self.seen.bands
        geo = self.facts.info.geo if own else self.seen.geo
        return Tile(self.seen.path, geo, self.shape, bands, self.facts.file_dtype)

    @property
    def has_valid(self) -> bool:
        return self.facts.has_valid or self.seen.sparse or self.seen.mask is not None


def open_many(name: AnyPath, choice: Choice, open_one: OpenOne) -> Facts:
    """The facts of the image that many files make. Only headers are read.

    Parameters
    ----------
    name : a folder, a pattern or a list, as `find_members` takes it.
    choice : the page, and the channels or bands, that the user chose in each file.
    open_one : opens a single file.

    Raises
    ------
    UrstError : as `find_members`, `place` and ``open_one``; BadInput also where a file has no random access
        and is no TIFF.
    """
    files = _open_all(survey(find_members(name), choice), choice, open_one)
    placed = place([file.tile for file in files])
    first = files[0].facts
    has_valid = placed.has_gaps or any(file.has_valid for file in files)
    look = Traits(
        placed.shape, first.file_dtype, first.colours, has_valid, _factors(files),
        any(kind.alone and not kind.facts.random_access for kind in _kinds(files)), _most_open(files),
    )  # fmt: skip
    members = tuple(_members(files, placed))
    key = _key(members, look)
    return Facts(
        path=absolute(name),
        info=_info(files, placed, has_valid),
        fingerprint=key,
        stored=placed.shape,
        orientation=1,
        choice=choice,
        told=first.told,
        colours=first.colours,
        file_dtype=first.file_dtype,
        has_valid=has_valid,
        overviews=look.levels,
        reader_bytes=_reader_bytes(files, look),
        spooling_bytes=_reader_bytes(files, look),
        opener=MosaicOpener.of(key, choice, look, members),
        is_jpeg=first.is_jpeg,
        random_access=all(kind.facts.random_access for kind in _kinds(files)),
        stretched=first.stretched,
        made_of=_said(files, placed),
        average_cell=files[0].kind.cell,  # as that of the scene that the files were cut from
    )


def _open_all(seen: Sequence[Surveyed], choice: Choice, open_one: OpenOne) -> list[_File]:
    """Each file with its kind, of which the first file alone is opened."""
    kinds: dict[Hashable, _Kind] = {}
    files = []
    for one in seen:
        key = one.path if one.kind is None else one.kind
        if key not in kinds:
            kinds[key] = _kind(open_one(one.path, choice))
        files.append(_File(one, kinds[key]))
    return files


def _kind(facts: Facts) -> _Kind:
    """The kind of a file. Raises BadInput if no part of it can be read without reading all before it."""
    if isinstance(facts.opener, TiffOpener):
        reader = TiffReader(facts.path, facts.choice, facts.opener.pam)
        return _Kind(facts, reader.cell_shape if reader.is_tiled else None, reader.alone, reader.kept_bytes)
    if facts.random_access:
        return _Kind(facts)
    raise BadInput(
        f"{facts.path} can only be read from top to bottom, which does not do for a part of an image; make"
        " tiled TIFFs of the files first: gdal_translate -co TILED=YES IN OUT.tif"
    )


def _kinds(files: Sequence[_File]) -> list[_Kind]:
    """Each kind of file once."""
    return list({id(file.kind): file.kind for file in files}.values())


def _members(files: Sequence[_File], placed: Placed) -> Iterator[Member]:
    for file, box in zip(files, placed.boxes.tolist(), strict=True):
        seen = file.seen
        opener = file.facts.opener
        pam = opener.pam if isinstance(opener, TiffOpener) else NO_BANDS  # the same for all of a kind
        yield Member(
            seen.path, seen.sidecars, seen.mask, tuple(box), opener if seen.kind is None else None,
            seen.stamps, seen.fingerprint, pam,
        )  # fmt: skip


def _key(members: Sequence[Member], look: Traits) -> str:
    """Tells these files, their samples and their places from all others, whatever their names."""
    digest = hashlib.sha256(repr((look.shape, look.dtype, look.colours, look.has_valid)).encode())
    for member in members:
        digest.update(repr(member.box).encode() + member.fingerprint)
    return digest.hexdigest()


def _info(files: Sequence[_File], placed: Placed, has_valid: bool) -> Info:
    """The metadata of the image: where it lies, and what the first file says of its colours and pixels.

    Texts, dates and EXIF are about single files, and are left out.
    """
    first = files[0].facts.info
    ways = {kind.facts.info.validity for kind in _kinds(files)}
    if any(file.seen.mask or file.seen.sparse for file in files):
        ways.add("mask")
    nodata = {kind.facts.info.nodata for kind in _kinds(files)}
    validity: Validity = "none"
    if has_valid:
        validity = "alpha" if "alpha" in ways else "mask"
        if "nodata" in ways and not ways & {"alpha", "mask"} and len(nodata) == 1:
            validity = "nodata"
    return Info(
        geo=placed.geo,
        icc=first.icc,
        pixels_per_cm=first.pixels_per_cm,
        in_inches=first.in_inches,
        measured=first.measured,
        nodata=first.nodata if len(nodata) == 1 else None,
        validity=validity,
        chosen=first.chosen,
    )


def _factors(files: Sequence[_File]) -> tuple[int, ...]:
    """The sizes of overviews that enough of the files have."""
    have: Counter[int] = Counter()
    for file in files:
        have.update(
            {f: file.shape[0] * file.shape[1] for f in FACTORS if reduced_shape(file.shape, f) in file.levels}
        )
    total = sum(file.shape[0] * file.shape[1] for file in files)
    return tuple(factor for factor in FACTORS if have[factor] >= OVERVIEW_SHARE * total)


def _most_open(files: Sequence[_File]) -> int:
    """How many files may be open at the same time."""
    kept = max(kind.kept_bytes for kind in _kinds(files))
    return MOST_OPEN if not kept else max(4, min(MOST_OPEN, KEPT_BYTES // kept))


def _reader_bytes(files: Sequence[_File], look: Traits) -> int:
    """Bytes of memory that reading takes at most.

    These are what one file takes, the other open files with what they keep decoded, the records of all, and
    for each thread the cells of two files and of the image.
    """
    kinds = _kinds(files)
    dtype = np.dtype(look.dtype)
    pixel = look.colours * dtype.itemsize + weight_dtype(dtype).itemsize
    cell = min(CELL, look.shape[0]) * min(CELL, look.shape[1])
    held = min(len(files), look.most_open) * (OPEN_BYTES + max(kind.kept_bytes for kind in kinds))
    one = max(kind.facts.reader_bytes for kind in kinds)
    return one + held + len(files) * MEMBER_BYTES + decoder_count() * 3 * cell * pixel


def _said(files: Sequence[_File], placed: Placed) -> str:
    """How many files make the image, and what is done where they leave gaps or overlap, as a phrase."""
    height, width = placed.shape
    said = f"{len(files)} file{'s' * (len(files) > 1)} as one image of {width} x {height} pixels"
    if placed.has_gaps:
        said += "; what no file covers is invalid"
    if placed.has_overlaps:
        said += "; where files overlap, the later lies over the earlier"
    if (shift := placed.shifts.max()) > TOLERANCE:
        said += f"; files are shifted by up to {shift:.2g} of a pixel, and taken at the nearest"
    return said
