"""The zoo of TIFFs: each is read right or refused with the true reason, and never read wrong.

``pytest -m slow tests/tiff/test_zoo.py -s`` prints the counts that stand in ``docs/formats.md``.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tiff_right
import tiff_zoo
from tiff_odd import ODDITIES, Odd, all_odd
from tiff_zoo import Kind, all_kinds, sample

from urst_tiles.errors import UrstError
from urst_tiles.geometry import Box
from urst_tiles.source import open_source

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

#: Faults that are known and not mended: the reason -> which kinds have them. They are counted apart.
KNOWN: dict[str, Callable[[Kind], bool]] = {}


def read(path: Path, folder: Path, stretch: str) -> np.ndarray | UrstError:
    try:
        source = open_source(path, stretch=stretch).prepare(folder, thumbnail=8)
        return source.read(Box(0, 0, *source.shape))
    except UrstError as error:
        return error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verdict(kind: Kind, folder: Path) -> tuple[str, str]:
    """("right", "refused", "known" or "wrong", what is wrong) of a kind of file."""
    path = tiff_zoo.write(folder / "a.tif", *tiff_zoo.specimen(kind), kind.order, kind.big)
    if differs := tiff_right.gdal_differs(kind, path):
        return "wrong", f"the zoo itself: {differs}"
    found = read(path, folder / "job", tiff_right.stretch(kind))
    words = tiff_right.refused(kind)
    if isinstance(found, UrstError):
        text = str(found)
        rightly = bool(words) and words in text and str(path) in text and "damaged" not in text
        wrong = "" if rightly else f"refused: {text}"
    else:
        wrong = "it must be refused" if words else tiff_right.is_right(kind, found)
    if not wrong:
        return "refused" if words else "right", ""
    return "known" if any(has(kind) for has in KNOWN.values()) else "wrong", wrong


def odd_verdict(odd: Odd, folder: Path) -> tuple[str, str]:
    """As `verdict`, of an oddity, which must be read; ("", "") where it does not apply to the kind."""
    path = folder / "a.tif"
    if not odd.write(path):
        return "", ""
    found = read(path, folder / "job", "0,255")
    wrong = str(found) if isinstance(found, UrstError) else tiff_right.is_right(odd.kind, found)
    return ("wrong", wrong) if wrong else ("right", "")


def survey(verdicts: Iterable[tuple[str, tuple[str, str]]]) -> Counter[str]:
    """The counts of the verdicts; fails with the first of those that are wrong."""
    counts: Counter[str] = Counter()
    wrong = []
    for name, (kind, why) in verdicts:
        counts[kind] += bool(kind)
        wrong += [f"{name}: {why}"] if kind == "wrong" else []
    print("\n" + ", ".join(f"{kind} {number}" for kind, number in sorted(counts.items()) if kind))
    assert not wrong, f"{len(wrong)} wrong: " + "\n".join(wrong[:20])
    return counts


def test_a_sample_of_the_zoo(tmp_path: Path) -> None:
    kinds = sample(110)
    for axis in fields(Kind):
        values = {getattr(kind, axis.name) for kind in all_kinds()}
        assert {getattr(kind, axis.name) for kind in kinds} == values, f"the sample misses a {axis.name}"
    counts = survey((kind.name, verdict(kind, tmp_path)) for kind in kinds)
    assert counts["right"] > 60


def test_lerc_in_big_endian_files(tmp_path: Path) -> None:
    """libtiff swaps the bytes of their numbers before it encodes them."""
    kinds = [kind for kind in all_kinds() if kind.compression == "lerc" and kind.order == ">"]
    assert any(kind.format[1] > 8 for kind in kinds)
    counts = survey((kind.name, verdict(kind, tmp_path)) for kind in kinds)
    assert counts["right"] > 3


@pytest.mark.parametrize("name", ODDITIES)
def test_an_oddity_is_read_as_it_is_meant(name: str, tmp_path: Path) -> None:
    """Three files of each, by a step that is prime to all axes."""
    odd = [odd for odd in all_odd() if odd.oddity == name]
    steps = odd[sum(map(ord, name)) % 7 :: 11] + odd
    found = list(itertools.islice((odd for odd in steps if odd.write(tmp_path / "a.tif")), 3))
    counts = survey((odd.name, odd_verdict(odd, tmp_path)) for odd in found)
    assert counts["right"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_the_whole_zoo(part: int, tmp_path: Path) -> None:
    kinds = all_kinds()
    assert len(kinds) > 5000
    survey((kind.name, verdict(kind, tmp_path)) for kind in kinds[part::8])


@pytest.mark.slow
def test_all_oddities(tmp_path: Path) -> None:
    counts = survey((odd.name, odd_verdict(odd, tmp_path)) for odd in all_odd())
    assert counts["right"] > 5000
