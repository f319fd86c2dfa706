"""What an output says of how it was made; `urst_tiles.api.output.provenance` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urst_tiles.errors import UrstError
from urst_tiles.pyramid.deep_zoom_reader import dzi_facts
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.header import is_tiff
from urst_tiles.tiff.metadata import PROVENANCE, items_of
from urst_tiles.tiff.pages import TiffFile

#: TIFF's tag of GDAL's metadata.
GDAL_METADATA = 42112

#: The most bytes of a description of a folder of Zarr that are read.
_MOST_BYTES = 16 << 20


def provenance_of(path: Path) -> dict[str, Any] | None:
    """What made the file or folder ``path``, an output of this program: ``source``, ``model``, ``styles``,
    ``options`` and more by name, as in the item ``URST_TILES`` that docs/formats.md describes.

    None for what is no TIFF, OME-TIFF, OME-Zarr or Deep Zoom image, for what other programs wrote, for an
    output that keeps it to itself (``--no-provenance``), and for what cannot be read.
    """
    try:
        found = _found(path)
    except (OSError, ValueError, RecursionError, UrstError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("source"), str) else None


def _found(path: Path) -> Any:
    """What a file or a folder holds in the place of its provenance."""
    if path.is_dir():
        with (path / "zarr.json").open("rb") as file:
            group = json.loads(file.read(_MOST_BYTES))
        attributes = group.get("attributes") if isinstance(group, dict) else None
        own = attributes.get("urst_tiles") if isinstance(attributes, dict) else None
        return own.get("provenance") if isinstance(own, Mapping) else None
    if path.suffix.lower() == ".dzi":
        facts = dzi_facts(path)
        return json.loads(facts.said[PROVENANCE]) if facts and PROVENANCE in facts.said else None
    if not is_tiff(FileBytes(path)(0, 16)):
        return None
    xml = TiffFile(path).directories[0].text(GDAL_METADATA)
    texts = (text for name, domain, text in items_of(xml) if (name, domain) == (PROVENANCE, ""))
    return next(map(json.loads, texts), None)
