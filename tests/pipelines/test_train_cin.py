"""The trainer of cin: its first losses, its options, resume, new styles, and that the family paints alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from trainers import assert_refused, flags, run

from urst_tiles import weights
from urst_tiles.nets import cin, live, style_rows
from urst_tiles.source.picture import write_png

#: Losses of the first steps on the tiny set, float32, one thread.
FIRST: dict[str, list[float]] = {
    "total": [0.35749, 0.43175, 1.9438],
    "style": [6.0462e-05, 0.00011797, 1.3376e-05],
    "content": [0.13673, 0.10198, 0.05697],
    "stroke": [0.017816, 0.10574, 1.8142],
    "variation": [0.0057517, 0.0040808, 0.002217],
}
NAMES = ["dawn", "dusk", "noon"]


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_cin")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs and paintings."""
    from helpers import picture

    folder = tmp_path_factory.mktemp("tiny")
    for kind, names in (("content", "012"), ("style", NAMES)):
        (folder / kind).mkdir()
        for k, name in enumerate(names):
            write_png(folder / kind / f"{name}.png", picture(70, 90 - 10 * k, 10 * k + len(kind)))
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact; the loss network is a random one."""
    given = {
        "content": tiny / "content", "style": tiny / "style", "out": tmp_path / "run", "steps": 4,
        "batch": 2, "size": 32, "style-size": 48, "width": 0.25, "backbone": "distilled",
        "style-layers": "relu1_1,relu2_1,relu3_1", "content-layer": "relu2_1", "stroke-layers": "relu3_1",
        "stroke-weight": 1, "variation-weight": 1, "style-weight": 1000, "content-weight": 2, "threads": 1,
        "save-every": 2, "sample-every": 4, "rate": 5e-3, "layout": "linder-noren",
    }  # fmt: skip
    return flags(given)


def written(folder: Path) -> dict[str, torch.Tensor]:
    """The network of a run, as the family checks it."""
    state = weights.load(folder / cin.FILE)
    cin.check(state, cin.FILE, folder / cin.FILE)
    return state


def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str]) -> None:
    rows = run(trainer, arguments, steps=3)
    for name, values in FIRST.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)
    weight = {"style": 1000, "content": 2, "stroke": 1, "variation": 1}
    for row in rows:
        assert row["total"] == pytest.approx(sum(weight[k] * row[k] for k in weight), rel=1e-5)


@pytest.mark.parametrize("inner", ["0", "5e-3"], ids=["adam", "muon"])
def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, inner: str
) -> None:
    arguments = [*arguments, "--rate-inner", inner, "--average", "0.9"]
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    one, two = (written(tmp_path / name) for name in ("run", "other"))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("inner", ["0", "5e-3"], ids=["adam", "muon"])
def test_training_lowers_the_loss(trainer: ModuleType, arguments: list[str], inner: str) -> None:
    many = [*arguments, "--steps", "25", "--content-weight", "0", "--stroke-weight", "0"]
    style = [row["style"] for row in run(trainer, [*many, "--rate-inner", inner])]
    assert np.mean(style[-5:]) < 0.6 * np.mean(style[:5])


@pytest.mark.parametrize("layout", ["pytorch", "linder-noren"])
def test_the_trained_network_is_the_families_own(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, layout: str
) -> None:
    """What the trainer paints equals what the style paints from the file it wrote."""
    more = ["--layout", layout, "--rate", "1e-2", "--rate-inner", "1e-2", "--styles", "noon,early=dawn"]
    settings = trainer.PROGRAM.parse([*arguments, *more])
    recipe = trainer.begin(settings)
    for _ in trainer.loop.run(recipe, settings):
        pass
    state = written(tmp_path / "run")
    assert cin.names_of(state) == ["noon", "early"] and state["conv1.gamma"].shape == (2, 8)
    x = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    pictures = []
    for k, name in enumerate(cin.names_of(state)):
        style = cin.build({cin.FILE: state}, [(style_rows.style_named(name), 1.0)])
        with torch.inference_mode():
            painted, _ = recipe.paint(torch.tensor([k]), x)
            wanted = style.forward(x, live(style))
        assert (painted - wanted).abs().max() < 1e-4 * wanted.std()
        pictures.append(painted)
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3


def test_a_patch_of_strokes_is_painted_with_the_thumbnails_statistics(
    trainer: ModuleType, arguments: list[str]
) -> None:
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([0, 2])
    whole, used = recipe.paint(index, x)
    again, given = recipe.paint(index, x, used)
    other, _ = recipe.paint(index, 0.5 * x[:, :, :16], used)
    assert torch.equal(whole, again) and given == used
    assert (other - recipe.paint(index, 0.5 * x[:, :, :16])[0]).abs().max() > 0.01
    assert all(std.requires_grad for _, std in used.values())


def test_new_styles_leave_the_others_as_they_are(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(trainer, [*arguments, "--styles", "noon,dawn", "--rate", "1e-2"])
    kept = ["--init", str(tmp_path / "run" / cin.FILE), "--out", str(tmp_path / "more")]
    assert trainer.PROGRAM.main([*arguments, *kept, "--only-new", "true", "--styles", "dawn"]) == 2
    assert "nothing new" in capsys.readouterr().err
    run(trainer, [*arguments, *kept, "--only-new", "true", "--rate", "1e-2"])
    before, after = written(tmp_path / "run"), written(tmp_path / "more")
    assert cin.names_of(after) == ["noon", "dawn", "dusk"]
    for k in trainer.network(trainer.PROGRAM.parse(arguments), NAMES)[1]:
        if k.endswith(("gamma", "beta")):
            assert torch.equal(after[k][:2], before[k])
            assert not torch.equal(after[k][2], before[k].mean(0))
        else:
            assert torch.equal(after[k], before[k])


def test_training_goes_on_with_all_styles(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(trainer, [*arguments, "--styles", "noon,dawn"])
    more = [*arguments, "--init", str(tmp_path / "run" / cin.FILE), "--out", str(tmp_path / "more")]
    assert trainer.PROGRAM.main([*more, "--styles", "noon,dusk"]) == 2
    assert "has the style 'dawn'" in capsys.readouterr().err
    assert trainer.PROGRAM.main([*more, "--layout", "pytorch"]) == 2
    assert "--layout" in capsys.readouterr().err
    run(trainer, [*more, "--steps", "1", "--rate", "0"])
    before, after = written(tmp_path / "run"), written(tmp_path / "more")
    assert cin.names_of(after) == ["noon", "dawn", "dusk"]
    assert torch.equal(after["res1.conv1.weight"], before["res1.conv1.weight"])
    assert torch.equal(after["conv2.beta"][:2], before["conv2.beta"])
    assert torch.allclose(after["conv2.beta"][2], before["conv2.beta"].mean(0))


@pytest.mark.parametrize("smoothing", ["channels", "map", "scale"])
def test_smoothing(trainer: ModuleType, arguments: list[str], smoothing: str) -> None:
    layers = ["--style-layers", "relu1_1,relu4_1", "--style-by", "moments", "--style-power", "0.5"]
    plain, changed = (
        run(trainer, [*arguments, *layers, "--smoothing", how], steps=1)[0] for how in ("none", smoothing)
    )
    assert changed["style"] != plain["style"] and np.isfinite(changed["total"])
    assert changed["stroke"] == plain["stroke"]


def test_bfloat16_and_command_line(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file it writes goes into a weights folder, and its styles are asked for by name."""
    from PIL import Image

    from urst_tiles.cli import main

    rest = ["--steps", "20", "--precision", "bfloat16", "--stroke-weight", "0"]
    assert trainer.PROGRAM.main([*arguments, *rest]) == 0
    assert "total" in capsys.readouterr().out
    assert {"samples.png", "checkpoint.pt", "losses.csv", cin.FILE} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    weights.add("cin", {cin.FILE: tmp_path / "run" / cin.FILE}, tmp_path / "weights")
    words = ["stylize", f"{arguments[1]}/0.png", str(tmp_path / "out.tif"), "--model", "cin"]
    assert main([*words, "--weights", str(tmp_path / "weights"), "--style", "noon"]) == 0
    with Image.open(tmp_path / "out.tif") as out:
        assert out.size == (90, 70)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--style", "/nowhere"], "/nowhere"),
        (["--styles", "noon,late=night"], "'night'"),
        (["--styles", "noon,noon=dawn"], "two styles are called 'noon'"),
        (["--init", "/nowhere.safetensors"], "/nowhere.safetensors"),
        (["--only-new", "true"], "--only-new needs --init"),
        (["--layout", "caffe"], "caffe"),
        (["--style-layers", "relu9_1"], "relu9_1"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)
