"""ResNet-50 and Wide ResNet-50-2 as feature nets, and nets that show the effect of their shortcuts on a loss.

Layers are named as in [1]: "stem", then the blocks "conv1_0" to "conv4_2", each taken behind its last ReLU.
ResNet and VGG differ in many ways; three nets of [1, section 3] change these step by step. Their code was not
published, so this module implements them from the paper:

=============== ============================================= ========= ==========================
net             block                                         shortcuts smaller by
=============== ============================================= ========= ==========================
resnet50        1x1, 3x3, 1x1; 256 to 2048 channels           yes       strides, one pool; 2 to 32
resnet50-plain  the same, without its 1x1 on the shortcut     no        the same
pseudo-resvgg   3x3, 3x3, 3x3; 128, 256, 512, 512 channels    yes       max pooling; 1 to 16
pseudo-vgg      the same                                      no        the same
=============== ============================================= ========= ==========================

All have 3, 4, 6 and 3 blocks of three convolutions behind a stem, with batch normalisation. The stem of the
pseudo-nets is a 3x3 convolution to 64 channels, as in VGG; they have the strides and widths of VGG's stages.

**Random weights** are those of torchvision before training: normal with variance 2 / (k k outputs) for a
kernel of k x k. The nets are never in training mode, so an untrained batch normalisation (mean 0, variance 1)
changes nothing. A sum of two branches has about twice the variance of one, so with shortcuts the activations
grow from block to block. `Walk.settle` gives the normalisations the statistics of some images instead.

References
----------
1. P. Wang, Y. Li, N. Vasconcelos, "Rethinking and Improving the Robustness of Image Style Transfer", CVPR
   2021 (SWAG). Its released code names the layers, and scales those of the last two stages by 0.001.
2. K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
3. S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from urst_tiles.errors import BadInput
from urst_tiles.losses.torchvision_files import models
from urst_tiles.losses.vgg import MEAN, STD, State, there
from urst_tiles.weights import check_keys, load

#: Number of blocks of each stage [2, table 1].
BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}
#: Channels of the stages of the pseudo-nets, the same as VGG's [1]; stage 0 is the stem.
WIDTHS = {0: 64, 1: 128, 2: 256, 3: 512, 4: 512}
#: The layers of a style loss and of a content loss [1].
STYLE = ("stem", "conv1_2", "conv2_3", "conv3_5", "conv4_2")
CONTENT = "conv3_5"
#: The layers that the released code of [1] scales down.
DEEP = tuple(f"conv{stage}_{k}" for stage in (3, 4) for k in range(BLOCKS[stage]))
#: Prefixes of the weights of classifiers, which a checkpoint may have and no feature needs.
HEADS = ("fc.", "AuxLogits.")


@dataclass
class Walk:
    """A feature net that runs modules one after the other; no module may change its input in place.

    Parameters
    ----------
    name : name of the net, for messages.
    steps : modules by name, in order; each name is a layer.
    mean, std : colours enter the first module as (x - mean) / std.
    smallest : the shortest side of an image, in pixels, that all modules can take.
    """

    name: str
    steps: Mapping[str, nn.Module]
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    smallest: int = 1

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers`` for images ``x`` (n, 3, h, w) in 0..1.

        Raises
        ------
        BadInput : the net has no layer of that name, or the image is too small.
        """
        self.check(x, layers)
        features: dict[str, Tensor] = {}
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        x = (x - mean) / std
        for name, step in self.steps.items():
            if len(features) == len(set(layers)):
                break
            x = step(x)
            if name in layers:
                features[name] = x
        return features

    def check(self, x: Tensor, layers: Sequence[str]) -> None:
        """Raise BadInput where the net has no layer of a name, or the images ``x`` are too small."""
        if unknown := [name for name in layers if name not in self.steps]:
            raise BadInput(f"{self.name} has no layer {unknown[0]!r}; it has {', '.join(self.steps)}")
        if min(x.shape[-2:]) < self.smallest:
            got = f"{x.shape[-1]} x {x.shape[-2]}"
            raise BadInput(f"{self.name} needs pictures of {self.smallest} px on each side, got {got}")

    @torch.no_grad()
    def settle(self, pictures: Tensor) -> None:
        """Give every batch normalisation the mean and variance of its input for the images ``pictures`` (n,
        3, h, w)."""
        modules = [module for step in self.steps.values() for module in step.modules()]
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all passes; there is a single pass
            norm.train()
        self(pictures, [*self.steps][-1:])
        for norm in norms:
            norm.eval()


def made(make: Callable[[], nn.Module], files: Sequence[Path], seed: int, **placed: Any) -> nn.Module:
    """The module that ``make`` gives, for features only: with fixed weights, from a file or random, and moved
    by ``Module.to`` with the arguments ``placed``."""
    if files:
        (path,) = files
        module = loaded(make, path)
    else:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            module = make()
    placed = {"memory_format": torch.channels_last} | placed
    return module.eval().requires_grad_(False).to(**placed)


