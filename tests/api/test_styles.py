"""Named styles and odd style images, as a user meets them: `lite` is the default and needs nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import picture

import urst_tiles as ut
from urst_tiles.api.contact_sheet import in_style
from urst_tiles.source.picture import write_png


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights but those that ship."""
    monkeypatch.setenv("URST_TILES_WEIGHTS", str(tmp_path / "none"))


def pixels(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path)).numpy()[..., :3]


def test_a_word_is_a_style(run, files: Path, tmp_path: Path) -> None:
    done = run("stylize", files / "small.tif", tmp_path / "out.tif", "--style", "hokusai-wave")
    assert done.returncode == 0 and ut.validate(tmp_path / "out.tif").valid
    before, after = pixels(files / "small.tif"), pixels(tmp_path / "out.tif")
    assert after.shape == before.shape and np.abs(after.astype(float) - before).mean() > 10


def test_styles_differ_and_mix(files: Path, tmp_path: Path) -> None:
    styles = {
        "a": "munch-scream",
        "b": "roerich-mountains",
        "c": [("munch-scream", 1), ("roerich-mountains", 1)],
    }
    for name, style in styles.items():
        ut.stylize(files / "small.tif", tmp_path / f"{name}.tif", style)
    a, b, c = (pixels(tmp_path / f"{name}.tif").mean(axis=(0, 1)) for name in styles)
    assert np.abs(a - b).max() > 20
    assert (np.abs(c - (a + b) / 2) < np.abs(a - b).max() / 2).all()


def test_another_picture_under_the_same_name_is_another_style(files: Path, tmp_path: Path) -> None:
    """In one process, job after job: nothing is remembered of the first."""
    found = []
    for value in (30, 220):
        art = np.full((64, 64, 3), value, np.uint8)
        art[::3] = 128
        write_png(tmp_path / "style.png", art)
        ut.stylize(files / "small.tif", tmp_path / "out.tif", tmp_path / "style.png", overwrite=True)
        found.append(pixels(tmp_path / "out.tif").mean())
    assert abs(found[0] - found[1]) > 20


def test_they_are_listed(run, tmp_path: Path) -> None:
    done = run("styles")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(ut.named_styles()) >= 24
    assert any(line.startswith("hokusai-wave ") and "Hokusai" in line for line in lines)


