"""ResNet-50 and Wide ResNet-50-2 as feature nets, and the nets that tell what their shortcuts do to a loss.

Layers are named as in [1]: "stem", then the blocks "conv1_0" to "conv4_2", each behind its last ReLU. Between
ResNet and VGG lie many differences; three nets of [1, section 3] take them one at a time. No code of these
was published. Here they are:

=============== ============================================= ========= ==========================
net             block                                         shortcuts smaller by
=============== ============================================= ========= ==========================
resnet50        1x1, 3x3, 1x1; 256 to 2048 channels           yes       strides, one pool; 2 to 32
resnet50-plain  the same, without its 1x1 on the shortcut     no        the same
pseudo-resvgg   3x3, 3x3, 3x3; 128, 256, 512, 512 channels    yes       max pooling; 1 to 16
pseudo-vgg      the same                                      no        the same
=============== ============================================= ========= ==========================

All have 3, 4, 6 and 3 blocks of three convolutions behind a stem, with batch normalisation. The pseudo-nets'
stem is one 3x3 convolution to 64 channels, as VGG begins; they have the strides and widths of VGG's stages.

**Random weights** are torchvision's at the start of a training: normal of variance 2 / (k k outputs). The
nets are never in training mode, so an untrained batch normalisation (mean 0, variance 1) does nothing, and a
sum of two branches is about twice as varied as one: with the shortcuts activations grow from block to block.
`Walk.settle` gives the normalisations the statistics of some pictures instead.

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

#: Blocks of each stage [2, table 1].
BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}
#: Channels of the stages of the pseudo-nets: VGG's [1].
WIDTHS = {0: 64, 1: 128, 2: 256, 3: 512, 4: 512}
#: The layers of a style loss and of a content loss [1].
STYLE = ("stem", "conv1_2", "conv2_3", "conv3_5", "conv4_2")
CONTENT = "conv3_5"
#: What the released code of [1] scales down.
DEEP = tuple(f"conv{stage}_{k}" for stage in (3, 4) for k in range(BLOCKS[stage]))
#: What only classifies; a checkpoint may have it.
HEADS = ("fc.", "AuxLogits.")


@dataclass
class Walk:
    """A feature net that is a walk through modules, none of which changes its input.

    Parameters
    ----------
    name : of the net, for messages.
    steps : names and modules in order; each name is a layer.
    mean, std : colours go in as (x - mean) / std.
    smallest : the shortest side of a picture, in pixels, that the whole walk can take.
    """

    name: str
    steps: Mapping[str, nn.Module]
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    smallest: int = 1

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``; BadInput for a layer that is not there or a picture too small."""
        self.check(x, layers)
        found: dict[str, Tensor] = {}
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        x = (x - mean) / std
        for name, step in self.steps.items():
            if len(found) == len(set(layers)):
                break
            x = step(x)
            if name in layers:
                found[name] = x
        return found

    def check(self, x: Tensor, layers: Sequence[str]) -> None:
        """BadInput for what the walk cannot do."""
        if unknown := [name for name in layers if name not in self.steps]:
            raise BadInput(f"{self.name} has no layer {unknown[0]!r}; it has {', '.join(self.steps)}")
        if min(x.shape[-2:]) < self.smallest:
            got = f"{x.shape[-1]} x {x.shape[-2]}"
            raise BadInput(f"{self.name} needs pictures of {self.smallest} px on each side, got {got}")

    @torch.no_grad()
    def settle(self, pictures: Tensor) -> None:
        """Give every batch normalisation the mean and variance of its input on ``pictures`` (n, 3, h, w)."""
        modules = [module for step in self.steps.values() for module in step.modules()]
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all passes, which are one
            norm.train()
        self(pictures, [*self.steps][-1:])
        for norm in norms:
            norm.eval()


def made(make: Callable[[], nn.Module], files: Sequence[Path], seed: int, **placed: Any) -> nn.Module:
    """What ``make`` makes, for features only: its weights fixed, from one file or random, and placed."""
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
    """With a checkpoint's weights, as float32; MissingFile, BadWeights."""
    with torch.device("meta"):  # shapes only: the random start would be thrown away
        module = make()
    given = {k: t for k, t in load(there(path)).items() if not k.startswith(HEADS) and not _counts(k)}
    expected = module.state_dict()
    check_keys(given, {k: tuple(t.shape) for k, t in expected.items() if not _counts(k)}, path)
    state: State = {k: torch.zeros((), dtype=torch.long) for k in expected if _counts(k)}
    module.load_state_dict(state | {k: t.float() for k, t in given.items()}, assign=True)
    return module


