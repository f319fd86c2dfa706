"""An output for each feature of an area of interest: the pixels of the whole run, one file for each name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.features
import tifffile
import zarr
from colours import slide
from helpers import geotiff, picture, sha

import urst_tiles as ut
from urst_tiles.api import each as module
from urst_tiles.source.feature_names import feature_names
from urst_tiles.source.features import Feature

TINY: dict[str, Any] = {
    "tile": 64, "block": 128, "precision": "float32", "device": "cpu", "threads": 1, "thumbnail": 96,
}  # fmt: skip
FLAGS = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
SHAPE = (300, 400)

#: Features: a triangle; a box that overlaps the box of the triangle; two polygons far apart.
RINGS: dict[str, list[list[list[float]]]] = {
    "north/a": [[[70, 40], [180, 60], [120, 200], [70, 40]]],
    "south": [[[150, 30], [300, 30], [300, 90], [150, 90], [150, 30]]],
    "two": [[[5, 210], [60, 210], [60, 290], [5, 210]], [[310, 250], [390, 255], [390, 295], [310, 250]]],
}
BOXES = {"north/a": (70, 40, 180, 200), "south": (150, 30, 300, 90), "two": (5, 210, 390, 295)}

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    tifffile.imwrite(path, picture(*SHAPE), tile=(64, 64), photometric="rgb")
    return path


def features(path: Path, rings: Any = None, ids: Any = (7, 9, 11)) -> Path:
    found = [
        {
            "type": "Feature",
            **({} if number is None else {"id": number}),
            "properties": {"name": name, "kind": "field", "code": n},
            "geometry": {"type": "MultiPolygon", "coordinates": [[ring] for ring in own]},
        }
        for n, ((name, own), number) in enumerate(zip((rings or RINGS).items(), ids, strict=True))
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    return path


def inside(name: str) -> np.ndarray:
    """Which pixels of a feature's box lie in its own polygons."""
    x0, y0, x1, y1 = BOXES[name]
    shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in RINGS[name]]
    return rasterio.features.rasterize(shapes, SHAPE)[y0:y1, x0:x1] == 1


def check(whole: np.ndarray, corner: tuple[int, int], out: Path, name: str) -> None:
    """A file has the pixels of the whole run inside its own feature, and says that all others are invalid."""
    x0, y0, x1, y1 = BOXES[name]
    own, (x, y) = inside(name), corner
    with rasterio.open(out) as file:
        made, valid = file.read([1, 2, 3]).transpose(1, 2, 0), file.dataset_mask() > 0
    np.testing.assert_array_equal(valid, own, err_msg=name)
    expected = np.where(own[..., None], whole[y0 - y : y1 - y, x0 - x : x1 - x], 0)
    np.testing.assert_array_equal(made, expected, err_msg=name)
    assert made[own].std() > 15 and ut.validate(out).valid


def test_each_feature_has_the_pixels_of_the_whole_run(scene: Path, tmp_path: Path) -> None:
    aoi, options = features(tmp_path / "aoi.geojson"), TINY | {"model": "lite", "tile": 128}
    ut.stylize(scene, tmp_path / "whole.tif", "hokusai-wave", aoi=aoi, **options)
    whole = tifffile.imread(tmp_path / "whole.tif")
    report = ut.stylize(scene, tmp_path / "by-id", "hokusai-wave", aoi=aoi, each=True, **options)
    assert [path.name for path in report.outputs] == ["7.tif", "9.tif", "11.tif"]
    assert report.plan.outputs == 3 and report.plan.output_pixels == 110 * 160 + 150 * 60 + 385 * 85
    for out, name in zip(report.outputs, RINGS, strict=True):
        check(whole, (5, 30), out, name)
    ut.stylize(scene, tmp_path / "crop-{id}.tif", "hokusai-wave", aoi=aoi, each="name", **options)
    made = sorted(path.name for path in tmp_path.glob("crop-*"))
    assert made == ["crop-north_a.tif", "crop-south.tif", "crop-two.tif"]
    pixels = [tifffile.imread(tmp_path / one) for one in ("by-id/9.tif", "crop-south.tif")]
    np.testing.assert_array_equal(*pixels)


