"""Train the painter: one network for many named styles that paints a picture level by level, coarse to fine.

    python pipelines/train_painter.py --settings pipelines/train_painter.toml --content PHOTOS \
        --style PAINTINGS --distilled 5SE.pth --minutes 60 --out runs/first
    python pipelines/train_painter.py --settings pipelines/train_painter.toml --content PHOTOS \
        --style PAINTINGS --teacher vgg16.safetensors --init runs/first/painter.safetensors --minutes 120 \
        --out runs/painter

With ``--device cuda`` the same runs on a card, with as many pictures a step as it has memory for, up to
``--batch-most``. Any setting may stand in the TOML file or on the command line, which wins. ``--styles`` is a
CSV file with the columns name and file: the styles, and the image of each in the folder ``--style``.
``--teacher`` also takes torchvision's ``vgg16-397923af.pth``; ``--init`` also takes a checkpoint.

``--out`` takes a checkpoint every two minutes, the losses (``losses.csv``), a sheet of sample pictures
(``samples.png``) and the running average of the weights (``painter.safetensors``, float16). The same command
again goes on where the last one stopped, and gives the same losses as if it had not, except that with
``--minutes`` the learning rate falls by the clock. The minutes are those of all calls together.

`urst_tiles.learning.objective` says what is minimised, with the distilled features for a cheap start (they
stall early) and VGG-16 after that.

Styles that are far from their painting are drawn more often. Flat crops are left out: their normalised
features are noise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from training import loop, painter
from training.command import Program
from training.painter import Form
from training.pictures import Pictures, patterns_of

from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import Training, trainable
from urst_tiles.learning.crops import drawn, files_of
from urst_tiles.learning.features import Lowered
from urst_tiles.learning.objective import PARTS, Batch, LossWeights, compared
from urst_tiles.learning.painting import random_origins
from urst_tiles.learning.paintings import BLURS, Paintings, Teacher, gather, vgg16_teacher
from urst_tiles.losses import backbones, vgg
from urst_tiles.nets.base import DTYPES, Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels."""

    content: Path
    #: The folder of the paintings.
    style: Path
    #: Which of its files are styles, and their names.
    styles: Path = Path(__file__).with_name("styles.csv")
    #: Files of the loss network, VGG-16 or Collaborative Distillation's 5SE.pth: give either.
    teacher: str = ""
    distilled: str = ""
    out: Path
    #: Weights to start from: ``painter.safetensors``, or a checkpoint; empty for random ones.
    init: str = ""
    #: A file of patterns of names of photographs, one a line, that are not trained on.
    held_out: str = ""
    #: Of all calls together; 0: no limit.
    minutes: float = 0.0
    steps: int = 1_000_000
    #: 0: as many as fit on a card, 4 on a CPU.
    batch: int = field(default=0, metadata={"least": 0})
    batch_most: int = 32
    #: Side of the crops, at the finest level.
    size: int = 256
    #: A step paints so many levels at most, any number of them alike often.
    levels: int = 3
    #: Short sides of the photographs and of the paintings.
    content_size: int = 512
    style_size: int = 512
    channels: int = 64
    blocks: int = 5
    half: int = 24
    #: Of Adam, and by how much the styles' own parameters learn faster.
    rate: float = 1.5e-3
    rate_styles: float = 3.0
    warmup: int = 50
    #: The share of the training over which the rate falls to a twentieth.
    cooldown: float = 0.3
    average: float = 0.998
    clip: float = 5.0
    style_weight: float = 1.0
    content_weight: float = 0.3
    consistency_weight: float = 3.0
    colour_weight: float = 0.5
    half_weight: float = 1.0
    range_weight: float = 5.0
    structure_weight: float = 0.0
    lattice_weight: float = 2.0
    axes_weight: float = 1.0
    #: Sides from which on the halved picture is compared.
    half_least: int = 192
    precision: Precision = "bfloat16"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_minutes: float = 2.0
    save_every: int = 1_000_000
    sample_every: int = 500


#: What the rate falls to, as a share of itself.
LOWEST = 0.05
#: Pictures a step on a CPU, and the share of a card's free memory that is used.
CPU_BATCH, USED = 4, 0.8


# What the settings name


def teacher_of(settings: Settings) -> Teacher:
    """The loss network; BadInput where none or two are given, MissingFile, BadWeights."""
    if bool(settings.teacher) == bool(settings.distilled):
        raise BadInput("give either --teacher, a file of VGG-16, or --distilled, the file 5SE.pth")
    dtype = DTYPES[settings.precision]
    placed = {"device": settings.device, "dtype": dtype}
    if settings.teacher:
        return vgg16_teacher(Path(settings.teacher), **placed)
    distilled = replace(backbones.distilled_vgg19(Path(settings.distilled), **placed), heads=False)
    return Teacher(Lowered(distilled, dtype), vgg.LAYERS, vgg.CONTENT)


# The recipe


