"""Law 1: the tiled result equals the frozen network on the whole image, for any size; broken rules show."""

from __future__ import annotations

import numpy as np
import pytest
from law1 import FAMILIES, SHORT, TOLERANCE, grid_of, padded, tiled_float, whole_float

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box

SIZES = [(1, 1), (1, 7), (5, 3), (17, 1), (8, 8), (31, 33), (63, 65), (97, 41)]
SIZES += [(129, 127), (201, 155), (255, 257), (301, 99)]
CORES = (32, 48, 128)
#: The halo of these is so large that each window is the whole of an image of any of these sizes: the largest
#: sizes, which take seconds, are slow tests.
WIDE = ("wct", "wct-16x")


@pytest.mark.parametrize(
    ("model", "size"),
    [
        pytest.param(
            model,
            size,
            id=f"{size[0]}x{size[1]}-{model}",
            marks=[pytest.mark.slow] if model in WIDE and size in SIZES[-3:] else [],
        )
        for size in SIZES
        for model in FAMILIES
    ],
)
def test_tiled_equals_whole(model, size, frozen, picture):
    net = frozen(model)
    kernel, image = Kernel(net), picture(*size)
    for core in CORES:
        grid = grid_of(net, size, core)
        whole, tiled = whole_float(kernel, image, grid), tiled_float(kernel, image, grid)
        assert tiled.shape == (*size, 3)
        assert np.abs(tiled - whole).max() <= TOLERANCE


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiled_levels_equal_whole_levels(model, dtype, frozen, picture):
    net, size = frozen(model), (171, 203)
    image = picture(*size).astype(dtype) * (257 if dtype == np.uint16 else 1)
    kernel, grid = Kernel(net, out_dtype=dtype), grid_of(net, size, 32)
    everything = padded(image, grid)
    whole = kernel.run(everything[None], [grid.padded], [grid.image])[0].astype(int)
    span = np.ptp(kernel.run_float(everything[None], [grid.padded])[0])
    allowed = 1 if dtype == np.uint8 else round(TOLERANCE * max(1.0, span) * 65535)
    for core in grid.cores(grid.image):
        box = grid.window_box(core)
        y = kernel.run(everything[box.slices][None], [box], [core])[0]
        assert y.dtype == dtype and y.shape == (*core.shape, 3)
        assert np.abs(y.astype(int) - whole[core.slices]).max() <= allowed


@pytest.mark.parametrize("model", SHORT)
def test_signal_is_alive(model, frozen, picture):
    """Otherwise any halo would pass: the picture varies over space in every channel."""
    net, size = frozen(model), (255, 257)
    whole = whole_float(Kernel(net), picture(*size), grid_of(net, size, 64))
    assert whole.std(axis=(0, 1)).min() >= 0.1


@pytest.mark.parametrize("model", SHORT)
def test_a_halo_one_stride_smaller_fails(model, frozen, picture):
    """Nine strides for the painter: what lies at the end of two passes is felt, but less than the tolerance;
    its reach is probed (test_probe.py)."""
    net, size = frozen(model), (255, 257)
    kernel, image = Kernel(net), picture(*size)
    # AdaIN reaches 62 px of its halo of 64, MicroAST 51 of 52: one stride less is too little for both
    grid = grid_of(net, size, 32, halo=net.halo - net.stride * (9 if model == "painter" else 1))
    assert np.abs(tiled_float(kernel, image, grid) - whole_float(kernel, image, grid)).max() > TOLERANCE


@pytest.mark.parametrize("model", SHORT)
def test_an_origin_off_by_one_fails(model, frozen, picture):
    net, size = frozen(model), (136, 401)
    kernel, image = Kernel(net), picture(*size)
    grid = grid_of(net, size, 32)
    assert np.abs(tiled_float(kernel, image, grid) - whole_float(kernel, image, grid)).max() <= TOLERANCE
    assert np.abs(tiled_float(kernel, image, grid, shift=1) - whole_float(kernel, image, grid)).max() > 0.05


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bit_within_two_levels_of_its_own_whole(precision, frozen, picture):
    check_16_bit(frozen("adain"), precision, picture(131, 199))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bit_microast_within_two_levels_of_its_own_whole(
    precision, weights_dir, picture, as_tensor, measured
):
    """With the published weights: random filter modulations amplify rounding as no trained network does."""
    image, art = picture(131, 199), picture(64, 64, seed=1).astype(np.float32) / 255
    style = nets.build("microast", weights_dir, [(art, 1.0)])
    check_16_bit(nets.freeze(style, measured(style, as_tensor(image[:128, :196]))), precision, image)


def check_16_bit(net, precision, image):
    kernel, grid = Kernel(net, precision=precision), grid_of(net, image.shape[:2], 48)
    whole, tiled = whole_float(kernel, image, grid), tiled_float(kernel, image, grid)
    levels = [np.rint(np.clip(y, 0, 1) * 255) for y in (whole, tiled)]
    assert np.abs(levels[0] - levels[1]).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("model", SHORT)
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_tiled_equals_whole_at_full_width(model, size, frozen, picture):
    net = frozen(model, 1.0)
    kernel, image = Kernel(net), picture(*size)
    for core in (64, 128):
        grid = grid_of(net, size, core)
        assert np.abs(tiled_float(kernel, image, grid) - whole_float(kernel, image, grid)).max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("model", SHORT)
def test_twins_fail_at_full_width(model, frozen, picture):
    """Two strides for MicroAST: among 64 channels the outermost one weighs 2e-5, at 1/8 width 3e-4; nine for
    the painter, as above."""
    net, size = frozen(model, 1.0), (136, 257)
    kernel, image = Kernel(net), picture(*size)
    less = net.stride * {"microast": 2, "painter": 9}.get(model, 1)
    exact, small = grid_of(net, size, 32), grid_of(net, size, 32, halo=net.halo - less)
    whole = whole_float(kernel, image, exact)
    assert np.abs(tiled_float(kernel, image, small) - whole).max() > TOLERANCE
    assert np.abs(tiled_float(kernel, image, exact, shift=1) - whole).max() > 0.05


def test_padding_outside_is_not_the_networks_own(frozen, picture):
    """Windows clamped inside the image, never the input padded by a halo outside."""
    net, size = frozen("microast"), (64, 64)
    kernel, image = Kernel(net), picture(*size)
    whole = kernel.run_float(image[None], [Box(0, 0, 64, 64)])[0]
    outside = np.pad(image, ((net.halo, net.halo), (net.halo, net.halo), (0, 0)), mode="reflect")
    wrong = kernel.run_float(outside[None], [Box(0, 0, *outside.shape[:2])])[0]
    assert np.abs(wrong[net.halo : -net.halo, net.halo : -net.halo] - whole).max() > 0.01
