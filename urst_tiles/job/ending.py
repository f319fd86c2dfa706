"""The mark of a finished job: the last thing that is left of a job folder, and the last that goes.

An output that exists is not replaced, so the same command would refuse it. After a kill in the last moment it
must rather say that the job is finished. Something has to tell the two apart until the very end: a small file
with the identity of the job. It lies beside the job folder if the job made the folder, and otherwise in it,
where it outlives the other files. It goes when all else has gone.

A program can keep the marks of its jobs until it ends itself, with its exit status told: `keep_marks` and
`forget_marks`. Without that, the mark goes with the folder.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from urst_tiles.storage.names import beside
from urst_tiles.storage.publish import publish, remove_dead_attempts
from urst_tiles.storage.stores import is_remote, read_file, remove

#: Begins the records of a job whose folder is being removed; the identity of the job follows, and whether the
#: job made the folder.
GONE = {"job": "gone"}

#: The name of the mark in a folder that the job did not make.
INSIDE = "ended.json"

#: The marks that go when the program ends; None if they go at once.
_kept: list[Path] | None = None


def keep_marks() -> None:
    """From now on keep the marks of finished jobs, until `forget_marks` is called."""
    global _kept
    _kept = []


def forget_marks() -> bool:
    """Remove the marks that were kept, and keep no more; returns whether there were any."""
    global _kept
    marks, _kept = _kept or [], None
    for mark in marks:
        remove(mark)
    return bool(marks)


def mark_beside(folder: Path) -> Path:
    """The mark of a job that made its folder."""
    return beside(folder.with_name(f".{folder.name}"), ".ended")


def marks_of(folder: Path) -> list[Path]:
    """Where the mark of a job may lie."""
    return [folder / INSIDE, *(() if is_remote(folder) else [mark_beside(folder)])]


def leave_mark(folder: Path, record: dict[str, Any], made: bool) -> None:
    """Write the mark of a job; ``made`` is whether the job made its folder."""
    mark = mark_beside(folder) if made and not is_remote(folder) else folder / INSIDE
    publish(mark, json.dumps(record).encode())


def remove_marks(folder: Path, *, now: bool = False) -> None:
    """Remove the marks of a folder: ``now``, or when the program ends if it keeps marks."""
    for mark in marks_of(folder):
        with suppress(OSError):  # a folder that this user may not list
            remove_dead_attempts(mark.parent, mark.name)
        if now or _kept is None or is_remote(mark):  # a store cannot be reached when the program ends
            remove(mark)
        elif read_gone(mark):
            _kept.append(mark)


def read_gone(path: Path) -> dict[str, Any]:
    """What a file says of a job whose folder is being removed; empty if it says anything else."""
    try:
        said = json.loads(read_file(path))
        return said if said["job"] == GONE["job"] and "identity" in said else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
