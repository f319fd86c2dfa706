"""The controls: weights, colours, masks, local statistics, strokes; each as a user gives it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import pyvips
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.source.picture import write_png

LUMA = np.array([0.299, 0.587, 0.114])
SMALL = ("--tile", "128", "--block", "512", "--precision", "float32")
ONE = ("--tile", "512", "--block", "512", "--precision", "float32")
TINY = ("--tile", "64", "--block", "512", "--precision", "float32")


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights but those that ship."""
    monkeypatch.setenv("URST_TILES_WEIGHTS", str(tmp_path / "none"))


@pytest.fixture
def stylised(run, files: Path, tmp_path: Path):
    """``stylised("--stroke", 2)``: the pixels of small.tif after the job, float64."""

    def call(*arguments, size=SMALL, name="out.tif", input="small.tif") -> np.ndarray:
        done = run("stylize", files / input, tmp_path / name, *arguments, *size, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert ut.validate(tmp_path / name).valid
        return pixels(tmp_path / name)

    return call


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """Left 1, right 2, bottom right 7, at a fifth of the resolution of small.tif."""
    regions = np.ones((80, 100, 1), np.uint8)
    regions[:, 50:] = 2
    regions[60:, 70:] = 7
    pyvips.Image.new_from_array(regions).tiffsave(str(tmp_path / "mask.tif"))
    return tmp_path / "mask.tif"


def pixels(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path)).numpy()[..., :3].astype(float)


@pytest.fixture
def quarter(files: Path, tmp_path: Path) -> Path:
    """The upper left quarter of small.tif, where its size does not matter."""
    return geotiff(tmp_path / "quarter.tif", picture(400, 500)[:200, :250])


def content(files: Path) -> np.ndarray:
    return pixels(files / "small.tif")


def test_weights_mix_styles(stylised):
    two = ("--style", "munch-scream", "--style", "roerich-mountains")
    first = stylised("--style", "munch-scream")
    same = stylised(*two, "--style-weight", 1, "--style-weight", 0)
    half, more = stylised(*two), stylised(*two, "--style-weight", 3, "--style-weight", 1)
    np.testing.assert_array_equal(first, same)
    far, near = (np.abs(each - first).mean() for each in (half, more))
    assert 1 < near < far


def test_luminance_keeps_the_colours(stylised, files):
    before, after = content(files), stylised("--style", "munch-scream", "--preserve-color", "luminance")
    plain = stylised("--style", "munch-scream")
    inside = ((np.minimum(after, plain) > 2) & (np.maximum(after, plain) < 253)).all(axis=-1)
    for each, same in ((after, True), (plain, False)):
        chroma = (each - each @ LUMA[:, None]) - (before - before @ LUMA[:, None])
        assert (np.abs(chroma[inside]).max() < 2) == same
    assert np.abs((after - plain) @ LUMA)[inside].max() < 2


def test_coral_takes_the_colours_of_the_image(stylised, files):
    before = content(files).reshape(-1, 3)
    style = ("--style", files / "style.png", "--style-size", 128)
    for more in ((), ("--statistics", "exact")):
        coral = stylised(*style, "--preserve-color", "coral", *more).reshape(-1, 3)
        plain = stylised(*style, *more).reshape(-1, 3)
        off = [np.abs(each.mean(0) - before.mean(0)).max() for each in (coral, plain)]
        assert off[0] < 0.6 * off[1]


@pytest.mark.parametrize("statistics", ["thumbnail", pytest.param("exact", marks=pytest.mark.slow)])
def test_a_mask_gives_each_region_its_style(stylised, files, mask, statistics):
    styles = ("--style", "1=munch-scream", "--style", "2=roerich-mountains")
    arguments = ("--mask", mask, *styles, "--feather", 16, "--statistics", statistics)
    one, two = stylised(*arguments), stylised(*arguments, size=TINY, name="tiny.tif")
    # region 7 has no style and keeps its picture; elsewhere it is another one
    np.testing.assert_array_equal(one[-80:, -130:], content(files)[-80:, -130:])
    assert np.abs(one[:200, :200] - content(files)[:200, :200]).mean() > 10
    assert np.abs(one - two).max() <= 1
    left, right = one[:280, :230].mean((0, 1)), one[:280, 270:].mean((0, 1))
    whole = [stylised("--style", name).mean((0, 1)) for name in ("munch-scream", "roerich-mountains")]
    assert np.abs(left - whole[0]).max() < np.abs(left - whole[1]).max()
    assert np.abs(right - whole[1]).max() < np.abs(right - whole[0]).max()


