"""`learn`: the style of one painting as a file, the same again from the same seed, and after any stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from helpers import picture, sha
from safetensors import safe_open
from safetensors.torch import save_file

import urst_tiles as ut
from urst_tiles import cli
from urst_tiles.api import learn as module
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.learning import one_style, painting
from urst_tiles.learning.objective import Batch, LossWeights, compared
from urst_tiles.learning.paintings import gather, vgg16_teacher
from urst_tiles.losses import vgg
from urst_tiles.nets import low_rank, painter_styles, style_file
from urst_tiles.source.picture import read_picture, write_png

#: Steps that a machine takes in a second or two, since crops are small here.
FEW = {"steps": 5, "threads": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG-16 with random weights, in float16."""
    path = tmp_path_factory.mktemp("teacher") / "vgg16.safetensors"
    save_file({k: t.half() for k, t in vgg.random_state(0, depth=16).items()}, path)
    return path


@pytest.fixture
def study(tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a painting in it; crops of 32 pixels on one level."""
    for owner, name, value in (
        (one_style, "SIZE", 32), (one_style, "LEVELS", 1), (module, "PAINTING_SIZE", 128),
        (module, "CONTENT_SIZE", 128),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, value)
    write_png(tmp_path / "mine.png", picture(150, 170, 5)[:, :, ::-1] // 2 + 60)
    return tmp_path


@pytest.fixture
def learn(study: Path, teacher: Path) -> Any:
    """``learn(name, **changes)`` -> (path, what `urst_tiles.learn` returned)."""

    def call(name: str = "mine.style", **changes: Any) -> ut.LearnedStyle:
        given = {"teacher": teacher, **FEW, **changes}
        return ut.learn(study / "mine.png", study / name, **given)

    return call


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_style_file_says_what_it_is_and_holds_tensors_alone(learn: Any, study: Path, teacher: Path) -> None:
    made = learn()
    assert left(study) == ["mine.png", "mine.style"] and made.output.stat().st_size < 200_000
    with safe_open(made.output, "pt") as file:
        said = json.loads(file.metadata()["urst_tiles"])
        shapes = {k: tuple(file.get_tensor(k).shape) for k in file.keys()}  # noqa: SIM118
    assert shapes == painter_styles.row_shapes(painter_styles.Form(), low_rank.RANK)
    assert said["painting"] == "mine.png" and said["sha256"] == sha(study / "mine.png")
    assert (said["format"], said["version"], said["model"]) == ("urst-tiles style", 4, "painter")
    assert said["teacher"] == sha(teacher) and said["steps"] == made.steps == 5
    assert said["network"] == module._network(None).fingerprint


def test_steps_bring_the_style_nearer_to_the_painting(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(network: Any, image: np.ndarray) -> tuple[str, Any]:
        return "mean", painter_styles.style_in(network.state, 0)

    monkeypatch.setattr(module._Network, "style_for", first)
    made = learn(steps=30)
    assert made.last < 0.92 * made.first


def test_learning_begins_nearer_with_what_is_predicted_than_with_the_mean(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a painting that nothing was trained on, by the loss network that painters learn from."""
    monkeypatch.setattr(one_style, "LEVELS", 1)
    painting = shared / "data" / "train" / "style" / "p000__Pavel_Fedotov.jpg"
    given = {"teacher": shared / "weights" / "vgg16.safetensors", "steps": 1, "threads": 1}
    predicted = ut.learn(painting, tmp_path / "a.style", **given)
    monkeypatch.setattr(module, "is_any_known", lambda names: False)
    mean = ut.learn(painting, tmp_path / "b.style", **given)
    assert (predicted.start, mean.start) == ("prediction", "mean")
    assert predicted.first < 0.95 * mean.first  # measured: 0.92


def test_what_is_learned_has_few_components_while_it_is_learned(
    learn: Any, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So nothing is lost at the end, when the file is written."""
    seen: list[one_style.OneStyle] = []
    kept = one_style.to_bytes
    monkeypatch.setattr(
        one_style, "to_bytes", lambda learning, *more: (seen.append(learning), kept(learning, *more))[1]
    )
    learn(steps=2 * one_style.CUT)
    (learning,) = seen
    for name in ("enter", "a.0", "b.4", "mid"):
        change = learning.training.leaves[f"{name}.weight"].detach() - learning.network[f"{name}.weight"]
        sizes = torch.linalg.svdvals(change.flatten(1))
        assert sizes[low_rank.RANK - 1] > 10 * sizes[low_rank.RANK :].sum(), name


def loss_of(style: Any, study: Path, teacher: Path) -> float:
    """What is minimised, for the package's whole scene painted in ``style``."""
    judge = vgg16_teacher(teacher)
    paintings = gather({"": study / "mine.png"}, 128, judge, "cpu")
    scene = torch.from_numpy(read_picture(module.table.TRAINED / "scene.webp", 128)).permute(2, 0, 1)[None]
    none = torch.zeros(1, dtype=torch.int64)
    state = {k: t + style.get(k, torch.zeros(())).float() for k, t in module._network(None).still.items()}
    state |= {k: style[k].float()[None] for k in painter_styles.PER_STYLE}
    with torch.no_grad():
        batch = Batch(scene, none, 1, torch.zeros(1, 2, dtype=torch.int64))
        return compared(state, batch, judge, paintings, LossWeights())[0].item()


@pytest.mark.slow
def test_what_is_learned_holds_for_a_picture_that_was_not_seen_whole(
    learn: Any, study: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_style, "SIZE", 64)
    made = learn(steps=60)
    row, _ = style_file.read_style_file(made.output)
    start, before = module._network(None).style_for(read_picture(study / "mine.png", 128))
    assert start == made.start == "prediction"
    near, far = (loss_of(one, study, teacher) for one in (painter_styles.as_added(row), before))
    assert near < 0.9 * far


def test_colours_are_those_of_the_painting(learn: Any, study: Path) -> None:
    row, _ = style_file.read_style_file(learn(steps=1).output)
    image = torch.from_numpy(read_picture(study / "mine.png", 128))[:128, :128].permute(2, 0, 1)[None]
    mean, covariance = painting.moments(image)
    assert np.allclose(row["colour.mean"], mean[0], atol=1e-6)
    assert np.allclose(row["colour.covariance"], covariance[0], atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_another_others(learn: Any) -> None:
    one, same, other = (
        learn(name, seed=seed).output for name, seed in (("a.style", 3), ("b.style", 3), ("c.style", 4))
    )
    assert one.read_bytes() == same.read_bytes()
    rows = [style_file.read_style_file(path)[0]["gamma"] for path in (one, other)]
    assert not torch.equal(*rows)


def test_a_stopped_learning_goes_on_and_gives_the_same_bytes(
    learn: Any, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn("whole.style").output
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn("parts.style", progress=stop)
    assert left(study) == ["mine.png", "parts.style.learning", "whole.style"]
    with pytest.raises(BadInput, match="has 3 steps already, more than --steps 2"):
        learn("parts.style", steps=2)
    seen: list[int] = []
    made = learn("parts.style", progress=lambda stage, done, total: seen.append(done))
    assert seen == [3, 4, 5] and made.steps == 5
    assert left(study) == ["mine.png", "parts.style", "whole.style"]
    assert made.output.read_bytes() == whole.read_bytes()


def test_minutes_are_those_of_the_steps_of_all_calls(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 20 seconds by this clock."""
    now = iter(range(0, 10_000, 20))
    monkeypatch.setattr(one_style.time, "perf_counter", lambda: next(now))
    made = learn("timed.style", steps=None, minutes=1)
    assert made.steps == 3 and made.seconds == 60
    monkeypatch.undo()


def test_how_long_a_learning_goes_on_does_not_change_its_steps() -> None:
    """The rate knows no end: so the first steps of a long learning are those of a short one."""
    shares = [one_style.share_of_rate(step) for step in range(300)]
    assert shares[0] == pytest.approx(0.1) and max(shares) < 1
    assert shares[9:] == sorted(shares[9:], reverse=True) and shares[299] > 0.45


@pytest.mark.parametrize("change", ["painting", "seed", "content"])
def test_the_checkpoint_of_another_learning_is_refused(
    learn: Any, study: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(progress=stop)
    kept = (study / "mine.style.learning").read_bytes()
    changes: dict[str, Any] = {}
    if change == "painting":
        write_png(study / "mine.png", picture(150, 170, 9))
    elif change == "seed":
        changes["seed"] = 1
    else:
        (study / "photos").mkdir()
        write_png(study / "photos" / "a.png", picture(200, 150))
        changes["content"] = study / "photos"
    with pytest.raises(BadInput, match=r"mine\.style\.learning was left by the learning of another"):
        learn(**changes)
    assert (study / "mine.style.learning").read_bytes() == kept and not (study / "mine.style").exists()


def test_a_damaged_checkpoint_is_refused(learn: Any, study: Path) -> None:
    (study / "mine.style.learning").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BadWeights, match=r"mine\.style\.learning is damaged .*another -o$"):
        learn()


def test_what_cannot_be_learned_is_refused_in_a_sentence(learn: Any, study: Path, teacher: Path) -> None:
    write_png(study / "flat.png", np.full((100, 100, 3), 90, np.uint8))
    (study / "there.style").write_bytes(b"mine")
    (study / "empty").mkdir()
    refused: list[tuple[Any, type[Exception], str]] = [
        (lambda: learn("mine.safetensors"), BadInput, r"name it mine\.style"),
        (lambda: learn("there.style"), BadInput, r"there\.style exists; give --overwrite"),
        (lambda: learn(minutes=0, steps=None), BadInput, "--minutes must be more than 0, got 0"),
        (lambda: learn(steps=0), BadInput, "--steps must be at least 1, got 0"),
        (lambda: learn(content=study / "empty"), BadInput, "empty holds no image"),
        (lambda: learn(content=study / "nowhere"), MissingFile, "no folder .*nowhere"),
        (lambda: learn(teacher=study / "vgg.pth"), MissingFile, r"vgg\.pth"),
        (lambda: learn(teacher=study / "mine.png"), BadWeights, r"mine\.png"),
        (lambda: ut.learn(study / "flat.png", study / "f.style", teacher=teacher), BadInput, "one colour"),
        (lambda: ut.learn(study / "no.png", study / "f.style", teacher=teacher), MissingFile, r"no\.png"),
    ]
    for call, kind, said in refused:
        with pytest.raises(kind, match=said):
            call()
    assert left(study) == ["empty", "flat.png", "mine.png", "there.style"]
    assert (study / "there.style").read_bytes() == b"mine"


def test_without_a_teacher_it_is_said_where_one_comes_from(
    study: Path,
) -> None:
    with pytest.raises(MissingFile, match="run `urst-tiles weights fetch vgg16`"):
        ut.learn(study / "mine.png", study / "mine.style", weights=study)


def test_the_command_writes_a_file_that_paints(
    study: Path, teacher: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    words = ["learn", "mine.png", "-o", "mine.style", "--steps", "2", "--teacher", str(teacher)]
    assert cli.main(words) == 0
    assert "mine.style: 2 steps from " in capsys.readouterr().out
    write_png(study / "scene.png", picture(120, 140, 2))
    words = [
        "stylize",
        "scene.png",
        "out.tif",
        "--model",
        "painter",
        "--style",
        "mine.style",
        "--threads",
        "1",
    ]
    assert cli.main(words) == 0
    painted = tifffile.imread("out.tif")
    assert painted.shape == (120, 140, 3) and np.abs(painted.astype(int) - picture(120, 140, 2)).mean() > 5
    assert cli.main(["learn", "mine.png", "-o", "mine.style"]) == 2
    assert "--overwrite" in capsys.readouterr().err
