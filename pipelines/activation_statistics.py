"""Measure how peaked the activations are from which a loss is computed, with and without SWAG's smoothing.

    python pipelines/activation_statistics.py --out FOLDER --backbones resnet50 resnet50-plain

SWAG [1, section 3] explains by two numbers why losses through residual networks stylise badly. From stage to
stage the largest activation grows, and the normalised entropy of the activations,

    H(F) = -sum p log p / log(C h w),   p = softmax(F) over all C h w activations of a layer,

falls from 1 (all activations are alike) to 0 (a single activation counts). The same holds for Gram matrices.
This program measures both at the style layers of each backbone, on a folder of images or on a made-up
landscape, with random weights from several seeds or with weights from files. It writes ``statistics.csv``
with all numbers and ``statistics.png`` with a plot.

The softmax in p depends on the scale of F; the columns ``share_entropy`` use p = F / sum F, which does not.
Gram matrices here are F F^T / (h w), means over the pixels of the layer. The losses also divide by C, a scale
at which most Gram matrices have an entropy of 1. design/swag.md gives the reasons and the results.

References
----------
1. P. Wang, Y. Li, N. Vasconcelos, "Rethinking and Improving the Robustness of Image Style Transfer", CVPR
   2021.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import Parser, integer, new_folder, program
from scenery.landscape import Landscape
from torch import Tensor
from training.command import check_device

from urst_tiles import losses
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.learning.crops import SUFFIXES
from urst_tiles.losses.backbones import BACKBONES, Backbone, backbone
from urst_tiles.losses.residual import Walk
from urst_tiles.source.picture import read_picture
from urst_tiles.storage.publish import make_folder, publish

#: The four networks of the paper, the network they are compared with, and two others of the paper.
DEFAULT = (
    *("vgg19", "resnet50", "resnet50-plain", "pseudo-resvgg", "pseudo-vgg"),
    *("wide-resnet50-2", "inception-v3"),
)
#: Side in pixels of the smallest picture that every backbone takes.
SMALLEST = 75
Values = dict[str, float]


# The statistics


def entropy(x: Tensor) -> Tensor:
    """The normalised entropy of each of n tensors, (n, ...) -> (n,), float64 in 0..1.

    It is the entropy of the softmax over all values, divided by the logarithm of their number.
    """
    below = x.flatten(1) - x.flatten(1).amax(1, keepdim=True)
    weights = below.exp()
    total = weights.sum(1, dtype=torch.float64)
    mean = (weights * below).sum(1, dtype=torch.float64) / total
    return (total.log() - mean) / math.log(below.shape[1])


def share_entropy(x: Tensor) -> Tensor:
    """The same as `entropy`, but of the values divided by their sum; NaN if all values are 0.

    No value may be negative.
    """
    values = x.flatten(1)
    total = values.sum(1, dtype=torch.float64)
    mean = torch.special.xlogy(values, values).sum(1, dtype=torch.float64) / total
    return (total.log() - mean) / math.log(values.shape[1])


def measure(f: Tensor) -> Values:
    """The statistics of a layer, (1, C, h, w), without negative values, and of its Gram matrix."""
    statistics: Values = {}
    for prefix, x in (("", f), ("gram_", losses.gram(f) * f.shape[1])):
        statistics[f"{prefix}maximum"] = x.max().item()
        statistics[f"{prefix}entropy"] = entropy(x).item()
        statistics[f"{prefix}share_entropy"] = share_entropy(x).item()
    return statistics


@torch.inference_mode()
def measure_net(
    net: losses.FeatureNet, row: Backbone, pictures: Sequence[Tensor], smoothings: Sequence[losses.Smoothing]
) -> dict[tuple[str, losses.Smoothing], Values]:
    """The mean over ``pictures`` of each statistic, by (layer, smoothing).

    The smoothing "scale" applies to deep layers only.
    """
    by_case: dict[tuple[str, losses.Smoothing], list[Values]] = defaultdict(list)
    for picture in pictures:
        for layer, f in net(picture, row.style).items():
            for how in smoothings:
                applied = "none" if how == "scale" and layer not in row.deep else how
                by_case[layer, how].append(measure(losses.smoothed(f, applied)))
    return {
        key: {k: float(np.mean([v[k] for v in values])) for k in values[0]} for key, values in by_case.items()
    }


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes
    ----------
    stage : number of the layer among the style layers of the backbone, from 1 on.
    mean, spread : mean and standard deviation over seeds of each statistic; the spread is 0 for a single
        seed.
    """

    backbone: str
    weights: str
    stage: int
    layer: str
    smoothing: losses.Smoothing
    mean: Values
    spread: Values

    def columns(self) -> dict[str, Any]:
        """The line by column of the CSV file."""
        head = ("backbone", "weights", "stage", "layer", "smoothing")
        numbers: dict[str, Any] = {k: getattr(self, k) for k in head}
        for k in self.mean:
            numbers |= {k: f"{self.mean[k]:.6g}", f"{k}_spread": f"{self.spread[k]:.3g}"}
        return numbers


