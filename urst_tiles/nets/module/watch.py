"""What goes on in a user's module while it runs: who is at work, sizes, how far NaN spreads, bytes alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from urst_tiles.nets.module.sites import SiteLayer

#: Layers that see as far as their kernel; any other that spreads NaN over the whole picture is global.
KERNELS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
)


class Watch:
    """While entered, follows every module of a network.

    Attributes
    ----------
    sizes : (height, width) of every (n, c, h, w) that a module gave, in order.
    inside : the modules at work, the innermost last; after an error, where it happened.
    culprit : the module in which NaN came from less than half of the features' height and width to all of one
        of them at once, and is no ``KERNELS``.
    """

    def __init__(self, net: nn.Module, *, nan: bool = False):
        self.net, self.nan = net, nan
        self.sizes: list[tuple[int, int]] = []
        self.inside: list[nn.Module] = []
        self.culprit = ""
        self._names = {module: name for name, module in net.named_modules()}
        self._most, self._jumped = 0.0, False
        self._last: nn.Module | None = None

    def __enter__(self) -> Self:
        self._hooks = []
        for module in self._names:
            self._hooks.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._leave))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def label(self, module: nn.Module) -> str:
        """What a sentence calls a module: its class and its dotted name."""
        if isinstance(module, SiteLayer):
            return module.label
        name = self._names.get(module)
        return f"{type(module).__name__} {name!r}" if name else f"the forward of {type(module).__name__}"

    def _enter(self, module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if self.inside:
            self._meet(self.inside[-1], tree_leaves((given, dict(named))))
        self.inside.append(module)

    def _leave(self, module: nn.Module, given: Any, out: Any) -> None:
        self.inside.pop()
        tensors = tree_leaves(out)
        self.sizes += [(t.shape[2], t.shape[3]) for t in tensors if isinstance(t, Tensor) and t.ndim == 4]
        self._meet(module, tensors)
        self._last = module

    def _meet(self, module: nn.Module, values: Iterable[Any]) -> None:
        """What the code of ``module`` gave: the first time that NaN is everywhere, was it by a leap?"""
        if not self.nan or self._jumped:
            return
        most = max((spread(t) for t in values if isinstance(t, Tensor)), default=0.0)
        if most == 1.0:
            self._jumped = True
            if self._most < 0.5 and not isinstance(module, KERNELS):
                self.culprit = self.label(module)
                if self._last is not None and self._last in set(module.modules()):
                    self.culprit += f" (behind {self.label(self._last)})"
        self._most = max(self._most, most)


def spread(values: Tensor) -> float:
    """The part of the rows, or of the columns if more, of (n, c, h, w) that NaN is in; of all values
    where they have another shape."""
    if not values.is_floating_point() or not values.numel():
        return 0.0
    touched = values.isnan()
    if values.ndim != 4:
        return float(touched.double().mean())
    cells = touched.any(dim=1).any(dim=0)
    return max(float(cells.any(dim=axis).double().mean()) for axis in (0, 1))


class Alive(TorchDispatchMode):
    """While entered, counts the bytes of all tensors that operations make, until they are dropped.

    Attributes
    ----------
    peak : most bytes alive at once; what a library allocates inside an operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._held: dict[int, list[int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.numel():
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        """Views share memory: it counts once, until the last of them is gone."""
        storage = tensor.untyped_storage()
        at = storage.data_ptr()
        held = self._held.setdefault(at, [0, storage.nbytes()])
        if not held[0]:
            self._now += held[1]
            self.peak = max(self.peak, self._now)
        held[0] += 1
        weakref.finalize(tensor, self._drop, at)

    def _drop(self, at: int) -> None:
        held = self._held[at]
        held[0] -= 1
        if not held[0]:
            self._now -= self._held.pop(at)[1]


def trial(side: int) -> Tensor:
    """(1, 3, side, side) float32 in 0..1 with detail of all sizes, never the same twice."""
    random = torch.Generator().manual_seed(side)
    layers = []
    for n in (1, 4, 16, 64):
        small = torch.rand((1, 3, -(-side // n), -(-side // n)), generator=random)
        layers.append(small.repeat_interleave(n, 2).repeat_interleave(n, 3)[:, :, :side, :side])
    return torch.stack(layers).mean(0)
