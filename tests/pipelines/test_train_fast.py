"""The trainer of fast: its first losses, its options, resume, and that the family paints alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from trainers import assert_refused, flags, run

from urst_tiles import weights
from urst_tiles.nets import fast, fast_layouts, live
from urst_tiles.source.picture import write_png

#: Losses of the first steps on the tiny set, float32, one thread.
FIRST: dict[str, list[float]] = {
    "total": [0.37071, 0.40241, 0.098511],
    "style": [5.4326e-05, 0.00013109, 1.801e-06],
    "content": [0.1503, 0.10222, 0.040552],
    "stroke": [0.0097637, 0.062486, 0.012775],
    "variation": [0.0060192, 0.0043953, 0.0028321],
}


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_fast")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs and a painting."""
    from helpers import picture

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "content").mkdir()
    for k in range(3):
        write_png(folder / "content" / f"{k}.png", picture(80, 90, k))
    write_png(folder / "style.png", picture(70, 60, 10))
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact; the loss network is a random one."""
    given = {
        "content": tiny / "content", "style": tiny / "style.png", "out": tmp_path / "run", "steps": 4,
        "batch": 2, "size": 32, "style-size": 48, "width": 0.25, "backbone": "distilled",
        "style-layers": "relu1_1,relu2_1,relu3_1", "content-layer": "relu2_1", "stroke-layers": "relu3_1",
        "stroke-weight": 1, "variation-weight": 1, "style-weight": 1000, "content-weight": 2, "threads": 1,
        "save-every": 2, "sample-every": 4, "rate": 5e-3, "layout": "linder-noren",
    }  # fmt: skip
    return flags(given)


def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str]) -> None:
    rows = run(trainer, arguments, steps=3)
    for name, values in FIRST.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)
    weight = {"style": 1000, "content": 2, "stroke": 1, "variation": 1}
    for row in rows:
        assert row["total"] == pytest.approx(sum(weight[k] * row[k] for k in weight), rel=1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, norm: str
) -> None:
    arguments = [*arguments, "--norm", norm, "--average", "0.9"]
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    one, two = (weights.load(tmp_path / name / trainer.FILE) for name in ("run", "other"))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_training_lowers_the_loss(trainer: ModuleType, arguments: list[str]) -> None:
    many = [*arguments, "--steps", "25", "--content-weight", "0", "--stroke-weight", "0"]
    style = [row["style"] for row in run(trainer, many)]
    assert np.mean(style[-5:]) < 0.5 * np.mean(style[:5])


@pytest.mark.parametrize("layout", ["pytorch", "linder-noren"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_trained_network_is_the_families_own(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, layout: str, norm: str
) -> None:
    """What the trainer paints equals what the style paints from the file it wrote."""
    run(trainer, [*arguments, "--layout", layout, "--norm", norm, "--rate", "1e-2"])
    state = fast.load_style(tmp_path / "run" / trainer.FILE)
    style = fast.build({}, [(state, 1.0)])
    assert (style.layout, len(style.sites)) == (layout, 0 if norm == "batch" else 15)
    assert len(style.weights["conv1.bias"]) == 8
    x = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    given = {}
    for k in fast.NORMED if norm == "batch" else ():
        mean, variance = (style.weights[f"{k}.{part}"][None] for part in ("mean", "variance"))
        given[k] = mean, (variance + fast_layouts.EPS).sqrt()
    with torch.inference_mode():
        painted, _ = trainer.paint(x, style.weights, layout, torch.float32, given or None)
        wanted = style.forward(x, live(style))
    assert (painted - wanted).abs().max() < 1e-4 * wanted.std()


def test_a_trained_style_starts_another_training(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(trainer, [*arguments, "--norm", "batch"])
    kept = str(tmp_path / "run" / trainer.FILE)
    more = [*arguments, "--out", str(tmp_path / "more"), "--init", kept, "--steps", "1", "--rate", "0"]
    assert trainer.PROGRAM.main([*more, "--layout", "pytorch"]) == 2
    assert "linder-noren with batch norms" in capsys.readouterr().err
    run(trainer, [*more, "--norm", "batch"])
    one, two = (weights.load(tmp_path / name / trainer.FILE) for name in ("run", "more"))
    moved = {k for k in one if not torch.equal(one[k], two[k])}
    assert moved and all(k.endswith(("running_mean", "running_var")) for k in moved)


def test_running_statistics_go_after_the_batches(trainer: ModuleType) -> None:
    """As PyTorch's own batch norm keeps them, and what it gives in training."""
    torch.manual_seed(0)
    y = torch.randn(3, 4, 8, 8) * 3 + 1
    theirs = torch.nn.BatchNorm2d(4)
    mean, std = trainer.measured(y, True)
    ours = (y - mean[:, :, None, None]) / std[:, :, None, None]
    assert torch.allclose(ours, theirs(y), atol=1e-5)
    leaves = {f"{k}.{part}": t for k in ("conv1",) for part, t in
              (("mean", torch.zeros(4)), ("variance", torch.ones(4)))}  # fmt: skip
    trainer.follow(leaves, {"conv1": (mean, std)}, y[:, 0].numel())
    assert torch.allclose(leaves["conv1.mean"], theirs.state_dict()["running_mean"], atol=1e-6)
    assert torch.allclose(leaves["conv1.variance"], theirs.state_dict()["running_var"], atol=1e-5)


