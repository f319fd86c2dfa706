"""Image optimisation: tiles give the whole image's gradient, descents resume to the bit, bad input is a
sentence."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from torch import Tensor
from trainers import flags

from urst_tiles import losses
from urst_tiles.errors import DamagedFile, JobDiffers
from urst_tiles.geometry import Box
from urst_tiles.losses import backbones, vgg
from urst_tiles.source import array_source
from urst_tiles.source.picture import write_png

Run = Callable[..., int]
STYLE = ("relu1_1", "relu2_1", "relu3_1")
CONTENT = "relu2_2"


@pytest.fixture(scope="module")
def program(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    torch.set_num_threads(1)
    return pipeline("optimize")


def narrow(padding: str = "zeros") -> losses.FeatureNet:
    """VGG-19 a sixteenth as wide, float64."""
    weights = {k: t.double() for k, t in vgg.random_state(0, 1 / 16).items()}
    return vgg.VGG(weights, padding=padding)


def random_picture(height: int, width: int, seed: int) -> Tensor:
    """(1, 3, height, width) float64."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)).double()


def boxes_of(x: Tensor) -> Callable[[Box], Tensor]:
    return lambda box: x[(slice(None), slice(None), *box.slices)]


def both(
    program: ModuleType, net: losses.FeatureNet, terms: Any, shape: tuple[int, int], tile: int
) -> tuple[Any, Any, Tensor]:
    """The loss over the whole image and over its tiles, and an image to take it at."""
    from optimization import objective, reach

    grams = objective.style_targets(net, terms, random_picture(80, 90, 3))
    x, content = random_picture(*shape, 1), random_picture(*shape, 2)
    found = reach.measure(net, terms.layers, x)
    tiled = program.Tiled(net, terms, found, grams, boxes_of(content), shape, tile).ready()
    return program.Whole.of(net, terms, grams, content), tiled, x


