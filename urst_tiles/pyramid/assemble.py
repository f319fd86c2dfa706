"""Part files become the final file: a cloud-optimised GeoTIFF whose tiles are copied, never encoded again.

    BigTIFF header | GDAL's ghost header | directories, full resolution first | tiles, smallest overview first

Every part file lists the sizes of its tiles, so every offset is known before the first byte is written, and
the file is written from beginning to end. Each part holds only the levels that one block can
make alone. The smaller levels are made in a few stages from the seeds of the parts (the pixels of their
smallest level without loss): each block of a stage reads ``SUPER`` x ``SUPER`` seeds and becomes a part file
of the same format.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Grid, ceil_div, overview_count
from urst_tiles.machine import in_order
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.encode import Encoding
from urst_tiles.pyramid.levels import (
    Level,
    TileSizes,
    ghost,
    info_fields,
    level_of,
    resolution_fields,
    tiles_of,
)
from urst_tiles.pyramid.ome_tiff import with_ome_xml
from urst_tiles.pyramid.part import PartLevel, read_cells
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.statistics import band_items
from urst_tiles.pyramid.validate import validate
from urst_tiles.storage.publish import check_room, megabytes, publishing, remove_dead_attempts, writing
from urst_tiles.storage.stores import REQUESTS, exists, fetched, is_remote, side_by_side
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.metadata import PROVENANCE, Info, with_items
from urst_tiles.tiff.writing import (
    BIG,
    CLASSIC,
    DirectoryField,
    TiffForm,
    header,
    sub_directories_field,
    text,
)

SOFTWARE = "urst-tiles"


def assemble(
    parts: Parts,
    info: Info,
    output: Path,
    *,
    overwrite: bool = True,
    description: str | None = None,
    software: str | None = SOFTWARE,
    provenance: str | None = None,
    ome: bool = False,
    bigtiff: str = "yes",
    progress: Progress = silent,
) -> None:
    """Make the final file from all parts.

    The file appears under its name only when it is complete and valid. Any number of processes may make the
    same file at the same time. What killed ones left of it is removed.

    Parameters
    ----------
    parts : the parts of the image; all of them must be there.
    info : metadata for the file.
    output : path of the file, possibly on an object store, where it is uploaded when it is finished.
    overwrite : whether an existing file is replaced. If not, the name is looked at again at the moment when
        the file gets it. An existing file that is equal to the byte is left as it is: another process, or
        this one before it was killed, made it.
    description : text for the tag ImageDescription, or None.
    software : text for the tag Software, or None.
    provenance : what made the picture, for an item of GDAL's metadata, or None.
    ome : whether it becomes an OME-TIFF, whose overviews are SubIFDs of its only image.
    bigtiff : "yes", "no", or "if-needed": only if the file is too large for a classic TIFF.
    progress : is called with "overviews" and "assembling".

    Raises
    ------
    BadInput : blocks are missing; the message says how many, and which is the first. Or the output exists,
        holds something else, and ``overwrite`` is false.
    DamagedFile : a part fails its checksum; it is removed, so that the next run makes it anew.
    DiskFull : the disk is full; the parts stay where they are.
    """
    _require(parts)
    with naming_damage(parts):
        stages = made_stages(parts, progress)
        extra = _extra_fields(info, description, software, provenance, band_items(stages))
        if ome:
            extra = with_ome_xml(extra, parts.grid, parts.encoding, info)
        layout = _arranged(stages, info, extra, ome, bigtiff, output)
    with writing(output.parent):
        remove_dead_attempts(output.parent, output.name)
        if not overwrite and exists(output):
            return _require_same(output, layout, parts)
        check_room(output.parent, layout.file_bytes)
    try:
        with publishing(output, replace=overwrite) as file:
            with naming_damage(parts):
                _write(file, layout, progress)
            file.flush()
            _verify(file, output, layout)
    except FileExistsError:
        _require_same(output, layout, parts)


def _require(parts: Parts) -> None:
    missing = parts.missing()
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(parts.grid)} blocks are missing in {parts.folder}, the first is block "
            f"{missing[0]}: run the same command again to make them"
        )


def _require_same(output: Path, layout: _Layout, parts: Parts) -> None:
    """Raise BadInput unless the existing file ``output`` is what would be written, byte by byte."""
    with naming_damage(parts):
        if _holds(output, layout):
            return
    raise BadInput(
        f"{output} exists, and this job did not make it: move it away and give the same command again, or"
        " give --overwrite"
    )


def _holds(path: Path, layout: _Layout) -> bool:
    """Whether a file has exactly the bytes that would be written."""
    try:
        file = FileBytes(fetched(path))
    except OSError:
        return False
    if file.size != layout.file_bytes:
        return False
    position = 0
    for piece in _content(layout):
        if file(position, len(piece)) != piece:
            return False
        position += len(piece)
    return True


@contextmanager
def naming_damage(parts: Parts) -> Iterator[None]:
    """On damage in any part, check all parts, remove the damaged ones, and say in the error how to go on."""
    try:
        yield
    except DamagedFile as error:
        damaged = [stage.drop_damaged() for stage in _stages(parts)][0]
        names = f"blocks {', '.join(map(str, damaged[:10]))}" if damaged else "overviews"
        raise DamagedFile(
            f"{error}; what is damaged ({names}) was removed, run the same command again to make it anew"
        ) from error


def _stages(parts: Parts) -> list[Parts]:
    """The parts, and all stages above them; the smallest level of the last stage fits one tile."""
    stages = [parts]
    while (upper := stages[-1].upper) is not None:
        stages.append(upper)
    return stages


def made_stages(parts: Parts, progress: Progress) -> list[Parts]:
    """All stages; parts that are missing above the first stage are made."""
    stages = _stages(parts)
    for lower, upper in pairwise(stages):
        missing = upper.missing()
        for done, index in enumerate(missing):
            progress("overviews", len(upper.grid) - len(missing) + done, len(upper.grid))
            upper.write(index, lower.gather(upper.grid.block_box(index)))
        progress("overviews", len(upper.grid), len(upper.grid))
    return stages


def _extra_fields(
    info: Info,
    description: str | None,
    software: str | None,
    provenance: str | None,
    statistics: Sequence[tuple[str, int, str]] = (),
) -> list[DirectoryField]:
    """The fields of metadata; a ``description`` takes the place of that of the source."""
    if provenance is not None:
        items = [(PROVENANCE, "", provenance)]
        info = replace(info, gdal_metadata=with_items(info.gdal_metadata, items))
    fields = {field.code: field for field in info_fields(info, statistics)}
    fields |= {code: text(code, value) for code, value in ((270, description), (305, software)) if value}
    return list(fields.values())


@dataclass(frozen=True)
class _Source:
    """Where one level of the image lies in the part files, and where it will lie in the final file.

    Attributes
    ----------
    stage : the parts that hold the level.
    local : number of the level within each of these parts.
    level : the directories of the level.
    start : position of its first tile (with leader) in the final file.
    """

    stage: Parts
    local: int
    level: Level
    start: int


@dataclass(frozen=True)
class _Layout:
    """Where everything lies in the final file; ``sources`` are the levels, largest first."""

    head: bytes
    sources: list[_Source]
    file_bytes: int
    chained: bool = True

    def directories(self) -> Iterator[bytes]:
        """The bytes of all directories in the order of the file."""
        position = len(self.head)
        for i, source in enumerate(self.sources):
            last = i == len(self.sources) - 1 or not self.chained
            yield from source.level.directories(position, source.start, last=last)
            position += source.level.directory_bytes


#: A classic TIFF is smaller than this, since its offsets have 32 bits.
_CLASSIC_BYTES = 1 << 32


def _arranged(
    stages: Sequence[Parts],
    info: Info,
    extra: Sequence[DirectoryField],
    ome: bool,
    bigtiff: str,
    output: Path,
) -> _Layout:
    """The layout of the file, as BigTIFF or classic TIFF."""
    if bigtiff == "yes":
        return _lay_out(stages, info, extra, ome)
    classic = _lay_out(stages, info, extra, ome, CLASSIC)
    if classic.file_bytes < _CLASSIC_BYTES:
        return classic
    if bigtiff == "no":
        raise BadInput(
            f"{output} would have {megabytes(classic.file_bytes)}, and a classic TIFF can have 4 GiB: give"
            " the same command again without --bigtiff no, which keeps all blocks"
        )
    return _lay_out(stages, info, extra, ome)


def _lay_out(
    stages: Sequence[Parts],
    info: Info,
    extra: Sequence[DirectoryField],
    ome: bool = False,
    form: TiffForm = BIG,
) -> _Layout:
    """Compute every offset of the file from the sizes of the tiles in the parts."""
    places: list[tuple[Parts, int]] = []
    levels: list[Level] = []
    for stage in stages:
        for local, (height, width, sizes) in enumerate(_level_sizes(stage)):
            places.append((stage, local))
            levels.append(_level(stage.encoding, (height, width), sizes, info, extra, len(levels), form))
    words = ghost(stages[0].encoding.masked, form)
    head = header(form.header_bytes + len(words), form) + words
    if ome and len(levels) > 1:
        levels[0] = _with_children(levels, len(head))
    position = len(head) + sum(level.directory_bytes for level in levels)
    starts = []
    for level in reversed(levels):
        starts.append(position)
        position += level.sizes.total_bytes
    sources = [
        _Source(*place, level, start)
        for place, level, start in zip(places, levels, reversed(starts), strict=True)
    ]
    return _Layout(head, sources, position, chained=not ome)


def _with_children(levels: Sequence[Level], position: int) -> Level:
    """The first level, whose directory lies at ``position``, with the field that leads to all others."""
    first = levels[0]

    def with_field(offsets: Sequence[int]) -> Level:
        return replace(first, fields=[*first.fields, sub_directories_field(offsets, first.layout)])

    position += with_field([0] * (len(levels) - 1)).directory_bytes
    sizes = [level.directory_bytes for level in levels[1:]]
    return with_field([position, *(position + n for n in accumulate(sizes[:-1]))])


def _level(
    encoding: Encoding,
    shape: tuple[int, int],
    sizes: TileSizes,
    info: Info,
    extra: Sequence[DirectoryField],
    number: int,
    form: TiffForm = BIG,
) -> Level:
    """Level ``number`` of the file, with the fields that belong there; ``extra`` are those of level 0."""
    fields = [*resolution_fields(info, number), *(extra if number == 0 else ())]
    return level_of(encoding, *shape, sizes, overview=number > 0, extra=fields, layout=form)


def check_header(
    grid: Grid,
    encoding: Encoding,
    info: Info,
    *,
    name: str = "the image",
    software: str | None = SOFTWARE,
    provenance: str | None = None,
) -> None:
    """Build all directories of the output but for offsets, to learn before any work whether that is possible.

    ``name`` is the file that the metadata comes from, for messages; ``software`` and ``provenance`` are as in
    `assemble`.

    Raises
    ------
    BadInput : something in the metadata cannot be written.
    """
    try:
        extra = _extra_fields(info, None, software, provenance)
        for number in range(overview_count(grid.height, grid.width, grid.tile) + 1):
            shape = ceil_div(grid.height, 1 << number), ceil_div(grid.width, 1 << number)
            level = _level(encoding, shape, TileSizes.empty(1, encoding.masked), info, extra, number)
            b"".join(level.directories(16, 0, last=True))
    except (ValueError, TypeError, ArithmeticError, struct.error) as error:
        raise BadInput(
            f"{name}: its metadata cannot be written into the output ({error}); remove it, for example with "
            "gdal_translate or tiffset"
        ) from error


def _level_sizes(stage: Parts) -> list[tuple[int, int, TileSizes]]:
    """(height, width, tile sizes) of each level that a stage holds, for the whole image."""
    grid, tile = stage.grid, stage.grid.tile
    first = 1 if stage.stage else 0
    shapes = [
        (ceil_div(grid.height, 1 << n), ceil_div(grid.width, 1 << n))
        for n in range(first, grid.block_overviews + 1)
    ]
    counts = [tiles_of(h, w, tile) for h, w in shapes]
    sizes = [TileSizes.empty(rows * columns, stage.encoding.masked) for rows, columns in counts]
    footers = side_by_side(stage.folder, stage.footer, range(len(grid)))
    for index, footer in enumerate(footers):
        for local, part in enumerate(footer.levels):
            _paste(sizes[local], counts[local], part, _corner(stage, index, local), tile)
    return [(h, w, s) for (h, w), s in zip(shapes, sizes, strict=True)]


def _corner(stage: Parts, index: int, local: int) -> tuple[int, int]:
    """Row and column of a part's first tile among all tiles of a level of the image."""
    row, column = divmod(index, stage.grid.block_columns)
    side = stage.grid.block // stage.grid.tile >> (local + (1 if stage.stage else 0))
    return row * side, column * side


