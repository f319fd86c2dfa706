"""Make a style image by arithmetic: brush strokes, tesserae or engraved lines in a swirling flow.

    python pipelines/make_style.py style.png --name swirls

The same name, seed and size give the same picture, pixel for pixel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
from command_line import Parser, integer, new_picture, program, write_picture
from scenery.noise import Float, Int, chance, fractal, noise, ramp

Palette = list[tuple[float, float, float]]

NIGHT: Palette = [
    (0.05, 0.09, 0.25),
    (0.09, 0.19, 0.46),
    (0.15, 0.36, 0.66),
    (0.33, 0.60, 0.78),
    (0.70, 0.83, 0.80),
    (0.97, 0.91, 0.66),
    (0.98, 0.76, 0.22),
    (0.91, 0.49, 0.13),
    (0.72, 0.22, 0.13),
]
ISLAND: Palette = [
    (0.09, 0.24, 0.36),
    (0.06, 0.42, 0.50),
    (0.25, 0.62, 0.60),
    (0.62, 0.79, 0.66),
    (0.95, 0.88, 0.70),
    (0.95, 0.70, 0.30),
    (0.87, 0.42, 0.20),
    (0.64, 0.18, 0.18),
    (0.34, 0.12, 0.20),
]
MORTAR, PAPER, INK, VERMILION = np.array(
    [(0.11, 0.10, 0.11), (0.95, 0.91, 0.81), (0.09, 0.08, 0.10), (0.86, 0.33, 0.18)], np.float32
)


class Flow:
    """Eddies in a sky over a field.

    Attributes
    ----------
    stream : float32, (side, side), the stream function; the flow follows lines of equal value.
    steep : float32, (side, side), the magnitude of the gradient of ``stream``.
    angle : float32, (side, side), the direction of the flow in radians.
    tone : float32, (side, side), the brightness, about 0..1.
    """

    def __init__(self, side: int, seed: int) -> None:
        at, unit = np.arange(side), side / 1024
        y, x = np.meshgrid(at / side, at / side, indexing="ij")
        stream = 0.5 * y + 0.16 * noise(at, at, 520 * unit, seed) + 0.05 * noise(at, at, 170 * unit, seed + 1)
        glow = np.zeros_like(stream)
        for i in range(9):
            cy, cx, size, turn = (float(chance(seed + 10 + k, np.array([i]))[0]) for k in range(4))
            radius = 0.05 + 0.13 * size**2
            away = np.hypot(y - 0.08 - 0.8 * cy, x - 0.05 - 0.9 * cx) / radius
            stream += (0.9 if turn < 0.5 else -0.9) * radius * np.exp(-((away / 1.6) ** 2))
            rings = 0.5 + 0.5 * np.cos(away * 7) * ramp(away, 0.2, 0.9)
            glow = np.maximum(glow, np.exp(-(away**2)) * rings)
        dy, dx = np.gradient(stream)
        hills = 0.80 + 0.05 * np.sin(x * 9) + 0.03 * noise(at, at, 160 * unit, seed + 3)
        land = ramp(y - hills, -0.01, 0.02)
        bands = 0.5 + 0.5 * np.sin(stream * 34 + 1.1 * fractal(at, at, 240 * unit, seed + 5, 3))
        tone = (0.40 * bands + 0.62 * glow) * (1 - land) + land * (0.72 + 0.22 * bands)
        self.stream, self.tone = stream.astype(np.float32), tone.astype(np.float32)
        self.steep = np.hypot(dy, dx).astype(np.float32)
        self.angle = np.arctan2(-dx, dy).astype(np.float32)  # along lines of equal stream

    def angle_at(self, y: float, x: float) -> float:
        """The angle at the pixel that is nearest to (y, x)."""
        row, column = (min(max(int(at), 0), len(self.angle) - 1) for at in (y, x))
        return float(self.angle[row, column])

    def bend(self, y: float, x: float, step: float) -> float:
        """The radians by which the flow turns in each pixel of its way around (y, x)."""
        angle = self.angle_at(y, x)
        dy, dx = step * np.sin(angle), step * np.cos(angle)
        turn = self.angle_at(y + dy, x + dx) - self.angle_at(y - dy, x - dx)
        return float(np.arctan2(np.sin(turn), np.cos(turn))) / (2 * step)


def pick(palette: Palette, tone: Float) -> Float:
    """The colours, float32, (..., 3), at the positions ``tone`` along the palette, 0..1."""
    stops = np.linspace(0, 1, len(palette))
    channels = [np.interp(tone, stops, channel) for channel in zip(*palette, strict=True)]
    return np.stack(channels, -1).astype(np.float32)


# --- brush strokes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stroke:
    """A stroke of a flat brush; lengths are in pixels, angles in radians."""

    y: float
    x: float
    angle: float
    bend: float
    length: float
    width: float
    colour: Float
    bristles: Float  # how much paint each of them holds, 0..1

    def paint(self, canvas: Float) -> None:
        """Paint the stroke over ``canvas``, which shows through where the brush has run dry."""
        reach = self.length / 2 + self.width
        y0, x0 = max(0, int(self.y - reach)), max(0, int(self.x - reach))
        patch = canvas[y0 : int(self.y + reach), x0 : int(self.x + reach)]
        dy = np.arange(y0, y0 + patch.shape[0], dtype=np.float32)[:, None] - np.float32(self.y)
        dx = np.arange(x0, x0 + patch.shape[1], dtype=np.float32) - np.float32(self.x)
        along = np.cos(self.angle) * dx + np.sin(self.angle) * dy
        across = np.cos(self.angle) * dy - np.sin(self.angle) * dx - self.bend * along**2 / 2
        side = across / self.width
        bristle = np.interp(side, np.linspace(-0.6, 0.6, len(self.bristles)), self.bristles)
        body = ramp(np.abs(across), self.width / 2, self.width / 2 - 1.6)
        body *= ramp(np.abs(along) + self.length * 0.22 * bristle, self.length / 2 + 1, self.length / 2 - 2)
        body *= np.where(bristle < 0.12, 0.35, 0.94)
        lit = 0.16 * (bristle - 0.5) - 0.16 * ramp(side, 0.25, 0.5) + 0.14 * ramp(side, -0.25, -0.5)
        patch += (self.colour * (1 + lit)[..., None] - patch) * body[..., None]


#: For each layer the number of strokes, and their length and width in a picture of 1024 pixels.
LAYERS = [(900, 150, 34), (1800, 110, 22), (3200, 80, 14), (3600, 58, 10), (2600, 40, 6)]


def swirls(side: int, seed: int) -> Float:
    """A picture of thick strokes in five layers, each finer than the last; a few have a stray colour."""
    flow, unit = Flow(side, seed), side / 1024
    canvas = pick(NIGHT, np.clip(flow.tone, 0, 1))
    for layer, (count, length, width) in enumerate(LAYERS):
        dice = [chance(seed + 100 * layer + k, np.arange(count)).tolist() for k in range(6)]
        for n, (at_y, at_x, mood, turn, size, light) in enumerate(zip(*dice, strict=True)):
            y, x, grow = at_y * side, at_x * side, unit * (0.7 + 0.6 * size)
            tone = float(flow.tone[int(y), int(x)]) + 0.20 * (mood - 0.5) + 0.5 * (mood > 0.965)
            Stroke(
                y,
                x,
                angle=flow.angle_at(y, x) + 0.25 * (turn - 0.5),
                bend=float(np.clip(flow.bend(y, x, length * grow / 3), -1.5 / length, 1.5 / length)),
                length=length * grow,
                width=width * grow,
                colour=pick(NIGHT, np.clip(tone, 0, 1)) * np.float32(0.86 + 0.28 * light),
                bristles=chance(seed + layer, np.array([n]), np.arange(24)),
            ).paint(canvas)
    return canvas


# --- tesserae ---------------------------------------------------------------------------------------------


def mosaic(side: int, seed: int) -> Float:
    """A picture of glass tesserae in dark mortar, each of one colour and lit at the upper edge."""
    flow, size = Flow(side, seed), 17 * side / 1024
    nearest, edge, (dy, dx) = _cells(side, size, seed)
    tone = flow.tone[nearest] + 0.18 * (chance(seed + 50, *nearest) - 0.5)
    odd = chance(seed + 51, *nearest)
    colour = pick(ISLAND, np.clip(tone + 0.45 * (odd > 0.96) - 0.3 * (odd < 0.03), 0, 1))
    colour *= (0.84 + 0.32 * chance(seed + 52, *nearest) - 0.014 * (dy + dx) * 17 / size)[..., None]
    glass = ramp(edge, 0.07 * size, 0.15 * size)[..., None]
    return MORTAR + (colour - MORTAR) * glass


def _cells(side: int, size: float, seed: int) -> tuple[tuple[Int, Int], Float, tuple[Float, Float]]:
    """The Voronoi cells of jittered centres about ``size`` pixels apart.

    Returns for each pixel the pixel (y, x) of the centre of the cell, the distance to the border of the cell,
    and the offset (y, x) from the centre.
    """
    y, x = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32), indexing="ij")
    first = np.full((side, side), np.inf, np.float32)
    second, best = first.copy(), [np.zeros((side, side), np.float32) for _ in range(2)]
    iy, ix = np.floor(y / size).astype(np.int64), np.floor(x / size).astype(np.int64)
    for ky, kx in np.ndindex(5, 5):
        key = iy + ky - 2, ix + kx - 2
        sy = (key[0] + 0.5 + 0.7 * (chance(seed + 60, *key) - 0.5)) * np.float32(size)
        sx = (key[1] + 0.5 + 0.7 * (chance(seed + 61, *key) - 0.5)) * np.float32(size)
        away = np.hypot(y - sy, x - sx).astype(np.float32)
        near = away < first
        second = np.where(near, first, np.minimum(second, away))
        first = np.where(near, away, first)
        best = [np.where(near, new, old).astype(np.float32) for new, old in zip((sy, sx), best, strict=True)]
    inside = [np.clip(np.rint(b).astype(np.int64), 0, side - 1) for b in best]
    return (inside[0], inside[1]), (second - first) / 2, (y - best[0], x - best[1])


# --- engraving --------------------------------------------------------------------------------------------


def ink(side: int, seed: int) -> Float:
    """A woodcut in two inks: lines along the flow that swell in the dark, and red paper where it glows."""
    flow, at, unit = Flow(side, seed), np.arange(side), side / 1024
    wobble = 0.5 * noise(at, at, 60 * unit, seed + 30) + 0.25 * noise(at, at, 9 * unit, seed + 31)
    fine = 2.0 ** np.floor(np.log2(np.maximum(flow.steep * side, 0.05)))  # lines keep their distance
    phase = flow.stream * 110 / fine + 0.35 * wobble
    line = 1 - 2 * np.abs(phase - np.floor(phase) - 0.5)
    glowing = ramp(flow.tone, 0.66, 0.69)
    light = np.minimum(ramp(flow.tone, 0.05, 0.75), 0.84) - 0.22 * glowing
    grain = 0.05 * noise(at, at, 2.5 * unit, seed + 32)
    cut = ramp(line + grain, 0.98 - 0.95 * light, 0.86 - 0.95 * light)
    paper = PAPER + (VERMILION - PAPER) * glowing[..., None]
    return paper + (INK - paper) * (cut * (0.93 + grain))[..., None]


STYLES: dict[str, Callable[[int, int], Float]] = {"swirls": swirls, "mosaic": mosaic, "ink": ink}


def write_style(path: Path, name: str = "swirls", *, side: int = 1024, seed: int = 1) -> None:
    """Write a square 8-bit RGB picture of ``side`` pixels, in the format of the file's suffix."""
    pixels = np.rint(np.clip(STYLES[name](side, seed), 0, 1) * 255).astype(np.uint8)
    write_picture(path, pyvips.Image.new_from_array(pixels, interpretation="srgb"))


@program
def main(words: Sequence[str]) -> None:
    """Run the command line: paint the picture, write the file and print a line about it."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=new_picture)
    parser.add_argument("--name", choices=STYLES, default="swirls")
    parser.add_argument("--side", type=integer(2, 32768), default=1024, help="pixels")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(words)
    write_style(args.output, args.name, side=args.side, seed=args.seed)
    print(f"{args.output}: {args.name}, {args.side} x {args.side}")


if __name__ == "__main__":
    sys.exit(main())
