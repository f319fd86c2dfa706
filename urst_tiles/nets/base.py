"""What every style family looks like from outside: sites, a style, and the plain network it freezes to.

A feed-forward style method needs global statistics at a few places, its *sites*. Once they are known each
site is a constant affine map, and the method is a local CNN described by two integers: ``halo`` (how far an
output cell sees) and ``stride`` (the lattice on which it is translation-equivariant).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from urst_tiles.errors import BadInput, BadPlan
from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.storage.publish import publishing

Float = NDArray[np.float64]
Precision = Literal["float32", "bfloat16", "float16"]
State = dict[str, Tensor]

#: (image (h, w, 3) float32 in 0..1, or a named style's statistics; weight), several of them to mix.
StyleImages = Sequence[tuple[NDArray[np.float32] | State, float]]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Site:
    """A place where the network looks at the whole image, or where the style comes in.

    Attributes
    ----------
    name : unique in its family.
    channels : C of the features there.
    stride : pixels of the image per feature cell.
    eps, ddof : as the original network has them (InstanceNorm2d is biased, ddof 0; AdaIN and MicroAST
        unbiased, ddof 1).
    full : whether a covariance is needed instead of variances.
    measured : whether its map depends on the image; else on the style alone.
    halo : how far, in pixels, beyond a stride cell of the network its features look; None: as far as the
        whole network.
    """

    name: str
    channels: int
    stride: int
    eps: float
    ddof: int
    full: bool = False
    measured: bool = True
    halo: int | None = None


@dataclass(frozen=True, eq=False)
class Affine:
    """y = scale x + shift over channels: ``scale`` float64 (C,) or (C, C), ``shift`` float64 (C,)."""

    scale: Float
    shift: Float

    @classmethod
    def identity(cls, channels: int) -> Affine:
        """The map that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))

    def __call__(self, x: Tensor) -> Tensor:
        """Applied to (n, C, h, w), in the type of ``x``."""
        scale = torch.as_tensor(self.scale, dtype=x.dtype, device=x.device)
        shift = torch.as_tensor(self.shift, dtype=x.dtype, device=x.device)[:, None, None]
        y = torch.einsum("dc,nchw->ndhw", scale, x) if scale.ndim == 2 else x * scale[:, None, None]
        return y + shift if self.shift.any() else y

    def blend(self, alpha: float) -> Affine:
        """alpha times this map plus 1 - alpha times the identity."""
        scale = alpha * self.scale
        one = np.eye(len(self.shift)) if scale.ndim == 2 else np.ones(len(self.shift))
        return Affine(scale + (1.0 - alpha) * one, alpha * self.shift)


At = Callable[[Site, Tensor], Tensor]

#: What a site that is not measured is given.
NOTHING = Moments.empty(0)


@runtime_checkable
class Style(Protocol):
    """A family with its weights and a style in it, whose statistics of the image are still open."""

    name: str
    sites: tuple[Site, ...]
    halo: int
    stride: int
    minimum: int
    #: Peak bytes per pixel of ``forward`` in float32, beyond weights (measured).
    plain_bytes: float

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights, the style's features and alpha."""

    def forward(self, x: Tensor, at: At) -> Tensor:
        """(n, 3, h, w) float32 in 0..1 -> same, unclamped.

        ``at`` is called at each site in order; what it returns goes on.
        """

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The constant map that ``site`` becomes for these statistics (any, where it is not measured)."""

    def state(self) -> tuple[State, dict[str, Any]]:
        """Tensors and JSON-able settings from which the family's ``restore`` rebuilds this style."""


class LocalNet(nn.Module):
    """A plain local CNN: (n, 3, h, w) float32 in 0..1 -> same, unclamped.

    ``h`` and ``w`` are multiples of ``stride`` and at least ``minimum``.
    """

    family: str
    halo: int
    stride: int
    minimum: int
    #: Output equals input, so that whoever converts types may skip both conversions.
    passthrough: bool = False
    #: Whether a window may be cut in two without changing its result.
    splittable: bool = True
    #: Whether ``forward`` takes a third argument, the parts of the windows that are needed, to do less.
    selective: bool = False

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """Run on windows ``x``; ``boxes`` are their absolute places, for what varies over the image."""
        raise NotImplementedError

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Peak device bytes per window pixel beyond weights, input and output included (measured)."""
        raise NotImplementedError

    def to_precision(self, precision: Precision) -> LocalNet:
        """The same network computing in ``precision`` where that keeps the picture.

        Input and output stay float32.
        """
        raise NotImplementedError

    def saved(self) -> tuple[State, dict[str, Any]]:
        """Tensors and JSON-able values from which ``load_frozen`` restores this net."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Write one safetensors file that ``load_frozen`` needs nothing else to restore."""
        tensors, values = self.saved()
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        tensors.setdefault("format", torch.ones((), dtype=torch.int64))
        with publishing(path) as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            save_file(tensors, str(file.name), metadata={"urst_tiles": json.dumps(values, sort_keys=True)})
            # safetensors has put a file of its own there, which its owner alone may read.
            os.chmod(file.name, mode)
            with open(file.name, "rb") as written:
                os.fsync(written.fileno())


