"""A landscape as a pure function: (seed, row, column) -> colour, one metre per pixel.

Drawn in layers, each a small function: ground, fields, rock and snow, water, houses, roads, trees, then
light. What changes slowly is known on every fourth pixel and magnified; fine grain comes from small endless
textures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenery.noise import COARSE, Float, magnify, ramp
from scenery.parishes import Lots, Parishes
from scenery.terrain import Land
from scenery.textures import TORUS, crowns, grass

PAD = 8  # drawn beyond a block, so that its neighbours' trees and houses cast their shadows into it

SAND, ROCK, SNOW = (0.74, 0.68, 0.53), (0.50, 0.47, 0.42), (0.93, 0.95, 0.98)
MEADOW, ALPINE, GARDEN = (0.40, 0.47, 0.25), (0.41, 0.43, 0.27), (0.38, 0.45, 0.25)
BROADLEAF, CONIFER = (0.17, 0.27, 0.11), (0.10, 0.19, 0.12)
DEEP, SHALLOW, RIVER = (0.04, 0.13, 0.19), (0.20, 0.38, 0.37), (0.16, 0.27, 0.25)
ASPHALT, TRACK, PAVING = (0.52, 0.52, 0.52), (0.66, 0.59, 0.45), (0.58, 0.57, 0.55)


class Landscape:
    """All there is to know is the seed; ``draw`` gives any block."""

    def __init__(self, seed: int = 1) -> None:
        self.salt = seed * 1000
        self.crown, self.crown_light, self.crown_tint = crowns(self.salt + 900)
        self.grain = grass(self.salt + 950)

    def draw(self, row: int, column: int, height: int, width: int) -> Float:
        """float32, (height, width, 3), 0..1 sRGB: the block with that top left corner; all multiples of 4."""
        block = _Block(self, row - PAD, column - PAD, height + 2 * PAD, width + 2 * PAD)
        return np.moveaxis(block.picture()[:, PAD:-PAD, PAD:-PAD], 0, -1)


class _Block:
    """One block while it is drawn: ``canvas`` (3, h, w) is painted over layer by layer."""

    def __init__(self, scene: Landscape, row: int, column: int, height: int, width: int) -> None:
        self.scene, self.salt = scene, scene.salt
        self.ys, self.xs = np.arange(row, row + height), np.arange(column, column + width)
        rows, columns = (np.arange(a[0] - 2 * COARSE, a[-1] + 3 * COARSE, COARSE) for a in (self.ys, self.xs))
        coarse = Land.at(rows, columns, self.salt)
        self.land = Land(**{name: magnify(field) for name, field in vars(coarse).items()})
        self.grain = self.texture(scene.grain)
        self.canvas = np.empty((3, height, width), np.float32)
        self.tall = np.zeros((height, width), np.float32)

    def texture(self, endless: Float, dy: int = 0, dx: int = 0) -> Float:
        """The part of an endless texture that lies here."""
        return endless.take((self.ys + dy) % TORUS, 0).take((self.xs + dx) % TORUS, 1)

    def paint(self, colour: Sequence[float | Float], mask: Float) -> None:
        """``colour`` over the canvas where ``mask`` is 1, mixed where it is between."""
        for plane, value in zip(self.canvas, colour, strict=True):
            plane += (value - plane) * mask

    def shade(self, light: Float) -> None:
        """Multiply by ``light``."""
        self.canvas *= light

    def picture(self) -> Float:
        """(3, h, w), 0..1."""
        self.ground()
        parishes = Parishes.around(self.ys, self.xs, self.land, self.salt)
        farmed = self.fields(parishes)
        self.rock_and_snow()
        self.water()
        built = self.houses(parishes)
        self.roads(parishes)
        self.trees(parishes, farmed, built)
        self.light()
        return np.clip(self.canvas, 0, 1)

    def ground(self) -> None:
        """Meadows below, alpine grass above, moister in hollows."""
        land = self.land
        self.canvas[:] = np.array(MEADOW, np.float32)[:, None, None]
        self.paint(ALPINE, ramp(land.height + 60 * land.hue, 250, 600))
        self.shade(1 + 0.05 * land.hue + 0.05 * self.grain - 0.04 * np.clip(land.hollow * 4, -1, 1))

    def fields(self, parishes: Parishes) -> Float:
        """Crops on gentle low ground; returns the farmed share of each pixel."""
        land = self.land
        farmed = ramp(land.steep, 0.24, 0.17) * ramp(land.height, 330, 250) * ramp(land.wood, 0.62, 0.60)
        farmed *= ramp(land.river, 8, 14) * ramp(land.shore, 25, 45) * ramp(land.brook, 7, 11)
        if farmed.any():
            crop = parishes.crop_colour()
            furrows = 0.018 * np.abs(parishes.along % 3.3 - 1.65) - 0.05 * (parishes.along % 23 < 1.4)
            tone = 1 + furrows + 0.045 * land.hue + 0.03 * self.grain + 0.16 * (parishes.die - 0.5)
            tone += (0.02 + 0.07 * parishes.die) * land.soil - 0.05 * ramp(parishes.border, 13, 11)
            self.paint([plane * tone for plane in crop], farmed)
            self.paint((0.55, 0.51, 0.34), 0.35 * farmed * ramp(land.soil + parishes.crop, 1.2, 2.2))
            self.paint((0.42, 0.46, 0.26), 0.7 * farmed * ramp(parishes.border, 2.4, 1.2))
        return farmed

    def rock_and_snow(self) -> None:
        """Bare rock where it is steep or high, snow on the tops."""
        land = self.land
        rough = 0.5 * self.grain + self.texture(self.scene.grain, 311, 97)
        rocky = ramp(land.steep + 0.06 * rough + land.height / 2000, 0.80, 1.0)
        stone = 0.95 + 0.04 * rough + 0.16 * (self.grain - self.texture(self.scene.grain, -2, -2))
        self.paint([c * stone for c in ROCK], rocky)
        snowy = ramp(land.height - 220 * land.steep + 8 * rough + 40 * land.hue, 470, 540)
        self.paint(SNOW, snowy * (1 - 0.5 * ramp(land.steep + 0.05 * rough, 0.8, 1.1)))

    def water(self) -> None:
        """Lakes with a beach and a shallow rim, the river with gravel banks, brooks."""
        land, ripple = self.land, 1 + 0.035 * self.grain
        wet = 3 * self.grain + 6 * land.hue
        self.paint(SAND, ramp(land.shore + wet, 16, 9))
        self.paint([c * ripple for c in SHALLOW], ramp(land.shore, 1, -1))
        self.paint([c * ripple for c in DEEP], ramp(land.shore + 4 * self.grain, -4, -140) * (land.shore < 0))
        river = ramp(land.river, 1, -1) * (land.shore > -60)
        self.paint([c * 1.05 for c in SAND], 0.85 * ramp(land.river + 2 * wet, 7, 2) * (land.shore > -20))
        self.paint([c * ripple for c in RIVER], river * (1 - 0.35 * ramp(land.river, -12, -1)))
        self.paint(RIVER, ramp(land.brook, 3.4, 1.8) * ramp(land.steep, 0.3, 0.2) * (land.shore > 0))

    def roads(self, parishes: Parishes) -> None:
        """The highway, country roads around parishes, tracks between fields."""
        land = self.land
        low = ramp(land.height, 330, 300) * ramp(land.steep, 0.45, 0.35)
        dry = low * ramp(land.shore, 3, 6)
        self.paint(TRACK, 0.85 * dry * parishes.track * ramp(parishes.row_edge, 2.6, 1.6) * (land.river > 3))
        self.paint((0.45, 0.48, 0.30), dry * ramp(parishes.edge, 8, 6))
        self.paint(ASPHALT, dry * ramp(parishes.edge, 4.2, 3.2))
        away = np.abs(land.highway)
        self.paint((0.47, 0.49, 0.33), dry * ramp(away, 26, 22))
        self.paint((0.60, 0.60, 0.59), dry * ramp(away, 15.5, 14.5) * ramp(away, 2, 3))
        self.paint((0.85, 0.85, 0.84), dry * ramp(np.abs(away - 8.5), 0.7, 0.3))

    def houses(self, parishes: Parishes) -> Float:
        """Streets, gardens and gabled roofs; returns the built-up share of each pixel."""
        land = self.land
        town = land.town * ramp(land.steep, 0.3, 0.2) * (land.height < 300) * ramp(parishes.edge, 6, 9)
        town = town * ramp(land.shore, 20, 30) * ramp(land.river, 12, 20) * ramp(np.abs(land.highway), 28, 40)
        built = ramp(town, 0.05, 0.12)
        if built.any():
            lots = Lots.of(parishes, town, self.salt)
            green = 0.95 + 0.07 * self.grain + 0.2 * (lots.die - 0.5)
            self.paint([c * green for c in GARDEN], built)
            self.paint(PAVING, built * np.maximum(lots.street, 0.8 * ramp(town, 0.6, 0.9)))
            roof = lots.roof * (built > 0.5)
            self.paint([c * (1 + 0.02 * self.grain) for c in lots.roof_colour()], roof)
            self.tall = np.maximum(self.tall, roof * lots.storeys)
            built = np.maximum(built * lots.street, roof)
        return built

    def trees(self, parishes: Parishes, farmed: Float, built: Float) -> None:
        """Woods, hedges, trees along brooks and in gardens: each crown is there wholly or not at all."""
        land = self.land
        crown, light, die = (
            self.texture(t) for t in (self.scene.crown, self.scene.crown_light, self.scene.crown_tint)
        )
        wood = self.wooded(parishes, farmed, built)
        there = (wood > die) * (crown > 0)
        stand = parishes.crop - 0.5  # woods are planted parcel by parcel, too
        conifer = ramp(land.height + 110 * (die - 0.5) + 50 * land.hue + 190 * stand, 110, 250)
        colour = [b + (c - b) * conifer for b, c in zip(BROADLEAF, CONIFER, strict=True)]
        tone = 0.80 + 0.40 * die + 0.22 * stand + 0.05 * land.soil
        tone = tone * (0.72 + 0.42 * crown + 0.34 * light) + 0.02 * self.grain
        self.paint([c * tone for c in colour], there.astype(np.float32))
        self.tall = np.maximum(self.tall, there * (0.35 + 0.65 * crown))

    def wooded(self, parishes: Parishes, farmed: Float, built: Float) -> Float:
        """The share of the ground that trees cover."""
        land = self.land
        wood = ramp(land.wood + 0.1 * land.hue, 0.5, 0.68) * (1 - farmed)
        wood *= parishes.die > 0.06  # felled
        also = [
            farmed * parishes.hedge * ramp(parishes.border, 5, 2.5),
            farmed * (parishes.die > 0.955),
            ramp(land.steep, 0.16, 0.3) * ramp(land.wood, -0.5, 0.1),
            0.85 * ramp(land.brook, 22, 9) * ramp(land.hue, -0.9, 0.1),
            0.6 * ramp(land.river, 45, 12) * ramp(land.hue, 0.5, -0.3),
            0.22 * ramp(land.town, 0.03, 0.1),
        ]
        for other in also:
            np.maximum(wood, other, out=wood)
        wood += 0.006 + 0.03 * (1 - farmed)
        wood *= ramp(land.height + 70 * land.hue, 480, 380) * ramp(land.steep, 0.75, 0.55)
        wood *= (land.shore > 8) * (land.river > 4) * (land.brook > 3) * (np.abs(land.highway) > 24)
        return wood * (parishes.edge > 6) * (built < 0.3)

    def light(self) -> None:
        """Shadows of trees and houses, sun and sky on the slopes, haze."""
        shadow = np.zeros_like(self.tall)
        for step in range(1, 7):
            shadow[step:, step:] = np.maximum(shadow[step:, step:], self.tall[:-step, :-step] - step / 9)
        shadow = np.clip(2.2 * (shadow - 0.8 * self.tall), 0, 1)
        sun = np.clip(0.2 + 0.8 * self.land.light, 0.1, 1.45) * (1 - 0.55 * shadow)
        sun = np.where(self.land.shore < 0, 1, sun)
        for plane, warm, blue in zip(self.canvas, (0.76, 0.74, 0.70), (0.24, 0.26, 0.31), strict=True):
            plane *= blue + warm * sun
        grey = self.canvas.mean(0)
        for plane, haze in zip(self.canvas, (0.60, 0.68, 0.76), strict=True):
            plane += (grey - plane) * np.float32(0.16)
            plane += (haze - plane) * np.float32(0.05)
