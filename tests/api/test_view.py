"""Places of a finished picture: the bytes of the job, and no more windows than they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import geotiff, mask, painted_cores, picture, strips

import urst_tiles as ut
from urst_tiles.api.view import View, open_view, place, prepare_input
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.options import Options

#: Small windows, so that a place has some of them.
SMALL: dict[str, Any] = {"tile": 128, "block": 512}

#: Boxes of a picture of 500 x 760 pixels: in a core, across cores and blocks, at the corners, one pixel, all.
BOXES = [
    Box(130, 140, 250, 250), Box(100, 470, 300, 620), Box(0, 0, 30, 40), Box(470, 700, 500, 760),
    Box(499, 759, 500, 760), Box(0, 0, 500, 760),
]  # fmt: skip


def view_of(path: Path, style: Any, folder: Path, **changes: Any) -> View:
    options = Options.of(None, SMALL | changes)
    folder.mkdir()
    return open_view(prepare_input(path, options, folder=folder), style, options, folder=folder)


def scene(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "scene.tif"
    if kind == "strips":
        return strips(path)
    pixels = picture(500, 760)
    if kind == "alpha":
        valid = np.full((500, 760, 1), 255, np.uint8)
        valid[:180, :300] = 0
        valid[200:300, 400:460] = 90
        return geotiff(path, np.concatenate([pixels, valid], 2), extrasamples=("unassalpha",))
    return geotiff(path, pixels.astype(np.uint16) * 200 + 7 if kind == "16 bits" else pixels)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("plain", {}),
        ("plain", {"halo": 16}),  # which blends
        ("alpha", {"alpha": 0.6, "preserve_color": "luminance"}),
        ("16 bits", {"stretch": "0,65535"}),
        pytest.param("plain", {"statistics": "exact"}, marks=pytest.mark.slow),
        pytest.param("plain", {"statistics": "local", "local_scale": 256}, marks=pytest.mark.slow),
        pytest.param("strips", {"stroke": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_place_has_the_bytes_of_the_job(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    path, style = scene(tmp_path, kind), "hokusai-wave"
    ut.stylize(path, tmp_path / "out.tif", style, **SMALL, **changes)
    whole = tifffile.imread(tmp_path / "out.tif")
    view = view_of(path, style, tmp_path / "view", **changes)
    assert len(view.plan.grid) == 2 and whole[..., :3].std() > 10
    for box in BOXES:
        pixels = view.pixels(box)
        assert pixels.dtype == whole.dtype
        np.testing.assert_array_equal(pixels, whole[box.slices])


@pytest.mark.slow
def test_a_place_in_regions_has_the_bytes_of_the_job(tmp_path: Path) -> None:
    path, styles = scene(tmp_path, "plain"), {1: "hokusai-wave", 2: named()[-1]}
    changes = {"mask": mask(tmp_path / "mask.tif"), "feather": 32}
    ut.stylize(path, tmp_path / "out.tif", styles, **SMALL, **changes)
    view, box = view_of(path, styles, tmp_path / "view", **changes), Box(100, 350, 300, 620)
    np.testing.assert_array_equal(view.pixels(box), tifffile.imread(tmp_path / "out.tif")[box.slices])


def named() -> list[str]:
    from urst_tiles.api.contact_sheet import named_styles

    return list(named_styles())


def test_only_the_windows_that_a_place_needs_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(scene(tmp_path, "plain"), None, tmp_path / "view", model="identity")
    computed = painted_cores(monkeypatch)
    view.pixels(Box(130, 140, 250, 250))
    assert computed == [Box(128, 128, 256, 256)]
    view.pixels(Box(250, 130, 260, 140))
    assert computed[1:] == [Box(128, 128, 256, 256), Box(256, 128, 384, 256)]


def test_nothing_is_left_behind_by_measuring(tmp_path: Path) -> None:
    path, options = scene(tmp_path, "plain"), {"model": "identity", "statistics": "exact"}
    view_of(path, None, tmp_path / "view", **options)
    left = sorted(path.name.split("-")[0] for path in (tmp_path / "view").iterdir())
    assert left == ["average", "content", "thumbnail"]


def test_a_place_is_cut_at_the_edges_and_lies_in_the_image() -> None:
    assert place((500, 760), (700, 450), (100, 100)) == Box(450, 700, 500, 760)
    with pytest.raises(BadInput, match="760 x 500 px: x goes from 0 to 759, y from 0 to 499"):
        place((500, 760), (760, 0), (10, 10))


def test_a_box_outside_is_an_error(tmp_path: Path) -> None:
    view = view_of(scene(tmp_path, "plain"), None, tmp_path / "view", model="identity")
    for box in (Box(0, 0, 501, 10), Box(-1, 0, 5, 5), Box(5, 5, 5, 9)):
        with pytest.raises(ValueError, match="does not lie inside"):
            view.pixels(box)
