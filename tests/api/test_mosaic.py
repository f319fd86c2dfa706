"""Jobs whose input is many files: the same result as that of the scene that they were cut from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, one_sentence, picture
from mosaics import EAST, NORTH, SIZE, cut, placed, tile

import urst_tiles as ut

SMALL = {"tile": 128, "block": 512, "thumbnail": 128}
FLAGS = ("--model", "identity", "--tile", "128", "--block", "512", "--thumbnail", "64")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return picture(900, 1100)


@pytest.fixture(scope="module")
def place(scene: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scene.tif, and with a folder ``tiles`` of 64 parts of it."""
    folder = tmp_path_factory.mktemp("mosaic")
    geotiff(folder / "scene.tif", scene)
    cut(folder / "tiles", scene, 8, 8)
    return folder


@pytest.mark.parametrize("statistics", ["thumbnail", pytest.param("exact", marks=pytest.mark.slow)])
def test_tiles_come_out_as_the_scene_does(place: Path, tmp_path: Path, statistics: str) -> None:
    for name in ("scene.tif", "tiles"):
        ut.stylize(place / name, tmp_path / f"{name}.out.tif", "hokusai-wave", statistics=statistics, **SMALL)
    with rasterio.open(tmp_path / "scene.tif.out.tif") as a, rasterio.open(tmp_path / "tiles.out.tif") as b:
        assert (a.transform, a.crs, a.nodata, a.shape) == (b.transform, b.crs, b.nodata, b.shape)
        np.testing.assert_array_equal(a.read(), b.read())
        assert a.read().std() > 20
    assert ut.validate(tmp_path / "tiles.out.tif").valid


@pytest.mark.slow
def test_painter_and_local_statistics(place: Path, tmp_path: Path) -> None:
    for more in ({"model": "painter", "stroke": 2}, {"statistics": "local", "local_scale": 256}):
        for name in ("scene.tif", "tiles"):
            ut.stylize(place / name, tmp_path / name.replace("tiles", "t.tif"), "hokusai-wave",
                       overwrite=True, **SMALL, **more)  # fmt: skip
        np.testing.assert_array_equal(*(tifffile.imread(tmp_path / n) for n in ("scene.tif", "t.tif")))


def test_gaps_stay_invalid_and_no_dark_border_bleeds_in(scene: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    tile(tmp_path / "t" / "1.tif", scene, 0, 0, 500, 600)
    tile(tmp_path / "t" / "2.tif", scene, 300, 550, 900, 1100)
    holes = np.dstack([scene, np.zeros(scene.shape[:2], np.uint8)])
    holes[:500, :600, 3] = holes[300:, 550:, 3] = 255
    geotiff(tmp_path / "one.tif", np.where(holes[..., 3:] > 0, holes, 0), extrasamples=["unassalpha"])
    outputs = []
    for name in ("t", "one.tif"):
        ut.stylize(tmp_path / name, tmp_path / f"{name}.out.tif", "hokusai-wave", **SMALL)
        with rasterio.open(tmp_path / f"{name}.out.tif") as after:
            outputs.append((after.read((1, 2, 3)), after.dataset_mask() > 0))
    np.testing.assert_array_equal(outputs[0][1], holes[..., 3] > 0)
    np.testing.assert_array_equal(outputs[0][1], outputs[1][1])
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])


@pytest.mark.parametrize("option", ["aoi", "valid", "each", pytest.param("mask", marks=pytest.mark.slow)])
def test_areas_of_many_files_are_those_of_the_scene(place: Path, tmp_path: Path, option: str, run) -> None:
    """An area stands around the reader of the files: threads that open both must not wait for each other."""
    corners = [[100, 80], [900, 150], [700, 600], [120, 500], [100, 80]]
    ring = [[EAST + SIZE * x, NORTH - SIZE * y] for x, y in corners]
    area = {"type": "Polygon", "coordinates": [ring]}
    one = {"type": "Feature", "id": "a", "properties": {"n": 1}, "geometry": area}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [one]}))
    more = [f"--{option}", str(aoi)] if option != "each" else ["--aoi", str(aoi), "--each"]
    model = ["--model", "lite", "--style", "1=hokusai-wave"] if option == "mask" else FLAGS[:2]
    for name in ("scene.tif", "tiles"):
        done = run("stylize", place / name, tmp_path / Path(name).stem, *model, *FLAGS[2:], *more)
        assert done.returncode == 0, done.stderr
    found = [tmp_path / name / ("a.tif" if option == "each" else "") for name in ("scene", "tiles")]
    with rasterio.open(found[0]) as a, rasterio.open(found[1]) as b:
        assert (a.transform, a.crs, a.shape) == (b.transform, b.crs, b.shape)
        np.testing.assert_array_equal(a.read(), b.read())
        np.testing.assert_array_equal(a.dataset_mask(), b.dataset_mask())
        assert option == "mask" or 0.2 < (a.dataset_mask() > 0).mean() < 0.9


