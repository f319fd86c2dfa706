"""Fast neural style: one feed-forward network per style, instance or batch norms behind every convolution.

The style is in the weights: what other families take from a style image, this one reads from a checkpoint.

References
----------
1. J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
   ECCV 2016: the network, with batch norms.
2. D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast
   Stylization", 2016.
3. Checkpoint layouts: github.com/pytorch/examples, ``fast_neural_style`` (pictures in 0..255), and
   github.com/eriklindernoren/Fast-Neural-Style-Transfer (pictures normalised as ImageNet's).
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

#: The probe finds a reach of 55 pixels (tests/nets/test_probe.py).
NAME, HALO, STRIDE, MINIMUM = "fast", 56, 4, 8
EPS, DDOF = 1e-5, 0
RESIDUALS = [f"res{k}" for k in range(1, 6)]
#: Layer -> (inputs, outputs, kernel, stride), in order; every one but the last has a norm behind it. Networks
#: whose inner layers are all narrower by one factor are read too.
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
#: Of what arrives at each norm.
HALOS = dict(zip(NORMED, (4, 8, 8, *range(12, 52, 4), 52, 52), strict=True))
#: Pixels go in as (x - shift) / scale and come out as y scale + shift, by layout.
RANGES = {
    "pytorch": ([0.0, 0.0, 0.0], [1 / 255, 1 / 255, 1 / 255]),
    "linder-noren": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """Convolution ``name`` with reflection padding."""
    _, _, side, stride = LAYERS[name]
    x = F.pad(x, (side // 2,) * 4, mode="reflect")
    return F.conv2d(x, state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x), stride=stride)


#: What stands behind a convolution: (its name, (n, C, h, w)) -> same.
Norm = Callable[[str, Tensor], Tensor]


def paint(x: Tensor, state: State, layout: str, norm: Norm, dtype: torch.dtype | None = None) -> Tensor:
    """(n, 3, h, w) in 0..1 -> same, unclamped: the network, computed in ``dtype`` (None: that of ``x``)."""
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
    """A feed-forward network with its style.

    Parameters
    ----------
    weights : "conv1.weight", "conv1.bias", "conv1.gamma", "conv1.beta", ..., and, with batch norms,
        "conv1.mean" and "conv1.variance", which make the layer no site.
    layout : which of ``RANGES`` pictures are in.
    alpha : strength; the picture is mixed with the image.
    name : the family's, where it is another one of the same network.
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
        """Hex digest of family, weights, layout and alpha."""
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        """(n, 3, h, w) float32 in 0..1 -> same, unclamped."""
        sites = {site.name: site for site in self.sites}

        def norm(name: str, y: Tensor) -> Tensor:
            return at(sites[name], y) if name in sites else self.batch_norm(name)(y)

        y = paint(x, self.weights, self.layout, norm)
        return y if self.alpha == 1.0 else self.alpha * y + (1.0 - self.alpha) * x

    def affine(self, site: Site, moments: Moments) -> Affine:
        """gamma (x - mean) / deviation + beta [2]."""
        return self._normal(site.name, moments.mean, moments.std(site.eps, site.ddof))

    @property
    def range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(shift, scale), (3,) each: pixels go in as (x - shift) / scale and come out as y scale + shift."""
        shift, scale = RANGES[self.layout]
        return np.array(shift), np.array(scale)

    def norms(self, affines: Mapping[str, Affine]) -> dict[str, Affine]:
        """The constant map behind every layer but the last: a site's, or a batch norm's."""
        return {name: affines[name] if name in affines else self.batch_norm(name) for name in NORMED}

    def batch_norm(self, name: str) -> Affine:
        """The constant map of a batch norm: its statistics are those of its training."""
        mean, variance = (self.weights[f"{name}.{part}"].double().numpy() for part in ("mean", "variance"))
        return self._normal(name, mean, np.sqrt(variance + EPS))

    def _normal(self, name: str, mean: Any, std: Any) -> Affine:
        gamma, beta = (self.weights[f"{name}.{part}"].double().numpy() for part in ("gamma", "beta"))
        return Affine(gamma / std, beta - gamma / std * mean)

    def state(self) -> tuple[State, dict[str, Any]]:
        """Weights; family, layout and alpha."""
        return dict(self.weights), {"alpha": self.alpha, "layout": self.layout, "model": self.name}


def strides() -> dict[str, int]:
    """Pixels per cell behind each layer that has a norm."""
    found = dict.fromkeys(NORMED, 4)
    return found | {"conv1": 1, "conv2": 2, "deconv1": 2, "deconv2": 1}


def restore(state: State, settings: Mapping[str, Any]) -> FastStyle:
    """The inverse of ``FastStyle.state``."""
    weights = {k: t for k, t in state.items() if k.split(".")[0] in {name.split(".")[0] for name in LAYERS}}
    return FastStyle(weights, settings["layout"], settings["alpha"], settings.get("model", NAME))


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> FastStyle:
    """The style of one checkpoint; ``styles`` holds its tensors."""
    weights, layout = read(one_checkpoint(NAME, states, styles), "the checkpoint")
    return FastStyle(weights, layout, alpha)


# Checkpoints


def load_style(path: Path) -> State:
    """The tensors of a checkpoint, as they are; BadWeights unless they are of a known layout."""
    state = load(path)
    read(state, path)
    return state


def read(state: State, path: Path | str) -> tuple[State, str]:
    """A checkpoint of either layout as our weights, and which layout it is; BadWeights for any other."""
    layout = "linder-noren" if any(key.startswith("model.") for key in state) else "pytorch"
    batch = any(key.endswith("num_batches_tracked") for key in state)
    first = state.get(f"{names_in(layout)['conv1'][0]}.bias")
    wanted = keys(layout, 1.0 if first is None else first.numel() / LAYERS["conv1"][1], batch)
    kept = {key: t for key, t in state.items() if key in wanted or not _deprecated(key)}
    check_keys(kept, {key: shape for key, (_, shape) in wanted.items()}, path)
    return {ours: kept[key].float() for key, (ours, _) in wanted.items()}, layout


def checkpoint(weights: State, layout: str) -> State:
    """The inverse of `read`."""
    batch = "conv1.mean" in weights
    theirs = keys(layout, len(weights["conv1.bias"]) / LAYERS["conv1"][1], batch)
    state = {key: weights[ours] for key, (ours, _) in theirs.items()}
    norms = [names_in(layout)[name][1] for name in NORMED] if batch else []
    return state | {f"{norm}.num_batches_tracked": torch.tensor(1) for norm in norms}


def keys(layout: str, width: float, batch: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Key of a checkpoint -> (our key, shape)."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (inputs, outputs, side) in wide(width).items():
        layer, norm = names_in(layout)[name]
        found[f"{layer}.weight"] = f"{name}.weight", (outputs, inputs, side, side)
        found[f"{layer}.bias"] = f"{name}.bias", (outputs,)
        if name in NORMED:
            parts = {"weight": "gamma", "bias": "beta"}
            parts |= {"running_mean": "mean", "running_var": "variance"} if batch else {}
            found |= {f"{norm}.{key}": (f"{name}.{part}", (outputs,)) for key, part in parts.items()}
    return found


def names_in(layout: str) -> dict[str, tuple[str, str]]:
    """Our layer -> (its convolution, its norm) in ``layout``."""
    return linder_noren_names() if layout == "linder-noren" else pytorch_names()


def wide(width: float) -> dict[str, tuple[int, int, int]]:
    """Layer -> (inputs, outputs, kernel), ``width`` times as wide as published."""

    def scaled(n: int) -> int:
        return n if n == 3 else max(4, round(n * width))

    return {name: (scaled(i), scaled(o), side) for name, (i, o, side, _) in LAYERS.items()}


def _deprecated(key: str) -> bool:
    """Counters, and the running statistics that instance norms kept before PyTorch 0.4 and never used."""
    return bool(re.search(r"\.(running_(mean|var)|num_batches_tracked)$", key))


def pytorch_names() -> dict[str, tuple[str, str]]:
    """Our layer -> (its convolution, its norm) in pytorch/examples."""
    norms = {"conv1": "in1", "conv2": "in2", "conv3": "in3", "deconv1": "in4", "deconv2": "in5"}
    norms |= {f"{res}.conv{k}": f"{res}.in{k}" for res in RESIDUALS for k in (1, 2)}
    return {name: (f"{name}.conv2d", norms.get(name, "")) for name in LAYERS}


def linder_noren_names() -> dict[str, tuple[str, str]]:
    """Our layer -> (its convolution, its norm) in the layout of Linder-Noren."""
    places = {"conv1": "0", "conv2": "1", "conv3": "2", "deconv1": "8", "deconv2": "9", "deconv3": "10"}
    places |= {
        f"{res}.conv{k}": f"{2 + i}.block.{k - 1}" for i, res in enumerate(RESIDUALS, 1) for k in (1, 2)
    }
    return {name: (f"model.{at}.block.1", f"model.{at}.norm") for name, at in places.items()}


def initial(seed: int = 0, width: float = 1.0) -> State:
    """Our weights, random, to start training from: within 1 / sqrt(inputs of a sum); norms do nothing."""
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
    """One checkpoint in pytorch/examples' layout under "", random, scaled for an output of mean 0.5 and
    deviation 0.25 on some picture."""
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
    """Nothing lies in the weights folder: the checkpoint is the style."""
    raise BadWeights(f"{path}: --model fast takes no weights; give the checkpoint to --style")
