"""A published file is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from urst_tiles.errors import DiskFull
from urst_tiles.files import publish, publishing


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


def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(DiskFull, match="cannot be written"):
        publish(Path("/proc/nothing"), b"x")


def test_dev_full_says_no_space(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="No space left"), publishing(tmp_path / "a") as file:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
        file.write(b"y")
    assert not list(tmp_path.iterdir())
