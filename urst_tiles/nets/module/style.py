"""A user's module as a style, and its frozen network: the same module with constant maps instead of norms.

The module runs in eval mode, so dropout is off. The noise of pix2pix, which is dropout at test time, is
therefore not made.
"""

from __future__ import annotations

import copy
import inspect
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    Precision,
    Site,
    State,
    Stylised,
    checked_alpha,
    digest,
)
from urst_tiles.nets.module.probe import Probe, ProbedFootprint
from urst_tiles.nets.module.sites import SiteLayer, Sites, answering, shallow, with_maps, with_site_layers

#: Prefix of the weights' names in a saved style.
PREFIX = "net."

#: (low, high) of the values that a module's pixels take.
Range = tuple[float, float]


class ModuleStyle:
    """A user's module, to be frozen once the statistics of the image are known.

    Parameters
    ----------
    net : the module, as `prepared` gives it; it is not changed.
    range : (low, high) of the pixels that the module takes and gives; the style's own pixels span 0..1.
    sites : AdaIN-like classes of the user, with the function that gives the map of each.
    name : "package.module:function" by which the module is found; any other word becomes part of a name that
        is valid in this process only.
    alpha : strength; the output is mixed with the input.
    footprint : as measured before; None to measure it now.

    Attributes
    ----------
    model : the name, for ``Options.model``.
    """

    def __init__(
        self,
        net: nn.Module,
        range: Range,
        sites: Sites,
        name: str | None = None,
        alpha: float = 1.0,
        footprint: ProbedFootprint | None = None,
    ):
        self.net, self.classes = net, sites
        self.range, self.alpha = checked_range(range), checked_alpha(alpha)
        self.label = type(net).__name__
        self.placed = with_site_layers(net, sites)
        self.footprint = footprint or Probe(self.placed, self._plain, self.label).footprint()
        self.sites = self.footprint.sites
        self.halo, self.stride = self.footprint.halo, self.footprint.stride
        self.minimum, self.plain_bytes = self.footprint.minimum, self.footprint.plain_bytes
        self._site_layers = {at.name: at for at in self.placed.modules() if isinstance(at, SiteLayer)}
        if not {site.name for site in self.sites} <= set(self._site_layers):
            raise BadWeights(f"{name or self.label} has no longer the sites {[s.name for s in self.sites]}")
        self._devices: dict[torch.device, nn.Module] = {}
        self._moving = threading.Lock()
        made_up = f"module:{name or self.label}-{self.fingerprint[:12]}"
        self.name = self.model = name if name and ":" in name else made_up

    @property
    def fingerprint(self) -> str:
        """Hex digest of weights, layers, the code of the user's own forwards, range and alpha."""
        state, settings = self.state()
        del settings["footprint"]  # it follows from the other values
        return digest(state, settings | {"layers": layers_of(self.net)})

    def forward(self, x: Tensor, at: At) -> Tensor:
        sites = {site.name: site for site in self.sites}

        def answer(site_layer: SiteLayer, features: Tensor) -> Tensor:
            return at(sites[site_layer.name], features)

        with answering(answer):
            return self.mixed(self._on(x.device), x)

    def mixed(self, net: nn.Module, x: Tensor) -> Tensor:
        """The output of ``net`` for ``x`` (n, 3, h, w), mixed with ``x`` by alpha."""
        y = self._through(net, x)
        return y if self.alpha == 1.0 else self.alpha * y + (1.0 - self.alpha) * x

    def _plain(self, x: Tensor) -> Tensor:
        return self._through(self.placed, x)

    def _through(self, net: nn.Module, x: Tensor) -> Tensor:
        """The output of ``net`` for ``x``, both in 0..1. The module's code may take views that only
        contiguous tensors have, so it is given a contiguous tensor."""
        low, high = self.range
        y = net((x * (high - low) + low).contiguous())
        if not isinstance(y, Tensor):
            raise BadInput(f"{self.label} must give one picture, got a {type(y).__name__}")
        return (y.float() - low) / (high - low)

    def _on(self, device: torch.device) -> nn.Module:
        """The module on ``device``, copied there at the first call."""
        if device.type == "cpu":
            return self.placed
        with self._moving:
            if device not in self._devices:
                self._devices[device] = copy.deepcopy(self.placed).to(device)
            return self._devices[device]

    def affine(self, site: Site, moments: Moments) -> Affine:
        return self._site_layers[site.name].affine(moments)

    def state(self) -> tuple[State, dict[str, Any]]:
        """The module's own tensors, and its measured footprint with range and alpha; the code is found by
        name."""
        tensors = {PREFIX + key: t for key, t in self.net.state_dict().items() if isinstance(t, Tensor)}
        settings = {"alpha": self.alpha, "range": list(self.range), "footprint": self.footprint.to_json()}
        return tensors, settings

    def with_state(self, state: State, settings: Mapping[str, Any]) -> ModuleStyle:
        """The same module with the tensors and settings that `state` gave.

        Raises
        ------
        BadWeights : the tensors belong to another module.
        """
        net = shallow(self.net)
        tensors = {key.removeprefix(PREFIX): t for key, t in state.items() if key.startswith(PREFIX)}
        try:
            net.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise BadWeights(f"{self.name} is another module now: {' '.join(str(error).split())}") from error
        low, high = settings["range"]
        footprint = ProbedFootprint.of(settings["footprint"])
        return ModuleStyle(net, (low, high), self.classes, self.name, settings["alpha"], footprint)

    def at(self, alpha: float, name: str | None = None) -> ModuleStyle:
        """The same module with strength ``alpha`` and, if given, another name."""
        return ModuleStyle(self.net, self.range, self.classes, name or self.name, alpha, self.footprint)


