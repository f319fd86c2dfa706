"""The page of the studio in a real browser, by keyboard."""

from __future__ import annotations

import base64
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
from urst_tiles.source.picture import encoded_png

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


def set_value(page: Browser, name: str, value: str) -> None:
    page.value(f"document.getElementById('{name}').value = '{value}'")
    page.value(f"document.getElementById('{name}').dispatchEvent(new Event('change'))")


def in_link(page: Browser, name: str) -> str:
    return page.value(f"new URLSearchParams(location.hash.slice(1)).get('{name}')")


def bring(page: Browser, name: str, data: bytes, target: str) -> None:
    """Give a file to a field for files, as a user who chooses it."""
    text = base64.b64encode(data).decode()
    page.value(f"""(() => {{
        const bytes = Uint8Array.from(atob('{text}'), (one) => one.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], '{name}', {{ type: 'image/png' }}));
        const field = document.getElementById('{target}');
        field.files = files.files;
        field.dispatchEvent(new Event('change'));
    }})()""")


def drawn_by_mouse(page: Browser, *places: tuple[int, int]) -> None:
    for x, y in places:
        page.mouse("mousePressed", x, y)
        page.mouse("mouseReleased", x, y)


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
    set_value(page, "alpha", "40")
    set_value(page, "colours", "luminance")
    set_value(page, "stroke", "2")
    page.press("1", "[")
    page.wait("location.hash.includes('zoom=1&') && location.hash.includes('colours=luminance')")
    page.value("document.getElementById('link').click()")
    url = page.value("location.href")
    assert "alpha=40" in url and "swipe=45" in url
    page.open(url)
    painted(page)
    page.wait("document.getElementById('where').textContent.includes('100 %')")
    assert page.value("document.getElementById('alpha').value") == "40"
    assert page.value("document.getElementById('colours').value") == "luminance"
    assert page.value("document.getElementById('stroke').value") == "2"
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


def test_polygons_are_drawn_by_mouse_and_by_keyboard_and_undone(page: Browser, root: Path) -> None:
    choose_first_style(page)
    page.press("p")
    drawn_by_mouse(page, (500, 300), (700, 300), (700, 500), (500, 500))
    page.press("Enter")
    page.wait("/mask=[0-9a-f]{16}/.test(location.hash)")
    first = in_link(page, "mask")
    painted(page)
    page.value("document.activeElement.blur()")
    page.press("p", " ")
    for arrow in ("ArrowRight", "ArrowDown"):
        for _ in range(3):
            page.press(arrow)
        page.value("new Promise((done) => setTimeout(done, 1500))")  # the view glides
        page.press(" ")
    page.press("Enter")
    page.wait("document.querySelectorAll('#places-list li').length === 2")
    page.wait(f"!location.hash.includes('{first}')")
    painted(page)
    corners = page.value(
        "fetch('api/drawn?mask=' + new URLSearchParams(location.hash.slice(1)).get('mask'))"
        ".then((answer) => answer.json()).then((found) => found.polygons.map((one) => one.corners))"
    )
    assert [len(one) for one in corners] == [4, 3]
    (x0, y0), (x1, y1), (x2, y2), _ = corners[0]
    assert y0 == y1 and x1 == x2 and abs((x1 - x0) - (y2 - y1)) < 0.1  # a square on the screen is one
    (x0, y0), (x1, y1), (x2, y2) = corners[1]
    assert x1 > x0 and y2 > y1 and abs(x2 - x1) < 1 and abs(y1 - y0) < 1
    page.value("document.querySelector('#places-list select').value = ''")
    page.value("document.querySelector('#places-list select').dispatchEvent(new Event('change'))")
    page.wait("document.querySelector('#marks .kept')")
    page.press("m")
    page.wait("document.getElementById('command').textContent.includes('--mask scene.drawn.mask.geojson')")
    assert f"--style 0={STYLE}" in page.value("document.getElementById('command').textContent")
    page.press("Escape")
    for left in (2, 1):
        page.value("document.getElementById('undo').click()")
        page.wait(f"document.querySelectorAll('#places-list li').length === {left}")
    page.value("document.getElementById('undo').click()")
    page.wait("new URLSearchParams(location.hash.slice(1)).get('mask') === ''")
    page.value("document.getElementById('redo').click()")
    page.wait(f"location.hash.includes('{first}')")
    assert page.complaints == []


def test_a_box_is_dragged_and_is_the_region_of_the_command(page: Browser) -> None:
    choose_first_style(page)
    page.press("r")
    page.mouse("mousePressed", 500, 300)
    page.mouse("mouseMoved", 650, 380)
    page.mouse("mouseReleased", 700, 400)
    page.wait("new URLSearchParams(location.hash.slice(1)).get('region')")
    x, y, w, h = map(int, in_link(page, "region").split(","))
    assert 0 < x < x + w < 4200 and 0 < y < y + h < 2100 and abs(w / h - 2) < 0.05
    page.press("m")
    page.wait(f"document.getElementById('command').textContent.includes('--region {x},{y},{w},{h}')")
    page.press("Escape")
    page.value("document.getElementById('region-none').click()")
    assert in_link(page, "region") == ""


