"""The studio in a notebook: its frame, who may hold it, and that its server ends with the kernel."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import psutil
import pytest
import pyvips
from browser import Browser, without_chromium
from helpers import geotiff, picture, wait_for

pytest.importorskip("starlette", reason="the extra studio is not installed")
pytest.importorskip("uvicorn", reason="the extra studio is not installed")

import urst_tiles as ut
from urst_tiles.studio import show as showing

STYLE = "hokusai-wave"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield geotiff(tmp_path_factory.mktemp("notebook") / "a scene.tif", picture(300, 400))
    showing._close_all()


def status(url: str, **headers: str) -> tuple[int, str]:
    """Status and policy of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, headers=named), timeout=60) as answer:
            return answer.status, answer.headers["Content-Security-Policy"]
    except HTTPError as error:
        error.close()
        return error.code, ""


def test_a_cell_shows_the_page(scene: Path) -> None:
    frame = ut.show(scene, STYLE, alpha=0.4, preserve_color="luminance", model="painter", height=500)
    html = frame._repr_html_()
    assert (
        html.startswith('<iframe src="http://127.0.0.1:') and 'height="500"' in html and "&amp;style=" in html
    )
    address, _, said = frame.url.partition("#")
    words = {name: values[0] for name, values in parse_qs(said).items()}
    assert words == {
        "image": "a scene.tif", "style": STYLE, "model": "painter", "alpha": "40", "colours": "luminance"
    }  # fmt: skip
    assert status(address)[0] == 200
    again = ut.show(ut.open_source(scene))
    assert again.url.startswith(address) and len(showing._servers) == 1
    assert "model=lite" in again.url, "what the tests paint with where nothing is named"


def test_notebooks_may_hold_it_in_a_frame_and_may_not_ask_it(scene: Path) -> None:
    address = ut.show(scene).url.partition("#")[0]
    frame = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    code, policy = status(address, Sec_Fetch_Site="cross-site", **frame)
    assert code == 200 and "frame-ancestors http://localhost:* http://127.0.0.1:*" in policy
    assert status(address, Sec_Fetch_Site="same-site", **frame)[0] == 200
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost:8888", **frame},
    ):
        assert status(f"{address}api/start", **headers)[0] == 403


def test_what_cannot_be_shown_is_a_sentence(scene: Path) -> None:
    with pytest.raises(ut.MissingFile, match=r"there is no image file .*nosuch\.tif"):
        ut.show(scene.with_name("nosuch.tif"))
    with pytest.raises(ut.BadInput, match="no style called 'nosuch'"):
        ut.show(scene, "nosuch")
    with pytest.raises(ut.BadInput, match="alpha must lie between"):
        ut.show(scene, STYLE, alpha=40)
    with pytest.raises(ut.BadInput, match="colours are"):
        ut.show(scene, STYLE, preserve_color="sepia")


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_server_ends_with_the_kernel(scene: Path, number: signal.Signals) -> None:
    program = (
        f"import sys, urst_tiles as ut; print(ut.show({str(scene)!r}).url, flush=True); sys.stdin.read()"
    )
    kernel = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None and kernel.stdin is not None
    line = kernel.stdout.readline()
    assert re.match(r"http://127\.0\.0\.1:\d+/[\w-]{32}/#image=a\+scene\.tif", line)
    (server,) = psutil.Process(kernel.pid).children()
    kernel.send_signal(number)
    kernel.wait(30)
    kernel.stdin.close()
    kernel.stdout.close()
    psutil.wait_procs([server], 30)
    assert not server.is_running()


@pytest.mark.slow
@without_chromium
def test_a_page_of_a_notebook_shows_it(scene: Path, tmp_path: Path) -> None:
    html = ut.show(scene, STYLE)._repr_html_().encode()

    class Notebook(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href=data:,>" + html)

        def log_message(self, format: str, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Notebook) as server, Browser(tmp_path) as page:
        Thread(target=server.serve_forever, daemon=True).start()
        page.open(f"http://localhost:{server.server_port}/")
        page.wait("document.querySelector('iframe') !== null")

        def shown() -> bool:  # the image and its painting, and no page of an error
            path = str(page.picture(tmp_path / "page.png"))
            return bool(pyvips.Image.new_from_file(path).numpy()[100:500, 200:800, :3].std() > 15)

        wait_for(shown, 120)
        assert page.complaints == []
        server.shutdown()
