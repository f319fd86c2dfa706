"""Which network paints where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import tifffile

import urst_tiles as ut
from urst_tiles.errors import BadInput
from urst_tiles.options import default_model


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that was not told anything; other tests paint by lite."""
    monkeypatch.delenv("URST_TILES_MODEL")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    smooth = random.integers(0, 256, (30, 40, 3)).repeat(10, 0).repeat(10, 1)
    tifffile.imwrite(tmp_path / "scene.tif", smooth.astype(np.uint8))
    return tmp_path / "scene.tif"


def pixels(scene: Path, name: str, **options: object) -> np.ndarray:
    output = scene.with_name(name)
    ut.stylize(scene, output, "hokusai-wave", **options)
    return tifffile.imread(output)


def test_painter_paints(scene: Path) -> None:
    assert ut.Options().network == default_model() == "painter"
    np.testing.assert_array_equal(pixels(scene, "a.tif"), pixels(scene, "b.tif", model="painter"))


def test_the_variable_names_another(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URST_TILES_MODEL", "lite")
    np.testing.assert_array_equal(pixels(scene, "a.tif"), pixels(scene, "b.tif", model="lite"))
    assert ut.Options(model="painter").network == "painter"


@pytest.mark.parametrize("text", ["os:system", "package.module:function"])
def test_the_variable_names_no_code(scene: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("URST_TILES_MODEL", text)
    with pytest.raises(BadInput, match=f"URST_TILES_MODEL names a network, not code such as {text}"):
        pixels(scene, "a.tif")


def test_lite_paints_by_thumbnails_and_it_is_said(
    run: Callable[..., CompletedProcess[str]], scene: Path
) -> None:
    given = ["stylize", str(scene), str(scene.with_name("a.tif")), "--style", "hokusai-wave"]
    done = run(*given, "--statistics", "thumbnail")
    assert done.returncode == 0, done.stderr
    assert "lite paints, since painter does not measure a thumbnail" in done.stdout + done.stderr
    expected = pixels(scene, "b.tif", model="lite")
    np.testing.assert_array_equal(tifffile.imread(scene.with_name("a.tif")), expected)
    named = run(
        *given[:2],
        str(scene.with_name("c.tif")),
        *given[3:],
        "--model",
        "painter",
        "--statistics",
        "thumbnail",
    )
    assert named.returncode == 2 and "choose --statistics sampled" in named.stderr


def test_lite_paints_by_the_statistics_of_a_part(scene: Path) -> None:
    part = {"region": (40, 40, 256, 256), "statistics_of": "region"}
    found, expected = pixels(scene, "a.tif", **part), pixels(scene, "b.tif", model="lite", **part)
    np.testing.assert_array_equal(found, expected)


def test_a_look_of_many_images_is_one_of_lite(scene: Path) -> None:
    look = scene.with_name("look.safetensors")
    ut.measure_painting_look([scene], "hokusai-wave").save(look)
    named = scene.with_name("named.safetensors")
    ut.measure_painting_look([scene], "hokusai-wave", model="lite").save(named)
    assert look.read_bytes() == named.read_bytes()
    with pytest.raises(BadInput, match="--model painter has statistics of its own for each level"):
        ut.measure_painting_look([scene], "hokusai-wave", model="painter")


def test_the_sheet_of_styles_is_painted_by_it() -> None:
    sheet, painted = (ut.contact_sheet(side=64, model=model) for model in (None, "painter"))
    np.testing.assert_array_equal(sheet, painted)
