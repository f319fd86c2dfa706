"""The trainer of lite: its first losses, resume, and what it says to bad settings."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from trainers import assert_refused, flags, photographs_and_paintings, run

from urst_tiles import weights
from urst_tiles.losses import backbones
from urst_tiles.nets import lite

#: Losses of the first steps on the tiny set, float32, one thread.
FIRST: dict[str, list[float]] = {
    "total": [0.72991, 1.0732, 1.2946],
    "style": [0.0865, 0.21692, 0.20064],
    "content": [0.17742, 0.28083, 0.44985],
    "stroke": [0.0070231, 0.010415, 0.012716],
    "variation": [0.0080513, 0.011057, 0.015956],
    "lattice": [5.1556e-18, 0.00042462, 0.0011746],
}


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_lite")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs, paintings and loss networks."""
    folder = tmp_path_factory.mktemp("tiny")
    photographs_and_paintings(folder, 150, 170)
    random = np.random.default_rng(0)
    parts = []
    for _, i, o in backbones.convolutions("3_1"):
        parts += [random.normal(0, (2 / (9 * i)) ** 0.5, o * i * 9), np.zeros(o)]
    parts[0] = parts[0].reshape(64, 3, 3, 3)[:, ::-1].ravel()  # the file's first layer takes BGR
    np.concatenate(parts).astype("<f4").tofile(folder / "vgg.raw")
    state = {}
    for k, shape in backbones.distilled_shapes().items():
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.0
        state[k] = torch.from_numpy(random.normal(0, scale, shape).astype(np.float32))
    torch.save({"model": state}, folder / "5SE.pth")
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact."""
    given = {
        "content": tiny / "content", "style": tiny / "style", "vgg": tiny / "vgg.raw",
        "distilled": tiny / "5SE.pth", "out": tmp_path / "run", "steps": 4, "batch": 2, "size": 64,
        "style-crop": 64, "crops-per-style": 2, "precision": "float32", "save-every": 2, "sample-every": 4,
        "stroke-weight": 1, "variation-weight": 1, "warmup": 2, "cooldown": 2, "threads": 1,
    }  # fmt: skip
    return flags(given)


def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str]) -> None:
    rows = run(trainer, arguments, steps=3)
    for name, values in FIRST.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)


def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    one, two = (weights.load(tmp_path / name / lite.FILE) for name in ("run", "other"))
    assert all(torch.equal(one[k], two[k]) for k in lite.shapes())


def test_training_lowers_the_loss(trainer: ModuleType, arguments: list[str]) -> None:
    many = [*arguments, "--steps", "25", "--content-weight", "0", "--stroke-weight", "0", "--cooldown", "1"]
    style = [row["style"] for row in run(trainer, many)]
    assert np.mean(style[-5:]) < 0.9 * np.mean(style[:5])


def test_the_trained_network_is_the_packages_own(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    """What the trainer paints equals what the style paints from the file it wrote."""
    from urst_tiles.nets import live

    run(trainer, arguments)
    state = weights.load(tmp_path / "run" / lite.FILE)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 3, 32, 40, generator=generator)
    style = trainer.describe(y, state, torch.float32)
    mapped = trainer.recoloured(x, *trainer.colour_map(x, y))
    painted, _ = trainer.paint(mapped, state, style, torch.float32)
    own = lite.build({lite.FILE: state}, [(y[0].permute(1, 2, 0).numpy(), 1.0)])
    with torch.inference_mode():
        wanted = own.forward(x, live(own))
    # biased deviations here, unbiased there: 1/160 of a variance
    assert (painted - wanted).abs().max() < 0.02 * wanted.std()


def test_command_line_writes_losses_samples_and_weights(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trainer.PROGRAM.main([*arguments, "--steps", "20", "--size", "32", "--style-crop", "32"]) == 0
    with open(tmp_path / "run" / "losses.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "20" and all(float(row[k]) >= 0 for k in trainer.PROGRAM.columns)
    assert "total" in capsys.readouterr().out
    assert {"samples.png", "checkpoint.pt", lite.FILE} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_settings_file_and_flags(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('batch = 3\nrate = 1e-3\nprecision = "float32"\n')
    parsed = trainer.PROGRAM.parse(["--settings", str(tmp_path / "s.toml"), *arguments])
    assert (parsed.batch, parsed.rate) == (2, 1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--steps", "many"], "many"),
        (["--vgg", "/nowhere.raw"], "/nowhere.raw"),
        (["--settings", "/nowhere.toml"], "/nowhere.toml"),
        (["--precision", "float8"], "float8"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)


def test_unknown_setting_in_the_file(
    trainer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text("stepz = 3\n")
    assert trainer.PROGRAM.main(["--settings", str(tmp_path / "s.toml")]) == 2
    assert "stepz" in capsys.readouterr().err


def test_held_out_files_are_not_trained_on(trainer: ModuleType, tiny: Path) -> None:
    assert [p.name for p in trainer.files_of(tiny / "content", ["1*"])] == ["0.png", "2.png"]
