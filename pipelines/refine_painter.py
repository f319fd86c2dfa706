"""Learn the painter further with all its named styles: what they share, and what is each one's own.

    python pipelines/refine_painter.py --content PHOTOS --style PAINTINGS --teacher vgg16.safetensors \
        --held-out pipelines/lite_held_out.txt,pipelines/painter_held_out.txt --minutes 60 --out runs/refined

Each step paints photographs in one style and goes down the gradient of the loss
(`urst_tiles/learning/objective.py`), along the weights that all styles share and along the style's own: its
affine parameters, and what it changes in the weights, cut to a low rank every few steps. Each style has an
Adam of its own, so that it stands still between its steps. Now and then the painting itself is painted in its
own style, and is to stay as it is (`urst_tiles/learning/identity.py`). With ``--rate 0`` the shared weights
stay, and with ``--only`` some styles alone are learned.

A prediction in the file ``--init`` stays in it. It was made for the weights of before: measure whether it is
as good for the new ones (`benchmarks/quality.py`), or train it again (`pipelines/train_prediction.py`).

With ``--device cuda`` the same run on a card. ``--out`` takes a checkpoint every two minutes, the losses
(``losses.csv``), a sheet of sample pictures (``samples.png``), and ``painter.safetensors``: the file
``--init`` with the running average of all that was learned. The same command again goes on where the last one
stopped. ``--minutes`` are those of all calls together; the learning rate falls over the last part of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from training import loop, painter
from training.command import Program
from training.pictures import Pictures, patterns_of

from urst_tiles import weights
from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import State, Training, trainable
from urst_tiles.learning.crops import drawn, files_of
from urst_tiles.learning.identity import identity_distance
from urst_tiles.learning.objective import PARTS, Batch, LossWeights, compared
from urst_tiles.learning.one_style import CUT, painting_twice
from urst_tiles.learning.painting import random_origins
from urst_tiles.learning.paintings import Paintings, Teacher, gather, vgg16_teacher
from urst_tiles.nets import low_rank, painter_styles
from urst_tiles.nets.base import DTYPES, Precision
from urst_tiles.nets.painter import check
from urst_tiles.nets.painter_styles import PER_STYLE
from urst_tiles.nets.style_rows import names_in


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels."""

    content: Path
    #: The folder of the paintings.
    style: Path
    #: CSV file: name and file of each style.
    styles: Path = Path(__file__).with_name("styles.csv")
    #: VGG-16, or torchvision's file of it.
    teacher: Path
    out: Path
    #: The painter that is learned further.
    init: Path = weights.TRAINED / painter.FILE
    #: Files of patterns of names of photographs, one a line, that are not trained on.
    held_out: tuple[str, ...] = ()
    #: These styles alone; none: all that ``styles`` and the painter name.
    only: tuple[str, ...] = ()
    #: Of all calls together; 0: no limit.
    minutes: float = 0.0
    steps: int = 1_000_000
    #: Pictures a step, all in one style.
    batch: int = 1
    #: Side of the crops, at the finest level.
    size: int = 512
    #: A step paints so many levels at most, any number of them alike often.
    levels: int = field(default=3, metadata={"least": 1})
    #: Short sides of the photographs and of the paintings.
    content_size: int = 512
    style_size: int = 512
    #: Of Adam: of the weights that all styles share, of a style's affine parameters, and of its changes of
    #: the weights.
    rate: float = 3e-4
    rate_affine: float = 3e-3
    rate_changes: float = 5e-4
    warmup: int = 20
    #: The share of the training over which the rate falls to a twentieth.
    cooldown: float = 0.6
    average: float = 0.998
    clip: float = 5.0
    content_weight: float = 0.5
    structure_weight: float = 1.4
    #: In such a share of the steps the painting itself is painted, too, and what its difference counts.
    identity_share: float = 0.3
    identity_weight: float = 4.0
    precision: Precision = "bfloat16"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_minutes: float = 2.0
    save_every: int = 1_000_000
    sample_every: int = 500


#: What the rate falls to, as a share of itself.
LOWEST = 0.05
#: The part of the loss that a painting in its own style adds.
IDENTITY = "identity"


# Names of the tensors that learn: those of the network, and of each style's own behind the style's name.


