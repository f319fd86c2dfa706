"""Progress is told through one callback."""

from __future__ import annotations

from collections.abc import Callable

#: Called with (stage, done, total): a short word such as "spooling", and counts in the stage's own unit.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """The callback that says nothing."""
