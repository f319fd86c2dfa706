"""Style and content losses of lite and MicroAST on fixed pairs that lite was never trained on.

    python benchmarks/quality.py [--judge random] [--every 4] [--pairs FILE.csv] [--pictures FOLDER]

Contents and styles have 512 px on the short side; each network runs in float32 with the statistics of the
content. The style loss of a layer is the mean over channels of the squared distances of mean and deviation.
The content loss is the mean squared distance of relu4_1, both plain and with each channel normalised. The
judges are the networks that taught lite (VGG-19 to relu3_1, and a distilled stand-in for relu4_1 and
relu5_1), or a network that taught neither model: the same layers of a VGG-19 with random weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, SHARED, Parser, existing_file, integer, new_folder, program, read_table, table
from nets_here import WEIGHTS

from urst_tiles import losses, nets
from urst_tiles.losses import backbones
from urst_tiles.losses.vgg import placed_state
from urst_tiles.nets import live
from urst_tiles.source.picture import read_picture, write_png

TRAIN = SHARED / "data" / "train"
SIZE = 512
MODELS = ("lite", "microast")


def untrained(seed: int = 0) -> backbones.VGG:
    """VGG-19 up to relu5_1 with random weights after He et al., in the memory format channels_last."""
    random = np.random.default_rng(seed)
    state = {}
    for name, i, o in backbones.convolutions("5_1"):
        values = random.normal(0, (2 / (9 * i)) ** 0.5, (o, i, 3, 3)).astype(np.float32)
        state[f"conv{name}.weight"], state[f"conv{name}.bias"] = torch.from_numpy(values), torch.zeros(o)
    return backbones.VGG(placed_state(state))


def teachers() -> backbones.Together:
    """The networks whose losses lite was trained with."""
    return backbones.teachers(WEIGHTS / "vgg19_relu3_1.raw", WEIGHTS / "collaborative_wct" / "5SE.pth")


def tensor(path: Path) -> torch.Tensor:
    """An image file as float32, (1, 3, h, w), in 0..1, its sides cropped to multiples of 16."""
    image = read_picture(path, SIZE)
    h, w = (side // 16 * 16 for side in image.shape[:2])
    return torch.from_numpy(image[:h, :w].copy()).permute(2, 0, 1)[None]


def stylised(model: str, content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """The picture that ``model`` makes, (1, 3, h, w), in 0..1; the model "content" returns the content."""
    if model == "content":
        return content
    made = nets.build(model, WEIGHTS, [(style[0].permute(1, 2, 0).numpy(), 1.0)])
    return made.forward(content, live(made)).clamp(0, 1)


def judge(
    net: losses.FeatureNet, content: torch.Tensor, style: torch.Tensor, scale: bool
) -> Callable[[torch.Tensor], list[float]]:
    """A function from a picture to its losses in the order of the table's columns.

    ``scale`` divides each layer by the mean activation of the style.
    """
    of_content, wanted = net(content, ["relu4_1"])["relu4_1"], net(style, backbones.LAYERS)
    units = {k: f.mean() if scale else torch.ones(()) for k, f in wanted.items()}
    targets = {k: losses.mean_std(f / units[k]) for k, f in wanted.items()}

    def losses_of(picture: torch.Tensor) -> list[float]:
        features = {k: f / units[k] for k, f in net(picture, backbones.LAYERS).items()}
        layers = losses.style_loss({k: losses.mean_std(f) for k, f in features.items()}, targets)[0]
        target = of_content / units["relu4_1"]
        plain = losses.content_loss(features["relu4_1"], target)
        normal = losses.content_loss(losses.normalised(features["relu4_1"]), losses.normalised(target))
        return [*layers.tolist(), layers.sum().item(), plain.item(), normal.item()]

    return losses_of


@torch.inference_mode()
@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=existing_file, default=ROOT / "pipelines" / "lite_pairs.csv")
    parser.add_argument("--pictures", type=new_folder, help="also write every picture here")
    parser.add_argument("--every", type=integer(), default=1, help="take every n-th pair")
    parser.add_argument("--judge", choices=["teachers", "random"], default="teachers")
    arguments = parser.parse_args(words)
    rows = read_table(arguments.pairs, "content", "style")
    pairs = [(row["content"], row["style"]) for row in rows][:: arguments.every]
    judging = teachers() if arguments.judge == "teachers" else untrained()
    by_model: dict[str, list[list[float]]] = {}
    for k, (content_name, style_name) in enumerate(pairs):
        content, style = tensor(TRAIN / "content" / content_name), tensor(TRAIN / "style" / style_name)
        losses_of = judge(judging, content, style, arguments.judge == "random")
        for model in (*MODELS, "content"):
            picture = stylised(model, content, style)
            by_model.setdefault(model, []).append(losses_of(picture))
            if arguments.pictures and model in MODELS:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                pixels = picture[0].mul(255).round().byte().permute(1, 2, 0).numpy()
                write_png(arguments.pictures / f"{k:02}-{model}.png", pixels)
    rows = []
    for model, values in by_model.items():
        rows.append([model, *(f"{v:.3f}" for v in np.mean(values, axis=0))])
    head = ["picture", *backbones.LAYERS, "style", "content", "content, normalised"]
    table(f"Losses, mean over {len(pairs)} pairs, judge: {arguments.judge}", head, rows)


if __name__ == "__main__":
    sys.exit(main())
