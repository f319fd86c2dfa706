"""What a training leaves behind to read: its settings, and its losses as a CSV file."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from training.loop import Row
from urst_tiles.errors import BadInput, UrstError
from urst_tiles.storage.publish import make_folder, publish, writing
from urst_tiles.storage.stores import lock_folder

#: The first columns of every program.
FIRST = ("step", "seconds", "total")


def begun(settings: Any, begin: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows of ``begin()``, and write the settings when the first is there, or there is none.

    So a call that is refused leaves what an earlier one wrote into ``settings.out``. BadInput while another
    run writes into it.
    """
    with ExitStack() as held:
        with beginning(settings.out, held):
            rows = begin()
            first = next(rows, None)
        write_settings(settings.out / "settings.txt", settings)
        if first is not None:
            yield first
            yield from rows


@contextmanager
def beginning(folder: Path, held: ExitStack) -> Iterator[None]:
    """Make the folder ``--out`` for a ``with`` block in which a training begins, and lock it until ``held``
    is closed.

    If the block raises an `UrstError`, the folder goes again with all that is in it, unless it was there
    before. BadInput where the folder is a file or lies in one, or another run holds it.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        make_folder(folder)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"--out {folder} is a file, or lies in one: name a folder") from None
    lock = lock_folder(folder.resolve())
    if lock is None:  # what is in it is not ours to remove
        raise BadInput(f"another run writes into {folder}: wait for its end, or give another --out")
    if lock >= 0:
        held.callback(os.close, lock)
    try:
        yield
    except UrstError:
        with suppress(OSError):
            if new:
                shutil.rmtree(folder)
            for one in new[1:]:
                one.rmdir()
        raise


def write_settings(path: Path, settings: Any) -> None:
    """Every setting of a dataclass with its value, one a line."""
    publish(path, "".join(f"{k} = {v}\n" for k, v in asdict(settings).items()).encode())


def record(path: Path, rows: Iterable[Row], columns: Sequence[str], every: int = 20) -> int:
    """Append the mean losses up to each multiple of ``every`` steps, and up to the last, to a CSV file, and
    print them; a part that is not computed stays empty. Returns how many steps there were.

    A row of steps after the first one's, which a call before wrote and its checkpoint did not keep, goes.
    """
    pending: list[Row] = []
    count = 0
    for count, row in enumerate(rows, 1):
        if count == 1:
            cut(path, columns, int(row["step"]) - 1)
        pending.append(row)
        if row["step"] % every == 0:
            append(path, pending, columns)
            pending = []
    if pending:
        append(path, pending, columns)
    return count


def cut(path: Path, columns: Sequence[str], step: int) -> None:
    """The file with its header and the whole rows up to ``step``; BadInput where its columns are others."""
    header = ",".join(columns) + "\n"
    lines = path.read_text("utf-8", "replace").splitlines(keepends=True) if path.exists() else []
    if lines and lines[0] != header:
        raise BadInput(f"{path} has other columns than this training: give another --out")
    whole = [line for line in lines[1:] if line.endswith("\n")]
    if strange := [line for line in whole if not line.split(",")[0].isdecimal()]:
        raise BadInput(f"{path} is damaged: remove the line {strange[0].strip()!r}, or give another --out")
    kept = [line for line in whole if int(line.split(",")[0]) <= step]
    publish(path, (header + "".join(kept)).encode())


def append(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """One line, in the file and on the terminal."""
    last = rows[-1]
    mean = {k: f"{np.mean([row[k] for row in rows if k in row]):.6g}" for k in last}
    mean |= {"step": f"{last['step']:.0f}", "seconds": f"{last['seconds']:.1f}"}
    with writing(path.parent), open(path, "a", newline="") as file:
        csv.DictWriter(file, columns, lineterminator="\n").writerow(mean)
    print("  ".join(f"{k} {mean[k]}" for k in columns if k in mean), flush=True)
