"""A published file is whole or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from urst_tiles.errors import BadInput, DiskFull, MissingFile
from urst_tiles.storage.publish import (
    attempt_name,
    check_room,
    is_attempt,
    publish,
    publishing,
    remove_dead_attempts,
)


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


def test_a_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync knows a descriptor only, and its error no name."""

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error") as caught:
        publish(tmp_path / "a", b"x")
    assert caught.value.filename == str(tmp_path) and not list(tmp_path.iterdir())


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


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = {path!r}
from urst_tiles.storage.publish import publishing
with publishing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("name", ["a", "\udce9t\u00e9.tif", "long" * 60])
def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    publish(path, b"whole")
    command = [sys.executable, "-c", KILLED.format(path=sys.path), os.fsencode(path)]
    assert subprocess.run(command).returncode == -9
    (left,) = (attempt for attempt in tmp_path.iterdir() if attempt != path)
    assert is_attempt(left.name, name) and not is_attempt(left.name, name + "x")
    strange = [f".{name[:9]}.partial", f".{name[:9]}.0123456789abcdef0123.tmp", ".a.tmp", "a.tmp"]
    for other in strange:
        (tmp_path / other).write_text("mine")
    with publishing(tmp_path / name) as file:
        file.write(b"more")
        remove_dead_attempts(tmp_path, name)
        remove_dead_attempts(tmp_path)
        assert not left.exists()
    assert path.read_bytes() == b"more"
    assert {p.name for p in tmp_path.iterdir()} == {name, *strange}


def test_an_attempt_of_another_file_stays(tmp_path: Path) -> None:
    other = attempt_name(tmp_path / "b")
    other.write_bytes(b"")
    pipe = attempt_name(tmp_path / "a")
    os.mkfifo(pipe)
    remove_dead_attempts(tmp_path, "a")
    assert other.exists() and pipe.exists()
    remove_dead_attempts(tmp_path)
    assert not other.exists()


def test_a_name_that_exists_is_not_taken(tmp_path: Path) -> None:
    with publishing(tmp_path / "a", replace=False) as file:
        file.write(b"one")
    with pytest.raises(FileExistsError), publishing(tmp_path / "a", replace=False) as file:
        file.write(b"two")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="pipe is no regular file"):
        publish(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1
