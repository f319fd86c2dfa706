"""The identity loss: which parts of a painting are taken, and what is compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import picture

from urst_tiles.learning import identity, painting
from urst_tiles.nets import painter
from urst_tiles.nets.painter_styles import PER_STYLE


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """A small painter's tensors with one row."""
    state = painter.seeded(0, 1 / 4)[painter.FILE]
    kept = {k: t.float() for k, t in state.items() if not k.startswith(("change.", "styles", "colour."))}
    return kept | {k: state[k][:1].float() for k in PER_STYLE}


def colours_of(image: np.ndarray) -> painting.Colours:
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    return (*painting.moments(x), np.zeros(1))


def test_a_part_is_nearly_the_whole() -> None:
    random, image = np.random.default_rng(0), picture(200, 900, 1)
    parts = [identity.large_part(image, random) for _ in range(20)]
    assert {tuple(sorted(part.shape[:2])) for part in parts} == {(192, 640)}
    assert {part.shape[0] > part.shape[1] for part in parts} == {True, False}  # turned
    assert len({part.tobytes() for part in parts}) == 20
    whole = {row.tobytes() for row in image.reshape(-1, 3)}
    assert {row.tobytes() for row in parts[0].reshape(-1, 3)} <= whole


def test_what_paints_nothing_leaves_the_painting(
    state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "LEVELS", 1)  # a finer level begins with half of its own detail
    state |= {k: torch.zeros_like(state[k]) for k in ("full.weight", "full.bias")}
    image, random = picture(128, 160, 3), np.random.default_rng(1)
    found = identity.identity_distance(state, image, colours_of(image), random)
    assert float(found) < 0.01  # the colours of a part are nearly those of the whole


def test_what_is_painted_is_counted(state: dict[str, torch.Tensor]) -> None:
    state |= {"full.weight": torch.zeros_like(state["full.weight"]), "full.bias": torch.full((3,), 0.1)}
    image, random = picture(128, 128, 3), np.random.default_rng(1)
    state = {k: t.requires_grad_() for k, t in state.items()}
    found = identity.identity_distance(state, image, colours_of(image), random, seed=3)
    assert float(found.detach()) > 0.05
    found.backward()
    assert float(state["full.bias"].grad.abs().sum()) > 0
