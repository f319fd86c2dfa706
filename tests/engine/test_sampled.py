"""Statistics from a sample of windows: spread over what is valid, joint at every site."""

from __future__ import annotations

import numpy as np
import pytest

from urst_tiles import nets
from urst_tiles.engine import at_once
from urst_tiles.engine.sampled import CORE, FEWEST, MOST, WINDOWS, measure_sampled, sample_pixels, samples
from urst_tiles.engine.statistics import measure_here
from urst_tiles.field import Lattice
from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets import Composition, painter, painter_styles
from urst_tiles.nets.base import NOTHING, neutral
from urst_tiles.nets.style_rows import style_named
from urst_tiles.source import array_source
from urst_tiles.source.windows import WindowReader


def source_of(pixels):
    return array_source(pixels).prepare(None, thumbnail=64)


def close(got, want, tolerance=1e-4):
    assert got.keys() == want.keys()
    for name in got:
        a, b = got[name], want[name]
        for mine, others in ((a.mean, b.mean), (a.m2 / a.n, b.m2 / b.n)):
            assert np.allclose(mine, others, atol=tolerance, rtol=1e-3), name


@pytest.mark.parametrize("model", ["lite", "painter", "microast"])
def test_a_small_image_is_measured_as_a_whole(model, seeded_style, picture):
    style, source = seeded_style(model), source_of(picture(150, 213))
    close(measure_sampled(style, source), measure_here(style, source))


def test_invalid_pixels_do_not_count(seeded_style, picture):
    style, pixels = seeded_style("lite"), picture(120, 160)
    rgba = np.dstack([pixels, np.full((120, 160), 255, np.uint8)])
    rgba[:, 90:, 3] = 0
    close(measure_sampled(style, source_of(rgba)), measure_here(style, source_of(rgba)))


def test_an_image_without_a_valid_pixel_has_harmless_statistics(seeded_style):
    found = measure_sampled(seeded_style("lite"), source_of(np.zeros((64, 64, 4), np.uint8)))
    assert all(np.isfinite(m.mean).all() and m.n > 0 for m in found.values())


