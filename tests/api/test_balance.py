"""Scenes are made alike where they overlap: gains are found, seams go, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import geotiff, one_sentence, sha
from mosaics import placed, tile
from scenes import BOXES, GAINS, OFFSETS, ground, seen, written_scenes

import urst_tiles as ut
from urst_tiles.api.balance_table import BalanceTable
from urst_tiles.errors import BadInput


def pixels(path: Path) -> np.ndarray:
    return tifffile.imread(path).astype(float)


def jumps(folder: Path, numbers: range = range(5), shift: int = 0) -> list[float]:
    """The largest difference of means, of any channel, where each pair of scenes overlaps, read from files
    and not from the table."""
    found = []
    for i in numbers:
        for j in range(i + 1, numbers.stop):
            a, b = BOXES[i], BOXES[j]
            y0, x0, y1, x1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
            if y1 - y0 > 0 and x1 - x0 > 0:
                means = [
                    pixels(folder / f"scene{n}.tif")[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]]
                    .reshape(-1, 3)
                    .mean(0)
                    for n, box in ((i, a), (j, b))
                ]
                found.append(float(np.abs(means[0] - means[1]).max()))
    return found


@pytest.fixture
def solve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., BalanceTable]:
    """The table of a balance, whose jobs are not run."""
    monkeypatch.setattr("urst_tiles.api.balance.run_batch", lambda *given, **more: iter(()))

    def solved(scenes: Any, **options: Any) -> BalanceTable:
        return ut.balance(scenes, tmp_path / "solved", overwrite=True, **options).table

    return solved


def right(table: BalanceTable, gains: np.ndarray, offsets: np.ndarray, within: float = 0.01) -> None:
    """The gains within a percent, and the offsets within that share of the range of values."""
    limits = np.array(table.facts["range"]) / table.facts["levels"]
    for n, (gain, offset) in enumerate(zip(gains, offsets, strict=True)):
        found = table.of(n)
        np.testing.assert_allclose(found[0], gain, rtol=within)
        assert (np.abs(found[1] - offset) < within * limits).all()


def test_no_seam_is_left_and_the_same_call_has_nothing_to_do(run, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in", numbers=range(4))
    reference = ("--reference", scenes[0])
    done = run("balance", tmp_path / "in", "-o", tmp_path / "out", *reference)
    assert done.returncode == 0, done.stderr
    assert "4 scenes, compared in cells of 40 x 40 units on the ground (4 x 4 pixels of scene0" in done.stderr
    assert "4 done, 0 were done before, 0 failed" in done.stdout
    limit = 0.01 * (np.percentile(pixels(scenes[0]), 99) - np.percentile(pixels(scenes[0]), 1))
    assert min(jumps(tmp_path / "in", range(4))) > 5 * limit
    assert max(jumps(tmp_path / "out", range(4))) < limit
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "scene0.tif"), pixels(scenes[0]))
    table = BalanceTable(json.loads((tmp_path / "out" / "balance.json").read_text()))
    right(table, GAINS[:4], OFFSETS[:4])
    assert table.facts["reference"] == "scene0.tif" and len(table.facts["overlaps"]) == 6
    for n, scene in enumerate(scenes):
        made = tmp_path / "out" / f"scene{n}.tif"
        assert ut.validate(made).valid
        with tifffile.TiffFile(scene) as a, tifffile.TiffFile(made) as b:
            assert a.pages[0].tags[33922].value == b.pages[0].tags[33922].value
            assert b.pages[0].dtype == np.uint8
        gain, offset = table.of(n)
        wanted = np.clip(pixels(scene) * gain + offset * 255, 0, 255)
        assert np.abs(pixels(made) - wanted).max() <= 0.51
    assert not list((tmp_path / "out").glob("*.job"))
    again = run("balance", tmp_path / "in", "-o", tmp_path / "out", *reference)
    assert again.returncode == 0 and "0 done, 4 were done before" in again.stdout


def test_without_a_reference_mean_and_spread_of_all_stay(solve, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in", np.uint16)
    table = solve(scenes)
    shifted = [
        pixels(path) * g + o * 65535 for path, (g, o) in zip(scenes, map(table.of, range(5)), strict=True)
    ]
    before = np.concatenate([pixels(path).reshape(-1, 3) for path in scenes])
    after = np.concatenate([one.reshape(-1, 3) for one in shifted])
    assert np.abs(after.mean(0) - before.mean(0)).max() < 0.01 * np.ptp(before, 0).max()
    ratios = np.stack([table.of(n)[0] / table.of(0)[0] for n in range(5)])
    np.testing.assert_allclose(ratios, GAINS / GAINS[0], rtol=0.01)
    assert table.seams[0] > 0.1 and table.seams[1] < 0.01


def test_uint16_stays_uint16(tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in", np.uint16, numbers=range(2))
    made = ut.balance(scenes, tmp_path / "out", reference=scenes[1])
    right(made.table, GAINS[:2] / GAINS[1], (OFFSETS[:2] - OFFSETS[1]) / GAINS[1] * 10000 / 65535)
    assert tifffile.imread(tmp_path / "out" / "scene0.tif").dtype == np.uint16
    spread = np.ptp(np.percentile(pixels(scenes[1]), (1, 99)))
    assert max(jumps(tmp_path / "out", range(2))) < 0.01 * spread < max(jumps(tmp_path / "in", range(2)))


def test_clouds_over_a_third_of_every_overlap_change_little(solve, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in")
    clear = solve(scenes, reference=scenes[0])
    random = np.random.default_rng(5)
    for n in (1, 3):
        image = tifffile.imread(scenes[n])
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        cloud = np.sin(x / 13 + n) * np.sin(y / 17) > 0.25
        image[cloud] = np.clip(random.normal(225, 12, (int(cloud.sum()), 3)), 1, 254)
        assert 0.25 < cloud.mean() < 0.45
        tile(scenes[n], np.pad(image, ((BOXES[n][0], 0), (BOXES[n][1], 0), (0, 0))), *BOXES[n])
    cloudy = solve(scenes, reference=scenes[0])
    right(cloudy, GAINS, OFFSETS, within=0.03)
    assert min(one["kept"] for one in clear.facts["overlaps"]) > 0.8
    assert min(one["kept"] for one in cloudy.facts["overlaps"]) < 0.7


def test_nodata_and_masks_do_not_count(solve, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in")
    plain = solve(scenes, reference=scenes[0])
    image = tifffile.imread(scenes[1])
    image[:, :20] = 99  # lies in the overlap with scene 0, and says so
    image[100:130] = 99
    valid = np.where((image == 99).all(-1), 0, 255).astype(np.uint8)
    more = np.concatenate([image, valid[..., None]], -1)
    geotiff(scenes[1], more, extratags=placed(*BOXES[1][:2]), extrasamples=["unassalpha"])
    masked = solve(scenes, reference=scenes[0])
    right(masked, GAINS, OFFSETS)
    cells = [table.facts["scenes"][1]["cells"] for table in (plain, masked)]
    assert cells[1] < 0.9 * cells[0]


def test_a_scene_without_overlap_is_told_and_left(solve, tmp_path: Path, caplog) -> None:
    scenes = written_scenes(tmp_path / "in", numbers=(0, 1))
    far = tmp_path / "in" / "far.tif"
    geotiff(far, seen(ground(200, 200), (1.5, 1.5, 1.5), (0, 0, 0), 9), extratags=placed(5000, 5000))
    table = solve([*scenes, far], reference=scenes[0])
    assert "far.tif: no overlap with the others, left as they are" in caplog.text
    np.testing.assert_array_equal(table.of(2)[0], np.ones(3))
    np.testing.assert_array_equal(table.of(2)[1], np.zeros(3))
    right(table, GAINS[:2], OFFSETS[:2])


def test_two_groups_keep_what_each_has(solve, tmp_path: Path, caplog) -> None:
    scenes = written_scenes(tmp_path / "in", numbers=(0, 1))
    there = ground(300, 300)
    for n, (y, x) in enumerate(((0, 0), (120, 0))):
        part = seen(there[y : y + 180, x : x + 300], (1 + 0.2 * n,) * 3, (0.02 * n,) * 3, n)
        path = tmp_path / "in" / f"there{n}.tif"
        geotiff(path, part, extratags=placed(9000 + y, 9000 + x))
        scenes.append(path)
    table = solve(scenes, reference=scenes[0])
    assert "there0.tif, there1.tif: no overlap leads to scene0.tif" in caplog.text
    right(table, GAINS[:1], OFFSETS[:1])
    np.testing.assert_allclose(table.of(3)[0] / table.of(2)[0], 1.2, rtol=0.01)
    assert table.seams[1] < 0.01
    solve(scenes)
    assert "the scenes make 2 groups without overlaps between them" in caplog.text


def test_a_basemap_gives_its_colours(solve, tmp_path: Path) -> None:
    """One that is coarser, larger, and no scene; scenes that touch no other are reached by it too."""
    scenes = written_scenes(tmp_path / "in", numbers=(0, 3))
    whole = ground(600, 800)
    small = np.clip(whole * 0.8 + 0.1, 0, 1).reshape(150, 4, 200, 4, 3).mean((1, 3))
    geotiff(tmp_path / "map.tif", np.rint(small * 255).astype(np.uint8), extratags=placed(0, 0, 40.0))
    table = solve(scenes, reference=tmp_path / "map.tif")
    numbers = [0, 3]
    right(table, GAINS[numbers] * 0.8, OFFSETS[numbers] * 0.8 + 0.1, within=0.02)
    assert table.facts["reference"] == "map.tif" and len(table.facts["scenes"]) == 2


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_other_grids_and_reference_systems(solve, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    scenes = written_scenes(tmp_path / "in")
    for n, (crs, resolution) in (
        (1, ("EPSG:4326", None)),
        (2, ("EPSG:32632", 13.0)),
        (3, ("EPSG:3857", 21.0)),
    ):
        with rasterio.open(scenes[n]) as file:
            transform, w, h = calculate_default_transform(
                file.crs, crs, file.width, file.height, *file.bounds, resolution=resolution
            )
            out = np.zeros((3, h, w), np.uint8)
            for k in range(3):
                reproject(
                    rasterio.band(file, k + 1), out[k], dst_transform=transform, dst_crs=crs,
                    resampling=Resampling.average if resolution else Resampling.nearest,
                )  # fmt: skip
        facts = {"driver": "GTiff", "tiled": True, "dtype": "uint8", "count": 3, "nodata": 0}
        with rasterio.open(scenes[n], "w", width=w, height=h, crs=crs, transform=transform, **facts) as file:
            file.write(out)
    table = solve(scenes, reference=scenes[0])
    assert len(table.facts["overlaps"]) >= 6
    right(table, GAINS, OFFSETS, within=0.03)


def test_gain_alone_makes_means_alike(solve, tmp_path: Path) -> None:
    scenes = []
    whole = ground(300, 560)
    for n, gain in enumerate((1.0, 1.25, 0.8)):
        box = (0, 180 * n, 300, 180 * n + 200)
        image = np.zeros((300, 560, 3), np.uint8)
        image[:, box[1] : box[3]] = seen(whole[:, box[1] : box[3]], (gain,) * 3, (0, 0, 0), n)
        scenes.append(tile(tmp_path / f"s{n}.tif", image, *box))
    table = solve(scenes, reference=scenes[0], method="gain")
    for n, gain in enumerate((1.0, 1.25, 0.8)):
        np.testing.assert_allclose(table.of(n)[0], gain, rtol=0.01)
        assert not table.of(n)[1].any()


def test_cells_follow_narrow_overlaps_and_what_is_asked(solve, tmp_path: Path) -> None:
    whole = ground(300, 560)
    scenes = []
    for n, (x0, x1) in enumerate(((0, 290), (280, 560))):
        image = np.zeros((300, 560, 3), np.uint8)
        image[:, x0:x1] = seen(whole[:, x0:x1], GAINS[n], OFFSETS[n], n)
        scenes.append(tile(tmp_path / f"s{n}.tif", image, 0, x0, 300, x1))
    narrow = solve(scenes, reference=scenes[0])
    assert narrow.facts["cell"] == [10.0, 10.0]
    right(narrow, GAINS[:2], OFFSETS[:2], within=0.02)
    assert solve(scenes, reference=scenes[0], resolution=20).facts["cell"] == [20.0, 20.0]
    with pytest.raises(BadInput, match="--resolution 5 is finer than can be compared; give at least 10"):
        solve(scenes, resolution=5)


def test_what_makes_no_sense_is_refused_before_anything_is_written(run, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in", numbers=(0, 1))
    other = written_scenes(tmp_path / "deep", np.uint16, numbers=(2,))[0]
    bare, out = tmp_path / "bare.tif", tmp_path / "out"
    tifffile.imwrite(bare, np.full((64, 64, 3), 90, np.uint8), photometric="rgb")
    odd = geotiff(tmp_path / "odd.tif", np.full((64, 64, 3), 90, np.uint8), extratags=placed(0, 0)[:2])
    one_sentence(run("balance", scenes[0], bare, "-o", out), 2, bare, "no georeferencing", "gdal_translate")
    one_sentence(run("balance", scenes[0], odd, "-o", out), 2, odd, "does not tell its reference system")
    one_sentence(run("balance", scenes[0], other, "-o", out), 2, other, "uint16", "uint8", scenes[0])
    one_sentence(run("balance", scenes[0], "-o", out), 2, "two scenes or more")
    one_sentence(run("balance", *scenes, scenes[0], "-o", out), 2, "named twice")
    one_sentence(run("balance", *scenes, "-o", tmp_path / "in"), 2, "same file", scenes[0])
    one_sentence(run("balance", *scenes, "-o", bare), 2, bare, "is a file; name a folder")
    one_sentence(run("balance", *scenes, "-o", out, "--method", "magic"), 2, "mean-std, gain", "magic")
    one_sentence(run("balance", *scenes, "-o", out, "--stretch", "2%,98%"), 2, "another in each scene")
    one_sentence(run("balance", *scenes, "-o", out, "--memory", "1M"), 2, "MiB", "--resolution")
    with pytest.raises(BadInput, match="takes no --stains: it is for slides"):
        ut.balance(scenes, out, stains="H,E")
    for bands in ("all", "1,2"):
        with pytest.raises(BadInput, match="red, green and blue: take three --bands"):
            ut.balance(scenes, out, model="colour", bands=bands)
    assert not out.exists()
    out.mkdir()
    (out / "scene1.tif").write_bytes(b"of somebody")
    one_sentence(run("balance", *scenes, "-o", out), 2, out / "scene1.tif", "exists", "--overwrite")
    assert [path.name for path in out.iterdir()] == ["scene1.tif"]


def test_a_folder_of_another_balance_is_not_overwritten(run, solve, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in", numbers=(0, 1))
    solve(scenes)
    before = sha(tmp_path / "solved" / "balance.json")
    done = run("balance", *scenes, "-o", tmp_path / "solved", "--method", "gain")
    assert done.returncode == 2
    assert "balance.json was made of other scenes or options; give --overwrite" in done.stderr
    assert sha(tmp_path / "solved" / "balance.json") == before


def test_a_damaged_scene_stops_the_measuring_and_what_was_measured_stays(
    solve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urst_tiles.api import overlaps

    scenes = written_scenes(tmp_path / "in", numbers=(0, 1, 2))
    whole = scenes[2].read_bytes()
    scenes[2].write_bytes(whole[: len(whole) // 2] + bytes(2000) + whole[len(whole) // 2 + 2000 :])
    with pytest.raises(ut.DamagedFile, match=r"scene2\.tif"):
        solve(scenes)
    assert not (tmp_path / "solved" / "balance.json").exists()
    scenes[2].write_bytes(whole)
    calls = []
    kept = overlaps.measured_cells
    monkeypatch.setattr(overlaps, "measured_cells", lambda *a, **k: calls.append(1) or kept(*a, **k))
    solve(scenes)
    assert len(calls) == 1
    assert not (tmp_path / "solved" / "balance.job").exists()


def test_a_look_of_a_scene_is_a_look_like_any_other(solve, tmp_path: Path) -> None:
    scenes = written_scenes(tmp_path / "in", numbers=(0, 1))
    table = solve(scenes, reference=scenes[0])
    colour = ut.fit_colour(scenes[1], tmp_path / "solved" / "looks" / "scene1.tif.json")
    gain, offset = table.of(1)
    wanted = np.clip(pixels(scenes[1]) * gain + offset * 255, 0, 255)
    assert np.abs(colour(tifffile.imread(scenes[1])) - wanted).max() <= 0.51
    with pytest.raises(BadInput, match="urst-tiles balance"):
        ut.measure_look(scenes[0], model="colour", method="gain-offset")


@pytest.mark.slow
def test_workers_make_the_same_bytes(run, tmp_path: Path) -> None:
    written_scenes(tmp_path / "in", numbers=(0, 1))
    made = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        done = run("balance", tmp_path / "in", "-o", out, "--workers", workers, "--block", 512)
        assert done.returncode == 0, done.stderr
        made.append([pixels(out / f"scene{n}.tif") for n in range(2)])
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])