def own(style: str, name: str) -> str:
    """The name of a style's own tensor: a row of affine parameters, or what it adds to a weight."""
    return f"{style}/{name}"


def changed(state: Mapping[str, Tensor]) -> list[str]:
    """The names of the weights that styles change."""
    return [f"{name}.weight" for name in painter_styles.convolutions(painter_styles.form_of(state))]


def painted_by(leaves: State, style: str) -> State:
    """The network's tensors with the one row of ``style``."""
    state = {k: t for k, t in leaves.items() if "/" not in k}
    for k in changed(state):
        state[k] = state[k] + leaves[own(style, k)]
    return state | {k: leaves[own(style, k)] for k in PER_STYLE}


# The recipe


@dataclass
class Refined:
    """The shared weights and each style's own follow one Adam each."""

    settings: Settings
    teacher: Teacher
    paintings: Paintings
    images: Pictures
    photographs: Pictures
    training: Training

    @property
    def names(self) -> list[str]:
        """Of the styles that learn."""
        return list(self.paintings.files)

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of new pictures in one style, and its parts, unweighted."""
        settings, random = self.settings, self.training.random
        hard, visits = (self.training.memory[k] for k in ("hard", "visits"))
        at = int(painter.draw_styles(hard, 1, random))
        if settings.rate_changes and int(visits[at]) % CUT == 0:
            self.cut(self.names[at])
        visits[at] += 1
        state = painted_by(self.training.leaves, self.names[at])
        levels = int(random.integers(1, settings.levels + 1))
        x = drawn(self.photographs, settings.size, settings.batch, random, settings.device)
        origins = random_origins(settings.levels, settings.batch, random).to(settings.device)
        zero = torch.zeros(settings.batch, dtype=torch.int64, device=settings.device)
        one, dtype = self.paintings.one(at), DTYPES[settings.precision]
        total, parts, distances = compared(
            state, Batch(x, zero, levels, origins), self.teacher, one,
            LossWeights(content=settings.content_weight, structure=settings.structure_weight),
            seed=settings.seed, dtype=dtype,
        )  # fmt: skip
        painter.follow(hard, torch.tensor([at]), distances.mean()[None])
        parts[IDENTITY] = x.new_zeros(())
        if random.random() < settings.identity_share:
            parts[IDENTITY] = identity_distance(
                state, self.images[at], one.colours(), random,
                seed=settings.seed, device=settings.device, dtype=dtype,
            )  # fmt: skip
            total = total + settings.identity_weight * parts[IDENTITY]
        return total, parts

    @torch.no_grad()
    def cut(self, style: str) -> None:
        """Leave the largest components of what a style changes in the weights."""
        for k in changed(self.training.leaves):
            leaf = self.training.leaves[own(style, k)]
            leaf.copy_(low_rank.largest(leaf))

    def share_of_rate(self, step: int) -> float:
        """Rises over ``warmup`` steps, and falls over the last part of the steps or minutes."""
        return loop.rise_and_fall(self.settings, self.training, step, LOWEST)

    def export(self) -> dict[str, bytes]:
        """The painter's file with the running average; styles that had no step stay as they were."""
        average = {k: t.detach().cpu() for k, t in self.training.average.items()}
        seen = self.training.memory["visits"].tolist()
        styles = {name: row_of(average, name) for name, count in zip(self.names, seen, strict=True) if count}
        return {painter.FILE: assembled(weights.load(self.settings.init), average, styles)}

    @torch.inference_mode()
    def samples(self) -> NDArray[np.uint8]:
        """Photographs, each in some styles on all levels."""
        settings, paintings = self.settings, self.paintings
        seed, dtype = settings.seed, DTYPES[settings.precision]

        def painted(x: Tensor, k: int) -> Tensor:
            state, colours = painted_by(self.training.average, self.names[k]), paintings.one(k).colours()
            return painter.sample(state, x, 0, colours, settings.levels, seed=seed, dtype=dtype)

        files = list(paintings.files.values())
        return painter.sheet_of(self.photographs, files, painted, settings.size, seed, settings.device)


def row_of(average: Mapping[str, Tensor], style: str) -> State:
    """A style as it is in the painter's file: affine parameters, and changes of low rank."""
    row = {k: average[own(style, k)][0] for k in PER_STYLE}
    for k in changed(average):
        row |= low_rank.compressed(average[own(style, k)], k.removesuffix(".weight"))
    return row


