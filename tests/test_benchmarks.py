"""The programs of ``benchmarks/``, which no other test runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import picture

from urst_tiles.errors import BadInput
from urst_tiles.source.picture import write_png

FOLDER = Path(__file__).parents[1] / "benchmarks"


#: Arguments that cannot be, of the benchmarks that take any.
REFUSED = [
    ("array_view", ["--chunk", "0"]),
    ("block_stages", ["--block", "64", "none.tif"]),
    ("cohort", ["--cohorts", "none"]),
    ("colour", ["--jobs", "none"]),
    ("conformance", ["--list", "none"]),
    ("costs", ["--rounds", "-1"]),
    ("gpu", ["--side", "nan"]),
    ("memory", ["--model", "lite", "--none", "none"]),
    ("memory_grid", ["--only", "("]),
    ("memory_scaling", ["--csv", "none/x.csv"]),
    ("mosaic", ["--side", "0"]),
    ("openers", ["--", "none"]),
    ("painting", [__file__, __file__, "--teacher", "none"]),
    ("quality", ["--pairs", __file__]),
    ("run", ["startup", "none"]),
    ("scale_model", ["--side", "100", "--block", "7"]),
    ("studio", ["--window", "0", "0"]),
    ("throughput", ["--models", "none"]),
]


def test_every_benchmark_can_be_imported_and_refuses_bad_arguments() -> None:
    """Each needs names of others, which may go or change. What is refused is said in one line."""
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    lines = ["import importlib, sys", f"sys.path.insert(0, {str(FOLDER)!r})"]
    lines += [f"importlib.import_module({name!r})" for name in names]
    lines += [f"assert importlib.import_module({name!r}).main({words}) == 2" for name, words in REFUSED]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line.partition(": ") for line in done.stderr.splitlines()]
    assert [name for name, _, _ in said] == [name for name, _ in REFUSED], done.stderr
    for (_, words), (_, _, sentence) in zip(REFUSED, said, strict=True):
        assert words[-2].strip("-") in sentence or words[-1] in sentence


def test_equal_pictures_have_the_same_shapes_and_moved_ones_have_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    shapes = importlib.import_module("shapes")
    x = torch.zeros(1, 3, 256, 256)
    x[:, :, 64:160, 96:192] = 1.0  # a square, whose edges are less than a twentieth of the pixels
    same, moved = x.roll(8, 3), x.roll((0, 16), (2, 3))
    assert shapes.structure(x, x) == pytest.approx(1.0) and shapes.edges_moved(x, x) == 0.0
    assert shapes.structure(x, 1 - x) < 0 < shapes.structure(x, moved) < shapes.structure(x, same) < 1
    assert 1 < shapes.edges_moved(x, same) < shapes.edges_moved(x, moved) < 16


def test_each_photograph_is_paired_with_a_painting_of_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Paintings are named styles of the table, or image files; a name that is neither is refused."""
    monkeypatch.syspath_prepend(str(FOLDER))
    quality = importlib.import_module("quality")
    monkeypatch.setattr(quality, "TRAIN", tmp_path)
    munch = "PyTorch_Multi___Edvard_Munch__The_Scream.jpg"
    for k, name in enumerate(("content/a.png", "content/b.png", f"style/{munch}", "style/c.png", "mine.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_png((tmp_path / name).with_suffix(".png"), picture(64, 96, k))
        (tmp_path / name).with_suffix(".png").rename(tmp_path / name)
    mine = str(tmp_path / "mine.png")
    table = tmp_path / "pairs.csv"
    table.write_text(f"content,style\na.png,{munch}\nb.png,c.png\n")
    pairs = quality.pairs_of(table, 1, [mine, "munch-scream"])
    assert [pair.name for pair in pairs] == [mine, "munch-scream"]
    assert torch.equal(pairs[0].style, quality.tensor(Path(mine)))
    assert torch.equal(pairs[1].style, quality.tensor(tmp_path / "style" / munch))
    assert [pair.name for pair in quality.pairs_of(table, 1)] == [""]  # the painting of a named style is not
    with pytest.raises(BadInput, match="no named style and no image dusk"):
        quality.pairs_of(table, 1, ["dusk"])
