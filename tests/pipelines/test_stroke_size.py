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


def painted(width: int, side: int = 256) -> np.ndarray:
    """Flat strokes with sharp edges, ``width`` pixels wide and four times as long, painted over each other in
    random colours; (side, side, 3) in 0..1."""
    random = np.random.default_rng(width)
    far = 3 * width  # beyond the end of a stroke, and beyond the picture's edges
    picture = np.full((side + 2 * far, side + 2 * far, 3), 0.5)
    ys, xs = np.mgrid[-far : far + 1, -far : far + 1]
    for _ in range(3 * side * side // width**2):
        y, x, turn = *random.integers(far, side + far, 2), random.uniform(0, np.pi)
        along, across = xs * np.cos(turn) + ys * np.sin(turn), ys * np.cos(turn) - xs * np.sin(turn)
        distance = np.hypot(np.maximum(abs(along) - 1.5 * width, 0), across)
        share = np.clip(width / 2 - distance + 0.5, 0, 1)[..., None]
        part = picture[y - far : y + far + 1, x - far : x + far + 1]
        part += share * (random.uniform(0, 1, 3) - part)
    return picture[far:-far, far:-far]


@pytest.mark.parametrize("width", [6, 10])
def test_the_coarsest_strokes_have_their_width(program: ModuleType, width: int) -> None:
    """Beside the recoloured content, of which nothing counts, and with strokes half as wide over them."""
    strokes_alone = painted(width)
    assert program.coarsest(program.contrasts(program.strokes_of(strokes_alone, None))) == pytest.approx(
        width, rel=0.2
    )
    content = strokes(40)
    picture = 0.5 * content[..., ::-1] + 0.5 * strokes_alone
    found = program.coarsest(program.contrasts(program.strokes_of(picture, content)))
    assert found == pytest.approx(width, rel=0.2)


def test_the_table_of_coarsest_strokes(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = strokes(40)
    for name, width in (("a.png", 5), ("b.png", 10)):
        write_png(tmp_path / name, (127 * (content + painted(width))).astype(np.uint8))
    write_png(tmp_path / "content.png", (255 * content).astype(np.uint8))
    write_png(tmp_path / "painting.png", (255 * painted(10, 320)).astype(np.uint8))
    names = ("a.png", "b.png", "painting.png")
    arguments = [str(tmp_path / name) for name in names] + ["--side", "256"]
    assert program.main([*arguments, "--content", str(tmp_path / "content.png")]) == 0
    header, *rows = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert header[:3] == ["picture", "coarsest_px", "ratio"] and len(header) == 11
    assert [row[0] for row in rows] == list(names)
    assert [float(row[2]) for row in rows] == pytest.approx([1, 2, 2], rel=0.25)
    write_png(tmp_path / "flat.png", np.full((64, 64, 3), 99, np.uint8))
    assert program.main([str(tmp_path / "flat.png"), "--content", str(tmp_path / "flat.png")]) == 2
    assert "is flat" in capsys.readouterr().err