class FrozenModule(Stylised):
    """The user's module with constant maps instead of its norms; it always computes in float32."""

    style: ModuleStyle

    def __init__(self, style: ModuleStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.net = with_maps(style.placed, affines)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        return self.style.mixed(self.net, x)

    def bytes_per_pixel(self, precision: Precision) -> float:
        return self.style.plain_bytes


def checked_range(given: Range) -> Range:
    """``given`` as a pair of floats (low, high).

    Raises
    ------
    BadInput : it is not a pair of numbers with low < high.
    """
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError) as error:
        raise BadInput(f"range must be (low, high), such as (-1, 1), got {given!r}") from error
    if not low < high:
        raise BadInput(f"range must be (low, high), such as (-1, 1), got {given!r}")
    return low, high


def prepared(net: Any, copied: Callable[[nn.Module], nn.Module] = copy.deepcopy) -> nn.Module:
    """A copy of ``net`` in eval mode, float32, on the CPU; wrappers of torch.compile and DataParallel are
    removed.

    Raises
    ------
    BadInput : ``net`` is no module, is a scripted module, or cannot be copied.
    """
    while isinstance(net, nn.DataParallel) or hasattr(net, "_orig_mod"):  # torch.compile sets _orig_mod
        net = net.module if isinstance(net, nn.DataParallel) else net._orig_mod
    if not isinstance(net, nn.Module):
        raise BadInput(f"a torch.nn.Module is needed, got a {type(net).__name__}")
    if isinstance(net, torch.jit.ScriptModule):
        raise BadInput("the layers of a scripted module cannot be exchanged; give the module it was made of")
    try:
        return copied(net).cpu().float().eval().requires_grad_(False)
    except Exception as error:
        raise BadInput(f"{type(net).__name__} cannot be copied: {' '.join(str(error).split())}") from error


def layers_of(net: nn.Module) -> str:
    """The module tree as text, with the byte code of all forwards that are not PyTorch's: what determines the
    output besides the weights."""
    kinds = {type(module) for module in net.modules() if not type(module).__module__.startswith("torch.")}
    code = sorted(f"{kind.__qualname__} {_code(inspect.unwrap(kind.forward))}" for kind in kinds)
    return re.sub(r" at 0x[0-9a-f]+", "", f"{net} {code}")


def _code(function: Any) -> str:
    code = getattr(function, "__code__", function)
    if not hasattr(code, "co_code"):
        return ""
    consts = [_code(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {consts}"
