"""VGG-16 and VGG-19 as feature nets: the originals, torchvision's, and the normalised VGG-19 of AdaIN.

Layers are named "relu1_1" to "relu5_3" (VGG-16) or "relu5_4" (VGG-19). The originals are the networks of [1],
which Gatys, Johnson and URST look through; torchvision trained its networks of the same form anew.

The mean activations of the trained network's channels differ much: on photographs from 2.3 to 430 in the
first five layers of VGG-19, in levels of 0..255. Whatever weighs all features alike, AdaIN's decoder or a
style loss over layers, then sees the loud ones only. The normalised variant [2] divides every channel by its
mean activation over photographs, and undoes it in the next layer's weights: since ReLU is homogeneous the
network computes the same, each channel scaled.

References
----------
1. K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
   2015: table 1, columns D and E.
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
#: Layers with weights, the three of the classifier included.
Depth = Literal[16, 19]

#: The layers of a style loss: the first of each of VGG-19's five stages.
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_1"
#: Of VGG-16: the last of each stage, four of which are those of Johnson et al. 2016, and their content layer.
LAYERS16, CONTENT16 = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"), "relu3_3"
#: What the authors of SWAG scale down in a ResNet are the two deepest of five stages; here likewise.
DEEP, DEEP16 = ("relu4_1", "relu5_1"), ("relu4_3", "relu5_3")
#: Channels of each stage [1], and its convolutions.
CHANNELS = (64, 128, 256, 512, 512)
COUNTS: dict[Depth, tuple[int, ...]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
#: Mean and deviation of the colours of ImageNet, in 0..1: what torchvision's networks take off.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The original's means of red, green and blue, in levels of 0..255; it does not divide by deviations.
IMAGENET = (123.68, 116.779, 103.939)
#: Mean activation of the original's layers on photographs, by which they are divided, so that each weighs
#: alike.
ACTIVATION = {"relu1_1": 20.6, "relu2_1": 113.0, "relu3_1": 113.0}
#: Places of the convolutions in torchvision's ``features`` (19 and 16), where a ReLU follows each of them and
#: a pooling layer each stage; and in the normalised VGG-19's Sequential, whose first layer is 1x1 and which
#: pads by reflection layers.
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
TORCHVISION16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
SEQUENTIAL = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)


def convolutions(last: str = "5_4", width: float = 1.0, depth: Depth = 19) -> Iterator[tuple[str, int, int]]:
    """("1_1", inputs, outputs) of every convolution of VGG-19, or of VGG-16, up to ``last`` ("3_1", say)."""
    inputs = 3
    for stage, (count, channels) in enumerate(zip(COUNTS[depth], CHANNELS, strict=True), 1):
        outputs = max(2, round(channels * width))
        for k in range(1, count + 1):
            yield f"{stage}_{k}", inputs, outputs
            if f"{stage}_{k}" == last:
                return
            inputs = outputs


@dataclass
class VGG:
    """VGG-19 or VGG-16 up to some layer; nothing in it learns.

    Parameters
    ----------
    weights : "conv1_1.weight" (O, I, 3, 3), "conv1_1.bias" (O,), ...; "conv0.weight" (3, 3, 1, 1), where the
        colours are prepared by a layer.
    mean, std : colours go in as (x - mean) / std.
    padding : "zeros" as in [1], or "reflect" as in the networks of AdaIN and WCT.
    activation : layers are divided by these.
    depth : 19 or 16.
    """

    weights: State
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    padding: Literal["zeros", "reflect"] = "zeros"
    activation: Mapping[str, float] = field(default_factory=dict)
    depth: Depth = 19

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``, in the type of the weights; BadInput for a layer that is not there."""
        for layer in layers:
            if f"conv{layer.removeprefix('relu')}.weight" not in self.weights:
                raise BadInput(f"this VGG-{self.depth} has no layer {layer!r}")
        found: dict[str, Tensor] = {}
        x = self.prepared(x)
        for name, _, _ in convolutions(deepest(layers), depth=self.depth):
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
        """Colours as the first convolution expects them, prepared in the type that they come in."""
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        x = ((x - mean) / std).to(self.weights["conv1_1.weight"].dtype)
        return F.conv2d(x, *self.layer("0")) if "conv0.weight" in self.weights else x

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution."""
        return self.weights[f"conv{name}.weight"], self.weights[f"conv{name}.bias"]


def deepest(layers: Sequence[str]) -> str:
    """ "4_1" of ("relu1_1", "relu4_1")."""
    return max(name.removeprefix("relu") for name in layers)


# The normalised network


@torch.no_grad()
def mean_activations(net: VGG, images: Sequence[Tensor], last: str = "5_4") -> dict[str, Tensor]:
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


def rescaled(net: VGG, means: Mapping[str, Tensor]) -> VGG:
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


def colour_layer(net: VGG) -> State:
    """conv0 that does what `VGG.prepared` does."""
    like = net.layer("1_1")[0]
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (net.mean, net.std))
    weight, bias = torch.diag(1 / std), -mean / std
    if "conv0.weight" in net.weights:
        outer, shift = (t.double().cpu() for t in net.layer("0"))
        weight, bias = outer[:, :, 0, 0] @ weight, outer[:, :, 0, 0] @ bias + shift
    return {"conv0.weight": weight[:, :, None, None].to(like), "conv0.bias": bias.to(like)}


def to_sequential(net: VGG) -> State:
    """A rescaled network's tensors in the layout of ``vgg_normalised.pth``, as far as it goes."""
    places = {name: at for (name, _, _), at in zip(convolutions(), SEQUENTIAL, strict=True)}
    kept = {f"0.{part}": net.weights[f"conv0.{part}"] for part in ("weight", "bias")}
    for key, t in net.weights.items():
        name, part = key.removeprefix("conv").split(".")
        if name != "0":
            kept[f"{places[name]}.{part}"] = t
    return kept


