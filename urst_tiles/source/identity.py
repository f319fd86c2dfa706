"""Fingerprints of sources, by which a job recognises that it continues with the same pixels.

A fingerprint depends on the size of a file, on samples of its content, and for a TIFF on its directories with
their tables of byte counts. It does not depend on the time of the last change: a copy of a file is the same
source, and an edit within the same second, which may leave the time as it is, is seen from the content.

Samples miss an edit between them. Therefore a job also keeps a `Content`: the digest of every byte, with the
size, times and inode that the files had then. While these are the same, so is the content; if any differs,
every byte is read again, and the digest decides. For the same reason a process takes a fingerprint once, and
again only when a file looks changed, or was changed so shortly before that another edit might show no new
time (`settled`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from urst_tiles.errors import DamagedFile
from urst_tiles.machine import decoder_count, decoders, in_order
from urst_tiles.progress import Progress, silent
from urst_tiles.tiff.bytes import FileBytes

if TYPE_CHECKING:
    from urst_tiles.tiff.pages import TiffFile

#: How many samples of the content of a file are read, and the bytes of each.
SAMPLES = 64
SAMPLE_BYTES = 1 << 16

#: From how many pages of a file they come at most.
MOST_PAGES = 8

#: Bytes that are hashed at once; several such pieces are read at the same time.
PIECE_BYTES = 1 << 20

#: How many pieces are read between two reports of progress.
REPORT_PIECES = 16

#: How often a file is hashed that changes meanwhile.
TRIES = 3

#: Of how many files this process remembers the digest, and of how many images the fingerprint.
REMEMBERED = 256

#: Nanoseconds after which an edit gives a file another time. Kernels set the clock of files every 1 to 10 ms;
#: a time in whole seconds may come from a file system that has only these, or every second one (FAT).
CLOCK_STEP, COARSE_STEP = 100_000_000, 3_000_000_000

#: Size in bytes, times of the last change of the content and of the inode in nanoseconds, inode.
Stamp = tuple[int, int, int, int]

#: The stamps of files by their names; None for one that does not exist.
Looks = Mapping[str, Stamp | None]


@dataclass(frozen=True)
class Content:
    """The whole content of some files at a time.

    Attributes
    ----------
    digest : hex digest of every byte.
    stamps : size, times and inode of each file, before and after it was read; None for an absent file.
    """

    digest: str
    stamps: tuple[Stamp | None, ...]

    def to_json(self) -> dict[str, Any]:
        """The attributes in a form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Content | None:
        """The content that `to_json` wrote, perhaps as text; None for anything else."""
        try:
            values = json.loads(values) if isinstance(values, bytes | str) else values
            stamps = (None if stamp is None else tuple(map(int, stamp)) for stamp in values["stamps"])
            return cls(str(values["digest"]), tuple(stamps))  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError):
            return None


def stamps_of(files: Sequence[Path]) -> tuple[Stamp | None, ...]:
    """Size, times and inode of each file; None for a file that does not exist."""
    return tuple(map(_stamp_of, files))


