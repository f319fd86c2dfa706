"""Where a user's module looks at the whole picture: its norms become site layers that ask for a map."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from urst_tiles.errors import BadInput
from urst_tiles.moments import Moments
from urst_tiles.nets.base import Affine

#: What a norm becomes: (the layer with its weights, statistics of its features) -> its constant map.
Map = Callable[[Any, Moments], Affine]
Sites = Mapping[type[nn.Module], Map]


def norm(layer: nn.InstanceNorm2d | nn.BatchNorm2d, moments: Moments) -> Affine:
    """gamma (x - mean) / sqrt(variance + eps) + beta, biased (Ulyanov et al. 2016)."""
    return _scaled(layer, 1.0 / moments.std(layer.eps, 0), moments.mean)


def group_norm(layer: nn.GroupNorm, moments: Moments) -> Affine:
    """The same with one mean and variance per group of channels, all of one size (Wu and He 2018)."""
    mean, square = (
        values.reshape(layer.num_groups, -1).mean(1)
        for values in (moments.mean, moments.variance() + moments.mean**2)
    )
    std = np.sqrt(square - mean**2 + layer.eps)
    each = layer.num_channels // layer.num_groups
    return _scaled(layer, np.repeat(1.0 / std, each), np.repeat(mean, each))


def _scaled(layer: Any, scale: Any, mean: Any) -> Affine:
    """gamma (x - mean) scale + beta."""
    if layer.weight is None:
        return Affine(scale, -scale * mean)
    gamma, beta = (values.detach().double().cpu().numpy() for values in (layer.weight, layer.bias))
    return Affine(gamma * scale, beta - gamma * scale * mean)


#: PyTorch's own layers that measure the picture; with running statistics they are constant maps already.
NORMS: Sites = {nn.InstanceNorm2d: norm, nn.BatchNorm2d: norm, nn.GroupNorm: group_norm}


def map_of(layer: nn.Module, sites: Sites) -> Map | None:
    """How ``layer`` becomes a constant map; None where it is no site."""
    for kind, function in sites.items():
        if isinstance(layer, kind):
            return function
    measures = getattr(layer, "running_mean", None) is None
    for kind, function in NORMS.items():
        if isinstance(layer, kind) and type(layer).forward is kind.forward and measures:
            return function
    return None


class SiteLayer(nn.Module):
    """Stands where a norm was, and gives its features to whoever runs the network.

    Parameters
    ----------
    layer : the norm.
    name : its dotted name in the user's module.
    function : how it becomes a constant map.
    """

    def __init__(self, layer: nn.Module, name: str, function: Map):
        super().__init__()
        self.layer, self.name, self.function = layer, name, function

    def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """What the run now going on in this thread makes of (n, C, h, w)."""
        if more or named or x.ndim != 4:
            raise BadInput(f"{self.label} must be given features (n, c, h, w) and nothing else to be a site")
        return _RUN.get()(self, x)

    @property
    def label(self) -> str:
        """What a sentence calls it."""
        return f"{type(self.layer).__name__} {self.name!r}"

    def affine(self, moments: Moments) -> Affine:
        """The constant map for these statistics; BadInput where a user's function gives another thing."""
        made = self.function(self.layer, moments)
        if not isinstance(made, Affine):
            raise BadInput(
                f"the function for site {self.name} must give an Affine, got {type(made).__name__}"
            )
        return made


#: Whom each site layer asks, per thread and run: two windows may be under way at once.
_RUN: ContextVar[Callable[[SiteLayer, Tensor], Tensor]] = ContextVar("run")


@contextmanager
def answering(run: Callable[[SiteLayer, Tensor], Tensor]) -> Iterator[None]:
    """Every site layer asks ``run`` in forwards of this thread."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


class Constant(nn.Module):
    """A site whose map is known: y = scale x + shift over channels."""

    scale: Tensor
    shift: Tensor

    def __init__(self, affine: Affine):
        super().__init__()
        scale = torch.from_numpy(np.ascontiguousarray(affine.scale)).float()
        self.register_buffer("scale", scale if scale.ndim == 2 else scale[:, None, None])
        self.register_buffer("shift", torch.from_numpy(np.array(affine.shift)).float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> same."""
        if self.scale.ndim == 2:
            return torch.einsum("dc,nchw->ndhw", self.scale, x) + self.shift
        return torch.addcmul(self.shift, x, self.scale)


def shallow(net: nn.Module) -> nn.Module:
    """A copy of ``net`` over the same memory, until one of the two is moved to another device."""
    shared: dict[int, Any] = {id(t): nn.Parameter(t.data, requires_grad=False) for t in net.parameters()}
    return copy.deepcopy(net, shared | {id(t): t for t in net.buffers()})


def with_site_layers(net: nn.Module, sites: Sites) -> nn.Module:
    """A copy of ``net`` with a site layer in place of every site."""
    placed = shallow(net)
    found: dict[nn.Module, SiteLayer] = {}
    for name, layer in placed.named_modules():
        function = map_of(layer, sites)
        inside = any(name.startswith(f"{site_layer.name}.") for site_layer in found.values())
        if function is not None and not inside:
            found[layer] = SiteLayer(layer, name or type(layer).__name__, function)
    return swapped(placed, found)


def with_maps(placed: nn.Module, affines: Mapping[str, Affine]) -> nn.Module:
    """A copy of a network with constant maps in place of its site layers; one that is never reached stays."""
    frozen = shallow(placed)
    layers = [layer for layer in frozen.modules() if isinstance(layer, SiteLayer)]
    return swapped(frozen, {at: Constant(affines[at.name]) for at in layers if at.name in affines})


def swapped(net: nn.Module, others: Mapping[Any, nn.Module]) -> nn.Module:
    """``net`` with other modules in the stead of some of its own, wherever these are held."""
    if net in others:
        return others[net]
    for parent in list(net.modules()):
        if parent not in others:
            for name, child in parent._modules.items():
                if child in others:
                    parent._modules[name] = others[child]
    return net