class Stylised(LocalNet):
    """What the nets of one style share: its footprint, and how they are saved."""

    def __init__(self, style: Style, affines: Mapping[str, Affine] | None, precision: Precision = "float32"):
        super().__init__()
        if affines is not None:
            check_affines(style, affines)
        self.style, self.affines = style, affines
        self.family, self.halo, self.stride, self.minimum = (
            style.name,
            style.halo,
            style.stride,
            style.minimum,
        )
        self.low = checked_precision(precision)

    def put(
        self, name: str, weight: Float, bias: Float, dtype: torch.dtype, bias_dtype: torch.dtype | None = None
    ) -> None:
        """Keep one convolution as the buffers ``name_weight`` and ``name_bias``, channels_last."""
        values = torch.from_numpy(np.ascontiguousarray(weight)).to(dtype)
        self.register_buffer(f"{name}_weight", values.contiguous(memory_format=torch.channels_last))
        self.register_buffer(f"{name}_bias", torch.from_numpy(bias).to(bias_dtype or dtype))

    def to_precision(self, precision: Precision) -> LocalNet:
        """The same network computing in ``precision`` where that keeps the picture."""
        return type(self)(self.style, self.affines, precision)

    def saved(self) -> tuple[State, dict[str, Any]]:
        """The style's state and each site's map, if they are constant."""
        tensors, values = saved_style(self.style)
        for name, affine in (self.affines or {}).items():
            tensors[f"site.{name}.scale"] = torch.from_numpy(np.array(affine.scale, np.float64))
            tensors[f"site.{name}.shift"] = torch.from_numpy(np.array(affine.shift, np.float64))
        return tensors, values | {"own_statistics": self.affines is None}


class Frozen(Stylised):
    """A style's own forward with constant affine maps: the reference for faster forms, always float32."""

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """The plain network."""
        assert self.affines is not None
        affines = self.affines
        return self.style.forward(x, lambda site, t: affines[site.name](t))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """As measured on the plain form."""
        return self.style.plain_bytes


def frozen_affines(style: Style, moments: Mapping[str, Moments]) -> dict[str, Affine]:
    """The constant map of every site; BadPlan where statistics are missing or of another shape."""
    affines = {}
    for site in style.sites:
        if not site.measured:
            affines[site.name] = style.affine(site, NOTHING)
            continue
        if site.name not in moments:
            raise BadPlan(f"{style.name} needs statistics at {site.name}, got {sorted(moments) or 'none'}")
        if moments[site.name].channels != site.channels:
            got = moments[site.name].channels
            raise BadPlan(
                f"{style.name} has {site.channels} channels at {site.name}, got statistics of {got}"
            )
        affines[site.name] = style.affine(site, moments[site.name])
    return affines


def neutral_moments(style: Style) -> dict[str, Moments]:
    """Moments that make every measured site a harmless map."""
    return {site.name: neutral(site) for site in style.sites}


def neutral(site: Site) -> Moments:
    """Mean 0 and variance 1."""
    one = np.eye(site.channels) if site.full else np.ones(site.channels)
    return Moments(2.0, np.zeros(site.channels), one)


def check_affines(style: Style, affines: Mapping[str, Affine]) -> None:
    """BadPlan unless there is exactly one map per site."""
    if set(affines) != {site.name for site in style.sites}:
        raise BadPlan(
            f"{style.name} has sites {[s.name for s in style.sites]}, got maps for {sorted(affines)}"
        )


def checked_precision(precision: str) -> torch.dtype:
    """The torch type of a ``Precision``; BadPlan for any other word."""
    if precision not in DTYPES:
        raise BadPlan(f"--precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    return DTYPES[precision]


def shares(styles: StyleImages) -> list[tuple[NDArray[np.float32] | State, float]]:
    """The styles with weights that sum to 1; BadInput for weights that cannot."""
    total = float(sum(weight for _, weight in styles))
    if not styles or not total > 0 or any(weight < 0 for _, weight in styles):
        raise BadInput(
            f"style weights must not be negative and sum to more than 0, got {[w for _, w in styles]}"
        )
    return [(style, weight / total) for style, weight in styles]


def style_tensor(image: NDArray[np.float32] | State, minimum: int) -> Tensor:
    """A style image as (1, 3, h, w) float32; BadInput for what is none."""
    if isinstance(image, Mapping):
        raise BadInput("this model has no named styles; give a style image")
    if image.ndim != 3 or image.shape[2] != 3:
        raise BadInput(f"a style image must be (height, width, 3), got {image.shape}")
    if min(image.shape[:2]) < minimum:
        got = f"{image.shape[1]} x {image.shape[0]}"
        raise BadInput(f"a style image must be at least {minimum} px on each side, got {got}")
    return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None].contiguous()


def mixture(styles: StyleImages, minimum: int) -> list[tuple[Tensor, float]]:
    """Style images as (1, 3, h, w) float32, weights that sum to 1; BadInput for what is no style."""
    return [(style_tensor(image, minimum), share) for image, share in shares(styles)]


def one_checkpoint(model: str, states: Mapping[str, State], styles: StyleImages) -> State:
    """The checkpoint that is the style of ``model``: under "" in ``states``, else the one style; BadInput for
    anything else."""
    given = states[""] if "" in states else styles[0][0]
    if "" not in states and len(styles) != 1 or not isinstance(given, Mapping):
        raise BadInput(
            f"--model {model} has its style in its weights: give --style one checkpoint (.pth, .model)"
        )
    return given


def checked_alpha(alpha: float) -> float:
    """``alpha`` as float; BadInput outside 0..1."""
    if not 0.0 <= alpha <= 1.0:
        raise BadInput(f"--alpha must lie in 0..1, got {alpha}")
    return float(alpha)


def digest(state: State, settings: Mapping[str, Any]) -> str:
    """Hex sha256 over names, shapes and bytes of the tensors, and the settings."""
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        sha.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        sha.update(values.numpy().tobytes())
    return sha.hexdigest()


def saved_style(style: Style) -> tuple[State, dict[str, Any]]:
    """The style's state, and its family and settings."""
    tensors, settings = style.state()
    return dict(tensors), {"family": style.name, "settings": settings}
