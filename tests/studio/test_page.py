"""The page of the studio in a real browser, in seconds: a style is chosen, and nobody is shut out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, without_chromium
from helpers import geotiff, picture

pytest.importorskip("starlette", reason="the extra studio is not installed")

from served import Served

pytestmark = without_chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "root").mkdir()
    geotiff(folder / "root" / "scene.tif", picture(300, 400))
    with Served("scene.tif", cwd=folder / "root") as served, Browser(folder) as browser:
        browser.open(served.url)
        browser.wait("document.querySelector('#image-name')?.textContent === 'scene.tif'")
        yield browser


def test_a_style_is_chosen_by_keyboard_and_painted(page: Browser) -> None:
    page.press("s", "ArrowRight")
    page.wait("location.hash.includes('style=hokusai-wave')")
    page.wait("document.getElementById('busy').hidden && !document.getElementById('divider').hidden")
    assert page.complaints == []


def test_statistics_that_a_network_refuses_cannot_be_chosen(page: Browser) -> None:
    """The painter measures no thumbnail; who had chosen one for another network gets the automatic ones."""
    dim = "[...document.querySelectorAll('#statistics option')].filter((o) => o.disabled).map((o) => o.value)"

    def choose(select: str, value: str) -> None:
        page.value(
            f"(s => {{ s.value = '{value}'; s.dispatchEvent(new Event('change')); }})"
            f"(document.getElementById('{select}'))"
        )
        page.wait(f"location.hash.includes('{select}={value}')")

    choose("model", "painter")
    assert page.value(dim) == ["thumbnail"]
    choose("model", "lite")
    assert page.value(dim) == []
    choose("statistics", "thumbnail")
    choose("model", "painter")
    assert page.value("document.getElementById('statistics').value") == "auto"
    assert page.value(dim) == ["thumbnail"]


def test_axe_finds_nothing_serious(page: Browser) -> None:
    assert page.barriers() == []
    page.value("document.querySelector('.tools').append(document.createElement('button'))")
    assert len(page.barriers()) == 1  # a button without a name
    page.value("document.querySelector('.tools').lastChild.remove()")
