"""Opening the input of a job, and saying what was chosen of it."""

from __future__ import annotations

import logging
import os

from urst_tiles.options import Options
from urst_tiles.source import Source, open_source

#: What the user is told about the choices that the program made; the command line prints it on stderr.
told = logging.getLogger("urst_tiles.told")


def open_input(path: str | os.PathLike[str], options: Options) -> Source:
    """Open an image as the options of a job say.

    Raises
    ------
    UrstError : as `open_source`.
    """
    return open_source(
        path,
        page=options.page,
        channels=options.channels,
        bands=options.bands,
        stretch=options.stretch,
        overviews=options.overviews,
    )


def tell_choice(source: Source) -> None:
    """Say in one line which page, channels or bands are read, if the file left a choice and the user did not
    make it; and of many files, how they make one image."""
    if source.made_of:
        told.warning("%s: %s", source.path, source.made_of)
    if source.told:
        told.warning("%s: reads %s; --page, --channels or --bands choose otherwise", source.path, source.told)


def tell_lost(source: Source) -> None:
    """Say in one line which facts of the file the output does not take over, if there are any."""
    if source.info.lost:
        told.warning("%s: not taken over into the output: %s", source.path, ", ".join(source.info.lost))
