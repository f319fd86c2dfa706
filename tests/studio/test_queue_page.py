"""Finished paintings, the queue and map layers on the page of the studio, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from browser import Browser, without_chromium
from helpers import Enough, geotiff, picture, stop_at, wait_for

pytest.importorskip("starlette", reason="the extra studio is not installed")

from served import Served

import urst_tiles as ut
from urst_tiles.studio.asked import Asked

pytestmark = [pytest.mark.slow, without_chromium]

STYLE = "hokusai-wave"

#: The pixels of the view in a band of its width, from 0 to 1, as a mean colour.
MEAN = """((from, to) => {
    const canvas = document.querySelector('#view canvas'), w = canvas.width, h = canvas.height;
    const data = canvas.getContext('2d').getImageData(w * from, h * 0.45, w * (to - from), h * 0.1).data;
    const sums = [0, 0, 0];
    for (let k = 0; k < data.length; k += 4) for (let c = 0; c < 3; c++) sums[c] += data[k + c];
    return sums.map((sum) => sum / (data.length / 4));
})"""

#: Whether the page has asked for finished blocks.
BLOCKS = "performance.getEntriesByType('resource').some((one) => one.name.includes('/blocks/'))"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    grain = np.random.default_rng(0).normal(0, 25, (700, 1300, 1))  # alike everywhere
    geotiff(folder / "scene.tif", np.clip([190, 100, 60] + grain, 0, 255).astype(np.uint8))
    ut.stylize(folder / "scene.tif", folder / "made.tif", STYLE)
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as browser:
        yield browser


def mean(page: Browser, start: float, stop: float) -> np.ndarray:
    return np.array(page.value(f"{MEAN}({start}, {stop})"))


def goes_to(page: Browser, old: str, new: str) -> None:
    """Open another image by its link."""
    link = f"location.hash.replace('image={old}', 'image={new}')"
    page.value(f"history.replaceState(history.state, '', {link})")
    page.value("dispatchEvent(new PopStateEvent('popstate', { state: history.state }))")
    page.wait(f"document.getElementById('image-name').textContent === '{new}'")


def alike(seen: np.ndarray, image: np.ndarray) -> bool:
    return bool(abs(seen - image.mean((0, 1))).max() < 12)


def test_a_finished_painting_is_shown_beside_its_image(root: Path, page: Browser) -> None:
    with Served("made.tif", cwd=root) as studio:
        page.open(studio.url)
        page.wait("!document.getElementById('divider').hidden")
        assert page.value("document.getElementById('label-before').textContent") == "scene.tif"
        assert "Hokusai" in page.value("document.getElementById('label-after').textContent")
        scene, made = (tifffile.imread(root / name, key=0) for name in ("scene.tif", "made.tif"))
        assert abs(scene.mean((0, 1)) - made.mean((0, 1))).max() > 30
        for start, stop, wanted in ((0.1, 0.4, scene), (0.6, 0.9, made)):
            wait_for(lambda a=start, b=stop, c=wanted: alike(mean(page, a, b), c), 120)
        page.press("s", "ArrowRight")  # a style for the image, not for the painting
        page.wait("location.hash.includes('image=scene.tif') && location.hash.includes('style=hokusai-wave')")
        (root / "scene.tif").unlink()
        page.open(f"{studio.url}#image=made.tif")
        page.wait("document.getElementById('image-name').textContent === 'made.tif'")
        assert page.complaints == []


def test_a_painting_without_its_image_is_shown_alone(root: Path, page: Browser) -> None:
    (root / "scene.tif").unlink()
    with Served("made.tif", cwd=root) as studio:
        page.open(studio.url)
        page.wait("document.getElementById('result-said')?.textContent.includes('was not found')")
        assert page.value("document.getElementById('divider').hidden")
        page.wait(f"{MEAN}(0.2, 0.8)[0] > 0")


def test_finished_blocks_are_seen_while_the_others_are_made(tmp_path: Path, page: Browser) -> None:
    """Two blocks of four are finished and the queue is paused; once it goes on, the page asks for blocks."""
    root = tmp_path / "wide"
    root.mkdir()
    geotiff(root / "wide.tif", picture(600, 16400))
    geotiff(root / "other.tif", picture(60, 80))
    with pytest.raises(Enough):
        ut.stylize(root / "wide.tif", root / "out.tif", STYLE, dtype="uint8", progress=stop_at(2))
    words = ["stylize", "wide.tif", "out.tif", "--style", STYLE]
    jobs = {"jobs": [{"image": "wide.tif", "after": Asked("wide.tif", STYLE).state, "words": words}]}
    (root / ".urst-tiles-studio.json").write_text(json.dumps(jobs))
    with Served("wide.tif", cwd=root) as studio:
        page.open(f"{studio.url}#image=wide.tif&style={STYLE}&model=lite&alpha=100&colours=none&swipe=0")
        page.wait("document.querySelectorAll('#queue li').length === 1")
        assert "paused" in page.value("document.querySelector('#queue li').textContent")
        for _ in range(2):  # an image that is left and opened again has its blocks at once, though none came
            page.wait(BLOCKS, 200)
            goes_to(page, "wide.tif", "other.tif")
            page.value("performance.clearResourceTimings()")
            goes_to(page, "other.tif", "wide.tif")
        page.wait(BLOCKS, 200)
        page.value("performance.clearResourceTimings()")
        page.value(
            "[...document.querySelectorAll('#job button')].find((b) => b.textContent === 'Resume').click()"
        )
        page.wait(BLOCKS, 200)
        page.wait("document.querySelector('#queue li').textContent.includes('finished')", 300)
        page.value(
            "[...document.querySelectorAll('#queue button')].find((b) => b.textContent === 'Show').click()"
        )
        page.wait("location.hash.includes('image=out.tif')")
        page.wait("document.getElementById('label-before').textContent === 'wide.tif'")
        assert page.complaints == []


def test_the_queue_is_ruled_by_keyboard_and_has_names(root: Path, page: Browser) -> None:
    words = ("stylize", "scene.tif")
    jobs = {"jobs": [{"words": [*words, f"{name}.tif", "--style", STYLE]} for name in "abc"]}
    (root / ".urst-tiles-studio.json").write_text(json.dumps(jobs))
    with Served("scene.tif", cwd=root) as studio:
        page.open(studio.url)
        page.wait("document.querySelectorAll('#queue li').length === 3")
        names = "[...document.querySelectorAll('#queue li span')].map((one) => one.textContent[0]).join('')"
        page.value("document.querySelector('#queue li:last-child button').focus()")
        page.press("Enter")
        page.wait(f"{names} === 'acb'")
        page.value("document.querySelector('#queue li:last-child button:last-child').focus()")
        page.press("Enter")
        page.wait(f"{names} === 'ac'")
        assert page.nameless(frozenset({"button", "link", "progressbar"})) == []
        status, _, table = studio.ask("api/jobs.toml")
        assert status == 200 and table.count(b"[[jobs]]") == 2
        page.value("document.getElementById('layer').click()")
        page.wait("document.getElementById('said').textContent.includes('map layer is copied')")
        assert page.complaints == []
