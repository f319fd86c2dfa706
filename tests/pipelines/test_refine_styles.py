"""refine_styles: named styles learned further one by one, and put back into the network's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import picture
from safetensors.torch import save_file

from urst_tiles import weights
from urst_tiles.learning import one_style
from urst_tiles.losses import vgg
from urst_tiles.nets import low_rank, painter, style_file
from urst_tiles.nets.style_rows import style_named
from urst_tiles.source.picture import write_png

Run = Callable[..., int]


@pytest.fixture
def module(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("refine_styles")


@pytest.fixture
def study(tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs, paintings, a loss network and a painter of three styles; crops of 32 px on one level."""
    monkeypatch.setattr(one_style, "SIZE", 32)
    monkeypatch.setattr(one_style, "LEVELS", 1)
    monkeypatch.setattr(module, "SIZE", 128)
    for folder, count in (("photos", 2), ("paintings", 3)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            write_png(tmp_path / folder / f"{k}.png", picture(140, 150, k + 7 * count))
    save_file({k: t.half() for k, t in vgg.random_state(0, depth=16).items()}, tmp_path / "vgg16.safetensors")
    save_file(painter.seeded(0, 1 / 4)[painter.FILE], tmp_path / "begin.safetensors")
    (tmp_path / "styles.csv").write_text("name,file\ndawn,0.png\nnoon,1.png\nnight,2.png\n")
    return tmp_path


@pytest.fixture
def run(study: Path, module: ModuleType) -> Run:
    """``run(*words)`` -> exit status."""

    def call(*more: str) -> int:
        words = [word for key, name in given.items() for word in (key, str(study / name))]
        return module.main([*words, "--threads", "1", *more])

    given = {
        "--content": "photos", "--style": "paintings", "--styles": "styles.csv", "--out": "out",
        "--teacher": "vgg16.safetensors", "--init": "begin.safetensors",
    }  # fmt: skip
    return call


def built(path: Path, name: str) -> painter.PainterStyle:
    return painter.build({painter.FILE: weights.load(path)}, [(style_named(name), 1.0)])


def same(one: painter.PainterStyle, other: painter.PainterStyle) -> bool:
    return one.fingerprint == other.fingerprint


def test_styles_are_learned_and_put_back(run: Run, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--steps", "12", "--only", "noon", "dawn") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:2]] == ["noon", "dawn"]
    assert "2 of 3 styles learned further" in said[-1]
    row, facts = style_file.read_style_file(study / "out" / "noon.style")
    assert facts["distances"][1] < facts["distances"][0] and facts["steps"] == 12
    before, after = study / "begin.safetensors", study / "out" / painter.FILE
    assert low_rank.rank_of(weights.load(after)) == low_rank.RANK
    assert same(built(before, "night"), built(after, "night"))
    state = weights.load(before)
    given = style_file.load_style_file(study / "out" / "noon.style")
    learned = painter.build({painter.FILE: state}, [(given, 1.0)])
    assert same(learned, built(after, "noon")) and not same(built(before, "noon"), built(after, "noon"))
    changed = built(after, "noon").weights["a.0.weight"] - state["a.0.weight"].float()
    assert torch.allclose(changed, low_rank.changes(row)["a.0.weight"].float(), atol=1e-6)


def test_what_is_there_is_not_learned_again(
    run: Run, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--steps", "1", "--only", "noon")
    kept = (study / "out" / "noon.style").read_bytes()
    capsys.readouterr()
    assert run("--steps", "1") == 0
    said = capsys.readouterr().out
    assert "noon" not in said and "dawn: style distance" in said and "3 of 3 styles" in said
    assert (study / "out" / "noon.style").read_bytes() == kept


def test_learning_goes_on_from_a_file_with_changes(run: Run, study: Path) -> None:
    run("--steps", "2", "--only", "noon")
    between = study / "out" / painter.FILE
    assert run("--init", str(between), "--out", str(study / "next"), "--steps", "1", "--only", "dawn") == 0
    after = study / "next" / painter.FILE
    assert same(built(between, "noon"), built(after, "noon"))
    assert not same(built(between, "dawn"), built(after, "dawn"))


def test_the_rate_rises_stays_and_falls(module: ModuleType) -> None:
    shares = np.array([module.share_of_rate(step, 100) for step in range(100)])
    assert shares[0] == pytest.approx(0.1) and (shares[10:50] == 1).all()
    assert (np.diff(shares[50:]) < 0).all() and 0.05 < shares[-1] < 0.08


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "noon", "dusk"], "there is no style dusk; --only takes some of dawn, noon, night"),
        (["--rate", "0"], "must be a number above 0"),
        (["--steps", "0"], "must be at least 1"),
    ],
)
def test_what_cannot_be_learned_is_said(
    run: Run, study: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert run(*more) != 0
    assert said in capsys.readouterr().err and not (study / "out").exists()


def test_a_painting_that_is_not_there_is_named(
    run: Run, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "paintings" / "1.png").unlink()
    assert run() != 0
    assert "there is no painting" in capsys.readouterr().err
