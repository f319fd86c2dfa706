"""What the tests of the training programs share: made-up pictures, a call of a program, a bad setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import picture

from urst_tiles.source.picture import write_png


def photographs_and_paintings(folder: Path, height: int, width: int) -> None:
    """Write three pictures into the folder content, and two into the folder style."""
    for kind, count in (("content", 3), ("style", 2)):
        (folder / kind).mkdir()
        for k in range(count):
            write_png(folder / kind / f"{k}.png", picture(height, width, 10 * k + len(kind)))


def flags(given: Mapping[str, object]) -> list[str]:
    """Settings by name as the words of a command line."""
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def run(trainer: ModuleType, arguments: list[str], *more: str, steps: int = 10**6) -> list[dict[str, float]]:
    """The losses of a call on one thread, stopped in step ``steps``, without the seconds, which vary."""
    torch.set_num_threads(1)
    rows = trainer.PROGRAM.train(trainer.PROGRAM.parse([*arguments, *more]))
    found = [row for _, row in zip(range(steps), rows, strict=False)]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def assert_refused(
    trainer: ModuleType, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command line ends with status 2 and one sentence, in which the program's file and ``said`` stand."""
    assert trainer.PROGRAM.main(arguments) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith(f"{Path(str(trainer.__file__)).stem}: ") and said in error and error.count("\n") == 1
    )