def loaded(make: Callable[[], nn.Module], path: Path) -> nn.Module:
    """The module that ``make`` gives, with the weights of a checkpoint as float32.

    Raises
    ------
    MissingFile : the checkpoint does not exist.
    BadWeights : its keys or shapes are wrong.
    """
    with torch.device("meta"):  # shapes only, since random weights would be thrown away
        module = make()
    given = {k: t for k, t in load(there(path)).items() if not k.startswith(HEADS) and not _counts(k)}
    expected = module.state_dict()
    check_keys(given, {k: tuple(t.shape) for k, t in expected.items() if not _counts(k)}, path)
    state: State = {k: torch.zeros((), dtype=torch.long) for k in expected if _counts(k)}
    module.load_state_dict(state | {k: t.float() for k, t in given.items()}, assign=True)
    return module


def _counts(key: str) -> bool:
    """Whether the key is a counter of training steps, which old checkpoints lack and no feature needs."""
    return key.endswith("num_batches_tracked")


# ResNet


def resnet50(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """ResNet-50 [2], from torchvision's checkpoint ``resnet50-*.pth`` or with random weights."""
    net = made(lambda: headless(models().resnet50()), files, seed, **placed)
    return Walk("resnet50", resnet_steps(net))


def wide_resnet50_2(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """Wide ResNet-50-2 [3], whose 3x3 convolutions have twice the channels, from torchvision's
    ``wide_resnet50_2-*.pth`` or with random weights."""
    net = made(lambda: headless(models().wide_resnet50_2()), files, seed, **placed)
    return Walk("wide-resnet50-2", resnet_steps(net))


def resnet50_plain(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """ResNet-50 without shortcuts, from a state with torchvision's keys except those of the shortcuts, or
    with random weights."""
    net = made(lambda: without_shortcuts(headless(models().resnet50())), files, seed, **placed)
    return Walk("resnet50-plain", resnet_steps(net, straight))


def headless(net: nn.Module) -> nn.Module:
    """``net`` without its classifier, changed in place."""
    net.fc = nn.Identity()
    return net


def without_shortcuts(net: nn.Module) -> nn.Module:
    """``net`` without the 1x1 convolutions on its shortcuts, changed in place."""
    blocks: list[Any] = [module for module in net.modules() if hasattr(module, "downsample")]
    for block in blocks:
        block.downsample = None
    return net


def whole(block: Any) -> nn.Module:
    """A bottleneck block as torchvision runs it."""
    return block


def straight(block: Any) -> nn.Module:
    """The convolutions of a bottleneck block without its shortcut, with a ReLU behind each."""
    parts = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    return nn.Sequential(*(module for conv, norm in parts for module in (conv, norm, nn.ReLU())))


def resnet_steps(net: Any, form: Callable[[Any], nn.Module] = whole) -> dict[str, nn.Module]:
    """The steps of a `Walk` through torchvision's ResNet; ``form`` makes the module that stands for each
    block."""
    steps = {"stem": nn.Sequential(net.conv1, net.bn1, net.relu), "pool": net.maxpool}
    for stage in BLOCKS:
        blocks = getattr(net, f"layer{stage}")
        steps |= {f"conv{stage}_{k}": form(block) for k, block in enumerate(blocks)}
    return steps


# Nets between ResNet and VGG


class Block(nn.Module):
    """Three 3x3 convolutions, with a shortcut around them or without: (n, inputs, h, w) -> (n, outputs, h,
    w)."""

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        sizes = [inputs, outputs, outputs]
        self.body = nn.Sequential(*(m for size in sizes for m in (*convolution(size, outputs), nn.ReLU())))
        del self.body[-1]
        same = nn.Identity() if inputs == outputs else nn.Sequential(*convolution(inputs, outputs, 1))
        self.shortcut = same if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Run the block; its last ReLU comes after the sum."""
        y = self.body(x)
        return (y if self.shortcut is None else y + self.shortcut(x)).relu()


def convolution(inputs: int, outputs: int, size: int = 3) -> tuple[nn.Module, nn.Module]:
    """A convolution with random weights as in torchvision's ResNet, and its batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs)


def pseudo(residual: bool, width: float = 1.0) -> nn.Sequential:
    """Either pseudo-net, with shortcuts or without; its children have the names of the layers and are the
    steps of the `Walk`."""
    channels = {stage: max(2, round(count * width)) for stage, count in WIDTHS.items()}
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(*convolution(3, channels[0]), nn.ReLU()))
    for stage, count in BLOCKS.items():
        net.add_module(f"pool{stage}", nn.MaxPool2d(2))
        for k in range(count):
            inputs = channels[stage] if k else channels[stage - 1]
            net.add_module(f"conv{stage}_{k}", Block(inputs, channels[stage], residual))
    return net


def pseudo_vgg(files: Sequence[Path] = (), seed: int = 0, width: float = 1.0, **placed: Any) -> Walk:
    """The pseudo-net without shortcuts: 3x3 convolutions and max pooling as in VGG, as deep as ResNet-50, and
    ``width`` times as wide as in the table above."""
    net = made(lambda: pseudo(False, width), files, seed, **placed)
    return Walk("pseudo-vgg", dict(net.named_children()), smallest=16)


def pseudo_resvgg(files: Sequence[Path] = (), seed: int = 0, width: float = 1.0, **placed: Any) -> Walk:
    """The pseudo-net with shortcuts around every three convolutions, with 1x1 convolutions on them where the
    width changes."""
    net = made(lambda: pseudo(True, width), files, seed, **placed)
    return Walk("pseudo-resvgg", dict(net.named_children()), smallest=16)
