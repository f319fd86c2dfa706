"""The trainer of MSG-Net: its first losses, resume, styles and sizes in turn, and bad settings."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from trainers import assert_refused, flags, photographs_and_paintings, run

from urst_tiles import weights
from urst_tiles.nets import live, msgnet

#: Losses of the first steps on the tiny set, float32, one thread.
FIRST: dict[str, list[float]] = {
    "total": [0.27598, 0.26833, 0.2973],
    "style": [4.2027e-06, 4.6958e-06, 5.6965e-06],
    "content": [0.11045, 0.10933, 0.11189],
    "stroke": [0.068064, 0.054408, 0.069091],
    "variation": [0.055434, 0.057634, 0.059356],
}
NARROW = 1 / 16


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_msgnet")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs and paintings."""
    folder = tmp_path_factory.mktemp("tiny")
    photographs_and_paintings(folder, 150, 170)
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact."""
    torch.set_num_threads(1)
    given = {
        "content": tiny / "content", "style": tiny / "style", "out": tmp_path / "run", "width": NARROW,
        "steps": 3, "batch": 2, "size": 32, "style-sizes": "32,50", "stroke-weight": 1, "style-weight": 1e4,
        "backbone": "distilled", "style-layers": "relu1_1,relu2_1,relu3_1", "content-layer": "relu3_1",
        "variation-weight": 1, "save-every": 2, "sample-every": 3, "threads": 1,
    }  # fmt: skip
    return flags(given)


def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str]) -> None:
    rows = run(trainer, arguments)
    for name, values in FIRST.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)


def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    small = [*arguments, "--steps", "4", "--batch", "1"]
    whole = run(trainer, small)
    other = [*small, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    one, two = (weights.load(tmp_path / folder / msgnet.FILE) for folder in ("run", "other"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_training_lowers_the_loss(trainer: ModuleType, arguments: list[str]) -> None:
    more = ("--steps", "24", "--content-weight", "0", "--stroke-weight", "0", "--variation-weight", "0")
    style = [row["style"] for row in run(trainer, arguments, *more)]
    assert np.mean(style[-8:]) < 0.8 * np.mean(style[:8])


@pytest.mark.parametrize("width", [1 / 8, 1 / 16])
def test_narrow_networks_train_on_larger_crops(
    trainer: ModuleType, arguments: list[str], width: float
) -> None:
    """In a process of its own, since what went wrong here killed it."""
    more = ["--width", str(width), "--size", "64", "--style-sizes", "64", "--steps", "1"]
    program = str(trainer.__file__)
    environment = os.environ | {"PYTHONPATH": str(Path(program).parent)}
    done = subprocess.run([sys.executable, program, *arguments, *more], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()


def test_styles_take_turns_then_sizes(trainer: ModuleType, arguments: list[str]) -> None:
    paintings = trainer.begin(trainer.PROGRAM.parse(arguments)).paintings
    shown = [paintings.turn(step) for step in range(5)]
    assert [tuple(y.shape[2:]) for y, _ in shown] == [(32, 36), (32, 36), (48, 56), (48, 56), (32, 36)]
    assert torch.equal(shown[0][0], shown[4][0]) and not torch.equal(shown[0][0], shown[1][0])
    assert shown[0][1] is shown[4][1] and len(paintings.targets) == 4


def test_the_trained_network_is_the_familys_own(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    """What the trainer paints equals what the style paints from the file it wrote."""
    run(trainer, arguments)
    state = weights.load(tmp_path / "run" / msgnet.FILE)
    msgnet.check(state, msgnet.FILE, tmp_path)
    x, y = torch.rand(2, 1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    painted, _ = trainer.paint(x, state, trainer.describe(y, state))
    own = msgnet.build({msgnet.FILE: state}, [(y[0].permute(1, 2, 0).numpy(), 1.0)])
    with torch.inference_mode():
        wanted = own.forward(x, live(own))
    assert (painted - wanted).abs().max() < 1e-3 * wanted.std()


def test_the_file_has_the_names_of_the_authors_program(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    """Shared modules stand under two names, as their ``load_state_dict`` wants them."""
    run(trainer, arguments, "--steps", "1", "--save-every", "1")
    state = weights.load(tmp_path / "run" / msgnet.FILE)
    encoder = {k.removeprefix("model.0."): t for k, t in state.items() if k.startswith("model.0.")}
    assert encoder and all(torch.equal(state[f"model1.{k}"], t) for k, t in encoder.items())
    assert torch.equal(state["ins.weight"], state["model.1.weight"])
    assert set(state) - set(msgnet.shapes()) == {"ins.weight", *(f"model1.{k}" for k in encoder)}


def test_the_patch_is_painted_with_the_thumbnails_statistics(trainer: ModuleType) -> None:
    state = msgnet.seeded(0, NARROW)[msgnet.FILE]
    x, y, z = torch.rand(3, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gram = trainer.describe(y, state)
    plain, used = trainer.paint(x, state, gram)
    assert list(used) == list(msgnet.norms())
    again, _ = trainer.paint(x, state, gram, used)
    other, _ = trainer.paint(x, state, gram, trainer.paint(0.2 * z, state, gram)[1])
    assert torch.equal(plain, again) and not torch.allclose(plain, other, atol=1e-2)


def test_a_trained_network_is_a_start(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    run(trainer, arguments, "--steps", "2")
    file = tmp_path / "run" / msgnet.FILE
    more = ("--init", str(file), "--out", str(tmp_path / "more"), "--rate", "0", "--width", "1")
    run(trainer, arguments, "--steps", "1", *more)
    one, two = weights.load(file), weights.load(tmp_path / "more" / msgnet.FILE)
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    "more",
    [
        ("--smoothing", "channels"), ("--smoothing", "map"), ("--style-by", "moments"),
        ("--smoothing", "scale", "--content-layer", "relu4_1"),
        ("--stroke-factor", "3"), ("--stroke-layers", "relu2_1,relu3_1"),
        ("--styles", "1", "--style-sizes", "40"), ("--precision", "bfloat16"),
    ],
)  # fmt: skip
def test_every_option_trains(trainer: ModuleType, arguments: list[str], more: tuple[str, ...]) -> None:
    (row,) = run(trainer, arguments, "--steps", "1", "--batch", "1", *more)
    assert all(np.isfinite(value) and value >= 0 for value in row.values())
    (plain,) = run(trainer, arguments, "--steps", "1", "--batch", "1", "--out", arguments[5] + "-plain")
    assert row["total"] != plain["total"]


def test_the_papers_layers_are_the_default(trainer: ModuleType, arguments: list[str]) -> None:
    """Through a whole VGG-19 of random weights, without strokes."""
    parsed = trainer.PROGRAM.parse(arguments[:6])
    assert (parsed.backbone, parsed.style_weight, parsed.style_sizes) == ("vgg19", 5.0, (256, 512, 768))
    small = [*arguments[:14], "--style-sizes", "32", "--threads", "1"]
    (row,) = run(trainer, small, "--steps", "1", "--batch", "1")
    assert row["style"] > 0 and row["content"] > 0 and "stroke" not in row


def test_command_line_writes_losses_samples_and_weights(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trainer.PROGRAM.main([*arguments, "--steps", "2"]) == 0
    with open(tmp_path / "run" / "losses.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "2" and all(float(row[k]) > 0 for k in ("style", "content", "stroke", "variation"))
    assert "total" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"samples.png", "checkpoint.pt", "settings.txt", msgnet.FILE} <= names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--style", "/nowhere"], "/nowhere"),
        (["--size", "30"], "multiple of 4"),
        (["--style-sizes", "32,8"], "--style-sizes"),
        (["--style-sizes", "32,big"], "big"),
        (["--init", "/nowhere.model"], "/nowhere.model"),
        (["--backbone", "vgg20"], "vgg20"),
        (["--content-layer", "relu9_1"], "relu9_1"),
        (["--smoothing", "softly"], "channels"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)


def test_other_files_are_no_start(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = msgnet.seeded(0, NARROW)[msgnet.FILE]
    state["model.12.conv2d.bias"] = torch.zeros(4)
    torch.save(state, tmp_path / "other.model")
    assert trainer.PROGRAM.main([*arguments, "--init", str(tmp_path / "other.model")]) == 2
    assert "model.12.conv2d.bias" in capsys.readouterr().err
