"""A process takes the fingerprint of a file, and opens a slow one, once: as long as the file looks the same,
and an edit would show."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers import geotiff, picture

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import identity, open_source, spare
from urst_tiles.source.ome_zarr_opener import folder_fingerprint
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.pages import TiffFile

SECOND = 1_000_000_000


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds after all files were written."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 10 * SECOND)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with each fingerprint that is taken."""
    found: list[object] = []
    for name in ("_taken", "_taken_of_tiff"):
        real: Callable[..., Any] = getattr(identity, name)

        def counted(*arguments: Any, real: Callable[..., Any] = real) -> Any:
            found.append(arguments[0])
            return real(*arguments)

        monkeypatch.setattr(identity, name, counted)
    identity.forget()
    return found


def edit(path: Path) -> None:
    """Another content of the same size and with the same time of its last change."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-min(20, len(content))] ^= 3
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def fingerprint(path: Path) -> str:
    if path.suffix == ".tif":
        return identity.tiff_fingerprint(TiffFile(path), [path.with_suffix(".tfw")])
    return identity.file_fingerprint(path, [path.with_suffix(".tfw")])


@pytest.mark.parametrize("name", ["a.tif", "a.jp2"])
def test_a_fingerprint_is_taken_once(name: str, tmp_path: Path, taken: list[object], later: None) -> None:
    path = geotiff(tmp_path / name, picture(300, 200))
    path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    first = fingerprint(path)
    taken.clear()
    assert fingerprint(path) == first and not taken
    edit(path)
    second = fingerprint(path)
    assert second != first and taken
    edit(path.with_suffix(".tfw"))
    third = fingerprint(path)
    assert third not in (first, second)
    taken.clear()
    assert fingerprint(path) == third and not taken
    identity.forget()
    assert fingerprint(path) == third and taken


def test_what_was_just_written_is_looked_into_again(tmp_path: Path, taken: list[object]) -> None:
    """Another edit in the same step of the clock would leave its times as they are."""
    path = geotiff(tmp_path / "a.jp2", picture(30, 20))
    path.with_suffix(".tfw").write_text("1\n")
    assert fingerprint(path) == fingerprint(path) and len(taken) == 2


def test_when_an_edit_would_show() -> None:
    now = 1_700_000_000 * SECOND

    def settled(age: int, changed: int = 10 * SECOND) -> bool:
        return identity.settled([(1, now - age, now - changed, 7)], now)

    assert settled(SECOND + 1) and settled(4 * SECOND)
    assert not settled(SECOND)  # the file system may have no other seconds, or only every second one
    assert not settled(1_000_001) and not settled(-5 * SECOND - 1)
    assert not settled(4 * SECOND, 1_000_001)
    assert not identity.settled([None], now)


def test_a_folder_is_taken_anew_with_every_file(tmp_path: Path, later: None) -> None:
    pixels = picture(100, 80)
    made = zarr.create_array(tmp_path / "a.zarr", shape=pixels.shape, dtype="u1", chunks=(32, 32, 3))
    made[:64] = pixels[:64]
    found = {folder_fingerprint(tmp_path / "a.zarr")[0] for _ in range(2)}
    made[64:] = pixels[64:]
    found.add(folder_fingerprint(tmp_path / "a.zarr")[0])
    edit(tmp_path / "a.zarr" / "c" / "0" / "0" / "0")
    found.add(folder_fingerprint(tmp_path / "a.zarr")[0])
    assert len(found) == 3


def test_of_a_small_file_every_byte_counts(tmp_path: Path) -> None:
    content, seen = bytearray(picture(40, 30).tobytes()), set()
    for at in (0, 700, 1801, 3599):
        content[at] ^= 1
        (tmp_path / "a").write_bytes(content)
        seen.add(identity.sampled([FileBytes(tmp_path / "a")], 4, 1000))
    assert len(seen) == 4


def test_a_reader_is_handed_over_once(tmp_path: Path, later: None) -> None:
    path, reader = geotiff(tmp_path / "a.tif", picture(30, 20)), object()
    began = time.time_ns()
    for key, want in (("a", reader), ("a", None)):
        if want is not None:
            spare.keep("a", [path], began, reader)
            assert spare.take("b", [path]) is None
        assert spare.take(key, [path]) is want
    spare.keep("a", [path], began, reader)
    edit(path)
    assert spare.take("a", [path]) is None and spare.take("a", [path]) is None
    spare.keep("a", [path], began - 20 * SECOND, reader)  # edited since it was made
    assert spare.take("a", [path]) is None


def test_a_slide_is_opened_once(tmp_path: Path, later: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openslide")
    from scanner_files import write_mirax

    from urst_tiles.source import openslide as by_openslide

    opened: list[Path] = []
    real = by_openslide.open_slide
    monkeypatch.setattr(by_openslide, "open_slide", lambda path: opened.append(path) or real(path))
    pixels = picture(256, 128)
    source = open_source(write_mirax(tmp_path / "a.mrxs", pixels))
    np.testing.assert_array_equal(source.read(Box(0, 0, 256, 128))[..., :3], pixels)
    assert len(opened) == 1


def test_an_edit_between_opening_and_reading_is_noticed(tmp_path: Path, later: None) -> None:
    pytest.importorskip("openslide")
    from scanner_files import write_mirax

    source = open_source(write_mirax(tmp_path / "a.mrxs", picture(256, 128)))
    edit(tmp_path / "a" / "Data0000.dat")
    with pytest.raises(DamagedFile, match="changed while in use"):
        source.read(Box(0, 0, 256, 128))


def test_small_values_are_read_as_any_bytes(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 50_001, np.uint8).tobytes()
    (tmp_path / "a").write_bytes(content)
    file, random = FileBytes(tmp_path / "a"), np.random.default_rng(1)
    for _ in range(500):
        at, count = int(random.integers(0, 50_100)), int(random.integers(0, 6000))
        assert file.near(at, count) == content[at : at + count] == file(at, count)
