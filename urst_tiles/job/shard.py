"""A share of the work: the i-th of n, for machines that know of each other no more than this."""

from __future__ import annotations

import re
from dataclasses import dataclass

from urst_tiles.errors import BadInput


@dataclass(frozen=True)
class Shard:
    """Share ``index`` of ``count``, counted from 1.

    Shares are interleaved, every count-th item: an empty margin of the image falls to all alike.

    Raises
    ------
    BadInput : when there is no such share.
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
        """``2/8`` is the second of eight."""
        found = re.fullmatch(r"(\d+)/([1-9]\d*)", text)
        if not found:
            raise BadInput(f"--shard is I/N, as 2/8 for the second of eight, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def of(self, total: int) -> range:
        """The items of this share, of 0..total - 1."""
        return range(self.index - 1, total, self.count)
