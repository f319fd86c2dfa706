"""Places of a painting with levels: the bytes of the job, though no level is painted as a whole."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import geotiff, painted_cores, picture

import urst_tiles as ut
from urst_tiles.api import live_levels, view
from urst_tiles.api.view import View, open_view, prepare_input
from urst_tiles.engine import sampled
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.options import Options
from urst_tiles.progress import silent

STYLE = "monet-water-lilies"
SHAPE = 601, 757  # odd, so that halves are rounded up on every level
SMALL: dict[str, Any] = {"model": "painter", "tile": 128, "block": 512, "threads": 1, "thumbnail": 64}

#: Boxes in a core, across cores and blocks, at the corners.
BOXES = [Box(130, 140, 250, 250), Box(100, 470, 300, 620), Box(0, 0, 30, 40), Box(590, 730, 601, 757)]


@pytest.fixture(scope="module", autouse=True)
def small_samples() -> Iterator[None]:
    """So that a level of a small picture is measured by a sample, as one of a large picture is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sampled, "WINDOWS", 4)
        patched.setattr(sampled, "CORE", 64)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_samples: None) -> tuple[Path, np.ndarray]:
    """A scene, and what a job paints of it on three levels."""
    path = geotiff(tmp_path_factory.mktemp("scene") / "scene.tif", picture(*SHAPE))
    return path, job_of(path, STYLE, stroke=4)


@pytest.fixture
def scene(made: tuple[Path, np.ndarray]) -> Path:
    return made[0]


@pytest.fixture
def whole(made: tuple[Path, np.ndarray]) -> np.ndarray:
    return made[1]


def view_of(path: Path, style: Any, folder: Path, progress: Any = silent, **changes: Any) -> View:
    options = Options.of(None, SMALL | changes)
    folder.mkdir(exist_ok=True)
    source = prepare_input(path, options, folder=folder)
    return open_view(source, style, options, folder=folder, progress=progress)


def job_of(path: Path, style: Any, **changes: Any) -> np.ndarray:
    ut.stylize(path, path.with_name("out.tif"), style, **(SMALL | changes | {"overwrite": True}))
    return tifffile.imread(path.with_name("out.tif"))


def check(seen: View, whole: np.ndarray) -> None:
    assert whole.std() > 10
    for box in BOXES:
        np.testing.assert_array_equal(seen.pixels(box), whole[box.slices])


@pytest.mark.parametrize(
    ("levels", "changes"),
    [
        (2, {"alpha": 0.6, "preserve_color": "luminance"}),
        pytest.param(3, {"halo": 16}, marks=pytest.mark.slow),  # which blends
        pytest.param(3, {"dtype": "uint16"}, marks=pytest.mark.slow),
        pytest.param(4, {"tile": 64}, marks=pytest.mark.slow),
    ],
)
def test_a_place_has_the_bytes_of_the_job(
    scene: Path, tmp_path: Path, levels: int, changes: dict[str, Any]
) -> None:
    changes = {"stroke": 1 << (levels - 1)} | changes
    seen = view_of(scene, STYLE, tmp_path, **changes)
    assert len(seen.levels) == levels == seen.plan.levels
    check(seen, job_of(scene, STYLE, **changes))


@pytest.mark.parametrize("copied", [pytest.param(1 << 20, id="copied"), pytest.param(50_000, id="read")])
def test_large_halves_are_read_and_not_copied(
    scene: Path, whole: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int
) -> None:
    """301 x 379 pixels is more than 50 000, 151 x 190 is less."""
    monkeypatch.setattr(live_levels, "COPIED_PIXELS", copied)
    seen = view_of(scene, STYLE, tmp_path, stroke=4)
    assert len(list(tmp_path.glob("half-*.zarr"))) == (2 if copied > 50_000 else 1)
    check(seen, whole)


def test_what_is_remembered_has_a_limit_and_does_not_show(
    scene: Path, whole: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_levels, "PAINTED_BYTES", 3 * 128 * 128 * 3)
    seen = view_of(scene, STYLE, tmp_path, stroke=4)
    check(seen, whole)
    for level in seen.levels[1:]:
        assert 0 < level._painted.weight <= live_levels.PAINTED_BYTES
    assert not seen.levels[0]._painted.weight