def _counts(key: str) -> bool:
    """Steps of training, which old checkpoints lack and no feature needs."""
    return key.endswith("num_batches_tracked")


# ResNet


def resnet50(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """ResNet-50 [2], from torchvision's checkpoint ``resnet50-*.pth``."""
    net = made(lambda: headless(models().resnet50()), files, seed, **placed)
    return Walk("resnet50", resnet_steps(net))


def wide_resnet50_2(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """Wide ResNet-50-2 [3], 3x3 convolutions of twice the channels: ``wide_resnet50_2-*.pth``."""
    net = made(lambda: headless(models().wide_resnet50_2()), files, seed, **placed)
    return Walk("wide-resnet50-2", resnet_steps(net))


def resnet50_plain(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """ResNet-50 without shortcuts, from a state with torchvision's keys but those on the shortcuts."""
    net = made(lambda: without_shortcuts(headless(models().resnet50())), files, seed, **placed)
    return Walk("resnet50-plain", resnet_steps(net, straight))


def headless(net: nn.Module) -> nn.Module:
    """Without the classifier."""
    net.fc = nn.Identity()
    return net


def without_shortcuts(net: nn.Module) -> nn.Module:
    """Without the 1x1 convolutions on the shortcuts."""
    blocks: list[Any] = [module for module in net.modules() if hasattr(module, "downsample")]
    for block in blocks:
        block.downsample = None
    return net


def whole(block: Any) -> nn.Module:
    """A bottleneck block as torchvision runs it."""
    return block


def straight(block: Any) -> nn.Module:
    """Only the convolutions of a bottleneck block, a ReLU behind each."""
    parts = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    return nn.Sequential(*(module for conv, norm in parts for module in (conv, norm, nn.ReLU())))


def resnet_steps(net: Any, form: Callable[[Any], nn.Module] = whole) -> dict[str, nn.Module]:
    """The walk through torchvision's ResNet, each block in a ``form``."""
    steps = {"stem": nn.Sequential(net.conv1, net.bn1, net.relu), "pool": net.maxpool}
    for stage in BLOCKS:
        blocks = getattr(net, f"layer{stage}")
        steps |= {f"conv{stage}_{k}": form(block) for k, block in enumerate(blocks)}
    return steps


# Between ResNet and VGG


class Block(nn.Module):
    """Three 3x3 convolutions, with a shortcut around them or without: (n, inputs, h, w) -> (n, C, h, w)."""

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        sizes = [inputs, outputs, outputs]
        self.body = nn.Sequential(*(m for size in sizes for m in (*convolution(size, outputs), nn.ReLU())))
        del self.body[-1]
        same = nn.Identity() if inputs == outputs else nn.Sequential(*convolution(inputs, outputs, 1))
        self.shortcut = same if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """The last ReLU is behind the sum."""
        y = self.body(x)
        return (y if self.shortcut is None else y + self.shortcut(x)).relu()


def convolution(inputs: int, outputs: int, size: int = 3) -> tuple[nn.Module, nn.Module]:
    """A convolution with a random start as torchvision's ResNet has it, and its batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs)


def pseudo(residual: bool, width: float = 1.0) -> nn.Sequential:
    """Both pseudo-nets; children are named as the layers, and are the walk."""
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
    """3x3 convolutions and max pooling as in VGG, as deep as ResNet-50; ``width`` times as wide."""
    net = made(lambda: pseudo(False, width), files, seed, **placed)
    return Walk("pseudo-vgg", dict(net.named_children()), smallest=16)


def pseudo_resvgg(files: Sequence[Path] = (), seed: int = 0, width: float = 1.0, **placed: Any) -> Walk:
    """The same with shortcuts around every three convolutions, 1x1 where the width changes."""
    net = made(lambda: pseudo(True, width), files, seed, **placed)
    return Walk("pseudo-resvgg", dict(net.named_children()), smallest=16)
