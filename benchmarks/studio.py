"""How long one waits for the studio: a real browser chooses styles, zooms and pans, by keyboard and mouse.

    python benchmarks/studio.py                  # Black Marble of ../shared, 32768 x 32768, or a made scene
    python benchmarks/studio.py --side 8192      # a made scene of that side
    python benchmarks/studio.py IMAGE

It needs Chromium, and the driver of the tests. A time is taken in the page, from the key or the mouse to the
end of the last answer that it asked for; what is drawn after that takes a frame.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import COMMAND, ROOT, SHARED, WORK, Memory, table

sys.path.insert(0, str(ROOT / "tests"))

from browser import CHROMIUM, Browser
from helpers import geotiff

#: A gigapixel of the Earth at night, JPEG in a BigTIFF with overviews.
BLACK_MARBLE = SHARED / "data/inputs/geotiff/nasa_black_marble_2012_z7_32768_bigtiff_jpeg_3857.tif"

#: The width and height of the window, in pixels, and how many styles are chosen.
WINDOW, STYLES = (1600, 1000), 3

#: Nothing more is asked for once so many seconds have passed without a question.
QUIET_SECONDS = 3

#: Begins to watch which tiles of paintings the page asks for.
WATCH = """performance.clearResourceTimings(); performance.setResourceTimingBufferSize(20000);
window.begun = performance.now()"""

#: The radio button of the style that is chosen.
CHOSEN = "document.querySelector('#gallery input:checked') ?? document.querySelector('#gallery input')"

#: [how many were answered, seconds to the first answer, seconds to the last].
SEEN = """(() => {
    const painted = ({ name }) => {
        const state = name.match(/[/]tiles[/]([^/]+)/)?.[1].replace(/-/g, '+').replace(/_/g, '/');
        return state && JSON.parse(atob(state)).style;
    };
    const ends = performance.getEntriesByType('resource').filter(painted)
        .map((one) => one.responseEnd).filter((end) => end > 0).sort((a, b) => a - b);
    return [ends.length, (ends[0] - window.begun) / 1000, (ends.at(-1) - window.begun) / 1000];
})()"""


def scene(side: int) -> Path:
    """A made scene: smooth shapes under grain."""
    path = WORK / f"studio-{side}.tif"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:side, :side].astype(np.float32)
        grain = np.random.default_rng(0).integers(0, 30, (side, side), np.uint8)
        bands = [np.sin(x / period) + np.sin(y / (1.7 * period)) for period in (90, 310, 1100)]
        pixels = np.stack([(110 + 45 * band).astype(np.uint8) + grain for band in bands], 2)
        geotiff(path, pixels)
    return path


def waited(page: Browser) -> tuple[int, float, float]:
    """How many tiles were answered since `WATCH`, and the seconds to the first and to the last."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS or count < 1 or busy(page):
        found = page.value(SEEN)
        if found[0] != count:
            count, since = found[0], time.monotonic()
        assert time.monotonic() - since < 600, "the studio does not answer"
        time.sleep(0.2)
    return int(found[0]), float(found[1]), float(found[2])


def busy(page: Browser) -> bool:
    return not page.value("document.getElementById('busy').hidden")


def pan(page: Browser) -> None:
    """Drag the image by half of the view to the left."""
    width, middle = (page.value("document.getElementById('view').clientWidth"), WINDOW[1] // 2)
    start, end = int(width * 0.8), int(width * 0.3)
    words = {"button": "left", "buttons": 1, "clickCount": 1}
    page.command("Input.dispatchMouseEvent", type="mousePressed", x=start, y=middle, **words)
    for x in np.linspace(start, end, 12):
        page.command("Input.dispatchMouseEvent", type="mouseMoved", x=int(x), y=middle, **words)
        time.sleep(0.02)
    time.sleep(0.2)  # a hand that lies still: no flick
    page.command("Input.dispatchMouseEvent", type="mouseMoved", x=end, y=middle, **words)
    page.command("Input.dispatchMouseEvent", type="mouseReleased", x=end, y=middle, **words)


def measured(page: Browser, url: str, name: str) -> dict[str, list[tuple[int, float, float]]]:
    """The waits of each action, once for each style."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    page.open(url)
    page.wait(f"document.getElementById('image-name').textContent === {name!r}", 600)
    page.value(WATCH)
    for action in ("choose a style, whole image", "full scale (1:1)", "pan by half a view"):
        found[action] = []
    page.press("s")
    for _ in range(STYLES):
        page.press("0")
        time.sleep(QUIET_SECONDS)
        page.value(WATCH)
        page.value(f"({CHOSEN}).focus()")
        page.press("ArrowRight")
        found["choose a style, whole image"].append(waited(page))
        page.value("document.querySelector('#view .openseadragon-canvas').focus()")
        page.value(WATCH)
        page.press("1")
        found["full scale (1:1)"].append(waited(page))
        page.value(WATCH)
        pan(page)
        found["pan by half a view"].append(waited(page))
    return found


def rows(found: dict[str, list[tuple[int, float, float]]]) -> list[list[str]]:
    """A row for each action, with the median over the styles."""

    def median(action: str, at: int) -> float:
        return statistics.median(one[at] for one in found[action])

    return [
        [action, f"{median(action, 0):.0f}", f"{median(action, 1):.2f}", f"{median(action, 2):.2f}"]
        for action in found
    ]


def main() -> None:
    """Open the studio and the browser, act, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=16384, help="of a made scene, in pixels")
    given = parser.parse_args()
    assert CHROMIUM is not None, "there is no Chromium here (apt install chromium)"
    black = BLACK_MARBLE.exists() and "--side" not in sys.argv
    image = (given.image or (BLACK_MARBLE if black else scene(given.side))).resolve()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*COMMAND, "studio", str(image), "--no-browser"], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address is not None, "the studio did not start"
            memory = Memory(server.pid, 0.2)
            with Browser(Path(folder), WINDOW) as page:
                found = measured(page, address[0], image.name)
            peak = memory.close()
        finally:
            server.terminate()
            server.wait(60)
    table("The studio", ["action", "tiles", "first after s", "all after s"], rows(found))
    after = os.getloadavg()[0]
    print(
        f"\n{image.name}, window {WINDOW[0]} x {WINDOW[1]}, median of {STYLES} styles; the server"
        f" took at most {peak / (1 << 20):.0f} MiB; load of the machine {load:.1f} before, {after:.1f} after."
    )


if __name__ == "__main__":
    main()
