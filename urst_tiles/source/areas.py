"""From options to areas: which pixels of an image the user calls valid."""

from __future__ import annotations

from pathlib import Path

from urst_tiles.errors import BadInput
from urst_tiles.source.aoi import read_polygons
from urst_tiles.source.area import Area
from urst_tiles.source.mask import valid_area
from urst_tiles.source.source import Source
from urst_tiles.source.tissue import Tissue


def areas_of(
    source: Source, valid: Path | str | None = None, aoi: Path | None = None, each: str | None = None
) -> tuple[Area, ...]:
    """The areas of an image outside of which pixels are invalid; none if nothing is given.

    Parameters
    ----------
    valid : a picture whose zeros are invalid, a file of polygons, or the word "tissue".
    aoi : a GeoJSON file or a GeoPackage of polygons.
    each : what of each feature of ``aoi`` is the name of its own output; None for one output.

    Raises
    ------
    MissingFile : a file does not exist or cannot be read.
    BadInput : a file does not fit the image; or tissue is asked for, and the image has no colours.
    DamagedFile : the header of a file cannot be read.
    """
    areas: list[Area] = []
    if valid == "tissue":
        if source.is_grey:
            raise BadInput(
                f"{source.path} is grey, and --valid tissue looks for colour; give a mask in its place"
            )
        areas.append(Tissue())
    elif valid is not None:
        areas.append(valid_area(Path(valid), source))
    if aoi is not None:
        areas.append(read_polygons(source, aoi, each=each))
    return tuple(areas)
