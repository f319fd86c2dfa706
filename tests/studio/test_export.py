"""A folder to share: its pictures are those of the painting and its image, and it is whole or not there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import pyvips
import tifffile
from browser import Browser, without_chromium
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.api.result import open_result
from urst_tiles.geometry import Box
from urst_tiles.pyramid.deep_zoom_reader import DeepZoom
from urst_tiles.pyramid.deep_zoom_tree import Picture, tile_count, write_tree
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.studio import export

SHAPE = 530, 2600  # two boxes that are read at once, and levels with odd rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    smooth = pyvips.Image.new_from_array(picture(*SHAPE)).gaussblur(3).cast("uchar").numpy()
    geotiff(folder / "scene.tif", smooth)
    tifffile.imwrite(folder / "reference.tif", picture(64, 64, seed=3), photometric="rgb")
    for name in ("out.tif", "out.dzi"):
        ut.stylize(folder / "scene.tif", folder / name, folder / "reference.tif", model="colour")
    return folder


def made_of(path: Path) -> list[np.ndarray]:
    """All levels of a Deep Zoom image, full scale first."""
    read = DeepZoom(path)
    levels = []
    for n in range((max(read.shape) - 1).bit_length() + 1):
        h, w = (-(-side // 2**n) for side in read.shape)
        levels.append(read.read(n, Box(0, 0, h, w)))
    return levels


@pytest.mark.parametrize("channels", [3, 4])
def test_every_level_is_made_of_the_pixels_below_it(channels: int, tmp_path: Path) -> None:
    pixels = np.dstack([picture(*SHAPE), picture(*SHAPE, seed=2)])[..., :channels]
    read: list[Box] = []

    def reading(box: Box) -> np.ndarray:
        read.append(box)
        return pixels[box.slices]

    write_tree(tmp_path / "a.dzi", Picture(SHAPE, reading), 100)
    assert sum(box.area for box in read) == SHAPE[0] * SHAPE[1]
    right = [pixels, *levels_below(pixels, 12)]
    found = made_of(tmp_path / "a.dzi")
    assert len(found) == len(right) == 13 and found[-1].shape[:2] == (1, 1)
    for one, wanted in zip(found, right, strict=True):
        assert one.shape == wanted.shape
        assert abs(one.astype(int) - wanted).mean() < (6 if channels == 3 else 1e-9)
    assert ut.validate(tmp_path / "a.dzi").valid
    assert len(list((tmp_path / "a_files").rglob("*_*"))) == tile_count(SHAPE)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 700), (512, 513)])
def test_pictures_of_any_size(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = picture(*shape)
    write_tree(tmp_path / "a.dzi", Picture(shape, lambda box: pixels[box.slices]), 90)
    assert ut.validate(tmp_path / "a.dzi").valid
    assert len(list((tmp_path / "a_files").rglob("*_*"))) == tile_count(shape)


@pytest.mark.parametrize("name", ["out.tif", pytest.param("out.dzi", marks=pytest.mark.slow)])
def test_both_pictures_are_there(
    folder: Path, name: str, tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    done = run("export", folder / name, tmp_path / "share")
    assert done.returncode == 0, done.stderr
    told = re.search(r"about (\d+) MiB in (\d+) files", done.stdout)
    files = [path for path in (tmp_path / "share").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / (1 << 20)
    assert told is not None and int(told[2]) == len(files) and abs(int(told[1]) - size) < 0.3 * size + 1
    before, after = (made_of(tmp_path / "share" / f"{one}.dzi")[0].astype(int) for one in ("before", "after"))
    assert abs(before - tifffile.imread(folder / "scene.tif")).mean() < 3
    assert abs(after - tifffile.imread(folder / "out.tif", key=0)).mean() < 6
    if name == "out.dzi":
        own = tmp_path / "share" / "after_files" / "12" / "3_0.jpg"
        assert own.read_bytes() == (folder / "out_files" / "12" / "3_0.jpg").read_bytes()
    facts = json.loads((tmp_path / "share" / "facts.js").read_text().split("=", 1)[1].rstrip(";\n"))
    assert facts["names"] == {"before": "scene.tif", "after": name, "style": "reference.tif"}
    assert facts["after"] | {"kind": ""} == {
        "folder": "after_files", "kind": "", "width": 2600, "height": 530, "tile": 512, "levels": 13
    }  # fmt: skip
    page = (tmp_path / "share" / "index.html").read_text()
    assert page.count("<script") == page.count("<script src=") == 3 and "http" not in page
    assert {"openseadragon.min.js", "openseadragon.LICENSE.txt"} <= {path.name for path in files}


def test_the_size_alone_is_told_with_dry_run(
    folder: Path, tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    done = run("export", folder / "out.tif", tmp_path / "share", "--dry-run", "--json")
    (line,) = [json.loads(line) for line in done.stdout.splitlines() if '"size"' in line]
    assert line["files"] > 30 and line["bytes"] > 1 << 17
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_a_sentence(
    folder: Path, tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    def refused(*words: object) -> str:
        done = run("export", *words)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "exists; name a folder" in refused(folder / "out.tif", folder)
    assert "nosuch.tif" in refused(folder / "nosuch.tif", tmp_path / "a")
    assert "does not say what it was made from; name it with --input" in refused(
        folder / "scene.tif", tmp_path / "a"
    )
    assert "is not the image" in refused(
        folder / "out.tif", tmp_path / "a", "--input", folder / "reference.tif"
    )
    assert "between 1 and 100" in refused(folder / "out.tif", tmp_path / "a", "--quality", 0)
    assert "no folder" in refused(folder / "out.tif", tmp_path / "none" / "a")
    assert list(tmp_path.iterdir()) == []


def test_it_is_whole_or_not_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_result(folder / "out.tif", folder, folder=tmp_path / "work")
    size = export.size_of(found, 90)

    def interrupt(stage: str, done: int, total: int) -> None:
        assert not (tmp_path / "share").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.export(found, tmp_path / "share", size, progress=interrupt)
    assert {path.name for path in tmp_path.iterdir()} == {"work"}
    full = export.FolderSize(1 << 60, size.files)
    with pytest.raises(ut.DiskFull, match="has .* free"):
        export.export(found, tmp_path / "share", full)
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


@pytest.mark.slow
@without_chromium
def test_a_browser_shows_it_from_the_disk(folder: Path, tmp_path: Path) -> None:
    found = open_result(folder / "out.tif", folder, folder=tmp_path / "work")
    export.export(found, tmp_path / "share", export.size_of(found, 90))
    with Browser(tmp_path) as page:
        page.open((tmp_path / "share" / "index.html").as_uri())
        page.wait(
            "document.title === 'out.tif' && document.getElementById('before').textContent === 'scene.tif'"
        )
        page.value("new Promise((done) => setTimeout(done, 3000))")
        shown = pyvips.Image.new_from_file(str(page.picture(tmp_path / "page.png"))).numpy()[..., :3]
        page.press("]", "]", "f")
        assert page.value("document.getElementById('divider').getAttribute('aria-valuenow')") == "100"
        assert page.complaints == []
    left, right = shown[300:500, 100:600], shown[300:500, 700:1200]
    scene, painted = (made_of(tmp_path / "share" / f"{one}.dzi")[1] for one in ("before", "after"))
    for seen, wanted in ((left, scene), (right, painted)):
        assert abs(seen.mean((0, 1)) - wanted.mean((0, 1))).max() < 12
    assert abs(scene.mean((0, 1)) - painted.mean((0, 1))).max() > 15
