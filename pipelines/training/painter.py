"""What trainings of the painter have in common: where its weights begin, its files, and sheets of samples.

`urst_tiles.learning.painting` is the network that paints with them and learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from command_line import read_table
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from training.pictures import Pictures, sheet, square
from training.states import uniform
from urst_tiles import weights
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.learning.checkpoint import State
from urst_tiles.learning.one_style import FAINT
from urst_tiles.learning.painting import Colours, paint, recoloured
from urst_tiles.learning.paintings import BLURS
from urst_tiles.nets import painter as network
from urst_tiles.nets import prediction
from urst_tiles.nets.low_rank import is_change
from urst_tiles.nets.painter import FILE as FILE
from urst_tiles.nets.painter_styles import AGAIN, COLOURS, PER_STYLE, Form, form_of
from urst_tiles.nets.style_rows import encoded, names_in

#: Names in the files of earlier trainings, and those of today.
RENAMED = {"hg": "half_gamma", "hb": "half_beta"}


def shapes(styles: int, form: Form) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that learns, in the order in which optimizers know them."""
    return {k: shape for k, shape in network.shapes(styles, form).items() if k not in COLOURS}


def initial(styles: int, form: Form, seed: int) -> State:
    """Random weights that hardly change the guide at first."""
    wanted = shapes(styles, form)
    state = uniform({k: shape for k, shape in wanted.items() if k not in PER_STYLE}, seed)
    random = torch.Generator().manual_seed(seed)
    state["full.weight"] = 0.01 * torch.randn(wanted["full.weight"], generator=random)
    state["full.bias"] = torch.zeros(wanted["full.bias"])
    ones = {k: torch.ones(wanted[k]) for k in ("gamma", "half_gamma")}
    ones["half_gamma"][:, AGAIN:] = FAINT
    return state | ones | {k: torch.zeros(wanted[k]) for k in ("beta", "half_beta")}


def check_crops(size: int, levels: int, content_size: int) -> None:
    """BadInput for crops that cannot be halved so often, or that are larger than the photographs."""
    cell = BLURS[-1] << (levels - 1)
    if size % cell:
        raise BadInput(f"--size must be a multiple of {cell} for {levels} levels, got {size}")
    if content_size < size:
        raise BadInput(f"--content-size must be at least --size, {size}, got {content_size}")


# Which style is learned next

#: By how much the memory of a style's distance follows each new one, and how unevenly styles are drawn.
FOLLOW, UNEVEN = 0.1, (0.5, 3.0)


