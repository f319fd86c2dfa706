"""What changes slowly: the lie of the land, its water, woods and towns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenery.noise import COARSE, Float, Int, added, chance, fractal, noise, noise_at, ramp


@dataclass
class Land:
    """What changes slowly; (h, w) float32 each, lengths in metres."""

    height: Float  # above the lakes
    steep: Float  # rise per metre
    light: Float  # 1 on level ground
    hollow: Float  # positive in hollows, negative on ridges
    shore: Float  # signed distance to the lake shore, positive on land
    river: Float  # signed distance to the river's bank, positive on land
    brook: Float  # distance to the nearest brook
    highway: Float  # signed distance to the highway's axis
    wood: Float  # how much the place is for trees, about -1..1
    town: Float  # 0 country, 1 centre
    hue: Float  # slow change of tone, about -1..1
    soil: Float  # patches some tens of metres wide, about -1..1
    warp_y: Float  # bends parishes and fields
    warp_x: Float

    @classmethod
    def at(cls, ys: Int, xs: Int, salt: int) -> Land:
        """On the knots (ys, xs), a regular lattice COARSE apart, less one knot on each side."""
        inner_y, inner_x = ys[1:-1], xs[1:-1]
        valley = _wander(ys, xs, 6500, 330, salt + 40)
        height = _height(ys, xs, salt, valley)
        inner = height[1:-1, 1:-1]
        dy, dx = _slopes(height)
        steep = np.sqrt(dy * dy + dx * dx)
        light = (1 + 0.8 * dy + 0.65 * dx) / np.sqrt(1 + steep * steep)
        hollow = height[2:, 1:-1] + height[:-2, 1:-1] + height[1:-1, 2:] + height[1:-1, :-2] - 4 * inner
        return cls(
            height=inner,
            steep=steep,
            light=light,
            hollow=hollow,
            shore=np.clip(inner / np.maximum(steep, 0.004), -500, 500),
            river=np.abs(_distance(valley)) - 42 - 14 * noise(inner_y, inner_x, 900, salt + 50),
            brook=np.abs(_distance(_wander(ys, xs, 2600, 300, salt + 60))),
            highway=_distance(noise(ys, xs, 9000, salt + 70) + 0.25),
            wood=fractal(inner_y, inner_x, 1800, salt + 80, 2) / 1.2
            + 0.5 * fractal(inner_y, inner_x, 420, salt + 84, 3),
            town=_towns(inner_y, inner_x, salt + 90),
            hue=fractal(inner_y, inner_x, 900, salt + 100, 3) / 1.3,
            soil=fractal(inner_y, inner_x, 150, salt + 105, 3) / 1.3,
            warp_y=_bend(inner_y, inner_x, salt + 110),
            warp_x=_bend(inner_y, inner_x, salt + 115),
        )


def _bend(ys: Int, xs: Int, salt: int) -> Float:
    return 95 * noise(ys, xs, 1400, salt) + 14 * noise(ys, xs, 420, salt + 1)


def _slopes(field: Float) -> tuple[Float, Float]:
    """Central differences per metre, one knot less on each side."""
    step = np.float32(1 / (2 * COARSE))
    return (field[2:, 1:-1] - field[:-2, 1:-1]) * step, (field[1:-1, 2:] - field[1:-1, :-2]) * step


def _distance(field: Float) -> Float:
    """About the signed distance, in metres, to where ``field`` is zero; one knot less on each side."""
    dy, dx = _slopes(field)
    return np.clip(field[1:-1, 1:-1] / np.maximum(np.sqrt(dy * dy + dx * dx), 1e-5), -4000, 4000)


def _wander(ys: Int, xs: Int, period: float, bend: float, salt: int) -> Float:
    """Noise whose lines of equal value meander."""
    y = ys[:, None] + bend * noise(ys, xs, 3.2 * bend, salt + 1) + bend / 4 * noise(ys, xs, bend, salt + 3)
    x = xs + bend * noise(ys, xs, 3.2 * bend, salt + 2) + bend / 4 * noise(ys, xs, bend, salt + 4)
    return noise_at(y, x, period, salt)


def _height(ys: Int, xs: Int, salt: int, valley: Float) -> Float:
    """Metres above the lakes: plains, rolling hills, ridged mountains, and a valley along the river."""
    plain = 62 + 58 * noise(ys, xs, 5200, salt) + 22 * fractal(ys, xs, 1900, salt + 1, 5)
    dry = ramp(plain, -10, 70)
    hills = 26 * dry * fractal(ys, xs, 1500, salt + 10, 5)
    massif = ramp(noise(ys, xs, 8000, salt + 2) + 0.15 * noise(ys, xs, 2200, salt + 3), -0.1, 1.7) * dry
    mountains = massif * (90 + 420 * _ridges(ys, xs, 2600, salt + 20))
    meadows, gorge = (1 - np.exp(-((valley / width) ** 2)) for width in (0.18, 0.5))
    return (plain + hills) * (0.2 + 0.8 * meadows) + np.maximum(mountains, 0) * (0.02 + 0.98 * gorge)


def _ridges(ys: Int, xs: Int, period: float, salt: int) -> Float:
    """Crests of folded noise: rough where the mountain is high, smooth in its valleys.

    After K. Musgrave's ridged multifractal (Texturing and Modeling, chapter 16).
    """
    octaves: list[Float] = []
    weight: Float = np.ones(1, np.float32)
    for i in range(8):
        fold = 1 / (1 + np.float32(1.6) * np.abs(noise(ys, xs, period / 2**i, salt + i)))
        octaves.append(np.float32(0.52**i) * weight * fold)
        weight = np.float32(0.45) + np.float32(0.8) * fold
    return added(octaves)


def _towns(ys: Int, xs: Int, salt: int) -> Float:
    """0 in the country to 1 in the middle of a town: a few large ones, and villages."""
    ragged = 1 + 0.5 * fractal(ys, xs, 420, salt + 5, 3)
    large = _dots(ys, xs, 5000, 380, 760, 0.75, salt)
    small = _dots(ys, xs, 2100, 110, 230, 0.65, salt + 1) * 0.55
    return np.maximum(large, small) * ragged


def _dots(ys: Int, xs: Int, spacing: int, least: float, most: float, share: float, salt: int) -> Float:
    """Cones of height 1 on a jittered lattice of that spacing, of a radius between ``least`` and ``most``."""
    result = np.zeros((len(ys), len(xs)), np.float32)
    for cell in np.ndindex(*((a[-1] // spacing - a[0] // spacing + 3) for a in (ys, xs))):
        key = [np.array([k + a[0] // spacing - 1]) for k, a in zip(cell, (ys, xs), strict=True)]
        there, radius, jy, jx = (float(chance(salt + 10 * i, *key)[0]) for i in range(4))
        if there < share:
            y = ys - (float(key[0][0]) + 0.2 + 0.6 * jy) * spacing
            x = xs - (float(key[1][0]) + 0.2 + 0.6 * jx) * spacing
            away = np.sqrt((y * y)[:, None] + x * x).astype(np.float32)
            result = np.maximum(result, 1 - away / np.float32(least + (most - least) * radius))
    return result
