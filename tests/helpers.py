"""Made-up pictures and files that many tests use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """uint8 (h, w, 3), smooth and busy at once."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    smooth = 127 + 80 * np.sin(
        x[..., None] / np.array([9.0, 31, 77]) + y[..., None] / np.array([23.0, 11, 50])
    )
    return np.clip(smooth + random.normal(0, 25, (h, w, 3)), 0, 255).astype(np.uint8)


def geotiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """A tiled deflate GeoTIFF in UTM zone 32."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True),
        (34735, 3, len(keys), keys, True),
    ]
    settings = {
        "tile": (256, 256),
        "compression": "deflate",
        "photometric": "rgb",
        "metadata": None,
        "extratags": tags,
    }
    tifffile.imwrite(path, pixels, **(settings | options))
    return path
