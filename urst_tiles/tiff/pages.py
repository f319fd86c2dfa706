"""Which pages of a TIFF belong together: the image, its overviews, and their masks.

A page is one image of the file with its directory. GDAL's conventions hold: a page with NewSubfileType 1 is
an overview, 4 the mask of the main image, and 5 the mask of an overview (see "Internal nodata masks" and
"Overviews" of GDAL's GeoTIFF driver).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import Directory, read_directories
from urst_tiles.tiff.segments import DecodeTiff, Segments, Undecodable, short


class TiffFile:
    """An open TIFF.

    Attributes
    ----------
    path : the file.
    bytes : its bytes.
    directories : its directories, as `read_directories` returns them.

    Raises
    ------
    DamagedFile : the directories cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, FileBytes(path)
        self.directories = read_directories(self.bytes)

    def segments(
        self, directories: Sequence[Directory], fax: DecodeTiff | None = None
    ) -> list[Segments | Undecodable]:
        """The tiles or strips of these directories, each ready to be read, or why they cannot be decoded.

        Parameters
        ----------
        directories : directories of this file.
        fax : decodes the fax compressions (CCITT); with None they are undecodable.

        Raises
        ------
        DamagedFile : a directory contradicts itself or the file.
        BadInput : a tile or strip is too large to be decoded at once.
        """
        return [self._segments(directory, fax) for directory in directories]

    def _segments(self, directory: Directory, fax: DecodeTiff | None) -> Segments | Undecodable:
        try:
            return Segments(self.bytes, directory, fax)
        except Undecodable as error:
            return error
        except (DamagedFile, BadInput, MemoryError):
            raise
        except Exception as error:
            raise DamagedFile(
                f"{self.path}: its TIFF directory makes no sense ({short(error)}); the file is damaged"
            ) from error


@dataclass(frozen=True)
class Pages:
    """The directories of an image, of its overviews, and of their masks.

    Attributes
    ----------
    main : the image at full resolution.
    mask : its mask, or None.
    overviews : (overview, its mask or None), largest first.
    """

    main: Directory
    mask: Directory | None
    overviews: tuple[tuple[Directory, Directory | None], ...]


def find_pages(directories: Sequence[Directory]) -> Pages:
    """Find the first image of a file, its overviews and masks among all directories.

    Pages that do not belong to the first image are ignored.

    Raises
    ------
    DamagedFile : no page has any pixel, or the file has a mask that belongs to no page, or it says that it
        has a mask and has none.
    """
    masks = [d for d in directories if d.subfile & 4 or (d.is_mask and d is not directories[0])]
    other = set(masks)
    images = [d for d in directories if d not in other and min(d.shape) > 0]
    if not images:
        raise DamagedFile(f"{directories[0].path}: no page of this TIFF has any pixel; the file is damaged")
    main = next((d for d in images if not d.subfile & 1), images[0])
    mask_of = {d.shape: d for d in reversed(masks)}
    aperio = main.description.startswith("Aperio")
    smaller = {d.shape: d for d in reversed(images) if d is not main and _is_overview(main, d, aperio)}
    shapes = sorted(smaller, reverse=True)
    if main.shape not in mask_of:
        _check_no_mask(main, masks, {d.shape for d in images if d is not main and d.shape not in smaller})
    return Pages(main, mask_of.get(main.shape), tuple((smaller[s], mask_of.get(s)) for s in shapes))


def _check_no_mask(main: Directory, masks: Sequence[Directory], others: Set[tuple[int, int]]) -> None:
    """Raise DamagedFile unless every mask belongs to another picture, whose shape is among ``others``."""
    for mask in masks:
        if mask.shape not in others:
            raise DamagedFile(
                f"{main.path}: it has a mask of {mask.shape[1]} x {mask.shape[0]} pixels and none that fits "
                f"its image of {main.shape[1]} x {main.shape[0]}; the mask is damaged, get a new copy of the "
                "file"
            )
    if main.announces_mask and not masks:
        raise DamagedFile(
            f"{main.path}: its header says that it has a mask, and its directories lead to none; the file is "
            "damaged, get a new copy of it"
        )


def _is_overview(main: Directory, page: Directory, aperio: bool) -> bool:
    """Whether a page is the main image at a smaller size, each side rounded up or down.

    ``aperio`` : whether the file is one of Aperio's.
    """
    # Aperio's levels are not marked as reduced; its thumbnail, label and macro pages are not tiled.
    marked = page.subfile & 1 or (aperio and 322 in page.entries)
    (h, w), (y, x) = main.shape, page.shape
    alike = y < h and x < w and abs(y * w - x * h) <= max(h, w) * 1.5
    return bool(marked) and alike and page.number(277, 1) == main.number(277, 1)