@dataclass
class Painter:
    """All weights follow Adam, the styles' own parameters faster."""

    settings: Settings
    teacher: Teacher
    paintings: Paintings
    photographs: Pictures
    training: Training

    @property
    def batch(self) -> int:
        """Pictures a step; measured once where the settings leave it open, and then remembered."""
        settings, remembered = self.settings, self.training.memory["batch"]
        if not int(remembered) or settings.batch:
            remembered.fill_(settings.batch or (self.fitting() if on_card(settings) else CPU_BATCH))
        return int(remembered)

    def fitting(self) -> int:
        """As many pictures as a step has memory for on the card, measured with one and with two of them."""
        free = torch.cuda.mem_get_info(self.settings.device)[0]
        room = int(USED * (free + torch.cuda.memory_reserved(self.settings.device)))
        return largest(self.peak_bytes, room, self.settings.batch_most)

    def peak_bytes(self, count: int) -> int:
        """Of the card's memory, in a step of so many pictures; nothing is learned."""
        settings = self.settings
        torch.cuda.reset_peak_memory_stats(settings.device)
        nothing = torch.zeros(count, 2, dtype=torch.int64, device=settings.device)
        x = torch.rand(count, 3, settings.size, settings.size, device=settings.device)
        self.compared(x, nothing[:, 0], settings.levels, nothing)[0].backward()
        for leaf in self.training.leaves.values():
            leaf.grad = None
        return int(torch.cuda.max_memory_allocated(settings.device))

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch, and its parts, unweighted."""
        settings, random, count = self.settings, self.training.random, self.batch
        levels = int(random.integers(1, settings.levels + 1))
        index = painter.draw_styles(self.training.memory["hard"], count, random)
        x = drawn(self.photographs, settings.size, count, random, settings.device)
        origins = random_origins(settings.levels, count, random)
        on = index.to(settings.device), origins.to(settings.device)
        total, parts, distances = self.compared(x, on[0], levels, on[1])
        painter.follow(self.training.memory["hard"], index, distances)
        return total, parts

    def compared(
        self, x: Tensor, index: Tensor, levels: int, origins: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss of photographs ``x`` (n, 3, size, size) in the styles ``index`` (n,), painted on so many
        levels; its parts; and the mean distance (n,) of a layer at the finest level."""
        settings = self.settings
        weight_of: dict[str, Any] = {name: getattr(settings, f"{name}_weight") for name in PARTS}
        weights = LossWeights(**weight_of, half_least=settings.half_least)
        batch, dtype = Batch(x, index, levels, origins), DTYPES[settings.precision]
        leaves, seed = self.training.leaves, settings.seed
        return compared(leaves, batch, self.teacher, self.paintings, weights, seed=seed, dtype=dtype)

    def share_of_rate(self, step: int) -> float:
        """Rises over ``warmup`` steps, and falls over the last part of the steps or minutes."""
        return loop.rise_and_fall(self.settings, self.training, step, LOWEST)

    def export(self) -> dict[str, bytes]:
        """The running average."""
        paintings, state = self.paintings, self.training.average
        names = list(paintings.files)
        return {painter.FILE: painter.to_bytes(state, names, paintings.colours())}

    @torch.inference_mode()
    def samples(self) -> NDArray[np.uint8]:
        """Photographs, each in some styles on all levels."""
        settings, paintings = self.settings, self.paintings
        seed, dtype = settings.seed, DTYPES[settings.precision]

        def painted(x: Tensor, k: int) -> Tensor:
            colours = paintings.colours(slice(k, k + 1))
            return painter.sample(
                self.training.average, x, k, colours, settings.levels, seed=seed, dtype=dtype
            )

        files = list(paintings.files.values())
        return painter.sheet_of(self.photographs, files, painted, settings.size, seed, settings.device)


def largest(peak_bytes: Callable[[int], int], room: int, most: int) -> int:
    """The most pictures, up to ``most``, whose peak stays within ``room`` bytes, if it grows evenly; 1 at
    least. ``peak_bytes`` is asked twice for a single picture, since the first use of a card takes more."""
    peak_bytes(1)
    first = peak_bytes(1)
    each = max(1, peak_bytes(2) - first)
    return max(1, min(most, 1 + (room - first) // each))


def start(settings: Settings, names: Sequence[str]) -> Training:
    """The training at its first step."""
    if settings.init:
        state, old = painter.from_file(Path(settings.init))
        state = painter.rows_for(state, old, names)
    else:
        form = Form(settings.channels, settings.blocks, settings.half)
        state = painter.initial(len(names), form, settings.seed)
    leaves = trainable(state, settings.device)
    shared, rows = ([t for k, t in leaves.items() if (k in painter.PER_STYLE) == it] for it in (False, True))
    groups = [
        {"params": shared, "lr": settings.rate},
        {"params": rows, "lr": settings.rate * settings.rate_styles},
    ]
    memory = {
        "seconds": torch.zeros((), dtype=torch.float64),
        "batch": torch.zeros((), dtype=torch.int64),
        "hard": torch.ones(len(names), dtype=torch.float64),
    }
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    return Training(leaves, [adam], settings.seed, state, settings.average, memory)


def on_card(settings: Settings) -> bool:
    """Whether the training runs on a CUDA card."""
    return torch.device(settings.device).type == "cuda"


def check(settings: Settings) -> None:
    """BadInput for sizes that cannot be halved so often, or crops larger than the photographs."""
    if settings.levels < 1:
        raise BadInput(f"--levels must be at least 1, got {settings.levels}")
    painter.check_crops(settings.size, settings.levels, settings.content_size)
    if settings.half_least < 2 * BLURS[-1]:
        raise BadInput(f"--half-least must be at least {2 * BLURS[-1]}, got {settings.half_least}")


def begin(settings: Settings) -> Painter:
    """The recipe at its first step."""
    check(settings)
    files = painter.paintings_in(settings.styles, settings.style)
    training = start(settings, list(files))
    teacher = teacher_of(settings)
    photographs = Pictures(files_of(settings.content, patterns_of(settings.held_out)), settings.content_size)
    if on_card(settings):
        photographs.decode()
    paintings = gather(files, settings.style_size, teacher, settings.device)
    return Painter(settings, teacher, paintings, photographs, training)


PROGRAM = Program("train_painter", "Train the painter.", Settings, begin, PARTS, loop.times_of)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
