"""The trainer of the painter: its losses, resume, time limit, noise, files, and bad settings."""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import noise_bits, picture
from safetensors.torch import load_file, save_file
from trainers import assert_refused, flags, run

from urst_tiles import weights
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.geometry import Box
from urst_tiles.learning import painting, paintings
from urst_tiles.losses import backbones, vgg
from urst_tiles.moments import Moments
from urst_tiles.nets import live, style_rows
from urst_tiles.nets import painter as network
from urst_tiles.source import levels
from urst_tiles.source.picture import write_png

NAMES = ("waves", "lilies", "night")
#: Losses of the first step on the tiny set, float32, one thread, by --levels; that of 2 has both.
FIRST: dict[int, dict[str, float]] = {
    1: {"total": 2.4755, "style": 0.83074, "content": 0.14882, "consistency": 0.0, "colour": 0.67892,
        "half": 0.92677, "range": 0.00013804, "lattice": 0.060193, "axes": 0.21283},
    2: {"total": 3.8265, "style": 1.3775, "content": 0.13395, "consistency": 0.018409, "colour": 1.8249,
        "half": 1.0698, "range": 0.00028031, "lattice": 0.066228, "axes": 0.23741},
}  # fmt: skip
#: The same, with two levels, of a network whose coarsest level is painted once.
ONCE = {"total": 3.3324, "style": 1.1885, "content": 0.09796, "consistency": 0.017968, "colour": 1.4826,
        "half": 0.93044, "range": 0.00012726, "lattice": 0.069288, "axes": 0.24957}  # fmt: skip


