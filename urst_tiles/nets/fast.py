"""Fast neural style: a feed-forward network per style, with instance or batch norms behind the convolutions.

The style is in the weights. A style of this family is therefore a checkpoint, where other families take a
style image.

References
----------
1. J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
   ECCV 2016: the network, with batch norms.
2. D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast
   Stylization", 2016.
3. Checkpoints of several programs are read: `fast_layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from urst_tiles.nets.fast_layouts import (
    DOUBLING,
    HALVING,
    LAYOUTS,
    NORMED,
    Dialect,
    pytorch_names,
    read,
    wide,
    width_of,
)
from urst_tiles.nets.seeding import painted, scale_last, some_picture
from urst_tiles.weights import load

#: The probe measures a reach of 55 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "fast", 56, 4, 8
DDOF = 0


def layers_in(weights: Iterable[str]) -> list[str]:
    """The layers that ``weights`` has, in order: those of `fast_layouts.LAYERS`, with as many residual blocks
    as there are."""
    numbers = {int(key[3:].split(".")[0]) for key in weights if key.startswith("res")}
    blocks = [f"res{n}.conv{k}" for n in sorted(numbers) for k in (1, 2)]
    return ["conv1", "conv2", "conv3", *blocks, "deconv1", "deconv2", "deconv3"]


def halos(layers: Sequence[str]) -> dict[str, int]:
    """Halo of each norm's input, in pixels."""
    inner = len(layers) - 6
    reach = (4, 8, 8, *range(12, 12 + 4 * inner, 4), 12 + 4 * inner, 12 + 4 * inner, 16 + 4 * inner)
    return dict(zip(layers, reach, strict=True))


def conv(x: Tensor, state: State, name: str, layout: Dialect) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w)."""
    weight, bias = state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x)
    side, stride = weight.shape[-1], 2 if name in HALVING else 1
    if layout.zeros and stride == 2:
        x = F.pad(x, (0, 1, 0, 1))  # what SAME does where the sides are even
    else:
        x = F.pad(x, (side // 2,) * 4, mode="constant" if layout.zeros else "reflect")
    return F.conv2d(x, weight, bias, stride=stride)


def enlarged(x: Tensor, state: State, name: str, layout: Dialect) -> Tensor:
    """Convolution ``name`` of ``x`` (n, C, h, w) with twice the size: (n, C', 2 h, 2 w)."""
    if not layout.zeros:
        return conv(F.interpolate(x, scale_factor=2, mode="nearest"), state, name, layout)
    weight, bias = state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x)
    y = F.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2)
    return y[..., :-1, :-1]


#: A function of (a convolution's name, its output (n, C, h, w)) that applies the norm behind it.
Norm = Callable[[str, Tensor], Tensor]


def paint(x: Tensor, state: State, layout: str, norm: Norm, dtype: torch.dtype | None = None) -> Tensor:
    """Run the network: (n, 3, h, w) in 0..1 -> same shape, not clamped; computed in ``dtype`` (None: the type
    of ``x``)."""
    form, layers = LAYOUTS[layout], layers_in(state)
    shift, scale, out_shift, out_scale = (
        torch.tensor(v, dtype=torch.float64).to(x)[:, None, None] for v in (form.shift, form.scale, *form.out)
    )
    z = ((x - shift) / scale).to(dtype or x.dtype)
    for name in ("conv1", "conv2", "conv3"):  # 32, h, w; 64, h/2, w/2; 128, h/4, w/4
        z = F.relu(norm(name, conv(z, state, name, form)))
    for name in (name.removesuffix(".conv1") for name in layers if name.endswith(".conv1")):
        inner = F.relu(norm(f"{name}.conv1", conv(z, state, f"{name}.conv1", form)))
        z = z + norm(f"{name}.conv2", conv(inner, state, f"{name}.conv2", form))
    for name in DOUBLING:  # 64, h/2, w/2; 32, h, w
        z = F.relu(norm(name, enlarged(z, state, name, form)))
    y = conv(z, state, "deconv3", form)
    if form.squash:
        y = form.squash(norm("deconv3", y))
    return y.to(x) * out_scale + out_shift


class FastStyle:
    """A feed-forward network, which contains its style.

    Parameters
    ----------
    weights : "conv1.weight", "conv1.bias", "conv1.gamma", "conv1.beta", ...; with batch norms also
        "conv1.mean" and "conv1.variance", and the norm is then no site.
    layout : key of ``LAYOUTS``.
    alpha : strength; the output is mixed with the input.
    name : the family's name, for another family with the same network.
    """

    stride, minimum = STRIDE, MINIMUM

    def __init__(self, weights: State, layout: str, alpha: float = 1.0, name: str = NAME):
        self.weights, self.layout, self.alpha = dict(weights), layout, checked_alpha(alpha)
        self.name, self.form = name, LAYOUTS[layout]
        layers = layers_in(weights)
        reach = halos(layers)
        self.halo = reach["deconv3"]
        self.normed = layers if self.form.squash else layers[:-1]
        self.sites: tuple[Site, ...] = tuple(
            Site(name, len(weights[f"{name}.gamma"]), strides(name), self.form.eps, DDOF, halo=reach[name])
            for name in self.normed
            if f"{name}.mean" not in weights
        )
        #: 800 for the published widths (749 were measured), 305 for a quarter of them (279 were measured).
        self.plain_bytes = 140.0 + 660.0 * width_of(weights["conv1.bias"])

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

    def norms(self, affines: Mapping[str, Affine]) -> dict[str, Affine]:
        """The constant map behind every layer that has a norm: that of a site in ``affines``, or that of a
        batch norm."""
        return {name: affines[name] if name in affines else self.batch_norm(name) for name in self.normed}

    def batch_norm(self, name: str) -> Affine:
        """The constant map of a batch norm, from the statistics of its training."""
        mean, variance = (self.weights[f"{name}.{part}"].double().numpy() for part in ("mean", "variance"))
        return self._normal(name, mean, np.sqrt(variance + self.form.eps))

    def _normal(self, name: str, mean: Any, std: Any) -> Affine:
        gamma, beta = (self.weights[f"{name}.{part}"].double().numpy() for part in ("gamma", "beta"))
        return Affine(gamma / std, beta - gamma / std * mean)

    def state(self) -> tuple[State, dict[str, Any]]:
        return dict(self.weights), {"alpha": self.alpha, "layout": self.layout, "model": self.name}


def strides(name: str) -> int:
    """Pixels per cell behind a layer."""
    return {"conv1": 1, "conv2": 2, "deconv1": 2, "deconv2": 1, "deconv3": 1}.get(name, 4)


def restore(state: State, settings: Mapping[str, Any]) -> FastStyle:
    """The inverse of ``FastStyle.state``."""
    weights = {k: t for k, t in state.items() if re.match(r"(conv|deconv|res)\d", k)}
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
