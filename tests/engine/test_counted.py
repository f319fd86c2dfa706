"""Counted colours give the statistics of a point operation that passes over all windows give."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urst_tiles import nets
from urst_tiles.engine import counted, statistics
from urst_tiles.engine.counted import is_counted, measuring_passes
from urst_tiles.engine.statistics import measure_exact, measure_here, measure_several, saved_paths
from urst_tiles.field import Lattice
from urst_tiles.histogram import Histogram
from urst_tiles.nets import Composition
from urst_tiles.source import Source, array_source
from urst_tiles.workers.run import Cluster

METHODS = [
    ("colour", "mean-std"), ("colour", "monge-kantorovich"), ("colour", "reinhard"),
    ("colour", "reinhard-lab"), ("colour", "histogram"), ("stain", "macenko"), ("stain", "reinhard"),
    ("stain", "vahadane"),
]  # fmt: skip


def tissue(h: int, w: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8: two stains in amounts that vary from pixel to pixel, and glass at the left."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(2.0, 0.5, (h, w, 2))
    density = amounts @ np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    image = np.clip(245 * np.exp(-density) + random.normal(0, 2, (h, w, 3)), 0, 255)
    image[:, : w // 4] = 243
    validity = np.full((h, w, channels - 3), 255)
    return np.concatenate([image, validity], -1).astype(np.uint8)


def measured_by_windows(*given: Any, **named: Any) -> dict[str, Any]:
    """`measure_several`, one pass for each site: the slow reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "is_counted", lambda *_: False)
        return measure_several(*given, **named)


def check_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted) and found
    for name, one in found.items():
        other = wanted[name]
        if isinstance(one, Histogram):
            # Floats of windows of another size may be rounded otherwise, so a pixel falls into another bin.
            assert np.abs(np.cumsum(one.counts - other.counts, 1)).max() <= 10
            continue
        assert one.n == other.n
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(one.m2, other.m2, rtol=1e-5, atol=1e-6 * one.n)


@pytest.fixture
def small_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are counted whatever their size, in blocks of 512 px, of which a task counts one."""
    monkeypatch.setattr(counted, "FEWEST", 1)
    monkeypatch.setattr(counted, "BLOCK", 512)
    monkeypatch.setattr(counted, "LEAST", 512**2)


@pytest.mark.parametrize(("model", "method"), METHODS)
@pytest.mark.usefixtures("small_is_enough")
def test_counted_colours_give_what_windows_give(model: str, method: str) -> None:
    image = tissue(600, 530, 4)
    image[50:90, :, 3] = 0
    style, source = nets.reference_style(model, method, 8, None, 3), array_source(image)
    assert is_counted(source, style) and measuring_passes(style, source) == 1
    check_close(measure_here(style, source), measured_by_windows(style, [source]))


@pytest.mark.usefixtures("small_is_enough")
def test_images_count_as_much_as_is_said() -> None:
    style = nets.reference_style("colour", "monge-kantorovich", 8, None, 3)
    sources, weights = [array_source(tissue(520, 90, seed=seed)) for seed in (1, 2)], [0.25, 3.0]
    found = measure_several(style, sources, weights=weights)
    check_close(found, measured_by_windows(style, sources, weights=weights))


@pytest.mark.usefixtures("small_is_enough")
def test_an_image_without_a_valid_pixel_is_measured_too() -> None:
    image = np.zeros((80, 80, 4), np.uint8)
    for model, method in METHODS:
        style = nets.reference_style(model, method, 8, None, 3)
        found = measure_here(style, array_source(image))
        net = nets.freeze(style, found)
        for affine in net.affines.values():
            assert np.isfinite(getattr(affine, "scale", 1.0)).all()


class OfStyle:
    """A recipe whose style is there already."""

    def __init__(self, style: nets.Style) -> None:
        self.style = style

    def build(self) -> nets.Style:
        return self.style


@pytest.mark.usefixtures("small_is_enough")
def test_tasks_count_what_the_plain_loop_counts_and_go_on_after_a_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    style, source = nets.reference_style("stain", "macenko", 8, None, 3), array_source(tissue(600, 530))
    ran: list[int] = []

    def noted(task: Any, indexes: Any) -> Any:
        for index in indexes:
            ran.append(index)
            yield index, task(index), None

    def measure() -> dict[str, Any]:
        ran.clear()
        return measure_exact(OfStyle(style), source, tmp_path, Cluster(noted))  # type: ignore[arg-type]

    expected = measure_here(style, source)
    check_close(measure(), expected)
    assert ran == [0, 1, 2, 3]
    paths = list(saved_paths(style, source, tmp_path))
    assert set(paths) == set(tmp_path.iterdir())
    paths[1].unlink()
    paths[3].write_bytes(paths[3].read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        check_close(measure(), expected)
    assert ran == [1, 3] and f"{paths[3]} is damaged" in caplog.text


def test_other_images_and_networks_are_measured_window_by_window(
    small_is_enough: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    style, image = nets.reference_style("colour", "mean-std", 8, None, 3), tissue(64, 64)
    assert is_counted(array_source(image), style)
    assert not is_counted(array_source(image.astype(np.uint16)), style)
    assert not is_counted(array_source(image), nets.reference_style("colour", "mean-std", 8, None, 4))
    assert not is_counted(array_source(image), Composition((style,), Lattice.of_scale(64, 64, 32)))
    monkeypatch.setattr(counted, "FEWEST", 64 * 64 + 1)
    assert not is_counted(array_source(image), style)


def test_the_plain_loop_and_tasks_share_an_image_out_alike() -> None:
    for shape in ((1, 1), (2048, 2048), (30000, 40000), (400000, 500000)):
        parts = counted.stretches(shape)
        assert [index for part in parts for index in part] == list(range(len(counted.counting_grid(shape))))
        assert len(parts) <= 2 * counted.TASKS
        assert max(map(len, parts)) * counted.BLOCK**2 <= counted.MOST


def test_a_source_without_pixels_of_its_own_is_read_once(
    small_is_enough: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four sites of a slide take one pass over it, and not four."""
    style, source = nets.reference_style("stain", "macenko", 8, None, 3), array_source(tissue(600, 530))
    read, plain_read = [], Source.read
    monkeypatch.setattr(Source, "read", lambda self, box: read.append(box.area) or plain_read(self, box))
    measure_here(style, source)
    assert sum(read) == 600 * 530
