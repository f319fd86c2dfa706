"""Scenes that are cut into georeferenced tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from helpers import geotiff

#: Where the upper left corner of a scene lies, and the size of its pixels.
EAST, NORTH, SIZE = 500000.0, 5200000.0, 10.0

#: Geo keys of UTM zone 32.
KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)


def placed(row: float, column: float, size: float = SIZE, keys: tuple[int, ...] = KEYS) -> list[Any]:
    """The tags of an image whose corner lies at this row and column of the scene."""
    return [
        (33550, 12, 3, (size, size, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, EAST + SIZE * column, NORTH - SIZE * row, 0.0), True),
        (34735, 3, len(keys), keys, True),
    ]


def tile(path: Path, scene: np.ndarray, y0: int, x0: int, y1: int, x1: int, **options: Any) -> Path:
    """A part of a scene as a GeoTIFF at its place; ``options`` are those of `geotiff`."""
    return geotiff(path, scene[y0:y1, x0:x1], **({"extratags": placed(y0, x0)} | options))


def boxes(shape: tuple[int, int], rows: int, columns: int, seed: int = 0) -> list[tuple[int, int, int, int]]:
    """Boxes of random extents that cover an image of ``shape`` together, and overlap."""
    random = np.random.default_rng(seed)

    def edges(length: int, count: int) -> list[int]:
        inner = random.choice(np.arange(20, length - 20), count - 1, replace=False)
        return [0, *sorted(int(n) for n in inner), length]

    found = []
    ys = edges(shape[0], rows)
    for y0, y1 in zip(ys[:-1], ys[1:], strict=True):
        xs = edges(shape[1], columns)
        for x0, x1 in zip(xs[:-1], xs[1:], strict=True):
            more = random.integers(0, 20, 4)
            found.append(
                (
                    max(0, y0 - int(more[0])), max(0, x0 - int(more[1])),
                    min(shape[0], y1 + int(more[2])), min(shape[1], x1 + int(more[3])),
                )
            )  # fmt: skip
    return [found[int(i)] for i in random.permutation(len(found))]


def cut(folder: Path, scene: np.ndarray, rows: int, columns: int, seed: int = 0, **options: Any) -> Path:
    """A folder with tiles of random extents of a scene."""
    folder.mkdir()
    for number, box in enumerate(boxes(scene.shape[:2], rows, columns, seed)):
        tile(folder / f"tile{number}.tif", scene, *box, **options)
    return folder
