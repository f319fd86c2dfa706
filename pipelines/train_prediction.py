"""Train what predicts the painter's style of an image that nothing has learned.

    python pipelines/train_prediction.py --content PHOTOS --style PAINTINGS --teacher vgg16.safetensors \
        --held-out pipelines/lite_held_out.txt,pipelines/painter_held_out.txt \
        --held-out-style pipelines/prediction_held_out.txt --minutes 60 --out runs/prediction

The network of the painter and its named styles stay as they are. The prediction
(`urst_tiles/nets/prediction.py`) is trained with the painter and VGG-16 behind it, by the loss that teaches
the painter (`urst_tiles/learning/objective.py`), on every painting of the folder ``--style`` and on parts of
it: mirrored, with channels exchanged and brighter or darker, so that a few hundred paintings are enough.

With ``--device cuda`` the same run on a card. ``--out`` takes a checkpoint every two minutes, the losses
(``losses.csv``), a sheet of sample pictures (``samples.png``), and ``painter.safetensors``: the file
``--init`` with the running average of the prediction. The same command again goes on where the last one
stopped. ``--minutes`` are those of all calls together; the learning rate falls over the last part of them. A
file ``--init`` that has a prediction already is where the training begins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from training import loop
from training import painter as painter_training
from training.command import Program
from training.pictures import Pictures, patterns_of

from urst_tiles import weights
from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import State, Training, trainable
from urst_tiles.learning.crops import drawn, files_of, read, to_tensor
from urst_tiles.learning.objective import PARTS, Batch, LossWeights, compared
from urst_tiles.learning.painting import random_origins
from urst_tiles.learning.paintings import BLURS, Paintings, Teacher, measured, vgg16_teacher
from urst_tiles.nets import likeness, painter, painter_styles, prediction
from urst_tiles.nets.base import DTYPES, Precision
from urst_tiles.nets.style_rows import names_in


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels."""

    content: Path
    #: The folder of the paintings.
    style: Path
    #: VGG-16, or torchvision's file of it.
    teacher: Path
    out: Path
    #: The painter whose prediction is trained.
    init: Path = weights.TRAINED / painter.FILE
    #: Files of patterns of names, one a line, of photographs and of paintings that are not trained on.
    held_out: tuple[str, ...] = ()
    held_out_style: tuple[str, ...] = ()
    #: Of all calls together; 0: no limit.
    minutes: float = 0.0
    steps: int = 1_000_000
    #: Pictures a step, each in the style of another painting.
    batch: int = 2
    #: Side of the crops, at the finest level.
    size: int = 384
    #: A step paints so many levels at most, any number of them alike often.
    levels: int = field(default=3, metadata={"least": 1})
    #: Short sides of the photographs and of the paintings.
    content_size: int = 512
    style_size: int = 512
    #: Parts of each painting that are learned besides the whole.
    parts: int = 2
    hidden: int = field(default=prediction.HIDDEN, metadata={"least": 1})
    #: Of Adam, and of what all predicted styles change in the weights.
    rate: float = 5e-4
    rate_changes: float = 8e-4
    warmup: int = 20
    #: The share of the training over which the rate falls to a fiftieth.
    cooldown: float = 0.6
    average: float = 0.99
    clip: float = 5.0
    #: What the content and the structure count; other parts of the loss count as where styles are learned by
    #: themselves.
    content_weight: float = 0.6
    structure_weight: float = 0.6
    precision: Precision = "bfloat16"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_minutes: float = 2.0
    save_every: int = 1_000_000
    sample_every: int = 500


#: What the rate falls to, as a share of itself.
LOWEST = 0.02
#: How much of each side of a painting a part has, and how much brighter or darker it is, as an exponent.
PART, EXPONENT = (0.5, 0.9), (0.7, 1.4)
#: How fast each layer of the prediction learns, as a share of the rate. All weights of an output together
#: change it by some times as much as its bias does; shares are smaller than affine parameters.
SHARE_OF_RATE = {
    "hidden.weight": 1.0,
    "hidden.bias": 1.0,
    "row.weight": 0.35,
    "row.bias": 1.0,
    "share.weight": 0.1,
    "share.bias": 0.3,
}


# The paintings


