"""What the headers of many files tell, read quickly: ten thousand files in some seconds.

The header of a file is read whole only for the first file of each kind. The kind of a TIFF is all that
decides how its pixels are read: every tag of its main directory but sizes, tables, positions and texts, and
what GDAL's file ``.aux.xml`` beside it says of the bands.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from urst_tiles.errors import BadInput
from urst_tiles.machine import decoder_count, decoders, in_order
from urst_tiles.source import headers
from urst_tiles.source.identity import Stamp, sampled, stamp, stamps_of
from urst_tiles.source.info import georeference
from urst_tiles.source.openers import check_mask
from urst_tiles.source.sidecars import Sidecars, find_sidecars
from urst_tiles.source.slides import check_slide
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.choice import Choice
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.georeference import PamBands
from urst_tiles.tiff.header import is_tiff
from urst_tiles.tiff.metadata import GEO_TAGS, RPC, Tag
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.selection import Selection, select

#: TIFF compressions whose streams say nothing about validity: none, LZW, JPEG, deflate, PackBits, zstd.
PLAIN_STREAMS = {1, 5, 7, 8, 32946, 32773, 50000}

#: Tags that do not decide how pixels are read: sizes, tables, positions, texts, dates and resolution. GDAL's
#: metadata decide it where they name bands.
FREE_TAGS = {
    256, 257, 269, 270, 271, 272, 273, 279, 282, 283, 285, 296, 305, 306, 315, 316, 324, 325, 700, 33432,
    42112, *GEO_TAGS, RPC,
}  # fmt: skip

#: How many files a thread looks at, at most, before it takes the next of them.
AT_ONCE = 50

#: How many samples of the contents of all files together enter their fingerprints, and how many bytes.
SAMPLES, SAMPLED_BYTES = 4096, 256 << 20


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What the header of one file tells.

    Attributes
    ----------
    path, sidecars, mask : the file, the files that belong to it, and which of these is its ``.msk``, or None.
    kind : what is equal for files whose pixels are read alike; None for a file that is a kind of its own.
    shape : (height, width) in pixels; (0, 0) where the kind is None, as is all below but the fingerprint.
    geo : its georeferencing as GeoTIFF tags.
    bands : how many samples a pixel has.
    levels : (height, width) of each overview.
    sparse : whether tiles are not stored.
    stamps : size, times and inode of the file and its sidecars.
    fingerprint : digest of samples of the file and its sidecars.
    """

    path: Path
    sidecars: tuple[Path, ...]
    mask: Path | None
    kind: Hashable
    shape: tuple[int, int]
    geo: tuple[Tag, ...]
    bands: int
    levels: tuple[tuple[int, int], ...]
    sparse: bool
    stamps: tuple[Stamp | None, ...]
    fingerprint: bytes

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and its sidecars."""
        return (self.path, *self.sidecars)


def survey(paths: Sequence[Path], choice: Choice) -> list[Surveyed]:
    """What the header of each file tells, read on several threads; each file is closed again at once.

    Raises
    ------
    UrstError : as `urst_tiles.source.open_source`, of the first file that cannot be read.
    """
    listings = {folder: _other_names(folder, paths) for folder in {path.parent for path in paths}}
    count = len(paths)

    step = max(1, min(AT_ONCE, count // (4 * decoder_count())))

    def some(start: int) -> list[Surveyed]:
        part = paths[start : start + step]
        return [_survey(path, choice, listings[path.parent], count) for path in part]

    return [one for part in in_order(decoders(), some, range(0, count, step)) for one in part]


def _other_names(folder: Path, paths: Sequence[Path]) -> list[str]:
    """The names in a folder besides those of ``paths``, sorted."""
    members = {path.name for path in paths}
    try:
        return sorted(name for name in os.listdir(folder) if name not in members)
    except OSError:
        raise BadInput(f"the folder {folder} may not be listed; change its rights") from None


def _sidecars(path: Path, others: list[str]) -> Sidecars:
    """The sidecars of a file, for which the disk is asked only if a name in its folder begins alike."""
    at = bisect_left(others, path.stem)
    return find_sidecars(path) if at < len(others) and others[at].startswith(path.stem) else Sidecars()


def _survey(path: Path, choice: Choice, others: list[str], count: int) -> Surveyed:
    opened = _opened(path)
    start = opened.near(0, headers.START_BYTES)
    sidecars = _sidecars(path, others)
    stamps = (stamp(opened.state()), *stamps_of(sidecars.all))
    by_openslide = check_slide(path, start)
    fingerprint = _fingerprint([opened, *map(FileBytes, sidecars.all)], count)
    if not is_tiff(start) or by_openslide:
        return _unknown(path, sidecars, stamps, fingerprint)
    file = TiffFile(path, opened)
    selection = select(file, choice)
    pages, main = selection.pages, selection.pages.main
    check_mask(path, sidecars.mask, main.shape)
    if len(pages.mains) > 1 or main.number(259, 1) not in PLAIN_STREAMS:
        return _unknown(path, sidecars, stamps, fingerprint)
    return Surveyed(
        path, sidecars.all, sidecars.mask, _kind(file, selection, sidecars.pam.bands), main.shape,
        georeference(main, sidecars), main.number(277, 1),
        tuple(pages[0].shape for pages, _ in pages.overviews), _is_sparse(main), stamps, fingerprint,
    )  # fmt: skip


def _opened(path: Path) -> FileBytes:
    """The file, open. Raises MissingFile or BadInput as `check_file`."""
    try:
        opened = FileBytes(path)
    except (OSError, ValueError):
        headers.check_file(path)  # says why
        raise
    if not opened.size:
        headers.check_file(path)
    return opened


def _unknown(path: Path, sidecars: Sidecars, stamps: tuple[Stamp | None, ...], digest: bytes) -> Surveyed:
    """A file of a kind of its own."""
    return Surveyed(path, sidecars.all, sidecars.mask, None, (0, 0), (), 0, (), False, stamps, digest)


def fingerprint_of(files: Sequence[Path], count: int) -> bytes:
    """The digest of samples of a file and its sidecars, which is one of ``count`` files of an image: the more
    there are, the fewer samples of each are read, but at least four."""
    return _fingerprint(map(FileBytes, files), count)


def _fingerprint(files: Iterable[FileBytes], count: int) -> bytes:
    samples = max(4, min(64, SAMPLES // count))
    return sampled(files, samples, max(512, min(1 << 16, SAMPLED_BYTES // (count * samples))))


def _is_sparse(main: Directory) -> bool:
    if main.whole_numbers(main.table_codes[1]).all():
        return False
    offsets, counts = main.segment_tables
    size = min(offsets.size, counts.size)
    return bool(((offsets[:size] == 0) & (counts[:size] == 0)).any())


def _kind(file: TiffFile, selection: Selection, pam: PamBands) -> Hashable:
    """What is equal for TIFFs whose pixels are read alike; ``pam`` is what GDAL's file beside one says."""
    pages = selection.pages
    main = pages.main
    tags = tuple((code, main.raw(code)) for code in sorted(main.entries.keys() - FREE_TAGS) if code != 330)
    named = main.raw(42112) if main.number(277, 1) not in (1, 3) and 42112 in main.entries else b""
    overviews = tuple(
        (level[0].raw(258), *(level[0].number(code) for code in (259, 262, 277, 339)), mask is not None)
        for level, mask in pages.overviews
    )
    number = file.number_of(main)
    facts = (main.order, number, tags, named, pages.mask is not None, overviews, pam)
    return hashlib.sha256(repr(facts).encode()).digest()
