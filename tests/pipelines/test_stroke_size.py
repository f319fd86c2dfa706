"""The measure of strokes: doubles with the picture, and is what a slow sum says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from urst_tiles.source.picture import write_png


@pytest.fixture(scope="module")
def program(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("stroke_size")


def strokes(factor: float, side: int = 256) -> np.ndarray:
    """Smooth noise whose details are ``factor`` pixels large; (side, side, 3) in 0..1."""
    small = torch.rand(1, 3, round(side / factor), round(side / factor), generator=torch.manual_seed(0))
    x = F.interpolate(small, (side, side), mode="bicubic").clamp(0, 1)
    return x[0].permute(1, 2, 0).double().numpy()


def test_larger_strokes_are_longer_in_proportion(program: ModuleType) -> None:
    four, eight = (program.length(strokes(f)) for f in (4, 8))
    assert eight / four == pytest.approx(2, rel=0.1)


def test_autocorrelation_is_the_mean_product(program: ModuleType) -> None:
    random = np.random.default_rng(0)
    field = random.normal(size=(7, 9)).cumsum(1)
    centred = field - field.mean()
    found = program.autocorrelation(field)
    for dy, dx in ((0, 0), (2, 3), (6, 1), (0, 4)):
        right = centred[: 7 - dy, : 9 - dx] * centred[dy:, dx:]
        left = centred[: 7 - dy, dx:] * centred[dy:, : 9 - dx]
        assert found[dy, dx] == pytest.approx((right.mean() + left.mean()) / 2 / centred.var())


def test_brightness_and_contrast_do_not_count(program: ModuleType) -> None:
    picture = strokes(6)
    assert program.length(0.3 * picture + 0.2) == pytest.approx(program.length(picture))


def test_the_table_and_a_flat_picture(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "fine.png", (255 * strokes(4)).astype(np.uint8))
    write_png(tmp_path / "broad.png", (255 * strokes(12)).astype(np.uint8))
    assert program.main([str(tmp_path / n) for n in ("fine.png", "broad.png")] + ["--side", "128"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["fine.png", "broad.png"] and {row[-1] for row in rows} == {"4"}
    (fine, _, one, none), (broad, _, ratio, _) = (map(float, row[1:5]) for row in rows)
    assert (one, none) == (1, 0) and broad > 2.5 * fine and ratio == pytest.approx(broad / fine, rel=0.1)
    write_png(tmp_path / "flat.png", np.full((64, 64, 3), 99, np.uint8))
    assert program.main([str(tmp_path / "flat.png")]) == 2
    assert capsys.readouterr().err.startswith(f"stroke_size: {tmp_path / 'flat.png'} has no window")
