"""Maps that vary over the image: mixed as the formula says, and tiled equals whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.statistics import measure_here
from urst_tiles.field import Everywhere, Lattice, Regions
from urst_tiles.geometry import Box, Grid, reflect
from urst_tiles.moments import Moments
from urst_tiles.nets import Composition, load_frozen
from urst_tiles.nets.composition import measured_sites
from urst_tiles.source import array_source

SIZE = (171, 203)
SITED = [name for name in nets.MODELS if name != "identity"]
MIXABLE = [name for name in SITED if nets.MODELS[name].load_style is None]


def quick(names):
    """wct in slow tests alone: wct-16x is the same with fewer channels."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "wct" else name for name in names]


@pytest.fixture
def styles(picture):
    def make(model, count=2):
        named = nets.MODELS[model].style_named
        if named:
            return tuple(nets.seeded(model, [(named(str(k + 1)), 1.0)]) for k in range(count))
        images = [picture(72, 88, seed=k + 1).astype(np.float32) / 255 for k in range(count)]
        return tuple(nets.seeded(model, [(image, 1.0)]) for image in images)

    return make


@pytest.fixture
def regions(tmp_path):
    """Left 1, right 2, and a corner that has no style."""
    mask = np.ones((90, 100), np.uint8)
    mask[:, 45:] = 2
    mask[70:, 80:] = 9
    np.save(tmp_path / "mask.npy", mask)
    return Regions(*SIZE, tmp_path / "mask.npy", (1, 2), 12)


def frozen(composition, image):
    return nets.freeze(composition, measure_here(composition, array_source(image)))


def tiled_and_whole(net, image, core, where=lambda box: box):
    """Cores cut from windows, and the same network at once; ``where`` moves what a window is told of its
    place."""
    kernel = Kernel(net)
    grid = Grid(*image.shape[:2], net.halo, net.stride, core, 8 * core, core, net.minimum)
    rows, columns = reflect(0, grid.padded.y1, len(image)), reflect(0, grid.padded.x1, image.shape[1])
    everything = image[np.ix_(list(rows), list(columns))]
    whole = kernel.run_float(everything[None], [grid.padded])[0]
    out = np.full_like(whole, np.nan)
    for one in grid.cores(grid.image):
        box = grid.window_box(one)
        y = kernel.run_float(everything[box.slices][None], [where(box)])[0]
        out[one.slices] = y[one.within(box).slices]
    return (a[: grid.height, : grid.width] for a in (out, whole))


@pytest.mark.parametrize("model", quick(SITED))
def test_local_statistics_tiled_equals_whole(model, seeded_style, picture):
    style, image = seeded_style(model), picture(*SIZE)
    net = frozen(Composition((style,), Lattice.of_scale(*SIZE, 60)), image)
    scale = max(1.0, np.abs(Kernel(net).run_float(image[None, :160, :192], [Box(0, 0, 160, 192)])[0]).max())
    for core in (32, 48):
        tiled, whole = tiled_and_whole(net, image, core)
        assert np.abs(tiled - whole).max() <= 1e-4 * scale


@pytest.mark.parametrize("model", quick(MIXABLE))
def test_regions_tiled_equals_whole(model, styles, regions, picture):
    image = picture(*SIZE)
    net = frozen(Composition(styles(model), regions), image)
    tiled, whole = tiled_and_whole(net, image, 32)
    assert np.abs(tiled - whole).max() <= 2e-4 * max(1.0, np.abs(whole).max())
    np.testing.assert_array_equal(whole[-20:, -20:], image[-20:, -20:].astype(np.float32) / 255)


@pytest.mark.parametrize("kind", ["lattice", "regions"])
def test_a_window_that_is_told_another_place_fails(kind, styles, regions, picture):
    image, field = picture(*SIZE), regions if kind == "regions" else Lattice.of_scale(*SIZE, 60)
    net = frozen(Composition(styles("lite", 2 if kind == "regions" else 1), field), image)
    tiled, whole = tiled_and_whole(net, image, 32, where=lambda box: box.within(box))
    assert np.abs(tiled - whole).max() > 0.02


