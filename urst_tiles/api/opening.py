"""Opening the input of a job, and saying what was chosen of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from urst_tiles import nets
from urst_tiles.errors import BadInput
from urst_tiles.options import TRANSFERS, Options
from urst_tiles.plan import Plan
from urst_tiles.pyramid.beside import lost_beside
from urst_tiles.pyramid.formats import FORMATS, lost_in
from urst_tiles.source import Source, open_source
from urst_tiles.source.areas import areas_of
from urst_tiles.source.part import part_of
from urst_tiles.source.pieces import drawn, left_out, pieces_of
from urst_tiles.source.stretch import is_stretch
from urst_tiles.storage.names import require_file
from urst_tiles.storage.publish import megabytes

#: What the user is told about the choices that the program made; the command line prints it on stderr.
told = logging.getLogger("urst_tiles.told")


def open_input(path: str | os.PathLike[str], options: Options) -> Source:
    """Open an image as the options of a job say.

    Raises
    ------
    UrstError : as `open_source`, and as `Options.stretch_for`.
    """
    given = partial(
        open_source,
        path,
        page=options.page,
        channels=options.channels,
        bands=options.bands,
        level=options.level,
        magnification=options.magnification,
        overviews=options.overviews,
    )
    if options.look is not None:
        source = _like_look(given, options.look)
    elif options.stretch is not None or options.network not in TRANSFERS:
        source = given(stretch=options.stretch_for(""))
    else:
        source = given()
        try:
            source = given(stretch=options.stretch_for(str(source.file_dtype)))
        except BadInput as error:
            raise BadInput(f"{source.path}: {error}") from None
    areas = areas_of(source, options.valid, options.aoi, options.named_by)
    return source.with_valid(*areas) if areas else source


def _like_look(given: Callable[..., Source], path: Path) -> Source:
    """An image that is opened by ``given``, with the stretch of the look at ``path``.

    Raises
    ------
    BadInput : the values of the image do not mean what those did that the look was measured of.
    """
    require_file(path, "look file")
    stretch = nets.look_facts(path).get("stretch")
    if stretch is not None and not is_stretch(stretch):
        raise BadInput(f"{path} is damaged: its stretch is {stretch!r}; make it anew with urst-tiles measure")
    source = given() if stretch is None else given(stretch=stretch)
    if (source.file_dtype == np.uint8) != (stretch is None):
        of = "uint8 images" if stretch is None else "images whose values are stretched"
        raise BadInput(
            f"{source.path}: its samples are {source.file_dtype}, and the look {path} was measured of {of};"
            " convert the image, or measure a look of images like it"
        )
    return source


def tell_choice(source: Source) -> None:
    """Say in one line which page, channels or bands are read, if the file left a choice and the user did not
    make it; and of many files, how they make one image."""
    if source.made_of:
        told.warning("%s: %s", source.path, source.made_of)
    if source.told:
        told.warning("%s: reads %s; --page, --channels or --bands choose otherwise", source.path, source.told)


def tell_part(source: Source, options: Options) -> None:
    """Say in one line what is made of a part that reaches beyond the image.

    Raises
    ------
    BadInput : the part lies outside of the image, see `part_of`.
    """
    part = part_of(source, options.region, options.bbox, options.bbox_crs)
    if part is not None and part.is_clipped:
        told.warning(
            "%s: the part %s reaches beyond the image, of which %s (x,y,w,h) is made",
            source.path, part.asked.xywh, part.box.xywh,
        )  # fmt: skip


def tell_pieces(source: Source) -> None:
    """Say in one line how many files are made of an area of interest, what names them, and which features lie
    outside of the image."""
    area, pieces, missing = drawn(source), pieces_of(source), left_out(source)
    if area is None or not pieces:
        return
    count = f"{len(pieces)} file{'s' * (len(pieces) > 1)}"
    said = f"{count}, one for each feature, named by {area.named_by}"
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        said += f"; outside of the image, and left out: {names}"
    told.warning("%s: %s", area.path, said)


def tell_lost(source: Source) -> None:
    """Say in one line which facts of the file the output does not take over, if there are any."""
    if source.info.lost:
        told.warning("%s: not taken over into the output: %s", source.path, ", ".join(source.info.lost))


def tell_format(output: Path, source: Source, plan: Plan) -> None:
    """Say in one line what the format of the output cannot hold of the picture, if there is anything."""
    chosen = FORMATS[plan.format]
    lossy_tiles = plan.compression in ("jpeg", "webp")
    lost = lost_in(chosen, source.info, channels=source.channels, lossy_tiles=lossy_tiles)
    if chosen.georeference == "beside":
        lost += lost_beside(source.info)
    if source.file_dtype == np.uint16 and plan.dtype == "uint8" and not chosen.sixteen_bit:
        lost.append("more than 8 bits")
    if lost:
        told.warning("%s: %s does not hold %s", output, chosen.title, ", ".join(lost))


def tell_compression(source: Source, plan: Plan) -> None:
    """Say in one line that a TIFF could be smaller, if the input is JPEG and the output is lossless."""
    lossless = FORMATS[plan.format].tiff and plan.compression not in ("jpeg", "webp")
    if source.is_jpeg and lossless and plan.dtype == "uint8":
        small = replace(plan, compression="jpeg").expected_output_bytes
        told.warning(
            "%s is compressed as JPEG: with --compression jpeg the output would take about %s instead of %s",
            source.path, megabytes(small), megabytes(plan.expected_output_bytes),
        )  # fmt: skip


def tell_notes(source: Source, notes: Sequence[str]) -> None:
    """Say what was found while the image was measured, each in one line."""
    for note in notes:
        told.warning("%s: %s", source.path, note)
