"""Random weights that keep the signal alive, for tests of networks whose trained weights are not at hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.nets.base import State, Style
from urst_tiles.nets.own_statistics import live


def random_tensor(random: np.random.Generator, shape: tuple[int, ...], bias: float = 0.1) -> Tensor:
    """Normal values of mean 0, float32. A vector has the deviation ``bias``; other tensors have He's
    deviation, which keeps the variance through a convolution and its ReLU (He et al., ICCV 2015)."""
    deviation = bias if len(shape) == 1 else (2.0 / np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(random.normal(0.0, deviation, shape).astype(np.float32))


def random_state(random: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """A `random_tensor` of each shape, made in the order of ``shapes``."""
    return {key: random_tensor(random, shape) for key, shape in shapes.items()}


def some_picture(seed: int) -> NDArray[np.float32]:
    """A random image, float32 (128, 128, 3) in 0..1, with detail of all sizes, on which random weights are
    scaled."""
    random = np.random.default_rng(seed)
    sizes = (1, 4, 16, 64)
    layers = [np.kron(random.random((128 // n, 128 // n, 3)), np.ones((n, n, 1))) for n in sizes]
    return np.asarray(np.mean(layers, axis=0), np.float32)


def as_tensor(image: NDArray[np.float32]) -> Tensor:
    """The image (h, w, 3) as a tensor (1, 3, h, w) in the same memory."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@torch.inference_mode()
def painted(style: Style, image: NDArray[np.float32]) -> Tensor:
    """The output, float32 (1, 3, h, w), of the un-tiled network for an image (h, w, 3) in 0..1."""
    return style.forward(as_tensor(image), live(style))


def scale_last(
    state: State,
    layer: str,
    output: Tensor,
    mean: float | Tensor = 0.5,
    deviation: float | Tensor = 0.25,
) -> Tensor:
    """Scale a convolution's weights and biases in place, so that its output has the given mean and deviation.

    Parameters
    ----------
    state : the network's weights, with ``layer``.weight and ``layer``.bias among them.
    layer : name of the convolution.
    output : float32 (n, C, h, w), the convolution's output before it is scaled.
    mean, deviation : of every channel afterwards, a number or (C,).

    Returns
    -------
    float32 (C,), the factor of each channel.
    """
    gain = deviation / output.std((0, 2, 3))
    state[f"{layer}.weight"] *= gain[:, None, None, None]
    state[f"{layer}.bias"].mul_(gain).add_(mean - gain * output.mean((0, 2, 3)))
    return gain