def test_workers_shards_and_a_table_read_the_same_image(place: Path, tmp_path: Path, run) -> None:
    (tmp_path / "l.txt").write_text("\n".join(str(p) for p in sorted((place / "tiles").iterdir())))
    inputs = [place / "tiles", f"{place}/tiles/*.tif", f"@{tmp_path}/l.txt"]
    for number, name in enumerate(inputs):
        assert run("plan", name, tmp_path / f"{number}.tif", *FLAGS, "--save", tmp_path / "j").returncode == 0
        assert run("work", tmp_path / "j").returncode == 0
        assert run("assemble", tmp_path / "j").returncode == 0
    (tmp_path / "jobs.toml").write_text(
        f'output = "{{stem}}.out.tif"\ninputs = ["{place}/tiles", "@l.txt"]\n'
        "options = {model = 'identity', tile = 128, block = 512, thumbnail = 64}\n"
    )
    for words in ("2 done", "2 were done before"):
        done = run("run", tmp_path / "jobs.toml")
        assert done.returncode == 0 and words in done.stdout, done.stderr
    names = ["0.tif", "1.tif", "2.tif", "tiles.out.tif", "l.out.tif"]
    for one in names:
        np.testing.assert_array_equal(tifffile.imread(tmp_path / one), tifffile.imread(place / "scene.tif"))


def test_info_plan_and_preview(place: Path, tmp_path: Path, run) -> None:
    told = json.loads(run("info", place / "tiles", "--json").stdout)
    assert told["made of"].startswith("64 files as one image of 1100 x 900") and told["georeferenced"]
    assert "64 files" in run("info", f"{place}/tiles/*.tif").stdout
    plan = json.loads(run("plan", place / "tiles", tmp_path / "o.tif", *FLAGS, "--json").stdout)
    assert (plan["grid"]["height"], plan["grid"]["width"]) == (900, 1100)
    for name in ("tiles", "scene.tif"):
        assert run("preview", place / name, tmp_path / f"{name}.png", *FLAGS).returncode == 0
    assert (tmp_path / "tiles.png").read_bytes() == (tmp_path / "scene.tif.png").read_bytes()


def test_outputs_among_the_inputs_are_refused(place: Path, tmp_path: Path, run) -> None:
    tiles = place / "tiles"
    before = sorted(tiles.iterdir())
    for name in (tiles, f"{tiles}/*.tif"):
        one_sentence(run("stylize", name, tiles / "out.tif", *FLAGS), 2, "out.tif", "another folder")
    (tmp_path / "l.tif").write_text(f"{before[0]}\n{before[1]}\n")
    for output in (before[1], tmp_path / "l.tif"):
        done = run("stylize", f"@{tmp_path}/l.tif", output, *FLAGS, "--overwrite")
        assert done.returncode == 2 and "same file" in done.stderr.splitlines()[-1]
    assert sorted(tiles.iterdir()) == before


def test_a_tile_that_was_edited_ends_the_job(place: Path, tmp_path: Path, run, scene: np.ndarray) -> None:
    folder = cut(tmp_path / "t", scene, 3, 3)
    output = tmp_path / "out.tif"
    ut.save_job(tmp_path / "job", folder, output, None, model="identity", **SMALL)
    ut.work_job(tmp_path / "job", ut.Shard(1, 2))
    edited = folder / "tile4.tif"
    old = edited.read_bytes()
    pixels = tifffile.imread(edited)
    pixels[3, 3] ^= 1
    with tifffile.TiffFile(edited) as tiff:
        tags = [
            (t.code, t.dtype, t.count, t.value, True) for t in tiff.pages[0].tags if 33000 < t.code < 35000
        ]
    geotiff(edited, pixels, extratags=tags)
    for command in (("work", tmp_path / "job"), ("assemble", tmp_path / "job")):
        done = run(*command)
        assert done.returncode in (1, 2) and "planned" in done.stderr, done.stderr
    edited.write_bytes(old)
    assert run("work", tmp_path / "job").returncode == run("assemble", tmp_path / "job").returncode == 0
    np.testing.assert_array_equal(tifffile.imread(output), scene)


