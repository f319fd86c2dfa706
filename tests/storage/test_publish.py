"""A published file is whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from urst_tiles.errors import DiskFull, MissingFile
from urst_tiles.storage.publish import check_room, publish, publishing


def test_what_is_published_is_there_and_nothing_else(tmp_path: Path) -> None:
    publish(tmp_path / "a", b"one")
    publish(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    publish(tmp_path / "a", b"old")
    with pytest.raises(KeyError), publishing(tmp_path / "a") as file:
        file.write(b"new")
        raise KeyError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="no room left"), publishing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="make it first"):
        publish(tmp_path / "no" / "a", b"x")


def test_room_is_checked_before(tmp_path: Path) -> None:
    check_room(tmp_path, 1)
    with pytest.raises(DiskFull, match="free and .* are needed"):
        check_room(tmp_path, 1 << 62)


def test_dev_full_says_no_space(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="No space left"), publishing(tmp_path / "a") as file:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
        file.write(b"y")
    assert not list(tmp_path.iterdir())
