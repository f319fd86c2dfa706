"""A cascade of scales: the formula, the halo, tiled equals whole, statistics of each pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe import probe

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.statistics import measure_here, on_thumbnail
from urst_tiles.errors import BadInput
from urst_tiles.field import Lattice
from urst_tiles.geometry import Box, Grid, reflect
from urst_tiles.nets import CascadeStyle, Composition, Frozen, load_frozen
from urst_tiles.nets.cascade import scales
from urst_tiles.source import array_source

SITED = [name for name in nets.MODELS if name not in ("identity", "wct", "multimodal")]


def frozen(style, image):
    return nets.freeze(style, measure_here(style, array_source(image)))


def tiled_and_whole(net, image, core, halo=None):
    """As law 1 has it: only the core is asked for."""
    kernel, halo = Kernel(net), net.halo if halo is None else halo
    grid = Grid(*image.shape[:2], halo, net.stride, core, 8 * core, core, net.minimum)
    rows, columns = reflect(0, grid.padded.y1, len(image)), reflect(0, grid.padded.x1, image.shape[1])
    everything = image[np.ix_(list(rows), list(columns))]
    whole = kernel.run_float(everything[None], [grid.padded])[0][: grid.height, : grid.width]
    out = np.full_like(whole, np.nan)
    for one in grid.cores(grid.image):
        box = grid.window_box(one)
        with torch.inference_mode():
            x = torch.from_numpy(everything[box.slices]).permute(2, 0, 1)[None].float() / 255
            y = kernel.net(x, [box], [one.within(box)])[0].permute(1, 2, 0).numpy()
        out[one.slices] = y[one.within(box).slices]
    return out, whole


def tolerance(model):
    """Random filter modulations amplify rounding from pass to pass, as no trained network does."""
    return 1e-3 if model == "microast" else 1e-4


def double(x):
    """(c, h, w) -> (c, 2h, 2w), bilinear: 3/4 of the nearer pixel and 1/4 of the farther one."""
    for axis in (1, 2):
        edge = np.concatenate([x.take([0], axis), x, x.take([-1], axis)], axis)
        n = x.shape[axis]
        before, here, after = (edge.take(range(k, k + n), axis) for k in range(3))
        pair = np.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * after], axis + 1)
        x = pair.reshape(*(2 * m if k == axis else m for k, m in enumerate(x.shape)))
    return x


def pooled(x, n):
    c, h, w = x.shape
    return x.reshape(c, h // n, n, w // n, n).mean((2, 4))


@pytest.mark.parametrize("model", ["lite", "microast"])
def test_the_formula(model, seeded_style, picture):
    """guide = picture + enlarged(painted - picture) of the scale before; half of the network's change."""
    inner = seeded_style(model)
    style, image = CascadeStyle(inner, 4), picture(96, 128)
    found = measure_here(style, array_source(image))
    x, painted, before = image.transpose(2, 0, 1) / 255.0, None, None
    for scale in (4, 2, 1):
        own = {site.name: found[f"x{scale}.{site.name}"] for site in inner.sites if site.measured}
        here = pooled(x, scale)
        guide = here if painted is None else here + double(painted - before)
        with torch.inference_mode():
            y = nets.freeze(inner, own)(torch.from_numpy(guide)[None].float())[0].double().numpy()
        painted, before = (y if painted is None else 0.5 * (guide + y)), here
    with torch.inference_mode():
        net, whole = nets.freeze(style, found), torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        got = net(whole)[0].numpy()
        plain = Frozen(style, net.affines)(whole)[0].numpy()
    assert painted.std() > 0.05
    assert np.abs(got - painted).max() < tolerance(model)
    assert np.abs(plain - painted).max() < tolerance(model)


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.slow) if name == "msgnet" else name for name in SITED]
)
def test_tiled_equals_whole(model, seeded_style, picture):
    style = CascadeStyle(seeded_style(model), 2)
    size = (301, 333) if style.halo < 300 else (65, 701)
    image = picture(*size)
    for core in (64, 96):
        tiled, whole = tiled_and_whole(frozen(style, image), image, core)
        assert np.abs(tiled - whole).max() <= tolerance(model) * max(1.0, np.abs(whole).max())


