"""The trainer of AdaIN's decoder: its first losses, its options, resume, and that the family paints alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from trainers import assert_refused, flags, photographs_and_paintings, run

from urst_tiles import nets, weights
from urst_tiles.errors import BadWeights
from urst_tiles.losses import backbones, vgg
from urst_tiles.nets import adain, live, wct

WIDTH = 1 / 16
#: Losses of the first steps on the tiny set, float32, one thread.
FIRST: dict[str, list[float]] = {
    "total": [45.549, 21.858, 4.521],
    "content": [2.2273, 0.49196, 0.16365],
    "style": [3.9573, 2.1265, 0.38457],
    "stroke": [3.4873, 0.062865, 0.35836],
    "variation": [0.26144, 0.037987, 0.15327],
}


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_adain")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs and paintings, and an encoder a sixteenth as wide."""
    folder = tmp_path_factory.mktemp("tiny")
    photographs_and_paintings(folder, 80, 90)
    for file, state in adain.seeded(0, WIDTH).items():
        torch.save(state, folder / file)
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact."""
    given = {
        "content": tiny / "content", "style": tiny / "style", "encoder": tiny / adain.ENCODER,
        "init": tiny / adain.DECODER, "out": tmp_path / "run", "steps": 4, "batch": 2,
        "size": 32, "rate": 1e-3, "save-every": 2, "sample-every": 4, "stroke-weight": 1,
        "variation-weight": 1, "threads": 1,
    }  # fmt: skip
    return flags(given)


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that keep the signal alive."""
    random, state = np.random.default_rng(seed), {}
    for k, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
        state[k] = torch.from_numpy(random.normal(0, scale, shape).astype(np.float32))
    return state


def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str]) -> None:
    rows = run(trainer, arguments, steps=3)
    for name, values in FIRST.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-3)
    weight = {"content": 1, "style": 10, "stroke": 1, "variation": 1}
    for row in rows:
        assert row["total"] == pytest.approx(sum(weight[k] * row[k] for k in weight), rel=1e-5)


def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    whole = run(trainer, arguments)
    other = [*arguments, "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=3)  # stopped in the third step: the checkpoint is that of the second
    second = run(trainer, other)
    assert [row["step"] for row in second] == [3, 4]
    assert first[:2] + second == whole
    one, two = (weights.load(tmp_path / name / adain.DECODER) for name in ("run", "other"))
    assert all(torch.equal(one[k], two[k]) for k in adain.shapes()[adain.DECODER])


def test_training_lowers_the_loss(trainer: ModuleType, arguments: list[str]) -> None:
    total = [row["total"] for row in run(trainer, [*arguments, "--steps", "30", "--stroke-weight", "0"])]
    assert np.mean(total[-5:]) < 0.9 * np.mean(total[:5])


def test_a_random_decoder_is_torchs_start(trainer: ModuleType, arguments: list[str]) -> None:
    """Uniform within 1 / sqrt(9 inputs), another one for another seed; it learns."""
    wide = [
        trainer.first_decoder(trainer.PROGRAM.parse([*arguments, "--init", "", "--seed", k]), 1) for k in "01"
    ]
    bound = (9 * 256) ** -0.5
    assert 0.99 * bound < wide[0]["5.weight"].abs().max() <= bound and wide[0]["5.bias"].abs().max() <= bound
    assert not torch.equal(wide[0]["5.weight"], wide[1]["5.weight"])
    total = [
        row["total"] for row in run(trainer, [*arguments, "--init", "", "--steps", "30", "--rate", "1e-2"])
    ]
    assert np.mean(total[-5:]) < 0.9 * np.mean(total[:5])


def test_strokes_are_learnt_from_the_thumbnail_alone(trainer: ModuleType, arguments: list[str]) -> None:
    alone = [*arguments, "--content-weight", "0", "--style-weight", "0", "--variation-weight", "0"]
    stroke = [row["stroke"] for row in run(trainer, [*alone, "--steps", "30"])]
    assert np.mean(stroke[-5:]) < 0.9 * np.mean(stroke[:5])


@pytest.mark.parametrize(
    "words",
    [
        ["--smoothing", "channels"],
        ["--smoothing", "map"],
        ["--smoothing", "scale"],
        ["--style-by", "gram"],
        ["--style-layers", "relu2_1,relu3_1"],
        ["--content-layer", "relu3_1"],
        ["--stroke-layers", "relu1_1,relu4_1"],
        ["--stroke-factor", "3"],
        ["--backbone", "distilled"],
        ["--precision", "bfloat16"],
    ],
)
def test_every_option_changes_the_losses_and_no_gradient_is_lost(
    trainer: ModuleType, arguments: list[str], words: list[str]
) -> None:
    plain, other = (run(trainer, [*arguments, *more], steps=1)[0] for more in ([], words))
    changed = {k for k in trainer.PARTS if other[k] != pytest.approx(plain[k], rel=1e-4)}
    assert changed & {"content", "style", "stroke"}
    assert all(np.isfinite(list(other.values())))
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, *words]))
    total, _ = recipe.objective()
    total.backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in recipe.training.leaves.values())


