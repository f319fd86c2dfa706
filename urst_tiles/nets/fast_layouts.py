"""The layouts of feed-forward networks: where the networks of several programs differ, and how their
checkpoints are read.

References
----------
1. github.com/pytorch/examples, ``fast_neural_style``: pixels in 0..255.
2. github.com/eriklindernoren/Fast-Neural-Style-Transfer: pixels normalised as for ImageNet.
3. github.com/czczup/URST, ``Johnson2016Perceptual``: the network of [2], its parts named otherwise.
4. github.com/lengstrom/fast-style-transfer: TensorFlow's padding with zeros and transposed convolutions, and
   a norm and a hyperbolic tangent behind the last convolution, too.
5. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017, as Magenta
   published it for phones: a norm and a logistic function behind the last convolution, six residual blocks,
   and few channels at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from urst_tiles.errors import BadWeights
from urst_tiles.nets.base import State
from urst_tiles.weights import check_keys

#: Added to the variances of the norms in most layouts.
EPS = 1e-5
RESIDUALS = [f"res{k}" for k in range(1, 6)]
#: Layer -> (inputs, outputs, kernel), in order, as published; a norm stands behind every layer, behind the
#: last in some layouts only. Networks of other widths, or with more residual blocks, can be read too.
LAYERS: dict[str, tuple[int, int, int]] = {
    "conv1": (3, 32, 9),
    "conv2": (32, 64, 3),
    "conv3": (64, 128, 3),
    **{f"{res}.conv{k}": (128, 128, 3) for res in RESIDUALS for k in (1, 2)},
    "deconv1": (128, 64, 3),
    "deconv2": (64, 32, 3),
    "deconv3": (32, 3, 9),
}
NORMED = list(LAYERS)[:-1]
#: The layers whose stride is 2, and those that enlarge twice.
HALVING, DOUBLING = ("conv2", "conv3"), ("deconv1", "deconv2")

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Dialect:
    """Where networks differ besides their weights.

    Attributes
    ----------
    shift, scale : a pixel x in 0..1 enters the network as (x - shift) / scale.
    out_shift, out_scale : the output y, behind ``squash``, becomes y out_scale + out_shift; None for
        ``shift`` and ``scale``.
    zeros : whether all padding is with zeros, and the enlargements are transposed convolutions, with the
        places of TensorFlow's ``SAME``; else padding is by reflection, and the enlargements are nearest ones
        with a convolution behind.
    squash : the function behind the last convolution, which then has a norm, too; None for neither.
    eps : added to the variances of the norms.
    """

    shift: Colour = (0.0, 0.0, 0.0)
    scale: Colour = (1.0, 1.0, 1.0)
    out_shift: Colour | None = None
    out_scale: Colour | None = None
    zeros: bool = False
    squash: Callable[[Tensor], Tensor] | None = None
    eps: float = EPS

    @property
    def out(self) -> tuple[Colour, Colour]:
        """The shift and the scale of the output."""
        return self.out_shift or self.shift, self.out_scale or self.scale


#: Layouts by name.
LAYOUTS = {
    "pytorch": Dialect(scale=(1 / 255,) * 3),
    "linder-noren": Dialect((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "lengstrom": Dialect(
        scale=(1 / 255,) * 3, out_shift=(0.5,) * 3, out_scale=(150 / 255,) * 3, zeros=True,
        squash=torch.tanh, eps=1e-3,
    ),
    "magenta": Dialect(squash=torch.sigmoid),
}  # fmt: skip

#: (Layer of this module -> (its convolution, its norm)) in a checkpoint.
Names = dict[str, tuple[str, str]]


def read(state: State, path: Path | str) -> tuple[State, str]:
    """The weights of a checkpoint by the names of this module, float32, and the name of its layout.

    A prefix ``module.``, which PyTorch's `DataParallel` leaves, counts as not there.

    Raises
    ------
    BadWeights : the keys or shapes are of no known layout.
    """
    state = {re.sub(r"^module\.|:0$", "", key): t for key, t in state.items()}
    if "Variable" in state:
        return read_lengstrom(state, path), "lengstrom"
    state = {key.replace(".norm.norm.", ".norm."): t for key, t in state.items()}
    names, layout = _naming(state)
    batch = any(key.endswith("num_batches_tracked") for key in state)
    wanted = keys(names, width_of(state.get(f"{names['conv1'][0]}.bias")), batch)
    present = {key: _flat(t) for key, t in state.items() if key in wanted or not _deprecated(key)}
    check_keys(present, {key: shape for key, (_, shape) in wanted.items()}, path)
    return {ours: present[key].float() for key, (ours, _) in wanted.items()}, layout


def _naming(state: Mapping[str, Tensor]) -> tuple[Names, str]:
    """The names that a checkpoint of PyTorch has, and its layout."""
    if any(key.startswith("model.") for key in state):
        return linder_noren_names(), "linder-noren"
    if any(key.startswith("conv1.block.") for key in state):
        return urst_names(), "linder-noren"
    return pytorch_names(), "pytorch"


def _flat(tensor: Tensor) -> Tensor:
    """A norm's (1, C, 1, 1) as (C,); all else as it is."""
    return tensor.flatten() if tensor.ndim == 4 and tensor.shape[0] * tensor[0, 0].numel() == 1 else tensor


def _deprecated(key: str) -> bool:
    """Whether the key is a counter, or one of the running statistics that instance norms had before PyTorch
    0.4 and never used."""
    return bool(re.search(r"\.(running_(mean|var)|num_batches_tracked)$", key))


