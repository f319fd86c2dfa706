"""Made-up scenes and slides for the tests of colour transfer, and CIELAB by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

METHODS = ("mean-std", "monge-kantorovich", "reinhard", "reinhard-lab", "histogram")
H, E = (np.array(v) / np.linalg.norm(v) for v in ([0.60, 0.72, 0.34], [0.14, 0.92, 0.36]))
H2, E2 = (np.array(v) / np.linalg.norm(v) for v in ([0.68, 0.63, 0.37], [0.25, 0.88, 0.40]))


def scene(h: int, w: int, seed: int, tint: tuple[float, float, float], dtype=np.uint8) -> np.ndarray:
    """Smooth and busy, its channels correlated; 16 bits use a twentieth of their range, as satellites do."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    base = 110 + 60 * np.sin(x / 31 + seed) * np.cos(y / 47)
    own = 25 * np.sin(x[..., None] / np.array([9.0, 23, 77]) + y[..., None] / np.array([23.0, 11, 50]))
    image = (base[..., None] + own + random.normal(0, 9, (h, w, 3))) * tint
    return (
        np.rint(np.clip(image * (1 if dtype == np.uint8 else 13.7), 1, None))
        .clip(0, 255 if dtype == np.uint8 else 65535)
        .astype(dtype)
    )


def written(path: Path, pixels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="deflate", **options)
    return path


def slide(
    h: int, w: int, seed: int, stains=(H, E), strength=(1.2, 0.8), white=(243, 241, 238), glass=0.4
) -> np.ndarray:
    """uint8: tissue with nuclei between glass, in the colours that Beer and Lambert's law gives."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    inside = (np.sin(x / 61 + seed) + np.sin(y / 47)) > np.quantile(
        np.sin(x / 61 + seed) + np.sin(y / 47), glass
    )
    nuclei = np.clip(np.sin(x / 5.0) * np.sin(y / 6.0), 0, 1) ** 2
    amounts = np.stack([0.25 + 1.5 * nuclei, 1.1 - 0.8 * nuclei]) * random.uniform(0.6, 1.4, (2, h, w))
    density = np.einsum("khw,kc->hwc", amounts * np.array(strength)[:, None, None], np.array(stains))
    density = density * inside[..., None]
    return np.rint(
        np.clip(np.array(white) * np.exp(-density) + random.normal(0, 0.7, (h, w, 3)), 0, 255)
    ).astype(np.uint8)


# CIELAB of sRGB with D65, (n, 3); CIE 15 and IEC 61966-2-1

XYZ = np.array([[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def to_lab(x):
    linear = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    t = linear @ XYZ.T / WHITE
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def from_lab(lab):
    fy = (lab[:, 0] + 16) / 116
    f = np.stack([fy + lab[:, 1] / 500, fy, fy - lab[:, 2] / 200], 1)
    t = np.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    linear = np.maximum((t * WHITE) @ np.linalg.inv(XYZ).T, 0)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92)
