"""The trainer of what predicts a style: its examples, its file, resume, and bad settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import picture
from safetensors.torch import load_file, save_file
from trainers import assert_refused, flags, photographs_and_paintings, run

from urst_tiles.losses import vgg
from urst_tiles.nets import painter, painter_styles, prediction
from urst_tiles.nets.style_rows import encoded
from urst_tiles.source.picture import write_png

NAMES = ["klimt-kiss", "munch-scream", "monet-bridge"]


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_prediction")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A complete command line, small: photographs, paintings, a loss network and a painter, all made up."""
    torch.set_num_threads(1)
    photographs_and_paintings(tmp_path, 140, 150)
    save_file({k: t.half() for k, t in vgg.random_state(0, depth=16).items()}, tmp_path / "vgg16.safetensors")
    state = painter.seeded(0, 1 / 4)[painter.FILE]
    save_file({**state, "styles": encoded(NAMES)}, tmp_path / "begin.safetensors")
    given = {
        "content": tmp_path / "content", "style": tmp_path / "style",
        "teacher": tmp_path / "vgg16.safetensors",
        "init": tmp_path / "begin.safetensors", "out": tmp_path / "run", "steps": 4, "batch": 2, "size": 64,
        "levels": 1, "content-size": 100, "style-size": 128, "hidden": 6, "save-every": 2, "sample-every": 4,
        "threads": 1,
    }  # fmt: skip
    return flags(given)


def test_the_prediction_is_learned_and_the_rest_stays(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    rows = run(
        trainer, arguments, "--steps", "16", "--rate", "0.01", "--rate-changes", "0.004", "--warmup", "1"
    )
    style = [row["style"] for row in rows]
    assert np.mean(style[-4:]) < 0.95 * np.mean(style[:4])
    before, after = load_file(tmp_path / "begin.safetensors"), load_file(tmp_path / "run" / painter.FILE)
    assert all(torch.equal(before[k], after[k]) for k in before)
    painter.check(after, painter.FILE, tmp_path)
    assert prediction.hidden_of(after) == 6
    image = picture(128, 140, 3).astype(np.float32) / 255
    one, other = (painter_styles.predicted(image, state, NAMES) for state in (before, after))
    assert not np.allclose(one["gamma"], other["gamma"], atol=1e-3)
    assert (tmp_path / "run" / "samples.png").exists()


def test_it_begins_with_the_mixture(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    """At the first step a style is that of the file without a prediction."""
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    styled = recipe.styled(recipe.training.leaves, 0)
    file = next(iter(recipe.examples.paintings.files.values()))
    image = trainer.read(file, 128).astype(np.float32) / 255
    wanted = painter_styles.predicted(image, load_file(tmp_path / "begin.safetensors"), NAMES)
    for k in painter_styles.PER_STYLE:
        assert np.allclose(styled[k][0].detach(), wanted[k], atol=1e-5), k
    weight = recipe.state["b.1.weight"] + wanted["b.1.weight"].float()
    assert torch.allclose(styled["b.1.weight"], weight, atol=1e-5)


def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    assert run(trainer, other, steps=3)[:2] + run(trainer, other) == whole
    one, two = (load_file(tmp_path / folder / painter.FILE) for folder in ("run", "other"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_it_goes_on_from_a_file_with_a_prediction(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    run(trainer, arguments)
    between = tmp_path / "run" / painter.FILE
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, "--init", str(between), "--hidden", "9"]))
    kept = load_file(between)
    changes = {prediction.CHANGE + k: t for k, t in prediction.changes(kept).items()}
    for k, leaf in recipe.training.leaves.items():
        assert torch.equal(leaf, (kept | changes)[k].float()), k
    assert torch.equal(recipe.state[prediction.CENTER], kept[prediction.CENTER])


def test_parts_of_a_painting(trainer: ModuleType) -> None:
    image = picture(200, 260, 1)
    whole, *parts = trainer.parts_of(image, 6, np.random.default_rng(0))
    assert np.array_equal(whole, image) and len(parts) == 6
    for part in parts:
        assert min(part.shape[:2]) == 200 and part.shape[2] == 3 and part.dtype == np.uint8
        assert part.shape[1] / part.shape[0] == pytest.approx(1.3, abs=0.02)
    assert len({part.tobytes() for part in parts}) == 6


def test_paintings_that_are_held_out_are_not_learned(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "out.txt").write_text("1.*\n")
    recipe = trainer.begin(
        trainer.PROGRAM.parse([*arguments, "--held-out-style", str(tmp_path / "out.txt"), "--parts", "1"])
    )
    assert list(recipe.examples.paintings.files) == ["0.png 0", "0.png 1"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--size", "48"], "--size must be a multiple of 32 for 1 levels, got 48"),
        (["--size", "128"], "--content-size must be at least --size, 128, got 100"),
        (["--levels", "0"], "--levels must be at least 1, got 0"),
        (["--held-out", "nothing.txt"], "there is no file nothing.txt of patterns to hold out"),
    ],
)
def test_bad_settings_are_refused(
    trainer: ModuleType,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert_refused(trainer, [*arguments, *more], said, capsys)


def test_a_painter_with_styles_of_its_own_is_refused(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(painter.seeded(0, 1 / 4)[painter.FILE], tmp_path / "own.safetensors")
    write_png(tmp_path / "style" / "more.png", picture(130, 140, 2))
    said = "are none of the package's"
    assert_refused(trainer, [*arguments, "--init", str(tmp_path / "own.safetensors")], said, capsys)