def test_edges_of_regions_are_soft(stylised, mask):
    styles = ("--style", "1=munch-scream", "--style", "2=roerich-mountains")
    jump = {}
    for feather in (1, 64):
        out = stylised("--mask", mask, *styles, "--feather", feather)[:280]
        jump[feather] = np.abs(np.diff(out.mean(0), axis=0)).max()
    assert jump[64] < jump[1]


def test_one_region_over_all_is_the_plain_style(stylised, tmp_path):
    pyvips.Image.new_from_array(np.full((4, 5, 1), 3, np.uint8)).tiffsave(str(tmp_path / "three.tif"))
    plain = stylised("--style", "munch-scream")
    masked = stylised("--style", "3=munch-scream", "--mask", tmp_path / "three.tif")
    assert np.abs(plain - masked).max() <= 2


def test_local_statistics(stylised, quarter):
    local = ("--style", "munch-scream", "--statistics", "local", "--local-scale", 128)
    one, two = stylised(*local, input=quarter), stylised(*local, size=TINY, input=quarter, name="tiny.tif")
    exact = stylised("--style", "munch-scream", "--statistics", "exact", input=quarter)
    assert np.abs(one - two).max() <= 1
    assert np.abs(one - exact).mean() > 1
    large = stylised("--style", "munch-scream", "--statistics", "local", "--local-scale", 4096, input=quarter)
    assert np.abs(large - exact).max() <= 1


def test_strokes_grow(stylised, files):
    """What is painted onto the image stays alike over more pixels."""
    plain = stylised("--style", "munch-scream")
    large = stylised("--style", "munch-scream", "--stroke", 4, size=ONE)
    tiny = stylised("--style", "munch-scream", "--stroke", 4, name="tiny.tif")
    assert np.abs(large - tiny).max() <= 1

    def roughness(out):
        light = (out - content(files)) @ LUMA
        return np.abs(np.diff(light, axis=0)).mean() / light.std()

    assert np.abs(large - plain).mean() > 3
    assert roughness(large) < 0.6 * roughness(plain)


def test_all_of_it_together(stylised, quarter, mask):
    arguments = ("--style", "1=munch-scream", "--style", "2=roerich-mountains", "--mask", mask)
    arguments += ("--stroke", 2, "--preserve-color", "luminance", "--alpha", 0.7)
    one = stylised(*arguments, input=quarter)
    two = stylised(*arguments, size=ONE, input=quarter, name="one.tif")
    assert np.abs(one - two).max() <= 1


def test_a_masked_job_goes_on_with_the_same_bytes(files, tmp_path, monkeypatch):
    """Stopped after the first block; the mask in the job folder is used again."""
    mask = tmp_path / "mask.tif"
    pyvips.Image.new_from_array(np.repeat([[1, 2, 1]], 3, 0).astype(np.uint8)).resize(
        50 / 3, vscale=40 / 3, kernel="nearest"
    ).tiffsave(str(mask))
    styles = {1: "munch-scream", 2: "roerich-mountains"}
    options = {"mask": mask, "tile": 128, "block": 256, "precision": "float32", "threads": 1}
    ut.stylize(files / "small.tif", tmp_path / "one.tif", styles, **options)
    from urst_tiles.pyramid.parts import Parts

    write, done = Parts.write, []

    def once(self, index, pixels):
        if done:
            raise RuntimeError("no more")
        done.append(index)
        return write(self, index, pixels)

    monkeypatch.setattr(Parts, "write", once)
    with pytest.raises(ut.BlocksFailed, match="no more"):
        ut.stylize(files / "small.tif", tmp_path / "two.tif", styles, **options)
    monkeypatch.setattr(Parts, "write", write)
    assert (tmp_path / "two.tif.job" / "mask.npy").is_file()
    report = ut.stylize(files / "small.tif", tmp_path / "two.tif", styles, **options)
    assert report.blocks_kept == 1
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


