"""The report of `run` on a cohort: two scanners become alike, and what stands out is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from colours import E2, H2, E, H, slide, to_lab, written
from helpers import geotiff, picture

from urst_tiles.api.cohort import robust_z

#: What of each scanner the slides are: its stains, their strength, its white.
SCANNERS = {
    "a": {"stains": (H, E), "strength": (1.2, 0.8), "white": (243, 241, 238)},
    "b": {"stains": (H2, E2), "strength": (0.8, 1.3), "white": (230, 236, 244)},
}
TABLE = """
inputs = "in/*.tif"
output = "out/{stem}.tif"
styles = "standard"
[options]
model = "stain"
tile = 512
block = 512
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides of each of two scanners, one of which is faint, and one that was stained for a day."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "in").mkdir()
    for name, look in SCANNERS.items():
        for n in range(4):
            facts = dict(look)
            if (name, n) == ("a", 3):
                facts["strength"] = tuple(0.75 * value for value in look["strength"])
            written(folder / "in" / f"{name}{n}.tif", slide(192, 224, 10 + n, **facts))
    dark = {**SCANNERS["a"], "strength": (5.0, 4.5)}
    written(folder / "in" / "dark.tif", slide(192, 224, 20, **dark))
    (folder / "jobs.toml").write_text(TABLE)
    return folder


def tissue_colour(path: Path, white: tuple[float, ...], shown: Path) -> np.ndarray:
    """Mean L*, a*, b* in the file ``shown`` of what is tissue in ``path``."""
    pixels = tifffile.imread(path)
    tissue = (np.log(np.array(white)) - np.log(pixels + 1.0)).max(-1) > 0.15
    return to_lab(tifffile.imread(shown)[tissue] / 255).mean(0)


def test_two_scanners_are_alike_and_what_stands_out_is_told(run, cohort: Path) -> None:
    done = run("run", cohort / "jobs.toml", "--cohort", cohort / "cohort.csv")
    assert done.returncode == 0, done.stderr
    means = {}
    for when in ("in", "out"):
        for name, look in SCANNERS.items():
            every = [
                tissue_colour(
                    cohort / "in" / f"{name}{n}.tif", look["white"], cohort / when / f"{name}{n}.tif"
                )
                for n in range(4)
            ]
            means[when, name] = np.mean(every, axis=0)
    apart = [np.linalg.norm(means[when, "a"] - means[when, "b"]) for when in ("in", "out")]
    assert apart[0] > 10 and apart[1] < apart[0] / 5, apart
    with (cohort / "cohort.csv").open() as file:
        rows = {Path(row["input"]).stem: row for row in csv.DictReader(file)}
    assert len(rows) == 9 and {name for name, row in rows.items() if row["outlier"]} == {"dark"}
    row = rows["b1"]
    found = np.array([float(row[f"{name} before"]) for name in "Lab"])
    wanted = tissue_colour(cohort / "in" / "b1.tif", SCANNERS["b"]["white"], cohort / "in" / "b1.tif")
    assert np.linalg.norm(found - wanted) < 1.5
    found = np.array([float(row[f"{name} after"]) for name in "Lab"])
    wanted = tissue_colour(cohort / "in" / "b1.tif", SCANNERS["b"]["white"], cohort / "out" / "b1.tif")
    assert np.linalg.norm(found - wanted) < 1.5
    assert float(row["moved"]) > np.linalg.norm(found - wanted) and float(row["hematoxylin scaled"]) > 1
    assert float(rows["dark"]["hematoxylin scaled"]) < 0.5 and abs(float(rows["dark"]["z"])) > 3.5
    assert float(row["from cohort after"]) < float(row["from cohort before"])
    assert "cohort of 9 image(s), stain standard: moved by" in done.stdout
    assert "1 outlier(s), whose robust z is beyond 3.5" in done.stdout
    assert "  dark.tif: " in done.stdout and "hematoxylin scaled by 0.3" in done.stdout


def test_no_slide_is_torn(cohort: Path) -> None:
    """After the run before: glass keeps its bytes, and all tissue of a slide, be it faint, goes through one
    smooth map, which is linear in optical density; few values are clipped."""
    for path in sorted((cohort / "in").glob("*.tif")):
        before, after = (
            tifffile.imread(path).astype(int),
            tifffile.imread(cohort / "out" / path.name).astype(int),
        )
        white = np.array(SCANNERS["b" if path.stem[0] == "b" else "a"]["white"])
        density = np.log(white) - np.log(before + 1.0)
        glass, tissue = density.max(-1) < 0.03, density.max(-1) > 0.25
        assert glass.mean() > 0.2 and tissue.mean() > 0.4
        np.testing.assert_array_equal(after[glass], before[glass])
        assert ((after == 0) | (after == 255)).mean() < 0.02
        one = np.column_stack([density[tissue], np.ones(tissue.sum())])
        other = -np.log((after[tissue] + 1.0) / 256)
        left = other - one @ np.linalg.lstsq(one, other, rcond=None)[0]
        assert (left.std(0) < 0.02).all(), path


def test_a_second_run_tells_the_same_of_what_was_done_before(run, cohort: Path) -> None:
    first = json.loads(_report(run, cohort, "first.json"))
    done = run("run", cohort / "jobs.toml", "--cohort", cohort / "again.json")
    assert "0 done, 9 were done before" in done.stdout and "cohort of 9 image(s)" in done.stdout
    assert json.loads((cohort / "again.json").read_text()) == first
    assert len(first["images"]) == 9 and "moved" in first["images"][0]
    lines = [json.loads(line) for line in run("run", cohort / "jobs.toml", "--json").stdout.splitlines()]
    (event,) = [line for line in lines if line["event"] == "cohort"]
    assert event["outliers"] == 1 and len(event["images"]) == 9


def _report(run, cohort: Path, name: str) -> str:
    assert run("run", cohort / "jobs.toml", "--cohort", cohort / name).returncode == 0
    return (cohort / name).read_text()


def test_a_small_cohort_of_scenes_has_no_outliers_and_other_models_no_report(run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(2):
        geotiff(tmp_path / "in" / f"s{n}.tif", picture(100, 120, seed=n))
    geotiff(tmp_path / "ref.tif", picture(90, 90, seed=5) // 2 + 60)
    text = TABLE.replace('"standard"', '"ref.tif"').replace('"stain"', '"colour"')
    (tmp_path / "jobs.toml").write_text(text)
    done = run("run", tmp_path / "jobs.toml", "--cohort", tmp_path / "c.csv")
    assert "cohort of 2 image(s), colour ref: moved by" in done.stdout and "outlier" not in done.stdout
    with (tmp_path / "c.csv").open() as file:
        assert [row["outlier"] for row in csv.DictReader(file)] == ["", ""]
    plain = text.replace('"colour"', '"identity"').replace('styles = "ref.tif"\n', "").replace("out/", "id/")
    (tmp_path / "plain.toml").write_text(plain)
    assert "cohort of" not in run("run", tmp_path / "plain.toml").stdout


def test_the_modified_z_score_is_that_of_iglewicz_and_hoaglin() -> None:
    values = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    median = np.median(values)
    wanted = 0.6745 * (values - median) / np.median(np.abs(values - median))
    np.testing.assert_allclose(robust_z(values, 1e-9), wanted, rtol=1e-4)
    assert np.abs(robust_z(np.array([1.0, 1.0, 1.0, 1.0, 1.4]), 0.5)).max() < 1
