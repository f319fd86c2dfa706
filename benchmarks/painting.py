"""How far a picture is from a painting, at full scale and reduced by 2, 4 and 8: painted at every zoom level?

    python benchmarks/painting.py PICTURE PAINTING --teacher vgg16.safetensors

The distance of a layer is that of two Gram matrices relative to the painting's, |G - G0| / |G0| (Frobenius).
G is the mean over nine crops of 512 px in three rows from edge to edge, G0 that of the painting at 512 px on
its short side. The table has the layers relu1_2, relu2_2, relu3_3 and relu4_3 of VGG-16 and their mean: 0 for
the painting itself, about 0.8 for a photograph, above 1 for a picture of far too much contrast. Reduced
pictures are means of 2 x 2 pixels; where a side is shorter than 512 px, crops are as long as the side.

Three lines follow. One tells how much of the strokes sits on a lattice of 4 px, the cells of this package's
painter: by how much the Gram matrices at each place of a cell differ from their mean, relative to the
painting's, for the picture at full scale and for the painting itself, which is not endless. One tells how
many times as much power the upright and the level lines finer than 4 px have as lines a little turned from
them (`urst_tiles/learning/axes.py`). The last tells how far the colours of the picture, reduced by 8, are
from the painting's at 64 px: the distance of the means in deviations of the painting, and that of the
covariance matrices relative to the painting's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Parser, existing_file, program, reading, table
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles import losses
from urst_tiles.learning.axes import along_axes
from urst_tiles.learning.lattice import lattice_distance
from urst_tiles.losses import backbones
from urst_tiles.losses.vgg import LAYERS16
from urst_tiles.source.colour import libvips
from urst_tiles.source.picture import read_picture

LAYERS = LAYERS16[:4]
SIDE, ROWS = 512, 3
REDUCTIONS = (1, 2, 4, 8)


def whole(path: Path) -> NDArray[np.uint8]:
    """uint8 (h, w, 3): the picture as large as it is."""
    with reading(path) as name:
        image = libvips().Image.new_from_file(name, fail_on="warning").autorot().colourspace("srgb")
        return np.asarray(image[0:3].numpy(), np.uint8)


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels; an odd last line is left out."""
    h, w = (side // 2 * 2 for side in image.shape[:2])
    blocks = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).astype(np.uint16)
    return ((blocks.sum((1, 3)) + 2) // 4).astype(np.uint8)


def crops(image: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Squares of 512 px, (1, 3, 512, 512) in 0..1 each, in `ROWS` rows and columns from edge to edge."""
    h, w = (min(SIDE, n) for n in image.shape[:2])
    for top in lattice(image.shape[0] - h):
        for left in lattice(image.shape[1] - w):
            part = np.ascontiguousarray(image[top : top + h, left : left + w])
            yield torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255


def lattice(last: int) -> list[int]:
    """`ROWS` evenly spaced numbers from 0 to ``last``, each of them once."""
    return np.unique(np.linspace(0, last, ROWS).round().astype(int)).tolist()


def grams(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Gram matrix of each layer of one picture."""
    return {k: losses.gram(f)[0] for k, f in features.items()}


@torch.inference_mode()
def distances(
    net: losses.FeatureNet, picture: NDArray[np.uint8], painting: Tensor
) -> tuple[list[list[float]], float, float]:
    """The layers' distances and their mean, for each of `REDUCTIONS`; and how much sits on the network's
    cells, of the mean crop at full scale and of the painting, (1, 3, h, w) in 0..1."""
    features = net(painting, LAYERS)
    wanted = grams(features)
    power = {k: (len(g) * g).square().mean()[None] for k, g in wanted.items()}  # sums, not means of channels
    theirs, ours, rows = lattice_distance(features, painting.shape[2], power), [], []
    for reduction in REDUCTIONS:
        picture = picture if reduction == 1 else halved(picture)
        found = []
        for x in crops(picture):
            features = net(x, LAYERS)
            found.append(grams(features))
            if reduction == 1:
                ours.append(lattice_distance(features, x.shape[2], power))
        reached = {k: torch.stack([each[k] for each in found]).mean(0) for k in LAYERS}
        layers = [((reached[k] - g).norm() / g.norm()).item() for k, g in wanted.items()]
        rows.append([*layers, float(np.mean(layers))])
    return rows, float(torch.stack(ours).mean()), float(theirs)


def finest_lines(pictures: Iterable[Tensor]) -> tuple[float, float]:
    """How many times as much power upright and level lines finer than 4 px have as lines a little turned from
    them, in the mean of pictures (1, 3, h, w) in 0..1."""
    upright, level = torch.cat([along_axes(x) for x in pictures])[:, -1].mean(0).exp().tolist()
    return upright, level


def colours(picture: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of a picture's colours, reduced by 8."""
    for _ in range(3):
        picture = halved(picture)
    rows = picture.reshape(-1, 3).astype(np.float64)
    return rows.mean(0), np.cov(rows.T)


def far_in_colours(picture: NDArray[np.uint8], painting: NDArray[np.uint8]) -> tuple[float, float]:
    """How far the mean and the covariance of the colours are from the painting's, as shares."""
    (mean, covariance), (wanted, spread) = colours(picture), colours(painting)
    moved = np.linalg.norm(mean - wanted) / np.sqrt(np.trace(spread))
    return float(moved), float(np.linalg.norm(covariance - spread) / np.linalg.norm(spread))


@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=existing_file)
    parser.add_argument("painting", type=existing_file)
    parser.add_argument(
        "--teacher", type=existing_file, required=True, help="vgg16.safetensors or torchvision's file"
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args(words)
    dtype = getattr(torch, arguments.precision)
    net = backbones.backbone("vgg16", [arguments.teacher], dtype=dtype)
    small, picture = read_picture(arguments.painting, SIDE), whole(arguments.picture)
    painting = torch.from_numpy(small.copy()).permute(2, 0, 1)[None]
    measured, ours, theirs = distances(net, picture, painting)
    rows = [
        [f"1/{reduction}" if reduction > 1 else "1:1", *(f"{value:.3f}" for value in values)]
        for reduction, values in zip(REDUCTIONS, measured, strict=True)
    ]
    title = f"Style distance of {arguments.picture.name} from {arguments.painting.name}"
    table(title, ["scale", *LAYERS, "mean"], rows)
    print(f"On a lattice of 4 px: {ours:.3f}; the painting itself: {theirs:.3f}.")
    (upright, level), (own_upright, own_level) = finest_lines(crops(picture)), finest_lines([painting])
    print(
        f"Upright and level lines finer than 4 px are {upright:.1f} and {level:.1f} times as strong as lines"
        f" beside them; in the painting itself, {own_upright:.1f} and {own_level:.1f} times."
    )
    mean, covariance = far_in_colours(picture, np.rint(255 * small).astype(np.uint8))
    print(f"Colours, reduced by 8: the mean is off by {mean:.1%}, the covariance by {covariance:.1%}.")


if __name__ == "__main__":
    sys.exit(main())