def gradient(tiled: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Tile by tile."""
    found, out = tiled.measure(boxes_of(x)), torch.zeros_like(x)
    for core in tiled.cores:
        out[(0, slice(None), *core.slices)] = tiled.slope(boxes_of(x), found, core)
    return out, found.parts


def difference(tiled: Any, whole: Any, x: Tensor) -> float:
    """Largest difference of the gradients, relative to the largest of the whole's."""
    wanted, _ = whole.slope(x)
    assert wanted.abs().max() > 0
    return ((gradient(tiled, x)[0] - wanted).abs().max() / wanted.abs().max()).item()


def terms_of(program: ModuleType, smoothing: losses.Smoothing, **weights: float) -> Any:
    """One term of the loss at a time, the others 0."""
    chosen = {"content_weight": 0.0, "style_weight": 0.0, "variation_weight": 0.0} | weights
    return program.Terms({CONTENT: 1.0}, dict.fromkeys(STYLE, 1 / 3), **chosen, smoothing=smoothing)


@pytest.mark.parametrize("smoothing", losses.SMOOTHINGS)
@pytest.mark.parametrize("weight", ["content_weight", "style_weight", "variation_weight"])
@pytest.mark.parametrize(("shape", "tile"), [((75, 109), 32), ((64, 96), 48), ((98, 51), 64)])
def test_tiles_give_the_gradient_of_the_whole(
    program: ModuleType, smoothing: losses.Smoothing, weight: str, shape: tuple[int, int], tile: int
) -> None:
    terms = terms_of(program, smoothing, **{weight: 1.0})
    whole, tiled, x = both(program, narrow(), terms, shape, tile)
    assert difference(tiled, whole, x) < 1e-9
    for name, part in gradient(tiled, x)[1].items():
        assert part.item() == pytest.approx(whole(x)[1][name].item(), rel=1e-9)


def test_every_padding_tiles(program: ModuleType) -> None:
    terms = terms_of(program, "none", content_weight=1.0, style_weight=100.0)
    whole, tiled, x = both(program, narrow("reflect"), terms, (90, 77), 32)
    assert difference(tiled, whole, x) < 1e-9


@pytest.mark.parametrize("name", ["resnet50", "inception-v3"])
def test_torchvisions_networks_tile(program: ModuleType, name: str) -> None:
    """Strided convolutions with and without padding, poolings that overlap, branches."""
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    layers = backbones.BACKBONES[name].style[:3]
    net = backbones.backbone(name, dtype=torch.float64)
    terms = program.Terms({layers[-1]: 1.0}, dict.fromkeys(layers, 1.0), style_weight=1e3)
    whole, tiled, x = both(program, net, terms, (139, 171), 64)
    assert tiled.reach.stride == 8 and len(tiled.cores) == 9
    assert difference(tiled, whole, x) < 1e-9


def test_half_the_halo_is_too_little_for_the_gradient(program: ModuleType) -> None:
    """One reach sees all cells of a core, but not all that the cells around it see."""
    terms = terms_of(program, "none", style_weight=1.0)
    whole, tiled, x = both(program, narrow(), terms, (75, 109), 32)

    class Short(type(tiled.reach)):  # type: ignore[misc]
        def window(self, core: Box, image: Box, times: int = 1) -> Box:
            return super().window(core, image, 1)

    short = Short(**vars(tiled.reach))
    assert difference(replace(tiled, reach=short), whole, x) > 1e-4


def test_a_stride_less_of_halo_is_too_little(program: ModuleType) -> None:
    terms = terms_of(program, "none", style_weight=1.0)
    whole, tiled, x = both(program, narrow(), terms, (75, 109), 32)
    short = replace(tiled.reach, halo=tiled.reach.halo - tiled.reach.stride, minimum=1)
    assert difference(replace(tiled, reach=replace(tiled.reach, minimum=1)), whole, x) < 1e-9
    assert abs(gradient(replace(tiled, reach=short), x)[1]["style"] / whole(x)[1]["style"] - 1) > 1e-6


def test_windows_off_the_stride_are_wrong(program: ModuleType) -> None:
    terms = terms_of(program, "none", content_weight=1.0)
    whole, tiled, x = both(program, narrow(), terms, (75, 109), 32)

    class Off(type(tiled.reach)):  # type: ignore[misc]
        def window(self, core: Box, image: Box, times: int = 1) -> Box:
            box = super().window(core, image, times)
            return replace(box, y0=max(0, box.y0 - 1), x0=max(0, box.x0 - 1))

    assert difference(replace(tiled, reach=Off(**vars(tiled.reach))), whole, x) > 1e-2


def test_the_cells_of_cores_are_a_partition(program: ModuleType) -> None:
    terms = terms_of(program, "none", style_weight=1.0)
    _, tiled, x = both(program, narrow(), terms, (75, 109), 32)
    sums = tiled.measure(boxes_of(x)).sums
    assert {k: s.cells for k, s in sums.items()} == {
        k: f.shape[2] * f.shape[3] for k, f in narrow()(x, terms.layers).items()
    }


def test_reach_is_that_of_the_layers(program: ModuleType) -> None:
    """relu3_1 sees 9 px above and 10 below a cell of 4; relu1_1 one on each side."""
    from optimization.reach import measure

    like = torch.zeros((), dtype=torch.float64)
    assert measure(narrow(), ["relu3_1"], like).halo == 12
    found = measure(narrow(), ["relu1_1"], like)
    assert (found.halo, found.stride) == (1, 1)


def test_scale_of_gatys_is_the_papers_formula(program: ModuleType) -> None:
    """E_l = sum of squared differences of F F^T / (4 N^2 M^2), of two images of one size."""
    net, x, y = narrow(), random_picture(40, 48, 1), random_picture(40, 48, 2)
    terms = program.Terms({CONTENT: 1.0}, {"relu2_1": 1.0}, scale="gatys")
    f, a = (net(t, ["relu2_1"])["relu2_1"][0].flatten(1) for t in (x, y))
    n, m = f.shape
    wanted = (f @ f.T - a @ a.T).square().sum() / (4 * n**2 * m**2)
    from optimization.objective import style_targets

    whole = program.Whole.of(net, terms, style_targets(net, terms, y), x)
    assert whole(x)[1]["style"].item() == pytest.approx(wanted.item(), rel=1e-9)


def test_adam_is_pytorchs(program: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 4, 5, generator=generator)
    other = x.clone().requires_grad_()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    adam, theirs = program.Adam(0.02, 10), torch.optim.Adam([other], lr=0.02)
    for step in range(10):
        g = torch.randn(3, 4, 5, generator=generator)
        x, other.grad = adam(x, m, v, g, step), g
        theirs.step()
    assert torch.allclose(x, other.detach(), atol=1e-6)


# The program


class Killed(BaseException):
    """What a test stops a run with."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import picture

    folder = tmp_path_factory.mktemp("images")
    write_png(folder / "content.png", picture(70, 90, 0))
    write_png(folder / "style.png", picture(64, 80, 1))
    return folder


@pytest.fixture
def words(images: Path, tmp_path: Path) -> list[str]:
    """A complete command line, small and exact."""
    given = {
        "content": images / "content.png", "style": images / "style.png", "out": tmp_path / "run",
        "style-size": 48, "backbone": "distilled", "style-layers": "relu1_1,relu2_1", "style-weight": 100,
        "content-layers": "relu2_1", "optimizer": "adam", "steps": 4, "save-every": 2, "sample-every": 2,
        "precision": "float64", "threads": 1,
    }  # fmt: skip
    return flags(given)


def result(folder: Path) -> np.ndarray:
    return tifffile.imread(folder / "picture.tif", level=0)


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "losses.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("start", ["content", "noise"])
def test_steps_in_tiles_equal_steps_in_memory(
    program: ModuleType, words: list[str], tmp_path: Path, start: str
) -> None:
    words = [*words, "--start", start]
    assert program.main(words) == 0
    assert program.main([*words, "--tile", "32", "--out", str(tmp_path / "tiles")]) == 0
    whole = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["x"][0].numpy()
    tiles = np.fromfile(tmp_path / "tiles" / "state" / "image.0").reshape(whole.shape)
    assert np.abs(whole - tiles).max() < 1e-8
    one, two = rows(tmp_path / "run"), rows(tmp_path / "tiles")
    assert [row["step"] for row in one] == [1, 2, 3, 4]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-12)
    assert np.abs(result(tmp_path / "run").astype(int) - result(tmp_path / "tiles")).max() <= 1
    assert (tmp_path / "tiles" / "preview.png").exists() and not (tmp_path / "tiles" / "parts").exists()


@pytest.mark.parametrize(
    ("optimizer", "steps", "stop"), [("adam", 5, 3), pytest.param("lbfgs", 50, 32, marks=pytest.mark.slow)]
)
def test_a_stopped_run_goes_on_to_the_bit(
    program: ModuleType, words: list[str], tmp_path: Path, optimizer: str, steps: int, stop: int
) -> None:
    words = [*words, "--optimizer", optimizer, "--steps", str(steps)]
    assert program.main(words) == 0
    other = [*words, "--out", str(tmp_path / "other")]
    begun = program.optimize(program.parse(program.Settings, other, ""))
    for _ in range(stop):  # beyond the checkpoint, not to the next
        next(begun)
    begun.close()
    assert program.main(other) == 0
    one, two = rows(tmp_path / "run"), rows(tmp_path / "other")
    assert len(one) >= steps and len(one) // 3 < len(two) < len(one)
    assert one[-len(two) :] == two
    kept = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)["x"] for run in ("run", "other")]
    assert torch.equal(*kept)


def test_fewer_steps_than_done_give_the_picture_as_it_is(
    program: ModuleType, words: list[str], tmp_path: Path
) -> None:
    """Stopped within its third step: two are whole."""
    words = [*words, "--tile", "32"]
    finish = program.Files.finish

    def stop(self: Any, entry: Any, box: Box) -> None:
        if (entry.step, entry.tile) == (2, 4):
            raise Killed
        finish(self, entry, box)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(program.Files, "finish", stop)
        program.main(words)
    assert program.main([*words, "--steps", "2"]) == 0
    assert program.main([*words, "--steps", "2", "--out", str(tmp_path / "two")]) == 0
    assert np.array_equal(result(tmp_path / "run"), result(tmp_path / "two"))


def test_more_steps_go_on(program: ModuleType, words: list[str], tmp_path: Path) -> None:
    words = [*words, "--tile", "32"]
    assert program.main([*words, "--steps", "2"]) == 0
    assert program.main([*words, "--steps", "2"]) == 0  # nothing left to do
    assert program.main(words) == 0
    other = [*words, "--out", str(tmp_path / "other")]
    assert program.main(other) == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "other")
    assert np.array_equal(result(tmp_path / "run"), result(tmp_path / "other"))


@pytest.mark.parametrize(
    ("moment", "before"), [(0, True), (4, False), (8, False), (9, True), (13, True), (26, False)]
)
def test_a_kill_at_any_tile_changes_nothing(
    program: ModuleType,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
    before: bool,
) -> None:
    """Nine tiles, three steps; killed before a journal, or after it with the files half-written."""
    words = [*words, "--tile", "32", "--steps", "3"]
    assert program.main(words) == 0
    other = [*words, "--out", str(tmp_path / "other")]
    whole, count = program.Files._apply, 0

    def fail(self: Any, entry: Any, box: Box) -> None:
        nonlocal count
        count += 1
        if count <= moment:
            return whole(self, entry, box)
        if not before:
            self.write("mean", box, entry.mean + 1)
        raise Killed

    journal = program.Files.finish

    def die(self: Any, entry: Any, box: Box) -> None:
        if before and count == moment:
            raise Killed
        journal(self, entry, box)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(program.Files, "_apply", fail)
        patch.setattr(program.Files, "finish", die)
        program.main(other)
    assert program.main(other) == 0
    assert rows(tmp_path / "other") == rows(tmp_path / "run")
    assert np.array_equal(result(tmp_path / "other"), result(tmp_path / "run"))
    for name in ("mean", "square", "image.1"):
        one, two = ((tmp_path / run / "state" / name).read_bytes() for run in ("run", "other"))
        assert one == two


@pytest.mark.parametrize("smoothing", losses.SMOOTHINGS)
def test_lbfgs_lowers_the_loss(
    program: ModuleType, words: list[str], tmp_path: Path, smoothing: losses.Smoothing
) -> None:
    words = [
        *words,
        "--optimizer",
        "lbfgs",
        "--smoothing",
        smoothing,
        "--steps",
        "40",
        "--style-weight",
        "-1",
    ]
    assert program.main(words) == 0
    total = [row["total"] for row in rows(tmp_path / "run")]
    # a softmax over the map is nearly flat, its losses are 1e-24: slow, but it moves
    share = 0.995 if smoothing == "map" else 0.7
    assert len(total) >= 40 and total[-1] < share * total[0]


def test_adam_lowers_the_loss(program: ModuleType, words: list[str], tmp_path: Path) -> None:
    assert program.main([*words, "--tile", "48", "--steps", "12", "--cooldown", "6"]) == 0
    total = [row["total"] for row in rows(tmp_path / "run")]
    assert total[-1] < 0.7 * total[0]


def test_an_image_with_transparency_keeps_it(
    program: ModuleType, words: list[str], tmp_path: Path, images: Path
) -> None:
    from helpers import picture

    alpha = np.zeros((70, 90, 1), np.uint8)
    alpha[10:60, 5:80] = 255
    write_png(tmp_path / "clear.png", np.dstack([picture(70, 90, 0), alpha]))
    assert program.main([*words, "--content", str(tmp_path / "clear.png"), "--tile", "32"]) == 0
    assert np.array_equal(result(tmp_path / "run")[..., 3:], alpha)


def large(images: Path) -> list[str]:
    """A content of 141 x 183 px, which is odd at each scale."""
    from helpers import picture

    write_png(images / "large.png", picture(141, 183, 2))
    return ["--content", str(images / "large.png"), "--scales", "3"]


def test_scales_go_from_coarse_to_fine_in_memory_and_in_tiles(
    program: ModuleType, words: list[str], tmp_path: Path, images: Path
) -> None:
    words = [*words, *large(images), "--finer-steps", "2"]
    assert program.main(words) == 0
    folders = [tmp_path / "run" / name for name in ("scale-4", "scale-2", ".")]
    assert [result(folder).shape for folder in folders] == [(36, 46, 3), (71, 92, 3), (141, 183, 3)]
    assert [len(rows(folder)) for folder in folders] == [4, 2, 2]
    assert program.main([*words, "--tile", "32", "--out", str(tmp_path / "tiles")]) == 0
    for folder in folders:
        one = rows(folder), result(folder)
        two = (read(tmp_path / "tiles" / folder.relative_to(tmp_path / "run")) for read in (rows, result))
        for a, b in zip(one[0], next(two), strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-12)
        assert np.abs(one[1].astype(int) - next(two)).max() <= 1
    assert program.main(words) == 0  # nothing left to do, and nothing changes
    assert np.array_equal(result(folders[-1]), one[1])


def test_a_finer_scale_begins_with_the_enlarged_picture_above(
    program: ModuleType, words: list[str], tmp_path: Path, images: Path
) -> None:
    words = [*words, *large(images), "--rate", "1e-9", "--scales", "2"]
    assert program.main(words) == 0
    above = result(tmp_path / "run" / "scale-2").astype(np.float64)
    wide = torch.nn.functional.interpolate(
        torch.from_numpy(above).permute(2, 0, 1)[None], scale_factor=2, mode="bilinear", align_corners=False
    )[0].permute(1, 2, 0)[:141, :183]
    assert np.abs(result(tmp_path / "run") - wide.numpy()).max() <= 0.51


def test_the_style_image_grows_with_the_scale_up_to_its_own_size(
    program: ModuleType, words: list[str], images: Path
) -> None:
    settings = program.parse(program.Settings, [*words, "--scales", "4", "--style-size", "24"], "")
    scales = list(program.coarse_to_fine(settings))
    assert [here.style_size for here, _ in scales] == [24, 48, 64, 64]
    assert [scale.halvings for _, scale in scales] == [3, 2, 1, 0]
    assert [here.steps for here, _ in scales] == [4, 2, 2, 2]
    assert scales[0][1].above is None and scales[-1][1].above == settings.out / "scale-2" / "picture.tif"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--scales", "0"], "--scales"),
        (["--scales", "2", "--style", "/nowhere.png"], "/nowhere.png"),
        (["--scales", "9"], "needs"),
        (["--content", "/nowhere.png"], "/nowhere.png"),
        (["--style", "/nowhere.png"], "/nowhere.png"),
        (["--backbone", "vgg20"], "vgg20"),
        (["--backbone-weights", "/nowhere.pth"], "/nowhere.pth"),
        (["--smoothing", "hard"], "none, channels, map, scale"),
        (["--style-layers", "relu9_1", "--backbone", "vgg19"], "relu9_1"),
        (["--style-shares", "1,2,3"], "relu1_1, relu2_1"),
        (["--tile", "32", "--optimizer", "lbfgs"], "--optimizer adam"),
        (["--tile", "32", "--size", "64"], "--size"),
        (["--tile", "33"], "multiple of 2"),
        (["--device", "abacus"], "abacus"),
        (["--steps", "few"], "few"),
        (["--rate", "1e300", "--tile", "32"], "not finite"),
    ],
)
def test_bad_input_is_one_sentence(
    program: ModuleType, words: list[str], more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([*words, *more]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_other_settings_do_not_go_on(
    program: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for tile in ("0", "32"):
        more = [*words, "--tile", tile, "--out", f"{words[5]}-{tile}"]
        assert program.main(more) == 0
        assert program.main([*more, "--style-weight", "7"]) == JobDiffers.exit_status
        assert "another loss" in capsys.readouterr().err


def test_a_damaged_state_is_one_sentence(
    program: ModuleType, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, "--tile", "32"]
    assert program.main(words) == 0
    state = tmp_path / "run" / "state"
    (state / "journal.npz").write_bytes((state / "journal.npz").read_bytes()[:1000])
    assert program.main(words) == DamagedFile.exit_status
    assert "journal.npz" in capsys.readouterr().err
    (state / "mean").write_bytes(b"")
    assert program.main(words) == DamagedFile.exit_status
    assert "mean" in capsys.readouterr().err


@pytest.mark.parametrize("side", [40, 128])
def test_a_small_picture_opens_in_libvips(program: ModuleType, tmp_path: Path, side: int) -> None:
    """With tiles of 512 px it would be refused."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    pictures = program.pictures
    read = pictures.planes(pictures.WindowReader(array_source(pixels)), "float32")
    pictures.write_pyramid(tmp_path / "o.tif", read, array_source(pixels), tmp_path / "parts", "f00d")
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(tmp_path / "o.tif")).numpy(), pixels)


def test_a_picture_too_small_is_refused(
    program: ModuleType, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "dot.png", np.zeros((1, 40, 3), np.uint8))
    assert program.main([*words, "--content", str(tmp_path / "dot.png")]) == 2
    assert "needs" in capsys.readouterr().err
