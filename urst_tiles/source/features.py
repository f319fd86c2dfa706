"""Features: the polygons of a file, with what the file says about each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Feature(NamedTuple):
    """A feature of a GeoJSON file or a GeoPackage.

    Attributes
    ----------
    polygons : each a list of rings of positions, as the file has them; empty where it has another geometry.
    attributes : the values of the feature by the names of its attributes.
    id : what the file calls the feature; None where it does not say.
    """

    polygons: list[Any]
    attributes: Mapping[str, Any]
    id: Any = None