def test_contact_sheet(run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("styles", "--sheet", tmp_path / "sheet.png").returncode == 0
    sheet = pixels(tmp_path / "sheet.png")
    count = len(ut.named_styles()) + 1
    side, gap = 256, 8
    assert sheet.shape[:2] == (-(-count // 6) * (side + gap) - gap, 6 * (side + gap) - gap)
    squares = [
        sheet[y : y + side, x : x + side] for y in range(0, len(sheet), 264) for x in range(0, 1576, 264)
    ]
    means = [tuple(square.mean(axis=(0, 1)).round(1)) for square in squares[:count]]
    assert len(set(means)) == count
    first = dict(list(ut.named_styles().items())[:1])
    monkeypatch.setattr("urst_tiles.api.contact_sheet.named_styles", lambda: first)
    own = run("styles", "--sheet", tmp_path / "own.png", "--input", files / "style.png")
    assert own.returncode == 0
    for square in (np.s_[:side, :side], np.s_[:side, side + gap : 2 * side + gap]):
        assert not np.array_equal(pixels(tmp_path / "own.png")[square], sheet[square])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--style", "hokusai"), ("hokusai", "hokusai-wave", "urst-tiles styles")),
        (("--style", "van-gogh-iris"), ("van-gogh-irises",)),
        (("--style", "zzz"), ("zzz", "urst-tiles styles")),
        (("--style", "munch-scream", "--model", "identity"), ("munch-scream", "--model lite")),
        (("--style", "munch-scream", "--style-size", "300"), ("munch-scream", "--style-size 512")),
    ],
)
def test_neither_file_nor_name(run, files: Path, tmp_path: Path, words: tuple, said: tuple) -> None:
    done = run("stylize", files / "small.tif", tmp_path / "out.tif", *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in said), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_sheet_opens_what_a_job_opens(run, tmp_path: Path) -> None:
    """A dark scene of 16 bits that libvips cannot decode: stretched, as `stylize` reads it."""
    scene = (picture(320, 400).astype(np.uint16) * 3 + 200).astype(np.uint16)
    tifffile.imwrite(tmp_path / "scene.tif", scene, compression="zstd", photometric="rgb")
    done = run("styles", "--sheet", tmp_path / "a.png", "--input", tmp_path / "scene.tif", "--model", "lite")
    assert done.returncode == 0, done.stderr
    first = pixels(tmp_path / "a.png")[:256, :256].astype(float)
    low, high = np.percentile(scene, (2, 98))
    wanted = 255 * np.clip((scene - low) / (high - low), 0, 1)
    assert abs(first.mean() - wanted.mean()) < 6 and abs(first.std() - wanted.std()) < 12
    (tmp_path / "cut.tif").write_bytes((tmp_path / "scene.tif").read_bytes()[:5000])
    bad = run("styles", "--sheet", tmp_path / "b.png", "--input", tmp_path / "cut.tif", "--model", "lite")
    assert bad.returncode and "cut.tif" in bad.stderr and "style image" not in bad.stderr
    assert not (tmp_path / "b.png").exists()


def test_a_sheet_of_the_painter_with_labels(
    run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dict(list(ut.named_styles().items())[:2])
    monkeypatch.setattr("urst_tiles.api.contact_sheet.named_styles", lambda: first)
    flags = ("--input", files / "style.png", "--model", "painter")
    assert run("styles", "--sheet", tmp_path / "plain.png", *flags).returncode == 0
    assert run("styles", "--sheet", tmp_path / "lite.png", *flags[:2]).returncode == 0
    assert run("styles", "--sheet", tmp_path / "named.png", *flags, "--labels").returncode == 0
    plain, lite, named = (pixels(tmp_path / f"{name}.png").astype(int) for name in ("plain", "lite", "named"))
    second = np.s_[:256, 264:520]
    assert np.abs(plain - lite)[second].mean() > 5 and (plain == lite)[:256, :256].all()
    changed = (plain != named).any(-1)
    assert changed[-60:, 264:464].mean() > 0.1 and not changed[:-60].any()
    done = run("styles", "--sheet", tmp_path / "x.png", "--model", "microast")
    assert done.returncode == 2 and "lite and painter" in done.stderr
    done = run("styles", "--model", "painter")
    assert done.returncode == 2 and "--sheet" in done.stderr


def test_a_sheet_must_be_a_png_or_a_jpeg(run, tmp_path: Path) -> None:
    done = run("styles", "--sheet", tmp_path / "sheet.gif")
    assert done.returncode == 2 and "sheet.png" in done.stderr


def odd_style(kind: str, path: Path) -> Path:
    """A style image that is grey, tiny, huge, deep, transparent or flat."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (90, 120, 3), np.uint8)
    if kind == "grey":
        pyvips.Image.new_from_array(colours[..., 0].copy()).write_to_file(str(path))
    elif kind == "tiny":
        write_png(path, colours[:16, :16])
    elif kind == "huge":
        patches = pyvips.Image.new_from_array(colours[:20, :20].copy())
        patches.zoom(1000, 1000).write_to_file(str(path), compression=1)
    elif kind == "deep":
        pyvips.Image.new_from_array(colours.astype(np.uint16) * 257).write_to_file(str(path))
    elif kind == "transparent":
        write_png(path, np.dstack([colours, colours[..., 0]]))
    else:
        write_png(path, np.full((64, 64, 3), (200, 30, 90), np.uint8))
    return path


@pytest.mark.parametrize("kind", ["grey", "tiny", "huge", "deep", "transparent", "flat"])
def test_odd_style_images_work(kind: str, files: Path, tmp_path: Path) -> None:
    style = odd_style(kind, tmp_path / "style.png")
    ut.stylize(files / "small.tif", tmp_path / "out.tif", style)
    after = pixels(tmp_path / "out.tif").astype(float)
    assert ut.validate(tmp_path / "out.tif").valid
    if kind == "flat":
        assert np.abs(after.mean(axis=(0, 1)) - (200, 30, 90)).max() < 25
    elif kind == "grey":
        assert np.abs(after[..., 0] - after[..., 1]).mean() < 25
    else:
        assert after.std() > 5


def test_alpha_0_is_the_image(files: Path, tmp_path: Path) -> None:
    ut.stylize(files / "small.tif", tmp_path / "out.tif", "munch-scream", alpha=0.0)
    assert np.abs(pixels(tmp_path / "out.tif").astype(int) - pixels(files / "small.tif")).max() <= 1


@pytest.mark.parametrize("model", ["painter", "lite"])
def test_a_square_of_a_sheet_is_what_a_job_makes(files: Path, tmp_path: Path, model: str) -> None:
    """With the noise from which strokes begin where an image is flat."""
    square = pixels(files / "style.png")[:96, :128].copy()
    square[20:90, 30:120] = 40
    write_png(tmp_path / "square.png", square)
    statistics = "sampled" if model == "painter" else "exact"
    options = ut.Options(model=model, precision="float32", statistics=statistics)
    ut.stylize(tmp_path / "square.png", tmp_path / "made.png", "van-gogh-starry-night", options)
    shown = in_style(square, "van-gogh-starry-night", model)
    assert np.abs(pixels(tmp_path / "made.png").astype(int) - shown).max() <= 1
