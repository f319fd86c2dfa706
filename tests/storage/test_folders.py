"""A published folder is whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from urst_tiles.errors import JobError
from urst_tiles.storage import folders
from urst_tiles.storage.folders import (
    attempting_folder,
    give_name,
    remove_dead_folders,
    same_trees,
)


def put(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(params=["renameat2", "without it"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems that exchange two names in one step, and those that do not."""
    if request.param == "without it":

        class Library:
            def __init__(self, *_: object, **__: object) -> None:
                pass

        monkeypatch.setattr(folders.ctypes, "CDLL", Library)


def test_a_folder_gets_its_name_whole(system: None, tmp_path: Path) -> None:
    for text, replace in (("one", False), ("two", True)):
        with attempting_folder(tmp_path / "out") as place:
            give_name(put(place / "out", a=text), tmp_path / "out", replace=replace)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert [path.read_text() for path in (tmp_path / "out").iterdir()] == [text]


def test_what_exists_is_not_replaced(system: None, tmp_path: Path) -> None:
    put(tmp_path / "out", mine="mine")
    with pytest.raises(FileExistsError), attempting_folder(tmp_path / "out") as place:
        give_name(put(place / "out", a="new"), tmp_path / "out", replace=False)
    assert same_trees(tmp_path / "out", put(tmp_path / "other", mine="mine"))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other"}


def test_a_folder_takes_the_place_of_a_file(system: None, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with attempting_folder(tmp_path / "out") as place:
        give_name(put(place / "out", a="new"), tmp_path / "out", replace=True)
    assert (tmp_path / "out" / "a").read_text() == "new"


def test_what_was_removed_meanwhile_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="removed"), attempting_folder(tmp_path / "out") as place:
        give_name(place / "out", tmp_path / "out", replace=True)


def test_only_dead_attempts_are_removed(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from urst_tiles.storage.folders import attempting_folder
with attempting_folder(Path({str(tmp_path / "out")!r})) as place:
    (place / "half").write_text("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    put(tmp_path / ".out.0123456789ab01234567.tmp", a="of somebody else")
    remove_dead_folders(tmp_path, "other")
    assert len(list(tmp_path.iterdir())) == 2
    with attempting_folder(tmp_path / "out") as alive:
        remove_dead_folders(tmp_path, "out")
        assert {path.name for path in tmp_path.iterdir()} == {alive.name, ".out.0123456789ab01234567.tmp"}


def test_trees_that_differ(tmp_path: Path) -> None:
    one = put(tmp_path / "one", a="a", b="b")
    assert same_trees(one, put(tmp_path / "same", a="a", b="b"))
    assert not same_trees(one, put(tmp_path / "less", a="a"))
    assert not same_trees(one, put(tmp_path / "other", a="a", b="c"))
    linked = put(tmp_path / "linked", a="a")
    (linked / "b").symlink_to(one / "b")
    assert not same_trees(one, linked)