def _paste(
    into: TileSizes, counts: tuple[int, int], part: PartLevel, corner: tuple[int, int], tile: int
) -> None:
    rows, columns = tiles_of(part.height, part.width, tile)
    where = slice(corner[0], corner[0] + rows), slice(corner[1], corner[1] + columns)
    into.image.reshape(counts)[where] = part.sizes.image.reshape(rows, columns)
    if into.mask is not None and part.sizes.mask is not None:
        into.mask.reshape(counts)[where] = part.sizes.mask.reshape(rows, columns)


def _write(file: BinaryIO, layout: _Layout, progress: Progress) -> None:
    done = 0
    for piece in _content(layout):
        file.write(piece)
        done += len(piece)
        if done > layout.sources[-1].start:  # the tiles of the smallest level come first
            progress("assembling", done, layout.file_bytes)


def _content(layout: _Layout) -> Iterator[bytes]:
    """The bytes of the final file from its beginning to its end, in pieces."""
    yield layout.head
    yield from layout.directories()
    for source in reversed(layout.sources):
        yield from _cells(source)


def _cells(source: _Source) -> Iterator[bytes]:
    """The tiles of a level in the order of the file: row by row, each row across all parts side by side."""
    stage, grid = source.stage, source.stage.grid
    for block_row in range(grid.block_rows):
        indexes = range(block_row * grid.block_columns, (block_row + 1) * grid.block_columns)
        footers = side_by_side(stage.folder, stage.footer, indexes)
        levels = [footer.levels[source.local] for footer in footers]
        rows = range(ceil_div(levels[0].height, grid.tile))
        yield from _rows(
            stage, [(i, level, row) for row in rows for i, level in zip(indexes, levels, strict=True)]
        )


def _rows(stage: Parts, rows: Sequence[tuple[int, PartLevel, int]]) -> Iterator[bytes]:
    """The bytes of rows of tiles, each given as (part, level, row); object stores are asked ahead of time."""

    def read(row: tuple[int, PartLevel, int]) -> bytes:
        index, level, number = row
        columns = ceil_div(level.width, stage.grid.tile)
        return read_cells(stage.path(index), level, number * columns, columns)

    if not is_remote(stage.folder):
        yield from map(read, rows)
        return
    with ThreadPoolExecutor(REQUESTS, "requests") as pool:
        yield from in_order(pool, read, rows, REQUESTS)


def _verify(file: BinaryIO, output: Path, layout: _Layout) -> None:
    """Check the structure of the finished file; its tiles were already verified while they were copied.

    It is read through the descriptor it was written with, and not by a name that could lead elsewhere.
    """
    size = os.fstat(file.fileno()).st_size
    if size != layout.file_bytes:
        raise DamagedFile(f"{output} would have {size} bytes, {layout.file_bytes} were written")
    problems = validate(str(output), deep=False, descriptor=file.fileno()).problems
    if problems:
        raise DamagedFile(f"the assembled file is not valid: {problems[0]}")