def _stamp_of(path: Path) -> Stamp | None:
    try:
        return stamp(os.stat(path))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def stamp(state: os.stat_result) -> Stamp:
    """The part of the state of a file by which a change of its content is seen."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def settled(stamps: Iterable[Stamp | None], now: int) -> bool:
    """Whether files with these stamps cannot be edited after the time ``now``, in nanoseconds since 1970,
    and have the same stamps again. False where one does not exist."""
    return all(one is not None and all(_is_past(at, now) for at in one[1:3]) for one in stamps)


def _is_past(at: int, now: int) -> bool:
    return now - at > (CLOCK_STEP if at % 1_000_000_000 else COARSE_STEP)


#: Fingerprints that were taken in this process, with digests of the names and stamps of all files then.
_fingerprints: dict[tuple[str, Path], tuple[bytes, str]] = {}


def forget() -> None:
    """Forget the fingerprints that this process remembers, as a new process would not know them."""
    _fingerprints.clear()


def remembered(kind: str, path: Path, look: Callable[[], Looks], take: Callable[[Looks], str]) -> str:
    """The fingerprint of an image, unless this process took it before and no file looks different now.

    Parameters
    ----------
    kind : tells apart the ways in which fingerprints of one path are taken.
    path : the image.
    look : gives the names of all files of which it consists, with their stamps.
    take : takes the fingerprint of the files that ``look`` gave.
    """
    now, before = time.time_ns(), look()
    state = hashlib.sha256(repr(before).encode()).digest()
    known = _fingerprints.get((kind, path))
    if known is not None and known[0] == state:
        return known[1]
    found = take(before)
    if settled(before.values(), now) and look() == before:
        while len(_fingerprints) >= REMEMBERED:
            _fingerprints.pop(next(iter(_fingerprints)), None)
        _fingerprints[kind, path] = state, found
    return found


def content_of(files: Sequence[Path], known: Content | None = None, progress: Progress = silent) -> Content:
    """The content of ``files``: ``known``, if their stamps are those in it; else every byte is read.

    ``progress`` is called with the stage "reading" and numbers of bytes, while files are read.

    Raises
    ------
    DamagedFile : a file cannot be read, or another program keeps changing it.
    """
    for _ in range(TRIES):
        stamps = stamps_of(files)
        if known is not None and known.stamps == stamps:
            return known
        known = Content(_digest(files, stamps, progress), stamps)
    if known is not None and known.stamps == stamps_of(files):
        return known
    raise DamagedFile(f"{files[0]} is being changed by another program; wait until it is finished")


def _digest(files: Sequence[Path], stamps: Sequence[Stamp | None], progress: Progress) -> str:
    """SHA-256, in hex, of the digests of all files."""
    digest = hashlib.sha256()
    done, total = 0, sum(stamp[0] for stamp in stamps if stamp)
    for path, stamp in zip(files, stamps, strict=True):
        if stamp is None:
            digest.update(b"absent")
            continue
        if (path, stamp) not in _digests:
            while len(_digests) >= REMEMBERED:
                _digests.pop(next(iter(_digests)), None)
            _digests[path, stamp] = _file_digest(path, done, total, progress)
        digest.update(_digests[path, stamp])
        done += stamp[0]
    return digest.hexdigest()


#: Digests of files, which are read once as long as their stamps are the same.
_digests: dict[tuple[Path, Stamp], bytes] = {}


def _file_digest(path: Path, before: int, total: int, progress: Progress) -> bytes:
    """SHA-256 of the size of a file and the digests of its pieces.

    ``before`` of ``total`` bytes were read from other files.
    """
    file = FileBytes(path)
    digest = hashlib.sha256(f"{file.size} ".encode())

    def piece(start: int) -> bytes:
        return hashlib.sha256(file(start, PIECE_BYTES)).digest()

    starts = range(0, file.size, PIECE_BYTES)
    for number, part in enumerate(in_order(decoders(), piece, starts, decoder_count()), 1):
        digest.update(part)
        if number % REPORT_PIECES == 0 or number == len(starts):
            progress("reading", before + min(number * PIECE_BYTES, file.size), total)
    return digest.digest()


def file_fingerprint(path: Path, sidecars: Sequence[Path] = ()) -> str:
    """SHA-256, in hex, of the size of a file and of up to 64 samples of 64 KiB, spread evenly over it.

    ``sidecars`` are files that belong to the image; they enter the digest in the same way.
    """
    files = (path, *sidecars)
    return remembered("file", path, lambda: _looks(files), lambda _: _taken(files))


def _looks(files: Sequence[Path]) -> Looks:
    """The stamps of files by their names."""
    return dict(zip(map(str, files), stamps_of(files), strict=True))


def _taken(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file_path in files:
        file = FileBytes(file_path)
        digest.update(f"{file.size} ".encode())
        for start in _spread(max(1, file.size - SAMPLE_BYTES + 1)):
            digest.update(file(start, SAMPLE_BYTES))
    return digest.hexdigest()


def sampled(files: Iterable[FileBytes], samples: int, sample_bytes: int) -> bytes:
    """SHA-256 of the size of each file and of so many samples of so many bytes, spread evenly over it.

    It is `file_fingerprint` with fewer samples, for a file that is one of thousands. Of a file that is no
    longer than its samples together every byte is read, and once.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.size} ".encode())
        if file.size <= samples * sample_bytes:
            for piece in file.pieces(0, file.size):
                digest.update(piece)
            continue
        for start in _spread(max(1, file.size - sample_bytes + 1), samples):
            digest.update(file(start, sample_bytes))
    return digest.digest()


def tiff_fingerprint(file: TiffFile, sidecars: Sequence[Path] = ()) -> str:
    """SHA-256, in hex, of a TIFF: its size, its tags, and samples of its tiles or strips.

    The tags are those of every directory, tables of byte counts included. The samples are up to 64 KiB from
    each of at most 64 tiles or strips, spread evenly over the images at full resolution. They do not depend
    on which of them is read. The files ``sidecars`` enter the digest as in `file_fingerprint`.
    """

    def look() -> Looks:
        return {"": stamp(file.bytes.state()), **_looks(sidecars)}

    return remembered("TIFF", file.path, look, lambda _: _taken_of_tiff(file, sidecars))


def _taken_of_tiff(file: TiffFile, sidecars: Sequence[Path]) -> str:
    digest = hashlib.sha256(f"{file.bytes.size} ".encode())
    for directory in file.directories:
        for code in sorted(directory.entries):
            digest.update(f"{code} {directory.entries[code].dtype} ".encode())
            for piece in directory.pieces(code):
                digest.update(piece)
    pages = file.images or file.directories[:1]
    pages = [pages[i] for i in _spread(len(pages), MOST_PAGES)]
    for page in pages:
        offsets, counts = page.segment_tables
        for i in _spread(min(offsets.size, counts.size), SAMPLES // len(pages)):
            digest.update(file.bytes(int(offsets[i]), min(int(counts[i]), SAMPLE_BYTES)))
    if sidecars:
        digest.update(_taken(sidecars).encode())
    return digest.hexdigest()


def _spread(count: int, most: int = SAMPLES) -> list[int]:
    """At most ``most`` indices in 0..count - 1, spread evenly, the first and the last included."""
    return sorted({i * (count - 1) // (most - 1) for i in range(most)}) if count else []


def array_fingerprint(array: Any) -> str:
    """SHA-256, in hex, of the shape and the dtype of an array and of at most 64 of its patches.

    ``array`` is (height, width, channels); the patches are 64 x 64 pixels and spread evenly.
    """
    height, width = array.shape[:2]
    digest = hashlib.sha256(f"{array.shape} {array.dtype} ".encode())
    rows, columns = max(1, (height + 63) // 64), max(1, (width + 63) // 64)
    for i in _spread(rows * columns):
        y, x = i // columns * 64, i % columns * 64
        digest.update(np.ascontiguousarray(array[y : y + 64, x : x + 64]).tobytes())
    return digest.hexdigest()
