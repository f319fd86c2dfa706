"""What people laid out: parishes with roads around them, fields in rows, streets and house lots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenery.noise import Float, Int, chance, ramp
from scenery.terrain import Land

PARISH = 1500  # metres between the centres of parishes

CROPS = np.array(
    [
        (0.36, 0.46, 0.21),  # pasture
        (0.38, 0.47, 0.24),
        (0.43, 0.50, 0.27),  # meadow
        (0.30, 0.42, 0.16),  # maize
        (0.28, 0.39, 0.17),
        (0.47, 0.54, 0.25),  # young wheat
        (0.72, 0.63, 0.38),  # barley
        (0.66, 0.56, 0.33),  # ripe wheat
        (0.70, 0.60, 0.37),
        (0.77, 0.71, 0.51),  # straw
        (0.56, 0.52, 0.35),  # fallow
        (0.46, 0.36, 0.26),  # ploughed
        (0.38, 0.30, 0.23),  # ploughed, wet
        (0.68, 0.65, 0.30),  # rapeseed
        (0.39, 0.49, 0.30),  # beet
        (0.33, 0.43, 0.19),
    ],
    np.float32,
)
ROOFS = np.array(
    [(0.58, 0.34, 0.25), (0.63, 0.40, 0.29), (0.50, 0.30, 0.24), (0.42, 0.41, 0.42), (0.68, 0.66, 0.62)],
    np.float32,
)


@dataclass
class Seeds:
    """Centres of the parishes near a block, and what each parish is like; (n,) each."""

    y: Float  # float64
    x: Float
    key: Int
    angle: Float
    breadth: Float  # of its fields, along u
    depth: Float  # along v

    @classmethod
    def near(cls, ys: Int, xs: Int, salt: int) -> Seeds:
        """Every parish that a pixel of the block may belong to, or be next to."""
        rows, columns = (np.arange(a[0] // PARISH - 2, a[-1] // PARISH + 3) for a in (ys, xs))
        iy, ix = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
        jy, jx, angle, breadth, depth = (chance(salt + i, iy, ix) for i in range(5))
        y, x = (PARISH * (i + 0.15 + 0.7 * j.astype(np.float64)) for i, j in ((iy, jy), (ix, jx)))
        angle *= np.float32(np.pi)
        return cls(y, x, iy * 7919 + ix, angle, 55 + 95 * breadth, 150 + 260 * depth)

    def relevant(self, y: Float, x: Float) -> NDArray[np.intp]:
        """Those that can be nearest or second nearest to a point between the corners of (y, x)."""
        middle = [(float(a.min()) + float(a.max())) / 2 for a in (y, x)]
        reach = np.hypot(float(np.ptp(y)), float(np.ptp(x))) / 2
        away = np.hypot(self.y - middle[0], self.x - middle[1])
        return np.flatnonzero(away <= np.sort(away)[1] + 2 * reach)


def _voronoi(y: Float, x: Float, seeds: Seeds) -> tuple[NDArray[np.intp], Float]:
    """Index of the nearest seed, and the distance to the border of its cell."""
    first = np.full(y.shape, np.inf, np.float32)
    second = first.copy()
    nearest, next_one = np.zeros(y.shape, np.intp), np.zeros(y.shape, np.intp)
    for i in seeds.relevant(y, x):
        dy, dx = (y - seeds.y[i]).astype(np.float32), (x - seeds.x[i]).astype(np.float32)
        away = dy * dy + dx * dx
        closer, between = away < first, away < second
        next_one = np.where(closer, nearest, np.where(between, i, next_one))
        second = np.where(closer, first, np.minimum(second, away))
        nearest, first = np.where(closer, i, nearest), np.minimum(first, away)
    apart = np.hypot(seeds.y[:, None] - seeds.y, seeds.x[:, None] - seeds.x).astype(np.float32)
    return nearest, (second - first) / np.maximum(2 * apart[nearest, next_one], 1)


@dataclass
class Parishes:
    """In which parish and field each pixel lies; (h, w) each, lengths in metres."""

    key: Int  # of the parish
    edge: Float  # distance to the parish's border
    u: Float  # along the parish's axes
    v: Float
    angle: Float
    along: Float  # across the furrows
    border: Float  # distance to the field's border
    row_edge: Float  # distance to the border between two rows of fields
    track: NDArray[np.bool_]  # whether that border is a track
    hedge: NDArray[np.bool_]  # whether the nearest border is a hedge
    die: Float  # two per field
    crop: Float

    @classmethod
    def around(cls, ys: Int, xs: Int, land: Land, salt: int) -> Parishes:
        """Parishes are Voronoi cells, bent a little; their fields are bricks in rows, no two rows alike."""
        y, x = ys[:, None].astype(np.float64) + land.warp_y, xs.astype(np.float64) + land.warp_x
        seeds = Seeds.near(ys, xs, salt + 200)
        which, edge = _voronoi(y, x, seeds)
        key, angle, depth = seeds.key[which], seeds.angle[which], seeds.depth[which]
        dy, dx = (y - seeds.y[which]).astype(np.float32), (x - seeds.x[which]).astype(np.float32)
        cos, sin = np.cos(seeds.angle)[which], np.sin(seeds.angle)[which]
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        row, low, high = _rows(v / depth, key, salt + 210)
        breadth = seeds.breadth[which] * (0.55 + 1.3 * chance(salt + 211, key, row))
        place = u / breadth + 5 * chance(salt + 212, key, row)
        column = np.floor(place).astype(np.int32)
        left, right = (place - column) * breadth, (column + 1 - place) * breadth
        row_edge, column_edge = np.minimum(low, high) * depth, np.minimum(left, right)
        row_die = chance(salt + 213, key, row + (high < low))
        column_die = chance(salt + 214, key, row, column + (right < left))
        return cls(
            key=key,
            edge=edge,
            u=u,
            v=v,
            angle=angle,
            along=np.where(chance(salt + 215, key, row) < 0.75, u, v),
            border=np.minimum(np.minimum(row_edge, column_edge), edge - 5),
            row_edge=row_edge,
            track=row_die < 0.45,
            hedge=np.where(row_edge < column_edge, row_die > 0.72, column_die > 0.82),
            die=chance(salt + 216, key, row, column),
            crop=chance(salt + 217, key, row, column),
        )

    def crop_colour(self) -> Float:
        """(3, h, w)."""
        return CROPS.T.take((self.crop * len(CROPS)).astype(np.intp), axis=1)


def _rows(place: Float, key: Int, salt: int) -> tuple[NDArray[np.int32], Float, Float]:
    """Row of each pixel, and how far it is to the row before and to the next; borders lie unevenly."""
    row = np.floor(place).astype(np.int32)
    row -= place < row + 0.4 * chance(salt, key, row)
    return row, place - row - 0.4 * chance(salt, key, row), row + 1 + 0.4 * chance(salt, key, row + 1) - place


@dataclass
class Lots:
    """Streets and houses of a town, along the parish's axes; (h, w) each."""

    street: Float
    roof: Float
    storeys: Float
    sunny: Float  # light on this side of the roof
    die: Float

    @classmethod
    def of(cls, parishes: Parishes, town: Float, salt: int) -> Lots:
        """Blocks of 2 x 5 lots between streets; near the centre houses are larger and more frequent."""
        along, u = _split(parishes.u, 158)
        across, v = _split(parishes.v, 62)
        street = np.maximum(ramp(u, 7, 6), ramp(v, 7, 6))
        (i, lot_u), (j, lot_v) = _split(u - 7, 30.2), _split(v - 7, 27.5)
        keys = parishes.key, along * 8 + i, across * 2 + j
        die, size, stretch, shift = (chance(salt + 220 + k, *keys) for k in range(4))
        core = ramp(town, 0.45, 0.8)
        half_u = (5 + 4.5 * size) * (1 - core) + (11 + 4 * size) * core
        half_v = (4.2 + 2.8 * stretch) * (1 - core) + (8.5 + 3.5 * stretch) * core
        du, dv = lot_u - 15 - 4 * (shift - 0.5) * (1 - core), lot_v - 13.5 + 5 * (size - 0.5) * (1 - core)
        inside = ramp(np.maximum(np.abs(du) - half_u, np.abs(dv) - half_v), 0.6, -0.6)
        roof = inside * (die < 0.35 + 1.6 * town)
        facing = np.cos(parishes.angle) * 0.75 - np.sin(parishes.angle) * 0.65
        sunny = 1 - 0.20 * facing * np.clip(dv * 2, -1, 1) - 0.10 * ramp(np.abs(dv), 0.8, 0.3)
        return cls(street, roof, 0.55 + 0.45 * core, sunny, die)

    def roof_colour(self) -> Float:
        """(3, h, w)."""
        kind = (self.die * 97 % 1 * len(ROOFS)).astype(np.intp)
        return ROOFS.T.take(kind, axis=1) * (self.sunny * (0.88 + 0.3 * (self.die * 31 % 1)))


def _split(place: Float, size: float) -> tuple[NDArray[np.int32], Float]:
    """Which interval of that size, and how far into it."""
    index = np.floor(place / np.float32(size))
    return index.astype(np.int32), place - index * np.float32(size)