def test_a_place_needs_few_windows_of_each_level(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = view_of(scene, STYLE, tmp_path, stroke=4)
    painted = painted_cores(monkeypatch)
    for level in reversed(seen.levels):
        level.ready()
    assert (
        len(painted) <= 9 + 4
    )  # the samples of four windows see of the level above not all of 9 and 4 cores
    painted.clear()
    seen.pixels(Box(130, 140, 250, 250))
    assert painted.count(Box(128, 128, 256, 256)) and len(painted) <= 3
    again = len(painted)
    seen.pixels(Box(130, 140, 250, 250))
    assert len(painted) == again + 1, "the levels above are remembered"


def test_what_is_seen_from_afar_is_the_level_of_that_scale(scene: Path, tmp_path: Path) -> None:
    """The picture of the level above is the result of a job on half of the image."""
    seen = view_of(scene, STYLE, tmp_path, stroke=4)
    half = seen.reduced(1, Box(0, 0, 301, 379))
    assert half.shape == (301, 379, 3)
    np.testing.assert_array_equal(half[:200, :300], seen.levels[1].pixels(Box(0, 0, 200, 300)))
    assert seen.levels[0]._frozen is None, "the finest level is not measured to be seen from afar"
    for halvings in (2, 3, 6):
        small = seen.reduced(halvings, Box(0, 0, *(-(-n // (1 << halvings)) for n in SHAPE)))
        assert abs(small.astype(float).mean() - half.mean()) < 12


def test_from_afar_strength_and_colours_are_those_that_were_chosen(scene: Path, tmp_path: Path) -> None:
    box = Box(0, 0, 151, 190)
    full, none, grey = (
        view_of(scene, STYLE, tmp_path, stroke=4, **more).reduced(2, box).astype(float)
        for k, more in enumerate(({}, {"alpha": 0.0}, {"preserve_color": "luminance"}))
    )
    content = view_of(scene, STYLE, tmp_path, stroke=4).levels[2].image.source.read(box)
    assert abs(none - content).max() <= 1 and abs(full - content).mean() > 10
    chroma = [x[..., 0] - x[..., 2] for x in (grey, content.astype(float))]
    middle = (grey > 8).all(-1) & (grey < 247).all(-1)
    assert abs(chroma[0] - chroma[1])[middle].mean() < 2


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("alpha", {}), pytest.param("16 bits", {}, marks=pytest.mark.slow), ("plain", {"statistics": "exact"})],
)
def test_what_looks_at_whole_pictures_has_the_levels_above_painted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]
) -> None:
    path, pixels = tmp_path / "scene.tif", picture(301, 379)
    if kind == "alpha":
        valid = np.full((301, 379, 1), 255, np.uint8)
        valid[:180, :200] = 0
        geotiff(path, np.concatenate([pixels, valid], 2), extrasamples=("unassalpha",))
    else:
        geotiff(path, pixels.astype(np.uint16) * 200 + 7 if kind == "16 bits" else pixels)
    seen = view_of(path, STYLE, tmp_path / "view", stroke=2, **changes)
    whole = job_of(path, STYLE, stroke=2, **changes)
    assert len(seen.levels) == 1
    for box in (Box(130, 140, 250, 250), Box(100, 200, 300, 379)):
        np.testing.assert_array_equal(seen.pixels(box), whole[box.slices])
    small = seen.reduced(2, Box(0, 0, 76, 95))
    assert small.shape == (76, 95, seen.plan.channels) and small[..., :3].std() > 5
    monkeypatch.setattr(view, "MOST_PAINTED", 100_000)
    with pytest.raises(BadInput, match="painted as wholes|measures each level of it as a whole"):
        view_of(path, STYLE, tmp_path / "view", stroke=2, **changes)


def test_a_single_level_is_shown_like_any_network(scene: Path, tmp_path: Path) -> None:
    seen = view_of(scene, STYLE, tmp_path, stroke=1)
    check(seen, job_of(scene, STYLE, stroke=1))
    assert seen.reduced(3, Box(0, 0, 76, 95)).std() > 5


@pytest.mark.slow
def test_a_place_in_regions_has_the_bytes_of_the_job(scene: Path, tmp_path: Path) -> None:
    regions = np.zeros(SHAPE, np.uint8)
    regions[:, 380:] = 1
    tifffile.imwrite(tmp_path / "mask.tif", regions)
    changes = {"mask": tmp_path / "mask.tif", "feather": 32, "stroke": 4}
    styles = {0: STYLE, 1: "munch-scream"}
    seen = view_of(scene, styles, tmp_path, **changes)
    assert len(seen.levels) == 3
    check(seen, job_of(scene, styles, **changes))
    assert seen.reduced(2, Box(0, 0, 151, 190)).std() > 5


def test_it_is_told_how_far_the_levels_above_are(scene: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    seen = view_of(scene, STYLE, tmp_path, lambda *one: told.append(one), stroke=4)
    assert {stage for stage, _, _ in told} == {"halving"}
    told.clear()
    seen.pixels(BOXES[0])
    last = {stage: (done, total) for stage, done, total in told}
    assert set(last) == {"painting level 1/2", "painting level 1/4"}
    assert all(done == total for done, total in last.values())


def test_measuring_can_be_given_up_and_goes_on_with_what_was_painted(
    scene: Path, whole: np.ndarray, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(*one: Any) -> None:
        told.append(one)
        if one[:2] == ("painting level 1/2", 3) and total == 0:
            raise KeyboardInterrupt

    total = 0
    seen = view_of(scene, STYLE, tmp_path, tell, stroke=4)
    with pytest.raises(KeyboardInterrupt):
        seen.pixels(BOXES[0])
    total = told[-1][2]
    told.clear()
    check(seen, whole)
    assert told[-1] == ("painting level 1/2", total - 2, total - 2), "the third was lost"


def test_a_view_that_is_dropped_frees_its_levels(scene: Path, tmp_path: Path) -> None:
    seen = view_of(scene, STYLE, tmp_path, stroke=2)
    seen.pixels(BOXES[0])
    above = weakref.ref(seen.levels[1])
    del seen
    gc.collect()
    assert above() is None
