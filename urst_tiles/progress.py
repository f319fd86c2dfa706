"""How long work reports its progress: through a callback that the caller passes in."""

from __future__ import annotations

from collections.abc import Callable

#: A callback that is called with (stage, done, total): a short name of the stage such as "stylising", and how
#: many items of the stage, such as blocks or bytes, are done and how many there are.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """The callback that does nothing with the progress."""
