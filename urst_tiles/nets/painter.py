"""painter: this package's network that paints a picture from coarse to fine.

A picture is painted level by level. The content is halved some times and painted at its coarsest level over
the content in the colours of the painting. At each finer level it is painted anew over the guide: the picture
of the level above, enlarged, and half of the detail that the content has at this level and had not at the one
above. The coarsest level, which has the fewest pixels and decides the large shapes, is painted twice, the
second time over its own picture. It is the same network each time, but for three sets of affine parameters in
each style: for the coarsest level, for all finer ones, and for the coarsest painted again. A style is a row
of such parameters [1], and a change of low rank of the weights of each convolution
(`urst_tiles.nets.low_rank`); all of it is folded, so styles cost nothing.

What a finer level paints keeps the colours of the picture of the level above, averaged over some pixels, as
the levels of a Laplacian pyramid do [3]: large strokes do not fade under the fine ones.

The windows of a level have more channels than red, green and blue: behind these three come one of noise, and,
at a level that is not the coarsest, the three of the picture of the level above, each of its pixels four
times (`urst_tiles.source.levels`). A window of three channels is painted as a coarsest level without noise.

References
----------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017: a style is a
   row of affine parameters.
2. F. Pitie and A. Kokaram, "The Linear Monge-Kantorovitch Linear Colour Mapping for Example-Based Colour
   Transfer", CVMP 2007: the colours of the coarsest level's guide, whose tones are then bent
   (`urst_tiles.nets.tones`).
3. P. J. Burt, E. H. Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE Transactions on
   Communications 31, 1983: a level adds what the enlarged level above does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadWeights
from urst_tiles.moments import Moments
from urst_tiles.nets import low_rank, prediction, tones
from urst_tiles.nets.base import (
    Affine,
    At,
    Site,
    State,
    Steps,
    StyleImages,
    checked_alpha,
    digest,
    run_through,
    shares,
)
from urst_tiles.nets.frozen.padding import strips
from urst_tiles.nets.lite import monge_kantorovich
from urst_tiles.nets.painter_styles import (
    AGAIN,
    COARSEST,
    COLOURS,
    DDOF,
    EVEN,
    FINER,
    PER_STYLE,
    STRIDE,
    Form,
    convolutions,
    form_of,
    kinds_of,
    of_equal_kinds,
    one_style,
    prediction_shapes,
    shapes,
    shared_weights,
    weighted_sum,
)
from urst_tiles.nets.seeding import painted, random_state, some_picture
from urst_tiles.nets.style_rows import are_named, encoded, names_in, style_named
from urst_tiles.weights import check_keys

NAME, FILE = "painter", "painter.safetensors"
#: The width in pixels of the coarsest strokes of a picture of one level, and how many times as wide they are
#: with each further level, in the mean of what was measured (design/strokes.md).
STROKE, STROKE_GROWTH = 5.15, 1.88
#: The reach in pixels of a pass of the network, and of the coarsest level, which is painted twice; of the
#: strokes of finer levels, whose guide is enlarged; and of the result of these, which keeps the level above.
PASS_HALO, HALO, GUIDED_HALO, FINER_HALO = 48, 96, 52, 60
MINIMUM = 8
#: Variances below EPS (a deviation of 0.03 in features of order 1) are not amplified further.
EPS = 1e-3
#: The same for the variances of colours: a deviation of 0.01, which is 2.5 levels of 255.
COLOUR_EPS = 1e-4
#: The share of the detail of a level that its guide is given.
DETAIL = 0.5
#: What the names of the sites begin with when the coarsest level is painted again.
SECOND = "again."
CONTENT, GRAIN, GUIDE = slice(0, 3), slice(3, 4), slice(4, 7)
#: How many cells a convolution behind an enlargement takes at once, about.
ENLARGED_CELLS = 1 << 13


# The network


def stroke_width(levels: int) -> float:
    """The width in pixels of the coarsest strokes of a picture of so many levels, about."""
    return STROKE * STROKE_GROWTH ** (levels - 1)


def levels_for(width: float) -> float:
    """The inverse of `stroke_width`: how many levels give strokes of a width in pixels; any real number."""
    return 1 + math.log(width / STROKE) / math.log(STROKE_GROWTH)


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """3x3 convolution ``name`` of ``x`` (n, C, h, w) with reflection padding, in the type of ``x``."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(x, state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x))