@pytest.mark.parametrize("smoothing", ["channels", "map", "scale"])
@pytest.mark.parametrize("by", ["gram", "moments"])
def test_smoothing_and_kinds_of_style(
    trainer: ModuleType, arguments: list[str], smoothing: str, by: str
) -> None:
    layers = ["--style-layers", "relu1_1,relu4_1"]
    plain = run(trainer, [*arguments, *layers, "--style-by", by], steps=1)[0]
    changed = run(trainer, [*arguments, *layers, "--style-by", by, "--smoothing", smoothing], steps=1)[0]
    assert 0 < changed["style"] < plain["style"] and np.isfinite(changed["total"])
    assert changed["stroke"] == plain["stroke"]


def test_shares_of_style_and_normalised_content(
    trainer: ModuleType, arguments: list[str], tiny: Path
) -> None:
    """A style loss in shares does not know how loud the features are."""
    settings = trainer.PROGRAM.parse([*arguments, "--style-power", "0.5"])
    judged = trainer.judge(settings, 4, [tiny / "style.png"], 48)
    empty = {k: torch.zeros(1, parts[0].shape[1], 4, 4) for k, parts in judged.wanted.items()}
    style, minimised = judged.style(empty, torch.tensor([0]))
    assert style.item() == pytest.approx(3) and minimised.item() == pytest.approx(3, rel=1e-3)
    row = run(trainer, [*arguments, "--style-power", "0.5", "--content-normalised", "true"], steps=1)[0]
    assert 0 < row["content"] < 4 and np.isfinite(row["total"])


def test_published_layers_are_there(trainer: ModuleType, tiny: Path, tmp_path: Path) -> None:
    """The defaults, through VGG-19 with random weights."""
    given = ["--content", str(tiny), "--style", str(tiny / "style.png"), "--out", str(tmp_path)]
    judged = trainer.judge(trainer.PROGRAM.parse(given), 4, [tiny / "style.png"], 48)
    channels = {k: parts[0].shape[1] for k, parts in judged.wanted.items()}
    assert channels == {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512}


def test_flat_photographs_are_drawn_again(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them would make the gradient endless."""
    from helpers import picture

    (tmp_path / "flat").mkdir()
    write_png(tmp_path / "flat" / "flat.png", np.full((80, 90, 3), 120, np.uint8))
    flat = [*arguments, "--content", str(tmp_path / "flat")]
    assert trainer.PROGRAM.main(flat) == 2
    assert "one colour" in capsys.readouterr().err
    write_png(tmp_path / "flat" / "some.png", picture(80, 90, 0))
    assert len(run(trainer, [*flat, "--steps", "6"])) == 6


def test_bfloat16_and_command_line(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--steps", "20", "--precision", "bfloat16", "--stroke-weight", "0"]
    assert trainer.PROGRAM.main([*arguments, *rest]) == 0
    assert "total" in capsys.readouterr().out
    assert {"samples.png", "checkpoint.pt", "losses.csv", "fast.pth"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_urst_tiles_takes_the_file_as_style(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    from PIL import Image

    from urst_tiles.cli import main

    run(trainer, arguments)
    photograph = str(Path(arguments[1]) / "0.png")
    words = ["stylize", photograph, str(tmp_path / "out.tif"), "--model", "fast", "--style"]
    assert main([*words, str(tmp_path / "run" / "fast.pth")]) == 0
    with Image.open(tmp_path / "out.tif") as out:
        assert out.size == (90, 80)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--style", "/nowhere.jpg"], "/nowhere.jpg"),
        (["--init", "/nowhere.pth"], "/nowhere.pth"),
        (["--norm", "layer"], "layer"),
        (["--content-layer", "relu9_1"], "relu9_1"),
        (["--backbone", "vgg1"], "vgg1"),
        (["--steps", "many"], "many"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)