def assembled(state: State, shared: Mapping[str, Tensor], styles: Mapping[str, State]) -> bytes:
    """The network's file ``state`` with other shared weights and new tensors of some of its styles."""
    form, layers = painter_styles.form_of(state), painter_styles.convolutions(painter_styles.form_of(state))
    rank = max(low_rank.rank_of(one) for one in (state, *styles.values()))
    rows = []
    for number, name in enumerate(names_in(state["styles"])):
        row = styles.get(name) or {
            k: state[k][number] for k in painter_styles.row_shapes(form, low_rank.rank_of(state))
        }
        colours = {k: state[k][number] for k in painter_styles.COLOURS if k in state}
        rows.append(row | colours | low_rank.widened(row, layers, rank))
    rows = painter_styles.of_equal_kinds(rows)
    made = {k: torch.stack([row[k] for row in rows]) for k in low_rank.shapes(layers, rank)}
    for k in (*PER_STYLE, *painter_styles.COLOURS):
        made[k] = torch.stack([row[k].to(state[k].dtype) for row in rows])
    made |= {k: shared[k].to(state[k].dtype) for k in painter_styles.shared_names(form)}
    return save({k: t.contiguous() for k, t in (state | made).items()})


def start(settings: Settings, state: State, names: Sequence[str]) -> Training:
    """The training of the styles ``names`` at its first step."""
    shared = {k: state[k].float() for k in painter_styles.shared_names(painter_styles.form_of(state))}
    begin, weights_of = dict(shared), changed(shared)
    for name in names:
        style = painter_styles.style_in(state, names_in(state["styles"]).index(name))
        row = {k: t[None] for k, t in painting_twice(style).items()}
        row |= {k: style[k].float() if k in style else torch.zeros_like(shared[k]) for k in weights_of}
        begin |= {own(name, k): t for k, t in row.items()}
    leaves = trainable(begin, settings.device)
    optimizers = [torch.optim.Adam([leaves[k] for k in shared], settings.rate, (0.9, 0.99))]
    for name in names:
        groups = [
            {"params": [leaves[own(name, k)] for k in part], "lr": rate}
            for part, rate in ((PER_STYLE, settings.rate_affine), (weights_of, settings.rate_changes))
        ]
        optimizers.append(torch.optim.Adam(groups, betas=(0.9, 0.99)))
    memory = {
        "seconds": torch.zeros((), dtype=torch.float64),
        "hard": torch.ones(len(names), dtype=torch.float64),
        "visits": torch.zeros(len(names), dtype=torch.int64),
    }
    return Training(leaves, optimizers, settings.seed, begin, settings.average, memory)


def begin(settings: Settings) -> Refined:
    """The recipe at its first step."""
    painter.check_crops(settings.size, settings.levels, settings.content_size)
    state = weights.load(settings.init)
    check(state, painter.FILE, settings.init)
    there = painter.paintings_in(settings.styles, settings.style)
    files = {name: there[name] for name in names_in(state["styles"]) if name in there}
    files = {name: files[name] for name in chosen(settings.only, files)}
    photographs = Pictures(files_of(settings.content, patterns_of(*settings.held_out)), settings.content_size)
    if torch.device(settings.device).type == "cuda":
        photographs.decode()
    dtype = DTYPES[settings.precision]
    teacher = vgg16_teacher(settings.teacher, device=settings.device, dtype=dtype)
    paintings = gather(files, settings.style_size, teacher, settings.device)
    images = Pictures(list(files.values()), settings.style_size)
    return Refined(settings, teacher, paintings, images, photographs, start(settings, state, list(files)))


def chosen(only: Sequence[str], files: Mapping[str, Path]) -> list[str]:
    """The styles to learn; BadInput for one that the network or the table does not have."""
    unknown = [name for name in only if name not in files]
    if unknown or not files:
        asked = f"there is no style {unknown[0]}" if unknown else "there is no style to learn"
        raise BadInput(f"{asked}; the painter and the table both have {', '.join(files) or 'none'}")
    return list(only or files)


PROGRAM = Program(
    "refine_painter", "Learn the painter further.", Settings, begin, (*PARTS, IDENTITY), loop.times_of
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