@pytest.fixture(scope="module")
def trainer(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("train_painter")


@pytest.fixture(scope="module")
def painter(trainer: ModuleType) -> ModuleType:
    return import_module("training.painter")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up photographs, paintings with names, and a seeded loss network."""
    folder = tmp_path_factory.mktemp("tiny")
    for kind in ("content", "style"):
        (folder / kind).mkdir()
    for k in range(3):
        write_png(folder / "content" / f"{k}.png", picture(150, 170, 10 * k))
        painting = picture(150, 170, 10 * k + 5)
        write_png(
            folder / "style" / f"{k}.png", [painting, 255 - painting // 2, painting[:, :, ::-1] // 3][k]
        )
    rows = "".join(f"{name},{name.title()},{k}.png\n" for k, name in enumerate(NAMES))
    (folder / "styles.csv").write_text("name,title,file\n" + rows)
    random, state = torch.Generator().manual_seed(0), {}
    for k, shape in backbones.distilled_shapes().items():
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.0
        state[k] = torch.randn(shape, generator=random) * scale
    torch.save({"model": state}, folder / "5SE.pth")
    return folder


@pytest.fixture
def arguments(tiny: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact."""
    torch.set_num_threads(1)
    given = {
        "content": tiny / "content", "style": tiny / "style", "styles": tiny / "styles.csv",
        "distilled": tiny / "5SE.pth", "out": tmp_path / "run", "steps": 4, "batch": 2, "size": 64,
        "levels": 2, "content-size": 100, "style-size": 96, "channels": 8, "blocks": 1, "half": 4,
        "half-least": 64, "precision": "float32", "save-every": 2, "sample-every": 4, "threads": 1,
    }  # fmt: skip
    return flags(given)


def begun(trainer: ModuleType, arguments: list[str], *more: str) -> Any:
    """A recipe at its first step."""
    return trainer.begin(trainer.PROGRAM.parse([*arguments, *more]))


# Training


@pytest.mark.parametrize("levels", FIRST)
def test_first_losses_are_the_stored_ones(trainer: ModuleType, arguments: list[str], levels: int) -> None:
    (row,) = run(trainer, arguments, "--levels", str(levels), steps=1)
    assert {k: row[k] for k in FIRST[levels]} == pytest.approx(FIRST[levels], rel=1e-3)


def test_a_network_of_before_is_trained_as_it_was(
    trainer: ModuleType, painter: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    """Its styles paint the coarsest level once."""
    state = painter.initial(3, painter.Form(8, 1, 4, 2), 0)
    (tmp_path / "before.safetensors").write_bytes(to_bytes(painter, state, list(NAMES)))
    more = "--init", str(tmp_path / "before.safetensors")
    (row,) = run(trainer, arguments, *more, steps=1)
    assert {k: row[k] for k in ONCE} == pytest.approx(ONCE, rel=3e-3)
    assert begun(trainer, arguments, *more).training.leaves["gamma"].shape[1] == 2


def test_training_lowers_every_loss_of_style(trainer: ModuleType, arguments: list[str]) -> None:
    more = ("--steps", "24", "--levels", "1", "--content-weight", "0", "--cooldown", "0", "--warmup", "1")
    rows = run(trainer, arguments, *more, "--rate", "5e-3")
    for name in ("style", "half", "colour"):
        values = [row[name] for row in rows]
        assert np.mean(values[-8:]) < 0.9 * np.mean(values[:8]), name


@pytest.mark.parametrize("until", [1, 3])
def test_a_resumed_run_gives_the_same_losses(
    trainer: ModuleType, painter: ModuleType, arguments: list[str], tmp_path: Path, until: int
) -> None:
    whole = run(trainer, arguments, "--steps", "5")
    other = [*arguments, "--steps", "5", "--out", str(tmp_path / "other")]
    first = run(trainer, other, steps=until)  # stopped before the checkpoint of that step
    kept = (until - 1) // 2 * 2
    assert first[:kept] + run(trainer, other) == whole
    one, two = (load_file(tmp_path / folder / painter.FILE) for folder in ("run", "other"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_the_time_limit_ends_the_training_and_its_rate(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 20 seconds by this clock."""
    now = iter(range(0, 10_000, 20))
    monkeypatch.setattr(trainer.loop.time, "perf_counter", lambda: next(now))
    more = ("--minutes", "1", "--steps", "1000", "--save-every", "1000", "--sample-every", "1000")
    assert [row["step"] for row in run(trainer, arguments, *more)] == [1, 2, 3]
    assert {"checkpoint.pt", "painter.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}
    recipe = begun(trainer, arguments, *more, "--warmup", "0", "--cooldown", "0.5")
    shares = []
    for seconds in (0, 29, 45, 60, 90):
        recipe.training.memory["seconds"].fill_(seconds)
        shares.append(recipe.share_of_rate(5))
    assert shares == pytest.approx([1, 1, 0.525, 0.05, 0.05])


def test_the_rate_rises_and_falls_by_steps(trainer: ModuleType, arguments: list[str]) -> None:
    recipe = begun(trainer, arguments, "--steps", "100", "--warmup", "4", "--cooldown", "0.2")
    shares = [recipe.share_of_rate(step) for step in (0, 3, 50, 80, 90, 100)]
    assert shares == pytest.approx([0.25, 1, 1, 1, 0.525, 0.05])
    groups = recipe.training.optimizers[0].param_groups
    assert groups[1]["lr"] == pytest.approx(3 * groups[0]["lr"]) and len(groups[1]["params"]) == 4


def test_through_vgg16(trainer: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    """Random weights under the names of the original, to relu4_3; bfloat16, as on a card."""
    random, state = torch.Generator().manual_seed(0), {}
    for name, i, o in vgg.convolutions("4_3", depth=16):
        state[f"conv{name}.weight"] = torch.randn(o, i, 3, 3, generator=random) * (2 / (9 * i)) ** 0.5
        state[f"conv{name}.bias"] = torch.zeros(o)
    save_file(state, tmp_path / "vgg16.safetensors")
    more = ("--distilled", "", "--teacher", str(tmp_path / "vgg16.safetensors"), "--precision", "bfloat16")
    (row,) = run(trainer, arguments, *more, steps=1)
    assert all(np.isfinite(value) for value in row.values()) and min(row["style"], row["content"]) > 0.01


def test_command_line_writes_losses_samples_and_weights(
    trainer: ModuleType, painter: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    assert trainer.PROGRAM.main([*arguments, "--steps", "2"]) == 0
    with open(tmp_path / "run" / "losses.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "2" and all(float(row[k]) >= 0 for k in trainer.PROGRAM.columns)
    assert {"samples.png", "checkpoint.pt", "settings.txt", painter.FILE} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_the_whole_network_with_its_styles_fits_in_8_megabytes(
    trainer: ModuleType, painter: ModuleType, root: Path
) -> None:
    with open(root / "pipelines" / "styles.csv", newline="", encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    state = painter.initial(len(names), painter.Form(), 0)
    assert {k: tuple(t.shape) for k, t in state.items()} == painter.shapes(len(names), painter.Form())
    assert len(names) >= 32 and len(to_bytes(painter, state, names)) < 8_000_000


# What is compared


def test_a_painting_is_no_distance_from_itself(trainer: ModuleType, arguments: list[str]) -> None:
    recipe = begun(trainer, arguments)
    files = list(recipe.paintings.files.values())
    x = paintings.to_tensor([paintings.read(files[1], 96)], "cpu")[:, :, :96, :96]
    there, elsewhere = torch.tensor([1]), torch.tensor([0])
    features = recipe.teacher(x, recipe.teacher.style)
    near, far = (paintings.distance(features, recipe.paintings, k).item() for k in (there, elsewhere))
    assert near == pytest.approx(5 * 1e-4**0.5, rel=0.01) and far > 10 * near
    near, far = (paintings.colour_distance(x, recipe.paintings, k).item() for k in (there, elsewhere))
    assert near < 0.05 and far > near


def test_the_distilled_teacher_has_its_own_features(trainer: ModuleType, arguments: list[str]) -> None:
    recipe = begun(trainer, arguments)
    sizes = {k: g.shape for k, g in recipe.paintings.gram.items()}
    widths = dict(zip(vgg.LAYERS, (16, 32, 64, 128, 128), strict=True))
    assert sizes == {k: (3, width, width) for k, width in widths.items()}


def test_a_gram_matrix_is_the_mean_of_products() -> None:
    f = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    wanted = torch.einsum("nchw,ndhw->ncd", f, f) / 20
    assert torch.allclose(paintings.grams(f).double(), wanted, rtol=1e-6)


def test_recoloured_pictures_have_the_paintings_colours() -> None:
    x, y = torch.rand(2, 2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    mean, covariance = painting.moments(y * torch.tensor([0.2, 0.6, 1.0])[:, None, None])
    found = painting.moments(painting.recoloured(x, (mean, covariance, np.zeros(len(x))))[0])
    assert np.allclose(found[0], mean, atol=1e-5) and np.allclose(found[1], covariance, atol=1e-3)


def test_distant_styles_are_drawn_more_often(trainer: ModuleType) -> None:
    hard, draw = torch.ones(3, dtype=torch.float64), trainer.painter.draw_styles
    trainer.painter.follow(hard, torch.tensor([2, 2]), torch.tensor([3.0, 3.0]))
    assert hard.tolist() == pytest.approx([1, 1, 1 + 2 * (1 - 0.9**2)])
    hard = torch.tensor([0.1, 0.2, 3.0], dtype=torch.float64)
    counts = np.bincount(draw(hard, 3000, np.random.default_rng(0)), minlength=3)
    assert counts[2] > 2 * max(counts[:2]) and min(counts) > 300


def test_crops_are_windows_and_flat_ones_are_left_out(
    trainer: ModuleType, tiny: Path, tmp_path: Path
) -> None:
    half = np.full((100, 220, 3), 90, np.uint8)
    half[:, 110:] = picture(100, 110)
    write_png(tmp_path / "half.png", half)
    pictures = trainer.Pictures([tmp_path / "half.png"], 100)
    x = trainer.drawn(pictures, 40, 20, np.random.default_rng(0), "cpu")
    assert x.shape == (20, 3, 40, 40) and (x.flatten(1).std(1) * 255).min() > 6
    write_png(tmp_path / "flat.png", half[:, :100])
    with pytest.raises(BadInput, match="flat"):
        trainer.drawn(trainer.Pictures([tmp_path / "flat.png"], 100), 40, 1, np.random.default_rng(0), "cpu")


@pytest.mark.parametrize(("room", "wanted"), [(10**9, 10), (500, 4), (120, 1), (1, 1)])
def test_the_batch_is_what_memory_is_there_for(trainer: ModuleType, room: int, wanted: int) -> None:
    asked = []

    def peak_bytes(count: int) -> int:
        asked.append(count)
        return 100 + 100 * count

    assert trainer.largest(peak_bytes, room, 10) == wanted and max(asked) == 2


def test_the_batch_is_remembered(trainer: ModuleType, arguments: list[str]) -> None:
    recipe = begun(trainer, arguments, "--batch", "0")
    assert recipe.batch == trainer.CPU_BATCH == int(recipe.training.memory["batch"])
    recipe.training.memory["batch"].fill_(7)
    assert recipe.batch == 7
    assert begun(trainer, arguments, "--batch", "3").batch == 3


# Noise


def test_noise_is_the_hash_of_position_level_and_seed() -> None:
    origins = torch.tensor([[0, 0], [123_456, 2**31 + 5]])
    found = painting.noise(origins, (3, 4), 2, 17)
    assert found.shape == (2, 1, 3, 4) and found.dtype == torch.float32
    for n, (top, left) in enumerate(origins.tolist()):
        wanted = [[noise_bits(top + y, left + x, 2, 17) >> 8 for x in range(4)] for y in range(3)]
        assert found[n, 0].tolist() == [[bits / 2**24 - 0.5 for bits in row] for row in wanted]


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 16)])
def test_noise_is_that_of_the_package(dtype: str, bits: int) -> None:
    box = Box(5, 70000, 69, 70096)
    found = painting.noise(torch.tensor([[box.y0, box.x0]]), box.shape, 3, 11)[0, 0].double().numpy()
    wanted = levels.noise(box, 3, 11, np.dtype(dtype))
    assert np.array_equal(np.floor((found + 0.5) * 2**bits), wanted)


def test_the_noise_of_a_window_is_that_part_of_the_whole() -> None:
    whole = painting.noise(torch.zeros(1, 2, dtype=torch.int64), (300, 400), 1, 5)
    window = painting.noise(torch.tensor([[40, 104], [100, 300]]), (64, 96), 1, 5)
    assert torch.equal(window[0], whole[0, :, 40:104, 104:200])
    assert torch.equal(window[1], whole[0, :, 100:164, 300:396])


def test_noise_is_white_and_differs_by_level_and_seed() -> None:
    origin = torch.zeros(1, 2, dtype=torch.int64)
    maps = [painting.noise(origin, (256, 256), level, seed)[0, 0] for level, seed in ((0, 0), (1, 0), (0, 1))]
    for grain in maps:
        assert -0.5 <= grain.min() and grain.max() < 0.5
        assert abs(grain.mean()) < 0.005 and abs(grain.std() - 12**-0.5) < 0.005
        power = torch.fft.rfft2(grain).abs().square().flatten()[1:] / grain.numel() * 12
        assert power.max() < 20, "a line in the spectrum is a pattern"
    shifted = [(maps[0], maps[1]), (maps[0], maps[2]), (maps[0][1:], maps[0][:-1])]
    assert all(abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.02 for a, b in shifted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA card")
def test_noise_is_the_same_on_a_card() -> None:
    origins = torch.tensor([[0, 0], [123_456, 2**31 + 5]])
    assert torch.equal(
        painting.noise(origins.cuda(), (64, 64), 3, 9).cpu(), painting.noise(origins, (64, 64), 3, 9)
    )


# The network and its files


def small(painter: ModuleType, styles: int = 2) -> Any:
    """A network whose styles differ and whose strokes show."""
    state = painter.initial(styles, painter.Form(8, 2, 4), 0)
    random = torch.Generator().manual_seed(1)
    return {k: t + 0.1 * torch.randn(t.shape, generator=random) for k, t in state.items()}


def to_bytes(painter: ModuleType, state: Any, names: list[str]) -> bytes:
    """The file of a network, whose paintings are grey with some spread."""
    count = len(names)
    return painter.to_bytes(
        state, names, (np.full((count, 3), 0.5), np.stack([0.04 * np.eye(3)] * count), np.ones(count))
    )


def test_what_learned_paints_in_the_package_as_it_did(painter: ModuleType, tmp_path: Path) -> None:
    """Both levels, on one crop: the package's style with statistics of its own, in the same colours."""
    state, names = small(painter), ["a", "b"]
    path = tmp_path / painter.FILE
    path.write_bytes(to_bytes(painter, state, names))
    state, _ = painter.from_file(path)
    style = network.build({painter.FILE: weights.load(path)}, [(style_rows.style_named("b"), 1.0)])
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    origins, index = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([1])
    guides = painting.recoloured(x, (np.full((1, 3), 0.5), 0.04 * np.eye(3)[None], np.ones(1)), 2)
    coarse, fine = painting.paint(state, x, guides, index, origins)
    grain = [painting.noise(origins, (n * 32, n * 48), 2 - n, 0) + 0.5 for n in (1, 2)]
    half = painting.halved(x)
    with torch.inference_mode():
        first = style.forward(torch.cat([half, grain[0]], 1), in_colours(style, x))
        inputs = torch.cat([x, grain[1], network.doubled(coarse)], 1)
        second = style.at_level(True).forward(inputs, in_colours(style.at_level(True), x))
    assert torch.allclose(first, coarse, atol=1e-4) and torch.allclose(second, fine, atol=1e-4)


def in_colours(style: Any, x: torch.Tensor) -> Any:
    """Statistics of the window itself, and the map of colours from ``x``, from which training takes it."""
    own, colour = live(style), Moments.of(x[0].flatten(1).numpy(), full=True)

    def at(site: Any, features: torch.Tensor) -> torch.Tensor:
        return style.affine(site, colour)(features) if site.name == "colour" else own(site, features)

    return at


def halves(guide: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """The guides of so many levels, from coarse to fine."""
    return [painting.halved(guide, level) for level in reversed(range(levels))]


def test_levels_are_painted_from_coarse_to_fine_each_with_its_own_rows(painter: ModuleType) -> None:
    state, origins = small(painter), torch.zeros(2, 2, dtype=torch.int64)
    x, guide = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    index, guides = torch.tensor([1, 0]), halves(guide, 3)
    pictures = painting.paint(state, x, guides, index, origins)
    assert [tuple(y.shape) for y in pictures] == [(2, 3, 16, 24), (2, 3, 32, 48), (2, 3, 64, 96)]
    for rows, first in ((0, True), (1, False), (2, True)):
        gamma = state["gamma"].clone()
        gamma[:, rows] += 1
        other = painting.paint(state | {"gamma": gamma}, x, guides, index, origins)
        assert torch.equal(other[0], pictures[0]) != first and not torch.equal(other[1], pictures[1])
    swapped = painting.paint(state, x, guides, index.flip(0), origins)
    assert not torch.allclose(swapped[2], pictures[2], atol=1e-3)


def test_the_coarsest_level_is_that_of_a_halved_picture(painter: ModuleType) -> None:
    state, origins = small(painter), torch.tensor([[64, 32]])
    x, guide = torch.rand(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([0])
    coarse = painting.paint(state, x, halves(guide, 2), index, origins)[0]
    rows = [state[k][index, 0] for k in painter.PER_STYLE]
    grain = painting.noise(origins // 2, (32, 48), 1, 0)
    half = painting.paint_level(state, painting.halved(x), painting.halved(guide), grain, rows, torch.float32)
    once = state | {k: state[k][:, :2] for k in painter.PER_STYLE}
    assert torch.equal(painting.paint(once, x, halves(guide, 2), index, origins)[0], half)
    rows = [state[k][index, 2] for k in painter.PER_STYLE]
    again = painting.paint_level(state, painting.halved(x), half.clamp(0, 1), grain, rows, torch.float32)
    assert torch.equal(coarse, again) and not torch.allclose(coarse, half, atol=0.01)


def test_bfloat16_paints_about_the_same(painter: ModuleType) -> None:
    state, origins = small(painter), torch.zeros(1, 2, dtype=torch.int64)
    x, guide = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact, low = (
        painting.paint(state, x, [guide], torch.tensor([0]), origins, dtype=dtype)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert low.dtype == torch.float32 and (exact - low).abs().mean() < 0.05 * (exact - guide).std()


def test_files_round_trip_in_float16_with_names(painter: ModuleType, tmp_path: Path) -> None:
    state = small(painter)
    (tmp_path / painter.FILE).write_bytes(to_bytes(painter, state, ["a", "b"]))
    held = load_file(tmp_path / painter.FILE)
    assert {t.dtype for k, t in held.items() if k not in ("styles", *painter.COLOURS)} == {torch.float16}
    again, names = painter.from_file(tmp_path / painter.FILE)
    assert names == ["a", "b"] and again.keys() == state.keys()
    # whatever the file's order: a checkpoint knows what the optimizer remembers of a tensor by its number
    assert list(again) == list(painter.shapes(2, painter.Form(8, 2, 4)))
    assert all(torch.allclose(again[k], t, rtol=1e-3, atol=1e-4) for k, t in state.items())


def test_checkpoints_are_taken_up_with_their_average(painter: ModuleType, tmp_path: Path) -> None:
    """Of this program, and of any that keeps the tensors under "average"; none names its styles."""
    state = small(painter)
    torch.save({"net": {}, "average": state, "step": 3}, tmp_path / "state.pt")
    again, names = painter.from_file(tmp_path / "state.pt")
    assert names == [] and all(torch.equal(again[k], t) for k, t in state.items())


def test_one_set_of_parameters_serves_both_kinds_of_level(painter: ModuleType, tmp_path: Path) -> None:
    state = small(painter)
    flat = state | {k: state[k][:, 0].contiguous() for k in painter.PER_STYLE}
    torch.save(flat, tmp_path / "old.pt")
    again, _ = painter.from_file(tmp_path / "old.pt")
    for k in painter.PER_STYLE:
        assert torch.equal(again[k][:, 0], state[k][:, 0]) and torch.equal(again[k][:, 1], state[k][:, 0])


def test_rows_go_by_name_and_new_styles_start_as_the_mean(painter: ModuleType) -> None:
    state = small(painter)
    found = painter.rows_for(state, ["a", "b"], ["new", "b"])
    for k in painter.PER_STYLE:
        assert torch.equal(found[k][1], state[k][1]) and torch.allclose(found[k][0], state[k].mean(0))
    nameless = painter.rows_for(state, [], ["x", "y"])
    assert all(torch.equal(nameless[k], t) for k, t in state.items())
    more = painter.rows_for(state, [], ["x", "y", "z"])
    assert torch.allclose(more["gamma"], state["gamma"].mean(0).expand(3, -1, -1, -1))


def test_what_is_no_painter_is_refused(painter: ModuleType, tmp_path: Path) -> None:
    state = small(painter)
    lacking = {k: t for k, t in state.items() if k != "mid.weight"}
    wrong = state | {"b.1.weight": torch.zeros(8, 8, 1, 1)}
    for content, said in (
        (lacking, r"misses mid\.weight"),
        (wrong, r"b\.1\.weight has shape"),
        ({}, "misses"),
    ):
        torch.save(content, tmp_path / "bad.pt")
        with pytest.raises(BadWeights, match=said):
            painter.from_file(tmp_path / "bad.pt")
    (tmp_path / "named.safetensors").write_bytes(to_bytes(painter, state, ["a", "b", "c"]))
    with pytest.raises(BadWeights, match="names 3 styles and has 2"):
        painter.from_file(tmp_path / "named.safetensors")
    for text in (b"a, b", b"\xff", b'"ab"', b"{}"):
        torch.save(state | {"styles": torch.tensor(list(text), dtype=torch.uint8)}, tmp_path / "odd.pt")
        with pytest.raises(BadWeights, match=r"odd\.pt: its styles are no list of names"):
            painter.from_file(tmp_path / "odd.pt")
    with pytest.raises(MissingFile, match="nowhere"):
        painter.from_file(tmp_path / "nowhere.pt")


def test_a_trained_network_is_a_start(
    trainer: ModuleType, painter: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    run(trainer, arguments, "--steps", "2")
    for name in (painter.FILE, "checkpoint.pt"):
        wanted, _ = painter.from_file(tmp_path / "run" / name)
        recipe = begun(trainer, arguments, "--init", str(tmp_path / "run" / name), "--channels", "99")
        assert all(torch.equal(recipe.training.leaves[k], t) for k, t in wanted.items())


def test_the_weights_of_the_trial_are_a_start(painter: ModuleType, shared: Path) -> None:
    for name, count in (("trial.pt", 1), ("trial_six_styles.pt", 6)):
        path = shared / "plans" / "painter" / name
        if not path.exists():
            pytest.skip(f"{path} is not there")
        state, _ = painter.from_file(path)
        assert painter.form_of(state) == painter.Form(kinds=2) and len(state["gamma"]) == count


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--styles", "/nowhere.csv"], "/nowhere.csv"),
        (["--style", "/nowhere"], "there is no folder /nowhere"),
        (["--distilled", "/nowhere.pth"], "/nowhere.pth"),
        (["--distilled", "", "--teacher", "/nowhere.safetensors"], "/nowhere.safetensors"),
        (["--distilled", ""], "--teacher"),
        (["--teacher", "vgg16.safetensors"], "either --teacher"),
        (["--init", "/nowhere.pt"], "/nowhere.pt"),
        (["--size", "96"], "multiple of 64"),
        (["--levels", "0"], "--levels"),
        (["--half-least", "32"], "--half-least"),
        (["--content-size", "32"], "--content-size"),
        (["--precision", "float8"], "float8"),
    ],
)
def test_bad_settings_are_one_sentence(
    trainer: ModuleType, arguments: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(trainer, [*arguments, *words], said, capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,title\na,A\n", "columns name and file"),
        ("name,file\na,0.png\na,1.png\n", "alike"),
        ("", "columns"),
    ],
)
def test_lists_of_styles_that_are_none(
    trainer: ModuleType, arguments: list[str], tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "styles.csv").write_text(text)
    with pytest.raises(BadInput, match=said):
        begun(trainer, arguments, "--styles", str(tmp_path / "styles.csv"))
