"""The kernel: types, rounding, the short cut of pass-through nets, and what happens when a device is full."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.errors import BadPlan, DoesNotFit
from urst_tiles.geometry import Box
from urst_tiles.nets import LocalNet


def cores_in(boxes):
    """An off-centre part of each box."""
    return [Box(b.y0 + 3, b.x0 + 8, b.y1 - 9, b.x1 - 1) for b in boxes]


@pytest.mark.parametrize("read", [np.uint8, np.uint16])
@pytest.mark.parametrize("written", [np.uint8, np.uint16])
def test_rounding_is_numpys(read, written, frozen, picture):
    windows = picture(64, 80)[None].astype(read) * (257 if read == np.uint16 else 1)
    box = Box(16, 32, 80, 112)
    kernel = Kernel(frozen("adain"), out_dtype=written)
    levels = np.iinfo(written).max
    expected = np.rint(np.clip(kernel.run_float(windows, [box])[0] * np.float32(levels), 0, levels)).astype(
        written
    )
    core = cores_in([box])[0]
    got = kernel.run(windows, [box], [core])[0]
    assert got.dtype == written
    assert np.array_equal(got, expected[core.within(box).slices])


def test_float_result_is_not_clipped(frozen, picture):
    y = Kernel(frozen("adain")).run_float(picture(64, 64)[None], [Box(0, 0, 64, 64)])[0]
    assert y.dtype == np.float32 and y.shape == (64, 64, 3)
    assert y.min() < 0 or y.max() > 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pass_through_equals_the_long_way(dtype, frozen):
    net = frozen("identity")
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (2, 40, 56, 3), dtype, endpoint=True)
    boxes = [Box(0, 0, 40, 56), Box(40, 0, 80, 56)]
    kernel = Kernel(net, out_dtype=dtype)
    short = kernel.run(values, boxes, cores_in(boxes))
    kernel.net.passthrough = False
    long = kernel.run(values, boxes, cores_in(boxes))
    kernel.net.passthrough = True
    assert all(np.array_equal(a, b) and a.dtype == b.dtype == dtype for a, b in zip(short, long, strict=True))


def test_every_level_survives_the_identity(frozen):
    values = np.arange(65536, dtype=np.uint16).repeat(3).reshape(1, 256, 256, 3)
    kernel = Kernel(frozen("identity"), out_dtype=np.uint16)
    kernel.net.passthrough = False
    box = Box(0, 0, 256, 256)
    try:
        assert np.array_equal(kernel.run(values, [box], [box])[0], values[0])
    finally:
        kernel.net.passthrough = True


def test_windows_may_be_read_only(frozen, picture):
    windows, box = picture(64, 64)[None], Box(0, 0, 64, 64)
    windows.flags.writeable = False
    kernel = Kernel(frozen("adain"))
    assert np.array_equal(kernel.run(windows, [box], [box])[0], kernel.run(windows.copy(), [box], [box])[0])


def test_same_window_same_bits(frozen, picture):
    box = Box(0, 0, 96, 128)
    kernel = Kernel(frozen("microast"), precision="bfloat16")
    first = kernel.run_float(picture(96, 128)[None], [box])[0]
    for _ in range(3):
        assert np.array_equal(kernel.run_float(picture(96, 128)[None], [box])[0], first)


class Small(LocalNet):
    """Another net on a device with room for so many window pixels only."""

    def __init__(self, net, room, error=None):
        super().__init__()
        self.net, self.room = net, room
        self.family, self.halo, self.stride, self.minimum = net.family, net.halo, net.stride, net.minimum
        self.splittable = net.splittable
        self.error = error or torch.OutOfMemoryError("CUDA out of memory (injected)")
        self.seen = []

    def forward(self, x, boxes=None):
        n, _, h, w = x.shape
        self.seen.append((n, h, w))
        if n * h * w > self.room:
            raise self.error
        assert h % self.stride == w % self.stride == 0 and min(h, w) >= self.minimum
        assert all(b.shape == (h, w) and b.y0 % self.stride == b.x0 % self.stride == 0 for b in boxes)
        return self.net(x, boxes)

    def to_precision(self, precision):
        return self


def run_both(net, room, windows, boxes, cores, error=None):
    small = Kernel(Small(net, room, error))
    return Kernel(net).run(windows, boxes, cores), small.run(windows, boxes, cores), small


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."
        ),
    ],
)
def test_out_of_memory_halves_the_batch(error, frozen, picture):
    windows = np.stack([picture(64, 64, seed=s) for s in range(5)])
    boxes = [Box(0, 64 * i, 64, 64 * i + 64) for i in range(5)]
    whole, split, kernel = run_both(frozen("microast"), 2 * 64 * 64, windows, boxes, cores_in(boxes), error)
    assert kernel.splits == 2  # 5 -> 2 + 3, 3 -> 1 + 2
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(whole, split, strict=True)) <= 1


@pytest.mark.parametrize("model", ["microast", "adain"])
def test_out_of_memory_cuts_the_window(model, frozen, picture):
    net = frozen(model)
    box = Box(80, 160, 80 + 384, 160 + 512)
    core = Box(box.y0 + 64, box.x0 + 64, box.y1 - 64, box.x1 - 61)
    windows = picture(384, 512)[None]
    whole, split, kernel = run_both(net, 384 * 512 * 2 // 3, windows, [box], [core])
    assert kernel.splits >= 1
    assert split[0].shape == whole[0].shape
    assert np.abs(whole[0].astype(int) - split[0]).max() <= 1


class Place(LocalNet):
    """A network whose output is where a pixel lies in the image, as of one that paints noise or levels."""

    family, halo, stride, minimum = "place", 8, 4, 8

    def forward(self, x, boxes=None):
        out = torch.empty_like(x)
        for picture, box in zip(out, boxes, strict=True):
            picture[0] = torch.arange(box.y0, box.y1)[:, None] / 1024
            picture[1] = torch.arange(box.x0, box.x1)[None] / 1024
            picture[2] = 0
        return out

    def to_precision(self, precision):
        return self


def test_parts_of_a_window_are_told_where_they_lie(picture):
    box, core = Box(80, 160, 208, 416), Box(88, 168, 200, 401)
    windows = picture(128, 256)[None]
    whole, split, kernel = run_both(Place(), 128 * 256 // 3, windows, [box], [core])
    assert kernel.splits >= 2 and np.ptp(whole[0][..., 0]) > 20 and np.ptp(whole[0][..., 1]) > 50
    assert np.array_equal(whole[0], split[0])


def test_out_of_memory_cuts_whole_float_windows(frozen, picture):
    net, box = frozen("microast"), Box(0, 0, 320, 96)
    small = Kernel(Small(net, 320 * 96 - 1))
    whole = Kernel(net).run_float(picture(320, 96)[None], [box])[0]
    split = small.run_float(picture(320, 96)[None], [box])[0]
    assert small.splits == 1
    assert np.abs(whole - split).max() <= 1e-4


def test_no_room_at_all_is_one_sentence(frozen, picture):
    box = Box(0, 0, 64, 64)
    with pytest.raises(DoesNotFit, match="--tile smaller"):
        Kernel(Small(frozen("microast"), 0)).run(picture(64, 64)[None], [box], [box])


def test_own_statistics_are_never_cut(seeded_style, picture):
    box = Box(0, 0, 320, 96)
    small = Kernel(Small(nets.freeze(seeded_style("microast"), None), 320 * 96 - 1))
    with pytest.raises(DoesNotFit):
        small.run(picture(320, 96)[None], [box], [box])


def test_other_errors_pass(frozen, picture):
    box = Box(0, 0, 64, 64)
    with pytest.raises(RuntimeError, match="shape"):
        Kernel(Small(frozen("microast"), 0, RuntimeError("wrong shape"))).run(
            picture(64, 64)[None], [box], [box]
        )


def test_bad_options_get_a_sentence(frozen):
    net = frozen("identity")
    with pytest.raises(BadPlan, match="--device"):
        Kernel(net, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(BadPlan, match="0 CUDA devices"):
            Kernel(net, device="cuda")
    with pytest.raises(BadPlan, match="--precision"):
        Kernel(net, precision="float8")
    with pytest.raises(BadPlan, match="uint8 or uint16"):
        Kernel(net, out_dtype=np.float32)
