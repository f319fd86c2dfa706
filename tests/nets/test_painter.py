"""The painter against its formulas, written out once more in numpy and float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from law1 import TOLERANCE
from probe import probe

from urst_tiles import nets, weights
from urst_tiles.engine.kernel import Kernel
from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.geometry import Box, Grid
from urst_tiles.moments import Moments
from urst_tiles.nets import low_rank, painter, painter_styles, style_rows, tones
from urst_tiles.nets.base import NOTHING, LocalNet

FORM = painter_styles.Form(6, 5, 4)


def conv64(x, state, name):
    """(c, h, w) float64; 3x3 with reflection padding: the sum over taps, nothing else."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    taps = ((i, j) for i in range(3) for j in range(3))
    total = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    return total + bias[:, None, None]


def cells64(x, side):
    c, h, w = x.shape
    cells = x.reshape(c, h // side, side, w // side, side).transpose(0, 2, 4, 1, 3)
    return cells.reshape(c * side * side, h // side, w // side)


def twice64(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def larger64(x):
    """Bilinear: each new pixel lies a quarter of a pixel from the nearest old one; edges are repeated."""
    for axis in (1, 2):
        n = x.shape[axis]
        before = x.take(np.maximum(np.arange(n) - 1, 0), axis)
        after = x.take(np.minimum(np.arange(n) + 1, n - 1), axis)
        pairs = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def smaller64(x):
    c, h, w = x.shape
    return x.reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))


def lost64(painting, above):
    """What is to be kept of ``above``: the difference of 4 x 4 means, blurred by 1, 2, 1, four times as
    large, bilinear."""
    x = smaller64(above) - smaller64(smaller64(painting))
    for axis in (1, 2):
        n = x.shape[axis]
        before, after = (x.take(np.clip(np.arange(n) + k, 0, n - 1), axis) for k in (-1, 1))
        x = (before + 2 * x + after) / 4
    for axis in (1, 2):
        n = x.shape[axis]
        where = np.clip((np.arange(4 * n) + 0.5) / 4 - 0.5, 0, n - 1)
        low = where.astype(int)
        shape = [-1 if k == axis else 1 for k in range(3)]
        share = (where - low).reshape(shape)
        x = (1 - share) * x.take(low, axis) + share * x.take(np.minimum(low + 1, n - 1), axis)
    return x


def normed64(h, gamma, beta):
    flat = h.reshape(len(h), -1)
    mean, deviation = flat.mean(1), np.sqrt(flat.var(1, ddof=1) + 1e-3)
    return (h - mean[:, None, None]) * (gamma / deviation)[:, None, None] + beta[:, None, None]


def bent64(guide, mean, covariance, skewness):
    """The guide (3, h, w) with its luminance raised to the fourth power, around the mean, along the direction
    in which colours change with it."""
    weights = np.array([0.299, 0.587, 0.114])
    deviation = np.sqrt(weights @ covariance @ weights)
    sign, strength = np.sign(skewness), tones.strength_for(abs(float(skewness)))
    z = sign * np.einsum("c,chw->hw", weights, guide - mean[:, None, None]) / deviation
    centre, spread, _ = tones.spread_of(strength)
    more = (np.maximum(1 + strength * z / 4, 0) ** 4 - centre) / spread - z
    return guide + np.multiply.outer(sign * covariance @ weights / deviation, more)


def changed64(state, number):
    """The weights with what a style changes in them: sums of outer products."""
    changed = dict(state)
    for name in painter_styles.convolutions(FORM):
        weight = state[f"{name}.weight"].double().numpy().copy()
        out, taps, exponent = (
            state[f"change.{name}.{part}"][number].double().numpy() for part in ("out", "in", "exponent")
        )
        for k in range(len(exponent)):
            weight += 2.0 ** exponent[k] * np.multiply.outer(out[k], taps[k])
        changed[f"{name}.weight"] = torch.from_numpy(weight)
    return changed


def painter64(x, state, number, level):
    """One level on one image, (7, h, w), with its own statistics: the coarsest is painted twice."""
    state = changed64(state, number)
    content, noise, above = x[:3], x[3:4] - 0.5, x[4:, ::2, ::2]
    mean, covariance, skewness = (state[k][number].double().numpy() for k in painter_styles.COLOURS)
    flat = content.reshape(3, -1)
    scale = painter.monge_kantorovich(np.cov(flat), covariance, 1e-4)
    guide = np.einsum("dc,chw->dhw", scale, content - flat.mean(1)[:, None, None]) + mean[:, None, None]
    guide = np.clip(bent64(guide, mean, covariance, skewness), 0, 1)
    if level:
        guide = larger64(above) + 0.5 * (guide - larger64(smaller64(guide)))
        painting = pass64(content, guide, noise, state, number, 1)
        return painting + lost64(painting, above)
    painting = pass64(content, guide, noise, state, number, 0)
    return pass64(content, np.clip(painting, 0, 1), noise, state, number, 2)


def pass64(content, guide, noise, state, number, kind):
    """What the network paints over the guide with one kind of rows."""
    gamma, beta, half_gamma, half_beta = (
        state[k][number, kind].double().numpy() for k in painter_styles.PER_STYLE
    )
    pair = np.concatenate([content, guide]) - 0.5
    cells = cells64(np.concatenate([pair, noise]), 4)
    z = np.maximum(normed64(conv64(cells, state, "enter"), gamma[0], beta[0]), 0)
    for k in range(5):
        h = normed64(conv64(z, state, f"a.{k}"), gamma[1 + 2 * k], beta[1 + 2 * k])
        h = conv64(np.maximum(h, 0), state, f"b.{k}")
        z = z + h * gamma[2 + 2 * k][:, None, None] + beta[2 + 2 * k][:, None, None]
    h = conv64(np.concatenate([twice64(z), cells64(pair, 2)]), state, "mid")
    h = np.maximum(normed64(h, half_gamma, half_beta), 0)
    return guide + conv64(twice64(h), state, "full")


def windows(h=64, w=80, seed=0):
    """What a finer level reads, float32 (1, 7, h, w) in 0..1."""
    random = np.random.default_rng(seed)
    x = np.kron(random.random((7, h // 8, w // 8)), np.ones((8, 8))) * 0.7 + 0.3 * random.random((7, h, w))
    x[4:] = twice64(x[4:, ::2, ::2])
    return torch.from_numpy(x[None].astype(np.float32)).contiguous(memory_format=torch.channels_last)


def styles(width=1 / 8, alpha=1.0):
    """The styles of the coarsest and of a finer level, and their state."""
    states = painter.seeded(3, width)
    style = painter.build(states, [(style_rows.style_named("noon"), 1.0)], alpha)
    return (style, style.at_level(True)), states[painter.FILE]


def measured(style, x):
    found = {}

    def at(site, features):
        if site.measured:
            found[site.name] = Moments.of(features[0].flatten(1).numpy(), full=site.full)
        return style.affine(site, found.get(site.name, NOTHING))(features)

    with torch.inference_mode():
        return style.forward(x, at), found


@pytest.mark.parametrize("level", [0, 1])
def test_plain_network_is_the_formula(level):
    x = windows()
    chosen, state = styles()
    got, _ = measured(chosen[level], x if level else x[:, :4])
    want = painter64(x[0].double().numpy(), state, 1, level)
    assert np.abs(got[0].numpy() - want).max() < 1e-4


@pytest.mark.parametrize("width", [1 / 8, 1.0])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("channels", [3, 4, 7])
@pytest.mark.parametrize("size", [(64, 80), (8, 12), (52, 8)])
def test_frozen_network_is_the_plain_one(width, alpha, channels, size):
    x = windows(64, 80)[:, :channels, : size[0], : size[1]].contiguous(memory_format=torch.channels_last)
    style = styles(width, alpha)[0][channels == 7]
    _, moments = measured(style, windows()[:, :channels])
    net = nets.freeze(style, moments)
    affines = nets.families.frozen_affines(style, moments)
    with torch.inference_mode():
        want = style.forward(x, lambda site, t: affines[site.name](t))
        assert torch.allclose(net(x), want, atol=2e-5)


def test_bfloat16_keeps_the_picture():
    x = windows(256, 320)
    style = styles(1.0)[0][1]
    net = nets.freeze(style, measured(style, x)[1])
    with torch.inference_mode():
        error = (net.to_precision("bfloat16")(x) - net(x)).square().mean()
    assert -10 * np.log10(error.item()) > 40


def test_lights_far_beyond_the_others_are_cut():
    """Of a dark image with a few lights, which have ten deviations of its colours and more."""
    above = torch.full((1, 3, 16, 16), 0.5)
    x = torch.cat([torch.zeros(1, 4, 32, 32), painter.doubled(above)], 1)
    colours = torch.full((1, 3, 32, 32), 0.2)
    colours[:, :, 5, 7], colours[:, :, 20, 3] = 9.0, -4.0
    assert painter.guide_of(x[:, :4], colours).aminmax() == (0.0, 1.0)
    finer = painter.guide_of(x, colours)
    assert 0 <= finer.min() and finer.max() <= 1


def test_a_finer_level_keeps_the_colours_of_the_level_above(monkeypatch):
    """Without it, large strokes fade under the fine ones."""
    x, style = windows(256, 320), styles()[0][1]

    def away(side):
        """By how much means over squares of this side differ from those of the level above."""
        painting, _ = measured(style, x)
        change = torch.nn.functional.avg_pool2d(painting - x[:, painter.GUIDE], side)
        return change.square().mean().sqrt().item()

    kept, fine = away(32), away(1)
    monkeypatch.setattr(painter, "lost", lambda painting, above: 0.0)
    assert kept < 0.1 * away(32) and fine > 0.5 * away(1)


def test_a_finer_level_reaches_as_far_as_said():
    style = styles()[0][1]

    class Finer(LocalNet):
        family, halo, stride, minimum = "painter", style.halo, style.stride, style.minimum

        def forward(self, x, boxes=None):
            above = (x[:, :, ::2, ::2] + x[:, :, 1::2, 1::2]).repeat_interleave(2, 2).repeat_interleave(2, 3)
            return style.forward(torch.cat([x, x[:, :1], above], 1), lambda site, features: features)

    reach, stride = probe(Finer())
    assert stride == style.stride and reach <= style.halo < reach + stride


@pytest.mark.parametrize(("level", "halo"), [(1, 60), (1, 44), (0, 96), (0, 60)])
def test_a_level_is_tiled_by_its_halo_and_by_no_less(level, halo):
    x = windows(256, 256, seed=1)[:, : 7 if level else 4]
    style = styles(1.0)[0][level]
    assert style.halo == (96, 60)[level] and style.stride == 4
    net = nets.freeze(style, measured(style, x)[1])
    grid, kernel = Grid(256, 256, halo, 4, 32, 256, 32, 8), Kernel(net)
    pixels = (x[0].permute(1, 2, 0).numpy() * 65535).astype(np.uint16)
    if level:
        pixels[..., 4:] = pixels[::2, ::2, 4:].repeat(2, 0).repeat(2, 1)
    whole = kernel.run_float(pixels[None], [grid.padded])[0]
    worst = 0.0
    for core in grid.cores(grid.image):
        box = grid.window_box(core)
        part = kernel.run_float(pixels[box.slices][None], [box])[0]
        worst = max(worst, np.abs(part[core.within(box).slices] - whole[core.slices]).max())
    assert (worst <= TOLERANCE) == (halo == style.halo)


def test_alpha_mixes_content_and_painting():
    x = windows()
    full, none, some = (measured(styles(alpha=a)[0][1], x)[0] for a in (1.0, 0.0, 0.25))
    assert torch.allclose(none, x[:, :3], atol=1e-6)
    assert torch.allclose(some, 0.75 * x[:, :3] + 0.25 * full, atol=1e-5)


def test_styles_are_chosen_by_name_or_number_and_mixed_by_their_parameters():
    states = painter.seeded(0, 1 / 8)

    def row(*pairs):
        return painter.build(states, [(style_rows.style_named(word), share) for word, share in pairs]).row

    assert all(torch.equal(row(("dawn", 1.0))[k], row(("1", 1.0))[k]) for k in painter_styles.PER_STYLE)
    mixed, (dawn, night) = row(("dawn", 1.0), ("night", 3.0)), (row(("1", 1.0)), row(("3", 1.0)))
    for k in (*painter_styles.PER_STYLE, *painter_styles.COLOURS):
        assert torch.allclose(mixed[k], 0.25 * dawn[k] + 0.75 * night[k])


@pytest.mark.parametrize("word", ["0", "4", "dusk", "nowhere.jpg"])
def test_an_unknown_style_is_refused_with_the_names(word):
    with pytest.raises(BadInput, match="dawn, noon, night"):
        painter.build(painter.seeded(0, 1 / 8), [(style_rows.style_named(word), 1.0)])


def test_a_style_image_is_refused_where_no_style_is_one_of_the_packages():
    with pytest.raises(BadInput, match="styles of their own.*dawn, noon, night"):
        painter.build(painter.seeded(0, 1 / 8), [(np.zeros((64, 64, 3), np.float32), 1.0)])


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a", "b"], ["a", "b", 3], []])
def test_names_that_do_not_fit_are_refused(names):
    state = painter.seeded(0, 1 / 8)[painter.FILE] | {"styles": style_rows.encoded(names)}
    with pytest.raises(BadWeights, match="styles must be"):
        painter.check(state, painter.FILE, Path("painter.safetensors"))


def test_the_network_of_the_package_has_35_styles_and_is_as_large_as_said(tmp_path):
    style = nets.build("painter", tmp_path, [(style_rows.style_named("van-gogh-starry-night"), 1.0)])
    assert isinstance(style, nets.PainterStyle) and style.form == painter_styles.Form()
    assert set(nets.named_styles.titles()) == set(shipped_names())
    passes = [site.name.startswith(painter.SECOND) for site in style.sites if site.measured]
    assert sum(passes) <= 8 and len(passes) - sum(passes) <= 8
    assert sum(site.measured for site in style.at_level(True).sites) <= 8
    layers = painter_styles.convolutions(style.form)
    cells = {"mid": 4, "full": 16}  # outputs in each cell of 4 x 4 pixels
    products = sum(9 * o * i * cells.get(name, 1) for name, (o, i) in layers.items()) / 16
    assert products <= 45_000
    path = weights.find("painter", None)[painter.FILE]
    assert path.stat().st_size <= 8_000_000
    state = weights.load(path)
    changed = [any(t.any() for t in low_rank.changes(rows_in(state, k)).values()) for k in range(35)]
    assert all(changed)


def rows_in(state, number):
    """The changes of one of the styles in a file."""
    return {k: t[number] for k, t in state.items() if low_rank.is_change(k)}


def shipped_names():
    return style_rows.names_in(weights.load(weights.find("painter", None)[painter.FILE])["styles"])


def test_a_frozen_level_is_saved_and_loaded(tmp_path):
    x, style = windows(), styles()[0][1]
    net = nets.freeze(style, measured(style, x)[1])
    net.save(tmp_path / "net.safetensors")
    again = nets.load_frozen(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(again(x), net(x))


def test_a_network_that_was_saved_before_has_even_tones(tmp_path):
    style = styles()[0][0]
    state, settings = style.state()
    old = {k: t for k, t in state.items() if k != "row.colour.skewness"}
    assert style.tones is not None and painter.restore(old, settings).tones is None


def test_a_window_is_not_moved_by_its_place():
    x, style = windows(), styles()[0][1]
    net = nets.freeze(style, measured(style, x)[1])
    with torch.inference_mode():
        assert torch.equal(net(x, [Box(0, 0, 64, 80)]), net(x, [Box(400, 800, 464, 880)]))


def test_styles_of_before_paint_the_coarsest_level_once():
    """Mixed with others, they make these do so, too."""
    states = painter.seeded(3, 1 / 8)
    state = states[painter.FILE]
    old = state | {k: state[k][:, :2] for k in painter_styles.PER_STYLE}
    one = [(style_rows.style_named("noon"), 1.0)]
    before, now = painter.build({painter.FILE: old}, one), painter.build(states, one)
    assert (before.twice, before.halo, now.twice, now.halo) == (False, 48, True, 96)
    x = windows()[:, :4]
    assert not torch.allclose(measured(before, x)[0], measured(now, x)[0], atol=0.01)
    apart = painter.alike([before, now])
    assert [style.twice for style in apart] == [False, False]
    assert torch.equal(measured(apart[1], x)[0], measured(before, x)[0])
    assert painter.alike([now, now])[1].twice
    painter.check(old, painter.FILE, Path("painter.safetensors"))
