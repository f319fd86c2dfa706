"""What the training programs share: settings, crops, checkpoints and the loop, losses on file, command."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers import picture
from torch import Tensor

from urst_tiles import weights
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.source.picture import write_png

ROOMS = ("settings", "pictures", "loop", "record", "command")
LEARNING = ("checkpoint", "crops", "features")


@pytest.fixture(scope="module")
def kit(pipeline: Callable[[str], ModuleType]) -> SimpleNamespace:
    """The modules of ``training``, which `pipeline` puts within reach, and those of the package."""
    rooms = {name: import_module(f"training.{name}") for name in ROOMS}
    return SimpleNamespace(
        **rooms, **{name: import_module(f"urst_tiles.learning.{name}") for name in LEARNING}
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A setting of each kind."""

    content: Path
    out: Path
    steps: int = 6
    batch: int = 2
    size: int = 8
    seed: int = 0
    rate: float = 0.1
    clip: float = 1.0
    mirror: bool = False
    loss: Literal["square", "cube"] = "square"
    files: tuple[Path, ...] = ()
    sizes: tuple[int, ...] = (8, 16)
    device: str = "cpu"
    threads: int = 1
    save_every: int = 2
    sample_every: int = 3


# Settings


def parse(kit: SimpleNamespace, *words: str) -> Settings:
    found: Settings = kit.settings.parse(Settings, ["--content", "a", "--out", "b", *words], "Toy.")
    return found


def test_every_kind_of_setting_from_flags(kit: SimpleNamespace) -> None:
    flags = "--steps 3 --rate 1e-3 --mirror true --loss cube --files c.pth,d.pth --sizes 4 --save-every 1"
    wanted = Settings(
        content=Path("a"), out=Path("b"), steps=3, rate=1e-3, mirror=True, loss="cube",
        files=(Path("c.pth"), Path("d.pth")), sizes=(4,), save_every=1,
    )  # fmt: skip
    assert parse(kit, *flags.split()) == wanted


def test_a_field_may_say_its_least_number(kit: SimpleNamespace) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Free:
        batch: int = field(default=0, metadata={"least": 0})
        size: int = 8

    # annotations are words here, and classes of a function are not looked up
    Free.__annotations__ = {"batch": int, "size": int}
    assert kit.settings.parse(Free, ["--batch", "0"], "Free.").batch == 0
    with pytest.raises(BadInput, match="--size must be at least 1"):
        kit.settings.parse(Free, ["--size", "0"], "Free.")
    with pytest.raises(BadInput, match="--batch must be at least 0"):
        kit.settings.parse(Free, ["--batch", "-1"], "Free.")


