"""Made-up scenes of one ground, each with a gain, an offset and noise of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mosaics import EAST, NORTH, SIZE, tile


def ground(h: int, w: int, seed: int = 0) -> np.ndarray:
    """float64 (h, w, 3) in 0..1, mostly 0.2 to 0.6: hills, fields with sharp edges, water, and roughness."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    hills = 0.4 + 0.08 * np.sin(x / 61 + seed) * np.cos(y / 47) + 0.05 * np.sin(x / 17 + y / 29)
    fields = random.uniform(-0.08, 0.08, (h // 24 + 1, w // 36 + 1, 3)).repeat(24, 0).repeat(36, 1)[:h, :w]
    image = hills[..., None] * np.array([0.9, 1.0, 0.75]) + fields
    image[np.sin(x / 90 + 2 * np.sin(y / 120)) > 0.97] = (0.1, 0.14, 0.2)
    return np.clip(image + random.normal(0, 0.01, (h, w, 1)), 0.02, 0.9)


def seen(
    part: np.ndarray, gain: Sequence[float], offset: Sequence[float], seed: int, dtype: Any = np.uint8
) -> np.ndarray:
    """What a sensor makes of a part of the ground: the inverse of gain and offset, with noise.

    uint8 in its full range; uint16 with values up to about 10000, as reflectances have."""
    noise = np.random.default_rng(seed).normal(0, 0.006, part.shape)
    values = (part + noise - np.array(offset)) / np.array(gain)
    top = 255 if dtype == np.uint8 else 10000
    return np.clip(np.rint(values * top), 1, np.iinfo(dtype).max - 1).astype(dtype)


#: Gains and offsets that bring each of five scenes back to the ground.
GAINS = np.array([[1, 1, 1], [1.2, 1.1, 0.95], [0.8, 0.9, 1.0], [1.3, 1.25, 1.2], [0.9, 0.8, 1.1]])
OFFSETS = np.array(
    [[0, 0, 0], [0.03, -0.02, 0.02], [-0.03, 0.0, 0.05], [-0.05, 0.02, 0], [0.02, 0.04, -0.03]]
)

#: Where they lie on a ground of 600 x 800: four in a ring, and one that touches the last alone.
BOXES = [(0, 0, 330, 330), (0, 270, 330, 600), (270, 0, 600, 330), (260, 280, 600, 620), (300, 540, 600, 800)]


def written_scenes(
    folder: Path, dtype: Any = np.uint8, numbers: Sequence[int] = range(5), **options: Any
) -> list[Path]:
    """The scenes as files; ``options`` are those of `mosaics.tile`."""
    folder.mkdir(exist_ok=True)
    whole = ground(600, 800)
    paths = []
    for n in numbers:
        y0, x0, y1, x1 = BOXES[n]
        image = np.zeros((600, 800, 3), dtype)
        image[y0:y1, x0:x1] = seen(whole[y0:y1, x0:x1], GAINS[n], OFFSETS[n], n, dtype)
        paths.append(tile(folder / f"scene{n}.tif", image, y0, x0, y1, x1, **options))
    return paths


__all__ = ["BOXES", "EAST", "GAINS", "NORTH", "OFFSETS", "SIZE", "ground", "seen", "written_scenes"]
