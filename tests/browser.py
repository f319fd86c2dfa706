"""A real Chromium without a window, driven by its own protocol.

The protocol: https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

#: The program, where there is one.
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

#: Tests that need it are skipped where it is missing; in CI they fail.
without_chromium = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true", reason="no Chromium here (apt install chromium)"
)

#: The checks of accessibility by Deque Systems (`tests/axe/README.md`).
AXE = Path(__file__).parent / "axe" / "axe.min.js"

#: The codes of keys that are no letters.
CODES = {
    "ArrowRight": 39,
    "ArrowLeft": 37,
    "Enter": 13,
    "Tab": 9,
    "Escape": 27,
    "ArrowDown": 40,
    "ArrowUp": 38,
}


class Browser:
    """A page of ``size`` (width, height) in pixels; ends with the block.

    Attributes
    ----------
    complaints : what the page wrote to its console as errors, and what the browser refused.
    """

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 800)) -> None:
        assert CHROMIUM is not None, "no Chromium here (apt install chromium)"
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            "--no-first-run",
        ]
        command = [CHROMIUM, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = next(line for line in self._process.stderr if "DevTools listening" in line)
        found = re.search(r":(\d+)/", line)
        assert found is not None
        with urlopen(f"http://127.0.0.1:{found[1]}/json") as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.complaints: list[str] = []
        self._link: WebSocketClientConnection = self._loop.run_until_complete(
            self._connected(page["webSocketDebuggerUrl"])
        )
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.command(f"{domain}.enable")
        self.resize(*size)

    @staticmethod
    async def _connected(url: str) -> WebSocketClientConnection:
        return await websocket_connect(url, max_message_size=1 << 28)

    def command(self, method: str, **words: Any) -> dict[str, Any]:
        """What the browser answers to a command of its protocol."""
        return self._loop.run_until_complete(self._command(method, words))

    async def _command(self, method: str, words: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._link.write_message(json.dumps({"id": self._number, "method": method, "params": words}))
        while True:
            told = json.loads(await asyncio.wait_for(self._link.read_message(), 60))  # type: ignore[arg-type]
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        words = told.get("params", {})
        if told.get("method") == "Log.entryAdded" and words["entry"]["level"] == "error":
            self.complaints.append(words["entry"]["text"])
        if told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(words["exceptionDetails"]))

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("Page.navigate", url="about:blank")
        self.command("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """The value of an expression in JavaScript."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """The value of an expression once it is true in JavaScript, where an element is, too."""
        end = time.monotonic() + seconds
        once = f"((found) => (found ? [found] : null))({expression})"
        tried = f"(() => {{ try {{ return {once} }} catch {{ return null }} }})()"  # a page that comes
        while not (found := self.value(tried)):
            assert time.monotonic() < end, f"waited in vain for {expression}"
            time.sleep(0.1)
        return found[0]

    def press(self, *keys: str) -> None:
        """Press and release keys: letters, or names such as ArrowRight."""
        for key in keys:
            code = CODES.get(key, ord(key[0].upper()))
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            which = {"key": key, "windowsVirtualKeyCode": code}
            which |= {"code": key} if len(key) > 1 else {}  # by which OpenSeadragon knows arrows
            typed = {"text": text} if text else {}
            self.command("Input.dispatchKeyEvent", type="keyDown", **which, **typed)
            self.command("Input.dispatchKeyEvent", type="keyUp", **which)

    def mouse(self, kind: str, x: int, y: int, **words: Any) -> None:
        """An event of the mouse, such as mousePressed, at a place of the page."""
        button = {} if kind == "mouseWheel" else {"button": "left", "clickCount": 1, "buttons": 1}
        self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button, **words)

    def nameless(self, roles: frozenset[str]) -> list[str]:
        """The roles of all elements of some roles that a screen reader has no name for."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        seen = [node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in roles]
        assert len(seen) > 2
        return [node["role"]["value"] for node in seen if not node.get("name", {}).get("value")]

    def barriers(self) -> list[str]:
        """What axe finds on the page that is serious or critical: the rule, and the elements."""
        if not self.value("'axe' in window"):
            self.value(f"(() => {{ {AXE.read_text()} }})()")
        found = self.value("axe.run().then((found) => found.violations)")
        return [
            f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def picture(self, path: Path) -> Path:
        """What the page looks like, as a PNG file."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot")["data"]))
        return path

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.set_event_loop(self._loop)  # closing asks for one, and a test before may have taken it away
        self._link.close()
        asyncio.set_event_loop(None)
        self._loop.close()
        self._process.kill()
        self._process.communicate()