def test_tiled_equals_whole_at_four_scales(seeded_style, picture):
    style, image = CascadeStyle(seeded_style("lite"), 8), picture(129, 1701)
    net = frozen(style, image)
    tiled, whole = tiled_and_whole(net, image, 64)
    assert np.abs(tiled - whole).max() <= 1e-4
    tiled, whole = tiled_and_whole(net, image, 64, halo=net.halo // 2 // net.stride * net.stride)
    assert np.abs(tiled - whole).max() > 1e-4


@pytest.mark.parametrize(
    ("model", "factor"),
    [("lite", 2), ("lite", 4), ("microast", 4), pytest.param("adain", 2, marks=pytest.mark.slow)],
)
def test_the_halo_is_what_the_probe_finds(model, factor, seeded_style):
    """At most some cells of the coarsest scale larger: cells of every pass are counted whole."""
    style = CascadeStyle(seeded_style(model), factor)
    reach, stride = probe(style, side=3 * style.halo // 64 * 64, largest_stride=2 * style.stride)
    assert stride == style.stride == factor * style.inner.stride
    assert reach <= style.halo <= reach + 3 * stride


def test_windows_smaller_than_the_halo_and_a_single_pixel(seeded_style, picture):
    net = frozen(CascadeStyle(seeded_style("lite"), 4), picture(128, 144))
    for size in ((1, 1), (33, 7), (97, 130)):
        tiled, whole = tiled_and_whole(net, picture(*size), 32)
        assert tiled.shape == (*size, 3) and np.abs(tiled - whole).max() <= 1e-4


def test_a_thumbnail_stands_for_every_scale(seeded_style, picture):
    """Its statistics are those of painting it once, twice, three times."""
    style, image = CascadeStyle(seeded_style("lite"), 4), picture(128, 160)
    flat = on_thumbnail(style, 128, 160)
    assert flat.stride == style.inner.stride and flat.halo == 3 * style.inner.halo
    found = measure_here(flat, array_source(image))
    assert set(found) == {site.name for site in style.sites}
    once = measure_here(style.inner, array_source(image))
    for name, moments in once.items():
        np.testing.assert_allclose(found[f"x4.{name}"].mean, moments.mean, atol=1e-6)
    kernel = Kernel(nets.freeze(style, found))
    assert np.isfinite(kernel.run_float(image[None], [Box(0, 0, 128, 160)])[0]).all()


def test_local_statistics_of_a_cascade(seeded_style, picture):
    style, image = CascadeStyle(seeded_style("lite"), 2), picture(301, 333)
    composition = Composition((style,), Lattice.of_scale(301, 333, 100))
    net = nets.freeze(composition, measure_here(composition, array_source(image)))
    tiled, whole = tiled_and_whole(net, image, 64)
    assert np.abs(tiled - whole).max() <= 1e-4


def test_save_load_and_16_bit(seeded_style, picture, tmp_path):
    image = picture(128, 160)
    net = frozen(CascadeStyle(seeded_style("lite"), 4), image)
    net.save(tmp_path / "net.safetensors")
    box, again = Box(0, 0, 128, 160), load_frozen(tmp_path / "net.safetensors")
    one, two = (Kernel(n).run_float(image[None], [box])[0] for n in (net, again))
    np.testing.assert_array_equal(one, two)
    half = Kernel(net, precision="bfloat16").run_float(image[None], [box])[0]
    assert 0 < np.abs(one - half).mean() < 1 / 255


def test_factors():
    assert scales(4) == [4, 2, 1]
    for factor in (0, 1, 3, 6):
        with pytest.raises(BadInput, match="power of two"):
            scales(factor)
