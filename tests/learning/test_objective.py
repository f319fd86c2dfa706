"""What the painter minimises: which pictures are compared with the painting, and how small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture
from torch import Tensor

from urst_tiles.learning.objective import Batch, LossWeights, compared
from urst_tiles.learning.paintings import Teacher, gather
from urst_tiles.nets import painter
from urst_tiles.source.picture import write_png

#: The loss, its parts, and the distances of the finest pictures.
Loss = tuple[Tensor, dict[str, Tensor], Tensor]


class Seeing:
    """A loss network whose features are the picture itself, and which notes how wide pictures are."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        self.widths.append(x.shape[3])
        return dict.fromkeys(layers, x)


def loss_of(folder: Path, seeing: Seeing, levels: int) -> Callable[[LossWeights], Loss]:
    """The loss, by its weights, of a picture of 128 px painted on so many levels; its parts and distances."""
    write_png(folder / "painting.png", picture(96, 96, 3))
    teacher = Teacher(seeing, ("features",), "features")
    paintings = gather({"": folder / "painting.png"}, 96, teacher, "cpu")
    state = {k: t.float() for k, t in painter.seeded(0, 0.125)[painter.FILE].items() if k != "styles"}
    x = torch.from_numpy(picture(128, 128, 5).astype(np.float32) / 255).permute(2, 0, 1)[None]
    batch = Batch(x, torch.zeros(1, dtype=torch.int64), levels, torch.zeros(1, 2, dtype=torch.int64))
    return partial(compared, state, batch, teacher, paintings)


#: Sides of what is compared of a picture of 128 px on three levels, whose coarsest has 32 px: each level; the
#: guide, for the content; and halves of the coarsest level, once, and of the finest, three times.
LEVELS = [32, 32, 64, 128]


@pytest.mark.parametrize(("least", "halves"), [(32, [16, 64, 32, 16]), (64, [64, 32]), (256, [])])
def test_the_finest_picture_is_halved_as_often_as_there_are_levels(
    tmp_path: Path, least: int, halves: list[int]
) -> None:
    seeing = Seeing()
    loss = loss_of(tmp_path, seeing, 3)
    seeing.widths.clear()
    total, parts, _ = loss(LossWeights(half_least=least))
    assert sorted(seeing.widths) == sorted(LEVELS + halves)
    assert bool(parts["half"] > 0) == bool(halves)
    none, _, _ = loss(replace(LossWeights(half_least=least), half=0.0))
    assert torch.isclose(total - none, parts["half"])


def test_structure_counts_where_it_is_asked_for(tmp_path: Path) -> None:
    loss = loss_of(tmp_path, Seeing(), 2)
    none, without, _ = loss(LossWeights(structure=0.0))
    total, parts, _ = loss(LossWeights(structure=2.0))
    assert without["structure"] == 0 and parts["structure"] > 0
    assert torch.isclose(total - none, 2 * parts["structure"], rtol=1e-4)


def test_what_sits_on_the_cells_counts_at_every_level(tmp_path: Path) -> None:
    loss = loss_of(tmp_path, Seeing(), 2)
    none, without, _ = loss(LossWeights(lattice=0.0))
    total, parts, _ = loss(LossWeights(lattice=3.0))
    assert without["lattice"] == 0 and parts["lattice"] > 0
    assert torch.isclose(total - none, 3 * parts["lattice"], rtol=1e-4)


def test_lines_along_the_axes_count_at_every_level(tmp_path: Path) -> None:
    loss = loss_of(tmp_path, Seeing(), 2)
    none, without, _ = loss(LossWeights(axes=0.0))
    total, parts, _ = loss(LossWeights(axes=3.0))
    assert without["axes"] == 0 and parts["axes"] > 0
    assert torch.isclose(total - none, 3 * parts["axes"], rtol=1e-4)