@pytest.mark.slow
def test_two_worker_processes_read_the_files(place: Path, tmp_path: Path) -> None:
    ut.stylize(place / "tiles", tmp_path / "o.tif", None, model="identity", workers=2, **SMALL)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), tifffile.imread(place / "scene.tif"))


def test_an_output_for_each_input(place: Path, tmp_path: Path, run) -> None:
    """Each has the pixels of the whole at its place, and the georeferencing of its input."""
    ut.stylize(place / "tiles", tmp_path / "whole.tif", "hokusai-wave", **SMALL)
    ut.stylize(place / "tiles", tmp_path / "out", "hokusai-wave", tiles="same", **SMALL)
    names = sorted(path.name for path in (place / "tiles").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole.tif"]
    with rasterio.open(tmp_path / "whole.tif") as whole:
        for name in names:
            with rasterio.open(tmp_path / "out" / name) as after, rasterio.open(place / "tiles" / name) as b:
                assert (after.crs, after.transform, after.shape) == (b.crs, b.transform, b.shape)
                window = whole.window(*after.bounds).round()
                np.testing.assert_array_equal(after.read(), whole.read(window=window))
        assert ut.validate(tmp_path / "out" / names[0]).valid
    with pytest.raises(ut.BadInput, match="overwrite"):
        ut.stylize(place / "tiles", tmp_path / "out", "hokusai-wave", tiles="same", **SMALL)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_output_for_each_input_with_gaps(scene: np.ndarray, tmp_path: Path, run, dtype: str) -> None:
    values = scene.astype(dtype)
    values[100:150, 100:150] = 0
    (tmp_path / "t").mkdir()
    options = {"extratags": [*placed(0, 0), (42113, "s", 0, "0", True)]}
    tile(tmp_path / "t" / "1.tif", values, 0, 0, 500, 600, **options)
    options = {"extratags": [*placed(300, 700), (42113, "s", 0, "0", True)]}
    tile(tmp_path / "t" / "2.tif", values, 300, 700, 900, 1100, **options)
    flags = (*FLAGS, "--stretch", "0,65535", "--tiles", "same")
    assert run("plan", tmp_path / "t", tmp_path / "o", *flags, "--save", tmp_path / "j").returncode == 0
    assert run("work", tmp_path / "j").returncode == 0
    assert run("assemble", tmp_path / "j").returncode == 0
    for name, box in (("1.tif", (0, 0, 500, 600)), ("2.tif", (300, 700, 900, 1100))):
        part = values[box[0] : box[2], box[1] : box[3]]
        with rasterio.open(tmp_path / "o" / name) as after:
            assert after.nodata == 0 and after.dtypes[0] == dtype
            valid = after.dataset_mask() > 0
            np.testing.assert_array_equal(valid, (part != 0).any(-1))
            np.testing.assert_array_equal(after.read().transpose(1, 2, 0)[valid], part[valid])


def test_folders_of_outputs_that_are_refused(place: Path, tmp_path: Path, run) -> None:
    tiles, same = place / "tiles", ("--tiles", "same", *FLAGS)
    (tmp_path / "file").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tile3.tif").touch()
    (tmp_path / "l.txt").write_text(f"{tiles}/tile3.tif\n{tmp_path}/b/tile3.tif")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tile3.tif").write_bytes((tiles / "tile3.tif").read_bytes())
    for name, output, words in (
        (place / "scene.tif", "o", "is one"),
        (tiles, tiles, "folder of the input"),
        (tiles, "file", "is a file"),
        (tiles, "none/o", "no folder"),
        (tiles, "a", "a/tile3.tif exists"),
        (f"@{tmp_path}/l.txt", "o", "both become"),
    ):
        done = run("stylize", name, tmp_path / output, *same)
        assert done.returncode == 2 and words in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "o").exists() and not (tmp_path / "a.job").exists()


def test_cutting_goes_on_where_it_was_stopped(place: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "cutting" and done == 5:
            raise KeyboardInterrupt

    job = (place / "tiles", tmp_path / "out", None)
    options = {"model": "identity", "tiles": "same"} | SMALL
    with pytest.raises(KeyboardInterrupt):
        ut.stylize(*job, progress=stop, **options)
    assert len(list((tmp_path / "out").iterdir())) == 5
    report = ut.stylize(*job, **options)
    assert report.blocks_run == 0 and len(list((tmp_path / "out").iterdir())) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