def checkpoint(weights: State, layout: str) -> State:
    """The inverse of `read`, for the layouts ``pytorch`` and ``linder-noren``."""
    batch = "conv1.mean" in weights
    names = linder_noren_names() if layout == "linder-noren" else pytorch_names()
    theirs = keys(names, width_of(weights["conv1.bias"]), batch)
    state = {key: weights[ours] for key, (ours, _) in theirs.items()}
    norms = [names[name][1] for name in NORMED] if batch else []
    return state | {f"{norm}.num_batches_tracked": torch.tensor(1) for norm in norms}


def keys(names: Names, width: float, batch: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Key in a checkpoint -> (key in this module's weights, shape)."""
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (inputs, outputs, side) in wide(width).items():
        layer, norm = names[name]
        entries[f"{layer}.weight"] = f"{name}.weight", (outputs, inputs, side, side)
        entries[f"{layer}.bias"] = f"{name}.bias", (outputs,)
        if name in NORMED:
            parts = {"weight": "gamma", "bias": "beta"}
            parts |= {"running_mean": "mean", "running_var": "variance"} if batch else {}
            entries |= {f"{norm}.{key}": (f"{name}.{part}", (outputs,)) for key, part in parts.items()}
    return entries


def width_of(bias: Tensor | None) -> float:
    """How many times as wide as published a network is whose first convolution has this bias; 1 without
    one."""
    return 1.0 if bias is None else bias.numel() / LAYERS["conv1"][1]


def wide(width: float) -> dict[str, tuple[int, int, int]]:
    """Layer -> (inputs, outputs, kernel), ``width`` times as wide as published."""

    def scaled(n: int) -> int:
        return n if n == 3 else max(4, round(n * width))

    return {name: (scaled(i), scaled(o), side) for name, (i, o, side) in LAYERS.items()}


def _named(part: Callable[[str], tuple[str, str]], residual: Callable[[int, int], tuple[str, str]]) -> Names:
    """The names of all layers: of those in a row, and of convolution k of residual block i."""
    names = {name: part(name) for name in LAYERS if not name.startswith("res")}
    names |= {f"{res}.conv{k}": residual(i, k) for i, res in enumerate(RESIDUALS, 1) for k in (1, 2)}
    return {name: names[name] for name in LAYERS}


def pytorch_names() -> Names:
    """The names in [1]."""
    norms = {"conv1": "in1", "conv2": "in2", "conv3": "in3", "deconv1": "in4", "deconv2": "in5"}
    return _named(
        lambda name: (f"{name}.conv2d", norms.get(name, "")),
        lambda i, k: (f"res{i}.conv{k}.conv2d", f"res{i}.in{k}"),
    )


def linder_noren_names() -> Names:
    """The names in [2]."""
    places = {"conv1": 0, "conv2": 1, "conv3": 2, "deconv1": 8, "deconv2": 9, "deconv3": 10}
    blocks = _named(
        lambda name: (f"model.{places[name]}", ""), lambda i, k: (f"model.{2 + i}.block.{k - 1}", "")
    )
    return {name: (f"{block}.block.1", f"{block}.norm") for name, (block, _) in blocks.items()}


def urst_names() -> Names:
    """The names in [3]."""
    blocks = _named(lambda name: (name, ""), lambda i, k: (f"res{i}.block{k}", ""))
    return {name: (f"{block}.block.1", f"{block}.norm") for name, (block, _) in blocks.items()}


def read_lengstrom(state: State, path: Path | str) -> State:
    """The weights of a checkpoint of [4]: for each layer in order a convolution, (h, w, inputs, outputs), or
    transposed (h, w, outputs, inputs), the shift and the scale of its norm.

    Raises
    ------
    BadWeights : keys or shapes differ.
    """
    first = state["Variable"]
    layers = wide(first.shape[-1] / LAYERS["conv1"][1] if first.ndim else 1.0)
    numbers = iter(range(3 * len(layers)))
    wanted: dict[str, tuple[int, ...]] = {}
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (inputs, outputs, side) in layers.items():
        turned = name in DOUBLING
        shape = (side, side, outputs, inputs) if turned else (side, side, inputs, outputs)
        order = (2, 3, 0, 1) if turned else (3, 2, 0, 1)
        for part, size in (("weight", shape), ("beta", (outputs,)), ("gamma", (outputs,))):
            number = next(numbers)
            key = f"Variable_{number}" if number else "Variable"
            wanted[key], found[f"{name}.{part}"] = size, (key, order if part == "weight" else (0,))
    check_keys(state, wanted, path)
    weights = {ours: state[key].float().permute(order).contiguous() for ours, (key, order) in found.items()}
    return weights | {f"{name}.bias": torch.zeros(outputs) for name, (_, outputs, _) in layers.items()}


def read_magenta(state: State, path: Path | str) -> State:
    """The weights of a checkpoint of [5], in which gamma and beta have a row for each style.

    Raises
    ------
    BadWeights : a tensor is missing, or there are others.
    """
    blocks = sorted({int(key.split(".")[1]) for key in state if key.startswith("res.")})
    names = {f"contract.{k}": f"conv{k + 1}" for k in range(3)}
    names |= {f"res.{i}.{k}": f"res{i + 1}.conv{k + 1}" for i in blocks for k in (0, 1)}
    names |= {f"expand.{k}": f"deconv{k + 1}" for k in range(3)}
    parts = {"w": "weight", "norm.gamma": "gamma", "norm.beta": "beta"}
    ours = {f"{a}.{p}": f"{b}.{q}" for a, b in names.items() for p, q in parts.items()}
    if set(ours) != set(state):
        raise BadWeights(f"{path} has not the tensors of Magenta's network for several styles")
    weights = {name: state[key].float() for key, name in ours.items()}
    return weights | {f"{name}.bias": torch.zeros(len(weights[f"{name}.weight"])) for name in names.values()}
