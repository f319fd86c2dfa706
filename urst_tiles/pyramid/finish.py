"""The last stage of a job: its parts become the output, in the format that the plan says.

TIFF        `urst_tiles.pyramid.assemble`: tiles are moved as they are
OME-TIFF    the same, with OME-XML, and with overviews in SubIFDs
pictures    `urst_tiles.pyramid.picture`: PNG, JPEG, WebP
JPEG 2000   `urst_tiles.pyramid.jp2`, by GDAL
folders     `urst_tiles.pyramid.deep_zoom`: DZI, IIIF; `urst_tiles.pyramid.ome_zarr`: OME-Zarr

All that is not TIFF is made of parts whose tiles are encoded without loss, so that nothing is encoded with
loss twice. Nothing gets its final name before it is complete and was checked.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Grid
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.assemble import assemble, made_stages, naming_damage
from urst_tiles.pyramid.beside import files_beside
from urst_tiles.pyramid.check import is_replaceable, validate
from urst_tiles.pyramid.deep_zoom import write_dzi, write_iiif
from urst_tiles.pyramid.encode import Encoding
from urst_tiles.pyramid.formats import Format
from urst_tiles.pyramid.jp2 import jp2_bytes, write_jp2
from urst_tiles.pyramid.ome_zarr import write_ome_zarr
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.picture import Made, picture_bytes, write_picture_of
from urst_tiles.pyramid.pixels import stored_levels
from urst_tiles.storage.folders import (
    attempting_folder,
    give_name,
    remove_any,
    remove_dead_folders,
    same_files,
    same_trees,
    sync_tree,
)
from urst_tiles.storage.publish import publish, publishing, remove_dead_attempts, writing
from urst_tiles.storage.stores import exists, is_remote, is_same_tree, put_tree, remove, remove_dead_copies
from urst_tiles.tiff.metadata import Info

#: The writers that write into a folder: of formats that are folders, or a file and a folder; and GDAL's,
#: which wants names.
_FOLDERS = {"dzi": write_dzi, "iiif": write_iiif, "ome.zarr": write_ome_zarr, "jp2": write_jp2}


@dataclass(frozen=True)
class Finishing:
    """What is to be made: all parts of a job, and where and how they end; see `finish`."""

    parts: Parts
    info: Info
    output: Path
    chosen: Format
    made: Made
    overwrite: bool
    progress: Progress


def finish(
    parts: Parts,
    info: Info,
    output: Path,
    chosen: Format,
    made: Made | None = None,
    *,
    overwrite: bool = True,
    progress: Progress = silent,
) -> None:
    """Make the output from all parts, in the format ``chosen``; the rest is as for `assemble`.

    Raises
    ------
    UrstError : as `assemble`.
    """
    made = made or Made()
    if is_remote(output):
        remove_dead_copies()
    if chosen.tiff:
        assemble(
            parts, info, output, overwrite=overwrite, software=made.software, provenance=made.provenance,
            ome=chosen.name == "ome.tif", bigtiff=made.bigtiff, progress=progress,
        )  # fmt: skip
        return
    job = Finishing(parts, info, output, chosen, made, overwrite, progress)
    if not is_remote(job.output):
        with writing(job.output.parent):
            names = [path.name for path in (job.output, *chosen.sidecars(job.output))]
            remove_dead_attempts(job.output.parent, *names)
            remove_dead_folders(job.output.parent, job.output.name)
    with naming_damage(parts):
        (_folder if chosen.name in _FOLDERS else _picture)(job)


def finish_bytes(name: str, grid: Grid, encoding: Encoding) -> int:
    """Peak memory of the last stage of a format that is no TIFF, in bytes."""
    if name in ("png", "jpg", "webp"):
        return picture_bytes(name, grid, encoding)
    if name == "jp2":
        return jp2_bytes(grid, encoding) + 4 * encoding.tile_bytes
    return 64 * encoding.tile_bytes if name in _FOLDERS else 0


def _picture(job: Finishing) -> None:
    """Write a picture, and the files beside it, which get their names first."""
    level = stored_levels(made_stages(job.parts, job.progress))[0]
    beside = files_beside(job.chosen, job.output, job.info)
    try:
        with publishing(job.output, replace=job.overwrite) as file:
            write_picture_of(job.chosen.name, file, level, job.info, job.made, job.progress)
            file.flush()
            _verify_picture(file, job, (level.height, level.width))
            _require_same(job, _opened(file), job.output)
            for path in reversed(job.chosen.sidecars(job.output)):  # a .prj goes with the world file
                _publish_beside(path, beside.get(path), job)
    except _Same:
        return


class _Same(Exception):
    """The output exists and is equal to the byte: another process was faster."""


def _opened(file: BinaryIO) -> Path:
    """A name of an open file, by which it can be read from its beginning."""
    return Path(f"/proc/self/fd/{file.fileno()}")


def _verify_picture(file: BinaryIO, job: Finishing, shape: tuple[int, int]) -> None:
    report = validate(_opened(file), deep=False)
    if report.problems or report.levels[0] != shape:
        problem = report.problems[0] if report.problems else f"it has {report.levels[0]} pixels"
        raise DamagedFile(f"{job.output} would not be valid: {problem}")


def _require_same(job: Finishing, made: Path, path: Path) -> None:
    """Where ``path`` exists and may not be replaced: raise _Same if it is equal, BadInput if it is not."""
    if job.overwrite or not os.path.lexists(path):
        return
    if path.is_file() and same_files(made, path):
        raise _Same
    raise _exists(path)


def _exists(path: Path) -> BadInput:
    return BadInput(
        f"{path} exists, and this job did not make it: move it away and give the same command again, or"
        " give --overwrite"
    )


def _publish_beside(path: Path, content: bytes | None, job: Finishing) -> None:
    """Write a file beside the output; or where there is nothing to say, remove one of an older output."""
    if content is None:
        if job.overwrite and (path.suffix != ".prj" or job.chosen.sidecars(job.output)[0].exists()):
            path.unlink(missing_ok=True)
        return
    if not job.overwrite and path.exists() and path.read_bytes() != content:
        raise _exists(path)
    publish(path, content)


def _folder(job: Finishing) -> None:
    """Write a folder, or a file and a folder, in a folder beside the output, and give them their names."""
    if is_remote(job.output):
        return _on_store(job)
    levels = stored_levels(made_stages(job.parts, job.progress))
    with attempting_folder(job.output) as place:
        _FOLDERS[job.chosen.name](place / job.output.name, levels, job.info, job.made, job.progress)
        _verify_folder(place / job.output.name, job)
        sync_tree(place)
        _give_names(place, job)


def _on_store(job: Finishing) -> None:
    """Write an OME-Zarr on this machine, and upload it; ``zarr.json``, which opens it, goes last.

    One that is there already and may not be replaced must be equal: that of this job, which was killed
    afterwards.
    """
    last, scratch = "zarr.json", Path(tempfile.gettempdir())
    levels = stored_levels(made_stages(job.parts, job.progress))
    remove_dead_folders(scratch, job.output.name)
    with attempting_folder(scratch / job.output.name) as folder:
        place = folder / job.output.name
        _FOLDERS[job.chosen.name](place, levels, job.info, job.made, job.progress)
        _verify_folder(place, job)
        if exists(job.output / last) and not job.overwrite:
            if is_same_tree(place, job.output):
                return
            raise _exists(job.output)
        remove(job.output / last)
        remove(job.output)
        put_tree(place, job.output, last)


def _verify_folder(made: Path, job: Finishing) -> None:
    report = validate(made, deep=False)
    if report.problems:
        raise DamagedFile(f"{job.output} would not be valid: {report.problems[0]}")


def _give_names(place: Path, job: Finishing) -> None:
    """Give all that was made in the folder ``place`` its final name, the output itself last."""
    companions = job.chosen.companions(job.output)
    for path in (*companions, job.output):
        if job.overwrite and not is_replaceable(path, job.chosen):
            raise BadInput(f"{path} is a folder with something else in it; move it away, or choose another")
    if job.overwrite and companions:
        remove_any(job.output)  # it leads to the tiles, which change now
    for path in (*companions, job.output):
        try:
            give_name(place / path.name, path, replace=job.overwrite)
        except FileExistsError:
            if not same_trees(place / path.name, path):
                raise _exists(path) from None
