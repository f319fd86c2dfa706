"""VGG-19 as a feature net: the original, torchvision's, and the normalised variant that AdaIN was trained on.

Layers are named "relu1_1" to "relu5_4". The mean activations of the trained network's channels differ much:
on photographs from 2.3 to 430 in its first five layers, in levels of 0..255. Whatever weighs all features
alike, AdaIN's decoder or a style loss over layers, then sees the loud ones only. The normalised variant [2]
divides every channel by its mean activation over photographs, and undoes it in the next layer's weights:
since ReLU is homogeneous the network computes the same, each channel scaled.

References
----------
1. K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
   2015: table 1, column E.
2. L. Gatys, A. Ecker, M. Bethge, "Texture Synthesis Using Convolutional Neural Networks", NIPS 2015, section
   2: the rescaled network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.weights import check_keys, load

State = dict[str, Tensor]

#: The layers of a style loss: the first of each of VGG-19's five stages.
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_1"
#: What the authors of SWAG scale down in a ResNet are the two deepest of five stages; here likewise.
DEEP = ("relu4_1", "relu5_1")
#: Convolutions of each stage [1], and its channels.
STAGES = {1: (2, 64), 2: (2, 128), 3: (4, 256), 4: (4, 512), 5: (4, 512)}
#: Mean and deviation of the colours of ImageNet, in 0..1: what torchvision's networks take off.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The original's means of red, green and blue, in levels of 0..255; it does not divide by deviations.
IMAGENET = (123.68, 116.779, 103.939)
#: Mean activation of the original's layers on photographs, by which they are divided, so that each weighs
#: alike.
ACTIVATION = {"relu1_1": 20.6, "relu2_1": 113.0, "relu3_1": 113.0}
#: Places of the convolutions in torchvision's ``features``, and in the normalised network's Sequential, whose
#: first layer is 1x1 and which pads by reflection layers.
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
SEQUENTIAL = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)


def convolutions(last: str = "5_4", width: float = 1.0) -> Iterator[tuple[str, int, int]]:
    """("1_1", inputs, outputs) of every convolution of VGG-19 up to ``last`` ("3_1", say)."""
    inputs = 3
    for stage, (count, channels) in STAGES.items():
        outputs = max(2, round(channels * width))
        for k in range(1, count + 1):
            yield f"{stage}_{k}", inputs, outputs
            if f"{stage}_{k}" == last:
                return
            inputs = outputs


@dataclass
class VGG19:
    """VGG-19 up to some layer.

    Parameters
    ----------
    weights : "conv1_1.weight" (O, I, 3, 3), "conv1_1.bias" (O,), ...; "conv0.weight" (3, 3, 1, 1), where the
        colours are prepared by a layer.
    mean, std : colours go in as (x - mean) / std.
    padding : "zeros" as in [1], or "reflect" as in the networks of AdaIN and WCT.
    activation : layers are divided by these.
    """

    weights: State
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    padding: Literal["zeros", "reflect"] = "zeros"
    activation: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``; BadInput for one that is not there."""
        for layer in layers:
            if f"conv{layer.removeprefix('relu')}.weight" not in self.weights:
                raise BadInput(f"this VGG-19 has no layer {layer!r}")
        found: dict[str, Tensor] = {}
        x = self.prepared(x)
        for name, _, _ in convolutions(deepest(layers)):
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            weight, bias = self.layer(name)
            if self.padding == "zeros":
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            else:
                x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias))
            if f"relu{name}" in layers:
                found[f"relu{name}"] = x / self.activation.get(f"relu{name}", 1.0)
        return found

    def prepared(self, x: Tensor) -> Tensor:
        """Colours as the first convolution expects them."""
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        x = (x - mean) / std
        return F.conv2d(x, *self.layer("0")) if "conv0.weight" in self.weights else x

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution."""
        return self.weights[f"conv{name}.weight"], self.weights[f"conv{name}.bias"]


def deepest(layers: Sequence[str]) -> str:
    """ "4_1" of ("relu1_1", "relu4_1")."""
    return max(name.removeprefix("relu") for name in layers)


# The normalised network


@torch.no_grad()
def mean_activations(net: VGG19, images: Sequence[Tensor], last: str = "5_4") -> dict[str, Tensor]:
    """ "1_1" -> (C,) float64, the mean over pictures and places behind every ReLU up to ``last``.

    ``images`` are (n, 3, h, w) in 0..1 of any sizes; each picture weighs the same.
    """
    net = replace(net, activation={})
    names = [name for name, _, _ in convolutions(last)]
    layers = [f"relu{name}" for name in names]
    sums = {name: torch.zeros((), dtype=torch.float64) for name in names}
    for batch in images:
        found = net(batch, layers)
        for name in names:
            sums[name] = sums[name] + found[f"relu{name}"].double().mean((2, 3)).sum(0).cpu()
    count = sum(len(batch) for batch in images)
    return {name: total / count for name, total in sums.items()}


def rescaled(net: VGG19, means: Mapping[str, Tensor]) -> VGG19:
    """``net`` with every channel divided by its mean activation, weights changed alone [2].

    Channels that never fire stay as they are. The preparation of colours becomes the layer conv0, so that the
    result takes pictures as they are, as AdaIN's ``vgg_normalised.pth`` does.
    """
    weights, before = colour_layer(net), None
    for name, mean in means.items():
        weight, bias = (t.double() for t in net.layer(name))
        divisor = torch.where(mean > 0, mean, torch.ones_like(mean)).to(weight)
        weight = weight if before is None else weight * before[None, :, None, None]
        weights[f"conv{name}.weight"] = (weight / divisor[:, None, None, None]).to(net.layer(name)[0])
        weights[f"conv{name}.bias"] = (bias / divisor).to(net.layer(name)[1])
        before = divisor
    return replace(net, weights=weights, mean=(0.0,) * 3, std=(1.0,) * 3, activation={})


def colour_layer(net: VGG19) -> State:
    """conv0 that does what `VGG19.prepared` does."""
    like = net.layer("1_1")[0]
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (net.mean, net.std))
    weight, bias = torch.diag(1 / std), -mean / std
    if "conv0.weight" in net.weights:
        outer, shift = (t.double().cpu() for t in net.layer("0"))
        weight, bias = outer[:, :, 0, 0] @ weight, outer[:, :, 0, 0] @ bias + shift
    return {"conv0.weight": weight[:, :, None, None].to(like), "conv0.bias": bias.to(like)}


def to_sequential(net: VGG19) -> State:
    """A rescaled network's tensors in the layout of ``vgg_normalised.pth``, as far as it goes."""
    places = {name: at for (name, _, _), at in zip(convolutions(), SEQUENTIAL, strict=True)}
    kept = {f"0.{part}": net.weights[f"conv0.{part}"] for part in ("weight", "bias")}
    for key, t in net.weights.items():
        name, part = key.removeprefix("conv").split(".")
        if name != "0":
            kept[f"{places[name]}.{part}"] = t
    return kept


