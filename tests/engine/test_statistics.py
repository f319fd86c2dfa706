"""Statistics: exact ones are the un-tiled network's own; invalid pixels count for nothing."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.engine import statistics
from urst_tiles.engine.seen import seen_by
from urst_tiles.engine.site_moments import cell_weights
from urst_tiles.engine.statistics import load, measure_exact, measure_here, measure_thumbnail, save
from urst_tiles.engine.threads import ComputeThreads
from urst_tiles.field import Lattice
from urst_tiles.geometry import Box
from urst_tiles.moments import MemberMoments, Moments
from urst_tiles.nets.composition import measured_sites
from urst_tiles.source import array_source
from urst_tiles.source.levels import windows_of
from urst_tiles.source.windows import WindowReader
from urst_tiles.workers.run import Cluster, cluster, plain


def picture(h: int, w: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8, smooth and busy at once."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    smooth = 127 + 80 * np.sin(
        x[..., None] / np.array([9.0, 31, 77]) + y[..., None] / np.array([23.0, 11, 50])
    )
    image = np.clip(smooth + random.normal(0, 25, (h, w, 3)), 0, 255).astype(np.uint8)
    return image if channels == 3 else np.dstack([image, np.full((h, w), 255, np.uint8)])


def untiled(style: nets.Style, image: np.ndarray) -> dict[str, Moments]:
    """What the network itself sees at each site, running whole with live statistics."""
    source = array_source(image)
    reader = WindowReader(source)
    from urst_tiles.geometry import Grid

    grid = Grid(*source.shape, style.halo, style.stride, 512, 512, 512, style.minimum)
    x = (
        torch.from_numpy(np.ascontiguousarray(reader.padded(grid.padded)[0])).permute(2, 0, 1)[None].float()
        / 255
    )
    seen = {}

    def at(site: nets.Site, t: torch.Tensor) -> torch.Tensor:
        if not site.measured:
            return style.affine(site, Moments.empty(0))(t)
        seen[site.name] = Moments.of(t[0].flatten(1).double().numpy(), full=site.full)
        return style.affine(site, seen[site.name])(t)

    with torch.inference_mode():
        style.forward(x.contiguous(), at)
    return seen


#: Those whose statistics are moments of the features themselves.
MEASURED = [name for name in nets.MODELS if name not in ("identity", "stain")]


def seeded(model: str) -> nets.Style:
    """With an image as style, or, where styles have names, with the first."""
    image = picture(96, 80, seed=3).astype(np.float32) / 255
    named = nets.MODELS[model].style_named
    return nets.seeded(model, [(named("1") if named else image, 1.0)])


@pytest.fixture(scope="module", params=["lite", "microast"])
def small(request: pytest.FixtureRequest) -> nets.Style:
    return seeded(request.param)


@pytest.mark.parametrize("shape", [(1, 1), (70, 333), (601, 530), (1030, 90)])
def test_measured_in_windows_equals_the_untiled_networks_own(
    small: nets.Style, shape: tuple[int, int]
) -> None:
    image = picture(*shape)
    here, there = measure_here(small, array_source(image)), untiled(small, image)
    for name, moments in there.items():
        assert here[name].n == moments.n
        np.testing.assert_allclose(here[name].mean, moments.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(here[name].variance(), moments.variance(), rtol=1e-4, atol=1e-9)


def test_all_valid_alpha_changes_nothing(small: nets.Style) -> None:
    opaque, plain_rgb = (
        measure_here(small, array_source(picture(300, 200, 4))),
        measure_here(small, array_source(picture(300, 200))),
    )
    for name, moments in plain_rgb.items():
        np.testing.assert_array_equal(opaque[name].mean, moments.mean)


def test_invalid_pixels_count_for_nothing(small: nets.Style) -> None:
    image = picture(400, 400, 4)
    image[:, 200:, 3] = 0
    darker = image.copy()
    darker[:, 200:, :3] = 0
    one, other = measure_here(small, array_source(image)), measure_here(small, array_source(darker))
    for site in measured_sites(small):
        assert one[site.name].n == pytest.approx(400 * 200 / site.stride**2)
        np.testing.assert_array_equal(one[site.name].mean, other[site.name].mean)


def test_an_image_without_a_valid_pixel_has_harmless_statistics(small: nets.Style) -> None:
    found = measure_here(small, array_source(np.zeros((64, 64, 4), np.uint8)))
    for site in measured_sites(small):
        affine = small.affine(site, found[site.name])
        assert np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()


def test_cell_weights_are_fractions() -> None:
    valid = np.zeros((4, 8), np.uint8)
    valid[:2, :4] = 7
    np.testing.assert_array_equal(cell_weights(valid, 4), [0.5, 0.0])


class OfStyle:
    """A recipe whose style is there already."""

    def __init__(self, style: nets.Style) -> None:
        self.style = style

    def build(self) -> nets.Style:
        return self.style


def test_exact_is_the_plain_loop_and_goes_on_after_a_stop(small: nets.Style, tmp_path: Path) -> None:
    source, recipe = array_source(picture(700, 900)), OfStyle(small)
    expected = measure_here(small, source)
    done = measure_exact(recipe, source, tmp_path / "m", Cluster(plain))  # type: ignore[arg-type]
    for name, moments in expected.items():
        np.testing.assert_array_equal(done[name].mean, moments.mean)
        np.testing.assert_array_equal(done[name].m2, moments.m2)
    last = measured_sites(small)[-1].name
    (tmp_path / "m" / f"{last}.npz").unlink()
    ran: list[int] = []

    def counted(task, indexes):
        for index in indexes:
            ran.append(index)
            yield index, task(index), None

    again = measure_exact(recipe, source, tmp_path / "m", Cluster(counted))  # type: ignore[arg-type]
    np.testing.assert_array_equal(again[last].m2, done[last].m2)
    assert ran == [0]


def test_the_moments_of_all_blocks_are_never_in_memory_at_once(
    small: nets.Style, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one block of WCT's are megabytes; not even where an interrupted pass goes on."""
    monkeypatch.setattr(statistics, "BLOCK", 512)
    monkeypatch.setattr(statistics, "measured_sites", lambda style: measured_sites(style)[:1])
    source, recipe, folder = array_source(picture(2100, 2600)), OfStyle(small), tmp_path / "m"

    def interrupted(task, indexes):
        for index in list(indexes)[:-1]:
            yield index, task(index), None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_exact(recipe, source, folder, Cluster(interrupted))  # type: ignore[arg-type]
    assert len(list(folder.glob("*-*.npz"))) > 20
    alive: weakref.WeakSet[MemberMoments] = weakref.WeakSet()
    most = 0

    def loaded(path: Path) -> MemberMoments:
        nonlocal most
        several = load(path)
        alive.add(several)
        most = max(most, len(alive))
        return several

    monkeypatch.setattr(statistics, "load", loaded)
    measure_exact(recipe, source, folder, Cluster(plain))  # type: ignore[arg-type]
    assert 0 < most < 4


