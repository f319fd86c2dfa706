"""Shares of a job: the i-th of n.

Machines that compute different shares need no other knowledge of each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from urst_tiles.errors import BadInput


@dataclass(frozen=True)
class Shard:
    """The share ``index`` of ``count`` shares, counted from 1.

    A share takes every ``count``-th item, so that an empty margin of the image falls evenly to all shares.

    Raises
    ------
    BadInput : ``index`` is less than 1 or more than ``count``.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise BadInput(f"--shard counts from 1/{self.count} to {self.count}/{self.count}, got {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The share that a text such as ``2/8`` (the second of eight) names.

        Raises
        ------
        BadInput : the text has another form, or the share does not exist.
        """
        match = re.fullmatch(r"(\d+)/([1-9]\d*)", text)
        if not match:
            raise BadInput(f"--shard is I/N, as 2/8 for the second of eight, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def of(self, total: int) -> range:
        """The items of this share among the items 0 to ``total`` - 1."""
        return range(self.index - 1, total, self.count)
