"""The trainer of LinearWCT: its first losses, resume, its three parts, and what it says to bad settings."""

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
from urst_tiles.losses import backbones, vgg
from urst_tiles.nets import linear, live

#: Losses of the first steps on the tiny set, float32, one thread, by part.
FIRST: dict[str, dict[str, list[float]]] = {
    "decoder": {
        "total": [0.12954, 0.36607, 0.13082],
        "pixel": [0.07949, 0.25283, 0.092269],
        "feature": [0.050054, 0.11324, 0.038555],
    },
    "matrix": {
        "total": [6.078, 2.6499, 1.7646],
        "style": [271.37, 123.99, 80.22],
        "content": [0.43199, 0.15167, 0.1543],
        "stroke": [0.21858, 0.018432, 0.0059505],
    },
    "strokes": {
        "total": [6.078, 2.7689, 1.6449],
        "style": [271.37, 126.97, 73.901],
        "content": [0.43199, 0.17106, 0.12661],
        "stroke": [0.21858, 0.058347, 0.040307],
    },
}
FILES = linear.files("r31")
NARROW = 1 / 8


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_linear")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs, paintings, a narrow network of the family, and the first layers of VGG-19."""
    folder = tmp_path_factory.mktemp("tiny")
    photographs_and_paintings(folder, 150, 170)
    (folder / "init").mkdir()
    for name, state in linear.seeded("r31", 0, NARROW).items():
        torch.save(state, folder / "init" / name)
    random = np.random.default_rng(0)
    parts = []
    for _, i, o in backbones.convolutions("3_1"):
        parts += [random.normal(0, (2 / (9 * i)) ** 0.5, o * i * 9), np.zeros(o)]
    np.concatenate(parts).astype("<f4").tofile(folder / "vgg.raw")
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line of the part "matrix", small and exact."""
    torch.set_num_threads(1)
    given = {
        "content": tiny / "content", "style": tiny / "style", "init": tiny / "init", "out": tmp_path / "run",
        "part": "matrix", "steps": 3, "batch": 2, "size": 32, "backbone": "distilled", "save-every": 2,
        "sample-every": 3, "threads": 1, "rate": 1e-3,
    }  # fmt: skip
    return flags(given)


@pytest.mark.parametrize("part", FIRST)
def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str], part: str) -> None:
    rows = run(trainer, arguments, "--part", part)
    for name, values in FIRST[part].items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize("part", FIRST)
def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, part: str
) -> None:
    small = [*arguments, "--part", part, "--steps", "4", "--batch", "1"]
    whole = run(trainer, small)
    other = [*small, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    for name in FILES.values():
        one, two = (weights.load(tmp_path / folder / name) for folder in ("run", "other"))
        assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(("part", "loss"), [("decoder", "total"), ("matrix", "style"), ("strokes", "style")])
def test_training_lowers_the_loss(trainer: ModuleType, arguments: list[str], part: str, loss: str) -> None:
    more = ["--steps", "24", "--content-weight", "0", "--stroke-weight", "0", "--style-by", "moments"]
    values = [row[loss] for row in run(trainer, arguments, "--part", part, *more, "--decay", "0")]
    assert np.mean(values[-6:]) < 0.9 * np.mean(values[:6])


@pytest.mark.parametrize(
    ("part", "learns"), [("decoder", "decoder"), ("matrix", "matrix"), ("strokes", "decoder")]
)
def test_one_part_learns_and_the_others_stay(
    trainer: ModuleType, arguments: list[str], tiny: Path, tmp_path: Path, part: str, learns: str
) -> None:
    run(trainer, arguments, "--part", part, "--steps", "1")
    for name, file in FILES.items():
        before, after = (weights.load(folder / file) for folder in (tiny / "init", tmp_path / "run"))
        same = [torch.equal(before[k], after[k]) for k in before]
        assert not any(same) if name == learns else all(same)


def test_the_parts_follow_each_other_from_an_encoder_alone(
    trainer: ModuleType, arguments: list[str], tiny: Path, tmp_path: Path
) -> None:
    begin = ["--encoder", str(tiny / "init" / FILES["encoder"]), "--init", "", "--out", str(tmp_path / "A")]
    run(trainer, arguments, "--part", "decoder", "--steps", "1", *begin)
    assert {p.name for p in (tmp_path / "A").glob("*31.pth")} == {FILES["encoder"], FILES["decoder"]}
    after = ["--init", str(tmp_path / "A"), "--out", str(tmp_path / "B")]
    run(trainer, arguments, "--part", "matrix", "--steps", "1", *after)
    assert {p.name for p in (tmp_path / "B").glob("*31.pth")} == set(FILES.values())
    last = ["--init", str(tmp_path / "B"), "--out", str(tmp_path / "C")]
    assert run(trainer, arguments, "--part", "strokes", "--steps", "1", *last)


def test_a_fresh_decoder_paints_grey(trainer: ModuleType, arguments: list[str], tiny: Path) -> None:
    begin = ["--encoder", str(tiny / "init" / FILES["encoder"]), "--init", "", "--part", "decoder"]
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, *begin]))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = linear.decode(linear.encode(x, recipe.network.state, "r31"), recipe.network.state, "r31")
    assert y.mean().item() == pytest.approx(0.5, abs=0.15) and 0 < y.std() < 0.2


def test_a_fresh_matrix_paints_flat_pictures(trainer: ModuleType, tiny: Path) -> None:
    """Nearly: else nothing would be learnt."""
    states = {part: weights.load(tiny / "init" / file) for part, file in FILES.items()}
    states["matrix"] = trainer.fresh("matrix", linear.shapes("r31", NARROW)[FILES["matrix"]], 0)
    state = {f"{part}.{k}": t for part, tensors in states.items() for k, t in tensors.items()}
    x, y = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    painted, _ = trainer.paint(x, state, "r31", trainer.describe(y, state, "r31"))
    assert 0 < painted.std((2, 3)).max() < 0.05


def test_the_trained_network_is_the_familys_own(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    """What the trainer paints equals what the style paints from the files it wrote."""
    run(trainer, arguments)
    states = {file: weights.load(tmp_path / "run" / file) for file in FILES.values()}
    for file, state in states.items():
        linear.check("r31", state, file, tmp_path)
    state = {f"{part}.{k}": t for part, file in FILES.items() for k, t in states[file].items()}
    x, y = torch.rand(2, 1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    painted, _ = trainer.paint(x, state, "r31", trainer.describe(y, state, "r31"))
    own = linear.build("r31", states, [(y[0].permute(1, 2, 0).numpy(), 1.0)])
    with torch.inference_mode():
        wanted = own.forward(x, live(own))
    assert (painted - wanted).abs().max() < 1e-4 * wanted.std()


def test_a_batch_is_its_pictures_one_by_one(trainer: ModuleType, tiny: Path) -> None:
    state = {
        f"{part}.{k}": t
        for part, file in FILES.items()
        for k, t in weights.load(tiny / "init" / file).items()
    }
    x, y = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    both, _ = trainer.paint(x, state, "r31", trainer.describe(y, state, "r31"))
    for i in range(2):
        one, _ = trainer.paint(x[i : i + 1], state, "r31", trainer.describe(y[i : i + 1], state, "r31"))
        torch.testing.assert_close(one, both[i : i + 1], rtol=1e-4, atol=1e-4)


def test_the_patch_is_painted_with_the_thumbnails_statistics(trainer: ModuleType, tiny: Path) -> None:
    state = {
        f"{part}.{k}": t
        for part, file in FILES.items()
        for k, t in weights.load(tiny / "init" / file).items()
    }
    x, y, z = torch.rand(3, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    style = trainer.describe(y, state, "r31")
    plain, used = trainer.paint(x, state, "r31", style)
    again, _ = trainer.paint(x, state, "r31", style, used)
    other, _ = trainer.paint(x, state, "r31", style, trainer.paint(z, state, "r31", style)[1])
    assert torch.equal(plain, again) and not torch.allclose(plain, other, atol=1e-4)


def test_the_style_loss_sums_what_others_average(trainer: ModuleType, arguments: list[str]) -> None:
    """Written out for one layer: |mean - mean|^2 + |Gram - Gram|^2, Gram = F F^T / (C h w)."""
    settings = trainer.PROGRAM.parse([*arguments, "--style-layers", "relu2_1"])
    look = trainer.look(settings)
    x, y = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    f, g = (look.features(t) for t in (x, y))
    a, b = (t["relu2_1"][0].flatten(1).double() for t in (f, g))
    grams = [t @ t.T / t.numel() for t in (a, b)]
    wanted = (a.mean(1) - b.mean(1)).square().sum() + (grams[0] - grams[1]).square().sum()
    assert trainer.style_sums(look, f, g).item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        ("--smoothing", "channels"), ("--smoothing", "map"), ("--smoothing", "scale"),
        ("--style-by", "moments", "--variation-weight", "1"), ("--stroke-factor", "3"),
        ("--stroke-layers", "relu2_1,relu3_1", "--content-layer", "relu3_1"), ("--precision", "bfloat16"),
    ],
)  # fmt: skip
def test_every_option_trains(trainer: ModuleType, arguments: list[str], more: tuple[str, ...]) -> None:
    (row,) = run(trainer, arguments, "--steps", "1", "--batch", "1", *more)
    assert all(np.isfinite(value) and value >= 0 for value in row.values())
    (plain,) = run(trainer, arguments, "--steps", "1", "--batch", "1", "--out", arguments[7] + "-plain")
    assert row["total"] != plain["total"]


def test_without_strokes_none_are_compared(trainer: ModuleType, arguments: list[str]) -> None:
    (row,) = run(trainer, arguments, "--steps", "1", "--stroke-weight", "0")
    assert "stroke" not in row


def test_vgg19_becomes_the_familys_encoder(trainer: ModuleType, arguments: list[str], tiny: Path) -> None:
    """Rescaled to a mean activation of 1, each channel a multiple of the original's, as deep as r31 goes."""
    path = tiny / "vgg.raw"
    settings = trainer.PROGRAM.parse(
        [*arguments, "--encoder", str(path), "--size", "64", "--activation-pictures", "32"]
    )
    settings.out.mkdir()
    photographs, _ = trainer.crops_of(settings)
    state = trainer.read_encoder(settings, photographs)
    linear.check("r31", state, FILES["encoder"], path)
    x = photographs.draw(np.random.default_rng(5))
    found = linear.encode(x, {f"encoder.{k}": t for k, t in state.items()}, "r31")
    net = vgg.vgg19_raw(path)
    net.padding, net.activation = "reflect", {}
    wanted = net(x, ["relu3_1"])["relu3_1"]
    ratio = (wanted.sum((0, 2, 3)) / found.sum((0, 2, 3)).clamp_min(1e-9))[:, None, None]
    torch.testing.assert_close(found * ratio, wanted, rtol=1e-3, atol=1e-3 * wanted.max().item())
    assert found.mean().item() == pytest.approx(1, abs=0.25)
    assert trainer.read_encoder(settings, photographs).keys() == state.keys()
    assert len(list(settings.out.glob("encoder-*"))) == 1, "kept, not measured again"


