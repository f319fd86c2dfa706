"""Fast neural style: a feed-forward network per style, with instance or batch norms behind the convolutions.

The style is in the weights. A style of this family is therefore a checkpoint, where other families take a
style image.

References
----------
1. J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
   ECCV 2016: the network, with batch norms.
2. D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast
   Stylization", 2016.
3. Checkpoint layouts: github.com/pytorch/examples, ``fast_neural_style`` (pixels in 0..255), and
   github.com/eriklindernoren/Fast-Neural-Style-Transfer (pixels normalised as for ImageNet).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadWeights
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    Site,
    State,
    StyleImages,
    checked_alpha,
    digest,
    one_checkpoint,
)
from urst_tiles.nets.seeding import painted, scale_last, some_picture
from urst_tiles.weights import check_keys, load

#: The probe measures a reach of 55 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "fast", 56, 4, 8
EPS, DDOF = 1e-5, 0
RESIDUALS = [f"res{k}" for k in range(1, 6)]
#: Layer -> (inputs, outputs, kernel, stride), in order; a norm stands behind every layer but the last.
#: Networks whose inner layers are all narrower by the same factor can be read too.
LAYERS: dict[str, tuple[int, int, int, int]] = {
    "conv1": (3, 32, 9, 1),
    "conv2": (32, 64, 3, 2),
    "conv3": (64, 128, 3, 2),
    **{f"{res}.conv{k}": (128, 128, 3, 1) for res in RESIDUALS for k in (1, 2)},
    "deconv1": (128, 64, 3, 1),
    "deconv2": (64, 32, 3, 1),
    "deconv3": (32, 3, 9, 1),
}
NORMED = list(LAYERS)[:-1]
#: Halo of each norm's input, in pixels.
HALOS = dict(zip(NORMED, (4, 8, 8, *range(12, 52, 4), 52, 52), strict=True))
#: (shift, scale) of each layout: a pixel x in 0..1 enters the network as (x - shift) / scale, and the output
#: y becomes y scale + shift.
RANGES = {
    "pytorch": ([0.0, 0.0, 0.0], [1 / 255, 1 / 255, 1 / 255]),
    "linder-noren": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w), with reflection padding."""
    _, _, side, stride = LAYERS[name]
    x = F.pad(x, (side // 2,) * 4, mode="reflect")
    return F.conv2d(x, state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x), stride=stride)


#: A function of (a convolution's name, its output (n, C, h, w)) that applies the norm behind it.
Norm = Callable[[str, Tensor], Tensor]


def paint(x: Tensor, state: State, layout: str, norm: Norm, dtype: torch.dtype | None = None) -> Tensor:
    """Run the network: (n, 3, h, w) in 0..1 -> same shape, not clamped; computed in ``dtype`` (None: the type
    of ``x``)."""
    shift, scale = (torch.tensor(v, dtype=torch.float64).to(x)[:, None, None] for v in RANGES[layout])
    z = ((x - shift) / scale).to(dtype or x.dtype)
    for name in ("conv1", "conv2", "conv3"):  # 32, h, w; 64, h/2, w/2; 128, h/4, w/4
        z = F.relu(norm(name, conv(z, state, name)))
    for name in RESIDUALS:
        inner = F.relu(norm(f"{name}.conv1", conv(z, state, f"{name}.conv1")))
        z = z + norm(f"{name}.conv2", conv(inner, state, f"{name}.conv2"))
    for name in ("deconv1", "deconv2"):  # 64, h/2, w/2; 32, h, w
        z = F.relu(norm(name, conv(F.interpolate(z, scale_factor=2, mode="nearest"), state, name)))
    return conv(z, state, "deconv3").to(x) * scale + shift


class FastStyle:
    """A feed-forward network, which contains its style.

    Parameters
    ----------
    weights : "conv1.weight", "conv1.bias", "conv1.gamma", "conv1.beta", ...; with batch norms also
        "conv1.mean" and "conv1.variance", and the norm is then no site.
    layout : key of ``RANGES``, the range of the network's pixels.
    alpha : strength; the output is mixed with the input.
    name : the family's name, for another family with the same network.
    """

    halo, stride, minimum = HALO, STRIDE, MINIMUM
    plain_bytes = 800.0

    def __init__(self, weights: State, layout: str, alpha: float = 1.0, name: str = NAME):
        self.weights, self.layout, self.alpha = dict(weights), layout, checked_alpha(alpha)
        self.name = name
        sites = []
        for name, stride in strides().items():
            if f"{name}.mean" not in weights:
                channels = len(weights[f"{name}.gamma"])
                sites.append(Site(name, channels, stride, EPS, DDOF, halo=HALOS[name]))
        self.sites: tuple[Site, ...] = tuple(sites)

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        sites = {site.name: site for site in self.sites}

        def norm(name: str, y: Tensor) -> Tensor:
            return at(sites[name], y) if name in sites else self.batch_norm(name)(y)

        y = paint(x, self.weights, self.layout, norm)
        return y if self.alpha == 1.0 else self.alpha * y + (1.0 - self.alpha) * x

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The instance norm [2] of features with these ``moments``: gamma (x - mean) / deviation + beta."""
        return self._normal(site.name, moments.mean, moments.std(site.eps, site.ddof))

    @property
    def range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(shift, scale) of the layout, float64 (3,) each, see ``RANGES``."""
        shift, scale = RANGES[self.layout]
        return np.array(shift), np.array(scale)

    def norms(self, affines: Mapping[str, Affine]) -> dict[str, Affine]:
        """The constant map behind every layer but the last: that of a site in ``affines``, or that of a batch
        norm."""
        return {name: affines[name] if name in affines else self.batch_norm(name) for name in NORMED}

    def batch_norm(self, name: str) -> Affine:
        """The constant map of a batch norm, from the statistics of its training."""
        mean, variance = (self.weights[f"{name}.{part}"].double().numpy() for part in ("mean", "variance"))
        return self._normal(name, mean, np.sqrt(variance + EPS))

    def _normal(self, name: str, mean: Any, std: Any) -> Affine:
        gamma, beta = (self.weights[f"{name}.{part}"].double().numpy() for part in ("gamma", "beta"))
        return Affine(gamma / std, beta - gamma / std * mean)

    def state(self) -> tuple[State, dict[str, Any]]:
        return dict(self.weights), {"alpha": self.alpha, "layout": self.layout, "model": self.name}


def strides() -> dict[str, int]:
    """Pixels per cell behind each layer that has a norm."""
    pixels_per_cell = dict.fromkeys(NORMED, 4)
    return pixels_per_cell | {"conv1": 1, "conv2": 2, "deconv1": 2, "deconv2": 1}


def restore(state: State, settings: Mapping[str, Any]) -> FastStyle:
    """The inverse of ``FastStyle.state``."""
    weights = {k: t for k, t in state.items() if k.split(".")[0] in {name.split(".")[0] for name in LAYERS}}
    return FastStyle(weights, settings["layout"], settings["alpha"], settings.get("model", NAME))


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> FastStyle:
    """The style of a checkpoint.

    Raises
    ------
    BadInput : ``styles`` is not the tensors of a single checkpoint.
    BadWeights : the checkpoint has an unknown layout.
    """
    weights, layout = read(one_checkpoint(NAME, states, styles), "the checkpoint")
    return FastStyle(weights, layout, alpha)


# Checkpoints


def load_style(path: Path) -> State:
    """The tensors of a checkpoint, unchanged; BadWeights unless they have a known layout."""
    state = load(path)
    read(state, path)
    return state


def read(state: State, path: Path | str) -> tuple[State, str]:
    """The weights of a checkpoint by the names of this module, float32, and the checkpoint's layout.

    Raises
    ------
    BadWeights : the keys or shapes are of neither layout.
    """
    layout = "linder-noren" if any(key.startswith("model.") for key in state) else "pytorch"
    batch = any(key.endswith("num_batches_tracked") for key in state)
    first = state.get(f"{names_in(layout)['conv1'][0]}.bias")
    wanted = keys(layout, 1.0 if first is None else first.numel() / LAYERS["conv1"][1], batch)
    present = {key: t for key, t in state.items() if key in wanted or not _deprecated(key)}
    check_keys(present, {key: shape for key, (_, shape) in wanted.items()}, path)
    return {ours: present[key].float() for key, (ours, _) in wanted.items()}, layout


def checkpoint(weights: State, layout: str) -> State:
    """The inverse of `read`."""
    batch = "conv1.mean" in weights
    theirs = keys(layout, len(weights["conv1.bias"]) / LAYERS["conv1"][1], batch)
    state = {key: weights[ours] for key, (ours, _) in theirs.items()}
    norms = [names_in(layout)[name][1] for name in NORMED] if batch else []
    return state | {f"{norm}.num_batches_tracked": torch.tensor(1) for norm in norms}


def keys(layout: str, width: float, batch: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Key in a checkpoint -> (key in this module's weights, shape)."""
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (inputs, outputs, side) in wide(width).items():
        layer, norm = names_in(layout)[name]
        entries[f"{layer}.weight"] = f"{name}.weight", (outputs, inputs, side, side)
        entries[f"{layer}.bias"] = f"{name}.bias", (outputs,)
        if name in NORMED:
            parts = {"weight": "gamma", "bias": "beta"}
            parts |= {"running_mean": "mean", "running_var": "variance"} if batch else {}
            entries |= {f"{norm}.{key}": (f"{name}.{part}", (outputs,)) for key, part in parts.items()}
    return entries


def names_in(layout: str) -> dict[str, tuple[str, str]]:
    """Layer of this module -> (its convolution, its norm) in ``layout``."""
    return linder_noren_names() if layout == "linder-noren" else pytorch_names()


def wide(width: float) -> dict[str, tuple[int, int, int]]:
    """Layer -> (inputs, outputs, kernel), ``width`` times as wide as published."""

    def scaled(n: int) -> int:
        return n if n == 3 else max(4, round(n * width))

    return {name: (scaled(i), scaled(o), side) for name, (i, o, side, _) in LAYERS.items()}


def _deprecated(key: str) -> bool:
    """Whether the key is a counter, or one of the running statistics that instance norms had before PyTorch
    0.4 and never used."""
    return bool(re.search(r"\.(running_(mean|var)|num_batches_tracked)$", key))


def pytorch_names() -> dict[str, tuple[str, str]]:
    """Layer of this module -> (its convolution, its norm) in the layout of pytorch/examples."""
    norms = {"conv1": "in1", "conv2": "in2", "conv3": "in3", "deconv1": "in4", "deconv2": "in5"}
    norms |= {f"{res}.conv{k}": f"{res}.in{k}" for res in RESIDUALS for k in (1, 2)}
    return {name: (f"{name}.conv2d", norms.get(name, "")) for name in LAYERS}


def linder_noren_names() -> dict[str, tuple[str, str]]:
    """Layer of this module -> (its convolution, its norm) in the layout of Linder-Noren."""
    blocks = {"conv1": "0", "conv2": "1", "conv3": "2", "deconv1": "8", "deconv2": "9", "deconv3": "10"}
    blocks |= {
        f"{res}.conv{k}": f"{2 + i}.block.{k - 1}" for i, res in enumerate(RESIDUALS, 1) for k in (1, 2)
    }
    return {name: (f"model.{block}.block.1", f"model.{block}.norm") for name, block in blocks.items()}


def initial(seed: int = 0, width: float = 1.0) -> State:
    """Random weights to start a training from: uniform within 1 / sqrt(inputs x kernel area), and norms that
    change nothing."""
    random = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, (inputs, outputs, side) in wide(width).items():
        for part, shape in (("weight", (outputs, inputs, side, side)), ("bias", (outputs,))):
            values = 2 * torch.rand(shape, generator=random) - 1
            state[f"{name}.{part}"] = values / (inputs * side**2) ** 0.5
        if name in NORMED:
            state |= {f"{name}.gamma": torch.ones(outputs), f"{name}.beta": torch.zeros(outputs)}
    return state


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """A random checkpoint in the layout of pytorch/examples, under the key "", scaled for an output of mean
    0.5 and deviation 0.25 on `some_picture`."""
    random = np.random.default_rng(seed)
    names, state = pytorch_names(), {}
    for name, (inputs, outputs, side) in wide(width).items():
        layer, norm = names[name]
        scale = (2.0 / (inputs * side**2)) ** 0.5
        state[f"{layer}.weight"] = random.normal(0, scale, (outputs, inputs, side, side))
        state[f"{layer}.bias"] = random.normal(0, 0.1, outputs)
        if name in NORMED:
            state[f"{norm}.weight"] = random.uniform(0.5, 1.5, outputs)
            state[f"{norm}.bias"] = random.normal(0, 0.3, outputs)
    tensors = {key: torch.from_numpy(values.astype(np.float32)) for key, values in state.items()}
    image = some_picture(seed)
    output = 255 * painted(build({}, [(tensors, 1.0)]), image)
    scale_last(tensors, "deconv3.conv2d", output, 0.5 * 255, 0.25 * 255)
    return {"": tensors}


def check(state: State, file: str, path: Path) -> None:
    """Raise BadWeights, since this family takes no files from the weights folder: the checkpoint is the
    style."""
    raise BadWeights(f"{path}: --model fast takes no weights; give the checkpoint to --style")
