"""The page of the studio in a real browser, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, without_chromium
from helpers import geotiff, picture

pytest.importorskip("starlette", reason="the extra studio is not installed")

from served import Served

import urst_tiles as ut
from urst_tiles.geometry import Box

pytestmark = [pytest.mark.slow, without_chromium]

#: What people act on, in the words of accessibility trees.
ACTS = frozenset({"button", "slider", "radio", "checkbox", "textbox", "combobox", "progressbar", "dialog"})

STYLE = "hokusai-wave"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio")
    geotiff(folder / "scene.tif", picture(2100, 4200))
    geotiff(folder / "another.tif", picture(300, 400, seed=1))
    return folder


@pytest.fixture
def studio(root: Path) -> Iterator[Served]:
    with Served("scene.tif", cwd=root) as served:
        yield served


@pytest.fixture
def page(studio: Served, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as browser:
        browser.open(studio.url)
        browser.wait("document.querySelector('#image-name')?.textContent === 'scene.tif'")
        yield browser


def shown(page: Browser, name: str) -> bool:
    return page.value(f"!document.getElementById('{name}').hidden")


def painted(page: Browser) -> None:
    """Wait until a style is shown and nothing is being computed for it."""
    page.wait("document.getElementById('busy').hidden && !document.getElementById('divider').hidden")


def choose_first_style(page: Browser) -> None:
    page.press("s", "ArrowRight")
    page.wait("location.hash.includes('style=hokusai-wave')")
    painted(page)


def test_a_style_is_chosen_and_looked_at_by_keyboard(page: Browser) -> None:
    choose_first_style(page)
    page.wait("!document.getElementById('approximate').hidden")
    page.press("1")
    page.wait("document.getElementById('approximate').hidden && location.hash.includes('zoom=1&')")
    for key, at in (("[", "45"), ("]", "50"), ("f", "100"), ("f", "0")):
        page.press(key)
        assert page.value("document.getElementById('divider').getAttribute('aria-valuenow')") == at
    page.press("?")
    assert page.value("document.getElementById('help').open")
    page.press("Escape")
    page.press("o")
    page.wait("document.querySelectorAll('#files-list button').length === 2")
    page.press("Enter")
    page.wait("document.getElementById('image-name').textContent === 'another.tif'")
    painted(page)
    assert page.complaints == []


def test_at_full_scale_the_screen_shows_the_bytes_of_the_job(
    page: Browser, root: Path, tmp_path: Path
) -> None:
    choose_first_style(page)
    url = page.value("location.href.replace(/&x=.*/, '&x=2000&y=1000&zoom=1&swipe=0')")
    page.open(url)
    painted(page)
    page.wait("document.getElementById('approximate').hidden")
    ut.stylize(root / "scene.tif", tmp_path / "out.tif", STYLE)
    width, height = page.value("(c => [c.width, c.height])(document.querySelector('#view canvas'))")
    y, x = 1000 - height // 2 + 200, 2000 - width // 2 + 100  # 200 below and 100 right of the corner
    wanted = ut.open_source(tmp_path / "out.tif").read(Box(y, x, y + 256, x + 256))

    def equal() -> bool:
        read = "document.querySelector('#view canvas').getContext('2d').getImageData(100, 200, 256, 256).data"
        seen = np.array(page.value(f"Array.from({read})"), np.uint8).reshape(256, 256, 4)[..., :3]
        return bool((seen == wanted[..., :3]).all())

    for _ in range(100):
        if equal():
            break
        page.value("new Promise((done) => setTimeout(done, 200))")
    assert equal()


def test_a_link_holds_the_whole_state(page: Browser) -> None:
    choose_first_style(page)
    page.value("document.getElementById('alpha').value = 40")
    page.value("document.getElementById('alpha').dispatchEvent(new Event('change'))")
    page.value("document.getElementById('colours').click()")
    page.press("1", "[")
    page.wait("location.hash.includes('zoom=1&') && location.hash.includes('colours=luminance')")
    page.value("document.getElementById('link').click()")
    url = page.value("location.href")
    assert "alpha=40" in url and "swipe=45" in url
    page.open(url)
    painted(page)
    page.wait("document.getElementById('where').textContent.includes('100 %')")
    assert page.value("document.getElementById('alpha').value") == "40"
    assert page.value("document.getElementById('colours').checked")
    assert page.value("document.getElementById('divider').getAttribute('aria-valuenow')") == "45"


def test_a_still_view_is_not_drawn_again_and_again(page: Browser) -> None:
    choose_first_style(page)
    counted = """new Promise((done) => {
        let drawn = 0;
        const draw = CanvasRenderingContext2D.prototype.drawImage;
        CanvasRenderingContext2D.prototype.drawImage = function (...all) {
            drawn += 1;
            return draw.apply(this, all);
        };
        setTimeout(() => done(drawn), 1000);
    })"""
    for _ in range(60):
        if (drawn := page.value(counted)) == 0:
            break
    assert drawn == 0


def test_back_undoes_a_change(page: Browser) -> None:
    choose_first_style(page)
    page.value("history.back()")
    page.wait("document.getElementById('divider').hidden")
    assert page.value("document.querySelector('#gallery input:checked').value") == ""


def test_screen_readers_have_a_name_for_all_that_acts(page: Browser) -> None:
    assert page.nameless(ACTS) == []
    choose_first_style(page)
    page.press("m")
    page.wait("document.getElementById('command').textContent.startsWith('urst-tiles stylize scene.tif')")
    assert page.nameless(ACTS) == []


def test_a_phone_shows_all_of_it(page: Browser) -> None:
    page.resize(390, 844)
    choose_first_style(page)
    assert page.value("document.documentElement.scrollWidth") <= 390
    for name in ("view", "gallery", "alpha", "make"):
        assert page.value(f"document.getElementById('{name}').getBoundingClientRect().width") > 100


def test_a_studio_that_is_closed_is_told_on_the_page(page: Browser, studio: Served) -> None:
    studio.close()
    page.press("s", "ArrowRight")
    page.wait("document.getElementById('sorry-text').textContent.includes('does not answer any more')")
