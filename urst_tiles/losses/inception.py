"""Inception v3 as a feature net, with parallel branches and without shortcuts: the third kind of net in SWAG
[3].

Layers have torchvision's names; the layers named "Mixed" join four branches of different sizes. The paper
names no layers for this net. The layers below are the last of each resolution, as are the paper's layers of
ResNet, at similar reductions:

============== ========= =========== ==============
Inception v3   reduction channels    ResNet-50
============== ========= =========== ==============
Conv2d_2b_3x3  2         64          stem
Conv2d_4a_3x3  4         192         conv1_2
Mixed_5d       8         288         conv2_3
Mixed_6e       16        768         conv3_5
Mixed_7c       32        2048        conv4_2
============== ========= =========== ==============

**Random weights** are normal with variance 2 / inputs, which keeps the scale of the signal. The random
weights of torchvision (a fixed deviation of 0.1 for most layers) leave the scale to batch normalisation in
training mode. A feature net is never in that mode: untrained normalisations change nothing, and the last
layer would reach 10^11.

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

#: All layers in order.
LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *("maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d"),
    *("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
#: The layers of a style loss, and of a content loss.
STYLE = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
CONTENT = "Mixed_6e"
#: The layers of the two deepest resolutions; SWAG's released code scales down those of ResNet.
DEEP = tuple(name for name in LAYERS if name.startswith(("Mixed_6", "Mixed_7")))
#: The shortest side of an image in pixels; of a smaller image, convolutions without padding leave nothing.
SMALLEST = 75


def inception_v3(files: Sequence[Path] = (), seed: int = 0, **placed: Any) -> Walk:
    """Inception v3 [1] from torchvision's ``inception_v3_google-*.pth``, or with random weights.

    Its weights come from TensorFlow and expect colours in -1..1. torchvision makes those from normalised
    colours; here they are made directly.
    """
    net = made(_inception, files, seed, **placed)
    steps = {name: getattr(net, name) for name in LAYERS}
    return Walk("inception-v3", steps, (0.5,) * 3, (0.5,) * 3, SMALLEST)


def _inception() -> nn.Module:
    """Inception v3 without its heads, with random weights as in [2]."""
    net = headless(models().inception_v3(weights=None, init_weights=False, aux_logits=False))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return net
