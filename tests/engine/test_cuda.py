"""On a card: law 1, one float32 picture on every device, the same bytes twice, statistics, memory, no room.

Where there is none, all of it is skipped; `benchmarks/README.md` says what was measured where there was one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from law1 import FAMILIES, SHORT, TOLERANCE, grid_of, padded, tiled_float, whole_float

from urst_tiles import nets
from urst_tiles.engine.device import release
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.statistics import measure_here, measure_thumbnail
from urst_tiles.geometry import Box
from urst_tiles.nets import named_styles
from urst_tiles.nets.base import neutral_moments
from urst_tiles.planning import default_core
from urst_tiles.source import array_source

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA card")

CUDA = "cuda"
SIXTEEN = ("bfloat16", "float16")


@pytest.fixture(autouse=True)
def empty_card() -> Iterator[None]:
    """What one test leaves on the card is not the next one's peak."""
    yield
    release()


def levels(kernel: Kernel, image: np.ndarray) -> np.ndarray:
    box = Box(0, 0, *image.shape[:2])
    return kernel.run(image[None], [box], [box])[0].astype(int)


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (97, 41), (201, 155), (301, 99)], ids="{0[0]}x{0[1]}".format)
def test_tiled_equals_whole(model, size, frozen, picture):
    kernel, image = Kernel(frozen(model), device=CUDA), picture(*size)
    for core in (32, 128):
        grid = grid_of(kernel.net, size, core)
        whole, tiled = whole_float(kernel, image, grid), tiled_float(kernel, image, grid)
        assert np.abs(tiled - whole).max() <= TOLERANCE * max(1.0, np.ptp(whole))


@pytest.mark.parametrize("model", SHORT)
def test_a_halo_one_stride_smaller_and_an_origin_off_by_one_fail(model, frozen, picture):
    net, size = frozen(model), (255, 257)
    kernel, image = Kernel(net, device=CUDA), picture(*size)
    exact, small = grid_of(net, size, 32), grid_of(net, size, 32, halo=net.halo - net.stride)
    whole = whole_float(kernel, image, exact)
    assert np.abs(tiled_float(kernel, image, small) - whole).max() > TOLERANCE
    assert np.abs(tiled_float(kernel, image, exact, shift=1) - whole).max() > 0.05


@pytest.mark.parametrize("model", FAMILIES)
def test_float32_is_the_processors_picture(model, frozen, picture):
    """TF32, with a mantissa of 10 bits, is not."""
    net, image = frozen(model), picture(256, 256)
    box = Box(0, 0, 256, 256)
    here = Kernel(net).run_float(image[None], [box])[0]
    there = Kernel(net, device=CUDA).run_float(image[None], [box])[0]
    assert np.abs(here - there).max() <= 5e-4 * max(1.0, np.ptp(here))


@pytest.mark.parametrize("model", FAMILIES)
def test_the_same_window_gives_the_same_bytes(model, frozen, picture):
    net, image = frozen(model), picture(256, 256)
    precision = nets.best_precision(model, CUDA)
    once, again = (levels(Kernel(net, device=CUDA, precision=precision), image) for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("style", ["hokusai-wave", "kandinsky-vii", "mondrian-composition"])
@pytest.mark.parametrize("precision", SIXTEEN)
def test_16_bit_keeps_the_picture(style, precision, picture, measured, as_tensor):
    image = picture(384, 512)
    chosen = nets.build("lite", None, [(named_styles.features(style), 1.0)])
    net = nets.freeze(chosen, measured(chosen, as_tensor(image)))
    true = levels(Kernel(net), image)
    difference = true - levels(Kernel(net, device=CUDA, precision=precision), image)
    psnr = 10 * np.log10(255**2 / (difference**2).mean())
    assert difference.any() and psnr >= 40 and np.abs(difference).mean() <= 1


@pytest.mark.parametrize("precision", SIXTEEN)
def test_16_bit_within_two_levels_of_its_own_whole(precision, picture, measured, as_tensor):
    image = picture(331, 499)
    chosen = nets.build("lite", None, [(named_styles.features("hokusai-wave"), 1.0)])
    net = nets.freeze(chosen, measured(chosen, as_tensor(image[:328, :496])))
    kernel, grid = Kernel(net, device=CUDA, precision=precision), grid_of(net, image.shape[:2], 64)
    whole = levels(kernel, padded(image, grid))
    for core in grid.cores(grid.image):
        box = grid.window_box(core)
        part = kernel.run(padded(image, grid)[box.slices][None], [box], [core])[0]
        assert np.abs(part.astype(int) - whole[core.slices]).max() <= 2


@pytest.mark.parametrize("model", [model for model in FAMILIES if model != "identity"])
def test_statistics_are_the_processors(model, seeded_style, picture):
    style, source = seeded_style(model), array_source(picture(400, 330))
    for look in (measure_here, measure_thumbnail):
        here, there = look(style, source), look(style, source, device=CUDA)
        assert here.keys() == there.keys()
        for name, moments in here.items():
            spread = np.sqrt(moments.variance().max())
            assert there[name].n == moments.n
            assert np.abs(there[name].mean - moments.mean).max() <= 1e-3 * max(spread, 1e-3)
            np.testing.assert_allclose(there[name].m2, moments.m2, rtol=1e-3, atol=1e-3 * moments.m2.max())


WIDE = ("lite", "microast", "adain", "fast", "cin", "msgnet", "multimodal", "linear-r41", "wct-16x")


@pytest.mark.parametrize("model", WIDE)
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_bytes_per_pixel_is_an_upper_bound_and_not_a_wild_one(model, precision, seeded_style):
    """Law 2, of the device: what the allocator handed out at most, over one window of the default size."""
    style = seeded_style(model, 1.0)
    chosen = nets.best_precision(model, CUDA) if precision == "auto" else precision
    kernel = Kernel(nets.freeze(style, neutral_moments(style)), device=CUDA, precision=chosen)
    told = kernel.net.bytes_per_pixel(chosen)
    side = default_core(style.halo, 4096, told, CUDA) + 2 * style.halo
    window, box = np.full((1, side, side, 3), 7, np.uint8), Box(0, 0, side, side)
    kernel.run(window, [box], [box])
    release()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kernel.run(window, [box], [box])
    taken = (torch.cuda.max_memory_allocated() - before) / side**2
    print(f"{model} {chosen} {side}: {taken:.1f} bytes per pixel, told {told:.1f}")
    assert kernel.splits == 0
    assert 0.5 * told <= taken <= told


@pytest.mark.parametrize("model", ["lite", "adain"])
def test_a_card_without_room_is_answered_by_smaller_windows(model, seeded_style, picture):
    style = seeded_style(model, 1.0)
    net = nets.freeze(style, neutral_moments(style))
    image = np.tile(picture(256, 256), (8, 8, 1))
    whole = levels(Kernel(net, device=CUDA), image)
    release()
    kernel = Kernel(net, device=CUDA)
    third = net.bytes_per_pixel("float32") * image[..., 0].size / 3
    allowed = (torch.cuda.memory_reserved() + third) / torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed))
    try:
        split = levels(kernel, image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert kernel.splits >= 1
    assert np.abs(split - whole).max() <= 1