@pytest.mark.parametrize("kind", ["bands", "maps", "maps by tissue"])
def test_bands_and_maps_of_stains_are_those_of_the_whole_run(kind: str, tmp_path: Path) -> None:
    five = kind == "bands"
    image = (
        np.concatenate([picture(*SHAPE), picture(*SHAPE, seed=1)[..., :2]], 2) if five else slide(*SHAPE, 0)
    )
    scene, style = tmp_path / "scene.tif", str(tmp_path / "scene.tif") if five else None
    with rasterio.open(
        scene, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=image.shape[2], dtype="uint8",
        photometric="minisblack" if five else "rgb", tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
        if five:
            file.descriptions = ("B2", "B3", "B4", None, "B8")
    made = (
        {"model": "colour", "method": "mean-std", "bands": "all"}
        if five
        else {"model": "stain", "stains": "H,E"}
    )
    made |= {"valid": "tissue"} if kind == "maps by tissue" else {}
    options = TINY | made | {"aoi": features(tmp_path / "aoi.geojson")}
    ut.stylize(scene, tmp_path / "whole.tif", style, **options)
    report = ut.stylize(scene, tmp_path / "out", style, each=True, **options)
    with rasterio.open(tmp_path / "whole.tif") as file:
        whole, valid, names = file.read(), file.dataset_mask() > 0, file.descriptions
    assert names == (("B2", "B3", "B4", None, "B8") if five else ("hematoxylin", "eosin"))
    for out, (name, (x0, y0, x1, y1)) in zip(report.outputs, BOXES.items(), strict=True):
        place = slice(y0 - 30, y1 - 30), slice(x0 - 5, x1 - 5)
        own = inside(name) & valid[place]
        with rasterio.open(out) as file:
            np.testing.assert_array_equal(file.dataset_mask() > 0, own, err_msg=name)
            np.testing.assert_array_equal(file.read()[:, own], whole[:, *place][:, own], err_msg=name)
            assert file.descriptions == names and not file.read()[:, ~own].any()
        assert ut.validate(out).valid and own.sum() > 500


def test_blocks_without_a_feature_are_not_computed(scene: Path, tmp_path: Path) -> None:
    rings = {
        "a": [[[5, 5], [60, 5], [60, 50], [5, 5]]],
        "b": [[[350, 260], [390, 260], [390, 290], [350, 260]]],
    }
    aoi = features(tmp_path / "aoi.geojson", rings, ids=(1, 2))
    plan, _ = ut_plan(scene, tmp_path / "out", aoi)
    assert plan.wanted == (0, 6, 7, 10, 11) and len(plan.grid) == 12
    report = ut.stylize(scene, tmp_path / "out", None, aoi=aoi, each=True, model="identity", **TINY)
    made = tifffile.imread(report.outputs[1])
    valid = tifffile.imread(report.outputs[1], key=1) > 0
    np.testing.assert_array_equal(made[valid], picture(*SHAPE)[260:290, 350:390][valid])


def ut_plan(scene: Path, output: Path, aoi: Path, **more: Any) -> Any:
    from urst_tiles.api.stylize import plan_job

    return plan_job(scene, output, None, aoi=aoi, each=True, model="identity", **TINY | more)


def test_each_file_lies_at_its_own_place(tmp_path: Path) -> None:
    scene = geotiff(tmp_path / "scene.tif", picture(*SHAPE), tile=(64, 64))
    with rasterio.open(scene) as file:
        before = file.transform
        corners = [before @ (x, y) for x, y in ((150, 30), (300, 30), (300, 90), (150, 90), (150, 30))]
        name = f"urn:ogc:def:crs:EPSG::{file.crs.to_epsg()}"
    shape = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corners]}}
    aoi = tmp_path / "aoi.geojson"
    crs = {"type": "name", "properties": {"name": name}}
    aoi.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [shape]}))
    for form, suffix in (("tif", "tif"), ("png", "png")):
        ut.stylize(scene, tmp_path / form, None, aoi=aoi, each=True, format=form, model="identity", **TINY)
        with rasterio.open(tmp_path / form / f"1.{suffix}") as file:
            assert file.transform.almost_equals(before @ before.translation(150, 30)) and file.shape == (
                60,
                150,
            )
            assert file.crs.to_epsg() == int(name.split(":")[-1])
            np.testing.assert_array_equal(
                file.read([1, 2, 3]).transpose(1, 2, 0), picture(*SHAPE)[30:90, 150:300]
            )


