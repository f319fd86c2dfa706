"""The pictures before and after of the pages about colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pyvips

from urst_tiles.source.picture import write_png


def test_slides_of_two_laboratories_become_alike(
    pipeline: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    before, after = pipeline("colour_pieces").slides(tmp_path)
    means = [[one.reshape(-1, 3).mean(0) for one in row] for row in (before, after)]
    apart = [float(np.linalg.norm(row[0] - row[2])) for row in means]
    assert apart[1] < apart[0] / 2


def test_prints_take_the_colours_of_the_good_one(
    pipeline: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    y, x = np.mgrid[:320, :340]
    photo = np.stack(
        [120 + 90 * np.sin(x / 31), 120 + 90 * np.sin(y / 23), 100 + 60 * np.cos(x / 19 + y / 27)]
    )
    write_png(tmp_path / "photo.png", np.rint(np.moveaxis(photo, 0, -1)).astype(np.uint8))
    before, after = pipeline("colour_pieces").prints(tmp_path, tmp_path / "photo.png")
    good = before[3].astype(float)
    for faded, restored in zip(before[:3], after[:3], strict=True):
        assert np.abs(restored - good).mean() < np.abs(faded - good).mean() / 2
    pipeline("colour_pieces").write([before, after], tmp_path / "out.png", across=4)
    assert pyvips.Image.new_from_file(str(tmp_path / "out.png")).width == 4 * 300 + 3 * 12


@pytest.mark.slow
def test_the_mosaic_has_no_seam_left(pipeline: Callable[[str], ModuleType], tmp_path: Path, capsys) -> None:
    pipeline("colour_pieces").mosaic(tmp_path)
    before, after = (float(word.strip("%,")) for word in capsys.readouterr().out.split()[-2:])
    assert before > 10 and after < 1
