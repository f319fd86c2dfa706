"""How peaked activations are: the numbers, the paper's trend with random weights, and what is written."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pyvips
import torch

from urst_tiles.losses.torchvision_files import models

Rows = dict[tuple[str, str], list[dict[str, str]]]


@pytest.fixture(scope="module")
def statistics(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("activation_statistics")


def run(statistics: ModuleType, out: Path, *options: str) -> Rows:
    """(backbone, smoothing) -> the rows of its stages."""
    small = ["--size=75", "--count=1", "--seeds=1"]
    assert statistics.main([f"--out={out}", *small, *options]) == 0
    rows: Rows = {}
    with open(out / "statistics.csv", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault((row["backbone"], row["smoothing"]), []).append(row)
    return rows


def numbers(rows: list[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def test_entropy_is_the_formula(statistics: ModuleType) -> None:
    x = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]], [[[3.0, 3.0], [3.0, 3.0]]]])
    p = np.exp([0, 1, 2, 5]) / np.exp([0, 1, 2, 5]).sum()
    expected = -(p * np.log(p)).sum() / math.log(4)
    assert statistics.entropy(x).tolist() == pytest.approx([expected, 1.0])
    assert statistics.entropy(1000 * x).tolist() == pytest.approx([0.0, 1.0])
    q = np.array([1, 2, 5]) / 8  # nothing for the 0
    expected = -(q * np.log(q)).sum() / math.log(4)
    assert statistics.share_entropy(x).tolist() == pytest.approx([expected, 1.0])
    torch.testing.assert_close(statistics.share_entropy(8 * x), statistics.share_entropy(x))


def test_gram_is_the_mean_over_places(statistics: ModuleType) -> None:
    f = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).view(1, 2, 1, 2)
    gram = torch.tensor([[1.0, 3.0], [3.0, 25.0]]) / 2
    found = statistics.measure(f)
    assert found["maximum"] == 4.0 and found["gram_maximum"] == 12.5
    assert found["entropy"] == pytest.approx(statistics.entropy(f).item())
    assert found["gram_entropy"] == pytest.approx(statistics.entropy(gram[None]).item())
    assert found["gram_share_entropy"] == pytest.approx(statistics.share_entropy(gram[None]).item())


@pytest.mark.parametrize(
    ("residual", "plain"),
    [("resnet50", "resnet50-plain"), pytest.param("pseudo-resvgg", "pseudo-vgg", marks=pytest.mark.slow)],
)
def test_shortcuts_make_peaks(statistics: ModuleType, tmp_path: Path, residual: str, plain: str) -> None:
    """[1, section 3] with random weights: maxima grow and entropies fall with the shortcuts alone."""
    rows = run(statistics, tmp_path, "--backbones", residual, plain)
    peaked, even = rows[residual, "none"], rows[plain, "none"]
    for prefix in ("", "gram_"):
        maxima, entropies = (numbers(peaked, prefix + k) for k in ("maximum", "entropy"))
        assert maxima == sorted(maxima) and maxima[4] > 30 * maxima[0]
        assert entropies[0] > 0.95 and entropies[4] < 0.2
        assert entropies[3] < entropies[2] < entropies[1]
        maxima, entropies = (numbers(even, prefix + k) for k in ("maximum", "entropy"))
        assert maxima[4] < maxima[0] and min(entropies) > 0.95
        for how in ("channels", "map"):
            assert min(numbers(rows[residual, how], prefix + "entropy")) > 0.98
    assert [row["stage"] for row in peaked] == list("12345")
    assert [row["layer"] for row in peaked] == ["stem", "conv1_2", "conv2_3", "conv3_5", "conv4_2"]


def test_scale_is_of_the_deep_layers_alone(statistics: ModuleType, tmp_path: Path) -> None:
    rows = run(statistics, tmp_path, "--backbones=resnet50", "--smoothings", "none", "scale")
    whole, scaled = (numbers(rows["resnet50", how], "maximum") for how in ("none", "scale"))
    assert scaled[:3] == whole[:3]
    assert scaled[3:] == pytest.approx([0.001 * value for value in whole[3:]], rel=1e-4)
    entropies = numbers(rows["resnet50", "scale"], "entropy")
    assert min(entropies[3:]) > 0.99 > entropies[2]


def test_vgg_and_inception_are_even(statistics: ModuleType, tmp_path: Path) -> None:
    rows = run(statistics, tmp_path, "--backbones", "vgg19", "inception-v3", "--smoothings=none")
    for name, least in (("vgg19", 0.95), ("inception-v3", 0.8)):
        assert min(numbers(rows[name, "none"], "entropy")) > least


@pytest.mark.slow
def test_seeds_are_averaged_and_their_spread_is_given(statistics: ModuleType, tmp_path: Path) -> None:
    options = ["--backbones=resnet50-plain", "--smoothings=none"]
    (both,) = run(statistics, tmp_path / "both", *options, "--seeds=2").values()
    (one,) = run(statistics, tmp_path / "one", *options).values()
    first, mean = numbers(one, "maximum"), numbers(both, "maximum")
    for a, m, spread in zip(first, mean, numbers(both, "maximum_spread"), strict=True):
        assert spread == pytest.approx(math.sqrt(2) * abs(a - m), rel=0.05)  # of two values
    assert both[0]["weights"] == "random, 2 seeds" and set(numbers(one, "maximum_spread")) == {0.0}


def test_settled_normalisations_hold_the_scale(statistics: ModuleType, tmp_path: Path) -> None:
    options = ["--backbones=resnet50", "--smoothings=none"]
    (free,) = run(statistics, tmp_path, *options).values()
    (settled,) = run(statistics, tmp_path, *options, "--batch-norm=settled").values()
    growth = [values[4] / values[0] for values in (numbers(rows, "maximum") for rows in (free, settled))]
    assert growth[0] > 30 and growth[1] < 5


def test_weights_of_ones_own(statistics: ModuleType, tmp_path: Path) -> None:
    net = models().resnet50()
    torch.nn.init.constant_(net.bn1.bias, 7.0)  # the stem: 7 and what the random weights give
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    options = ["--backbones=resnet50", "--smoothings=none", f"--weights=resnet50={tmp_path / 'mine.pth'}"]
    (rows,) = run(statistics, tmp_path, *options, "--batch-norm=settled").values()
    assert rows[0]["weights"] == "mine.pth" and float(rows[0]["maximum"]) > 7
    assert float(rows[4]["maximum"]) > 30 * float(rows[0]["maximum"])  # nothing of the file is settled
    assert {row["maximum_spread"] for row in rows} == {"0"}


def test_pictures_are_the_middles_of_the_first_files(statistics: ModuleType, tmp_path: Path) -> None:
    for name, level in (("b.png", 0), ("a.png", 51), ("c.png", 255)):
        pixels = np.full((80, 100, 3), level, np.uint8)
        pixels[:, :10] = 255  # outside the middle
        pyvips.Image.new_from_array(pixels).pngsave(str(tmp_path / name))
    (tmp_path / "notes.txt").write_text("no image")
    first, second = statistics.from_folder(tmp_path, 2, 80)
    assert first.shape == (1, 3, 80, 80) and torch.allclose(first, torch.tensor(0.2))
    assert second.max() == 0


def test_made_up_pictures_are_several_and_the_same_every_time(statistics: ModuleType) -> None:
    one, again = (list(statistics.made_up(5, 75)) for _ in range(2))
    assert [x.shape for x in one] == [(1, 3, 75, 75)] * 5
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(not torch.equal(one[0], other) for other in one[1:])
    assert all(0 <= x.min() and x.max() <= 1 and x.std() > 0.03 for x in one)


def test_the_plot_and_the_printed_table(
    statistics: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(statistics, tmp_path, "--backbones=resnet50-plain", "--smoothings", "none", "map")
    image = pyvips.Image.new_from_file(str(tmp_path / "statistics.png")).numpy()
    assert image.shape[:2] == (512, 768) and 0.02 < (image[..., :3] < 250).any(2).mean() < 0.5
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["backbone", "smoothing", "maximum,"]
    assert [line.split()[:2] for line in lines] == [["resnet50-plain", "none"], ["resnet50-plain", "map"]]
    assert all(len(line.split()) == 12 and len(line) <= 110 for line in lines)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--images=nowhere"], "there is no folder nowhere of images"),
        (["--images={here}"], "holds no image (known: .jpeg"),
        (["--size=74"], "--size must be at least 75, got 74"),
        (["--seeds=0"], "--seeds must be at least 1, got 0"),
        (["--weights=resnet51=a.pth"], "--weights must be NAME=FILE, NAME one of vgg19,"),
        (["--weights=resnet50"], "got 'resnet50'"),
        (["--backbones=resnet50", "--weights=resnet50=nosuch.pth"], "nosuch.pth is missing"),
        (["--backbones=teachers"], "teachers needs two files"),
        (["--device=nosuch"], "--device nosuch cannot be used"),
    ],
)
def test_mistakes_are_one_sentence(
    statistics: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    sentence: str,
) -> None:
    words = [option.format(here=tmp_path) for option in options]
    assert statistics.main([f"--out={tmp_path}", "--count=1", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("activation_statistics: ") and sentence in line
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_asked_for_before_the_work(
    statistics: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert statistics.main([f"--out={tmp_path / 'out'}"]) == 2
    assert "the plot needs matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