@pytest.mark.parametrize(
    "name", ["{id}.ome.zarr", pytest.param("{id}.jp2", marks=pytest.mark.slow), "{id}.jpg"]
)
def test_outputs_of_other_formats(scene: Path, tmp_path: Path, name: str) -> None:
    aoi = features(tmp_path / "aoi.geojson")
    options = TINY | {"model": "identity", "quality": 95}
    report = ut.stylize(scene, tmp_path / name, None, aoi=aoi, each=True, **options)
    assert all(ut.validate(path).valid for path in report.outputs) and len(report.outputs) == 3
    if name.endswith("zarr"):
        group = zarr.open_group(tmp_path / "9.ome.zarr", mode="r")
        made = np.moveaxis(np.asarray(group["0"][:]), 0, -1)
        np.testing.assert_array_equal(made[..., :3], picture(*SHAPE)[30:90, 150:300])


def test_pixels_are_encoded_with_loss_once(scene: Path, tmp_path: Path) -> None:
    aoi = features(tmp_path / "aoi.geojson")
    options = TINY | {"model": "identity", "compression": "jpeg", "quality": 40, "blocksize": 64}
    report = ut.stylize(scene, tmp_path / "out", None, aoi=aoi, each=True, **options)
    x0, y0, x1, y1 = BOXES["south"]
    cut = tmp_path / "cut.tif"
    tifffile.imwrite(cut, picture(*SHAPE)[y0:y1, x0:x1], tile=(64, 64), photometric="rgb")
    ut.stylize(cut, tmp_path / "once.tif", None, **options)
    np.testing.assert_array_equal(
        tifffile.imread(report.outputs[1], key=0), tifffile.imread(tmp_path / "once.tif", key=0)
    )


