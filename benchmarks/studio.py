"""How long one waits for the studio: a real browser chooses styles, zooms and pans, by keyboard and mouse.

    python benchmarks/studio.py                  # Black Marble of ../shared, 32768 x 32768, or a made scene
    python benchmarks/studio.py --side 8192      # a made scene of that side
    python benchmarks/studio.py --styles 5 --model painter IMAGE

It needs Chromium, and the driver of the tests. A time is taken in the page, from the key or the mouse to the
end of the last answer that it asked for; what is drawn after that takes a frame. Beside it stands how long
processors worked for the server meanwhile, which other work on the machine changes little. What is waited for
is told on stderr; a wait that is too long is given up, and the table has what is known by then.
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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness import (
    COMMAND,
    ROOT,
    SHARED,
    WORK,
    Memory,
    Parser,
    existing_file,
    integer,
    positive,
    program,
    table,
)

sys.path.insert(0, str(ROOT / "tests"))

from browser import CHROMIUM, Browser
from helpers import geotiff

from urst_tiles.errors import BadInput

#: A gigapixel of the Earth at night, JPEG in a BigTIFF with overviews.
BLACK_MARBLE = SHARED / "data/inputs/geotiff/nasa_black_marble_2012_z7_32768_bigtiff_jpeg_3857.tif"

#: Nothing more is asked for once so many seconds have passed without a question.
QUIET_SECONDS = 1.0

#: How often it is told what is waited for.
TELL_SECONDS = 5.0

#: What is done in each style, in this order.
ACTIONS = ("choose a style, whole image", "full scale (1:1)", "pan by half a view")

#: Counts the questions of the page that are not answered yet; once for each page.
COUNT = """(() => {
    if (window.asking) return;
    window.asking = new Set();
    const ask = window.fetch;
    window.fetch = async (url, options) => {
        const one = { url: String(url) };
        if (!one.url.includes('api/status')) window.asking.add(one);
        try { return await ask(url, options); } finally { window.asking.delete(one); }
    };
})()"""

#: Begins to watch which tiles of paintings the page asks for.
WATCH = """performance.clearResourceTimings(); performance.setResourceTimingBufferSize(20000);
window.begun = performance.now()"""

#: The radio button of the style that is chosen.
CHOSEN = "document.querySelector('#gallery input:checked') ?? document.querySelector('#gallery input')"

#: [tiles answered, seconds to the first and to the last answer, questions that wait, what the page says].
SEEN = """(() => {
    const painted = ({ name }) => {
        const state = name.match(/[/]tiles[/]([^/]+)/)?.[1].replace(/-/g, '+').replace(/_/g, '/');
        return state && JSON.parse(atob(state)).style;
    };
    const ends = performance.getEntriesByType('resource').filter(painted)
        .map((one) => one.responseEnd).filter((end) => end > 0).sort((a, b) => a - b);
    const said = ['busy', 'sorry'].filter((id) => !document.getElementById(id).hidden)
        .map((id) => document.getElementById(`${id}-text`).textContent);
    const [first, last] = [ends[0], ends.at(-1)].map((end) => (end - window.begun) / 1000);
    return [ends.length, first, last, window.asking.size, said];
})()"""


@dataclass(frozen=True)
class Wait:
    """What an action took.

    Attributes
    ----------
    tiles : how many tiles of the painting were answered.
    first, last : seconds to the first and to the last answer.
    processor : seconds of processors that the server took.
    ended : whether all was answered; if not, the wait was given up.
    """

    tiles: int
    first: float
    last: float
    processor: float = 0.0
    ended: bool = True


class Watched:
    """A page of the studio and its server, and how much time there is for all of it.

    Parameters
    ----------
    page, server : the page, and the process that serves it.
    patience : seconds after which a wait is given up.
    limit : seconds after which no further style is begun.
    """

    def __init__(self, page: Browser, server: int, patience: float, limit: float) -> None:
        self.page, self.patience, self.begun = page, patience, time.monotonic()
        self._server, self._limit = psutil.Process(server), limit

    @property
    def has_time(self) -> bool:
        """Whether there is time for another style."""
        return time.monotonic() - self.begun < self._limit

    def tell(self, said: str) -> None:
        """Tell something, with the seconds since the beginning."""
        print(f"[{time.monotonic() - self.begun:6.1f} s] {said}", file=sys.stderr, flush=True)

    def processor(self) -> float:
        """Seconds of processors that the server has taken."""
        times = self._server.cpu_times()
        return times.user + times.system

    def open(self, url: str, name: str) -> None:
        """Open a page and wait for its image."""
        self.tell(f"opening {name}")
        self.page.open(url)
        self.page.wait(f"document.getElementById('image-name')?.textContent === {name!r}", self.patience)
        self.page.value(COUNT)
        self.tell(f"{name} is open; the server took {self.processor():.1f} s of processors for it")

    def waits(self, what: str, act: Any) -> Wait:
        """Act, and wait until all that the page asks for is answered."""
        before = self.processor()
        self.page.value(WATCH)
        act()
        waited = self._answered(what)
        done = replace(waited, processor=self.processor() - before)
        self.tell(
            f"{what}: {done.tiles} tiles, the first after {done.first:.2f} s, all after {done.last:.2f} s,"
            f" {done.processor:.2f} s of processors{'' if done.ended else ', GIVEN UP'}"
        )
        return done

    def _answered(self, what: str) -> Wait:
        begun = told = since = time.monotonic()
        before: tuple[int, int] | None = None
        while True:
            tiles, first, last, asking, said = self.page.value(SEEN)
            now = time.monotonic()
            if (tiles, asking) != before or asking or said or not tiles:
                before, since = (tiles, asking), now
            seen = Wait(tiles, first or 0.0, last or 0.0)
            if now - since >= QUIET_SECONDS:
                return seen
            if now - begun > self.patience:
                return replace(seen, ended=False)
            if now - told >= TELL_SECONDS:
                told = now
                self.tell(f"  waiting: {what}; {tiles} tiles answered, {asking} asked for; {' '.join(said)}")
            time.sleep(0.1)


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


def pan(page: Browser) -> None:
    """Drag the image by half of the view to the left."""
    left, top, width, height = page.value(
        "(({ x, y, width, height }) => [x, y, width, height])"
        "(document.getElementById('view').getBoundingClientRect())"
    )
    middle, start, end = int(top + height / 2), int(left + width * 0.8), int(left + width * 0.3)
    words = {"button": "left", "buttons": 1, "clickCount": 1}
    page.command("Input.dispatchMouseEvent", type="mousePressed", x=start, y=middle, **words)
    for x in np.linspace(start, end, 12):
        page.command("Input.dispatchMouseEvent", type="mouseMoved", x=int(x), y=middle, **words)
        time.sleep(0.02)
    time.sleep(0.2)  # a hand that lies still: no flick
    page.command("Input.dispatchMouseEvent", type="mouseMoved", x=end, y=middle, **words)
    page.command("Input.dispatchMouseEvent", type="mouseReleased", x=end, y=middle, **words)


def measured(watched: Watched, url: str, name: str, styles: int) -> dict[str, list[Wait]]:
    """The waits of each action, once for each style."""
    page = watched.page
    watched.open(url, name)
    found: dict[str, list[Wait]] = {action: [] for action in ACTIONS}
    page.press("s")
    for number in range(styles):
        if not watched.has_time:
            watched.tell("no time for another style")
            break
        page.press("0")
        time.sleep(QUIET_SECONDS)
        page.value(f"({CHOSEN}).focus()")
        acts = (lambda: page.press("ArrowRight"), lambda: _full(page), lambda: pan(page))
        for action, act in zip(ACTIONS, acts, strict=True):
            found[action].append(watched.waits(f"style {number + 1} of {styles}, {action}", act))
    return found


def _full(page: Browser) -> None:
    page.value("document.querySelector('#view .openseadragon-canvas').focus()")
    page.press("1")


def rows(found: dict[str, list[Wait]]) -> list[list[str]]:
    """A row for each action, with the median over the styles."""

    def median(waits: list[Wait], name: str, digits: int) -> str:
        return f"{statistics.median(getattr(one, name) for one in waits):.{digits}f}"

    return [
        [
            action + ("" if all(one.ended for one in waits) else " (given up)"),
            median(waits, "tiles", 0),
            *(median(waits, name, 2) for name in ("first", "last", "processor")),
        ]
        for action, waits in found.items()
        if waits
    ]


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=existing_file)
    parser.add_argument("--side", type=integer(), help="of a made scene, in pixels, instead of Black Marble")
    parser.add_argument("--styles", type=integer(), default=3, help="how many styles are chosen")
    parser.add_argument("--model", default="lite", help="lite or painter")
    parser.add_argument("--window", type=integer(), nargs=2, default=(1600, 1000), metavar=("W", "H"))
    parser.add_argument("--patience", type=positive, default=60, help="seconds until a wait is given up")
    parser.add_argument("--limit", type=positive, default=240, help="seconds until no further style is begun")
    return parser.parse_args(words)


@program
def main(words: Sequence[str]) -> None:
    """Open the studio and the browser, act, and print the table."""
    given = arguments(words)
    if CHROMIUM is None:
        raise BadInput("there is no Chromium here (apt install chromium)")
    black = BLACK_MARBLE.exists() and given.side is None
    image = (given.image or (BLACK_MARBLE if black else scene(given.side or 16384))).resolve()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*COMMAND, "studio", str(image), "--no-browser"], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            if address is None:
                raise BadInput(f"the studio of {image} did not start")
            memory = Memory(server.pid, 0.2)
            try:
                with Browser(Path(folder), tuple(given.window)) as page:
                    watched = Watched(page, server.pid, given.patience, given.limit)
                    url = f"{address[0]}#image={image.name}&model={given.model}"
                    found = measured(watched, url, image.name, given.styles)
            finally:
                peak = memory.close()
        finally:
            server.terminate()
            server.wait(60)
    heads = ["action", "tiles", "first after s", "all after s", "processor s"]
    table("The studio", heads, rows(found))
    after, (w, h) = os.getloadavg()[0], given.window
    styles = len(found[ACTIONS[0]])
    print(
        f"\n{image.name}, --model {given.model}, window {w} x {h}, median of {styles} styles; the server took"
        f" at most {peak / (1 << 20):.0f} MiB; load of the machine {load:.1f} before, {after:.1f} after."
    )


if __name__ == "__main__":
    sys.exit(main())
