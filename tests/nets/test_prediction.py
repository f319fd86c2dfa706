"""The style of an image that nothing has learned: what is added to the mixture of named styles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture
from torch import Tensor

from urst_tiles.errors import BadWeights
from urst_tiles.nets import likeness, painter, painter_styles, prediction
from urst_tiles.nets.style_rows import encoded

NAMES = ["klimt-kiss", "munch-scream", "monet-bridge"]


@pytest.fixture
def state() -> dict[str, Tensor]:
    """The file of a small painter with three of the named styles and a random prediction."""
    state = painter.seeded(0, 1 / 4)[painter.FILE]
    state["styles"] = encoded(NAMES)
    random = torch.Generator().manual_seed(1)
    for k, shape in painter_styles.prediction_shapes(3, painter_styles.form_of(state), 5).items():
        state[k] = 0.05 * torch.randn(shape, generator=random)
        if k.startswith(prediction.EXPONENT):
            state[k] = torch.randint(-3, 1, shape, generator=random, dtype=torch.int8)
    state[prediction.DEVIATION] = state[prediction.DEVIATION].abs() + 0.1
    return state


@pytest.fixture
def image() -> np.ndarray:
    return picture(96, 128, 4).astype(np.float32) / 255


def test_a_file_with_a_prediction_is_whole(state: dict[str, Tensor], tmp_path: Path) -> None:
    painter.check(state, painter.FILE, tmp_path / "painter.safetensors")
    assert prediction.is_in(state) and prediction.hidden_of(state) == 5
    del state["prediction.row.bias"]
    with pytest.raises(BadWeights, match="prediction.row.bias"):
        painter.check(state, painter.FILE, tmp_path / "painter.safetensors")


def test_what_is_predicted_by_hand(state: dict[str, Tensor], image: np.ndarray) -> None:
    """A hidden layer of standardised statistics, cut at four deviations, gives shares and parameters."""
    part = {
        k.removeprefix("prediction."): t.double().numpy() for k, t in state.items() if k.startswith("pred")
    }
    own = (likeness.statistics(image).numpy() - part["center"]) / part["deviation"]
    assert (np.abs(own) > 4).any()
    h = np.maximum(0, part["hidden.weight"] @ np.clip(own, -4, 4) + part["hidden.bias"])
    sets = part["share.weight"] @ h + part["share.bias"]
    row = part["row.weight"] @ h + part["row.bias"]
    sets = sets + likeness.shares(likeness.statistics(image), NAMES)
    style = painter_styles.predicted(image, state, NAMES)
    start = 0
    for k in painter_styles.PER_STYLE:
        rows = state[k].double().numpy()
        more = row[start : start + rows[0].size].reshape(rows[0].shape)
        assert np.allclose(style[k], np.tensordot(sets[0], rows, 1) + more), k
        start += rows[0].size
    assert start == len(row)
    for share, layer in zip(
        sets[1:], painter_styles.convolutions(painter_styles.form_of(state)), strict=True
    ):
        k = f"{layer}.weight"
        named = [painter_styles.style_in(state, number)[k].numpy() for number in range(3)]
        change = part[f"change.{k}"] * 2.0 ** part[f"exponent.{k}"][:, None, None, None]
        assert np.allclose(style[k], np.tensordot(share, named, 1) + change), k
    assert np.allclose(style["full.bias"], part["change.full.bias"])


def test_a_prediction_of_zeros_is_the_mixture(state: dict[str, Tensor], image: np.ndarray) -> None:
    for k in state:
        if prediction.is_part(k) and k != prediction.DEVIATION:
            state[k] = torch.zeros_like(state[k])
    without = {k: t for k, t in state.items() if not prediction.is_part(k)}
    one, other = (painter_styles.predicted(image, s, NAMES) for s in (state, without))
    assert one.keys() >= other.keys()
    assert all(np.allclose(one[k], other[k]) for k in other)


def test_named_styles_have_nothing_of_it(state: dict[str, Tensor]) -> None:
    without = {k: t for k, t in state.items() if not prediction.is_part(k)}
    one, other = (painter_styles.style_in(s, 1) for s in (state, without))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert painter_styles.network_of(state) == painter_styles.network_of(without)


def test_changes_are_kept_in_int8_as_exactly_as_said() -> None:
    random = torch.Generator().manual_seed(2)
    sizes = torch.tensor([1.0, 1e-3, 0.0, 30.0])
    weight = torch.randn(4, 3, 3, 3, generator=random) * sizes[:, None, None, None]
    changes = {"enter.weight": weight, "enter.bias": torch.tensor([0.5, -0.25, 0.0, 2.0])}
    made = prediction.compressed(changes)
    assert made["prediction.change.enter.weight"].dtype == torch.int8
    assert made["prediction.exponent.enter.weight"].shape == (4,)
    again = prediction.changes(made)
    most = weight.abs().amax((1, 2, 3), keepdim=True)
    assert ((again["enter.weight"] - weight).abs() <= most / 128 + 1e-12).all()
    assert torch.equal(again["enter.bias"], changes["enter.bias"].double())
    twice = prediction.compressed({k: t.float() for k, t in again.items()})
    assert all(torch.equal(twice[k], made[k]) for k in made)
