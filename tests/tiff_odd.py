"""TIFFs that do not keep to the letter of the specification, and that other readers read all the same.

An oddity changes the tags or the segments of a good file; the pixels that are meant stay those of the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
from tiff_zoo import BLACK, RGB, YCBCR, Kind, Tags, specimen, write

#: Changes the tags and segments of a file of this kind; returns whether it applies to the kind.
Change = Callable[[Kind, Tags, list[bytes]], bool]

ODDITIES: dict[str, Change] = {}


def oddity(change: Change) -> Change:
    ODDITIES[change.__name__.replace("_", " ")] = change
    return change


def tables(kind: Kind) -> tuple[int, int]:
    return (324, 325) if kind.layout == "tiles" else (273, 279)


def retyped(tags: Tags, types: dict[int, int], codes: set[int] | None = None) -> bool:
    for code, (kind, value) in tags.items():
        if kind in types and (codes is None or code in codes):
            tags[code] = types[kind], value
    return True


@oddity
def signed_types(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    codes = {code for code in tags if code != 259 or tags[259][1][0] < 1 << 15}
    return retyped(tags, {3: 8, 4: 9, 16: 17}, codes)


@oddity
def bytes_for_shorts(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    return retyped(tags, {3: 1, 4: 1}, {256, 257, 258, 262, 277, 278, 284, 317, 322, 323, 339})


@oddity
def longs_for_shorts(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    return retyped(tags, {3: 4})


@oddity
def shorts_for_longs(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    return retyped(tags, {4: 3, 16: 3}) and sum(map(len, segments)) < 60_000


@oddity
def sizes_of_zero(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[tables(kind)[1]] = 4, [0] * len(segments)
    return True


@oddity
def sizes_missing(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    del tags[tables(kind)[1]]
    return True


@oddity
def sizes_that_reach_into_the_next(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[tables(kind)[1]] = 4, [len(segment) + 40 for segment in segments]
    segments[-1] += bytes(60)
    return True


@oddity
def the_only_size_too_small(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[tables(kind)[1]] = 4, [len(segments[0]) - 9]
    return kind.compression == "none" and len(segments) == 1


@oddity
def the_only_size_beyond_the_file(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[tables(kind)[1]] = 4, [len(segments[0]) + 100_000]
    return kind.compression == "none" and len(segments) == 1


@oddity
def spare_bytes(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    segments[:] = [segment + bytes(500) for segment in segments]
    return True


@oddity
def spare_bytes_that_are_no_zeros(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    segments[:] = [segment + b"\xff\x07 padding" * 300 for segment in segments]
    return kind.compression != "lzma"  # whose format allows only zeros behind a stream


@oddity
def a_byte_too_many_when_unpacked(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    """As Photoshop writes LZW."""
    if kind.compression == "lzw":
        whole = (bytes(imagecodecs.lzw_decode(segment)) + b"\7" for segment in segments)
        segments[:] = [bytes(imagecodecs.lzw_encode(data)) for data in whole]
    return kind.compression == "lzw"


@oddity
def a_strip_too_many(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    segments.append(segments[0])
    return not kind.planar or kind.layout != "tiles"


@oddity
def compression_per_sample(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[259] = 3, tags[259][1] * kind.bands
    return True


@oddity
def orientation_per_sample(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[274] = 3, [1] * 3
    return True


@oddity
def orientations_that_differ(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[274] = 3, [6, 1]  # libtiff ignores them
    return True


@oddity
def bits_and_format_once(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[258], tags[339] = (3, tags[258][1][:1]), (3, tags[339][1][:1])
    return True


@oddity
def bits_of_more_samples(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[258] = 3, [*tags[258][1], 16, 16]
    return True


@oddity
def no_photometric(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    del tags[262]
    return True


@oddity
def no_defaults(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    """Tags that have their default value are left out."""
    for code in (284, 339, 277 if kind.bands == 1 else 339, 259 if kind.compression == "none" else 339):
        tags.pop(code, None)
    return not kind.planar


@oddity
def tags_twice(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    """The second of each is another one."""
    tags |= {-259: (3, [5]), -262: (3, [0]), -256: (4, [9]), -258: (3, [16])}
    return True


@oddity
def no_rows_per_strip(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    return tags.pop(278, None) is not None and kind.layout == "one strip"


@oddity
def rows_per_strip_of_zero(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[278] = 4, [0]
    return kind.layout == "one strip"


@oddity
def rows_per_strip_without_end(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[278] = 4, [(1 << 32) - 1]
    return kind.layout == "one strip"


@oddity
def a_predictor_that_nobody_uses(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[317] = 3, [2]
    return kind.compression in ("none", "packbits", "jpeg", "webp", "lerc")


@oddity
def an_unknown_predictor_that_nobody_uses(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[317] = 3, [77]
    return kind.compression in ("none", "packbits", "jpeg", "webp", "lerc")


@oddity
def jpeg_tables_that_nobody_uses(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[347] = 7, b"\xff\xd8\xff\xd9"
    return kind.compression != "jpeg"


@oddity
def tiles_in_the_tables_of_strips(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    if kind.layout == "tiles":
        tags[273], tags[279] = tags.pop(324), tags.pop(325)
    return kind.layout == "tiles"


@oddity
def bits_in_the_other_order_of_a_picture(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[266] = 3, [2]
    return kind.compression == "jpeg"


@oddity
def texts_and_private_tags(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags |= {
        305: (2, b"Scan\0Soft\0"),
        306: (2, b"no zero at the end"),
        270: (2, b"\xff\xfe\0"),
        65000: (9, [-5] * 9),
    }
    return True


@oddity
def undefined_samples(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[339] = 3, [4] * kind.bands
    return True


@oddity
def no_format_of_samples_at_all(kind: Kind, tags: Tags, segments: list[bytes]) -> bool:
    tags[339] = 3, [0] * kind.bands
    return True


@dataclass(frozen=True)
class Odd:
    """A file of a kind with an oddity."""

    oddity: str
    kind: Kind

    @property
    def name(self) -> str:
        return f"{self.oddity}: {self.kind.name}"

    def write(self, path: Path) -> bool:
        """Write the file; False where the oddity does not apply to the kind."""
        tags, segments = specimen(self.kind)
        applies = ODDITIES[self.oddity](self.kind, tags, segments)
        if applies:
            write(path, tags, segments, self.kind.order, self.kind.big)
        return applies


def all_odd() -> Iterator[Odd]:
    """Every oddity on small files of many kinds."""
    codes = ["none", "deflate", "lzw", "packbits", "zstd", "lzma", "jpeg", "webp"]
    for name, code, layout, (order, big) in itertools.product(
        ODDITIES,
        codes,
        ("strips", "one strip", "tiles"),
        (("<", False), (">", False), ("<", True), (">", True)),
    ):
        for meaning, planar in ((RGB, False), (BLACK, False), (RGB, True), (YCBCR, False)):
            if (meaning == YCBCR) <= (code == "jpeg") and not (
                code == "webp" and (planar or meaning == BLACK)
            ):
                yield Odd(
                    name, Kind(meaning, planar=planar, compression=code, order=order, big=big, layout=layout)
                )