@pytest.mark.parametrize("model", ["lite", "adain", "wct-16x", "microast", "msgnet", "linear-r31"])
def test_maps_are_mixed_as_the_formula_says(model, styles, picture):
    """y = sum_k w_k (A_k x + b_k) in every cell, in float64."""
    height, width = 96, 112
    field = Lattice(height, width, 2, 2)
    both = Composition((styles(model)[0],), field)
    image = picture(height, width)
    found = measure_here(both, array_source(image))
    maps, x = both.maps(found), torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255

    def weight(k, stride):
        y, x = np.mgrid[: height // stride, : width // stride]
        down = np.clip((y + 0.5) * stride * 2 / height - 0.5, 0, 1)
        across = np.clip((x + 0.5) * stride * 2 / width - 0.5, 0, 1)
        return (down if k // 2 else 1 - down) * (across if k % 2 else 1 - across)

    def at(site, t):
        y = torch.zeros_like(t)
        for k, affine in enumerate(maps[site.name]):
            scale = np.diag(affine.scale) if affine.scale.ndim == 1 else affine.scale
            mapped = np.einsum("dc,chw->dhw", scale, t[0].numpy()) + affine.shift[:, None, None]
            y[0] += torch.from_numpy(weight(k, site.stride) * mapped)
        return y

    with torch.inference_mode():
        want = both.style.forward(x, at)[0]
        got = nets.freeze(both, found)(x.float(), [Box(0, 0, height, width)])[0]
    assert want.std() > 0.05
    assert (got - want).abs().max() < 1e-3 * max(1.0, want.abs().max())


@pytest.mark.parametrize("model", ["lite", "microast", "linear-r31"])
def test_statistics_of_members_are_weighted_by_their_shares(model, styles, regions, picture):
    """Measured in windows against the un-tiled features, the first site."""
    style, image = styles(model)[0], picture(168, 200)
    field = replace(regions, height=168, width=200)
    site = style.sites[0]
    seen = []

    def at(here, t):
        seen.append(t[0].flatten(1).double().numpy())
        raise StopIteration

    with torch.inference_mode(), pytest.raises(StopIteration):
        style.forward(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, at)
    _, shares = field.weights(Box(0, 0, 168, 200), site.stride)
    parts = [Moments.of(seen[0], share.ravel(), full=site.full) for share in shares]
    composition = Composition(styles(model), field)
    found = measure_here(composition, array_source(image))[site.name]
    for k in range(3):
        together = parts[k] + sum(parts[1:], parts[0]).scaled(0.3 * parts[k].n / sum(p.n for p in parts))
        np.testing.assert_allclose(found.parts[k].mean, together.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.parts[k].variance(), together.variance(), rtol=1e-4, atol=1e-8)


def test_one_place_is_the_exact_network(seeded_style, picture):
    image, style = picture(64, 96), seeded_style("lite")
    plain = nets.freeze(style, measure_here(style, array_source(image)))
    box = Box(0, 0, 64, 96)
    for field in (Lattice.of_scale(64, 96, 2048), Everywhere()):
        local = frozen(Composition((style,), field), image)
        one, two = (Kernel(net).run_float(image[None], [box])[0] for net in (plain, local))
        assert np.abs(one - two).max() < 1e-4


def test_local_statistics_are_local(seeded_style, picture):
    """Another right half leaves the left edge as it is; with the statistics of the whole it does not."""
    style, image = seeded_style("lite"), picture(128, 512)
    other = image.copy()
    other[:, 256:] = 255 - other[:, 256:] // 2
    box, changes = Box(0, 0, 128, 512), {}
    for scale in (64, 4096):
        field = Lattice.of_scale(128, 512, scale)
        one, two = (
            Kernel(frozen(Composition((style,), field), each)).run_float(each[None], [box])[0]
            for each in (image, other)
        )
        changes[scale] = np.abs(one - two)[:, :64].mean()
    assert changes[64] < 0.5 * changes[4096]


@pytest.mark.parametrize(
    "model", [pytest.param(one, marks=pytest.mark.slow) if one == "wct" else one for one in SITED]
)
def test_flat_parts_are_no_noise_and_no_nan(model, seeded_style, picture):
    image = picture(128, 256)
    image[:, :128] = 90
    style = seeded_style(model)
    for each in (image, np.full_like(image, 90)):
        found = measure_here(Composition((style,), Lattice.of_scale(128, 256, 32)), array_source(each))
        net = nets.freeze(Composition((style,), Lattice.of_scale(128, 256, 32)), found)
        assert np.isfinite(Kernel(net).run_float(each[None], [Box(0, 0, 128, 256)])[0]).all()


def test_places_without_a_valid_pixel_have_the_statistics_of_the_whole(seeded_style, picture):
    image = np.dstack([picture(128, 256), np.full((128, 256), 255, np.uint8)])
    image[:, 128:, 3] = 0
    composition = Composition((seeded_style("lite"),), Lattice.of_scale(128, 256, 32))
    found = measure_here(composition, array_source(image))
    for site in measured_sites(composition):
        first, last = found[site.name].parts[0], found[site.name].parts[31]
        assert np.isfinite(last.mean).all() and last.n > first.n


@pytest.mark.parametrize("kind", ["lattice", "regions"])
@pytest.mark.parametrize("model", ["lite", "wct-16x", "cin"])
def test_save_and_load(kind, model, styles, regions, picture, tmp_path):
    image, field = picture(*SIZE), regions if kind == "regions" else Lattice.of_scale(*SIZE, 60)
    net = frozen(Composition(styles(model, 2 if kind == "regions" else 1), field), image)
    net.save(tmp_path / "net.safetensors")
    again = load_frozen(tmp_path / "net.safetensors")
    box = Box(0, 0, 160, 192)
    pixels = image[None, :160, :192]
    one, two = (Kernel(n).run_float(pixels, [box])[0] for n in (net, again))
    np.testing.assert_array_equal(one, two)
    assert (again.halo, again.stride, again.minimum) == (net.halo, net.stride, net.minimum)


def test_16_bit_where_a_style_is_alone(styles, regions, picture):
    image = picture(*SIZE)
    net, box = frozen(Composition(styles("lite"), regions), image), Box(0, 0, 100, 48)
    full, half = (
        Kernel(net, precision=p).run_float(image[None, :100, :48], [box])[0] for p in ("float32", "bfloat16")
    )
    assert 0 < np.abs(full - half).mean() < 1 / 255
