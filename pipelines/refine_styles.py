"""Learn the named styles of the painter further, one by one, and put them back into the network's file.

    python pipelines/refine_styles.py --content PHOTOS --style PAINTINGS --teacher vgg16.safetensors \
        --held-out pipelines/lite_held_out.txt pipelines/painter_held_out.txt --out runs/refined

What all styles share stays as it is. Of each style its affine parameters and its changes of the weights are
learned, as `urst-tiles learn` learns those of a new painting (`urst_tiles/learning/one_style.py`), on
photographs, from what the file ``--init`` has of it. The rate stays for the first half of the steps, and then
falls to a twentieth.

``--out`` takes a style file for each style, ``NAME.style``. The same command again goes on with the styles
that have none, so several calls may work side by side on different styles (``--only``). At the end it takes
``painter.safetensors`` too: the file ``--init`` with the styles whose files are in the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from command_line import (
    Parser,
    existing_file,
    existing_folder,
    integer,
    new_folder,
    positive,
    program,
)
from safetensors.torch import save
from training.command import set_threads
from training.loop import rise_and_fall
from training.painter import paintings_in
from training.pictures import Pictures, patterns_of

from urst_tiles import weights
from urst_tiles.errors import BadInput
from urst_tiles.learning import one_style
from urst_tiles.learning.crops import files_of
from urst_tiles.learning.one_style import OneStyle
from urst_tiles.learning.paintings import Teacher, gather, vgg16_teacher
from urst_tiles.nets import low_rank, painter, painter_styles, style_file
from urst_tiles.nets.base import DTYPES, State
from urst_tiles.nets.style_rows import names_in
from urst_tiles.storage.publish import publish

LIST = Path(__file__).with_name("styles.csv")
#: Short side in pixels of photographs and paintings.
SIZE = 512
#: The share of the steps over which the rate falls, and what it falls to, as a share of itself.
COOLDOWN, LOWEST = 0.5, 0.05
#: Of the affine parameters, and of the weights.
RATES = 0.01, 0.0015


def share_of_rate(step: int, steps: int) -> float:
    """By which the rate is multiplied in ``step``, counted from 0, of ``steps``."""
    return rise_and_fall(step, 1 - step / steps, one_style.WARMUP, COOLDOWN, LOWEST)


def refined(
    state: State,
    name: str,
    painting: Path,
    photographs: Pictures,
    teacher: Teacher,
    steps: int,
    seed: int = 0,
    rates: tuple[float, float] = RATES,
) -> bytes:
    """The content of a style file: the style ``name`` of the network ``state`` after so many steps."""
    network = painter_styles.shared_weights(state)
    start = painter_styles.style_in(state, names_in(state["styles"]).index(name))
    training = one_style.begun(network, start, seed, bytes(32), rates)
    paintings = gather({name: painting}, SIZE, teacher, "cpu")
    learning = OneStyle(network, teacher, paintings, photographs, training, DTYPES["bfloat16"])
    for step in range(steps):
        learning.step(share_of_rate(step, steps))
    return one_style.to_bytes(
        learning, painter.NAME, painter_styles.network_of(state), {"painting": painting.name}
    )


def assembled(state: State, styles: Mapping[str, State]) -> bytes:
    """The network's file ``state`` with new tensors of some of its styles, by name."""
    form = painter_styles.form_of(state)
    rank = max(low_rank.rank_of(one) for one in (state, *styles.values()))
    rows = []
    for number, name in enumerate(names_in(state["styles"])):
        row = styles.get(name) or {
            k: state[k][number] for k in painter_styles.row_shapes(form, low_rank.rank_of(state))
        }
        rows.append(row | low_rank.widened(row, painter_styles.convolutions(form), rank))
    rows = painter_styles.of_equal_kinds(rows)
    made = {
        k: torch.stack([row[k] for row in rows])
        for k in low_rank.shapes(painter_styles.convolutions(form), rank)
    }
    for k in (*painter_styles.PER_STYLE, *painter_styles.COLOURS):
        made[k] = torch.stack([row[k].to(state[k].dtype) for row in rows])
    return save({k: t.contiguous() for k, t in (state | made).items()})


@program
def main(words: Sequence[str]) -> None:
    """Run the command line."""
    parser = Parser(description="Learn the named styles of the painter further, one by one.")
    parser.add_argument("--content", type=existing_folder, required=True, help="folder of photographs")
    parser.add_argument("--style", type=existing_folder, required=True, help="folder of the paintings")
    parser.add_argument(
        "--styles", type=existing_file, default=LIST, help="CSV file: name and file of each style"
    )
    parser.add_argument(
        "--teacher", type=existing_file, required=True, help="vgg16.safetensors, or torchvision's"
    )
    parser.add_argument("--out", type=new_folder, required=True)
    parser.add_argument("--init", type=existing_file, default=weights.TRAINED / painter.FILE)
    parser.add_argument(
        "--held-out", nargs="+", default=[], help="files of patterns of photographs that are not used"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these styles alone, in this order")
    parser.add_argument("--steps", type=integer(), default=150)
    parser.add_argument("--rate", type=positive, default=RATES[1], help="of the weights")
    parser.add_argument("--threads", type=integer(least=0), default=0)
    parser.add_argument("--seed", type=integer(least=0), default=0)
    arguments = parser.parse_args(words)
    set_threads(arguments.threads)
    state = weights.load(arguments.init)
    painter.check(state, painter.FILE, arguments.init)
    paintings = paintings_in(arguments.styles, arguments.style)
    files = {name: paintings[name] for name in names_in(state["styles"]) if name in paintings}
    photographs = Pictures(files_of(arguments.content, patterns_of(*arguments.held_out)), SIZE)
    teacher = vgg16_teacher(arguments.teacher, dtype=torch.bfloat16)
    names = chosen(arguments.only, files)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = arguments.out / f"{name}{style_file.SUFFIX}"
        if not target.exists():
            rates = RATES[0], arguments.rate
            made = refined(
                state, name, files[name], photographs, teacher, arguments.steps, arguments.seed, rates
            )
            publish(target, made)
            distances = style_file.read_style_file(target)[1]["distances"]
            print(f"{name}: style distance {distances[0]:.3f}, now {distances[1]:.3f}", flush=True)
    there = {name: arguments.out / f"{name}{style_file.SUFFIX}" for name in files}
    styles = {name: style_file.read_style_file(path)[0] for name, path in there.items() if path.exists()}
    publish(arguments.out / painter.FILE, assembled(state, styles))
    print(f"{arguments.out / painter.FILE}: {len(styles)} of {len(files)} styles learned further")


def chosen(only: Sequence[str] | None, files: Mapping[str, Path]) -> list[str]:
    """The styles to learn, in order; BadInput for one that the network or the table does not have."""
    unknown = [name for name in only or () if name not in files]
    if unknown:
        raise BadInput(f"there is no style {unknown[0]}; --only takes some of {', '.join(files)}")
    return list(only or files)


if __name__ == "__main__":
    sys.exit(main())