def enlarging(h: Tensor, state: State, name: str, beside: Tensor | None = None) -> Tensor:
    """The convolution ``name`` of the features ``h`` (n, c, h, w), each cell four times, and of what is
    ``beside`` them, (n, c', 2 h, 2 w).

    It runs on strips of rows: its whole input would take three times the memory of all the rest.
    """
    rows, parts = h.shape[2], []
    for a, b in strips(rows, max(1, ENLARGED_CELLS // (h.shape[0] * h.shape[3]))):
        top, bottom = max(0, a - 1), min(b + 1, rows)  # a row of cells more: padding reaches one line
        both = doubled(h[:, :, top:bottom])
        if beside is not None:
            both = torch.cat([both, beside[:, :, 2 * top : 2 * bottom]], 1)
        parts.append(conv(both, state, name)[:, :, 2 * (a - top) : 2 * (b - top)])
    return torch.cat(parts, 2)


def doubled(h: Tensor) -> Tensor:
    """Twice as high and wide, each cell four times."""
    return F.interpolate(h, scale_factor=2, mode="nearest")


def enlarged(x: Tensor) -> Tensor:
    """Twice as high and wide, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def guide_of(x: Tensor, colours: Tensor) -> Tensor:
    """What the windows ``x`` are painted over, (n, 3, h, w); ``colours`` is their content in the colours of
    the painting. What lies outside of 0..1 is cut: the lights of a dark image would come back as specks."""
    colours = colours.clamp(0, 1)
    if x.shape[1] < GUIDE.stop:
        return colours
    above = x[:, GUIDE, ::2, ::2]
    return enlarged(above) + DETAIL * (colours - enlarged(F.avg_pool2d(colours, 2)))


def blurred(x: Tensor) -> Tensor:
    """(n, c, h, w), each line averaged with its neighbours (1, 2, 1), down and across; edges are repeated."""
    for axis, sides in ((2, (0, 0, 1, 1)), (3, (1, 1, 0, 0))):
        n, wide = x.shape[axis], F.pad(x, sides, mode="replicate")
        x = 0.5 * x + 0.25 * (wide.narrow(axis, 0, n) + wide.narrow(axis, 2, n))
    return x


def lost(painting: Tensor, above: Tensor) -> Tensor:
    """What a level's ``painting`` (n, 3, h, w) has lost of the colours of the picture of the level ``above``
    (n, 3, h/2, w/2), which it is to keep [3]: the difference of the means of cells, blurred and enlarged."""
    cells = F.avg_pool2d(above, STRIDE // 2) - F.avg_pool2d(painting, STRIDE)
    return F.interpolate(blurred(cells), scale_factor=STRIDE, mode="bilinear", align_corners=False)


def grain_of(x: Tensor) -> Tensor:
    """The noise of the windows ``x``, (n, 1, h, w), around 0; 0 where they have none."""
    return x[:, GRAIN] - 0.5 if x.shape[1] > CONTENT.stop else torch.zeros_like(x[:, :1])


def cells_of(pair: Tensor, grain: Tensor) -> Tensor:
    """Content and guide (n, 6, h, w) and noise (n, 1, h, w) as cells, (n, 112, h/4, w/4)."""
    return F.pixel_unshuffle(torch.cat([pair, grain], 1), STRIDE)


class PainterStyle:
    """The weights of the painter with a style, for one kind of level.

    Parameters
    ----------
    weights : weight and bias of the convolutions as the style has changed them, float32.
    row : the style's tensors of ``PER_STYLE`` and ``COLOURS``, float64, without their first axis.
    alpha : strength: the share of the painting in the result; the rest is the content.
    finer : whether a level is painted that is not the coarsest; its windows have a guide.
    """

    name, stride, minimum = NAME, STRIDE, MINIMUM
    #: Measured by ``benchmarks/memory_grid.py``.
    plain_bytes, stepped_bytes = 380.0, 210.0

    def __init__(self, weights: State, row: State, alpha: float = 1.0, finer: bool = False):
        self.weights, self.row, self.alpha, self.finer = dict(weights), dict(row), checked_alpha(alpha), finer
        self.form = replace(form_of(weights), kinds=kinds_of(row))
        mean, covariance, skewness = (self._values(name) for name in COLOURS)
        self.tones = tones.curve(mean, covariance, float(skewness))
        #: Whether its level is painted over its own picture once more.
        self.twice = not finer and self.form.kinds > AGAIN
        self.halo = FINER_HALO if finer else HALO if self.twice else PASS_HALO
        sites = [Site("colour", 3, 1, COLOUR_EPS, DDOF, full=True, halo=0)]
        sites += self._sites("", GUIDED_HALO - PASS_HALO if finer else 0)
        sites += self._sites(SECOND, PASS_HALO) if self.twice else []
        self.sites: tuple[Site, ...] = tuple(sites)

    def _sites(self, before: str, further: int) -> list[Site]:
        """The sites of a pass over the guide, whose names begin with ``before`` and whose guide reaches
        ``further``."""

        def features(name: str, cells: int, measured: bool = True) -> Site:
            halo = cells * STRIDE + further
            return Site(before + name, self.form.channels, STRIDE, EPS, DDOF, measured=measured, halo=halo)

        sites = [features("enter", 1)]
        for k in range(self.form.blocks):
            sites += [features(f"a.{k}", 2 * k + 2), features(f"b.{k}", 2 * k + 3, measured=False)]
        reach = (2 * self.form.blocks + 2) * STRIDE + further
        return [*sites, Site(f"{before}half", self.form.half, STRIDE // 2, EPS, DDOF, halo=reach)]

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def at_level(self, finer: bool) -> PainterStyle:
        """The same style for the coarsest level, or for a finer one."""
        return PainterStyle(self.weights, self.row, self.alpha, finer)

    def forward(self, x: Tensor, at: At) -> Tensor:
        return run_through(self.steps(x), at)

    def steps(self, x: Tensor) -> Steps:
        """``forward`` as a pass that stops at each site."""
        colour, content, grain = self.sites[0], x[:, CONTENT], grain_of(x)
        guide = guide_of(x, tones.bend((yield colour, content), 1, self.tones))
        painting = yield from self._over(guide, "", content, grain)
        if self.twice:
            painting = yield from self._over(painting.clamp(0, 1), SECOND, content, grain)
        if x.shape[1] >= GUIDE.stop:
            painting = painting + lost(painting, x[:, GUIDE, ::2, ::2])
        return painting if self.alpha == 1.0 else torch.lerp(content, painting, self.alpha)

    def _over(self, guide: Tensor, before: str, content: Tensor, grain: Tensor) -> Steps:
        """A pass over the guide, whose sites' names begin with ``before``."""
        sites = {site.name.removeprefix(before): site for site in self.sites if site.name.startswith(before)}
        pair = torch.cat([content, guide], 1).sub_(0.5)
        z = F.relu((yield sites["enter"], conv(cells_of(pair, grain), self.weights, "enter")))
        for k in range(self.form.blocks):
            h = F.relu((yield sites[f"a.{k}"], conv(z, self.weights, f"a.{k}")))
            z = z + (yield sites[f"b.{k}"], conv(h, self.weights, f"b.{k}"))
        again = F.pixel_unshuffle(pair, 2)  # 24, h/2, w/2
        h = F.relu((yield sites["half"], enlarging(z, self.weights, "mid", again)))
        return guide + enlarging(h, self.weights, "full")

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The map of colours [2], or the style's affine parameters [1], behind an instance norm where the
        site is measured."""
        if site.name == "colour":
            mean, covariance = (self._values(name) for name in COLOURS[:2])
            scale = monge_kantorovich(moments.covariance(site.ddof), covariance, site.eps)
            return Affine(scale, mean - scale @ moments.mean)
        gamma, beta = self._parameters(site.name)
        if site.measured:
            gamma = gamma / moments.std(site.eps, site.ddof)
            beta = beta - gamma * moments.mean
        return Affine(gamma, beta)

    def _parameters(self, site: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gamma and beta of a site, float64 (C,)."""
        kind = FINER if self.finer else AGAIN if site.startswith(SECOND) else COARSEST
        site = site.removeprefix(SECOND)
        if site == "half":
            return self._values("half_gamma")[kind], self._values("half_beta")[kind]
        number = 0 if site == "enter" else 2 * int(site[2:]) + (1 if site[0] == "a" else 2)
        return self._values("gamma")[kind, number], self._values("beta")[kind, number]

    def _values(self, name: str) -> NDArray[np.float64]:
        return self.row[name].double().cpu().numpy()

    def state(self) -> tuple[State, dict[str, Any]]:
        rows = {f"row.{k}": t for k, t in self.row.items()}
        return {**self.weights, **rows}, {"alpha": self.alpha, "finer": self.finer}


def alike(styles: Sequence[PainterStyle]) -> tuple[PainterStyle, ...]:
    """Styles for regions of a picture: where one of them paints the coarsest level once, all of them do."""
    rows = of_equal_kinds([style.row for style in styles])
    return tuple(
        PainterStyle(style.weights, row, style.alpha, style.finer)
        for style, row in zip(styles, rows, strict=True)
    )


# Files


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> PainterStyle:
    """A style from the state of ``FILE``; several styles are mixed by their parameters [1].

    A style is the name or number of one in the file, the tensors of a style file, or the image of a painting,
    whose parameters are predicted.

    Raises
    ------
    BadInput : the file does not have the style, and the message lists its styles; a style file belongs to
        other weights; or an image is given, and the styles in the file are none of the package's.
    """
    state = states[FILE]
    names = names_in(state["styles"])
    parts = shares(styles)
    chosen = of_equal_kinds([one_style(style, state, names) for style, _ in parts])
    total = weighted_sum((style, share) for style, (_, share) in zip(chosen, parts, strict=True))
    weights = shared_weights(state)
    weights |= {k: (weights[k].double() + t).float() for k, t in total.items() if k in weights}
    return PainterStyle(weights, {k: total[k] for k in (*PER_STYLE, *COLOURS)}, alpha)


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys, shapes or names."""
    rows = state.get("gamma")
    count = len(rows) if rows is not None and rows.ndim else 0
    form = form_of(state)
    wanted = shapes(count, form, low_rank.rank_of(state))
    if prediction.is_in(state):
        wanted |= prediction_shapes(count, form, prediction.hidden_of(state))
    check_keys({k: t for k, t in state.items() if k != "styles"}, wanted, path)
    if not count or not are_named(state, count):
        raise BadWeights(f"{path}: styles must be a JSON list of {count} different words, as uint8 letters")


def restore(state: State, settings: Mapping[str, Any]) -> PainterStyle:
    """The inverse of ``PainterStyle.state``."""
    row = EVEN | {k.removeprefix("row."): t for k, t in state.items() if k.startswith("row.")}
    names = {k for layer in ("enter", "mid", "full", "a", "b") for k in state if k.startswith(f"{layer}.")}
    return PainterStyle({k: state[k] for k in names}, row, settings["alpha"], settings["finer"])


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """The state of ``FILE`` with three styles and random weights that keep the signal alive: strokes of
    deviation 0.25 on `some_picture`."""
    random = np.random.default_rng(seed)
    form = Form(max(4, round(64 * width)), 5, max(4, round(24 * width)))
    wanted = shapes(3, form)
    state = random_state(random, {k: s for k, s in wanted.items() if k not in (*PER_STYLE, *COLOURS)})
    for k in PER_STYLE:
        values = random.uniform(0.5, 1.5, wanted[k]) if "gamma" in k else random.normal(0, 0.3, wanted[k])
        state[k] = torch.from_numpy(values.astype(np.float32))
    spread = random.normal(0, 0.15, (3, 3, 3))
    state[COLOURS[0]] = torch.from_numpy(random.uniform(0.3, 0.7, (3, 3)).astype(np.float32))
    state[COLOURS[1]] = torch.from_numpy((spread @ spread.transpose(0, 2, 1)).astype(np.float32))
    state[COLOURS[2]] = torch.tensor([0.0, 1.5, -0.8])
    state["styles"] = encoded(["dawn", "noon", "night"])
    state |= low_rank.seeded(convolutions(form), 3, seed)
    image = some_picture(seed)
    still = {**state, "full.weight": torch.zeros_like(state["full.weight"])}
    still["full.bias"] = torch.zeros_like(state["full.bias"])
    style = [(style_named("1"), 1.0)]
    once, nothing = (
        build({FILE: {k: t[:, :AGAIN] if k in PER_STYLE else t for k, t in each.items()}}, style)
        for each in (state, still)
    )
    added = painted(once, image) - painted(nothing, image)
    for part in ("weight", "bias"):
        state[f"full.{part}"] *= 0.25 / added.std()
    return {FILE: state}
