"""Endless textures: they repeat after TORUS pixels, which nobody sees in trees and grass."""

from __future__ import annotations

import numpy as np

from scenery.noise import Float, added, chance

TORUS = 1024


def crowns(salt: int, spacing: int = 8) -> tuple[Float, Float, Float]:
    """Trees side by side, from above: height of the crown 0..1, its light -1..1, one die per tree."""
    at = np.arange(TORUS)
    best = np.full((TORUS, TORUS), np.inf, np.float32)
    light, tint = np.zeros_like(best), np.zeros_like(best)
    for ky, kx in np.ndindex(3, 3):
        iy, ix = at[:, None] // spacing + ky - 1, at // spacing + kx - 1
        keys = iy % (TORUS // spacing), ix % (TORUS // spacing)
        jy, jx, size, die = (chance(salt + i, *keys) for i in range(4))
        radius = 3.4 + 2.4 * size
        dy, dx = (at[:, None] - (iy + jy) * spacing) / radius, (at - (ix + jx) * spacing) / radius
        away = (dy * dy + dx * dx).astype(np.float32)
        near = away < best
        best = np.where(near, away, best)
        light, tint = np.where(near, -0.75 * dy - 0.65 * dx, light), np.where(near, die, tint)
    crown = np.sqrt(np.maximum(1 - best, 0))
    return crown, np.where(best < 1.3, light, -0.6).astype(np.float32), tint


def grass(salt: int) -> Float:
    """Grass and gravel: octaves 2 to 32 px wide, about unit spread."""
    dice = [chance(salt + i, *np.ogrid[: TORUS >> i, : TORUS >> i]) - 0.5 for i in range(1, 6)]
    layers = [_wrapped_spline(d, 1 << i) * np.float32(0.8 ** (5 - i)) for i, d in enumerate(dice, 1)]
    grain = added(layers)
    return ((grain - grain.mean()) / grain.std()).astype(np.float32)


def _wrapped_spline(dice: Float, factor: int) -> Float:
    while factor > 1:  # doubling by (1, 3, 3, 1) / 4 is the subdivision of a quadratic B-spline
        for axis in (0, 1):
            before, after = np.roll(dice, 1, axis), np.roll(dice, -1, axis)
            pair = np.stack([0.25 * before + 0.75 * dice, 0.75 * dice + 0.25 * after], axis + 1)
            dice = pair.reshape([2 * n if k == axis else n for k, n in enumerate(dice.shape)])
        factor //= 2
    return dice
