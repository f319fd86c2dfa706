"""What is known about a source: the facts from the header of its file, and what its preparation adds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from urst_tiles.source.area import Area
from urst_tiles.source.openers import Opener
from urst_tiles.source.stretch import Ranges
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.metadata import Info


@dataclass(frozen=True)
class Facts:
    """The facts about a source that follow from the header of its file.

    Attributes
    ----------
    path, info, fingerprint : as in `Source`.
    stored : (height, width) in pixels as stored, before the orientation is applied.
    orientation : 1 to 8, as TIFF's tag 274.
    choice : the page, and the channels or bands, that the user chose.
    told : what the program chose, and not the user, as a phrase; empty if there was no choice.
    colours : how many bands of colour the opener returns: 1 or 3, or if ``choice`` is plain any number.
    file_dtype : name of the dtype of the colours in the file.
    has_valid : whether every pixel comes with a weight that says how valid it is.
    overviews : (height, width) of each overview in the file, as stored.
    reader_bytes : bytes of memory that the opener's reader takes at most, besides the arrays that it returns.
    spooling_bytes : bytes of memory that decoding from top to bottom takes at most.
    opener : gives access to the pixels; without random access it only streams them from top to bottom.
    random_access : whether ``opener`` can read any box at any time.
    stretched : whether values are stretched to uint16: so are files that are not uint8, but never arrays.
    areas : what the user calls valid; a pixel is valid if the file says so and it lies in all of them.
    made_of : how many files make the image, as a phrase, if it is several; else empty.
    returned_bytes : of ``reader_bytes``, what the reader makes for those that call it, and not for libraries,
        caches and blocks that are decoded; None for all.
    once_bytes : of ``reader_bytes``, what a process takes once, however many such files it reads.
    is_jpeg : whether the pixels in the file are compressed as JPEG.
    halvings : how often the image was halved from the one that the user named.
    average_cell : (height, width) of the cells whose sums make the thumbnail, if they are not the reader's.
    """

    path: Path
    info: Info
    fingerprint: str
    stored: tuple[int, int]
    orientation: int
    choice: Choice
    told: str
    colours: int
    file_dtype: str
    has_valid: bool
    overviews: tuple[tuple[int, int], ...]
    reader_bytes: int
    spooling_bytes: int
    opener: Opener
    random_access: bool
    stretched: bool
    areas: tuple[Area, ...] = ()
    made_of: str = ""
    average_cell: tuple[int, int] | None = None
    returned_bytes: int | None = None
    once_bytes: int = 0
    is_jpeg: bool = False
    halvings: int = 0

    @property
    def handed_bytes(self) -> int:
        """``returned_bytes``, or all of ``reader_bytes`` where that is not known apart."""
        return self.reader_bytes if self.returned_bytes is None else self.returned_bytes


@dataclass(frozen=True)
class Prepared:
    """The result of `Source.prepare`.

    Attributes
    ----------
    opener : gives random access to the pixels.
    ranges : (low, high) of each colour band, the values that become 0 and 65535; None without a stretch.
    origin : a phrase that says from what the thumbnail was made.
    thumbnail : the pixels of the thumbnail, or the path of the file that holds them.
    later : the short side of a thumbnail that is made, and saved there, when it is first asked for; None if
        it is made.
    """

    opener: Opener
    ranges: Ranges | None
    origin: str
    thumbnail: NDArray[Any] | Path
    later: int | None = None
