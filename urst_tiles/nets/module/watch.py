"""Observing a user's module while it runs: the active modules, feature sizes, the spread of NaN, memory in
use."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from urst_tiles.nets.module.sites import SiteLayer

#: Layers that see as far as their kernel. Any other layer that spreads NaN over the whole image is global.
KERNELS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
)


class Watch:
    """A context manager that follows every module of a network while it runs.

    Attributes
    ----------
    sizes : (height, width) of every (n, c, h, w) that a module returned, in order.
    inside : the modules that are running, the innermost last; after an error, those in which it happened.
    culprit : label of the module that spread NaN at once from less than half of the features' height and
        width to all of them, and is none of ``KERNELS``; empty if there was no such module.
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
        """The class and dotted name of a module, for messages."""
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
        """Look for NaN in tensors that the code of ``module`` made; the first time that NaN is everywhere,
        name the module if NaN covered less than half before."""
        if not self.nan or self._jumped:
            return
        widest = max((spread(t) for t in values if isinstance(t, Tensor)), default=0.0)
        if widest == 1.0:
            self._jumped = True
            if self._most < 0.5 and not isinstance(module, KERNELS):
                self.culprit = self.label(module)
                if self._last is not None and self._last in set(module.modules()):
                    self.culprit += f" (behind {self.label(self._last)})"
        self._most = max(self._most, widest)


def spread(values: Tensor) -> float:
    """The fraction of the rows, or of the columns if that is larger, of (n, c, h, w) that contain NaN; for
    tensors of another number of dimensions the fraction of all values."""
    if not values.is_floating_point() or not values.numel():
        return 0.0
    touched = values.isnan()
    if values.ndim != 4:
        return float(touched.double().mean())
    cells = touched.any(dim=1).any(dim=0)
    return max(float(cells.any(dim=axis).double().mean()) for axis in (0, 1))


class Alive(TorchDispatchMode):
    """A context manager that counts the bytes of all tensors that operations make, until the tensors are
    freed.

    Attributes
    ----------
    peak : the most bytes in use at once. Memory that a library allocates inside an operation is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._held: dict[int, list[int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.numel():
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        """Count the memory of a tensor. Views share memory, which counts once, until the last view is
        freed."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        holders = self._held.setdefault(address, [0, storage.nbytes()])
        if not holders[0]:
            self._now += holders[1]
            self.peak = max(self.peak, self._now)
        holders[0] += 1
        weakref.finalize(tensor, self._drop, address)

    def _drop(self, address: int) -> None:
        holders = self._held[address]
        holders[0] -= 1
        if not holders[0]:
            self._now -= self._held.pop(address)[1]


def trial(side: int) -> Tensor:
    """A trial image, float32 (1, 3, side, side) in 0..1, with detail of all sizes; it depends on ``side``
    alone."""
    random = torch.Generator().manual_seed(side)
    layers = []
    for n in (1, 4, 16, 64):
        small = torch.rand((1, 3, -(-side // n), -(-side // n)), generator=random)
        layers.append(small.repeat_interleave(n, 2).repeat_interleave(n, 3)[:, :, :side, :side])
    return torch.stack(layers).mean(0)
