"""An output for each input (``--tiles same``): the result of many files is cut into files of the same places.

The whole is stylised and assembled first, in the job folder, so that nothing jumps at a border. Each output
then has exactly the pixels of the whole at the place of its input.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from urst_tiles.api.bands import with_bands
from urst_tiles.api.each import check_pattern, each_targets, written_for
from urst_tiles.api.opening import open_input
from urst_tiles.api.output import (
    check_name,
    check_output,
    provenance,
    refuse_inputs,
    software,
    written_format,
)
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, Grid
from urst_tiles.job.folder import Job
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import tile_side
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid import assemble as assemble_parts
from urst_tiles.pyramid.formats import FORMATS
from urst_tiles.pyramid.parts import Parts
from urst_tiles.source import Source
from urst_tiles.source.bandfiles import band_files
from urst_tiles.source.cutting import StoredPixels, info_of
from urst_tiles.source.members import AnyPath, is_many, takes_in
from urst_tiles.storage.publish import make_folder
from urst_tiles.storage.stores import is_remote, path_of, remove

#: The result of all files, and the parts of the file that is being cut from it, in the job folder.
WHOLE, CUTTING = "whole.tif", "cutting"


def check_target(output: AnyPath, input: AnyPath, options: Options, *more: AnyPath | None) -> Path:
    """The absolute path of the output: a file; or with the option ``tiles`` a folder, which need not exist;
    or with the option ``each`` as `check_pattern` has it.

    ``more`` are other files that are read. The errors are those of `check_output`.
    """
    by_band = band_files(input, options.bands) is not None  # then an output in that folder is none of them
    if options.each is not None:
        return check_pattern(output, options, None if by_band else input, *more)
    if options.tiles == "one":
        return check_output(output, None if by_band else input, *more, format=options.format)
    if by_band or not is_many(input):
        raise BadInput(f"--tiles same writes a file for each of many, and {input} is one; leave it out")
    if options.format not in ("auto", "tif"):
        raise BadInput(f"--tiles same writes TIFFs, not {options.format}; leave --format or --tiles out")
    if options.has_part:
        raise BadInput("--tiles same writes the whole of each file; leave it out for a part of the image")
    if options.job_dir is not None and is_remote(path_of(options.job_dir)):
        raise BadInput(
            f"--job-dir {options.job_dir} is on an object store, and --tiles same needs a folder on a disk"
        )
    folder = check_name(Path(output), None)
    if os.path.lexists(folder) and not folder.is_dir():
        raise BadInput(f"the output {folder} is a file; with --tiles same name a folder")
    if takes_in(input, folder / "a.tif"):
        raise BadInput(f"the output {folder} is the folder of the input; name another")
    return check_output(folder / "a.tif", makes_folder=True).parent


def targets_of(source: Source, output: Path, options: Options) -> list[Path]:
    """The files that a job writes, the output first.

    Raises
    ------
    BadInput : two inputs have the same name.
    """
    chosen = written_format(output, options.format)
    if options.each is not None:
        return written_for(each_targets(source, output, options), chosen)
    if options.tiles == "one":
        return [output, *chosen.companions(output), *chosen.sidecars(output)]
    found: dict[Path, Path] = {}
    for path, _ in source.members:
        target = output / path.name
        target = target if target.suffix.lower() in FORMATS["tif"].suffixes else target.with_suffix(".tif")
        if target in found:
            raise BadInput(
                f"{found[target]} and {path} would both become {target}; rename one, or leave --tiles out"
            )
        found[target] = path
    return list(found)


def refuse_targets(targets: Sequence[Path], inputs: Sequence[tuple[str, Path]]) -> None:
    """Raise BadInput if one of the files to be written is one of those that are read, as `refuse_inputs`."""
    if len(targets) == 1:
        return refuse_inputs(targets[0], inputs)
    read = dict(zip(_places(path for _, path in inputs), inputs, strict=True))
    for target, place in zip(targets, _places(targets), strict=True):
        if place in read:
            refuse_inputs(target, [read[place]])


def _places(paths: Iterable[Path]) -> list[object]:
    """A value for each path that is the same for two names of one file, if it exists."""
    states = (path.stat() if path.exists() else None for path in paths)
    return [object() if state is None else (state.st_dev, state.st_ino) for state in states]


def cut_tiles(
    whole: Path,
    parts: Parts,
    source: Source,
    job: Job,
    output: Path,
    options: Options,
    plan: Plan,
    progress: Progress = silent,
    overwrite: bool = False,
) -> None:
    """Write a file for each input into the folder ``output``.

    Parameters
    ----------
    whole, parts : the result of all files, and the parts that it was assembled from.

    Raises
    ------
    BadInput : a file exists and holds something else, unless ``overwrite`` is true.
    """
    make_folder(output)
    targets = targets_of(source, output, options)
    stored = StoredPixels(whole, parts.encoding.colours, parts.encoding.channels)
    for number, (target, (path, box)) in enumerate(zip(targets, source.members, strict=True)):
        cut = _parts_of(parts, job, box, number)
        job.writes(cut.paths())
        for index in cut.missing():
            inner = cut.grid.block_box(index)
            cut.write(index, stored.read(inner.shift(box.y0, box.x0)))
        assemble_parts(
            cut,
            with_bands(info_of(open_input(path, options), source), plan),
            target,
            overwrite=overwrite,
            software=software(plan.identity),
            provenance=provenance(plan.identity),
            bigtiff=plan.bigtiff,
        )
        for one in cut.paths():
            remove(one)
        progress("cutting", number + 1, len(targets))


def _parts_of(parts: Parts, job: Job, box: Box, number: int) -> Parts:
    """The parts of the file that is cut from a box of the whole."""
    tile = min(tile_side(*box.shape), parts.grid.block)
    grid = Grid(*box.shape, core=tile, block=parts.grid.block, tile=tile)
    encoding = replace(parts.encoding, tile=tile)
    return Parts(job.folder / CUTTING, f"{parts.fingerprint} {number}", grid, encoding, parts.threads)
