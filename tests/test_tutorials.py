"""Every command, table and program of the tutorials in docs/ runs, in their order, on small files."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from colours import E2, H2, E, H, scene, slide, written
from helpers import geotiff
from scenes import ground, written_scenes

import urst_tiles as ut

BLOCK = re.compile(r"```(sh|toml|python)\n(.*?)```", re.DOTALL)
TABLE_NAME = re.compile(r"`(\w+\.toml)`")


def slides(folder: Path) -> None:
    (folder / "slides").mkdir()
    for n in range(6):
        look = {"stains": (H, E)} if n % 2 else {"stains": (H2, E2), "white": (230, 236, 244)}
        written(folder / "slides" / f"s{n + 1:02}.tif", slide(160, 176, n, **look))


def mosaic(folder: Path) -> None:
    for path in written_scenes(folder / "scenes", numbers=range(3)):
        path.rename(path.with_name("abc"[int(path.stem[-1])] + ".tif"))
    geotiff(folder / "map.tif", np.rint(ground(300, 300) * 200 + 30).astype(np.uint8))


def scans(folder: Path) -> None:
    (folder / "scans").mkdir()
    for n in range(5):
        tint = (1.0 - 0.1 * n, 0.8, 0.7 + 0.05 * n)
        written(folder / "scans" / f"p{n + 1:02}.tif", scene(150, 170, n, tint))


#: What each tutorial needs, and a file that its last step makes.
TUTORIALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "slides": (slides, "report.csv"),
    "mosaic": (mosaic, "painted/c.tif"),
    "scans": (scans, "report.csv"),
}


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_step_works(
    name: str, run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, last = TUTORIALS[name]
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / f"tutorial-{name}.md").read_text()
    steps = list(BLOCK.finditer(text))
    assert len(steps) >= 4 and not (tmp_path / last).exists()
    for step in steps:
        kind, body = step.groups()
        if kind == "toml":
            table = TABLE_NAME.findall(text[: step.start()])[-1]
            (tmp_path / table).write_text(body)
        elif kind == "python":
            exec(compile(body, name, "exec"), {})
        else:
            for line in body.splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert program == "urst-tiles"
                spread = [path for word in arguments for path in (sorted(glob.glob(word)) or [word])]
                done = run(*spread)
                assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / last).is_file()


def test_the_mosaic_of_the_tutorial_has_no_seams(run, tmp_path: Path) -> None:
    """What its first step promises of its last."""
    mosaic(tmp_path)
    ut.balance(tmp_path / "scenes", tmp_path / "balanced", reference=tmp_path / "scenes" / "a.tif")
    pair = [tifffile.imread(tmp_path / "balanced" / f"{one}.tif").astype(float) for one in "ab"]
    assert np.abs((pair[0][:, 270:330] - pair[1][:, :60]).mean((0, 1))).max() < 1.5


def test_every_tutorial_is_tested(root: Path) -> None:
    found = {path.stem.removeprefix("tutorial-") for path in (root / "docs").glob("tutorial-*.md")}
    assert found == set(TUTORIALS)
