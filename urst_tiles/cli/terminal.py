"""What the command line prints: results on stdout, as text or as JSON lines; progress on stderr if that is a
terminal.

Printing never stops a job: a stream that is closed, full or broken is silent from then on. Names of files may
hold any byte; what is no printable text is written as an escape, so that no name can command the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import unicodedata
from contextlib import suppress
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, TextIO

from urst_tiles.progress import Progress, silent

#: Why text for stdout was lost, if it was.
lost: list[OSError] = []

#: Kinds of characters that are not printed: controls, formats, halves of pairs, separators of lines.
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")

#: Formats that scripts and emoji need: the joiner and the non-joiner.
JOINERS = "\u200c\u200d"


def say(text: str) -> None:
    """Print ``text``, which may have several lines, on stdout."""
    write(sys.stdout, f"{text}\n")


def complain(sentence: str) -> None:
    """Print a sentence on stderr, after the name of the program, on one line."""
    write(sys.stderr, f"urst-tiles: {one_line(sentence)}\n")


class Told(logging.Handler):
    """Prints what the user is told while a job is prepared, a sentence on a line of stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the sentence of a record."""
        complain(record.getMessage())


def write(stream: TextIO | None, text: str) -> None:
    """Write text, line ends as they are and all else printable.

    A stream that fails is silent from then on.
    """
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError) as error:
        if stream is sys.stdout and isinstance(error, OSError):
            lost.append(error)
        silence(stream)


def silence(stream: TextIO) -> None:
    """Lead a stream that failed to nowhere, so that what it still holds is no error when the program ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def printable(text: str) -> str:
    """``text`` with escapes such as ``\\x1b`` for what is no printable text; line ends stay."""
    return "".join(_escaped(c) if unicodedata.category(c) in UNPRINTABLE else c for c in text)


def _escaped(character: str) -> str:
    """A character as an escape; line ends and joiners as they are."""
    code = ord(character)
    if character == "\n" or character in JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python keeps it in names of files
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: object) -> str:
    """The name of a file, or a sentence with such names, printable and on one line."""
    return printable(str(text)).replace("\n", "\\x0a")


def open_streams() -> None:
    """Open stdin, stdout and stderr to nowhere where they were closed by the caller.

    Otherwise the next file that is opened would get their number, and what libraries print would go into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (stays open to the end)


def close_streams() -> None:
    """Write out what stdout and stderr still hold."""
    for stream in (sys.stdout, sys.stderr):
        write(stream, "")


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
            self._put("\n" if self._last else "")
        elif now - self._last < 0.2 and done < total:
            return
        self._last = now
        numbers = f" {self._share(done, total)}{self._rest(now, done, total)}"
        room = get_terminal_size().columns - 1 - len(numbers)
        end = "\n" if done >= total else ""
        self._put(f"\r\x1b[K{shortened(one_line(stage), room)}{numbers}{end}")
        if done >= total:
            self._stage, self._last = "", 0.0

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            silence(self._stream)

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