def parts_of(
    image: NDArray[np.uint8], count: int, random: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """A painting (h, w, 3), and ``count`` parts of it, as other paintings of its short side: a share of its
    height and width, mirrored or not, with channels in another order, brighter or darker."""
    yield image
    for _ in range(count):
        share = random.uniform(*PART)
        height, width = (max(BLURS[-1], round(share * n)) for n in image.shape[:2])
        y, x = (
            int(random.integers(n - k + 1)) for n, k in zip(image.shape[:2], (height, width), strict=True)
        )
        part = image[y : y + height, x : x + width, random.permutation(3)]
        part = part[:, ::-1] if random.random() < 0.5 else part
        brighter = to_tensor([part.copy()], "cpu") ** random.uniform(*EXPONENT)
        scale = min(image.shape[:2]) / min(height, width)
        size = [max(BLURS[-1], round(scale * n)) for n in (height, width)]
        whole = F.interpolate(brighter, size, mode="bicubic", antialias=True).clamp(0, 1)
        yield whole[0].mul(255).round().byte().permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class Examples:
    """The paintings that are learned from, and their parts.

    Attributes
    ----------
    paintings : their statistics by the loss network.
    statistics : float32 (n, 652), by which their styles are predicted.
    mixture : float32 (n, S), the shares of the named styles in the first guess.
    """

    paintings: Paintings
    statistics: Tensor
    mixture: Tensor


def examples_of(settings: Settings, files: Sequence[Path], names: list[str], teacher: Teacher) -> Examples:
    """The paintings in ``files`` and their parts; ``names`` are those of the painter's styles."""
    random = np.random.default_rng([settings.seed, 1])
    images = {}
    for path in files:
        for k, image in enumerate(parts_of(read(path, settings.style_size), settings.parts, random)):
            images[f"{path.name} {k}"] = image
    paths = {name: settings.style / name.rsplit(" ", 1)[0] for name in images}
    paintings = measured(paths, images.values(), teacher, settings.device)
    rows = [likeness.statistics(np.asarray(image / 255, np.float32)) for image in images.values()]
    shares = [share for row in rows if (share := likeness.shares(row, names)) is not None]
    if len(shares) < len(rows):
        raise BadInput(f"the styles of {settings.init} are none of the package's, from which one could begin")
    mixture = torch.from_numpy(np.stack(shares)).float()
    return Examples(paintings, torch.stack(rows).float().to(settings.device), mixture.to(settings.device))


# The recipe


@dataclass
class Prediction:
    """The tensors of the prediction follow Adam."""

    settings: Settings
    teacher: Teacher
    examples: Examples
    photographs: Pictures
    training: Training
    #: The file of the painter, and what its styles add to its weights, (S, ...) by name.
    state: State
    named: State

    def styled(self, leaves: State, index: int) -> State:
        """The painter's tensors, with one row, in the style that is predicted of example ``index``."""
        own = self.examples.statistics[index][None]
        more, row = prediction.predict({**self.state, **leaves}, own)
        sets, form = self.examples.mixture[index] + more[0], painter_styles.form_of(self.state)
        rows = prediction.split(row[0], painter_styles.affine_shapes(form))
        styled = {k: (torch.tensordot(sets[0], self.named[k], 1) + t)[None] for k, t in rows.items()}
        changed = painter_styles.set_of(form)
        for k in painter_styles.shared_names(form):
            styled[k] = self.state[k] + leaves[f"{prediction.CHANGE}{k}"]
            if k in self.named:
                styled[k] = styled[k] + torch.tensordot(sets[changed[k]], self.named[k], 1)
        return styled

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of new pictures, and its parts, unweighted."""
        settings, random = self.settings, self.training.random
        found = []
        for _ in range(settings.batch):
            index = int(random.integers(len(self.examples.statistics)))
            levels = int(random.integers(1, settings.levels + 1))
            x = drawn(self.photographs, settings.size, 1, random, settings.device)
            origins = random_origins(settings.levels, 1, random).to(settings.device)
            found.append(self.compared(index, x, levels, origins))
        total = torch.stack([total for total, _ in found]).mean()
        return total, {k: torch.stack([parts[k] for _, parts in found]).mean() for k in PARTS}

    def compared(
        self, index: int, x: Tensor, levels: int, origins: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a photograph ``x`` (1, 3, size, size) in the style of an example, and its parts."""
        settings = self.settings
        zero = torch.zeros(1, dtype=torch.int64, device=settings.device)
        total, parts, _ = compared(
            self.styled(self.training.leaves, index), Batch(x, zero, levels, origins), self.teacher,
            self.examples.paintings.one(index),
            LossWeights(content=settings.content_weight, structure=settings.structure_weight),
            seed=settings.seed, dtype=DTYPES[settings.precision],
        )  # fmt: skip
        return total, parts

    def share_of_rate(self, step: int) -> float:
        """Rises over ``warmup`` steps, and falls over the last part of the steps or minutes."""
        return loop.rise_and_fall(self.settings, self.training, step, LOWEST)

    def export(self) -> dict[str, bytes]:
        """The painter's file with the running average."""
        average = {k: t.detach().cpu() for k, t in self.training.average.items()}
        before = weights.load(self.settings.init)
        own = {k: self.state[k].cpu() for k in (prediction.CENTER, prediction.DEVIATION)}
        own |= prediction.compressed(prediction.changes(average))
        average = {k: t.to(torch.float16) for k, t in average.items() if k not in own}
        return {painter.FILE: save({k: t.contiguous() for k, t in (before | own | average).items()})}

    @torch.inference_mode()
    def samples(self) -> NDArray[np.uint8]:
        """Photographs, each in some predicted styles on all levels."""
        settings, paintings = self.settings, self.examples.paintings
        seed, dtype = settings.seed, DTYPES[settings.precision]
        every = 1 + settings.parts

        def painted(x: Tensor, k: int) -> Tensor:
            state, colours = self.styled(self.training.average, every * k), paintings.one(every * k).colours()
            return painter_training.sample(state, x, 0, colours, settings.levels, seed=seed, dtype=dtype)

        whole = list(paintings.files.values())[::every]
        return painter_training.sheet_of(
            self.photographs, whole, painted, settings.size, seed, settings.device
        )


def start(settings: Settings, state: State, statistics: Tensor) -> tuple[Training, State]:
    """The training at its first step, and the tensors that stay: `prediction.CENTER` and
    `prediction.DEVIATION`, as the file ``state`` has them, or of the ``statistics`` (n, 652) of examples."""
    form, styles = painter_styles.form_of(state), len(state["gamma"])
    if prediction.is_in(state):
        still = {k: state[k] for k in (prediction.CENTER, prediction.DEVIATION)}
        changes = {f"{prediction.CHANGE}{k}": t for k, t in prediction.changes(state).items()}
        parts = {k: t.float() for k, t in (state | changes).items() if prediction.is_part(k)}
    else:
        center, deviation = statistics.mean(0), statistics.std(0) + likeness.FLOOR
        still = {prediction.CENTER: center.cpu(), prediction.DEVIATION: deviation.cpu()}
        wanted = painter_styles.prediction_shapes(styles, form, settings.hidden)
        parts = {k: torch.zeros(shape) for k, shape in wanted.items()}
        random = torch.Generator().manual_seed(settings.seed)
        first = parts[f"{prediction.PREFIX}hidden.weight"]
        first.normal_(0, (2 / first.shape[1]) ** 0.5, generator=random)
    leaves = {k: t for k, t in parts.items() if not k.startswith((*still, prediction.EXPONENT))}
    made = trainable(leaves, settings.device)
    groups = []
    for k, leaf in made.items():
        share = SHARE_OF_RATE.get(k.removeprefix(prediction.PREFIX))
        rate = settings.rate_changes if share is None else share * settings.rate
        groups.append({"params": [leaf], "lr": rate})
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    memory = {"seconds": torch.zeros((), dtype=torch.float64)}
    return Training(made, [adam], settings.seed, leaves, settings.average, memory), still


def begin(settings: Settings) -> Prediction:
    """The recipe at its first step."""
    painter_training.check_crops(settings.size, settings.levels, settings.content_size)
    held_out = patterns_of(*settings.held_out)
    photographs = Pictures(files_of(settings.content, held_out), settings.content_size)
    files = files_of(settings.style, patterns_of(*settings.held_out_style))
    state = weights.load(settings.init)
    painter.check(state, painter.FILE, settings.init)
    teacher = vgg16_teacher(settings.teacher, device=settings.device, dtype=DTYPES[settings.precision])
    names = names_in(state["styles"])
    examples = examples_of(settings, files, names, teacher)
    training, still = start(settings, state, examples.statistics)
    styles = [painter_styles.style_in(state, k) for k in range(len(names))]
    named = {
        k: torch.stack([style[k] for style in styles]).float().to(settings.device)
        for k in styles[0] if k not in painter_styles.COLOURS
    }  # fmt: skip
    shared = painter_styles.shared_weights(state)
    here = {k: t.to(settings.device) for k, t in (shared | still).items()}
    return Prediction(settings, teacher, examples, photographs, training, here, named)


PROGRAM = Program(
    "train_prediction", "Train the prediction of styles.", Settings, begin, PARTS, loop.times_of
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