def test_ones_own_picture_is_a_style_and_is_mixed(page: Browser) -> None:
    bring(page, "mine.png", encoded_png(picture(200, 220, seed=5)), "own-file")
    page.wait("/style=%3A[0-9a-f]{16}/.test(location.hash)")
    painted(page)
    assert page.value("document.getElementById('label-after').textContent") == "mine.png"
    page.value("document.getElementById('mix').click()")
    page.value(f"document.querySelector('#gallery input[value={STYLE}]').click()")
    page.wait("document.querySelectorAll('#mixture input').length === 2")
    page.value("document.querySelectorAll('#mixture input')[0].value = 25")
    for event in ("input", "change"):
        page.value(f"document.querySelectorAll('#mixture input')[0].dispatchEvent(new Event('{event}'))")
    painted(page)
    word = in_link(page, "style").split("=")[0]
    assert in_link(page, "style") == f"{word}=25,{STYLE}=50"
    url = page.value("location.href")
    page.open(url)
    painted(page)
    shares = "[...document.querySelectorAll('#mixture output')].map((one) => one.textContent)"
    assert page.wait(f"(found => found.length && found)({shares})") == ["33 %", "67 %"]
    bring(page, "notes.png", b"no picture", "own-file")
    page.wait("document.getElementById('sorry-text').textContent.includes('notes.png')")
    assert in_link(page, "style") == f"{word}=25,{STYLE}=50"


def test_a_small_picture_is_uploaded_and_then_listed(page: Browser) -> None:
    page.press("o")
    bring(page, "photo.png", encoded_png(picture(150, 160, seed=6)), "files-file")
    page.wait("document.getElementById('image-name').textContent === 'photo.png'")
    page.press("o")
    page.wait("document.querySelectorAll('#files-recent button').length === 2")
    page.value("document.querySelectorAll('#files-recent button')[1].click()")
    page.wait("document.getElementById('image-name').textContent === 'scene.tif'")


def test_side_by_side_both_views_move_together(page: Browser) -> None:
    choose_first_style(page)
    page.press("b")
    page.wait("!document.getElementById('view-before').hidden && document.getElementById('divider').hidden")
    halves = page.value("['view-before', 'view'].map((id) => document.getElementById(id).clientWidth)")
    assert abs(halves[0] - halves[1]) <= 2 and in_link(page, "beside") == "1"
    for name in ("view-before", "view"):
        before = in_link(page, "zoom")
        x = page.value(
            f"(box => box.x + box.width / 2)(document.getElementById('{name}').getBoundingClientRect())"
        )
        page.mouse("mouseWheel", round(x), 400, deltaX=0, deltaY=-300)
        page.wait(f"new URLSearchParams(location.hash.slice(1)).get('zoom') !== '{before}'")
        page.value("new Promise((done) => setTimeout(done, 1500))")
        views = page.value(
            "['view-before', 'view'].map((id) => [...OpenSeadragon._viewers.values()]"
            ".find((one) => one.element.id === id).viewport).map((one) => [one.getZoom(true),"
            " one.getCenter(true).x, one.getCenter(true).y])"
        )
        np.testing.assert_allclose(views[0], views[1], rtol=1e-6)
    url = page.value("location.href")
    page.open(url)
    page.wait("!document.getElementById('view-before').hidden")
    page.press("b")
    page.wait("document.getElementById('view-before').hidden && !document.getElementById('divider').hidden")
    assert page.complaints == []


def test_tiles_that_nobody_would_see_are_dropped(page: Browser) -> None:
    page.value("""(() => {
        const real = window.fetch;
        window.stopped = 0;
        window.fetch = (url, options) => {
            if (!String(url).startsWith('tiles/') || !window.slow) return real(url, options);
            return new Promise((done, failed) => {
                const stopped = () => { window.stopped += 1; failed(options.signal.reason); };
                options.signal.addEventListener('abort', stopped);
            });
        };
    })()""")
    page.press("1")
    page.wait("location.hash.includes('zoom=1&')")
    page.value("window.slow = true")
    page.value("location.hash = location.hash.replace(/x=[0-9]+/, 'x=300')")
    page.wait("document.getElementById('where').textContent.startsWith('x 300')")
    assert page.value("window.stopped") == 0
    page.value("window.slow = false")
    page.value("location.hash = location.hash.replace(/x=[0-9]+/, 'x=3900')")
    page.wait("window.stopped > 0")
    page.value("location.hash = location.hash.replace(/x=[0-9]+/, 'x=300')")  # what was dropped comes back
    page.wait("document.getElementById('where').textContent.startsWith('x 300')")
    page.wait("OpenSeadragon._viewers.values().next().value.world.getItemAt(0).getFullyLoaded()")
    assert not shown(page, "sorry")


def test_axe_finds_nothing_serious_anywhere(page: Browser) -> None:
    def scheme(name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        page.command("Emulation.setEmulatedMedia", features=features)

    choose_first_style(page)
    page.press("p")
    drawn_by_mouse(page, (500, 300), (700, 300), (700, 500))
    page.press("Enter")
    page.wait("document.querySelectorAll('#places-list li').length === 1")
    painted(page)
    page.value("document.getElementById('region-view').click()")
    for colours in ("dark", "light"):
        scheme(colours)
        for size in ((1280, 800), (390, 844)):
            page.resize(*size)
            assert page.barriers() == []
            for key, dialog in (("o", "files"), ("m", "making"), ("?", "help")):
                page.value("document.activeElement.blur()")
                page.press(key)
                page.wait(f"document.getElementById('{dialog}').open")
                page.value("new Promise((done) => setTimeout(done, 500))")
                assert page.barriers() == [], (colours, size, dialog)
                page.press("Escape")


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