def test_moments_of_earlier_sites_are_read_once_for_all_blocks(
    small: nets.Style, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again where another job has put others into the same folder."""
    monkeypatch.setattr(statistics, "BLOCK", 512)
    recipe, folder, read = OfStyle(small), tmp_path / "m", list[str]()
    monkeypatch.setattr(statistics, "load", lambda path: read.append(path.stem) or load(path))
    for seed in range(2):
        source = array_source(picture(600, 600, seed=seed))
        read.clear()
        done = measure_exact(recipe, source, folder, Cluster(plain))  # type: ignore[arg-type]
        expected = measure_here(small, source)
        for number, site in enumerate(sites := measured_sites(small), 1):
            behind = len(sites) - number
            assert read.count(site.name) == 1 + behind  # the first finds that it is not there yet
            np.testing.assert_array_equal(done[site.name].m2, expected[site.name].m2)
            (folder / f"{site.name}.npz").unlink()


def test_windows_side_by_side_give_the_same_numbers(
    small: nets.Style, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four blocks, on two threads."""
    monkeypatch.setattr(statistics, "CORE", 64)
    monkeypatch.setattr(statistics, "BLOCK", 512)
    source = array_source(picture(700, 900))
    expected = measure_here(small, source)
    with cluster(in_flight=2) as on:
        done = measure_exact(OfStyle(small), source, tmp_path / "m", on, compute=ComputeThreads.sharing(2, 2))
    for name, moments in expected.items():
        np.testing.assert_array_equal(done[name].m2, moments.m2)


def test_moments_survive_their_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    several = MemberMoments({k: Moments.of(random.normal(size=(5, 40)), full=True) for k in (0, 3)})
    save(tmp_path / "a.npz", several)
    back = load(tmp_path / "a.npz")
    assert list(back.parts) == [0, 3]
    for k, moments in several.parts.items():
        assert back.parts[k].n == moments.n
        np.testing.assert_array_equal(back.parts[k].mean, moments.mean)
        np.testing.assert_array_equal(back.parts[k].m2, moments.m2)


@pytest.mark.parametrize("model", MEASURED)
@pytest.mark.parametrize("channels", [3, 4])
def test_a_thumbnail_measured_at_once_is_measured_by_windows(model: str, channels: int) -> None:
    image = picture(700, 90, channels)
    if channels == 4:
        image[100:300, 20:, 3] = 0
    style = seeded(model)
    source = array_source(image)
    one, two = (measure_thumbnail(style, source, whole=whole) for whole in (False, True))
    assert set(one) == set(two) == {site.name for site in measured_sites(style)}
    for name, moments in one.items():
        assert two[name].n == pytest.approx(moments.n)
        scale = np.sqrt(moments.variance().mean()) + np.abs(moments.mean).max()
        assert np.abs(two[name].mean - moments.mean).max() < 2e-4 * scale
        assert np.abs(two[name].variance() - moments.variance()).max() < 1e-3 * scale**2


def test_what_lies_behind_the_last_site_is_not_computed(
    small: nets.Style, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []
    forward = type(small).forward

    def noted(self: Any, x: torch.Tensor, at: Any) -> torch.Tensor:
        y = forward(self, x, lambda site, h: (reached.append(site.name), at(site, h))[1])
        reached.append("end")
        return y

    monkeypatch.setattr(type(small), "forward", noted)
    moments = measure_thumbnail(small, array_source(picture(64, 80)), whole=True)
    measured = [site.name for site in measured_sites(small)]
    assert list(moments) == measured and reached[-1] == measured[-1]


def test_members_are_measured_at_once(small: nets.Style) -> None:
    image = picture(300, 400)
    composition = nets.Composition((small,), Lattice.of_scale(300, 400, 150))
    one, two = (measure_thumbnail(composition, array_source(image), whole=whole) for whole in (False, True))
    for name, several in one.items():
        for member, moments in several.parts.items():
            np.testing.assert_allclose(two[name].parts[member].mean, moments.mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", MEASURED)
def test_exact_statistics_are_the_untiled_networks_own_in_float64(model: str) -> None:
    """Relative 1e-5, in windows and float32, against the whole image in float64."""
    style, image = seeded(model), picture(336, 400)
    window = windows_of(seen_by(model, array_source(image))).padded(Box(0, 0, 336, 400))[0]
    x = torch.from_numpy(window).permute(2, 0, 1)[None].double() / 255
    seen: dict[str, Moments] = {}

    def at(site: nets.Site, t: torch.Tensor) -> torch.Tensor:
        if site.measured:
            seen[site.name] = Moments.of(t[0].flatten(1).numpy(), full=site.full)
        return style.affine(site, seen.get(site.name, Moments.empty(0)))(t)

    with torch.inference_mode():
        style.forward(x, at)
    found = measure_here(style, array_source(image))
    assert set(found) == set(seen)
    for name, moments in seen.items():
        size = np.sqrt((moments.variance() + moments.mean**2).mean())
        assert found[name].n == moments.n
        assert np.abs(found[name].mean - moments.mean).max() < 1e-5 * size
        assert np.abs(found[name].m2 - moments.m2).max() < 1e-5 * np.abs(moments.m2).max()
