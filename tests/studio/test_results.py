"""Finished paintings in the studio, each beside the image that it was made from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import geotiff, picture

pytest.importorskip("starlette", reason="the extra studio is not installed")
pytest.importorskip("uvicorn", reason="the extra studio is not installed")

from served import Served

import urst_tiles as ut


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image and its paintings of each format, and one whose input lies outside of the root."""
    folder = tmp_path_factory.mktemp("results") / "root"
    (folder / "made").mkdir(parents=True)
    geotiff(folder / "scene.tif", picture(600, 700))
    tifffile.imwrite(folder.parent / "reference.tif", picture(64, 64, seed=3), photometric="rgb")
    for name in ("out.tif", "out.ome.zarr", "out.dzi"):
        ut.stylize(
            folder / "scene.tif", folder / "made" / name, folder.parent / "reference.tif", model="colour"
        )
    outside = geotiff(folder.parent / "outside.tif", picture(200, 300, seed=8))
    ut.stylize(outside, folder / "alone.tif", folder.parent / "reference.tif", model="colour")
    return folder


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[Served]:
    with Served("made/out.ome.zarr", "--root", ".", cwd=root) as served:
        yield served


def pixels(data: bytes) -> np.ndarray:
    return pyvips.Image.new_from_buffer(data, "").numpy()[..., :3]


@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr", "out.dzi"])
def test_a_result_opens_beside_its_input(studio: Served, root: Path, name: str) -> None:
    facts = studio.api("look", image=f"made/{name}")
    assert facts["result"] == {"input": "scene.tif", "style": "reference.tif", "said": ""}
    assert (facts["height"], facts["width"], facts["levels"], facts["exact"]) == (600, 700, 11, 11)
    before = pixels(studio.ask(f"tiles/{facts['before']}/10/1_0.png")[2])
    np.testing.assert_array_equal(before, tifffile.imread(root / "scene.tif")[:512, 512:])
    with tifffile.TiffFile(root / "made" / "out.tif") as file:
        levels = [file.pages[n].asarray() for n in range(2)]
    for halvings, (x, y) in ((0, (1, 0)), (0, (0, 1)), (1, (0, 0))):
        _, headers, data = studio.ask(f"tiles/{facts['after']}/{10 - halvings}/{x}_{y}.png")
        wanted = levels[halvings][512 * y : 512 * (y + 1), 512 * x : 512 * (x + 1)].astype(int)
        assert headers["x-approximate"] == "no"
        assert abs(pixels(data) - wanted).mean() <= (12 if name == "out.dzi" else 0)
    for level in range(11):
        for state in ("before", "after"):
            assert studio.ask(f"tiles/{facts[state]}/{level}/0_0.jpg")[0] == 200
    for state in (facts["before"], facts["after"]):
        assert (
            studio.ask(f"swatches/{state}.jpg")[0] == studio.ask(f"swatches/{state}/klimt-kiss.jpg")[0] == 200
        )


def test_it_may_be_named_when_the_studio_is_opened(studio: Served) -> None:
    assert studio.api("start")["image"] == "made/out.ome.zarr"


def test_a_result_without_its_input_is_shown_alone_and_that_is_said(studio: Served) -> None:
    facts = studio.api("look", image="alone.tif")
    assert facts["after"] is None and facts["result"]["input"] is None
    assert facts["result"]["said"].startswith("The image that alone.tif was made from was not found in the")
    assert studio.ask(f"tiles/{facts['before']}/8/0_0.png")[0] == 200


def test_results_are_listed_and_their_tiles_are_not(studio: Served) -> None:
    found = studio.api("files", folder="made")
    assert [one["name"] for one in found["images"]] == ["out.dzi", "out.ome.zarr", "out.tif"]
    assert [one["bytes"] is None for one in found["images"]] == [False, True, False]
    assert found["folders"] == []


def test_other_images_are_no_results(studio: Served) -> None:
    assert "result" not in studio.api("look", image="scene.tif")
    assert "sides input and made" in studio.trouble("api/look", image="scene.tif", side="x")
    assert "no style" in studio.trouble("api/look", image="scene.tif", side="made", style="klimt-kiss")


def test_a_result_that_is_replaced_is_opened_anew(studio: Served, root: Path) -> None:
    shutil.copy(root / "alone.tif", root / "again.tif")
    state = studio.api("look", image="again.tif")["before"]
    old = studio.ask(f"tiles/{state}/8/0_0.png")
    assert old[1]["cache-control"] == "no-cache"
    assert studio.api("look", image="again.tif")["width"] == 300
    shutil.copy(root / "made" / "out.tif", root / "again.tif")
    facts = studio.api("look", image="again.tif")
    assert facts["width"] == 700 and facts["result"]["input"] == "scene.tif"
    assert studio.ask(f"tiles/{state}/8/0_0.png")[2] != old[2]
    (root / "again.tif").unlink()


def test_an_input_that_comes_later_is_found(studio: Served, root: Path) -> None:
    assert studio.api("look", image="alone.tif")["result"]["input"] is None
    shutil.copy(root.parent / "outside.tif", root / "came.tif")
    facts = studio.api("look", image="alone.tif")
    assert facts["result"]["input"] == "came.tif" and facts["after"] is not None
    (root / "came.tif").unlink()
