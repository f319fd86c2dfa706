"""What the bands of an output are, where they are not red, green and blue."""

from __future__ import annotations

from dataclasses import replace

from urst_tiles.nets.colour.stain import LEVELS_PER_AMOUNT
from urst_tiles.plan import Plan
from urst_tiles.source import Source
from urst_tiles.source.part import info_of
from urst_tiles.tiff.metadata import Info, with_bands_told

#: The unit of the amount of a stain, whose optical density is a vector of length 1.
UNIT = "optical density (natural logarithm)"


def info_for(source: Source, plan: Plan) -> Info:
    """The metadata of the output of a plan: that of the image or of its part, and what its bands are."""
    info = info_of(source, plan.grid.part)
    names = [name for name in plan.identity.get("stains", "").split(",") if name]
    if not names:
        return info
    scale = f"{1 / LEVELS_PER_AMOUNT:g}"
    told = [
        item
        for n, name in enumerate(names)
        for item in (("description", n, name), ("scale", n, scale), ("offset", n, "0"), ("unittype", n, UNIT))
    ]
    return replace(info, icc=None, gdal_metadata=with_bands_told(info.gdal_metadata, told))
