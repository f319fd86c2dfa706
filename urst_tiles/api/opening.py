"""Opening the input of a job, and saying what was chosen of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial

from urst_tiles.errors import BadInput
from urst_tiles.options import TRANSFERS, Options
from urst_tiles.source import Source, open_source

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
        overviews=options.overviews,
    )
    if options.stretch is not None or options.model not in TRANSFERS:
        return given(stretch=options.stretch_for(""))
    source = given()
    try:
        stretch = options.stretch_for(str(source.file_dtype))
    except BadInput as error:
        raise BadInput(f"{source.path}: {error}") from None
    return given(stretch=stretch)


def tell_choice(source: Source) -> None:
    """Say in one line which page, channels or bands are read, if the file left a choice and the user did not
    make it."""
    if source.told:
        told.warning("%s: reads %s; --page, --channels or --bands choose otherwise", source.path, source.told)


def tell_lost(source: Source) -> None:
    """Say in one line which facts of the file the output does not take over, if there are any."""
    if source.info.lost:
        told.warning("%s: not taken over into the output: %s", source.path, ", ".join(source.info.lost))


def tell_notes(source: Source, notes: Sequence[str]) -> None:
    """Say what was found while the image was measured, each in one line."""
    for note in notes:
        told.warning("%s: %s", source.path, note)