@pytest.mark.parametrize("shape", [(4000, 3000), (700, 9001), (5003, 64)])
def test_windows_lie_in_the_image_on_the_stride_and_alike(shape, seeded_style):
    style = seeded_style("lite")
    chosen = samples(style, shape, None)
    whole = (-(-shape[0] // 4) * 4, -(-shape[1] // 4) * 4)
    if whole[0] * whole[1] <= WINDOWS * (CORE + 96) ** 2:
        assert chosen[0].window == chosen[0].core == Box(0, 0, *whole)
        return
    assert len(chosen) == WINDOWS and len({sample.window.shape for sample in chosen}) == 1
    assert sum(sample.window.area for sample in chosen) <= sample_pixels(style, shape)
    for sample in chosen:
        assert Box(0, 0, *whole).contains(sample.window) and sample.window.contains(sample.core)
        assert not (sample.window.y0 % 4 or sample.window.x0 % 4 or sample.core.y0 % 4 or sample.core.x1 % 4)
        for inner, outer, edge in (
            (sample.core.y0, sample.window.y0, 0),
            (sample.window.y1, sample.core.y1, whole[0]),
            (sample.core.x0, sample.window.x0, 0),
            (sample.window.x1, sample.core.x1, whole[1]),
        ):
            assert inner - outer >= style.halo or edge in (inner, outer)


@pytest.mark.parametrize(("model", "count"), [("lite", WINDOWS), ("painter", 40), ("wct", FEWEST)])
def test_a_network_of_far_reach_has_fewer_windows(model, count, seeded_style):
    style = seeded_style(model)
    chosen = samples(style, (9000, 9000), None)
    assert len(chosen) == count
    assert sum(sample.window.area for sample in chosen) == sample_pixels(style, (9000, 9000))
    assert sample_pixels(style, (9000, 9000)) <= MOST or count == FEWEST


def test_windows_are_spread_and_follow_what_is_valid(seeded_style):
    style = seeded_style("lite")
    everywhere = samples(style, (6000, 6000), None)
    quarters = {(s.window.y0 // 1500, s.window.x0 // 1500) for s in everywhere}
    assert len(quarters) == 16
    valid = np.zeros((100, 100), bool)
    valid[:, :20] = True
    assert all(s.core.x0 < 1200 for s in samples(style, (6000, 6000), valid))
    assert samples(style, (6000, 6000), valid) == samples(style, (6000, 6000), valid.copy())


def test_the_batch_has_joint_statistics_at_each_site(seeded_style, as_tensor):
    """The same by hand: every site over the cores of all windows, then its map on all of them."""
    style = seeded_style("lite")
    random = np.random.default_rng(5)
    pixels = np.kron(random.integers(0, 255, (60, 75, 3)), np.ones((32, 32, 1))).astype(np.uint8)
    source = source_of(pixels)
    chosen, reader, want = samples(style, source.shape, None), WindowReader(source), {}
    assert len(chosen) == WINDOWS

    def features(sample, site_name):
        reached = []

        def at(site, x):
            if site.name == site_name:
                reached.append(x)
            known = neutral(site) if site.measured else NOTHING
            return style.affine(site, want.get(site.name, known))(x)

        style.forward(as_tensor(reader.padded(sample.window)[0]), at)
        return reached[0]

    for site in style.sites[:3]:
        cells = []
        for sample in chosen:
            core, s = sample.core.within(sample.window), site.stride
            x = features(sample, site.name)[0][:, core.y0 // s : core.y1 // s, core.x0 // s : core.x1 // s]
            cells.append(x.flatten(1).numpy())
        want[site.name] = Moments.of(np.concatenate(cells, 1), full=site.full)
    found = measure_sampled(style, source)
    close({name: found[name] for name in want}, want)


@pytest.mark.parametrize("varying", [False, True])
def test_windows_in_groups_have_the_statistics_of_all_at_once(varying, monkeypatch):
    weights = painter.seeded(width=0.1)
    state = weights[painter.FILE]  # of before: its windows are smaller
    state |= {k: state[k][:, : painter_styles.AGAIN] for k in painter_styles.PER_STYLE}
    plain = painter.build(weights, [(style_named("noon"), 1.0)])
    pixels = np.random.default_rng(3).integers(0, 255, (1600, 2200, 3), np.uint8)
    style = Composition((plain,), Lattice.of_scale(1600, 2200, 600)) if varying else plain
    together = []
    for count in (WINDOWS, at_once.TOGETHER):
        monkeypatch.setattr(at_once, "TOGETHER", count)
        found = measure_sampled(style, source_of(pixels))
        together.append({k: several.parts[1] for k, several in found.items()} if varying else found)
    assert WINDOWS > at_once.TOGETHER and len(samples(style, (1600, 2200), None)) == WINDOWS
    close(*together, tolerance=1e-6)


def test_a_field_measures_its_members_apart(seeded_style, picture):
    style = Composition((seeded_style("lite"),), Lattice.of_scale(300, 400, 150))
    source = source_of(picture(300, 400))
    got, want = measure_sampled(style, source), measure_here(style, source)
    for name in want:
        close(got[name].parts, want[name].parts)


def test_a_sample_is_near_the_exact_statistics(seeded_style):
    random = np.random.default_rng(1)
    pixels = np.kron(random.integers(40, 200, (24, 32, 3)), np.ones((96, 96, 1)))
    pixels = np.clip(pixels + random.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    style, source = seeded_style("lite"), source_of(pixels)
    got, want = measure_sampled(style, source), measure_here(style, source)
    for site in style.sites:
        deviation = want[site.name].std(1e-3, 1)
        assert np.abs(got[site.name].mean - want[site.name].mean).max() < 0.25 * deviation.max()
        assert (np.abs(got[site.name].std(1e-3, 1) / deviation - 1) < 0.25).all()
    assert isinstance(nets.freeze(style, got), nets.LocalNet)
