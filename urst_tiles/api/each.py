"""An output for each feature of an area of interest (``--aoi FILE --each``).

The area is stylised as one image, so that all outputs have one measurement, and no window is computed twice.
Its blocks lie in the job folder without loss. Each output is then cut from them and encoded once: it has the
pixels that the output of the whole area has there, of which only those inside its own feature are valid.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.bands import info_for
from urst_tiles.api.output import check_output, provenance, software, written_format
from urst_tiles.api.pieces import piece_grid
from urst_tiles.encoding import encoding_of
from urst_tiles.engine.block import unpainted
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.job.folder import Job
from urst_tiles.machine import decoders
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.assemble import naming_damage
from urst_tiles.pyramid.finish import finish
from urst_tiles.pyramid.formats import FORMATS, Format, named_format
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.picture import Made
from urst_tiles.pyramid.pixels import StoredLevel, stored_levels
from urst_tiles.source import Source
from urst_tiles.source.members import AnyPath
from urst_tiles.source.pieces import Piece, pieces_of
from urst_tiles.storage.publish import make_folder, publish
from urst_tiles.storage.stores import is_remote, path_of, read_file, remove

#: The folder in the job folder of the output that is being cut, and of what is known of those that are.
CUTTING = "cutting"

#: A name in braces.
_BRACES = re.compile(r"\{([^{}]*)\}")


def check_pattern(output: AnyPath, options: Options, *inputs: AnyPath | None) -> Path:
    """The absolute path of what the user named as output: a folder, which need not exist, or a file whose
    name has ``{id}`` in it.

    ``inputs`` are files that are read. The errors are those of `check_output`.
    """
    if is_remote(path_of(output)):
        raise BadInput(f"--each writes files into a folder of this machine, and {output} is none")
    if options.job_dir is not None and is_remote(path_of(options.job_dir)):
        raise BadInput(f"--job-dir {options.job_dir} is on an object store; --each needs a folder on a disk")
    path = Path(output)
    if _BRACES.search(path.name):
        name = filled(path.name, "a", options)
        return check_output(path.with_name(name), *inputs, format=options.format).parent / path.name
    if named_format(path.name) is not None and path.suffix:
        raise BadInput(
            f"--each writes a file for each feature, and {path.name} is the name of one: name a folder, or"
            f" put {{id}} into the name, as {path.stem}-{{id}}{path.suffix}"
        )
    if os.path.lexists(path) and not path.is_dir():
        raise BadInput(f"the output {path} is a file; with --each name a folder, or a name with {{id}} in it")
    return check_output(
        path / f"a{_suffix(options.format)}", *inputs, makes_folder=True, format=options.format
    ).parent


def filled(pattern: str, name: str, options: Options) -> str:
    """The name of a file in which ``{id}``, or the attribute of ``--each`` in braces, is replaced.

    Raises
    ------
    BadInput : other words stand in braces.
    """
    known = ("id", options.each)

    def word(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise BadInput(
                f"the output {pattern} has {found[0]} in its name, and --each puts the name of a feature in"
                f" the place of {{id}} alone; choose an attribute by --each {found[1] or 'NAME'}"
            )
        return name

    return _BRACES.sub(word, pattern)


def each_targets(source: Source, output: Path, options: Options) -> list[Path]:
    """The file of each piece of an image, in the order of `pieces_of`.

    Raises
    ------
    BadInput : a folder is in the place of a file.
    """
    if _BRACES.search(output.name):
        found = [output.with_name(filled(output.name, piece.name, options)) for piece in pieces_of(source)]
    else:
        suffix = _suffix(options.format)
        found = [output / f"{piece.name}{suffix}" for piece in pieces_of(source)]
    for path in found:
        if path.is_dir() and written_format(path, options.format).shape != "folder":
            raise BadInput(f"the output {path} is a folder; move it away, or choose another output")
    return found


def written_for(targets: Sequence[Path], chosen: Format) -> list[Path]:
    """All files that are written for outputs, with those beside them; the outputs come first."""
    return [*targets, *(path for one in targets for path in (*chosen.companions(one), *chosen.sidecars(one)))]


def _suffix(format: str) -> str:
    """The suffix of outputs in a folder."""
    return FORMATS["tif" if format == "auto" else format].suffixes[0]


def cut_each(
    parts: Parts,
    source: Source,
    job: Job,
    output: Path,
    options: Options,
    plan: Plan,
    progress: Progress = silent,
    overwrite: bool = False,
) -> None:
    """Write the output of each feature.

    Parameters
    ----------
    parts : all blocks of the area of interest, without loss.
    source : the prepared image.
    output : as `check_pattern` returned it.

    Raises
    ------
    BadInput : a file exists and holds something else, unless ``overwrite`` is true.
    """
    targets, pieces = each_targets(source, output, options), pieces_of(source)
    make_folder(targets[0].parent)
    whole = stored_levels([parts])[0]
    for number, (piece, target) in enumerate(zip(pieces, targets, strict=True)):
        if not _is_written(job, number, target):
            cut = _parts_of(parts, source, job, options, plan, piece, number)
            with naming_damage(parts):
                _cut(whole, cut, source, plan, piece)
            _finish(cut, source, target, plan, piece, overwrite)
            _note(job, number, target)
        progress("cutting", number + 1, len(targets))


def _parts_of(
    parts: Parts, source: Source, job: Job, options: Options, plan: Plan, piece: Piece, number: int
) -> Parts:
    """The parts of the output of a piece, encoded as the output is."""
    grid = piece_grid(piece.box, options)
    encoding = encoding_of(plan, source, grid.tile)
    folder = job.folder / CUTTING / "parts"
    return Parts(folder, f"{parts.fingerprint} {number}", grid, encoding, parts.threads)


def _cut(whole: StoredLevel, cut: Parts, source: Source, plan: Plan, piece: Piece) -> None:
    """Write the missing parts of the output of a piece from the blocks of the area."""
    corner = plan.grid.made
    for index in cut.missing():
        box = cut.grid.block_box(index).shift(piece.box.y0, piece.box.x0)
        pixels = whole.read(box.shift(-corner.y0, -corner.x0), decoders())
        cut.write(index, _without_others(pixels, source, piece, box))


def _without_others(pixels: NDArray[Any], source: Source, piece: Piece, box: Box) -> NDArray[Any]:
    """The pixels, (h, w, channels), of a box of the image, of which those outside of a piece's own polygons
    are invalid: black, or as they are in the image if it is to stay unpainted there."""
    inside = piece.area.inside(box, source.shape)
    np.copyto(pixels, 0, where=~inside[..., None])
    return unpainted(source, box, inside, pixels)


def _finish(cut: Parts, source: Source, target: Path, plan: Plan, piece: Piece, overwrite: bool) -> None:
    """Make the output of a piece from its parts, and remove these."""
    said = _said(plan.identity, piece)
    made = Made(plan.quality, software(said), provenance(said), plan.bigtiff)
    finish(cut, info_for(source, plan, piece.box), target, FORMATS[plan.format], made, overwrite=overwrite)
    for one in cut.paths():
        remove(one)


def _said(identity: Mapping[str, str], piece: Piece) -> dict[str, str]:
    """The identity of a job as the output of a piece tells it: with its own place and name."""
    own = {name: value for name, value in identity.items() if name not in ("each", "wanted")}
    return own | {"region": piece.box.xywh, "feature": piece.name}


def _is_written(job: Job, number: int, target: Path) -> bool:
    """Whether an earlier call of this job wrote an output, and nobody changed it since."""
    try:
        return bool(json.loads(read_file(_record(job, number))) == _stamp(target))
    except (OSError, ValueError):
        return False


def _note(job: Job, number: int, target: Path) -> None:
    """Record that an output is written, so that no later call makes it again."""
    publish(_record(job, number), json.dumps(_stamp(target)).encode())


def _record(job: Job, number: int) -> Path:
    return job.folder / CUTTING / f"{number}.json"


def _stamp(path: Path) -> list[int]:
    """Size, inode and time of change of a file or a folder."""
    state = path.stat()
    return [state.st_size, state.st_ino, state.st_mtime_ns]