def test_another_mask_under_the_same_name_is_another_job(files, tmp_path):
    """In one process, job after job: nothing is remembered of the first."""
    found = []
    for value in (1, 2):
        pyvips.Image.new_from_array(np.full((4, 5, 1), value, np.uint8)).tiffsave(str(tmp_path / "m.tif"))
        ut.stylize(
            files / "small.tif", tmp_path / "out.tif", {1: "munch-scream", 2: "roerich-mountains"},
            mask=tmp_path / "m.tif", overwrite=True,
        )  # fmt: skip
        found.append(pixels(tmp_path / "out.tif"))
    assert np.abs(found[0] - found[1]).mean() > 5


def test_preview_and_plan_know_the_controls(run, files, mask, tmp_path):
    styles = ("--style", "1=munch-scream", "--style", "2=roerich-mountains", "--mask", mask)
    for arguments in (
        styles,
        ("--style", "munch-scream", "--stroke", 2),
        ("--style", "munch-scream", "--statistics", "local"),
    ):
        assert run("preview", files / "small.tif", tmp_path / "p.png", *arguments).returncode == 0
        done = run("plan", files / "small.tif", tmp_path / "o.tif", *arguments)
        assert done.returncode == 0 and "memory" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.tif", "p.png"]


@pytest.fixture
def odd_masks(files: Path, tmp_path: Path) -> Path:
    geotiff(tmp_path / "colours.tif", picture(40, 50))
    pyvips.Image.new_from_array(np.ones((10, 90, 1), np.uint8)).tiffsave(str(tmp_path / "wide.tif"))
    pyvips.Image.new_from_array(np.full((40, 50, 1), 1.5, np.float32)).tiffsave(str(tmp_path / "float.tif"))
    write_png(tmp_path / "style.png", picture(64, 64))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--style", "munch-scream", "--mask", "colours.tif"], "NUMBER=STYLE"),
        (["--style", "1=munch-scream", "--mask", "colours.tif"], r"colours\.tif has 3 band"),
        (["--style", "1=munch-scream", "--mask", "wide.tif"], r"is 90 x 10 and the image 500 x 400"),
        (["--style", "1=munch-scream", "--mask", "float.tif"], r"float\.tif has the value 1\.5"),
        (["--style", "1=munch-scream", "--mask", "nosuch.tif"], r"nosuch\.tif"),
        (["--style", "1=a.jpg", "--style", "1=b.jpg", "--mask", "wide.tif"], "region 1 twice"),
        (["--style", "70000=munch-scream", "--mask", "wide.tif"], "0..65535"),
        (["--style", "1=munch-scream", "--mask", "wide.tif", "--statistics", "local"], "sampled or exact"),
        (["--style", "1=munch-scream", "--mask", "wide.tif", "--style-weight", "1"], "leave it out"),
        (["--style", "monet-sunrise", "--style-weight", "1", "--style-weight", "2"], "1 --style and 2 --st"),
        (["--style", "munch-scream", "--preserve-color", "coral"], "style image"),
        (["--style", "munch-scream", "--preserve-color", "sepia"], "luminance"),
        (["--style", "munch-scream", "--stroke", "3"], "--stroke"),
        (["--style", "munch-scream", "--feather", "0"], "--feather must be at least 1"),
        (["--style", "munch-scream", "--local-scale", "0"], "--local-scale must be at least 1"),
        (["--style", "1=style.png", "--mask", "wide.tif", "--model", "fast"], "whole network"),
        ([], "no style given"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(run, files, odd_masks, monkeypatch, arguments, said):
    monkeypatch.chdir(odd_masks)
    before = sorted(p.name for p in odd_masks.iterdir())
    done = run("stylize", files / "small.tif", "out.tif", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert sorted(p.name for p in odd_masks.iterdir()) == before
