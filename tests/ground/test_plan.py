"""The plan is a formula: sizes in bytes, refusals with numbers and the knob."""

from __future__ import annotations

from dataclasses import replace

import pytest

from urst_tiles.errors import BadPlan, DoesNotFit
from urst_tiles.geometry import Grid
from urst_tiles.plan import Footprint, Plan


@pytest.fixture
def plan() -> Plan:
    return make(Grid(20_000, 30_000, halo=52, stride=4))


def make(grid: Grid) -> Plan:
    return Plan(
        grid=grid,
        footprint=Footprint(halo=52, stride=4, minimum=16, bytes_per_pixel=300.0),
        seam="crop",
        source_channels=3,
        source_dtype="uint8",
        dtype="uint8",
        compression="deflate",
        quality=90,
        precision="float32",
        device="cpu",
        threads=2,
        batch=1,
        in_flight=2,
        encoders=2,
        workers=1,
        base_bytes=320 << 20,
        prepare_bytes=50 << 20,
        held_bytes=5 << 20,
        fill_pixels=0,
        finish_bytes=30 << 20,
        reader_bytes=10 << 20,
        writer_bytes=60 << 20,
        spool_bytes=0,
        levels=0,
        level=0,
        statistics="thumbnail",
        measure_bytes=200 << 20,
        measure_read_bytes=0,
        measure_at_once=False,
        passes=1,
        identity={"source": "abc", "tile": "1024"},
    )


def test_peak_does_not_grow_with_the_image_nor_with_its_width(plan: Plan) -> None:
    for height, width in ((10**6, 10**6), (8192, 10**6)):
        assert make(replace(plan.grid, height=height, width=width)).peak_bytes == plan.peak_bytes


def test_a_smaller_image_needs_no_more(plan: Plan) -> None:
    sizes = [(1, 1), (100, 300), (5000, 2000), (20_000, 30_000)]
    peaks = [make(replace(plan.grid, height=h, width=w)).peak_bytes for h, w in sizes]
    assert peaks == sorted(peaks)


def test_smaller_tiles_and_blocks_need_less(plan: Plan) -> None:
    smaller_tile = make(replace(plan.grid, core=512))
    smaller_block = make(replace(plan.grid, block=2048))
    assert smaller_tile.peak_bytes < plan.peak_bytes
    assert smaller_block.peak_bytes < plan.peak_bytes
    assert replace(plan, workers=3).peak_bytes > 2 * plan.peak_bytes


def test_too_little_memory_names_numbers_and_knobs(plan: Plan) -> None:
    with pytest.raises(DoesNotFit, match=r"MiB.*--tile \(now 1024\).*--block \(now 4096\)") as caught:
        plan.validate(memory=300 << 20)
    assert isinstance(caught.value, MemoryError)
    plan.validate(memory=plan.peak_bytes)


def test_too_little_disk_names_numbers_and_knobs(plan: Plan) -> None:
    with pytest.raises(DoesNotFit, match="--job-dir"):
        plan.validate(disk=plan.disk_bytes - 1)
    plan.validate(disk=plan.disk_bytes)


@pytest.mark.parametrize("compression", ["jpeg", "webp"])
def test_sixteen_bits_do_not_go_into_eight(plan: Plan, compression: str) -> None:
    with pytest.raises(BadPlan, match="--dtype uint8"):
        replace(plan, dtype="uint16", compression=compression).validate()


def test_fingerprint_is_of_the_identity_alone(plan: Plan) -> None:
    assert plan.fingerprint == replace(plan, workers=4, in_flight=1).fingerprint
    assert plan.fingerprint == plan.identified({"tile": "1024", "source": "abc"}).fingerprint
    assert plan.fingerprint != plan.identified({"tile": "512", "source": "abc"}).fingerprint


def test_blending_counts_the_windows_that_blocks_share(plan: Plan) -> None:
    assert plan.forwards == plan.grid.window_count
    assert replace(plan, seam="blend").forwards > plan.forwards


def test_the_accelerator_takes_the_activations_off_the_host(plan: Plan) -> None:
    there = replace(plan, device="cuda")
    wide = replace(there, footprint=replace(plan.footprint, bytes_per_pixel=3000.0))
    measuring = replace(there, measure_bytes=1 << 40)
    assert plan.device_bytes == 0 < there.device_bytes < wide.device_bytes < measuring.device_bytes
    assert there.peak_bytes == wide.peak_bytes == measuring.peak_bytes
