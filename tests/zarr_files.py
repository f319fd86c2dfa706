"""Images of OME-Zarr, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

NAMES = ["DAPI", "FITC", "TRITC", "Cy5"]
COLOURS = ["0000FF", "00FF00", "FF0000", "FFFFFF"]


def ome(
    path: Path,
    levels: list[np.ndarray],
    axes: str,
    version: str,
    colours: list[str] | None = None,
    shards: int = 1,
) -> Path:
    """An image of OME-Zarr whose pixels are half a micron high and a quarter wide; with ``shards`` above 1 a
    file holds so many chunks in both directions."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    space = {"type": "space", "unit": "micrometer"}
    units = {"z": space, "y": space, "x": space, "c": {"type": "channel"}, "t": {"type": "time"}}
    datasets = []
    for number, array in enumerate(levels):
        chunks = tuple(min(64, n) if name in "yx" else 1 for n, name in zip(array.shape, axes, strict=True))
        shard = tuple(n * shards if name in "yx" else 1 for n, name in zip(chunks, axes, strict=True))
        made = group.create_array(
            str(number),
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunks,
            shards=shard if shards > 1 else None,
        )
        made[:] = array
        scale = [{"y": 0.5, "x": 0.25}.get(name, 1.0) * (2**number if name in "yx" else 1) for name in axes]
        datasets.append(
            {"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    told: dict[str, Any] = {
        "multiscales": [
            {"version": version, "axes": [{"name": a} | units[a] for a in axes], "datasets": datasets}
        ]
    }
    if "c" in axes:
        pairs = zip(NAMES, colours or COLOURS, strict=True)
        channels = [{"label": name, "color": colour, "active": True} for name, colour in pairs]
        told["omero"] = {"channels": channels[: levels[0].shape[axes.index("c")]]}
    group.attrs.update({"ome": told | {"version": "0.5"}} if version == "0.5" else told)
    return path
