"""The studio in a notebook: an image and its painting in the output of a cell."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source import Source
from urst_tiles.studio.asked import Asked, first_model, relative


@dataclass(frozen=True)
class StudioFrame:
    """What `show` returns; a notebook shows it as the page of the studio.

    Attributes
    ----------
    url : the address of the page, with its secret: whoever knows it can look at all images in the folder.
    height : of the page in a notebook, in pixels.
    """

    url: str
    height: int = 640

    def _repr_html_(self) -> str:
        """The page as HTML, in a frame as wide as the cell."""
        return (
            f'<iframe src="{escape(self.url)}" width="100%" height="{self.height}" style="border:0"'
            ' title="urst-tiles studio" allow="clipboard-write; fullscreen"></iframe>'
        )


def show(
    source: str | os.PathLike[str] | Source,
    style: str = "",
    *,
    alpha: float = 1.0,
    preserve_color: str = "none",
    model: str | None = None,
    height: int = 640,
) -> StudioFrame:
    """Show an image and its painting in a notebook, at every scale, before anything is written.

    It is the page of ``urst-tiles studio`` for the folder of the image; only what is looked at is painted.
    Its server is a process of its own, one for each folder, which ends together with this process. The
    browser must run on this machine, or reach it under its own address, as through a tunnel.

    Parameters
    ----------
    source : an image file, or the source that `open_source` made of one; also a finished painting, which is
        shown beside its image.
    style : the name of a style that comes with the networks, see `named_styles`; empty for the image as it
        is.
    alpha : strength of the style, 0 to 1.
    preserve_color : "none", or "luminance" to keep the colours of the image.
    model : the network, "painter" or "lite"; None for that of `stylize`.
    height : of the page, in pixels.

    Returns
    -------
    An object that notebooks show; its ``url`` opens in any browser of this machine.

    Raises
    ------
    BadInput : there is no such style or network; or the packages of the extra ``studio`` are not installed.
    MissingFile : there is no such image.
    """
    path = Path(source.path if isinstance(source, Source) else source).resolve()
    if not path.exists():
        raise MissingFile(f"there is no image file {path}")
    if not 0 <= alpha <= 1:
        raise BadInput(f"alpha must lie between 0 and 1, got {alpha}")
    root = path.parent
    look = Asked(
        relative(root, path), style, model or first_model(), alpha=round(100 * alpha), colours=preserve_color
    )
    words = {
        "image": look.image,
        "style": style,
        "model": look.model,
        "alpha": look.alpha,
        "colours": look.colours,
    }
    return StudioFrame(f"{_server(root)}#{urlencode(words)}", height)


_lock = threading.Lock()
_servers: dict[Path, tuple[subprocess.Popen[str], str]] = {}


def _server(root: Path) -> str:
    """The address of the studio of a folder, which is started if it does not run."""
    with _lock:
        process, url = _servers.get(root, (None, ""))
        if process is None or process.poll() is not None:
            process, url = _started(root)
            _servers[root] = process, url
        return url


def _started(root: Path) -> tuple[subprocess.Popen[str], str]:
    """A studio in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "urst_tiles.studio.framed", str(root)],  # -P: no modules of this folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    told: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
    if "url" not in told:
        process.kill()
        process.wait()
        raise BadInput(told.get("error") or "the studio could not be started")
    return process, str(told["url"])


@atexit.register
def _close_all() -> None:
    """End all servers."""
    for process, _ in _servers.values():
        if process.stdin is not None:
            process.stdin.close()
    for process, _ in _servers.values():
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    _servers.clear()
