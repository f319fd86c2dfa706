"""Polygons that were drawn on an image, each with a style of its own, or to keep the image as it is there."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.geometry import Box
from urst_tiles.source import Source
from urst_tiles.source.burnt import BurntMask
from urst_tiles.source.crs import image_crs
from urst_tiles.storage.publish import publish
from urst_tiles.studio.asked import check_style
from urst_tiles.tiff.position import affine_of, epsg_of

#: How many polygons there may be, and how many corners they may have together.
MOST_POLYGONS, MOST_CORNERS = 200, 5000

#: Side in pixels of the squares in which polygons are burnt.
SQUARE = 1024

Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Drawn:
    """Polygons on an image.

    Attributes
    ----------
    polygons : of each the style, empty to keep the image as it is, and the corners (x, y) in pixels. Where
        they overlap, the last one counts.
    """

    polygons: tuple[tuple[str, Corners], ...]

    @classmethod
    def of(cls, words: Any) -> Drawn:
        """Polygons from a list of ``{"style", "corners"}``; BadInput if it is none."""
        if not isinstance(words, list) or not 0 < len(words) <= MOST_POLYGONS:
            raise BadInput(f"there may be 1 to {MOST_POLYGONS} polygons")
        polygons = tuple(_polygon(one) for one in words)
        if sum(len(corners) for _, corners in polygons) > MOST_CORNERS:
            raise BadInput(f"the polygons may have {MOST_CORNERS} corners together")
        return cls(polygons)

    @property
    def words(self) -> list[dict[str, Any]]:
        """The inverse of ``of``."""
        return [{"style": style, "corners": [list(xy) for xy in corners]} for style, corners in self.polygons]

    @property
    def id(self) -> str:
        """16 hexadecimal digits that tell these polygons from others."""
        return sha256(json.dumps(self.words).encode()).hexdigest()[:16]

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each style in the mask, from 1 on; that of "", if it is there, is the last."""
        styles = sorted({style for style, _ in self.polygons}, key=lambda style: (style == "", style))
        return {style: number for number, style in enumerate(styles, 1)}

    def styles(self, base: str) -> dict[int, str]:
        """The styles by number, for ``--style NUMBER=STYLE``: ``base`` is that outside of all polygons, and
        where it is empty, the image stays as it is there, too."""
        return ({0: base} if base else {}) | {n: style for style, n in self.numbers.items() if style}

    def geojson(self, source: Source) -> bytes:
        """The polygons as a file for ``--mask``: the attribute ``region`` is the number of the style.

        Coordinates are those of the image's reference system, which the member ``crs`` names (GeoJSON 2008,
        section 3); for an image that is not georeferenced they are pixels.

        Raises
        ------
        BadInput : the image is georeferenced by points alone, or in a system that it does not name.
        """
        place, crs = affine_of(source.info.geo), None
        if place is None and source.info.geo:
            raise BadInput(
                f"{source.path.name} has ground control points alone, by which polygons cannot be placed;"
                " warp it with gdalwarp first"
            )
        if place is not None:
            code = epsg_of(source.info.geo)
            name = f"EPSG:{code}" if code else image_crs(source, "a drawn polygon").to_wkt()
            crs = {"crs": {"type": "name", "properties": {"name": name}}}
        features = []
        for style, corners in self.polygons:
            ring = [place(x, y) if place else (x, y) for x, y in (*corners, corners[0])]
            features.append(
                {
                    "type": "Feature",
                    "properties": {"region": self.numbers[style], "style": style or "as it is"},
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                }
            )
        return json.dumps({"type": "FeatureCollection", **(crs or {}), "features": features}).encode()


def _polygon(words: Any) -> tuple[str, Corners]:
    """A polygon from ``{"style", "corners"}``."""
    try:
        style = str(words["style"])
        corners = tuple((round(float(x), 2), round(float(y), 2)) for x, y in words["corners"])
    except (TypeError, ValueError, KeyError, OverflowError):
        raise BadInput("a polygon is a style and a list of corners") from None
    if len(corners) < 3 or not all(map(math.isfinite, sum(corners, ()))):
        raise BadInput("a polygon has at least three corners, whose coordinates are numbers")
    if style:
        check_style(style)
    return style, corners


class Drawings:
    """The polygons that were drawn while the studio is open, each under its ``id``.

    Parameters
    ----------
    folder : a folder for temporary files; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "drawn"
        self._drawn: dict[str, Drawn] = {}

    def add(self, drawn: Drawn) -> str:
        """Keep polygons; their id."""
        if len(self._drawn) >= 4 * MOST_CORNERS:
            raise BadInput("too many polygons were drawn; open the studio anew")
        self._drawn[drawn.id] = drawn
        return drawn.id

    def get(self, id: str) -> Drawn:
        """The polygons of an id; MissingFile if there are none."""
        if id not in self._drawn:
            raise MissingFile("these polygons were drawn in another studio; draw them again")
        return self._drawn[id]

    def file(self, id: str, source: Source) -> Path:
        """The polygons as a file for ``--mask`` over an image, in a folder of its own, as `Drawn.geojson`."""
        content = self.get(id).geojson(source)
        whose = sha256(content + str((source.shape, source.path)).encode()).hexdigest()[:16]
        path = self._folder / whose / "mask.geojson"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(path, content)
        return path


def burn(mask: BurntMask, target: Path) -> None:
    """Write a mask as `urst_tiles.source.mask.spool_mask` does, but only where polygons are: the rest of the
    file is a hole, which reads as 0. So a few polygons on a large image take no time and no room."""
    if target.exists():
        return
    attempt = target.with_name(f"{target.name}.part")
    out = np.lib.format.open_memmap(attempt, "w+", np.dtype(mask.dtype), mask.shape, version=(2, 0))
    image = Box(0, 0, *mask.shape)
    squares: dict[Box, None] = {}
    for polygon in mask.polygons:
        (x0, y0), (x1, y1) = (getattr(polygon[0], end)(0) for end in ("min", "max"))
        reach = Box(*(int(n) for n in np.floor((y0, x0, y1 + 1, x1 + 1))))
        if reach.y0 < image.y1 and reach.x0 < image.x1 and reach.y1 > 0 and reach.x1 > 0:
            squares |= dict.fromkeys(
                cell.align(SQUARE).clip(image) for cell in reach.clip(image).cells(SQUARE)
            )
    for square in squares:
        out[square.slices] = next(mask.strips([square]))
    out.flush()
    del out
    attempt.rename(target)
