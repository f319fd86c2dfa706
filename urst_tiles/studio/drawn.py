"""Polygons that were drawn on an image, each with a style of its own, or to keep the image as it is there."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.kept import Kept
from urst_tiles.source import Source
from urst_tiles.source.geojson_writing import geojson_of
from urst_tiles.storage.publish import publish
from urst_tiles.studio.asked import check_style

#: How many polygons there may be, and how many corners they may have together.
MOST_POLYGONS, MOST_CORNERS = 200, 5000

#: How many corners of what was drawn are kept, so that it can be undone.
MOST_KEPT = 200_000

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
        drawn = cls(polygons)
        if drawn.corners > MOST_CORNERS:
            raise BadInput(f"the polygons may have {MOST_CORNERS} corners together")
        return drawn

    @property
    def corners(self) -> int:
        """How many corners they have together."""
        return sum(len(corners) for _, corners in self.polygons)

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
        """The polygons as a file for ``--mask``, whose attribute ``region`` is the number of the style.

        Raises
        ------
        BadInput : as `geojson_of`.
        """
        return geojson_of(
            source,
            (
                (corners, {"region": self.numbers[style], "style": style or "as it is"})
                for style, corners in self.polygons
            ),
        )


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
        self._drawn: Kept[Drawn] = Kept(MOST_KEPT, lambda drawn: drawn.corners)

    def add(self, drawn: Drawn) -> str:
        """Keep polygons; their id."""
        return self._drawn.put(drawn.id, drawn).id

    def get(self, id: str) -> Drawn:
        """The polygons of an id; MissingFile if there are none."""
        found = self._drawn.get(id)
        if found is None:
            raise MissingFile("these polygons were drawn in another studio; draw them again")
        return found

    def file(self, id: str, source: Source) -> Path:
        """The polygons as a file for ``--mask`` over an image, in a folder of its own, as `Drawn.geojson`."""
        content = self.get(id).geojson(source)
        whose = sha256(content + str((source.shape, source.path)).encode()).hexdigest()[:16]
        path = self._folder / whose / "mask.geojson"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(path, content)
        return path
