"""What is asked of a place, on disk and on an object store: the same answers."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from urst_tiles.errors import BadInput, JobError
from urst_tiles.storage import stores
from urst_tiles.storage.publish import make_folder, publish, publishing
from urst_tiles.storage.stores import path_of


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder in which there is nothing yet."""
    found = path_of(tmp_path / "a b" if request.param == "disk" else "memory://places/a b")
    stores.remove(found)
    make_folder(found)
    yield found
    stores.remove(found)


def test_words_become_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("job") == path_of(Path("job")) == tmp_path / "job" and type(path_of("job")) is type(Path())
    assert path_of("file:///a/job") == Path("/a/job")
    remote = path_of("memory://a/job")
    assert str(remote) == "memory://a/job" and path_of(remote) is remote
    assert stores.is_remote(remote) and not stores.is_remote(tmp_path) and not stores.is_remote("memory://a")
    assert pickle.loads(pickle.dumps(remote)) == remote


def test_what_is_published_is_whole_and_alone(folder: Path) -> None:
    with publishing(folder / "one") as file:
        file.write(b"0123456789")
        file.seek(2)
        file.write(b"AB")
        assert stores.names_in(folder) <= {name for name in stores.names_in(folder) if name.endswith(".tmp")}
    with pytest.raises(RuntimeError), publishing(folder / "two") as file:
        file.write(b"half")
        raise RuntimeError
    assert stores.names_in(folder) == {"one"}
    assert stores.size_of(folder / "one") == 10
    assert stores.read_at(folder / "one", 1, 4) == b"1AB4"
    assert stores.read_at(folder / "one", 8, 40) == b"89" and stores.read_at(folder / "one", 8, 0) == b""


def test_names_and_their_end(folder: Path) -> None:
    make_folder(folder / "in")
    publish(folder / "in" / "deep", b"1")
    publish(folder / "top", b"2")
    assert stores.names_in(folder) == {"in", "top"} and stores.names_in(folder / "none") == set()
    for name in ("in", "top", "none"):
        stores.remove(folder / name)
    assert stores.names_in(folder) == set()
    for ask in (stores.size_of, stores.fetched, lambda path: stores.read_at(path, 0, 1).hex()):
        if ask is not stores.fetched or stores.is_remote(folder):
            with pytest.raises(FileNotFoundError):
                ask(folder / "top")


def test_a_copy_follows_the_object(folder: Path) -> None:
    publish(folder / "net", b"one")
    first = stores.fetched(folder / "net")
    assert first.read_bytes() == b"one" and stores.fetched(folder / "net") == first
    publish(folder / "net", b"three")
    assert (
        os.fspath(stores.fetched(folder / "net")) and stores.fetched(folder / "net").read_bytes() == b"three"
    )


def test_the_first_to_create_wins() -> None:
    path = path_of("memory://places/first")
    stores.remove(path)
    assert stores.create(path, b"1") and not stores.create(path, b"2")
    assert path.read_bytes() == b"1"
    stores.remove(path)


def test_side_by_side_keeps_the_order(folder: Path) -> None:
    assert stores.side_by_side(folder, lambda n: n * n, range(100)) == [n * n for n in range(100)]


def test_what_goes_wrong_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    path = path_of("memory://places/x")
    with pytest.raises(JobError, match="the store of memory://places/x failed .no."), stores.asking(path):
        raise ConnectionError("no")
    with pytest.raises(BadInput, match="s4://a cannot be reached"):
        path_of("s4://a")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(BadInput, match="pip install 'urst-tiles"):
        path_of("s3://a")