def lines_of(name: str, options: argparse.Namespace, pictures: Sequence[Tensor]) -> Iterator[Line]:
    """Yield the lines of one backbone, for all style layers.

    The weights are those of the files in the options, or else random, once for each seed.
    """
    row, files = BACKBONES[name], options.weights.get(name, [])
    runs = []
    for seed in range(1 if files else options.seeds):
        net = backbone(name, files, seed, device=options.device)
        if options.batch_norm == "settled" and isinstance(net, Walk) and not files:
            net.settle(torch.cat(list(pictures)))
        runs.append(measure_net(net, row, pictures, options.smoothings))
    weights = "+".join(path.name for path in files) or f"random, {len(runs)} seeds"
    for layer, how in runs[0]:
        values = {k: [run[layer, how][k] for run in runs] for k in runs[0][layer, how]}
        mean = {k: float(np.mean(v)) for k, v in values.items()}
        spread = {k: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for k, v in values.items()}
        yield Line(name, weights, row.style.index(layer) + 1, layer, how, mean, spread)


# Pictures


def made_up(count: int, side: int) -> Iterator[Tensor]:
    """Yield ``count`` squares of a made-up landscape, float32, (1, 3, side, side), in 0..1.

    They lie a kilometre or more apart.
    """
    scene = Landscape(471)
    drawn = 4 * math.ceil(side / 4)  # the landscape is drawn in multiples of 4 px
    for k in range(count):
        square = scene.draw(1024 * (k % 4), 4096 * (k // 4), drawn, drawn)[:side, :side]
        yield torch.from_numpy(np.ascontiguousarray(square, np.float32)).permute(2, 0, 1)[None]


def from_folder(folder: Path, count: int, side: int) -> Iterator[Tensor]:
    """Yield the middle squares of the first ``count`` images by name, float32, (1, 3, side, side), in 0..1.

    Raises
    ------
    MissingFile : the folder does not exist.
    BadInput : the folder holds no image.
    """
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder} of images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise BadInput(f"the folder {folder} holds no image (known: {', '.join(sorted(SUFFIXES))})")
    for path in paths[:count]:
        image = read_picture(path, side)
        y, x = ((n - side) // 2 for n in image.shape[:2])
        square = np.ascontiguousarray(image[y : y + side, x : x + side])
        yield torch.from_numpy(square).permute(2, 0, 1)[None]


# The table and the plot


def table(lines: Sequence[Line]) -> bytes:
    """The content of the CSV file."""
    rows = [line.columns() for line in lines]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def by_curve(lines: Sequence[Line]) -> dict[tuple[str, losses.Smoothing], list[Line]]:
    """The lines by backbone and smoothing, each list from the first stage to the last."""
    curves: dict[tuple[str, losses.Smoothing], list[Line]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: line.stage):
        curves[line.backbone, line.smoothing].append(line)
    return curves


def printed(lines: Sequence[Line]) -> str:
    """The text to print: the largest activation and the entropy by stage; the file has all other numbers."""
    rows = [
        f"{'backbone':<17}{'smoothing':<10}{'maximum, five stages':^46}{'entropy, five stages':^31}".rstrip()
    ]
    for (name, how), curve in by_curve(lines).items():
        peaks = "".join(f"{line.mean['maximum']:9.3g}" for line in curve)
        entropies = "".join(f"{line.mean['entropy']:6.3f}" for line in curve)
        rows.append(f"{name:<17}{how:<10}{peaks} {entropies}")
    return "\n".join(rows)


def figure_class() -> Any:
    """The class ``matplotlib.figure.Figure``; raises BadInput if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInput(f"the plot needs matplotlib ({error}): pip install 'urst-tiles[train]'") from error
    return Figure


PANELS = {
    "maximum": "largest activation",
    "entropy": "normalised entropy of activations",
    "gram_maximum": "largest entry of the Gram matrix",
    "gram_entropy": "normalised entropy of the Gram matrix",
}


def plot(lines: Sequence[Line]) -> bytes:
    """The content of the PNG file: four panels of curves over the stages.

    Curves without smoothing show the spread among seeds. Entropies with smoothing are dashed.
    """
    figure = figure_class()(figsize=(9.6, 6.4), layout="constrained")
    axes = figure.subplots(2, 2).flat
    names = list(dict.fromkeys(line.backbone for line in lines))
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        for (name, how), curve in by_curve(lines).items():
            if how == "none" or (how == "map" and key.endswith("entropy")):
                draw(axis, curve, key, f"C{names.index(name)}", how)
        axis.set(title=title, xticks=range(1, 6), xlabel="stage")
        axis.set(**({"ylim": (-0.05, 1.1)} if key.endswith("entropy") else {"yscale": "log"}))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80)
    return out.getvalue()


def draw(axis: Any, curve: Sequence[Line], key: str, colour: str, how: losses.Smoothing) -> None:
    """Draw a curve of a panel; the band of the spread is cut to the values that the axis can show."""
    stages = [line.stage for line in curve]
    mean, spread = (np.array([getattr(line, part)[key] for line in curve]) for part in ("mean", "spread"))
    if how != "none":
        axis.plot(stages, mean, color=colour, linestyle="--")
        return
    axis.plot(stages, mean, color=colour, marker="o", label=curve[0].backbone)
    low, high = np.maximum(mean - spread, mean / 100), mean + spread
    if key.endswith("entropy"):
        high = np.minimum(high, 1)
    axis.fill_between(stages, low, high, color=colour, alpha=0.2, linewidth=0)


# The command line


def weights_of(given: Sequence[str]) -> dict[str, list[Path]]:
    """The files of weights by backbone, from words NAME=FILE; raises BadInput for any other word."""
    files: dict[str, list[Path]] = defaultdict(list)
    for word in given:
        name, equals, file = word.partition("=")
        if name not in BACKBONES or not equals:
            raise BadInput(f"--weights must be NAME=FILE, NAME one of {', '.join(BACKBONES)}; got {word!r}")
        files[name].append(Path(file))
    return files


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=new_folder, required=True, metavar="FOLDER")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=DEFAULT)
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE", help="else random")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="else a made-up landscape")
    parser.add_argument("--count", type=integer(), default=4, help="of images")
    parser.add_argument("--size", type=integer(SMALLEST), default=256, help="of the squares, in pixels")
    parser.add_argument("--seeds", type=integer(), default=3, help="of random weights")
    parser.add_argument("--smoothings", nargs="+", choices=losses.SMOOTHINGS, default=losses.SMOOTHINGS)
    parser.add_argument(
        "--batch-norm",
        choices=("untrained", "settled"),
        default="untrained",
        help="of random weights: none, as a network in evaluation mode has it, or on the images measured",
    )
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    options.weights = weights_of(options.weights)
    return options


def run(options: argparse.Namespace) -> None:
    """Measure the statistics, write the files and print the main numbers."""
    check_device(options.device)
    figure_class()  # raises at once if matplotlib is missing, and not after minutes
    source = from_folder(options.images, options.count, options.size) if options.images else None
    squares = source or made_up(options.count, options.size)
    pictures = [square.to(options.device) for square in squares]
    lines = [line for name in options.backbones for line in lines_of(name, options, pictures)]
    make_folder(options.out)
    publish(options.out / "statistics.csv", table(lines))
    publish(options.out / "statistics.png", plot(lines))
    print(printed(lines))


@program
def main(words: Sequence[str]) -> None:
    """Run the command line."""
    run(parse(words))


if __name__ == "__main__":
    sys.exit(main())
