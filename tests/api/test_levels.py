"""Painting from coarse to fine: each level a job, tiled as the whole, resumed and shared as any job."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import pyvips
import tifffile

import urst_tiles as ut
from urst_tiles.api import levels
from urst_tiles.api.stylize import open_job
from urst_tiles.errors import BadInput
from urst_tiles.job import ending
from urst_tiles.options import Options
from urst_tiles.recipe import recipe_of

STYLE = "monet-water-lilies"
SMALL = {"model": "painter", "tile": 128, "block": 256, "device": "cpu", "threads": 1, "thumbnail": 64}


@pytest.fixture
def scene(tmp_path, picture):
    path = tmp_path / "scene.tif"
    pixels = picture(290, 370)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb")
    return path


def run(scene, name, **changes):
    out = scene.with_name(name)
    ut.stylize(scene, out, STYLE, **{**SMALL, **changes})
    return tifffile.imread(out)


def left(scene):
    return sorted(path.name for path in scene.parent.iterdir())


def test_the_number_of_levels_follows_the_size_of_the_image():
    recipe = recipe_of(STYLE, Options(model="painter"))
    sizes = [(300, 400), (1024, 1024), (1500, 9000), (2048, 2048), (4000, 6000), (65536, 40000)]
    assert [recipe.on_levels(size, None).levels for size in sizes] == [1, 2, 3, 3, 4, 7]
    assert [recipe.on_levels((4096, 4096), n).levels for n in (1, 2, 8)] == [1, 2, 4]
    assert recipe.on_levels((100, 100), 64).levels == 1
    assert recipe_of(STYLE, Options(model="lite")).on_levels((9000, 9000), None).levels == 0


def test_each_level_is_painted_over_the_one_above(scene):
    pictures = [run(scene, f"out{n}.tif", stroke=n) for n in (1, 2, 4)]
    assert all(picture.shape == (290, 370, 3) for picture in pictures)
    for a, b in ((0, 1), (1, 2)):
        assert np.abs(pictures[a].astype(int) - pictures[b]).mean() > 2
    assert left(scene) == ["out1.tif", "out2.tif", "out4.tif", "scene.tif"]


def test_a_program_that_keeps_marks_leaves_no_folder(scene):
    """As the command does: the mark of the level above lies in the folder of the job, which goes first."""
    ending.keep_marks()
    try:
        run(scene, "out.tif", stroke=4)
    finally:
        ending.forget_marks()
    assert left(scene) == ["out.tif", "scene.tif"]


def test_tiles_blocks_and_workers_do_not_show(scene):
    whole = run(scene, "whole.tif", stroke=4, tile=1024, block=1024, precision="float32")
    tiled = run(scene, "tiled.tif", stroke=4, precision="float32")
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_a_stopped_job_goes_on_and_gives_the_same_bytes(scene, monkeypatch):
    run(scene, "once.tif", stroke=4)
    kept = []

    def stop(job, plan, source, progress):
        image = before(job, plan, source, progress)
        if not kept and plan.level == 0:
            kept.append((job.folder / "above.tif").stat().st_mtime_ns)
            raise KeyboardInterrupt
        return image

    before = levels.level_of
    monkeypatch.setattr(levels, "level_of", stop)
    with pytest.raises(KeyboardInterrupt):
        run(scene, "again.tif", stroke=4)
    above = scene.with_name("again.tif.job") / "above.tif"
    assert above.stat().st_mtime_ns == kept[0]
    run(scene, "again.tif", stroke=4)
    assert scene.with_name("again.tif").read_bytes() == scene.with_name("once.tif").read_bytes()
    assert left(scene) == ["again.tif", "once.tif", "scene.tif"]


def test_overwrite_starts_the_levels_anew(scene, monkeypatch):
    monkeypatch.setattr(levels, "level_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(scene, "out.tif", stroke=2)
    monkeypatch.undo()
    ut.stylize(scene, scene.with_name("out.tif"), "munch-scream", **{**SMALL, "stroke": 2, "overwrite": True})
    ut.stylize(scene, scene.with_name("fresh.tif"), "munch-scream", **{**SMALL, "stroke": 2})
    assert scene.with_name("out.tif").read_bytes() == scene.with_name("fresh.tif").read_bytes()
    assert left(scene) == ["fresh.tif", "out.tif", "scene.tif"]


def test_saved_jobs_paint_the_levels_above_before_workers_come(scene, tmp_path):
    run(scene, "once.tif", stroke=2)
    ut.save_job(tmp_path / "job", scene, tmp_path / "shared.tif", STYLE, **{**SMALL, "stroke": 2})
    assert (tmp_path / "job" / "above.tif").is_file()
    ut.work_job(tmp_path / "job")
    ut.assemble_job(tmp_path / "job")
    assert (tmp_path / "shared.tif").read_bytes() == (tmp_path / "once.tif").read_bytes()
    assert not (tmp_path / "job").exists()


def test_invalid_pixels_stay_so(scene, picture):
    pixels = np.dstack([picture(420, 540), np.full((420, 540), 255, np.uint8)])
    pixels[:, 300:] = 0
    tifffile.imwrite(scene, pixels, tile=(128, 128), photometric="rgb", extrasamples=["unassalpha"])
    got = run(scene, "out.tif", stroke=4)
    assert (got[:, 300:] == 0).all() and (got[:, :300, 3] == 255).all()


@pytest.mark.slow
def test_local_and_exact_statistics_and_kept_colours_go_with_levels(scene):
    pictures = [
        run(scene, f"{k}.tif", stroke=2, **more)
        for k, more in enumerate(({"statistics": "exact"}, {"statistics": "local", "local_scale": 120}, {}))
    ]
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() < 12
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 0.5
    grey = run(scene, "colour.tif", stroke=2, preserve_color="luminance").astype(float)
    before = tifffile.imread(scene).astype(float)
    chroma = [x[..., 0] - x[..., 2] for x in (grey, before)]
    middle = (grey > 8).all(-1) & (grey < 247).all(-1)
    assert np.abs(chroma[0] - chroma[1])[middle].mean() < 2


def test_a_mask_gives_each_region_its_style_on_every_level(scene):
    regions = np.zeros((290, 370), np.uint8)
    regions[:, 185:] = 1
    mask = scene.with_name("mask.png")
    pyvips.Image.new_from_array(regions).write_to_file(str(mask))
    out = scene.with_name("out.tif")
    ut.stylize(scene, out, {0: STYLE, 1: "munch-scream"}, mask=mask, **{**SMALL, "stroke": 2})
    got = tifffile.imread(out).astype(float)
    one = run(scene, "one.tif", stroke=2).astype(float)
    assert np.abs(got[:, 300:] - one[:, 300:]).mean() > 5


@pytest.mark.parametrize("word", ["thumbnail", "tile"])
def test_a_thumbnail_does_not_stand_for_a_level(scene, word):
    with pytest.raises(BadInput, match="sampled, exact or local"):
        run(scene, "out.tif", statistics=word)


def test_the_plan_counts_the_levels(scene, tmp_path):
    plans = [
        open_job(scene, tmp_path / "out.tif", STYLE, Options(**{**SMALL, "stroke": n}))[4] for n in (1, 2, 4)
    ]
    assert [(plan.levels, plan.level, plan.read_channels) for plan in plans] == [
        (1, 0, 4),
        (2, 0, 7),
        (3, 0, 7),
    ]
    assert plans[0].spool_bytes == 0 < plans[1].spool_bytes < plans[2].spool_bytes
    assert len({plan.fingerprint for plan in plans}) == 3
    assert replace(plans[1], levels=0).read_channels == 3


def test_a_level_of_16_bits_is_painted_over_the_picture_above_as_it_is(scene):
    """As one of 8 bits with the same colours, which cannot be stretched."""
    eight = run(scene, "eight.tif", stroke=2)
    pixels = tifffile.imread(scene).astype(np.uint16) * 257
    tifffile.imwrite(scene.with_name("wide.tif"), pixels, tile=(128, 128), photometric="rgb")
    wide = run(scene.with_name("wide.tif"), "sixteen.tif", stroke=2, stretch="0,65535", dtype="uint16")
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257 - eight).mean() < 1
