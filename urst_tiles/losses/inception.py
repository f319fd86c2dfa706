"""Inception v3 as a feature net: branches side by side and no shortcut, the third kind of net in SWAG [3].

Layers have torchvision's names; what is "Mixed" joins four branches of different sizes. The paper names no
layers for it; these are the last of each resolution, as its layers of ResNet are, at like reductions:

============== ========= =========== ==============
Inception v3   reduction channels    ResNet-50
============== ========= =========== ==============
Conv2d_2b_3x3  2         64          stem
Conv2d_4a_3x3  4         192         conv1_2
Mixed_5d       8         288         conv2_3
Mixed_6e       16        768         conv3_5
Mixed_7c       32        2048        conv4_2
============== ========= =========== ==============

**Random weights** are normal of variance 2 / inputs, which keeps the scale of what passes. torchvision's own
start (a fixed deviation of 0.1 for most layers) leaves the scale to batch normalisation in training mode, and
a feature net has none: untrained normalisations do nothing, and the last layer would reach 10^11.

References
----------
1. C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
2. K. He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2: the variance of random weights.
3. P. Wang, Y. Li, N. Vasconcelos, "Rethinking and Improving the Robustness of Image Style Transfer", CVPR
   2021 (SWAG).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from urst_tiles.losses.residual import Walk, headless, made
from urst_tiles.losses.torchvision_files import models

LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *("maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d"),
    *("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
STYLE = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
CONTENT = "Mixed_6e"
#: The two deepest resolutions, as SWAG's released code scales down those of ResNet.
DEEP = tuple(name for name in LAYERS if name.startswith(("Mixed_6", "Mixed_7")))
#: Below this, convolutions without padding leave nothing.
SMALLEST = 75


def inception_v3(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """Inception v3 [1] from torchvision's ``inception_v3_google-*.pth``, or random.

    Its weights are TensorFlow's and expect colours in -1..1, which torchvision makes out of normalised ones.
    """
    net = made(_inception, files, seed, **placed)
    steps = {name: getattr(net, name) for name in LAYERS}
    return Walk("inception-v3", steps, (0.5,) * 3, (0.5,) * 3, SMALLEST)


def _inception() -> nn.Module:
    """Without the heads, its weights random as [2] says."""
    net = headless(models().inception_v3(weights=None, init_weights=False, aux_logits=False))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return net
