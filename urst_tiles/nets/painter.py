"""painter: this package's network that paints a picture from coarse to fine.

A picture is painted level by level. The content is halved some times and painted at its coarsest level over
the content in the colours of the painting. At each finer level it is painted anew over the guide: the picture
of the level above, enlarged, and half of the detail that the content has at this level and had not at the one
above. It is the same network at every level, but for two sets of affine parameters in each style, one for the
coarsest level and one for all finer ones. A style is a row of such parameters [1], and a change of low rank
of the weights of each convolution (`urst_tiles.nets.low_rank`); all of it is folded, so styles cost nothing.
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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.moments import Moments
from urst_tiles.nets import likeness, low_rank, prediction, tones
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
from urst_tiles.nets.low_rank import is_change
from urst_tiles.nets.seeding import painted, random_state, some_picture
from urst_tiles.nets.style_file import NETWORK, row_in
from urst_tiles.nets.style_rows import are_named, asked, encoded, names_in, row_of, style_named
from urst_tiles.weights import check_keys

NAME, FILE = "painter", "painter.safetensors"
#: The width in pixels of the coarsest strokes of a picture of one level, and how many times as wide they are
#: with each further level, in the mean of what was measured (design/strokes.md).
STROKE, STROKE_GROWTH = 10.0, 1.7
#: The reach in pixels of the coarsest level; of the strokes of finer ones, whose guide is enlarged; and of
#: the result of these, which keeps the level above.
HALO, GUIDED_HALO, FINER_HALO = 48, 52, 60
#: Pixels of a cell's side: nothing works at full resolution but the last convolution.
STRIDE, MINIMUM = 4, 8
#: Variances below EPS (a deviation of 0.03 in features of order 1) are not amplified further.
EPS, DDOF = 1e-3, 1
#: The same for the variances of colours: a deviation of 0.01, which is 2.5 levels of 255.
COLOUR_EPS = 1e-4
#: The share of the detail of a level that its guide is given.
DETAIL = 0.5
#: Tensors with a row for each style and, in it, one for the coarsest level and one for finer ones.
PER_STYLE = ("gamma", "beta", "half_gamma", "half_beta")
#: The mean (S, 3) and covariance (S, 3, 3) of the colours of the paintings, and the skewness (S,) of their
#: luminance.
COLOURS = ("colour.mean", "colour.covariance", "colour.skewness")
#: What files of before do not have: their tones were not bent.
EVEN = {COLOURS[2]: torch.zeros(())}
CONTENT, GRAIN, GUIDE = slice(0, 3), slice(3, 4), slice(4, 7)
#: How many cells the convolution at half resolution takes at once, about.
MID_CELLS = 1 << 13


@dataclass(frozen=True)
class Form:
    """How large the network is: channels of the trunk, its residual blocks, channels at half resolution."""

    channels: int = 64
    blocks: int = 5
    half: int = 24


def convolutions(form: Form) -> dict[str, tuple[int, int]]:
    """Name of each convolution -> its numbers of outputs and inputs."""
    c = form.channels
    layers = {"enter": (c, 7 * STRIDE**2), "mid": (form.half, c + 24), "full": (3, form.half)}
    return layers | {f"{branch}.{k}": (c, c) for branch in "ab" for k in range(form.blocks)}


def shared_names(form: Form) -> list[str]:
    """The names of the tensors that all styles share."""
    return [f"{name}.{part}" for name in convolutions(form) for part in ("weight", "bias")]


def shapes(styles: int, form: Form, rank: int = 0) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of ``FILE``, apart from the names of the styles, whose changes of the
    weights have that ``rank``."""
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in convolutions(form).items():
        wanted |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    wanted |= dict.fromkeys(PER_STYLE[:2], (styles, 2, 2 * form.blocks + 1, form.channels))
    wanted |= dict.fromkeys(PER_STYLE[2:], (styles, 2, form.half))
    changes = low_rank.shapes(convolutions(form), rank)
    wanted |= {k: (styles, *shape) for k, shape in changes.items()}
    return wanted | dict(zip(COLOURS, ((styles, 3), (styles, 3, 3), (styles,)), strict=True))


def form_of(state: Mapping[str, Tensor]) -> Form:
    """How large the network of these tensors is, as far as they tell."""
    blocks = sum(k.startswith("a.") and k.endswith(".weight") for k in state)
    channels, half = (state[k].numel() if k in state else 0 for k in ("enter.bias", "mid.bias"))
    return Form(channels, blocks, half)


