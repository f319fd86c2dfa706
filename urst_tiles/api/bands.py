"""What the bands of an output are, where they are not red, green and blue."""

from __future__ import annotations

from dataclasses import replace

from urst_tiles.geometry import Box
from urst_tiles.nets.colour.stain import LEVELS_PER_AMOUNT
from urst_tiles.plan import Plan
from urst_tiles.source import Source
from urst_tiles.source.part import Info, described, info_of

#: The unit of the amount of a stain, whose optical density is a vector of length 1.
UNIT = "optical density (natural logarithm)"


def info_for(source: Source, plan: Plan, box: Box | None = None) -> Info:
    """The metadata of the output of a plan, or of what is cut from it in a box of the image: that of the
    image or of its part, and what its bands are."""
    return with_bands(info_of(source, box or plan.grid.part), plan)


def with_bands(info: Info, plan: Plan) -> Info:
    """The metadata of an image, and what the bands are that a plan makes of it."""
    maps = [name for name in plan.identity.get("stains", "").split(",") if name]
    told = [item for n, name in enumerate(maps) for item in _map_items(n, name, plan.dtype)]
    if not maps:
        told = [("description", n, name) for n, name in enumerate(info.bands) if name]
    return described(info if plan.colours == 3 else replace(info, icc=None), told)


def _map_items(number: int, stain: str, dtype: str) -> list[tuple[str, int, str]]:
    """What the band of a stain's amounts says of itself; floats are in their unit."""
    scale = "1" if dtype == "float32" else f"{1 / LEVELS_PER_AMOUNT:g}"
    return [
        ("description", number, stain), ("scale", number, scale), ("offset", number, "0"),
        ("unittype", number, UNIT),
    ]  # fmt: skip
