"""Fixed VGG-19 encoders: of any layout and width, normalised, and losses through them.

torchvision's VGG-19 trains a decoder badly as it is: its channels' mean activations differ a hundredfold (see
``urst_tiles/losses/vgg.py``). It is rescaled over the photographs first, and said so.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from training.perceptual import Look, Looks, through
from training.pictures import Pictures
from training.states import split, tensors_of
from urst_tiles import losses, weights
from urst_tiles.errors import BadWeights, MissingFile
from urst_tiles.learning.checkpoint import State, once
from urst_tiles.losses import backbones, vgg
from urst_tiles.losses.backbones import VGG
from urst_tiles.nets import wct


class Encodes(Protocol):
    """The settings that a fixed encoder is made of."""

    @property
    def encoder(self) -> Path:
        """VGG-19, in any layout that `read_encoder` knows."""

    @property
    def out(self) -> Path:
        """Where a rescaled one is kept."""

    @property
    def size(self) -> int:
        """Of the crops it is rescaled over."""

    @property
    def activation_pictures(self) -> int:
        """Their number."""

    @property
    def seed(self) -> int:
        """Of their choice."""


def read_encoder(path: Path) -> tuple[VGG, bool]:
    """VGG-19 of any layout and width, padding by reflection, and whether it still has to be rescaled.

    Raises
    ------
    MissingFile, BadWeights
    """
    if not path.is_file():
        raise MissingFile(f"there is no encoder {path}")
    if path.suffix == ".raw":
        return replace(vgg.vgg19_raw(path), padding="reflect", activation={}), True
    state = tensors_of(path)
    if "conv1_1.weight" in state or any(key.startswith("features.") for key in state):
        return replace(vgg.trained(path, 19), padding="reflect"), True
    kept = wct.needed(state)
    places = zip(vgg.SEQUENTIAL, backbones.convolutions(), strict=True)
    names = {"0": "0"} | {str(at): name for at, (name, _, _) in places}
    names |= {f"conv{name.replace('_', '')}": name for name in names.values()}
    if unknown := [key for key in kept if key.rsplit(".", 1)[0] not in names]:
        raise BadWeights(f"{path} is no encoder of a known layout: it has {unknown[0]}")
    renamed = {f"conv{names[k]}.{part}": kept[f"{k}.{part}"].float() for k, part in map(split, kept)}
    return VGG(vgg.placed_state(renamed), (0.0,) * 3, (1.0,) * 3, "reflect"), False


def cut(net: VGG, last: str, path: Path) -> VGG:
    """Without the layers behind ``last``; BadWeights where the network does not go so far."""
    names = [name for name, _, _ in backbones.convolutions(last)]
    keys = [f"conv{name}.{part}" for name in names for part in ("weight", "bias")]
    if missing := [key for key in keys if key not in net.weights]:
        raise BadWeights(f"the encoder {path} does not go to conv{last}: it misses {missing[0]}")
    keys += [key for key in net.weights if key.startswith("conv0.")]
    return replace(net, weights={key: net.weights[key] for key in keys})


def normalised(settings: Encodes, pictures: Pictures, last: str = "4_1") -> VGG:
    """The encoder up to ``last``, float32; rescaled where it must be, and then kept in ``--out``."""
    net, loud = read_encoder(settings.encoder)
    net = cut(net, last, settings.encoder)
    if not loud:
        return net
    count = max(1, settings.activation_pictures)

    def quiet() -> State:
        print(f"{settings.encoder} is rescaled to mean activations of 1 over {count} crops of photographs")
        random = np.random.default_rng([settings.seed, 3])
        chosen = [pictures.some(1, settings.size, random) for _ in range(count)]
        state = backbones.rescaled(net, backbones.mean_activations(net, chosen, last)).weights
        return {k: t.contiguous() for k, t in state.items()}

    facts = [weights.sha256_of(settings.encoder), last, count, settings.seed, settings.size, *pictures.paths]
    state = once(settings.out, "encoder", map(str, facts), quiet)
    return VGG(vgg.placed_state(state), (0.0,) * 3, (1.0,) * 3, "reflect")


def own_look(settings: Looks, net: losses.FeatureNet, style: tuple[str, ...], content: str) -> Look:
    """The losses through the encoder itself; BadInput for a layer that it has not."""
    return through(settings, net, "encoder", style, content, vgg.DEEP)
