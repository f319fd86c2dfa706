"""How alike paintings are, and the style of an image that is predicted from it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import picture

import urst_tiles as ut
from urst_tiles import weights
from urst_tiles.moments import Moments
from urst_tiles.nets import likeness, lite, named_styles, painter, painter_styles, style_rows, tones
from urst_tiles.source.picture import read_picture, write_png

NAMES = list(named_styles.titles())


@pytest.fixture
def like(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An image that is taken for one whose statistics lie near those of a style."""
    one, other = (lite.pack(named_styles.features(name)).double() for name in ("klimt-kiss", "munch-scream"))
    monkeypatch.setattr(likeness, "statistics", lambda image: 0.9 * one + 0.1 * other)
    return np.zeros((8, 8, 3), np.float32)


def test_a_name_of_another_network_has_no_share(like: np.ndarray) -> None:
    share = likeness.shares(likeness.statistics(like), ["noon", "klimt-kiss", "dusk"])
    assert share is not None and np.allclose(share, [0, 1, 0])
    assert likeness.shares(likeness.statistics(like), ["noon", "dusk"]) is None
    assert [likeness.is_any_known(names) for names in (["noon", "klimt-kiss"], ["noon"])] == [True, False]


def test_shares_are_those_of_a_ridge_regression(like: np.ndarray) -> None:
    """Of some parameters on the statistics, by its normal equations in as many unknowns as there are
    statistics."""
    rows = np.stack([lite.pack(named_styles.features(name)).double().numpy() for name in NAMES])
    deviation = (rows.std(0, ddof=1) + 1e-3) * rows.shape[1] ** 0.5
    centre = rows.mean(0)
    x, own = (rows - centre) / deviation, (likeness.statistics(like).numpy() - centre) / deviation
    y = np.random.default_rng(0).normal(size=(len(NAMES), 5))
    ridge = likeness.RIDGE * (x**2).sum(1).mean()
    slopes = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    share = likeness.shares(likeness.statistics(like), NAMES)
    assert share is not None and share.sum() == pytest.approx(1)
    assert np.allclose(share @ y, y.mean(0) + own @ slopes, atol=1e-9)
    assert NAMES[int(share.argmax())] == "klimt-kiss"


def test_statistics_are_those_by_which_the_named_styles_were_measured(tmp_path: Path) -> None:
    write_png(tmp_path / "mine.png", picture(300, 280, 3))
    image = read_picture(tmp_path / "mine.png", 256)
    state = {lite.FILE: weights.load(weights.find("lite", tmp_path)[lite.FILE])}
    assert np.allclose(likeness.statistics(image), lite.pack(lite.build(state, [(image, 1.0)]).features))


def test_a_predicted_style_has_the_colours_of_its_image(tmp_path: Path) -> None:
    state = weights.load(weights.find("painter", tmp_path)[painter.FILE])
    image = picture(96, 128, 4).astype(np.float32) / 255
    names = style_rows.names_in(state["styles"])
    row = painter_styles.predicted(image, state, names)
    share, more = painter_styles.predicted_shares(image, state, names)
    colours = Moments.of(image.reshape(-1, 3).T.astype(np.float64), full=True)
    assert np.allclose(row["colour.mean"], colours.mean)
    assert np.allclose(row["colour.covariance"], colours.covariance(1))
    assert float(row["colour.skewness"]) == tones.skewness(image) != 0
    assert share is not None
    for k in painter_styles.PER_STYLE:
        mixed = np.tensordot(share[0], state[k].double().numpy(), 1)
        assert np.allclose(row[k], mixed + more[k].numpy()), k


def test_an_image_paints_in_its_colours_and_it_is_said_how(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "scene.tif", picture(200, 240), photometric="rgb")
    means = {}
    for name, level in (("red.png", 0), ("blue.png", 2)):
        painting = picture(120, 150, 6) // 3
        painting[..., level] += 120
        write_png(tmp_path / name, painting)
        with caplog.at_level(logging.WARNING, "urst_tiles.told"):
            ut.stylize(
                tmp_path / "scene.tif", tmp_path / "out.tif", tmp_path / name, model="painter", overwrite=True
            )
        means[name] = tifffile.imread(tmp_path / "out.tif").mean((0, 1))
        assert f"{name}: the style is predicted from" in caplog.text
        # strokes move the mean, on seven real paintings by 4 levels and at most 11; this one is made up
        assert np.abs(means[name] - painting.mean((0, 1))).max() < 25, means[name]
