"""The averages that a thumbnail is made of, in the values of the file: read once, saved in the job folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from urst_tiles.geometry import Box
from urst_tiles.progress import Progress
from urst_tiles.source import thumbnail as thumbs
from urst_tiles.source.area import AreaOpener
from urst_tiles.source.facts import Facts
from urst_tiles.source.openers import Opener, Reader, check_unchanged
from urst_tiles.source.orient import as_stored, oriented, shown
from urst_tiles.source.saved import load_if_whole, npz
from urst_tiles.storage.publish import publish


def averages_of(
    facts: Facts, reader: Reader, side: int, use_overviews: bool, path: Path | None, progress: Progress
) -> thumbs.Thumbnail:
    """The thumbnail in the values of the file, as stored.

    Parameters
    ----------
    facts : the facts of the source.
    reader : reads its samples.
    side : the shorter side of the thumbnail in pixels.
    use_overviews : whether it may be made from an overview.
    path : the file that it is saved in for later calls, and taken from if that exists; None for neither.
    """
    saved = load_if_whole(path)
    if saved is not None:
        return thumbs.Thumbnail(saved["colour"], saved.get("weight"), str(saved["origin"]))
    shape = thumbs.thumbnail_shape(facts.stored, side)
    level = thumbs.best_level(shape, reader.levels) if use_overviews else None
    if shape == facts.stored:
        origin, level = "the image itself", None
    elif level is None:
        origin = "one streamed pass"
    else:
        h, w = oriented(reader.levels[level], facts.orientation)
        origin = f"overview {w} x {h} of the file"
    made = _averages(facts, reader, level, shape, origin, progress)
    if level is not None and made.is_invalid:  # an overview may have lost the few valid pixels
        made = _averages(facts, reader, None, shape, "one streamed pass", progress)
    if facts.random_access:
        check_unchanged(facts.opener)
    if path is not None:
        publish(path, npz(**made._asdict()))
    return made


def _averages(
    facts: Facts, reader: Reader, level: int | None, shape: tuple[int, int], origin: str, progress: Progress
) -> thumbs.Thumbnail:
    """The thumbnail of ``shape``, made from an overview, or from the image if ``level`` is None."""
    number = 0 if level is None else level + 1

    return thumbs.average(
        lambda box: reader.cell(box, number),
        facts.stored if level is None else reader.levels[level],
        shape,
        facts.average_cell or reader.cell_shape,
        bands=facts.colours,
        has_valid=reader.has_valid,
        origin=origin,
        progress=progress,
    )


def in_areas(
    facts: Facts,
    opener: Opener,
    folder: Path | None,
    bare: thumbs.Thumbnail | None,
    progress: Progress,
) -> AreaOpener:
    """An opener of what lies in the areas of the facts, which are made ready to be read.

    Parameters
    ----------
    opener : gives random access to the pixels.
    folder : where files of the areas are saved; None for memory.
    bare : the thumbnail of the whole image, as stored, if an area follows from it.
    """
    if bare is not None:
        weight = None if bare.weight is None else shown(bare.weight, facts.orientation)
        bare = thumbs.Thumbnail(shown(bare.colour, facts.orientation), weight, bare.origin)
    placed = tuple(area.placed(folder, bare, progress) for area in facts.areas)
    return AreaOpener(opener, placed, facts.orientation)


def weighed(bare: thumbs.Thumbnail, opener: AreaOpener) -> thumbs.Thumbnail:
    """The thumbnail of a whole image, as stored, without what lies outside of areas that are rasters of its
    size."""
    h, w = bare.colour.shape[:2]
    image, upright = (h, w), oriented((h, w), opener.orientation)
    weight = np.ones(image, np.float32) if bare.weight is None else bare.weight
    for area in opener.areas:
        inside = area.inside(Box(0, 0, *upright), upright)
        weight = weight * as_stored(inside, opener.orientation)
    return bare._replace(weight=weight.astype(np.float32))
