"""Making the whole painting: what it takes, the command that does the same, and the job itself.

The job is that very command in a process of its own: it goes on when the page is closed, and when it is
stopped the finished blocks stay, so that making it again continues it.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from urst_tiles.api.output import check_output
from urst_tiles.api.stylize import plan_job
from urst_tiles.errors import BadInput
from urst_tiles.source.source import Source
from urst_tiles.studio.arguments import Brought, write
from urst_tiles.studio.asked import Asked, inside, relative

#: How many seconds a job has to stop before it is killed.
STOP_SECONDS = 20


def output_of(root: Path, look: Asked, name: str, brought: Brought) -> Path:
    """The file that a job writes; its name is relative to the root, and by default stands beside the image.

    Raises
    ------
    BadInput : it would lie outside of the root, or is no name of a TIFF.
    """
    image = brought.uploads.find(look.image)
    beside = Path(relative(root, image)) if image.is_relative_to(root) else Path(image.name)
    path = Path(name) if name else beside.with_suffix(f".{brought.named(look)}.tif")
    folder = inside(root, str(path.parent))
    return check_output(folder / path.name, image)


def command_of(root: Path, look: Asked, output: Path, source: Source, brought: Brought) -> list[str]:
    """The command line that makes the painting, with names relative to the root."""
    deep = ["--dtype", "uint8"] if source.file_dtype == "uint16" else []
    files = brought.files(look, output, source)

    def name_of(word: str) -> str:
        return _plain(relative(root, files[word][0] if word in files else inside(root, word)))

    flags = brought.flags(look, name_of)
    return ["urst-tiles", "stylize", name_of(look.image), _plain(relative(root, output)), *flags, *deep]


def keep_files(root: Path, look: Asked, name: str, source: Source, brought: Brought) -> list[str]:
    """Write what the page brought and the command reads beside the output; the names of these files."""
    return write(root, brought.files(look, output_of(root, look, name, brought), source))


def _plain(name: str) -> str:
    """A name that is taken for no option."""
    return f"./{name}" if name.startswith("-") else name


def plan_of(root: Path, look: Asked, name: str, source: Source, brought: Brought) -> dict[str, Any]:
    """What making the painting takes: sizes in pixels and bytes, seconds, and the command line.

    Raises
    ------
    UrstError : it cannot be made; the message says why.
    """
    output = output_of(root, look, name, brought)
    image, options = brought.uploads.find(look.image), brought.options(look, source)
    plan, seconds = plan_job(image, output, brought.style(look), options)
    return {
        "output": relative(root, output),
        "exists": output.exists(),
        "width": plan.grid.made.shape[1],
        "height": plan.grid.made.shape[0],
        "blocks": len(plan.grid),
        "memory": plan.peak_bytes,
        "disk": plan.disk_bytes,
        "seconds": seconds,
        "folder": str(root),
        "files": [relative(root, path) for path, _ in brought.files(look, output, source).values()],
        "command": shlex.join(command_of(root, look, output, source, brought)),
    }


class Making:
    """The one job that may run at a time.

    Parameters
    ----------
    root : the folder in which it runs.
    brought : what the page brought.
    """

    def __init__(self, root: Path, brought: Brought) -> None:
        self._root, self._brought = root, brought
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._state: dict[str, Any] = {"state": "none"}

    @property
    def state(self) -> dict[str, Any]:
        """Whether a job runs, how far it is, or how it ended.

        ``state`` is "none", "running", "done", "stopped" or "failed"; with it come ``output``, ``stage``,
        ``done`` and ``total``, or ``message``.
        """
        return dict(self._state)

    def start(self, look: Asked, name: str, source: Source) -> None:
        """Run the job of a look.

        Raises
        ------
        BadInput : a job is running, or the output exists.
        """
        output = output_of(self._root, look, name, self._brought)
        if output.exists():
            raise BadInput(f"{relative(self._root, output)} exists; choose another name")
        words = command_of(self._root, look, output, source, self._brought)
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise BadInput("a job is running; wait for it, or stop it")
            write(self._root, self._brought.files(look, output, source))
            self._state = {"state": "running", "output": relative(self._root, output)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "urst_tiles", *words[1:], "--json"],
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Read what the job prints until it ends."""
        assert process.stdout is not None and process.stderr is not None
        said: list[str] = []
        stderr = process.stderr
        reading = threading.Thread(target=lambda: said.extend(list(stderr)[-20:]), daemon=True)
        reading.start()
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == "progress":
                    self._state |= {key: event[key] for key in ("stage", "done", "total")}
        status = process.wait()
        reading.join()
        last = said[-1].strip().removeprefix("urst-tiles: ") if said else ""
        ended = {0: "done", 130: "stopped"}.get(status, "failed")
        self._state = {"state": ended, "output": self._state["output"], "message": last}

    def stop(self) -> None:
        """Stop the job; its finished blocks are kept."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Stop the job and wait for its end."""
        process = self._process
        if process is None:
            return
        self.stop()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