def test_the_content_of_a_style_of_itself_is_the_photograph(
    trainer: ModuleType, arguments: list[str]
) -> None:
    """t = f(c) where style and content are one picture, so that t's target is the other target too."""
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    x, _ = recipe.contents()
    f = recipe.encode(x)
    t = trainer.meet(f, trainer.spread(f), trainer.spread(f))
    assert torch.allclose(t, f, atol=1e-5 * float(f.abs().max()))
    assert torch.equal(recipe.look.content(x)["relu4_1"], f)


@pytest.mark.parametrize("average", ["0", "0.5"])
def test_the_family_paints_what_the_trainer_paints(
    trainer: ModuleType, arguments: list[str], average: str, tmp_path: Path
) -> None:
    """From the two files, taken as a user takes them."""
    from helpers import picture

    run(trainer, [*arguments, "--average", average])
    files = {name: tmp_path / "run" / name for name in (adain.ENCODER, adain.DECODER)}
    weights.add("adain", files, tmp_path / "weights")
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    recipe.training.load(tmp_path / "run" / "checkpoint.pt")
    content, art = (picture(*size).astype(np.float32) / 255 for size in ((64, 80, 5), (48, 40, 6)))
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (content, art))
    decoder = recipe.training.leaves if average == "0" else weights.load(files[adain.DECODER])
    own = nets.build("adain", tmp_path / "weights", [(art, 1.0)])
    with torch.inference_mode():
        f = recipe.encode(x)
        t = trainer.meet(f, trainer.spread(recipe.encode(y)), trainer.spread(f))
        painted, wanted = trainer.paint(t, decoder, torch.float32), own.forward(x, live(own))
    assert wanted.std() > 1e-3
    assert (painted - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


def test_patch_and_thumbnail_share_the_thumbnails_statistics(
    trainer: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = trainer.begin(trainer.PROGRAM.parse(arguments))
    seen: list[torch.Tensor] = []
    meet = trainer.meet

    def watched(f: torch.Tensor, style: Any, content: Any) -> torch.Tensor:
        seen.append(content[0])
        seen.append(trainer.spread(f)[0])
        return meet(f, style, content)

    monkeypatch.setattr(trainer, "meet", watched)
    recipe.objective()
    used, own, used_by_patch, own_of_patch = seen
    assert torch.equal(used, own) and used_by_patch is used
    assert not torch.allclose(used_by_patch, own_of_patch, rtol=1e-2)


# Encoders


def test_an_encoder_of_torchvision_is_rescaled_to_unit_activations(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training import encoders

    state = {}
    for (name, i, o), at in zip(backbones.convolutions("4_1"), vgg.TORCHVISION, strict=False):
        layer = random_state({"weight": (o, i, 3, 3), "bias": (o,)}, int(name.replace("_", "")))
        state |= {f"features.{at}.{part}": 7 * t for part, t in layer.items()}
    torch.save(state, tmp_path / "vgg19.pth")
    settings = trainer.PROGRAM.parse(
        [*arguments, "--encoder", str(tmp_path / "vgg19.pth"), "--activation-pictures", "3"]
    )
    settings.out.mkdir()
    pictures = trainer.Pictures(trainer.files_of(settings.content), 64)
    net = encoders.normalised(settings, pictures)
    assert "rescaled" in capsys.readouterr().out
    random = np.random.default_rng([settings.seed, 3])
    seen = [pictures.some(1, settings.size, random) for _ in range(3)]
    for mean in backbones.mean_activations(net, seen, "4_1").values():
        alive = mean[mean > 0]
        assert len(alive) > len(mean) / 2 and torch.allclose(alive, torch.ones_like(alive), atol=1e-3)
    loud, is_loud = encoders.read_encoder(tmp_path / "vgg19.pth")
    assert is_loud and loud.padding == "reflect"
    x = seen[0]
    quiet, before = (n(x, ("relu4_1",))["relu4_1"].flatten(2)[0] for n in (net, loud))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(quiet, before, strict=True) if a.std() > 0]
    assert min(alike) > 0.999
    again = encoders.normalised(settings, pictures)
    assert not capsys.readouterr().out, "the encoder of the first call is kept"
    assert all(torch.equal(t, again.weights[k]) for k, t in net.weights.items())
    assert len(list(settings.out.glob("encoder-*"))) == 1
    check = nets.MODELS["adain"].check
    check(backbones.to_sequential(net), adain.ENCODER, settings.encoder)


def test_a_raw_encoder_loses_its_divisors_before_it_is_measured(trainer: ModuleType, tmp_path: Path) -> None:
    """`vgg19_raw` divides layers by fixed activations, which would go into the means."""
    from training import encoders

    parts = []
    for _, i, o in backbones.convolutions("2_1"):
        parts += [np.full(o * i * 9, 0.01), np.zeros(o)]
    np.concatenate(parts).astype("<f4").tofile(tmp_path / "vgg.raw")
    net, is_loud = encoders.read_encoder(tmp_path / "vgg.raw")
    assert is_loud and net.padding == "reflect" and not net.activation


def test_the_original_is_an_encoder(trainer: ModuleType, tmp_path: Path) -> None:
    """Under the names "conv1_1" ..., to be rescaled as torchvision's is."""
    from training import encoders

    state = {k: t for k, t in vgg.random_state(0).items() if k < "conv4_2"}
    save_file(state, tmp_path / "vgg19_conv4_1.safetensors")
    net, is_loud = encoders.read_encoder(tmp_path / "vgg19_conv4_1.safetensors")
    assert is_loud and net.padding == "reflect" and net.mean == pytest.approx((0.485, 0.458, 0.408), abs=1e-3)
    assert set(net.weights) == set(state)


def test_networks_of_wct_are_read(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    """4SE.pth with heads to be left out, and 4SD.pth, under "model"."""
    shapes = wct.shapes("wct-16x", 0.5)
    small = {file: random_state(shapes[file], k) for k, file in enumerate(("4SE.pth", "4SD.pth"))}
    heads = {"conv41_aux.weight": torch.zeros(512, 64, 1, 1), "conv41_aux.bias": torch.zeros(512)}
    torch.save({"model": {**small["4SE.pth"], **heads}}, tmp_path / "4SE.pth")
    torch.save({"model": small["4SD.pth"]}, tmp_path / "4SD.pth")
    files = ["--encoder", str(tmp_path / "4SE.pth"), "--init", str(tmp_path / "4SD.pth")]
    recipe = trainer.begin(trainer.PROGRAM.parse([*arguments, *files]))
    x = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    own = {f"encoder4.{k}": t for k, t in small["4SE.pth"].items()}
    own |= {f"decoder4.{k}": t for k, t in small["4SD.pth"].items()}
    with torch.inference_mode():
        f = recipe.encode(x)
        assert torch.allclose(f, wct.encode(x, own, 4), atol=1e-5)
        painted = trainer.paint(f, recipe.training.leaves, torch.float32)
        wanted = wct.decode(f, own, 4)
    assert wanted.std() > 1e-3
    assert torch.allclose(painted.relu(), wanted, atol=1e-5 * float(wanted.max()))


def test_a_decoder_of_another_width_is_refused_by_the_family(tmp_path: Path) -> None:
    states = {adain.ENCODER: adain.seeded(0, WIDTH)[adain.ENCODER]}
    states[adain.DECODER] = adain.seeded(0, 2 * WIDTH)[adain.DECODER]
    for file, state in states.items():
        nets.MODELS["adain"].check(state, file, tmp_path / file)
    with pytest.raises(BadWeights, match="gives 32 channels"):
        adain.build(states, [(np.zeros((16, 16, 3), np.float32), 1.0)])
    bent = {**states[adain.DECODER], "5.bias": torch.zeros(5)}
    with pytest.raises(BadWeights, match=r"5\.bias has shape"):
        nets.MODELS["adain"].check(bent, adain.DECODER, tmp_path / adain.DECODER)


# The command line


def test_command_line_writes_losses_samples_and_both_files(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trainer.PROGRAM.main([*arguments, "--stroke-weight", "0", "--cooldown", "2"]) == 0
    header, row = (tmp_path / "run" / "losses.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["stroke"] == ""
    assert "style" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        adain.ENCODER,
        adain.DECODER,
        "checkpoint.pt",
        "losses.csv",
        "samples.png",
        "settings.txt",
    }


def test_settings_file_has_known_settings(trainer: ModuleType, arguments: list[str], root: Path) -> None:
    toml = root / "pipelines" / "train_adain.toml"
    settings = trainer.PROGRAM.parse(["--settings", str(toml), *arguments])
    assert settings.size == 32 and settings.precision == "bfloat16"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "/nowhere.pth"], "/nowhere.pth"),
        (["--init", "/nowhere.pth"], "/nowhere.pth"),
        (["--style", "/nowhere"], "/nowhere"),
        (["--size", "36"], "--size must be a multiple of 8"),
        (["--style-layers", "relu5_1"], "'relu5_1'"),
        (["--smoothing", "hard"], "hard"),
        (["--backbone", "vgg99"], "vgg99"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {k: t for k, t in state.items() if k != "29.bias"}, "it misses conv4_1.bias"),
        (lambda state: state | {"head.weight": torch.zeros(1)}, "it has head.weight"),
        (lambda state: state | {"9.bias": torch.zeros(5)}, "9.bias has shape"),
    ],
)
def test_bad_encoders_are_one_sentence(
    trainer: ModuleType,
    arguments: list[str],
    change: Callable[[Any], Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(change(adain.seeded(0, WIDTH)[adain.ENCODER]), tmp_path / "bad.pth")
    assert_refused(trainer, [*arguments, "--encoder", str(tmp_path / "bad.pth")], said, capsys)
