"""A part of an image: the pixels of the whole output, and the right place on the ground."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, mask, picture, sha
from rasterio.warp import transform_bounds

import urst_tiles as ut
from urst_tiles.nets.lite import HALO
from urst_tiles.plan import Plan
from urst_tiles.tiff.position import affine_of

TINY: dict[str, Any] = {
    "tile": 64, "block": 128, "precision": "float32", "device": "cpu", "threads": 1, "thumbnail": 96,
}  # fmt: skip

Region = tuple[int, int, int, int]

#: Parts as x, y, w, h: on tiles, off them and off the stride, at a corner, less than a tile, one pixel.
PARTS: list[Region] = [(64, 128, 128, 64), (51, 33, 167, 205), (331, 259, 69, 41), (225, 167, 1, 1)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return geotiff(tmp_path_factory.mktemp("region") / "scene.tif", picture(300, 400), tile=(64, 64))


def read(path: Path) -> np.ndarray:
    return tifffile.imread(path)


def cut(pixels: np.ndarray, region: Region) -> np.ndarray:
    x, y, w, h = region
    return pixels[y : y + h, x : x + w]


def check_parts(scene: Path, folder: Path, style: Any, parts: list[Region], **options: Any) -> np.ndarray:
    """Every part has the pixels, and the mask if there is one, of the whole output, which is returned."""
    whole = folder / "whole.tif"
    ut.stylize(scene, whole, style, **TINY | options)
    assert read(whole).std() > 15
    for region in parts:
        out = folder / "part.tif"
        report = ut.stylize(scene, out, style, region=region, overwrite=True, **TINY | options)
        assert report.plan.grid.made.shape == region[:1:-1]
        np.testing.assert_array_equal(read(out), cut(read(whole), region), err_msg=str(region))
        with rasterio.open(whole) as before, rasterio.open(out) as after:
            valid = before.dataset_mask(), after.dataset_mask()
        np.testing.assert_array_equal(valid[1], cut(valid[0], region))
        assert ut.validate(out).valid
    return read(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "lite"},
        {"model": "lite", "seam": "blend", "halo": 16},
        pytest.param({"model": "lite", "statistics": "local", "local_scale": 150}, marks=pytest.mark.slow),
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_a_part_has_the_pixels_of_the_whole(scene: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    check_parts(scene, tmp_path, "hokusai-wave", PARTS[1:3], **options)


@pytest.mark.slow
@pytest.mark.parametrize("seam", [{}, {"seam": "blend", "halo": 32}], ids=["crop", "blend"])
@pytest.mark.parametrize("model", ["lite", "microast", "wct-16x"])
def test_a_part_with_real_weights(
    scene: Path, files: Path, weights_dir: Path, tmp_path: Path, model: str, seam: dict[str, Any]
) -> None:
    options = {"model": model, "weights": weights_dir, "style_size": 128, **seam}
    check_parts(scene, tmp_path, files / "style.png", PARTS, **options)


@pytest.mark.parametrize("validity", [pytest.param("alpha", marks=pytest.mark.slow), "nodata"])
def test_invalid_pixels_of_a_part(tmp_path: Path, validity: str) -> None:
    pixels = picture(300, 400)
    y, x = np.mgrid[:300, :400]
    hole = (y - 150) ** 2 + (x - 200) ** 2 < 90**2
    if validity == "alpha":
        pixels = np.dstack([pixels, np.where(hole, 0, 255).astype(np.uint8)])
        path = geotiff(tmp_path / "in.tif", pixels, extrasamples=["unassalpha"], tile=(64, 64))
    else:
        pixels = np.where(hole[..., None], 0, np.maximum(pixels, 1)).astype(np.uint8)
        keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
        tags = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (34735, 3, 16, keys, True), (42113, 2, 2, "0", True)]
        tags.append((33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True))
        path = geotiff(tmp_path / "in.tif", pixels, extratags=tags, tile=(64, 64))
    check_parts(path, tmp_path, "hokusai-wave", [(51, 33, 167, 205), (170, 120, 50, 60)], model="lite")


def test_a_mask_of_styles_covers_the_whole_image(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "in.tif", picture(250, 380), tile=(64, 64))
    regions = mask(tmp_path / "mask.tif")
    options = {"mask": regions, "feather": 20, "model": "lite"}
    check_parts(
        path, tmp_path, {1: "hokusai-wave", 2: "van-gogh-starry-night"}, [(150, 31, 130, 90)], **options
    )


def test_the_same_region_is_resumed_and_another_is_refused(scene: Path, tmp_path: Path) -> None:
    options = TINY | {"model": "identity"}
    job = tmp_path / "out.tif.job"
    saved = ut.save_job(job, scene, tmp_path / "out.tif", None, region=(51, 33, 167, 205), **options)
    assert len(saved.plan.grid) == 4 and saved.plan.identity["region"] == "51,33,167,205"
    ut.work_job(job, ut.Shard.parse("1/2"))
    with pytest.raises(ut.JobDiffers, match=r"region was 51,33,167,205 and is 51,33,167,204"):
        ut.stylize(scene, tmp_path / "out.tif", None, region=(51, 33, 167, 204), **options)
    with pytest.raises(ut.JobDiffers, match=r"region was 51,33,167,205 and is not set"):
        ut.stylize(scene, tmp_path / "out.tif", None, **options)
    assert ut.work_job(job, ut.Shard.parse("2/2")).missing == 0
    ut.assemble_job(job)
    ut.stylize(scene, tmp_path / "once.tif", None, region=(51, 33, 167, 205), **options)
    assert sha(tmp_path / "out.tif") == sha(tmp_path / "once.tif")


def test_the_whole_image_as_a_region_is_no_part(scene: Path, tmp_path: Path) -> None:
    for name, region in (("a.tif", None), ("b.tif", (0, 0, 400, 300))):
        ut.stylize(scene, tmp_path / name, None, model="identity", region=region, **TINY)
    assert sha(tmp_path / "a.tif") == sha(tmp_path / "b.tif")


# --- the place on the ground --------------------------------------------------------------------------------


def same_place(whole: Path, out: Path, x: int, y: int) -> None:
    """GDAL places the pixels of ``out`` where those of the whole lie from (x, y) on."""
    with rasterio.open(whole) as before, rasterio.open(out) as after:
        assert before.crs == after.crs
        expected = before.transform @ before.transform.translation(x, y)
        assert after.transform.almost_equals(expected, precision=1e-9)


def test_a_box_on_the_ground(scene: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out.tif"
    small = ["--model", "identity", "--tile", 64, "--block", 128, "--thumbnail", 96]
    done = run("stylize", scene, out, "--bbox", "500510,5198000,501234,5199000.5", *small)
    assert done.returncode == 0 and done.stderr == ""
    # 10 m pixels from 500000, 5200000: columns 51 to 123 (500510 is an edge), rows 99 (touched) to 200
    np.testing.assert_array_equal(read(out), read(scene)[99:200, 51:124])
    same_place(scene, out, 51, 99)


def test_a_box_in_another_system(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    inside = (501000.0, 5197500.0, 503000.0, 5199000.0)
    degrees = transform_bounds("EPSG:32632", "EPSG:4326", *inside)
    ut.stylize(scene, out, None, model="identity", bbox=degrees, bbox_crs="EPSG:4326", **TINY)
    with rasterio.open(out) as made, rasterio.open(scene) as whole:
        bounds = made.bounds
        assert bounds[0] <= inside[0] and bounds[1] <= inside[1]
        assert bounds[2] >= inside[2] and bounds[3] >= inside[3]
        # a box in degrees is no box in metres: it holds the other by some pixels more
        assert all(abs(a - b) < 80 for a, b in zip(bounds, inside, strict=True))
        window = whole.window(*bounds).round_offsets().round_lengths()
        np.testing.assert_array_equal(made.read(), whole.read(window=window))


@pytest.mark.parametrize("kind", ["matrix", "point", "gcps", "tie"])
def test_each_way_of_placing_an_image(tmp_path: Path, kind: str) -> None:
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2 if kind == "point" else 1, 3072, 0, 1, 32632)
    place = {
        "matrix": [(34264, 12, 16, (8.0, 6.0, 0.0, 5e5, 6.0, -8.0, 0.0, 5e6, *[0.0] * 7, 1.0), True)],
        "point": [(33550, 12, 3, (10.0, 20.0, 0.0), True), (33922, 12, 6, (0, 0, 0, 5e5, 5e6, 0.0), True)],
        "tie": [(33550, 12, 3, (10.0, 20.0, 0.0), True), (33922, 12, 6, (7.0, 9.0, 0, 5e5, 5e6, 0.0), True)],
        "gcps": [(33922, 12, 24, (0, 0, 0, 5e5, 5e6, 1, 9.5, 0, 0, 6e5, 5e6, 2, 0, 9, 0, 5e5, 4e6, 3, 9, 9, 0,
                                  6e5, 4e6, 4), True)],
    }[kind]  # fmt: skip
    path = geotiff(tmp_path / "in.tif", picture(90, 120), extratags=[*place, (34735, 3, 16, keys, True)])
    out = tmp_path / "out.tif"
    ut.stylize(path, out, None, model="identity", region=(13, 27, 64, 40), **TINY)
    with rasterio.open(path) as before, rasterio.open(out) as after:
        assert after.crs == before.crs
        if kind != "gcps":
            found = affine_of(ut.open_source(path).info.geo)
            assert found is not None and before.transform.almost_equals(astuple(found), precision=1e-9)
            moved = before.transform @ before.transform.translation(13, 27)
            assert after.transform.almost_equals(moved, precision=1e-6)
            return
        points, crs = after.gcps
        assert crs == before.gcps[1] and len(points) == 4
        for old, new in zip(before.gcps[0], points, strict=True):
            assert (new.col, new.row) == (old.col - 13, old.row - 27)
            assert (new.x, new.y, new.z) == (old.x, old.y, old.z)


def test_rational_polynomials_move_by_lines_and_samples(tmp_path: Path) -> None:
    numbers = (
        1.0,
        0.5,
        45.0,
        60.0,
        46.0,
        8.0,
        100.0,
        45.0,
        60.0,
        0.1,
        0.1,
        500.0,
        *[0.01 * i for i in range(80)],
    )
    path = geotiff(tmp_path / "in.tif", picture(90, 120), extratags=[(50844, 12, 92, numbers, True)])
    ut.stylize(path, tmp_path / "out.tif", None, model="identity", region=(13, 27, 64, 40), **TINY)
    with rasterio.open(path) as before, rasterio.open(tmp_path / "out.tif") as after:
        old, new = before.rpcs.to_gdal(), after.rpcs.to_gdal()
        assert float(new["LINE_OFF"]) == 45 - 27 and float(new["SAMP_OFF"]) == 60 - 13
        assert {n: v for n, v in old.items() if n[-4:] != "_OFF"} == {
            n: v for n, v in new.items() if n[-4:] != "_OFF"
        }


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--region", "400,0,10,10"], ["--region 400,0,10,10 lies outside of the image", "400 x 300 px"]),
        (["--region", "-20,5,20,9"], ["lies outside of the image"]),
        (["--region", "1,2,3"], ["--region takes x,y,w,h, got 1,2,3"]),
        (["--region", "1,2,3.5,4"], ["--region takes x,y,w,h"]),
        (["--region", "1,2,0,4"], ["needs a width and a height"]),
        (["--region", "a,b,c,d"], ["expected numbers"]),
        (["--bbox", "0,0,1,1"], ["lies outside of the image", "lies at 500000,5197000,504000,5200000"]),
        (["--bbox", "5,0,1,1"], ["the smaller numbers first"]),
        (["--bbox", "nan,0,1,1"], ["--bbox takes minx,miny,maxx,maxy"]),
        (["--bbox", "0,0,1,1", "--region", "0,0,9,9"], ["give one of them"]),
        (["--bbox", "7,46,8,47", "--bbox-crs", "EPSG:nothing"], ["'EPSG:nothing' is no reference system"]),
        (["--bbox-crs", "EPSG:4326"], ["--bbox-crs is the reference system of --bbox"]),
        (["--statistics-of", "region"], ["needs a part of the image"]),
    ],
)
def test_one_sentence(scene: Path, tmp_path: Path, run: Any, flags: list[str], words: list[str]) -> None:
    done = run("stylize", scene, tmp_path / "out.tif", "--model", "identity", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_box_needs_a_georeference(tmp_path: Path, run: Any) -> None:
    plain, points = tmp_path / "plain.tif", tmp_path / "points.tif"
    tifffile.imwrite(plain, picture(90, 120))
    gcps = (0.0, 0.0, 0.0, 5e5, 5e6, 0.0, 9.0, 9.0, 0.0, 6e5, 6e6, 0.0)
    geotiff(points, picture(90, 120), extratags=[(33922, 12, 12, gcps, True)])
    for path, word in ((plain, "is not georeferenced"), (points, "gdalwarp")):
        done = run("stylize", path, tmp_path / "out.tif", "--model", "identity", "--bbox", "0,0,1,1")
        assert done.returncode == 2 and str(path) in done.stderr
        assert word in done.stderr and "--region" in done.stderr


def test_without_rasterio(scene: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rasterio", None)
    flags = ["--bbox", "7,46,8,47", "--bbox-crs", "EPSG:4326"]
    done = run("stylize", scene, tmp_path / "out.tif", "--model", "identity", *flags)
    assert done.returncode == 2 and "pip install 'urst-tiles[gdal]'" in done.stderr


def test_what_reaches_beyond_the_image_is_cut_off_and_said(scene: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out.tif"
    small = ["--model", "identity", "--tile", 64, "--block", 128, "--thumbnail", 96]
    done = run("stylize", scene, out, "--region", "-10,250,100,100", *small)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "-10,250,100,100" in done.stderr and "0,250,90,50" in done.stderr
    np.testing.assert_array_equal(read(out), read(scene)[250:, :90])
    same_place(scene, out, 0, 250)


# --- what is measured ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statistics",
    [
        "thumbnail",
        pytest.param("exact", marks=pytest.mark.slow),
        pytest.param("sampled", marks=pytest.mark.slow),
    ],
)
def test_statistics_of_the_region_are_those_of_a_file_that_holds_it(
    scene: Path, tmp_path: Path, statistics: str
) -> None:
    # dark beside bright, so that the statistics of the region are others
    pixels = picture(300, 400)
    pixels[:, :150] //= 4
    region = (192, 64, 160, 128)
    whole = geotiff(tmp_path / "whole.tif", pixels, tile=(64, 64))
    alone = geotiff(tmp_path / "alone.tif", cut(pixels, region), tile=(64, 64))
    options = TINY | {"model": "lite", "statistics": statistics}
    made = {}
    for name, path, more in (
        ("region", whole, {"region": region, "statistics_of": "region"}),
        ("image", whole, {"region": region}),
        ("alone", alone, {}),
    ):
        out = tmp_path / f"{name}-out.tif"
        ut.stylize(path, out, "hokusai-wave", **options | more)
        made[name] = read(out).astype(int)
    inner = slice(HALO, -HALO)
    assert np.abs(made["region"] - made["alone"])[inner, inner].max() <= 1
    assert np.abs(made["region"] - made["image"])[inner, inner].mean() > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "more"),
    [("hokusai-wave", {"statistics": "local", "local_scale": 100}),
     ({1: "hokusai-wave", 2: "van-gogh-starry-night"}, {"mask": True})],
)  # fmt: skip
def test_fields_are_measured_over_the_region(tmp_path: Path, style: Any, more: dict[str, Any]) -> None:
    path = geotiff(tmp_path / "in.tif", picture(250, 380), tile=(64, 64))
    if "mask" in more:
        more = {"mask": mask(tmp_path / "mask.tif"), "feather": 20}
    options = TINY | {"model": "lite"} | more
    region = (150, 31, 130, 90)
    for name, extra in (("a", {}), ("b", {"statistics_of": "region"}), ("c", {"statistics_of": "region"})):
        ut.stylize(path, tmp_path / f"{name}.tif", style, region=region, **options | extra)
    image, of_region = read(tmp_path / "a.tif").astype(int), read(tmp_path / "b.tif").astype(int)
    assert 0.5 < np.abs(image - of_region).mean() < 40  # the picture is of a piece, so statistics are near
    assert sha(tmp_path / "b.tif") == sha(tmp_path / "c.tif")


def test_a_preview_of_a_part(scene: Path, tmp_path: Path) -> None:
    options = {"model": "lite", "thumbnail": 64, "device": "cpu"}
    whole = ut.preview(scene, "hokusai-wave", folder=tmp_path, **options)
    part = ut.preview(scene, "hokusai-wave", folder=tmp_path, region=(200, 150, 200, 150), **options)
    assert whole.shape == (64, 85, 3) and part.shape == (64, 85, 3)
    same = ut.preview(
        scene, "hokusai-wave", folder=tmp_path, region=(200, 150, 200, 150), statistics_of="region", **options
    )
    assert (part != same).any() and (part != whole).any()
    picked = ut.preview(
        scene, None, folder=tmp_path, region=(200, 150, 50, 40), **options | {"model": "identity"}
    )
    np.testing.assert_array_equal(picked, read(scene)[150:190, 200:250])


def test_a_preview_says_its_scale(scene: Path, tmp_path: Path, run: Any) -> None:
    flags = ("--model", "lite", "--style", "hokusai-wave", "--thumbnail", "100")
    for words, said in (
        ((), "times smaller than INPUT"),
        (("--region", "200,150,200,150"), ", 1.5 times smaller than INPUT"),
        (("--region", "200,150,90,60"), ""),
    ):
        done = run("preview", scene, tmp_path / "small.png", *flags, *words, "--overwrite")
        assert done.returncode == 0, done.stderr
        line = (done.stdout + done.stderr).strip().splitlines()[-1]
        assert said in line if said else "smaller" not in line, line


def test_a_table_of_jobs_has_regions(scene: Path, tmp_path: Path, run: Any) -> None:
    (tmp_path / "jobs.toml").write_text(
        f'inputs = "{scene}"\n'
        'options = {model = "identity", tile = 64, block = 128, thumbnail = 96}\n'
        '[[jobs]]\noutput = "a.tif"\noptions = {region = [51, 33, 167, 205]}\n'
        '[[jobs]]\noutput = "b.tif"\noptions = {bbox = [500510, 5198000, 501234, 5199000.5]}\n'
    )
    done = run("run", tmp_path / "jobs.toml")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), cut(read(scene), (51, 33, 167, 205)))
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), read(scene)[99:200, 51:124])
    before = (tmp_path / "a.tif").stat().st_mtime_ns
    assert run("run", tmp_path / "jobs.toml").returncode == 0
    assert (tmp_path / "a.tif").stat().st_mtime_ns == before


def test_a_part_of_a_painting(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "in.tif", picture(300, 400), tile=(64, 64))
    options = {"model": "painter", "stroke": 4, "tile": 128, "block": 128}
    check_parts(path, tmp_path, "monet-water-lilies", [(51, 33, 167, 205)], **options)


@pytest.mark.slow
def test_a_part_of_a_painting_needs_parts_of_the_levels_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each level is measured in two small windows here, so that most of it is not needed."""
    monkeypatch.setattr("urst_tiles.engine.sampled.WINDOWS", 2)
    monkeypatch.setattr("urst_tiles.engine.sampled.CORE", 16)
    plans, for_blocks = list[Plan](), Plan.for_blocks

    def noted(plan: Plan, wanted: tuple[int, ...] | None) -> Plan:
        plans.append(for_blocks(plan, wanted))
        return plans[-1]

    monkeypatch.setattr(Plan, "for_blocks", noted)
    path = geotiff(tmp_path / "in.tif", picture(500, 620), tile=(64, 64))
    options = {"model": "painter", "stroke": 4, "tile": 64, "block": 64}
    check_parts(path, tmp_path, "monet-water-lilies", [(7, 9, 40, 50)], **options)
    whole, part = plans[:2], plans[2:]
    assert [plan.wanted for plan in whole] == [None, None]
    assert [plan.level for plan in part] == [1, 2]
    assert part[0].wanted is not None and 4 <= len(part[0].wanted) <= 16 < len(part[0].grid) == 20
    assert 0 in part[0].wanted