def test_an_interrupted_job_goes_on(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aoi, out = features(tmp_path / "aoi.geojson"), tmp_path / "out"
    finish, made = module.finish, []

    def failing(parts: Any, info: Any, target: Path, *rest: Any, **more: Any) -> None:
        if target.name == "9.tif" and len(made) == 1:
            raise KeyboardInterrupt
        made.append(target.name)
        finish(parts, info, target, *rest, **more)

    monkeypatch.setattr(module, "finish", failing)
    with pytest.raises(KeyboardInterrupt):
        ut.stylize(scene, out, None, aoi=aoi, each=True, model="identity", **TINY)
    assert [path.name for path in out.iterdir()] == ["7.tif"] and (tmp_path / "out.job").is_dir()
    state = (out / "7.tif").stat()
    made.append("again")
    report = ut.stylize(scene, out, None, aoi=aoi, each=True, model="identity", **TINY)
    assert made == ["7.tif", "again", "9.tif", "11.tif"] and report.blocks_run == 0
    assert (out / "7.tif").stat() == state and sorted(p.name for p in out.iterdir()) == sorted(
        ["7.tif", "9.tif", "11.tif"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aoi.geojson", "out", "scene.tif"]


def test_machines_share_a_job(scene: Path, tmp_path: Path) -> None:
    aoi, options = features(tmp_path / "aoi.geojson"), TINY | {"model": "identity"}
    once = ut.stylize(scene, tmp_path / "once", None, aoi=aoi, each="name", **options)
    ut.save_job(tmp_path / "job", scene, tmp_path / "out-{name}.tif", None, aoi=aoi, each="name", **options)
    for share in ("1/2", "2/2"):
        ut.work_job(tmp_path / "job", ut.Shard.parse(share))
    report = ut.assemble_job(tmp_path / "job")
    assert [path.name for path in report.outputs] == ["out-north_a.tif", "out-south.tif", "out-two.tif"]
    assert [sha(path) for path in report.outputs] == [sha(path) for path in once.outputs]
    assert not (tmp_path / "job").exists()


def test_what_is_refused_before_any_work(scene: Path, tmp_path: Path, run: Any) -> None:
    aoi, common = features(tmp_path / "aoi.geojson"), ["--model", "identity", *FLAGS]

    def refused(output: str, *more: Any) -> str:
        done = run("stylize", scene, tmp_path / output, "--aoi", aoi, *more, *common)
        assert done.returncode == 2 and done.stderr.count("\n") < 5 and "Traceback" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return str(done.stderr)

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "south.tif").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert "needs a name of its own" in refused("out", "--each", "kind")
    assert "has no attribute nam (its attributes are name, kind, code)" in refused("out", "--each", "nam")
    assert "south.tif exists; give --overwrite" in refused("taken", "--each", "name")
    assert "name a folder, or put {id} into" in refused("out.tif", "--each")
    assert "puts the name of a feature in the place of {id}" in refused("{code}.tif", "--each", "name")
    assert (tmp_path / "taken" / "south.tif").read_text() == "mine"
    done = run("stylize", scene, tmp_path / "out", "--each", *common)
    assert done.returncode == 2 and "each feature of --aoi FILE; give that too" in done.stderr
    done = run("preview", scene, tmp_path / "out.png", "--aoi", aoi, "--each", *common)
    assert done.returncode == 2 and "preview shows the area as one picture" in done.stderr


def test_the_plan_counts_the_files(scene: Path, tmp_path: Path, run: Any) -> None:
    far = RINGS | {"far": [[[900, 0], [950, 0], [950, 50], [900, 0]]]}
    aoi = features(tmp_path / "aoi.geojson", far, ids=(None, None, None, None))
    done = run("plan", scene, tmp_path / "out", "--aoi", aoi, "--each", "--model", "identity", *FLAGS)
    assert done.returncode == 0 and "files        3, one for each feature" in done.stdout
    assert "named by the number; outside of the image, and left out: 4" in done.stderr
    away = features(tmp_path / "away.geojson", {"a": far["far"]}, ids=(1,))
    done = run("plan", scene, tmp_path / "out", "--aoi", away, "--each", "--model", "identity", *FLAGS)
    assert done.returncode == 2 and "lies outside of the image" in done.stderr


def named(*values: Any, ids: Any = None) -> list[str]:
    ids = ids or [None] * len(values)
    found = [Feature([], {"a": value}, number) for value, number in zip(values, ids, strict=True)]
    return feature_names(Path("f.geojson"), found, "a" if ids[0] is None else "id")[0]


def test_names_are_safe() -> None:
    assert named("../x", ".hidden", "con", "nul.tif", "-rf", "a:b", " c. ", 3.0, 2.5, True) == [
        "_._x", "_hidden", "_con", "_nul.tif", "_-rf", "a_b", "c", "3", "2.5", "true",
    ]  # fmt: skip
    assert named("ä" * 150)[0] == "ä" * 100
    assert named(1, 2, ids=["x/y", "z"]) == ["x_y", "z"]
    for bad in ((None,), ("",), ("...",), ({"b": 1},), ("a", "A"), ("a/b", "a_b"), ("é", "é")):
        with pytest.raises(ut.BadInput, match=r"f\.geojson: "):
            named(*bad)


def test_glass_around_a_feature_stays_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tissue = ((y - 150) / 130) ** 2 + ((x - 200) / 180) ** 2 < 1
    pixels = np.where(tissue[..., None], [196, 120, 170], [238, 237, 240]) + random.normal(0, 4, (*SHAPE, 3))
    before, path = np.clip(pixels, 0, 255).astype(np.uint8), tmp_path / "slide.tif"
    tifffile.imwrite(path, before, tile=(64, 64), photometric="rgb")
    aoi, options = features(tmp_path / "aoi.geojson"), TINY | {"model": "lite", "valid": "tissue"}
    report = ut.stylize(path, tmp_path / "out", "hokusai-wave", aoi=aoi, each="name", **options)
    x0, y0, x1, y1 = BOXES["north/a"]
    made = tifffile.imread(report.outputs[0], key=0)
    valid = tifffile.imread(report.outputs[0], key=1) > 0
    assert (valid <= inside("north/a")).all() and valid.mean() > 0.3
    np.testing.assert_array_equal(made[~valid], before[y0:y1, x0:x1][~valid])  # also where "south" is painted
    assert np.abs(made[valid].astype(int) - before[y0:y1, x0:x1][valid]).mean() > 20
