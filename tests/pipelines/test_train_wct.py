"""The trainer of WCT's decoders: its first losses, its options, resume, and that the family paints alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from trainers import assert_refused, flags, photographs_and_paintings, run

from urst_tiles import nets, weights
from urst_tiles.errors import BadWeights
from urst_tiles.moments import Moments
from urst_tiles.nets import live, wct

WIDTH = 1 / 8
#: Losses of the first steps on the tiny set at level 3, float32, one thread.
FIRST: dict[str, list[float]] = {
    "total": [0.23069, 0.18832, 0.11722],
    "pixel": [0.083257, 0.0769, 0.069437],
    "feature": [0.022439, 0.012183, 0.0084441],
    "style": [0.024551, 0.044934, 0.010688],
    "stroke": [0.060774, 0.020053, 0.012183],
    "variation": [0.039665, 0.034248, 0.016466],
}


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_wct")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs and paintings, and the ten networks an eighth as wide."""
    folder = tmp_path_factory.mktemp("tiny")
    photographs_and_paintings(folder, 80, 90)
    for file, state in wct.seeded("wct", 0, WIDTH).items():
        torch.save(state, folder / file)
    return folder


def of_level(tiny: Path, level: int) -> list[str]:
    """The flags of one level's networks."""
    encoder, decoder = (str(tiny / file) for file in wct.FILES["wct"][level])
    return ["--level", str(level), "--encoder", encoder, "--init", decoder]


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact."""
    given = {
        "content": tiny / "content", "style": tiny / "style", "out": tmp_path / "run", "steps": 4, "batch": 2,
        "size": 32, "rate": 1e-3, "save-every": 2, "sample-every": 4, "stroke-weight": 1, "style-weight": 1,
        "variation-weight": 1, "threads": 1,
    }  # fmt: skip
    words = flags(given)
    return [*words, *of_level(tiny, 3)]


def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str]) -> None:
    rows = run(trainer, arguments, steps=3)
    for name, values in FIRST.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)
    for row in rows:
        assert row["total"] == pytest.approx(sum(row[k] for k in trainer.PARTS), rel=1e-5)


def test_pixel_and_feature_loss_are_those_of_the_formula(trainer: ModuleType, arguments: list[str]) -> None:
    """Written out with the family's own functions."""
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, "--stroke-weight", "0", "--style-weight", "0"]))
    x = recipe.photographs.draw(np.random.default_rng([0, 2]), (1.0,))
    _, parts = recipe.objective()
    own = {f"encoder3.{k}": t for k, t in trainer.named(recipe.encoder.weights).items()}
    own |= {f"decoder3.{k}": t for k, t in recipe.training.leaves.items()}
    with torch.inference_mode():
        f = wct.encode(x, own, 3)
        y = wct.decode(f, own, 3)
        feature = (wct.encode(y, own, 3) - f).square().mean()
    assert parts["pixel"].item() == pytest.approx((y - x).square().mean().item(), rel=1e-5)
    assert parts["feature"].item() == pytest.approx(feature.item(), rel=1e-5)
    assert set(parts) == {"pixel", "feature", "variation"}


def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    file = wct.FILES["wct"][3][1]
    one, two = (weights.load(tmp_path / name / file) for name in ("run", "other"))
    assert all(torch.equal(t, two[k]) for k, t in one.items())


@pytest.mark.parametrize("part", ["pixel", "feature", "style", "stroke"])
def test_training_lowers_each_loss(trainer: ModuleType, arguments: list[str], part: str) -> None:
    words = [word for name in trainer.PARTS for word in (f"--{name}-weight", str(int(name == part)))]
    found = [row[part] for row in run(trainer, [*arguments, *words, "--steps", "30"])]
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])


def test_a_random_decoder_starts_around_grey_and_learns(trainer: ModuleType, arguments: list[str]) -> None:
    """Every colour: none is below 0 everywhere, where the last ReLU lets no gradient through."""
    words = [*arguments, "--init", "", "--stroke-weight", "0", "--style-weight", "0"]
    recipe = trainer.begin(trainer.PROGRAM.parse(words))
    with torch.inference_mode():
        y = recipe.decode(recipe.encode(torch.rand(1, 3, 32, 32)))
    assert y.min() > 0.2 and y.max() < 0.8
    pixel = [row["pixel"] for row in run(trainer, [*words, "--steps", "40"])]
    assert np.mean(pixel[-5:]) < 0.9 * np.mean(pixel[:5])


@pytest.mark.parametrize(
    "words",
    [
        ["--smoothing", "channels"],
        ["--smoothing", "map"],
        ["--smoothing", "scale", "--content-layer", "relu4_1", "--backbone", "distilled"],
        ["--style-by", "gram"],
        ["--style-layers", "relu2_1"],
        ["--stroke-layers", "relu1_1,relu3_1"],
        ["--stroke-factor", "3"],
        ["--backbone", "distilled"],
        ["--precision", "bfloat16"],
        ["--init", ""],
    ],
)
def test_every_option_changes_the_losses_and_no_gradient_is_lost(
    trainer: ModuleType, arguments: list[str], words: list[str]
) -> None:
    plain, other = (run(trainer, [*arguments, *more], steps=1)[0] for more in ([], words))
    changed = {k for k in trainer.PARTS if other[k] != pytest.approx(plain[k], rel=1e-4)}
    assert changed & {"feature", "style", "stroke"}
    assert all(np.isfinite(list(other.values())))
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, *words, "--seed", "1"]))
    total, _ = recipe.objective()
    total.backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in recipe.training.leaves.values())