# Files


def vgg19(files: Sequence[Path], seed: int, **placed: Any) -> VGG19:
    """torchvision's checkpoint, or raw float32 of the original; random weights without a file."""
    if not files:
        return VGG19(placed_state(random_state(seed), **placed))
    (path,) = files
    return vgg19_raw(path, **placed) if path.suffix == ".raw" else vgg19_torchvision(path, **placed)


def vgg19_torchvision(path: Path, **placed: Any) -> VGG19:
    """From ``vgg19-dcbb9e9d.pth`` or any state of ``torchvision.models.vgg19``, classifier or not."""
    state = {k: t for k, t in load(there(path)).items() if k.startswith("features.")}
    keys = {f"features.{at}": name for at, (name, _, _) in zip(TORCHVISION, convolutions(), strict=True)}
    return VGG19(placed_state(_renamed(state, keys, path), **placed))


def vgg19_normalised(files: Sequence[Path], seed: int, **placed: Any) -> VGG19:
    """From AdaIN's ``vgg_normalised.pth``; without a file a random network, rescaled on random pictures."""
    if not files:
        like = VGG19(random_state(seed), padding="reflect")
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        net = rescaled(like, mean_activations(like, [picture]))
        return replace(net, weights=placed_state(net.weights, **placed))
    (path,) = files
    keys = {"0": "0"} | {str(at): name for at, (name, _, _) in zip(SEQUENTIAL, convolutions(), strict=True)}
    weights = _renamed(load(there(path)), keys, path)
    return VGG19(placed_state(weights, **placed), (0.0,) * 3, (1.0,) * 3, "reflect")


