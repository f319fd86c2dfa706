"""refine_painter: the network and its named styles learned further, its file, resume, and bad settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import picture
from safetensors.torch import load_file, save_file
from trainers import assert_refused, flags, run

from urst_tiles.learning import one_style
from urst_tiles.losses import vgg
from urst_tiles.nets import low_rank, painter, painter_styles
from urst_tiles.nets.style_rows import style_named
from urst_tiles.source.picture import write_png


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("refine_painter")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A complete command line, small: photographs, three paintings, a loss network and a painter of their
    styles, all made up."""
    torch.set_num_threads(1)
    for folder, count in (("photos", 2), ("paintings", 3)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            write_png(tmp_path / folder / f"{k}.png", picture(140, 150, k + 7 * count))
    save_file({k: t.half() for k, t in vgg.random_state(0, depth=16).items()}, tmp_path / "vgg16.safetensors")
    save_file(painter.seeded(0, 1 / 4)[painter.FILE], tmp_path / "begin.safetensors")
    (tmp_path / "styles.csv").write_text("name,file\ndawn,0.png\nnoon,1.png\nnight,2.png\n")
    given = {
        "content": tmp_path / "photos", "style": tmp_path / "paintings", "styles": tmp_path / "styles.csv",
        "teacher": tmp_path / "vgg16.safetensors", "init": tmp_path / "begin.safetensors",
        "out": tmp_path / "run", "steps": 6, "size": 32, "levels": 1, "content-size": 100, "style-size": 128,
        "warmup": 1, "save-every": 3, "sample-every": 6, "threads": 1,
    }  # fmt: skip
    return flags(given)


def built(path: Path, name: str) -> painter.PainterStyle:
    return painter.build({painter.FILE: load_file(path)}, [(style_named(name), 1.0)])


def same(one: painter.PainterStyle, other: painter.PainterStyle) -> bool:
    return one.fingerprint == other.fingerprint


def test_the_network_and_its_styles_are_learned(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    rows = run(trainer, arguments, "--steps", "60", "--rate", "0.002", "--rate-affine", "0.02")
    style = [row["style"] for row in rows]
    assert np.mean(style[-15:]) < 0.95 * np.mean(style[:15])
    before, after = load_file(tmp_path / "begin.safetensors"), load_file(tmp_path / "run" / painter.FILE)
    painter.check(after, painter.FILE, tmp_path)
    assert low_rank.rank_of(after) == low_rank.RANK
    for k in ("enter.weight", "a.0.bias", "gamma", "half_beta"):
        assert not torch.equal(before[k], after[k]), k
    assert all(torch.equal(before[k], after[k]) for k in painter_styles.COLOURS)
    assert (tmp_path / "run" / "samples.png").exists()


def test_what_is_written_is_what_was_learned(trainer: ModuleType, arguments: list[str]) -> None:
    """The weights in one style are those of the running average, but for what 16 bits and the rank cost."""
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    for _ in range(6):
        recipe.training.advance(recipe.objective()[0])
    file = Path(arguments[arguments.index("--out") + 1])
    file.write_bytes(recipe.export()[painter.FILE])
    seen = recipe.training.memory["visits"]
    name = recipe.names[int(seen.argmax())]
    wanted, found = trainer.painted_by(recipe.training.average, name), built(file, name)
    for k in ("a.0.weight", "mid.weight", "full.bias"):
        assert torch.allclose(found.weights[k], wanted[k].detach(), atol=2e-3), k
    assert int(seen.sum()) == 6


def test_only_some_styles_and_nothing_shared(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    run(trainer, arguments, "--rate", "0", "--only", "noon", "--average", "0")
    before, after = tmp_path / "begin.safetensors", tmp_path / "run" / painter.FILE
    assert all(same(built(before, name), built(after, name)) for name in ("dawn", "night"))
    assert not same(built(before, "noon"), built(after, "noon"))
    shared = painter_styles.shared_names(painter_styles.form_of(load_file(before)))
    assert all(torch.equal(load_file(before)[k], load_file(after)[k]) for k in shared)


def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    assert run(trainer, other, steps=4)[:3] + run(trainer, other) == whole
    one, two = (load_file(tmp_path / folder / painter.FILE) for folder in ("run", "other"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_it_begins_where_the_file_stands(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    """Style by style the first weights are those that the file's styles have, changes included."""
    run(trainer, arguments)
    between = tmp_path / "run" / painter.FILE
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, "--init", str(between)]))
    for name in ("dawn", "night"):
        state, style = trainer.painted_by(recipe.training.leaves, name), built(between, name)
        for k, t in style.weights.items():
            assert torch.allclose(state[k].detach(), t, atol=1e-6), k


def test_changes_are_cut_to_their_rank(
    trainer: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    leaf = recipe.training.leaves[trainer.own("noon", "a.0.weight")]
    with torch.no_grad():
        leaf.normal_(generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(low_rank, "RANK", 2)
    wanted = low_rank.largest(leaf.detach())
    assert not torch.allclose(leaf, wanted)
    recipe.cut("noon")
    assert torch.equal(leaf, wanted)
    assert one_style.CUT > 1


def test_a_style_stands_still_between_its_steps(trainer: ModuleType, arguments: list[str]) -> None:
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, "--identity-share", "1"]))
    recipe.training.advance(recipe.objective()[0])
    seen = recipe.training.memory["visits"].tolist()
    leaves = {k: t.detach().clone() for k, t in recipe.training.leaves.items()}
    total, parts = recipe.objective()
    assert float(parts[trainer.IDENTITY].detach()) > 0
    recipe.training.advance(total)
    now = recipe.training.memory["visits"].tolist()
    for name, before, after in zip(recipe.names, seen, now, strict=True):
        moved = not torch.equal(leaves[f"{name}/gamma"], recipe.training.leaves[f"{name}/gamma"])
        assert moved == (after > before)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--only", "noon,dusk"],
            "there is no style dusk; the painter and the table both have dawn, noon, night",
        ),
        (["--size", "40"], "--size must be a multiple of 32 for 1 levels, got 40"),
        (["--steps", "0"], "steps"),
    ],
)
def test_what_cannot_be_learned_is_said(
    trainer: ModuleType,
    arguments: list[str],
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert_refused(trainer, [*arguments, *more], said, capsys)
    assert not (tmp_path / "run" / painter.FILE).exists()


def test_a_painting_that_is_not_there_is_named(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "paintings" / "1.png").unlink()
    assert_refused(trainer, arguments, "there is no painting", capsys)


def test_the_rate_rises_stays_and_falls(trainer: ModuleType, arguments: list[str]) -> None:
    words = [*arguments, "--steps", "100", "--warmup", "10", "--cooldown", "0.5"]
    recipe = trainer.begin(trainer.PROGRAM.parse(words))
    shares = np.array([recipe.share_of_rate(step) for step in range(100)])
    assert shares[0] == pytest.approx(0.1) and (shares[10:50] == 1).all()
    assert (np.diff(shares[50:]) < 0).all() and 0.05 < shares[-1] < 0.08