@pytest.mark.parametrize("level", wct.LEVELS)
def test_the_family_paints_what_the_trainer_paints(
    trainer: ModuleType, arguments: list[str], level: int, tiny: Path, tmp_path: Path
) -> None:
    """Each level in turn, from files taken as a user takes them; the other levels' are those it was given."""
    from helpers import picture

    run(trainer, [*arguments, *of_level(tiny, level), "--rate", "1e-4"])
    made = {name: tmp_path / "run" / name for name in wct.FILES["wct"][level]}
    files = {name: made.get(name, tiny / name) for pair in wct.FILES["wct"].values() for name in pair}
    weights.add("wct", files, tmp_path / "weights")
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, *of_level(tiny, level)]))
    start = recipe.training.leaves["conv11.weight"].clone()
    recipe.training.load(tmp_path / "run" / "checkpoint.pt")
    assert not torch.equal(start, recipe.training.leaves["conv11.weight"])
    content, art = (picture(*size).astype(np.float32) / 255 for size in ((64, 80, 5), (48, 64, 6)))
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (content, art))
    own = nets.build("wct", tmp_path / "weights", [(art, 1.0)])
    (site,) = (site for site in own.sites if site.name == f"relu{level}_1")
    with torch.inference_mode():
        f = recipe.encode(x)
        painted = recipe.decode(trainer.mapped(f, trainer.transfers(f, recipe.encode(y))))
        wanted = wct.decode(live(own)(site, wct.encode(x, own.weights, level)), own.weights, level)
    assert wanted.std() > 1e-2
    assert (painted - wanted).abs().max() < 1e-4 * float(wanted.abs().max())


def test_patch_and_thumbnail_share_the_thumbnails_statistics(
    trainer: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    seen: list[Any] = []
    mapped = trainer.mapped

    def watched(f: torch.Tensor, maps: Any) -> torch.Tensor:
        seen.append((f, maps))
        return mapped(f, maps)

    monkeypatch.setattr(trainer, "mapped", watched)
    recipe.objective()
    (thumbnail, maps), (patch, same) = seen
    assert same is maps
    for f, white in ((thumbnail, True), (patch, False)):
        flat = maps[0](f[:1].double())[0].flatten(1).numpy()
        style_like = Moments.of(flat, full=True).covariance(wct.DDOF)
        again = maps[0](thumbnail[:1].double())[0].flatten(1).numpy()
        wanted = Moments.of(again, full=True).covariance(wct.DDOF)
        assert np.allclose(style_like, wanted, rtol=1e-3, atol=1e-6) is white


def test_small_networks_have_their_own_first_level(trainer: ModuleType, arguments: list[str]) -> None:
    """Level 1 of the small ones is wider than the others' first layer: files are as wide as they like."""
    check = nets.MODELS["wct"].check
    for level, width in ((1, 24 / 64), (4, 1 / 4)):
        small = wct.shapes("wct-16x")
        for ours, theirs in zip(wct.FILES["wct"][level], wct.FILES["wct-16x"][level], strict=True):
            check({k: torch.empty(shape) for k, shape in small[theirs].items()}, ours, Path(ours))
            assert small[theirs] == wct.shapes("wct", width)[ours]


def test_levels_that_do_not_fit_are_refused_by_the_family(tiny: Path) -> None:
    states = {file: weights.load(tiny / file) for pair in wct.FILES["wct"].values() for file in pair}
    wide = wct.shapes("wct", 2 * WIDTH)[wct.FILES["wct"][2][1]]
    states[wct.FILES["wct"][2][1]] = {k: torch.zeros(shape) for k, shape in wide.items()}
    nets.MODELS["wct"].check(states[wct.FILES["wct"][2][1]], wct.FILES["wct"][2][1], tiny)
    with pytest.raises(BadWeights, match="gives 16 channels, feature_invertor_conv2_1.pth takes 32"):
        wct.build("wct", states, [(np.zeros((32, 32, 3), np.float32), 1.0)])


def test_command_line_without_paintings(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--style", "", "--stroke-weight", "0", "--style-weight", "0", "--warmup", "2", "--cooldown", "2"]
    assert trainer.PROGRAM.main([*arguments, *words]) == 0
    assert "pixel" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {*wct.FILES["wct"][3], "checkpoint.pt", "losses.csv", "samples.png", "settings.txt"}


def test_settings_file_has_known_settings(trainer: ModuleType, arguments: list[str], root: Path) -> None:
    toml = root / "pipelines" / "train_wct.toml"
    settings = trainer.PROGRAM.parse(["--settings", str(toml), *arguments])
    assert settings.size == 32 and settings.precision == "bfloat16"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "/nowhere.pth"], "/nowhere.pth"),
        (["--init", "/nowhere.pth"], "/nowhere.pth"),
        (["--level", "6"], "--level must be 1 to 5, got 6"),
        (["--level", "4"], "does not go to conv4_1"),
        (["--size", "40"], "--size must be a multiple of 16"),
        (["--style", ""], "give --style"),
        (["--style-layers", "relu4_1"], "'relu4_1'"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)


def test_a_decoder_of_another_level_is_refused(
    trainer: ModuleType, arguments: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tiny / wct.FILES["wct"][4][1])
    assert_refused(trainer, [*arguments, "--init", other], "has unknown conv32", capsys)