# Files


def vgg19(files: Sequence[Path], seed: int, **placed: Any) -> VGG:
    """The original (safetensors, or raw float32) or torchvision's checkpoint; without a file, random weights
    from ``seed``."""
    if not files:
        return VGG(placed_state(random_state(seed), **placed))
    (path,) = files
    return vgg19_raw(path, **placed) if path.suffix == ".raw" else trained(path, 19, **placed)


def vgg16(files: Sequence[Path], seed: int, **placed: Any) -> VGG:
    """The original (safetensors) or torchvision's checkpoint; without a file, random weights of ``seed``."""
    if not files:
        return VGG(placed_state(random_state(seed, depth=16), **placed), depth=16)
    (path,) = files
    return trained(path, 16, **placed)


def trained(path: Path, depth: Depth, **placed: Any) -> VGG:
    """VGG-16 or VGG-19 from a safetensors or PyTorch file, as deep as the file goes, in float32 unless
    ``placed``, which goes to ``Tensor.to``, says otherwise.

    Two layouts are known. The original has "conv1_1.weight" and "conv1_1.bias" to "conv5_3" or "conv5_4" and
    takes RGB in 0..255 minus (123.68, 116.779, 103.939). torchvision's ``vgg16-397923af.pth`` and
    ``vgg19-dcbb9e9d.pth`` have "features.0.weight" and so on, with or without the classifier, which is left
    out, and take RGB in 0..1 normalised by the mean and deviation of ImageNet. Both pad with zeros.

    Raises
    ------
    MissingFile : there is no such file. BadWeights : it has other keys or shapes than VGG of that depth.
    """
    state = load(there(path))
    names = [name for name, _, _ in convolutions(depth=depth)]
    if any(key.startswith("features.") for key in state):
        state = {key: t for key, t in state.items() if key.startswith("features.")}
        places = TORCHVISION16 if depth == 16 else TORCHVISION
        keys = {f"features.{at}": name for at, name in zip(places, names, strict=True)}
        mean, std = MEAN, STD
    else:
        keys = {f"conv{name}": name for name in names}
        mean, std = original_colours()
    renamed = {key: t.float() for key, t in _renamed(state, keys, path, depth).items()}
    return VGG(placed_state(renamed, **placed), mean, std, depth=depth)


def original_colours() -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation by which pictures in 0..1 become what the original takes."""
    red, green, blue = IMAGENET
    return (red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255)


def vgg19_normalised(files: Sequence[Path], seed: int, **placed: Any) -> VGG:
    """From AdaIN's ``vgg_normalised.pth``; without a file a random network, rescaled on random pictures."""
    if not files:
        like = VGG(random_state(seed), padding="reflect")
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        net = rescaled(like, mean_activations(like, [picture]))
        return replace(net, weights=placed_state(net.weights, **placed))
    (path,) = files
    keys = {"0": "0"} | {str(at): name for at, (name, _, _) in zip(SEQUENTIAL, convolutions(), strict=True)}
    weights = _renamed(load(there(path)), keys, path)
    return VGG(placed_state(weights, **placed), (0.0,) * 3, (1.0,) * 3, "reflect")


def _renamed(state: State, keys: Mapping[str, str], path: Path, depth: Depth = 19) -> State:
    """``state`` under our names, up to the deepest layer that it has; BadWeights for wrong keys or shapes."""
    shapes = {"0": (3, 3, 1, 1)} | {name: (o, i, 3, 3) for name, i, o in convolutions(depth=depth)}
    places = list(keys)
    count = max((k for k, place in enumerate(places, 1) if f"{place}.weight" in state), default=1)
    known: dict[str, tuple[int, ...]] = {}
    for place in places[:count]:
        shape = shapes[keys[place]]
        known |= {f"{place}.weight": shape, f"{place}.bias": shape[:1]}
    check_keys(state, known, path)
    return {f"conv{keys[key.rsplit('.', 1)[0]]}.{key.rsplit('.', 1)[1]}": state[key] for key in known}


def vgg19_raw(path: Path, last: str = "", **placed: Any) -> VGG:
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
    return VGG(placed_state(state, **placed), *original_colours(), activation=ACTIVATION)


def _depth(count: int) -> str:
    """The layer up to which VGG-19 has ``count`` weights; "" for none."""
    total = 0
    for name, i, o in convolutions():
        total += o * i * 9 + o
        if total == count:
            return name
    return ""


def random_state(seed: int, width: float = 1.0, depth: Depth = 19) -> State:
    """Weights as torchvision starts training: normal of variance 2 / (9 outputs), no bias."""
    random, state = torch.Generator().manual_seed(seed), {}
    for name, i, o in convolutions(width=width, depth=depth):
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
