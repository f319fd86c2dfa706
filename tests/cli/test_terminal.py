"""Progress: a line with share, rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import io

import pytest

from urst_tiles.cli import terminal
from urst_tiles.progress import silent


def test_a_line_tells_share_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    line = terminal.Line(stream)
    for done in (20, 30, 40, 100):
        line("stylising", done, 100)
    said = stream.getvalue().split("\r\x1b[K")
    assert said[1:3] == ["stylising 20/100 (20 %), 0:00", "stylising 30/100 (30 %), 1.00/s, 1:10 left"]
    assert said[-1] == "stylising 100/100 (100 %), 0:30\n"


def test_it_is_rewritten_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([step * 0.01 for step in range(101)])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    line = terminal.Line(stream)
    for done in range(100):
        line("reading", done, 100)
    assert stream.getvalue().count("\r") <= 6


def test_a_long_name_leaves_it_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    line = terminal.Line(stream)
    for done in (1, 500):
        line(f"12/40 {'long ' * 30}.tif: stylising", done, 500)
    lines = stream.getvalue().strip().split("\r\x1b[K")[1:]
    assert all(
        len(text) < 80 and text.startswith("12/40 long") and ".tif: stylising " in text for text in lines
    )
    assert lines[-1].endswith(" 500/500 (100 %), 0:00")


def test_quiet_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.sys, "stderr", io.StringIO())
    assert terminal.progress_for(False) is silent


def test_hours_are_told() -> None:
    assert terminal.clock(3 * 3600 + 62) == "3:01:02" and terminal.clock(59.9) == "0:59"
