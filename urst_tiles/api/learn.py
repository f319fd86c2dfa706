"""`learn`: one painting becomes a style file, in some minutes on a CPU."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles import weights as table
from urst_tiles.api.output import check_output, refuse_inputs
from urst_tiles.engine.threads import on_device
from urst_tiles.errors import BadInput
from urst_tiles.learning import one_style
from urst_tiles.learning.checkpoint import Training
from urst_tiles.learning.crops import files_of, read
from urst_tiles.learning.one_style import OneStyle
from urst_tiles.learning.paintings import gather, vgg16_teacher
from urst_tiles.machine import cpu_count
from urst_tiles.nets import painter, painter_styles, style_file
from urst_tiles.nets.base import DTYPES, State
from urst_tiles.nets.likeness import is_any_known
from urst_tiles.nets.style_rows import names_in
from urst_tiles.progress import Progress, silent
from urst_tiles.source.picture import read_picture
from urst_tiles.storage.names import require_file
from urst_tiles.storage.publish import publish, remove_dead_attempts

AnyPath = str | os.PathLike[str]

#: The model that learns, and the loss network, as `urst-tiles weights` names them.
MODEL, TEACHER = "painter", "vgg16"
#: Short sides in pixels of the painting and of the pictures that are painted in its style, and where those
#: of the package are: parts of a made-up scene, cut by ``pipelines/cut_scenes.py``.
PAINTING_SIZE, CONTENT_SIZE = 512, 600
SCENES = table.TRAINED / "scenes"
#: So many pictures of a folder are used at most, evenly spaced in the order of their names.
MOST_PICTURES = 100
#: Deviation of its colours, in 0..1, below which a painting is of one colour.
FLAT = 0.01
#: Seconds of steps from one checkpoint to the next, and what follows the output's name in a checkpoint's.
SAVE_SECONDS, CHECKPOINT = 20.0, ".learning"


@dataclass(frozen=True)
class LearnedStyle:
    """What was learned.

    Attributes
    ----------
    output : the style file.
    start : what it began with: "prediction", the style that the network predicts of the painting's image, or
        "mean", that of all styles of a network of which none is known.
    steps : how many steps were taken, in this call and in calls before that were stopped.
    seconds : how long they took.
    first, last : the style distance in the first step and at the end: the relative distance of Gram matrices,
        mean of four layers of VGG-16, of crops of 512 pixels.
    """

    output: Path
    start: str
    steps: int
    seconds: float
    first: float
    last: float


@dataclass(frozen=True)
class _Network:
    """The network that learns: the weights of its file, their fingerprint, and the styles in them."""

    state: State
    fingerprint: str
    names: list[str]

    @property
    def still(self) -> State:
        """The weights that all styles share, float32."""
        return painter_styles.shared_weights(self.state)

    def style_for(self, image: NDArray[np.float32]) -> tuple[str, State]:
        """The style that is predicted of a painting, as `painter_styles.one_style` gives it, or the mean of
        all styles where none is known; and which of the two it is, as in `LearnedStyle.start`."""
        if is_any_known(self.names):
            return "prediction", painter_styles.predicted(image, self.state, self.names)
        count = len(self.names)
        return "mean", painter_styles.mixture(self.state, np.full(count, 1 / count))


def learn(
    painting: AnyPath,
    output: AnyPath,
    *,
    content: AnyPath | None = None,
    teacher: AnyPath | None = None,
    weights: AnyPath | None = None,
    minutes: float = 10.0,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> LearnedStyle:
    """Learn the style of a painting, for ``--model painter``, and write it as a style file.

    The file works wherever a style of painter does: ``stylize(..., style="my.style", model="painter")``. It
    belongs to the weights of the network that it was learned with.

    A file ``OUTPUT.learning`` beside the output holds what was learned so far, and goes at the end. The same
    call goes on from it after the process was stopped.

    Parameters
    ----------
    painting : an image file in any format that libvips opens; its short side is resized to 512 pixels.
    output : the file to write, whose name ends in ``.style``.
    content : a folder of photographs to learn on; None for seven parts of a made-up scene that come with the
        package.
    teacher : a file of VGG-16, as `losses.vgg.trained` reads it; None for that of ``weights fetch vgg16``.
    weights : folder of weights, as for `stylize`.
    minutes : how long the steps may take, together with those of calls before that were stopped.
    steps : how many steps there are, instead of minutes. As many steps with the same ``seed``, ``threads``
        and files give the same style, bit for bit, on the same machine.
    seed : of the crops of the pictures and of the painter's noise.
    threads : of torch; 0 for all cores.
    overwrite : whether an existing output is replaced.
    progress : called with "learning" and the seconds that passed, or the steps, out of how many.

    Raises
    ------
    MissingFile : a file is missing. BadInput : a file or a value cannot be used, or the checkpoint is of
        another learning. BadWeights : weights, or the checkpoint, are damaged.
    """
    target = _target(output, painting, overwrite)
    _check_length(minutes, steps)
    lesson = _lesson(Path(painting), content, teacher, None if weights is None else Path(weights), seed)
    checkpoint = target.with_name(target.name + CHECKPOINT)
    training = _training(lesson, seed, checkpoint, steps)
    count = threads or cpu_count()
    learning = on_device(count, _prepared, lesson, training)
    _run(learning, count, minutes, steps, checkpoint, progress)
    remove_dead_attempts(target.parent, target.name)
    publish(target, one_style.to_bytes(learning, MODEL, lesson.network.fingerprint, lesson.facts))
    checkpoint.unlink(missing_ok=True)
    first, last = learning.distances
    return LearnedStyle(target, lesson.start, training.step, training.seconds, first, last)


@dataclass(frozen=True)
class _Lesson:
    """What is learned, from what, and where it begins.

    Attributes
    ----------
    teacher : the file of the loss network.
    files : the pictures that are painted in the style.
    start, style : as in `LearnedStyle`, and that style.
    facts : what the style file says of itself.
    """

    network: _Network
    painting: Path
    teacher: Path
    files: list[Path]
    start: str
    style: State
    facts: dict[str, Any]

    @property
    def identity(self) -> bytes:
        """32 bytes that are the same for the same lesson alone."""
        files = [[path.name, path.stat().st_size] for path in self.files]
        return sha256(json.dumps([self.network.fingerprint, self.facts, files]).encode()).digest()


def _lesson(
    painting: Path, content: AnyPath | None, teacher: AnyPath | None, weights: Path | None, seed: int
) -> _Lesson:
    """The lesson; raises what `learn` raises about files."""
    require_file(painting, "painting")
    network, judge, files = _network(weights), _teacher_file(teacher, weights), _content_files(content)
    start, style = network.style_for(_image(painting))
    hashes = {"sha256": table.sha256_of(painting), "teacher": table.sha256_of(judge)}
    facts = {"painting": painting.name, "start": start, "seed": seed, **hashes}
    return _Lesson(network, painting, judge, files, start, style, facts)


def _prepared(lesson: _Lesson, training: Training) -> OneStyle:
    """The loss network and the pictures, read."""
    dtype = DTYPES[nets.best_precision(MODEL, "cpu")]
    teacher = vgg16_teacher(lesson.teacher, dtype=dtype)
    paintings = gather({"": lesson.painting}, PAINTING_SIZE, teacher, "cpu")
    pictures = [read(path, CONTENT_SIZE) for path in lesson.files]
    return OneStyle(lesson.network.still, teacher, paintings, pictures, training, dtype)


def _check_length(minutes: float, steps: int | None) -> None:
    """Raise BadInput unless there is something to do."""
    if steps is None and not 0 < minutes < np.inf:
        raise BadInput(f"--minutes must be more than 0, got {minutes:g}")
    if steps is not None and steps < 1:
        raise BadInput(f"--steps must be at least 1, got {steps}")


def _training(lesson: _Lesson, seed: int, checkpoint: Path, steps: int | None) -> Training:
    """The training at its first step, or where the checkpoint, if there is one, left it; BadInput if that is
    beyond so many steps."""
    training = one_style.begun(lesson.network.still, lesson.style, seed, lesson.identity)
    one_style.take_up(training, checkpoint)
    if steps is not None and training.step > steps:
        raise BadInput(
            f"{checkpoint} has {training.step} steps already, more than --steps {steps}: give more, or"
            " remove it"
        )
    return training


def _target(output: AnyPath, painting: AnyPath, overwrite: bool) -> Path:
    """The path of the style file to write; BadInput if it cannot be written."""
    target = check_output(output, suffixes=None)
    if not style_file.is_style_file(target):
        raise BadInput(f"a learned style is a .style file: name it {target.stem}.style, not {target.name}")
    refuse_inputs(target, [("painting", Path(painting))])
    if os.path.lexists(target) and not overwrite:
        raise BadInput(f"{target} exists; give --overwrite to learn it anew, or choose another output")
    return target


def _network(folder: Path | None) -> _Network:
    """The weights of the model that learns."""
    path = table.find(MODEL, folder)[painter.FILE]
    state = table.load(path)
    with table.as_bad_weights(path):
        painter.check(state, painter.FILE, path)
        return _Network(state, painter_styles.network_of(state), names_in(state["styles"]))


def _teacher_file(given: AnyPath | None, folder: Path | None) -> Path:
    """The file of the loss network."""
    if given is not None:
        require_file(given, "loss network")
        return Path(given)
    return next(iter(table.find(TEACHER, folder).values()))


def _content_files(folder: AnyPath | None) -> list[Path]:
    """The pictures that are painted in the style."""
    found = files_of(SCENES if folder is None else Path(folder))
    chosen = np.linspace(0, len(found) - 1, min(len(found), MOST_PICTURES)).round().astype(int)
    return [found[k] for k in chosen]


def _image(path: Path) -> NDArray[np.float32]:
    """The painting, float32 (h, w, 3) in 0..1; BadInput if it is of one colour."""
    image = read_picture(path, PAINTING_SIZE)
    if image.std((0, 1)).max() < FLAT:
        raise BadInput(f"{path} is of one colour, and there is no style in it; choose another painting")
    return image


def _run(
    learning: OneStyle,
    threads: int,
    minutes: float,
    steps: int | None,
    checkpoint: Path,
    progress: Progress,
) -> None:
    """Take steps to the end, with a checkpoint now and then."""
    training, most = learning.training, 60 * minutes
    remove_dead_attempts(checkpoint.parent, checkpoint.name)
    saved = training.seconds
    while True:
        done, total = (training.seconds, most) if steps is None else (training.step, steps)
        progress("learning", int(min(done, total)), max(1, int(total)))
        if done >= total and training.step:
            return
        on_device(threads, learning.step)
        if training.seconds - saved >= SAVE_SECONDS:
            training.save(checkpoint)
            saved = training.seconds
