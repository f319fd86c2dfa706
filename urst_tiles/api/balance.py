"""`balance`: georeferenced scenes get the colours that make them alike where they overlap.

The scenes are measured in the cells of one lattice on the ground (`urst_tiles.source.cells`), every pair that
overlaps is compared robustly (`urst_tiles.overlap`), and one solve finds the gains and the offsets of all of
them (`urst_tiles.adjustment`). They are written as a table and as look files; then every scene is a job like
those of a table of jobs (`urst_tiles.api.batch`), with ``model="colour"`` and its look.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from urst_tiles import nets
from urst_tiles.api.balance_table import BalanceTable, read_balance, scene_facts
from urst_tiles.api.batch import BatchOutcome, Record, run_batch
from urst_tiles.api.opening import open_input, tell_choice, told
from urst_tiles.api.output import check_name, refuse_inputs
from urst_tiles.api.overlaps import forget, measured_scenes
from urst_tiles.api.table import BatchJob
from urst_tiles.errors import BadInput
from urst_tiles.options import Options
from urst_tiles.progress import Progress, silent
from urst_tiles.pyramid.formats import FORMATS
from urst_tiles.source import Source
from urst_tiles.source.cells import placement
from urst_tiles.source.members import find_members, is_many
from urst_tiles.storage.publish import make_folder, publish
from urst_tiles.storage.stores import is_remote

BalanceMethod = Literal["mean-std", "gain"]
METHODS: tuple[str, ...] = get_args(BalanceMethod)

AnyPath = str | os.PathLike[str]

#: The table of gains and offsets in the folder of the outputs, and the folders in it of the look of each
#: scene and, while scenes are measured, of unfinished work.
TABLE, LOOKS, WORK = "balance.json", "looks", "balance.job"

#: Options that decide what is measured; the table of others is not used.
MEASURED_BY = ("page", "channels", "bands", "level", "magnification", "stretch", "valid", "overviews")

#: Options of a job that have no meaning for many scenes, or that the balance decides itself.
NOT_HERE = {
    "model": "the model is colour", "method": "use the argument method", "look": "it is for painting",
    "statistics": "overlaps are measured", "statistics_of": "overlaps are measured",
    "mask": "each scene has one map", "mask_attribute": "each scene has one map",
    "stroke": "nothing is painted", "preserve_color": "nothing is painted", "white": "it is for slides",
    "stains": "it is for slides",
    "region": "scenes are whole", "bbox": "scenes are whole", "bbox_crs": "scenes are whole",
    "aoi": "scenes are whole", "job_dir": "each job has its folder beside its output",
    "tiles": "each scene has an output of its own",
}  # fmt: skip


@dataclass(frozen=True)
class BalanceReport:
    """What `balance` found and did.

    Attributes
    ----------
    table : the gains, offsets and overlaps, as in the file ``balance.json``.
    path : that file.
    outcomes : how the job of each scene ended, in the order of the scenes.
    """

    table: BalanceTable
    path: Path
    outcomes: tuple[BatchOutcome, ...]


def balance(
    scenes: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    options: Options | None = None,
    *,
    reference: AnyPath | None = None,
    method: BalanceMethod = "mean-std",
    resolution: float | None = None,
    starting: Callable[[int, int, BatchJob], None] = lambda number, total, entry: None,
    progress: Progress = silent,
    **changes: Any,
) -> BalanceReport:
    """Make georeferenced scenes alike where they overlap, and write each of them into a folder.

    Each channel of each scene is multiplied by a gain, and an offset is added. All of them follow from the
    overlaps of all scenes by one least-squares solve, which is robust against clouds and changes.

    Parameters
    ----------
    scenes : image files with a place on the ground, uint8 or uint16, in any grids and reference systems; or a
        folder, a pattern or ``@`` and a list, each file of which is a scene.
    output : a folder, which is made if it does not exist. It gets a file for each scene, with the name of the
        scene; ``balance.json``, the table of gains, offsets and overlaps; and ``looks``, with a look for each
        scene.
    options, changes : the options of a job that say how scenes are read and outputs written.
    reference : the scene that keeps its colours, or another georeferenced image, a basemap, whose colours all
        scenes get. None keeps the mean and the deviation of all scenes together.
    method : "mean-std" finds a gain and an offset, "gain" a gain alone, from means alone.
    resolution : side of the cells in which scenes are compared, in units of the reference system of the
        reference or of the first scene; None to choose it.
    starting : called before the job of each scene, as in `run_batch`.
    progress : called with the name of a stage, and how much of it is done out of how much.

    Raises
    ------
    UrstError : a scene cannot be read or has no place, scenes do not go together, or a file exists. A job
        that fails later does not stop the others, and is told in the report. The same call goes on.
    """
    chosen = _checked(options, changes, method)
    paths = scene_paths(scenes)
    folder = check_name(os.path.abspath(output), None)
    targets = _targets(paths, folder, chosen)
    files = [*paths, *([Path(reference).absolute()] if reference is not None else [])]
    for target in (*targets, folder / TABLE):
        refuse_inputs(target, (("scene", path) for path in files))
    if os.path.lexists(folder) and not folder.is_dir():
        raise BadInput(f"the output {folder} is a file; name a folder")
    _refuse_foreign(targets, chosen)
    sources, base = _opened(paths, reference, chosen)
    request = _request(sources, base, method, resolution, chosen)
    table = read_balance(folder / TABLE, request, overwrite=chosen.overwrite)
    if table is None:
        found = measured_scenes(
            sources, base, work=folder / WORK, resolution=resolution, options=chosen, progress=progress
        )
        table = BalanceTable.solved(request, found, method)
        make_folder(folder)
        publish(folder / TABLE, table.to_json().encode())
    forget(folder / WORK)
    for sentence in table.notes():
        told.warning("%s", sentence)
    entries = _entries(paths, targets, folder, table, sources, chosen)
    run = run_batch(entries, overwrite=chosen.overwrite, starting=starting, progress=progress)
    return BalanceReport(table, folder / TABLE, tuple(run))


def scene_paths(scenes: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """The absolute path of each scene, in the order in which they were named.

    Raises
    ------
    UrstError : a name stands for no file, or there are fewer than two scenes, or one is named twice.
    """
    named = [scenes] if isinstance(scenes, str | os.PathLike) else list(scenes)
    found: list[Path] = []
    for name in named:
        found += find_members(name) if is_many(name) else [Path(name).absolute()]
    for number, path in enumerate(found):
        if path in found[:number]:
            raise BadInput(f"the scene {path} is named twice; name it once")
    if len(found) < 2:
        raise BadInput(f"there are overlaps between two scenes or more, and {len(found)} was given")
    return found


def _checked(options: Options | None, changes: Any, method: str) -> Options:
    """The options of the jobs; BadInput if one of them or the method makes no sense here."""
    if method not in METHODS:
        raise BadInput(f"the method of balance is one of {', '.join(METHODS)}, got {method!r}")
    chosen = Options.of(options, changes)
    for name, why in NOT_HERE.items():
        if getattr(chosen, name) not in (getattr(Options(), name), "colour" if name == "model" else None):
            raise BadInput(f"balance takes no --{name.replace('_', '-')}: {why}; leave it out")
    if chosen.stretch is not None and "%" in chosen.stretch:
        raise BadInput(
            f"--stretch {chosen.stretch} is another in each scene; give values, as in --stretch 0,10000"
        )
    if chosen.plain_bands:
        raise BadInput("balance compares red, green and blue: take three --bands")
    return replace(chosen, model="colour")


def _targets(paths: Sequence[Path], folder: Path, options: Options) -> list[Path]:
    """The output of each scene; BadInput if two scenes would have the same."""
    if is_remote(folder):
        raise BadInput(f"{folder} is on an object store, and balance writes into a folder of this machine")
    form = FORMATS["tif" if options.format == "auto" else options.format]
    found: dict[Path, Path] = {}
    for path in paths:
        keeps = form.name == "tif" and path.suffix.lower() in form.suffixes
        target = folder / (path.name if keeps else f"{path.stem}{form.suffixes[0]}")
        if target in found:
            raise BadInput(f"{found[target]} and {path} would both become {target}; rename one")
        found[target] = path
    return list(found)


def _refuse_foreign(targets: Sequence[Path], options: Options) -> None:
    """Raise BadInput if a file exists that no job of this program wrote, before any work begins."""
    for target in targets if not options.overwrite else ():
        if os.path.lexists(target) and Record.beside(target).request is None:
            raise BadInput(f"{target} exists; give --overwrite to make it anew, or choose another folder")


def _opened(
    paths: Sequence[Path], reference: AnyPath | None, options: Options
) -> tuple[list[Source], int | Source | None]:
    """The scenes, and the number of that which is the reference, or another image, or None.

    Raises
    ------
    BadInput : an image has no place, or they have different types of values.
    """
    sources = [open_input(path, options) for path in paths]
    base: int | Source | None = None
    if reference is not None:
        same = [n for n, path in enumerate(paths) if _is_same(path, Path(reference))]
        base = same[0] if same else open_input(reference, options)
        if isinstance(base, Source):
            tell_choice(base)  # of a scene its job does that
    every = [*sources, *([base] if isinstance(base, Source) else [])]
    for source in every:
        placement(source)
        if source.dtype != sources[0].dtype:
            raise BadInput(
                f"{source.path} has values of {source.file_dtype} and {sources[0].path} of"
                f" {sources[0].file_dtype}, which do not compare; convert them first (gdal_translate -ot)"
            )
    return sources, base


def _is_same(path: Path, reference: Path) -> bool:
    return path.exists() and reference.exists() and os.path.samefile(path, reference)


def _request(
    sources: Sequence[Source], base: int | Source | None, method: str, resolution: float | None,
    options: Options,
) -> dict[str, Any]:  # fmt: skip
    """What decides the table, in a form that JSON can hold."""
    read = {name: getattr(options, name) for name in MEASURED_BY}
    return {
        "scenes": [scene_facts(source) for source in sources],
        "reference": scene_facts(base) if isinstance(base, Source) else base,
        "method": method,
        "resolution": resolution,
        "read": json.loads(json.dumps(read, default=str)),
    }


def _entries(
    paths: Sequence[Path],
    targets: Sequence[Path],
    folder: Path,
    table: BalanceTable,
    sources: Sequence[Source],
    options: Options,
) -> list[BatchJob]:
    """The job of each scene, whose look is written into the folder."""
    make_folder(folder / LOOKS)
    entries = []
    for number, (path, target, source) in enumerate(zip(paths, targets, sources, strict=True)):
        look = folder / LOOKS / f"{target.name}.json"
        text = _look(table, number, source).to_json()
        if not look.is_file() or look.read_text() != text:
            publish(look, text.encode())
        plain = replace(options, overwrite=False)
        entries.append(BatchJob(path, target, str(look), "balance", plain))
    return entries


def _look(table: BalanceTable, number: int, source: Source) -> nets.Look:
    """The look with the gains and offsets of a scene."""
    gains, offsets = table.of(number)
    facts = nets.Measured(
        name=source.path.name,
        width=source.shape[1],
        height=source.shape[0],
        dtype=str(source.file_dtype),
        fingerprint=source.fingerprint,
    )
    return nets.Look(
        model="colour",
        method="gain-offset",
        statistics={"gains": gains, "offsets": offsets},
        on="overlaps",
        sources=(facts,),
    )