def test_adains_encoder_is_taken_as_it_is(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    net = vgg.vgg19_normalised((), 0)
    torch.save(backbones.to_sequential(net), tmp_path / "vgg_normalised.pth")
    settings = trainer.PROGRAM.parse([*arguments, "--encoder", str(tmp_path / "vgg_normalised.pth")])
    photographs, _ = trainer.crops_of(settings)
    state = {f"encoder.{k}": t for k, t in trainer.read_encoder(settings, photographs).items()}
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = net(x, ["relu3_1"])["relu3_1"]
    torch.testing.assert_close(
        linear.encode(x, state, "r31"), wanted, rtol=1e-3, atol=1e-4 * wanted.max().item()
    )


def test_command_line_writes_losses_samples_and_weights(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trainer.PROGRAM.main([*arguments, "--part", "decoder", "--steps", "2"]) == 0
    with open(tmp_path / "run" / "losses.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["pixel"]) > 0 and float(row["feature"]) > 0 and row["style"] == ""
    assert "total" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"samples.png", "checkpoint.pt", "settings.txt", *FILES.values()} <= names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--part", "everything"], "decoder, matrix, strokes"),
        (["--layer", "r51"], "r31, r41"),
        (["--size", "30"], "multiple of 4"),
        (["--init", "/nowhere"], "/nowhere"),
        (["--init", ""], "--encoder"),
        (["--init", "", "--encoder", "/nowhere.raw"], "/nowhere.raw"),
        (["--init", "", "--encoder", "vgg_r31.pth"], "--part decoder first"),
        (["--init", "", "--encoder", "vgg.raw", "--layer", "r41"], "conv4_1"),
        (["--init", "", "--encoder", "r31.pth"], "r31.pth"),
        (["--backbone", "vgg20"], "vgg20"),
        (["--style-layers", "relu9_1"], "relu9_1"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType,
    arguments: list[str],
    tiny: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"vgg_r31.pth": tiny / "init" / "vgg_r31.pth", "vgg.raw": tiny / "vgg.raw"}
    places |= {"r31.pth": tiny / "init" / "r31.pth"}
    assert_refused(trainer, [*arguments, *(str(places.get(word, word)) for word in words)], said, capsys)


def test_files_of_other_widths_are_refused(
    trainer: ModuleType, arguments: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = linear.seeded("r31", 0, 1 / 4)
    (tmp_path / "mixed").mkdir()
    for part, file in FILES.items():
        state = other[file] if part == "matrix" else weights.load(tiny / "init" / file)
        torch.save(state, tmp_path / "mixed" / file)
    assert trainer.PROGRAM.main([*arguments, "--init", str(tmp_path / "mixed")]) == 2
    assert "64 channels in r31.pth" in capsys.readouterr().err