def test_flags_win_over_the_file_and_the_file_over_defaults(kit: SimpleNamespace, tmp_path: Path) -> None:
    lines = ["steps = 3", "rate = 1", "mirror = true", 'loss = "cube"', 'files = ["c"]', "sizes = [4, 5]"]
    (tmp_path / "s.toml").write_text("\n".join(lines))
    found = parse(kit, "--settings", str(tmp_path / "s.toml"), "--steps", "4", "--mirror", "false")
    assert (found.steps, found.rate, found.mirror, found.loss) == (4, 1.0, False, "cube")
    assert (found.files, found.sizes, found.batch) == ((Path("c"),), (4, 5), 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stepz = 3", "no setting 'stepz'"),
        ("steps = 3.5", "--steps must be a whole number, got 3.5"),
        ("steps = true", "--steps must be a whole number"),
        ('steps = "many"', "--steps must be a whole number, got 'many'"),
        ("steps = 0", "--steps must be at least 1, got 0"),
        ("seed = -1", "--seed must be at least 0, got -1"),
        ("rate = nan", "--rate must be a number"),
        ("rate = [1]", "--rate must be a number"),
        ("mirror = 1", "--mirror must be true or false, got 1"),
        ('loss = "root"', "--loss must be one of square, cube, got 'root'"),
        ("out = 3", "--out must be text"),
        ("sizes = 3", "--sizes must be a list"),
        ('sizes = ["x"]', "--sizes must be a whole number"),
        ("save_every = 0", "--save-every must be at least 1"),
        ("steps 3", "is no TOML"),
    ],
)
def test_bad_settings(kit: SimpleNamespace, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "s.toml").write_text(line)
    with pytest.raises(BadInput, match=r"^[^\n]*$") as error:
        kit.settings.parse(Settings, ["--settings", str(tmp_path / "s.toml")], "Toy.")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "b"], "--content is not given"),
        (["--stepz", "3"], "--stepz"),
        (["--steps"], "--steps"),
        (["--settings", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_bad_command_lines(kit: SimpleNamespace, words: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        kit.settings.parse(Settings, words, "Toy.")


# Pictures


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for k in range(3):
        write_png(folder / f"{k}.png", picture(40 + 10 * k, 60, k))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def crops(kit: SimpleNamespace, photographs: Path) -> Any:
    """Batches of 4 crops of 16 pixels from pictures with short sides of 40."""
    return kit.pictures.Crops(kit.pictures.Pictures(kit.crops.files_of(photographs), 40), 4, 16, "cpu")


def test_held_out_files(kit: SimpleNamespace, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("0*\n2.png\n")
    held_out = kit.pictures.patterns_of(str(tmp_path / "held.txt"))
    assert [path.name for path in kit.crops.files_of(photographs, held_out)] == ["1.png"]
    assert kit.pictures.patterns_of("") == []
    with pytest.raises(MissingFile, match="nowhere"):
        kit.pictures.patterns_of("/nowhere")


def test_folders_without_images(kit: SimpleNamespace, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="nowhere"):
        kit.crops.files_of(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no image"):
        kit.crops.files_of(photographs, ["*"])


def test_a_crop_is_a_window_of_its_picture_or_its_mirror_image(kit: SimpleNamespace) -> None:
    image = np.arange(12 * 15 * 3, dtype=np.uint16).reshape(12, 15, 3)
    mirrored, corners = 0, set()
    for seed in range(60):
        part = kit.crops.crop(image, 10, np.random.default_rng(seed))
        if part[0, 0, 0] > part[0, 1, 0]:
            mirrored, part = mirrored + 1, part[:, ::-1]
        y, x = divmod(int(part[0, 0, 0]) // 3, 15)
        assert np.array_equal(part, image[y : y + 10, x : x + 10])
        corners.add((y, x))
    assert 15 < mirrored < 45
    assert {y for y, _ in corners} == {0, 1, 2} and {x for _, x in corners} == {0, 1, 2, 3, 4, 5}


def test_batches_are_drawn_from_the_seed_alone(crops: Any) -> None:
    one, same, other = (crops.draw(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.shape == (4, 3, 16, 16) and one.dtype == torch.float32
    assert 0 <= one.min() and one.max() <= 1 and one.std() > 0.05
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_large_batch_is_the_small_one_enlarged(crops: Any, factor: int) -> None:
    small, large = crops.draw_large(np.random.default_rng(0), factor)
    assert small.shape == (4, 3, 16, 16) and large.shape == (4, 3, 16 * factor, 16 * factor)
    means = large.view(4, 3, 16, factor, 16, factor).mean((3, 5))
    assert torch.allclose(small, means, atol=1e-6)


def test_pictures_beyond_the_memory_are_decoded_anew_and_the_same(
    kit: SimpleNamespace, photographs: Path
) -> None:
    paths = kit.crops.files_of(photographs)
    all_kept, one_kept = (kit.pictures.Pictures(paths, 20, room) for room in (1 << 20, 20 * 30 * 3))
    for index in (0, 1, 2, 1, 0):
        assert min(all_kept[index].shape[:2]) == 20
        assert np.array_equal(all_kept[index], one_kept[index])
    assert len(all_kept.kept) == 3 and list(one_kept.kept) == [0]


def test_pictures_may_be_decoded_at_once(kit: SimpleNamespace, photographs: Path) -> None:
    files = kit.crops.files_of(photographs)
    lazy, eager = kit.pictures.Pictures(files, 40), kit.pictures.Pictures(files, 40)
    eager.decode()
    assert sorted(eager.kept) == list(range(len(files))) and not lazy.kept
    assert all(np.array_equal(eager.kept[k], lazy[k]) for k in range(len(files)))


def test_random_windows_lie_on_the_stride_and_reach_every_edge(kit: SimpleNamespace) -> None:
    large = torch.arange(24 * 24.0).view(1, 1, 24, 24).expand(2, 3, -1, -1)
    random, places = np.random.default_rng(0), set()
    for _ in range(100):
        patch, (y, x) = kit.pictures.random_window(large, 16, 4, random)
        assert patch.shape == (2, 3, 16, 16) and patch[1, 2, 0, 0] == 24 * y + x
        places.add((y, x))
    assert places == {(y, x) for y in (0, 4, 8) for x in (0, 4, 8)}


def test_a_sheet_is_its_rows_clipped(kit: SimpleNamespace) -> None:
    rows = [[torch.full((3, 2, 2), value) for value in row] for row in ([0.0, 0.5], [1.5, -1.0])]
    found = kit.pictures.sheet(rows)
    assert found.dtype == np.uint8 and found[::2, ::2, 0].tolist() == [[0, 128], [255, 0]]


# Features


def test_a_lowered_network_computes_in_its_type(kit: SimpleNamespace) -> None:
    def net(x: Tensor, layers: list[str]) -> dict[str, Tensor]:
        return dict.fromkeys(layers, x * 2)

    lowered = kit.features.Lowered(net, torch.bfloat16)
    x = torch.rand(2, 3, 4, 4)
    assert lowered(x, ["a"])["a"].dtype == torch.bfloat16
    mean, _ = kit.features.statistics(lowered, x, ["a", "b"])["b"]
    assert mean.dtype == torch.float32 and torch.allclose(mean, 2 * x.mean((2, 3)), atol=0.02)


def test_weighted_sum(kit: SimpleNamespace) -> None:
    parts = {"a": torch.tensor(2.0), "b": torch.tensor(3.0), "seen": torch.tensor(7.0)}
    assert kit.features.weighted(parts, {"a": 10.0, "b": 1.0, "absent": 5.0}).item() == 23


# The loop and its checkpoint


class Toy:
    """Three numbers that learn the mean colours of crops, by two optimizers at different rates."""

    def __init__(self, kit: SimpleNamespace, settings: Settings):
        self.kit, self.settings = kit, settings
        pictures = kit.pictures.Pictures(kit.crops.files_of(settings.content), 2 * settings.size)
        self.crops = kit.pictures.Crops(pictures, settings.batch, settings.size, "cpu")
        start = {"colour": torch.zeros(3, 1, 1), "shift": torch.zeros(1)}
        leaves = kit.checkpoint.trainable(start, "cpu")
        optimizers = [
            torch.optim.Adam([leaves["colour"]], lr=settings.rate),
            torch.optim.SGD([leaves["shift"]], lr=settings.rate / 10, momentum=0.9),
        ]
        self.training = kit.checkpoint.Training(leaves, optimizers, settings.seed, start)

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = self.training.leaves
        error = leaves["colour"] + leaves["shift"] - self.crops.draw(self.training.random)
        power = {"square": 2, "cube": 3}[self.settings.loss]
        return error.abs().pow(power).mean(), {"bias": error.mean()}

    def share_of_rate(self, step: int) -> float:
        return float(self.kit.loop.warm_and_cool(step, self.settings.steps, 2, 2))

    def export(self) -> dict[str, bytes]:
        return {"toy.pth": self.kit.checkpoint.torch_bytes(self.training.average)}

    def samples(self) -> np.ndarray:
        shown: np.ndarray = self.kit.pictures.sheet([[self.training.average["colour"].expand(3, 4, 4)]])
        return shown


@pytest.fixture
def settings(photographs: Path, tmp_path: Path) -> Settings:
    return Settings(content=photographs, out=tmp_path / "run")


def rows(kit: SimpleNamespace, settings: Settings, until: int | None = None) -> list[dict[str, float]]:
    """The losses of one call, stopped, as by a crash, when step ``until`` is done and before it is kept."""
    found = []
    for row in kit.loop.run(Toy(kit, settings), settings):
        found.append({k: v for k, v in row.items() if k != "seconds"})
        if row["step"] == until:
            break
    return found


def test_the_loop_learns_and_writes_everything(kit: SimpleNamespace, settings: Settings) -> None:
    found = rows(kit, settings)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1]["total"] < 0.5 * found[0]["total"]
    assert {path.name for path in settings.out.iterdir()} == {"checkpoint.pt", "samples.png", "toy.pth"}
    assert set(weights.load(settings.out / "toy.pth")) == {"colour", "shift"}


@pytest.mark.parametrize("until", [1, 2, 3, 5, 6])
def test_a_crash_in_any_step_changes_no_later_loss(
    kit: SimpleNamespace, settings: Settings, tmp_path: Path, until: int
) -> None:
    whole = rows(kit, settings)
    other = Settings(content=settings.content, out=tmp_path / "other")
    rows(kit, other, until)
    kept = (until - 1) // 2 * 2
    assert rows(kit, other) == whole[kept:]
    for name in ("toy.pth", "samples.png"):
        assert (other.out / name).read_bytes() == (settings.out / name).read_bytes()
    one, two = (torch.load(s.out / "checkpoint.pt", weights_only=True) for s in (settings, other))
    assert one.pop("random") == two.pop("random")
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_finished_training_goes_on_only_with_more_steps(kit: SimpleNamespace, settings: Settings) -> None:
    rows(kit, settings)
    assert rows(kit, settings) == []
    more = Settings(content=settings.content, out=settings.out, steps=8)
    assert [row["step"] for row in rows(kit, more)] == [7, 8]


def test_rates_keep_their_proportion(kit: SimpleNamespace, settings: Settings) -> None:
    training = Toy(kit, settings).training
    training.advance(sum(t.sum() for t in training.leaves.values()), 0.5)
    found = [optimizer.param_groups[0]["lr"] for optimizer in training.optimizers]
    assert found == pytest.approx([0.05, 0.005])
    training.advance(sum(t.sum() for t in training.leaves.values()), 0.5)
    assert [optimizer.param_groups[0]["lr"] for optimizer in training.optimizers] == found


def test_the_gradient_is_clipped_and_0_clips_nothing(kit: SimpleNamespace, settings: Settings) -> None:
    for clip, wanted in ((1.0, 1.0), (0.0, 20.0), (100.0, 20.0)):
        training = Toy(kit, settings).training
        training.advance(10 * sum(t.sum() for t in training.leaves.values()), 1.0, clip)
        length = torch.cat([t.grad.flatten() for t in training.leaves.values()]).norm().item()
        assert length == pytest.approx(wanted, rel=1e-4)


def test_the_average_follows_and_may_be_absent(kit: SimpleNamespace, settings: Settings) -> None:
    training = Toy(kit, settings).training
    training.advance(training.leaves["shift"].sum(), 1.0)
    moved = training.leaves["shift"].detach()
    assert torch.allclose(training.average["shift"], moved * (1 - 1 / 11))
    leaves = kit.checkpoint.trainable({"a": torch.ones(2)}, "cpu")
    bare = kit.checkpoint.Training(leaves, [torch.optim.SGD(leaves.values(), lr=0.1)], 0)
    bare.advance(leaves["a"].sum())
    assert bare.average == {} and bare.step == 1


def test_a_gradient_that_is_no_number_moves_nothing(kit: SimpleNamespace, settings: Settings) -> None:
    training = Toy(kit, settings).training
    with pytest.raises(kit.checkpoint.Diverged, match="step 1"):
        training.advance(training.leaves["shift"].sum() * float("nan"))
    assert training.step == 0 and training.leaves["shift"].item() == 0


def damages(content: bytes) -> Iterator[bytes]:
    """A file cut at many places, overwritten in its head, emptied, another kind of file."""
    yield from (content[: len(content) * k // 16] for k in range(16))
    yield b"\x00" * 64 + content[64:]
    yield b"no checkpoint at all\n" * 20
    yield pickle.dumps(Path("a pickle that would build an object"))


def test_damaged_checkpoints_are_one_sentence(kit: SimpleNamespace, settings: Settings) -> None:
    rows(kit, settings, 3)
    path = settings.out / "checkpoint.pt"
    for content in list(damages(path.read_bytes())):
        path.write_bytes(content)
        with pytest.raises(BadWeights, match=r"^[^\n]*checkpoint\.pt[^\n]*another --out$"):
            rows(kit, settings)


def test_the_clock_ends_a_training_and_a_later_call_with_more_minutes_goes_on(
    kit: SimpleNamespace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 20 seconds here; what comes before the first step counts as well."""
    now = iter(range(0, 10_000, 20))
    monkeypatch.setattr(kit.loop.time, "perf_counter", lambda: next(now))
    many = replace(settings, steps=100, save_every=100, sample_every=100)

    def steps_of(minutes: float) -> list[float]:
        found = kit.loop.run(Toy(kit, many), many, kit.loop.Times(minutes))
        return [row["step"] for row in found]

    assert steps_of(1) == [1, 2, 3] and steps_of(1) == []
    assert steps_of(2) == [4, 5, 6]
    assert {path.name for path in many.out.iterdir()} == {"checkpoint.pt", "samples.png", "toy.pth"}


def test_checkpoints_by_the_clock(
    kit: SimpleNamespace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every two minutes of steps of 50 seconds: behind the third, the sixth and the last one."""
    now = iter(range(0, 10_000, 50))
    monkeypatch.setattr(kit.loop.time, "perf_counter", lambda: next(now))
    many = replace(settings, steps=7, save_every=100, sample_every=100)
    toy, saved = Toy(kit, many), []
    monkeypatch.setattr(toy.training, "save", lambda path: saved.append(toy.training.step))
    list(kit.loop.run(toy, many, kit.loop.Times(save_minutes=2)))
    assert saved == [3, 6, 7]


def test_what_a_recipe_remembers_is_resumed(kit: SimpleNamespace, settings: Settings, tmp_path: Path) -> None:
    class Counting(Toy):
        def __init__(self, kit: SimpleNamespace, settings: Settings):
            super().__init__(kit, settings)
            self.training.memory["drawn"] = torch.zeros(2)

        def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
            self.training.memory["drawn"] += 1
            return super().objective()

    for until in (3, 6):
        toy = Counting(kit, settings)
        for row in kit.loop.run(toy, settings):
            if row["step"] == until:
                break
    assert toy.training.memory["drawn"].tolist() == [6, 6]
    with pytest.raises(BadWeights, match="unknown drawn"):
        rows(kit, settings)


def test_checkpoints_without_a_memory_are_still_taken_up(kit: SimpleNamespace, settings: Settings) -> None:
    rows(kit, settings, 3)
    path = settings.out / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["memory"]
    torch.save(content, path)
    assert [row["step"] for row in rows(kit, settings)] == [3, 4, 5, 6]


@pytest.mark.parametrize("key", ["leaves", "average", "optimizers", "random", "step"])
def test_a_checkpoint_that_lacks_or_changes_a_part_is_refused(
    kit: SimpleNamespace, settings: Settings, key: str
) -> None:
    rows(kit, settings, 3)
    path = settings.out / "checkpoint.pt"
    whole = torch.load(path, weights_only=True)
    other: dict[str, Any] = {
        "leaves": {"colour": torch.zeros(3, 1, 1)},
        "average": {"colour": torch.zeros(1), "shift": torch.zeros(1)},
        "optimizers": whole["optimizers"][:1], "random": {"bit_generator": "MT19937"}, "step": None,
    }  # fmt: skip
    for content in ({k: v for k, v in whole.items() if k != key}, whole | {key: other[key]}):
        torch.save(content, path)
        with pytest.raises(BadWeights, match=r"^[^\n]*checkpoint\.pt[^\n]*another --out$"):
            rows(kit, settings)


def test_what_is_made_once_is_kept_by_its_facts(kit: SimpleNamespace, tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"a": torch.full((2,), float(len(made)))}

    found = [kit.checkpoint.once(tmp_path, "styles", facts, make)["a"][0].item() for facts in ("x", "x", "y")]
    assert found == [1, 1, 2]


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (1, 0.5), (3, 1.0), (15, 1.0), (18, 0.5), (19, 0.25)])
def test_warm_and_cool(kit: SimpleNamespace, step: int, share: float) -> None:
    assert kit.loop.warm_and_cool(step, 20, 4, 4) == share


def test_inverse_decay(kit: SimpleNamespace) -> None:
    assert [kit.loop.inverse_decay(step, 0.5) for step in (0, 2)] == [1.0, 0.5]


# Losses on file


def steps(first: int, last: int) -> Iterator[dict[str, float]]:
    for step in range(first, last + 1):
        yield {"step": step, "seconds": step / 2, "total": step * 10.0}


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


COLUMNS = ("step", "seconds", "total", "stroke")


def test_losses_are_means_up_to_each_twentieth_step_and_the_last(
    kit: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit.record.record(tmp_path / "losses.csv", steps(1, 45), COLUMNS) == 45
    found = read(tmp_path / "losses.csv")
    assert [(row["step"], row["total"]) for row in found] == [("20", "105"), ("40", "305"), ("45", "430")]
    assert all(row["stroke"] == "" for row in found)
    assert capsys.readouterr().out.splitlines()[0] == "step 20  seconds 10.0  total 105"


def test_a_resumed_run_has_each_step_once(kit: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    kit.record.record(path, steps(1, 60), COLUMNS)
    with open(path, "a") as file:
        file.write("80,4")  # a crash in the middle of a line
    kit.record.record(path, steps(41, 80), COLUMNS)
    assert [row["step"] for row in read(path)] == ["20", "40", "60", "80"]
    whole = tmp_path / "whole.csv"
    kit.record.record(whole, steps(1, 80), COLUMNS)
    assert whole.read_bytes() == path.read_bytes()


def test_losses_of_another_training_are_not_mixed_in(kit: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("step,seconds,total,style\n20,1,1,1\n")
    with pytest.raises(BadInput, match="other columns"):
        kit.record.record(tmp_path / "losses.csv", steps(1, 20), COLUMNS)


# The command


@pytest.fixture
def program(kit: SimpleNamespace) -> Any:
    return kit.command.Program("toy", "Train a toy.", Settings, lambda s: Toy(kit, s), ("bias",))


@pytest.fixture
def words(settings: Settings) -> list[str]:
    return ["--content", str(settings.content), "--out", str(settings.out)]


def test_command_writes_settings_and_losses(program: Any, words: list[str], settings: Settings) -> None:
    assert program.main(words) == 0
    (row,) = read(settings.out / "losses.csv")
    assert tuple(row) == ("step", "seconds", "total", "bias") and row["step"] == "6" and row["bias"]
    assert "steps = 6\n" in (settings.out / "settings.txt").read_text()


def test_command_says_when_nothing_is_left(
    program: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(words) == 0
    assert program.main(words) == 0
    assert "6 steps already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--content", "/nowhere"], "/nowhere"),
        (["--steps", "many"], "many"),
        (["--device", "nothing"], "--device nothing"),
        (["--stepz", "3"], "--stepz"),
    ],
)
def test_errors_are_one_sentence_with_the_programs_name(
    program: Any, words: list[str], more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([*words, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("toy: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "goes on"),
        (torch.OutOfMemoryError("3 GiB of 2"), 1, "smaller"),
    ],
)
def test_what_stops_a_run(
    kit: SimpleNamespace, words: list[str], raised: BaseException, status: int, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def begin(settings: Settings) -> Toy:
        raise raised

    assert kit.command.Program("toy", "Train a toy.", Settings, begin, ()).main(words) == status
    assert said in capsys.readouterr().err


def test_a_training_that_diverges_ends_with_1(
    kit: SimpleNamespace, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    class Wild(Toy):
        def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
            total, parts = super().objective()
            return total * (float("inf") if self.training.step == 3 else 1), parts

    program = kit.command.Program("toy", "Train a toy.", Settings, lambda s: Wild(kit, s), ("bias",))
    assert program.main(words) == 1
    assert "step 4 is not finite" in capsys.readouterr().err
