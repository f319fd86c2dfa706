"""What the command line prints: results on stdout, as text or as JSON lines; progress on stderr if that is a
terminal."""

from __future__ import annotations

import json
import sys
import time
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, TextIO

from urst_tiles.progress import Progress, silent


def say(text: str) -> None:
    """Print ``text``, which may have several lines, on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(sentence: str) -> None:
    """Print a sentence on stderr, after the name of the program."""
    sys.stderr.write(f"urst-tiles: {sentence}\n")


def event(name: str, **facts: Any) -> None:
    """Print an event and its facts as a JSON line on stdout."""
    say(json.dumps({"event": name} | facts, default=str))


def progress_for(as_json: bool) -> Progress:
    """The callback for progress: JSON lines, a line on the terminal, or nothing if there is no terminal."""
    if as_json:
        return _json_lines
    return Line(sys.stderr) if sys.stderr.isatty() else silent


def _json_lines(stage: str, done: int, total: int) -> None:
    event("progress", stage=stage, done=done, total=total)


class Line:
    """Shows progress as a line that is rewritten in place; each stage gets a new line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage = ""
        self._start = self._last = 0.0
        self._first = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` items of the stage are done, at most five times a second."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._start, self._first = stage, now, done
            self._stream.write("\n" if self._last else "")
        elif now - self._last < 0.2 and done < total:
            return
        self._last = now
        numbers = f" {self._share(done, total)}{self._rest(now, done, total)}"
        room = get_terminal_size().columns - 1 - len(numbers)
        self._stream.write(f"\r\x1b[K{shortened(stage, room)}{numbers}")
        if done >= total:
            self._stream.write("\n")
            self._stage, self._last = "", 0.0
        self._stream.flush()

    @staticmethod
    def _share(done: int, total: int) -> str:
        return f"{done}/{total} ({100 * done // max(1, total)} %)"

    def _rest(self, now: float, done: int, total: int) -> str:
        """The rate and the time left; items that were done before the first call do not raise the rate."""
        made, seconds = done - self._first, now - self._start
        if made <= 0 or seconds <= 0 or done >= total:
            return f", {clock(seconds)}"
        left = (total - done) * seconds / made
        return f", {made / seconds:.2f}/s, {clock(left)} left"


def shortened(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters (9 at least), if need be with an ellipsis for its middle."""
    length = max(length, 9)
    if len(text) <= length:
        return text
    end = length // 2
    return f"{text[: length - end - 1]}…{text[-end:]}"


def wrapped(text: str, indent: int) -> str:
    """``text`` on lines that fit the terminal, all but the first indented; as it is elsewhere."""
    if not sys.stdout.isatty():
        return text
    width = get_terminal_size().columns
    return fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def clock(seconds: float) -> str:
    """A time in seconds as minutes:seconds, or as hours:minutes:seconds from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
