"""How near to paintings the pictures of networks are, on photographs that none of them was trained on.

    python benchmarks/quality.py --models painter,lite,microast,photo
    python benchmarks/quality.py --models painter,photo --named --optimum 100 --every 10
    python benchmarks/quality.py --models painter,lite --named --identity
    python benchmarks/quality.py --models painter,fast,photo --checkpoints van-gogh-starry-night=FILE.pth
    python benchmarks/quality.py --models painter,fast,photo --checkpoints mosaic.jpg=mosaic.pth \
        --learned mosaic.style

Photographs and paintings have 512 px on the short side; each network runs in float32 with the statistics of
the photograph, `painter` on its coarsest level alone and with noise, as `stylize` paints such a picture. The
pairs are those of ``--pairs``, without paintings that are named styles, so that no network has learned them,
or with ``--named`` its photographs, each with one of the 35 named styles of the package in turn. With
``--checkpoints`` the paintings are only those for which a checkpoint of the model `fast` is given: a
network of Johnson et al. for this one painting, by the name of a named style or by an image file. With
``--learned`` the model `painter` paints in that style, which `urst-tiles learn` has made of the painting.

style
    the distance of Gram matrices relative to the painting's, |G - G0| / |G0| (Frobenius), mean over the
    layers of the judge.
content
    the mean squared distance of the judge's content layer to the photograph's, each channel with mean 0 and
    deviation 1: 0 is the photograph, 2 something that has nothing to do with it.
SSIM at 1/8, edges
    of picture and photograph: the structure of the luminance, reduced by 8, 1 if equal; and by how many
    pixels the strongest gradients have moved, in the mean (`benchmarks/shapes.py`).
PSNR
    with ``--identity``, where each painting is painted in its own style: of the picture and the painting, in
    decibels.
way
    with ``--optimum N``: the part of the way from the photograph to the picture that so many evaluations of
    L-BFGS make of it [1] (`pipelines/optimize.py`) that a network goes, by the distance of style.

The judges: ``vgg16`` (relu1_2 to relu4_3, which taught painter), and two that taught nobody here with Gram
matrices: ``vgg19`` (relu1_1 to relu4_1), and ``random``, the same layers with random weights.

Reference
---------
1. L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import (
    ROOT,
    SHARED,
    Parser,
    existing_file,
    existing_folder,
    integer,
    new_folder,
    program,
    read_table,
    several,
    table,
)
from nets_here import WEIGHTS
from numpy.typing import NDArray
from optimization.objective import Terms, Whole, style_targets
from optimization.settings import STYLE_WEIGHTS
from optimization.whole import ByLBFGS
from shapes import edges_moved, structure
from torch import Tensor

from urst_tiles import losses, nets
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.learning.painting import noise
from urst_tiles.losses import backbones
from urst_tiles.losses.vgg import CONTENT16, LAYERS, LAYERS16, placed_state
from urst_tiles.nets import fast, live, named_styles
from urst_tiles.nets.style_file import load_style_file
from urst_tiles.nets.style_rows import style_named
from urst_tiles.source.picture import read_picture, write_png

TRAIN = SHARED / "data" / "train"
SIZE, HISTORY = 512, 20
PHOTO, OPTIMUM = "photo", "optimum"


@dataclass(frozen=True)
class Judge:
    """A loss network, its layers of the style, and that of the content."""

    net: losses.FeatureNet
    style: tuple[str, ...]
    content: str

    def grams(self, picture: Tensor) -> dict[str, Tensor]:
        """The Gram matrix of each layer."""
        return {k: losses.gram(f)[0] for k, f in self.net(picture, self.style).items()}

    def shapes(self, picture: Tensor) -> Tensor:
        """The features of the content layer, normalised."""
        return losses.normalised(self.net(picture, (self.content,))[self.content])


def judge_of(name: str) -> Judge:
    """The judge of that name."""
    if name == "vgg16":
        return Judge(backbones.backbone("vgg16", [WEIGHTS / "vgg16.safetensors"]), LAYERS16[:4], CONTENT16)
    if name == "vgg19":
        net = backbones.backbone("vgg19", [WEIGHTS / "vgg19_conv4_1.safetensors"])
        return Judge(net, LAYERS[:4], LAYERS[3])
    return Judge(untrained(), LAYERS[:4], LAYERS[3])


def untrained(seed: int = 0) -> backbones.VGG:
    """VGG-19 up to relu5_1 with random weights after He et al., in the memory format channels_last."""
    random = np.random.default_rng(seed)
    state = {}
    for name, i, o in backbones.convolutions("5_1"):
        values = random.normal(0, (2 / (9 * i)) ** 0.5, (o, i, 3, 3)).astype(np.float32)
        state[f"conv{name}.weight"], state[f"conv{name}.bias"] = torch.from_numpy(values), torch.zeros(o)
    return backbones.VGG(placed_state(state))


def tensor(path: Path) -> Tensor:
    """An image file as float32, (1, 3, h, w), in 0..1, its sides cropped to multiples of 16."""
    image = read_picture(path, SIZE)
    h, w = (side // 16 * 16 for side in image.shape[:2])
    return torch.from_numpy(image[:h, :w].copy()).permute(2, 0, 1)[None]


@dataclass(frozen=True)
class Pair:
    """A photograph and a painting, each (1, 3, h, w), and the name of the painting's style or its file, where
    it was asked for."""

    content: Tensor
    style: Tensor
    name: str


@torch.inference_mode()
def stylised(
    model: str, pair: Pair, weights: Path, checkpoints: Mapping[str, Path], learned: Path | None = None
) -> Tensor:
    """The picture that ``model`` makes, (1, 3, h, w), in 0..1; ``checkpoints`` has a file of `fast` by the
    name of the style; in the style of the file ``learned``, where there is one, `painter` paints."""
    if model == PHOTO:
        return pair.content
    style: NDArray[np.float32] | dict[str, Tensor] = pair.style[0].permute(1, 2, 0).numpy()
    if model == "painter" and learned:
        style = load_style_file(learned)
    elif model == "painter" and pair.name in named_styles.titles():
        style = style_named(pair.name)
    if model == fast.NAME:
        style = fast.load_style(checkpoints[pair.name])
    made = nets.build(model, weights, [(style, 1.0)])
    h, w = (side // made.stride * made.stride for side in pair.content.shape[2:])
    x = pair.content[:, :, :h, :w]
    if model == "painter":
        x = torch.cat([x, noise(torch.zeros(1, 2, dtype=torch.int64), (h, w), 0, 0) + 0.5], 1)
    return made.forward(x, live(made)).clamp(0, 1)


def optimum(judge: Judge, pair: Pair, evaluations: int) -> Tensor:
    """What L-BFGS makes of the photograph [1], with the weights of `pipelines/optimize.py`."""
    shares = dict.fromkeys(judge.style, 1 / len(judge.style))
    weight = STYLE_WEIGHTS["gatys", "none"]
    terms = Terms({judge.content: 1.0}, shares, 1.0, weight, scale="gatys")
    grams = style_targets(judge.net, terms, pair.style)
    descent = ByLBFGS(Whole.of(judge.net, terms, grams, pair.content), pair.content, evaluations, HISTORY)
    while descent.step < evaluations:
        descent.advance()
    return descent.x.detach().clamp(0, 1)


@torch.inference_mode()
def measured(judge: Judge, picture: Tensor, pair: Pair) -> tuple[float, ...]:
    """Distances of style and content, the structure, the shift of edges, and the PSNR to the photograph."""
    wanted, reached = judge.grams(pair.style), judge.grams(picture)
    style = [((reached[k] - g).norm() / g.norm()).item() for k, g in wanted.items()]
    h, w = picture.shape[2:]
    same = pair.content[:, :, :h, :w]
    content = (judge.shapes(picture) - judge.shapes(same)).square().mean()
    error = (picture - same).square().mean().item()
    kept, moved = structure(same, picture), edges_moved(same, picture)
    return float(np.mean(style)), content.item(), kept, moved, -10 * float(np.log10(max(error, 1e-12)))


def pairs_of(file: Path, every: int, names: Sequence[str] = ()) -> list[Pair]:
    """The pairs of a CSV file with the columns content and style, without those of named styles, or of its
    photographs and of the paintings ``names`` in turn, each a named style or an image file."""
    rows = read_table(file, "content", "style")
    files = {
        row["name"]: row["file"] for row in read_table(ROOT / "pipelines" / "styles.csv", "name", "file")
    }
    if unknown := [name for name in names if name not in files and not Path(name).is_file()]:
        raise BadInput(f"there is no named style and no image {unknown[0]}; styles are {', '.join(files)}")
    rows = rows if names else [row for row in rows if row["style"] not in files.values()]
    found = []
    for k, row in enumerate(rows):
        name = names[k % len(names)] if names else ""
        painting = TRAIN / "style" / files.get(name, row["style"])
        found.append((row["content"], Path(name) if name and name not in files else painting, name))
    return [Pair(tensor(TRAIN / "content" / a), tensor(b), name) for a, b, name in found[::every]]


def checkpoints_in(words: str) -> dict[str, Path]:
    """Files by the names of styles, of ``NAME=FILE,NAME=FILE``."""
    parts = [word.partition("=") for word in several(words)] if words else []
    found = {name: Path(file) for name, _, file in parts}
    for name, file in found.items():
        if not file.is_file():
            raise MissingFile(f"there is no file {str(file)!r} for {name}: give --checkpoints NAME=FILE")
    return found


@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"painter,lite,microast,{PHOTO}", help="separated by commas")
    parser.add_argument("--weights", type=existing_folder, default=WEIGHTS, help="of the models")
    parser.add_argument("--judge", choices=["vgg16", "vgg19", "random"], default="vgg16")
    parser.add_argument("--pairs", type=existing_file, default=ROOT / "pipelines" / "lite_pairs.csv")
    parser.add_argument("--named", action="store_true", help="named styles instead of paintings never seen")
    parser.add_argument("--checkpoints", default="", help="NAME=FILE of fast, separated by commas")
    parser.add_argument(
        "--learned", type=existing_file, help="style file that painter takes for every painting"
    )
    parser.add_argument("--identity", action="store_true", help="paint each painting in its own style")
    parser.add_argument("--every", type=integer(), default=1, help="take every n-th pair")
    parser.add_argument("--optimum", type=integer(0), default=0, help="evaluations; 0: none")
    parser.add_argument("--pictures", type=new_folder, help="also write every picture here")
    arguments = parser.parse_args(words)
    judge, models = judge_of(arguments.judge), several(arguments.models)
    checkpoints = checkpoints_in(arguments.checkpoints)
    if fast.NAME in models and not checkpoints:
        raise BadInput("--models fast has a network for each style: give --checkpoints NAME=FILE")
    names = list(checkpoints) or (list(named_styles.titles()) if arguments.named else [])
    pairs = pairs_of(arguments.pairs, arguments.every, names)
    if arguments.identity:
        pairs = [Pair(pair.style, pair.style, pair.name) for pair in pairs]
    found: dict[str, list[tuple[float, ...]]] = {}
    for k, pair in enumerate(pairs):
        pictures = {
            model: stylised(model, pair, arguments.weights, checkpoints, arguments.learned)
            for model in models
        }
        if arguments.optimum:
            pictures[OPTIMUM] = optimum(judge, pair, arguments.optimum)
        for model, picture in pictures.items():
            found.setdefault(model, []).append(measured(judge, picture, pair))
            if arguments.pictures:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                pixels = picture[0].mul(255).round().byte().permute(1, 2, 0).numpy()
                write_png(arguments.pictures / f"{k:02}-{model}.png", pixels)
    chosen = "paintings of one network each" if checkpoints else "named styles"
    kind = chosen if names else "paintings that no network has learned"
    of = "paintings" if arguments.identity else "photographs"
    title = f"Distances by {arguments.judge}, mean over {len(pairs)} {of} in {kind}, {SIZE} px"
    last = "PSNR" if arguments.identity else "way"
    columns = ["picture", "style", "content", "SSIM at 1/8", "edges moved, px", last]
    table(title, columns, rows_of(found, arguments.identity))


def rows_of(found: dict[str, list[tuple[float, ...]]], identity: bool) -> list[list[str]]:
    """A row for each model: mean distances, and the PSNR or the part of the way to the optimum."""
    means = {model: np.mean(values, 0) for model, values in found.items()}
    rows = []
    for model, (style, content, kept, moved, likeness) in means.items():
        last = f"{likeness:.1f}" if identity else ""
        if OPTIMUM in means and PHOTO in means and not identity:
            far, near = means[PHOTO][0], means[OPTIMUM][0]
            last = f"{(far - style) / (far - near):.2f}"
        rows.append([model, f"{style:.3f}", f"{content:.3f}", f"{kept:.2f}", f"{moved:.1f}", last])
    return rows


if __name__ == "__main__":
    sys.exit(main())