def _renamed(state: State, keys: Mapping[str, str], path: Path) -> State:
    """``state`` under our names, as deep as it goes; BadWeights for wrong keys or shapes."""
    shapes = {"0": (3, 3, 1, 1)} | {name: (o, i, 3, 3) for name, i, o in convolutions()}
    known: dict[str, tuple[int, ...]] = {}
    for place, name in keys.items():
        if f"{place}.weight" in state or not known:
            known |= {f"{place}.weight": shapes[name], f"{place}.bias": shapes[name][:1]}
    check_keys(state, known, path)
    return {f"conv{keys[key.rsplit('.', 1)[0]]}.{key.rsplit('.', 1)[1]}": state[key] for key in known}


def vgg19_raw(path: Path, last: str = "", **placed: Any) -> VGG19:
    """The original from little-endian float32 in one file: weights OIHW, then bias, layer by layer up to
    ``last``; "" for as deep as the file goes.

    The file's first layer takes the channels blue, green, red, in levels of 0..255 minus (103.939, 116.779,
    123.68), as the network was published for Caffe. Its input planes are reversed here, so that the network
    returned takes RGB pictures in 0..1 like every other feature net. ``placed`` goes to ``Tensor.to``:
    device, dtype.

    Raises
    ------
    MissingFile : there is no such file. BadWeights : it holds another number of values.
    """
    values = torch.from_numpy(np.fromfile(there(path), "<f4"))
    last = last or _depth(len(values)) or "5_4"
    sizes = [(name, (o, i, 3, 3)) for name, i, o in convolutions(last)]
    expected = sum(int(np.prod(shape)) + shape[0] for _, shape in sizes)
    if len(values) != expected:
        raise BadWeights(f"{path} holds {len(values)} numbers, VGG-19 to conv{last} has {expected}")
    state: State = {}
    for name, shape in sizes:
        for part, want in (("weight", shape), ("bias", shape[:1])):
            count = int(np.prod(want))
            state[f"conv{name}.{part}"], values = values[:count].reshape(want), values[count:]
    state["conv1_1.weight"] = state["conv1_1.weight"].flip(1)
    mean = [level / 255 for level in IMAGENET]
    return VGG19(placed_state(state, **placed), mean, (1 / 255,) * 3, activation=ACTIVATION)


def _depth(count: int) -> str:
    """The layer up to which VGG-19 has ``count`` weights; "" for none."""
    total = 0
    for name, i, o in convolutions():
        total += o * i * 9 + o
        if total == count:
            return name
    return ""


def random_state(seed: int, width: float = 1.0) -> State:
    """Weights as torchvision starts training: normal of variance 2 / (9 outputs), no bias."""
    random, state = torch.Generator().manual_seed(seed), {}
    for name, i, o in convolutions(width=width):
        state[f"conv{name}.weight"] = torch.randn(o, i, 3, 3, generator=random) * (2 / (9 * o)) ** 0.5
        state[f"conv{name}.bias"] = torch.zeros(o)
    return state


def placed_state(state: Mapping[str, Tensor], **placed: Any) -> State:
    """``state`` on a device and in a type, convolutions in channels_last memory."""
    moved = {name: t.to(**placed) if placed else t for name, t in state.items()}
    return {
        k: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for k, t in moved.items()
    }


def there(path: Path) -> Path:
    """The path of a file that exists; MissingFile."""
    if not Path(path).is_file():
        raise MissingFile(f"the loss network {path} is missing")
    return Path(path)