def draw_styles(distances: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """int64 (count,); those whose ``distances`` (S,) from their painting are large more often."""
    hard = distances.numpy()
    share = np.clip(hard / hard.mean(), *UNEVEN)
    return torch.from_numpy(random.choice(len(hard), count, p=share / share.sum()))


def follow(distances: Tensor, index: Tensor, found: Tensor) -> None:
    """Each style's distance goes after those that were just measured."""
    for style, value in zip(index.tolist(), found.tolist(), strict=True):
        distances[style] += FOLLOW * (value - distances[style])


# Samples


def sample(
    state: State,
    x: Tensor,
    row: int,
    colours: Colours,
    levels: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A photograph ``x`` (3, h, w) in the style of that row, on so many levels, (3, h, w)."""
    guides, index = recoloured(x[None], colours, levels), torch.tensor([row], device=x.device)
    origins = torch.zeros(1, 2, dtype=torch.int64, device=x.device)
    return paint(state, x[None], guides, index, origins, seed, dtype)[-1][0]


def sheet_of(
    photographs: Pictures,
    paintings: Sequence[Path],
    painted: Callable[[Tensor, int], Tensor],
    side: int,
    seed: int,
    device: str,
    count: int = 4,
    most: int = 6,
) -> NDArray[np.uint8]:
    """``count`` photographs, each as up to ``most`` of the paintings, uint8 (H, W, 3); first row and column
    are what went in.

    Parameters
    ----------
    painted : gives a photograph (3, side, side) in the style of the painting of that number.
    """
    chosen = np.unique(np.linspace(0, len(paintings) - 1, most).round().astype(int)).tolist()
    rows = [[torch.ones(3, side, side), *(square(paintings[k], side) for k in chosen)]]
    for x in photographs.some(count, side, np.random.default_rng(seed)).to(device):
        rows.append([x.cpu(), *(painted(x, k).cpu() for k in chosen)])
    return sheet(rows)


# Files


def paintings_in(table: Path, folder: Path) -> dict[str, Path]:
    """Name of each style -> its painting in ``folder``, in the order of a CSV file with the columns name and
    file; BadInput, MissingFile."""
    rows = read_table(table, "name", "file")
    files = {row["name"]: folder / row["file"] for row in rows}
    if len(files) < len(rows):
        raise BadInput(f"{table} names two styles alike")
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder} of paintings")
    for path in files.values():
        if not path.is_file():
            raise MissingFile(f"there is no painting {path}, which {table} names")
    return files


def to_bytes(
    state: Mapping[str, Tensor],
    names: Sequence[str],
    colours: Sequence[NDArray[np.float64]],
) -> bytes:
    """The file of the package's model: float16, the names of the styles, and the mean (S, 3) and covariance
    (S, 3, 3) of the colours of their paintings, and the skewness (S,) of their luminance."""
    tensors = {k: t.detach().cpu().to(torch.float16).contiguous() for k, t in state.items()}
    kept = (torch.from_numpy(np.asarray(values, np.float32)) for values in colours)
    return save(tensors | dict(zip(COLOURS, kept, strict=True)) | {"styles": encoded(names)})


def from_file(path: Path) -> tuple[State, list[str]]:
    """float32 tensors, and the names of the styles where the file has them.

    Takes what `to_bytes` makes, a PyTorch file of the tensors, and a checkpoint with them under "average".
    Where the affine parameters do not tell levels apart, both kinds of level get the same, and the coarsest
    is painted once. What single styles
    change in the weights (`pipelines/refine_painter.py`) is left out, since all of them learn together, and
    so is what predicts the style of an image, which belongs to the weights as they were.

    Raises
    ------
    MissingFile : there is no such file. BadWeights : it is no painter.
    """
    try:
        state = weights.load(path)
    except BadWeights:
        state = weights.load(path, "average")
    names = names_of(state, path)
    left_out = {k for k in state if k in (*COLOURS, "styles") or is_change(k) or prediction.is_part(k)}
    state = {RENAMED.get(k, k): t.float() for k, t in state.items() if k not in left_out}
    for k in PER_STYLE:
        if k in state and state[k].ndim == (3 if k in ("gamma", "beta") else 2):
            state[k] = torch.stack([state[k]] * 2, 1)
    wanted = shapes(len(state.get("gamma", ())), form_of(state))
    weights.check_keys(state, wanted, path)
    state = {k: state[k] for k in wanted}  # optimizers know tensors by their order, which files do not keep
    if names and len(names) != len(state["gamma"]):
        raise BadWeights(f"{path} names {len(names)} styles and has {len(state['gamma'])}")
    return state, names


def names_of(state: Mapping[str, Tensor], path: Path) -> list[str]:
    """The names of a file's styles, none without "styles"; BadWeights where these are something else."""
    try:
        return names_in(state["styles"]) if "styles" in state else []
    except ValueError:
        raise BadWeights(f"{path}: its styles are no list of names") from None


def rows_for(state: State, old: Sequence[str], names: Sequence[str]) -> State:
    """``state`` with a row for each of ``names``: the row of that name, or of that place where the file names
    none and has as many rows; else the mean of all rows, as a start."""
    count = len(state["gamma"])
    known = dict(zip(old, range(count), strict=False)) if old else {}
    if not old and count == len(names):
        known = dict(zip(names, range(count), strict=True))
    chosen = dict(state)
    for k in PER_STYLE:
        mean = state[k].mean(0)
        chosen[k] = torch.stack([state[k][known[name]] if name in known else mean for name in names])
    return chosen
