"""The layers of a user's module that need statistics of the whole image: they are replaced by site layers.

A site layer hands its features to a function that the caller has set with `answering`, and returns the
result.
"""

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

#: A function of (a norm with its weights, the statistics of its input) that gives the norm's constant map.
Map = Callable[[Any, Moments], Affine]
Sites = Mapping[type[nn.Module], Map]


def norm(layer: nn.InstanceNorm2d | nn.BatchNorm2d, moments: Moments) -> Affine:
    """The map gamma (x - mean) / sqrt(variance + eps) + beta, with the biased variance (Ulyanov et al.
    2016)."""
    return _scaled(layer, 1.0 / moments.std(layer.eps, 0), moments.mean)


def group_norm(layer: nn.GroupNorm, moments: Moments) -> Affine:
    """The map of `norm`, with one mean and variance per group of channels; all groups are of one size (Wu and
    He 2018)."""
    mean, square = (
        values.reshape(layer.num_groups, -1).mean(1)
        for values in (moments.mean, moments.variance() + moments.mean**2)
    )
    std = np.sqrt(square - mean**2 + layer.eps)
    each = layer.num_channels // layer.num_groups
    return _scaled(layer, np.repeat(1.0 / std, each), np.repeat(mean, each))


def _scaled(layer: Any, scale: Any, mean: Any) -> Affine:
    """The map gamma (x - mean) scale + beta; gamma is 1 and beta 0 where the layer has no weights."""
    if layer.weight is None:
        return Affine(scale, -scale * mean)
    gamma, beta = (values.detach().double().cpu().numpy() for values in (layer.weight, layer.bias))
    return Affine(gamma * scale, beta - gamma * scale * mean)


#: PyTorch's layers that measure their input. A layer with running statistics is a constant map already.
NORMS: Sites = {nn.InstanceNorm2d: norm, nn.BatchNorm2d: norm, nn.GroupNorm: group_norm}


def map_of(layer: nn.Module, sites: Sites) -> Map | None:
    """The function that gives the constant map of ``layer``; None where the layer is no site."""
    for kind, function in sites.items():
        if isinstance(layer, kind):
            return function
    measures = getattr(layer, "running_mean", None) is None
    for kind, function in NORMS.items():
        if isinstance(layer, kind) and type(layer).forward is kind.forward and measures:
            return function
    return None


class SiteLayer(nn.Module):
    """Takes the place of a norm, and hands its features to the function that was set with `answering`.

    Parameters
    ----------
    layer : the norm.
    name : its dotted name in the user's module.
    function : gives the norm's constant map from its statistics.
    """

    def __init__(self, layer: nn.Module, name: str, function: Map):
        super().__init__()
        self.layer, self.name, self.function = layer, name, function

    def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """What the function set with `answering` returns for features ``x`` (n, C, h, w).

        Raises
        ------
        BadInput : the layer is called with anything else.
        """
        if more or named or x.ndim != 4:
            raise BadInput(f"{self.label} must be given features (n, c, h, w) and nothing else to be a site")
        return _RUN.get()(self, x)

    @property
    def label(self) -> str:
        """The layer's class and dotted name, for messages."""
        return f"{type(self.layer).__name__} {self.name!r}"

    def affine(self, moments: Moments) -> Affine:
        """The constant map for these statistics.

        Raises
        ------
        BadInput : a user's function does not give an ``Affine``.
        """
        made = self.function(self.layer, moments)
        if not isinstance(made, Affine):
            raise BadInput(
                f"the function for site {self.name} must give an Affine, got {type(made).__name__}"
            )
        return made


#: The function that site layers call, per thread and run, since two windows may run at once.
_RUN: ContextVar[Callable[[SiteLayer, Tensor], Tensor]] = ContextVar("run")


@contextmanager
def answering(run: Callable[[SiteLayer, Tensor], Tensor]) -> Iterator[None]:
    """Let every site layer call ``run`` in the forwards of this thread, within the ``with`` block."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


class Constant(nn.Module):
    """The constant map of a site: y = scale x + shift over channels."""

    scale: Tensor
    shift: Tensor

    def __init__(self, affine: Affine):
        super().__init__()
        scale = torch.from_numpy(np.ascontiguousarray(affine.scale)).float()
        self.register_buffer("scale", scale if scale.ndim == 2 else scale[:, None, None])
        self.register_buffer("shift", torch.from_numpy(np.array(affine.shift)).float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.scale.ndim == 2:
            return torch.einsum("dc,nchw->ndhw", self.scale, x) + self.shift
        return torch.addcmul(self.shift, x, self.scale)


def shallow(net: nn.Module) -> nn.Module:
    """A copy of ``net`` that shares its memory, until one of the two is moved to another device."""
    shared: dict[int, Any] = {id(t): nn.Parameter(t.data, requires_grad=False) for t in net.parameters()}
    return copy.deepcopy(net, shared | {id(t): t for t in net.buffers()})


def with_site_layers(net: nn.Module, sites: Sites) -> nn.Module:
    """A copy of ``net`` in which every site is replaced by a site layer."""
    copied = shallow(net)
    site_layers: dict[nn.Module, SiteLayer] = {}
    for name, layer in copied.named_modules():
        function = map_of(layer, sites)
        inside = any(name.startswith(f"{site_layer.name}.") for site_layer in site_layers.values())
        if function is not None and not inside:
            site_layers[layer] = SiteLayer(layer, name or type(layer).__name__, function)
    return swapped(copied, site_layers)


def with_maps(net: nn.Module, affines: Mapping[str, Affine]) -> nn.Module:
    """A copy of a network in which site layers are replaced by constant maps; a layer without a map, which no
    forward reaches, stays."""
    frozen = shallow(net)
    layers = [layer for layer in frozen.modules() if isinstance(layer, SiteLayer)]
    return swapped(frozen, {at: Constant(affines[at.name]) for at in layers if at.name in affines})


def swapped(net: nn.Module, others: Mapping[Any, nn.Module]) -> nn.Module:
    """``net`` with some of its modules replaced, wherever they occur in it; ``others`` maps a module to its
    replacement."""
    if net in others:
        return others[net]
    for parent in list(net.modules()):
        if parent not in others:
            for name, child in parent._modules.items():
                if child in others:
                    parent._modules[name] = others[child]
    return net