def prediction_shapes(styles: int, form: Form, hidden: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a prediction with so many values in its hidden layer."""
    parameters = sum(math.prod(shape) for shape in affine_shapes(form).values())
    wanted = shapes(styles, form)
    return prediction.shapes(styles, parameters, {k: wanted[k] for k in shared_names(form)}, hidden)


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


def mid(z: Tensor, again: Tensor, state: State) -> Tensor:
    """The convolution ``mid`` of the features ``z`` (n, c, h, w), each cell four times, and of the pixels
    ``again`` (n, 24, 2 h, 2 w).

    It runs on strips of rows: its whole input would take three times the memory of all the rest.
    """
    rows, parts = z.shape[2], []
    for a, b in strips(rows, max(1, MID_CELLS // (z.shape[0] * z.shape[3]))):
        top, bottom = max(0, a - 1), min(b + 1, rows)  # a row of cells more: padding reaches one line
        both = torch.cat([doubled(z[:, :, top:bottom]), again[:, :, 2 * top : 2 * bottom]], 1)
        parts.append(conv(both, state, "mid")[:, :, 2 * (a - top) : 2 * (b - top)])
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
        self.form = form_of(weights)
        mean, covariance, skewness = (self._values(name) for name in COLOURS)
        self.tones = tones.curve(mean, covariance, float(skewness))
        self.halo = FINER_HALO if finer else HALO
        further = GUIDED_HALO - HALO if finer else 0
        c = self.form.channels

        def features(name: str, cells: int, measured: bool = True) -> Site:
            return Site(name, c, STRIDE, EPS, DDOF, measured=measured, halo=cells * STRIDE + further)

        sites = [Site("colour", 3, 1, COLOUR_EPS, DDOF, full=True, halo=0), features("enter", 1)]
        for k in range(self.form.blocks):
            sites += [features(f"a.{k}", 2 * k + 2), features(f"b.{k}", 2 * k + 3, measured=False)]
        reach = (2 * self.form.blocks + 2) * STRIDE + further
        sites.append(Site("half", self.form.half, STRIDE // 2, EPS, DDOF, halo=reach))
        self.sites: tuple[Site, ...] = tuple(sites)

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
        sites = {site.name: site for site in self.sites}
        content = x[:, CONTENT]
        guide = guide_of(x, tones.bend((yield sites["colour"], content), 1, self.tones))
        pair = torch.cat([content, guide], 1).sub_(0.5)
        z = F.relu((yield sites["enter"], conv(cells_of(pair, grain_of(x)), self.weights, "enter")))
        for k in range(self.form.blocks):
            h = F.relu((yield sites[f"a.{k}"], conv(z, self.weights, f"a.{k}")))
            z = z + (yield sites[f"b.{k}"], conv(h, self.weights, f"b.{k}"))
        again = F.pixel_unshuffle(pair, 2)  # 24, h/2, w/2
        h = F.relu((yield sites["half"], mid(z, again, self.weights)))
        painting = guide + conv(doubled(h), self.weights, "full")
        if x.shape[1] >= GUIDE.stop:
            painting = painting + lost(painting, x[:, GUIDE, ::2, ::2])
        return painting if self.alpha == 1.0 else torch.lerp(content, painting, self.alpha)

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
        level = int(self.finer)
        if site == "half":
            return self._values("half_gamma")[level], self._values("half_beta")[level]
        number = 0 if site == "enter" else 2 * int(site[2:]) + (1 if site[0] == "a" else 2)
        return self._values("gamma")[level, number], self._values("beta")[level, number]

    def _values(self, name: str) -> NDArray[np.float64]:
        return self.row[name].double().cpu().numpy()

    def state(self) -> tuple[State, dict[str, Any]]:
        rows = {f"row.{k}": t for k, t in self.row.items()}
        return {**self.weights, **rows}, {"alpha": self.alpha, "finer": self.finer}


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
    total = weighted_sum((one_style(style, state, names), share) for style, share in shares(styles))
    weights = shared_weights(state)
    weights |= {k: (weights[k].double() + t).float() for k, t in total.items() if k in weights}
    return PainterStyle(weights, {k: total[k] for k in (*PER_STYLE, *COLOURS)}, alpha)


def one_style(style: NDArray[np.float32] | State, state: State, names: list[str]) -> State:
    """What is a style's own, float64: its tensors of `PER_STYLE` and `COLOURS`, and under the names of the
    weights what is added to them."""
    if not isinstance(style, Mapping):
        return predicted(style, state, names)
    if NETWORK in style:
        wanted = row_shapes(form_of(state), low_rank.rank_of(style))
        row = row_in(EVEN | dict(style), network_of(state), wanted)
        return as_added(row)
    return style_in(state, row_number(style, names))


def style_in(state: State, number: int) -> State:
    """The style in that row of a file, as `one_style` gives it."""
    return as_added({k: t[number].double() for k, t in state.items() if is_own(k)})


def mixture(state: State, share: NDArray[np.float64]) -> State:
    """The sum of the styles of a file, each times its ``share``, as `one_style` gives it: (S,), or one set of
    shares for all that is a style's own, but for what it changes in the weights, and a further one for each
    convolution, (G, S)."""
    changed = set_of(form_of(state))
    sets = np.broadcast_to(share, (1 + len(changed), share.shape[-1]))
    total = State()
    for number in np.flatnonzero(sets.any(0)):
        for k, t in style_in(state, int(number)).items():
            total[k] = total.get(k, 0.0) + float(sets[changed.get(k, 0), number]) * t
    return total


def set_of(form: Form) -> dict[str, int]:
    """Name of the weight of each convolution -> which set of shares its changes are mixed by; all else of a
    style is mixed by set 0."""
    return {f"{name}.weight": 1 + k for k, name in enumerate(convolutions(form))}


def weighted_sum(parts: Iterable[tuple[State, float]]) -> State:
    """The sum of styles, as `one_style` gives them, each times its share; what a style has not counts as
    0."""
    total = State()
    for style, share in parts:
        for k, t in style.items():
            total[k] = total.get(k, 0.0) + share * t
    return total


def as_added(row: State) -> State:
    """The tensors of a style, with its changes of the weights multiplied out."""
    return {k: t for k, t in row.items() if not is_change(k)} | low_rank.changes(row)


def network_of(state: State) -> str:
    """The fingerprint of the weights that all styles of a file share: that of a style file must be the
    same."""
    return digest(shared_weights(state), {})


def shared_weights(state: State) -> State:
    """The weights that all styles of a file share, float32."""
    return {k: state[k].float() for k in shared_names(form_of(state))}


def row_shapes(form: Form, rank: int = 0) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of one style, whose changes of the weights have that rank."""
    return {k: shape[1:] for k, shape in shapes(1, form, rank).items() if is_own(k)}


def affine_shapes(form: Form) -> dict[str, tuple[int, ...]]:
    """Name and shape of the affine parameters of one style."""
    return {k: shape for k, shape in row_shapes(form).items() if k in PER_STYLE}


def is_own(name: str) -> bool:
    """Whether each style has a tensor of this name of its own."""
    return name in (*PER_STYLE, *COLOURS) or is_change(name)


def predicted(image: NDArray[np.float32], state: State, names: list[str]) -> State:
    """The style, as `one_style` gives it, that is to paint as an image (h, w, 3) in 0..1 was painted.

    It is a mixture of the styles in the file and, where the file has a prediction, what that adds to it
    (`urst_tiles.nets.prediction`); the colours are the image's own.

    Raises
    ------
    BadInput : the styles in the file are none of the package's, so that nothing is known of them.
    """
    share, row = predicted_shares(image, state, names)
    if share is None:
        raise BadInput(
            "these weights of --model painter have styles of their own, from which no image's can be"
            f" predicted; give --style one of {', '.join(names)}, or a file that `urst-tiles learn` made"
        )
    style = weighted_sum([(mixture(state, share), 1.0), (row | prediction.changes(state), 1.0)])
    colours = Moments.of(image.reshape(-1, 3).T, full=True)
    values = (colours.mean, colours.covariance(DDOF), tones.skewness(image))
    return style | {k: torch.from_numpy(np.array(t)) for k, t in zip(COLOURS, values, strict=True)}


def predicted_shares(
    image: NDArray[np.float32], state: State, names: list[str]
) -> tuple[NDArray[np.float64] | None, State]:
    """The share of each style of a file, as `mixture` takes it, in what is predicted of an image (h, w, 3) in
    0..1, None where none of them is a named style; and what is added to their mixture, float64, none without
    a prediction."""
    statistics = likeness.statistics(image)
    share = likeness.shares(statistics, names)
    if share is None or not prediction.is_in(state):
        return share, {}
    more, row = prediction.predict(state, statistics[None])
    return share + more[0].numpy(), prediction.split(row[0], affine_shapes(form_of(state)))


def row_number(style: State, names: list[str]) -> int:
    """The index of the style that is asked for."""
    word = asked(style) or ""
    row = row_of(word, names)
    if row is None:
        known = ", ".join(names)
        raise BadInput(
            f"--model painter has no style {word!r}; --style must be one of {known}, an image, or a file that"
            " `urst-tiles learn` made"
        )
    return row


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
    added = painted(build({FILE: state}, style), image) - painted(build({FILE: still}, style), image)
    for part in ("weight", "bias"):
        state[f"full.{part}"] *= 0.25 / added.std()
    return {FILE: state}
