"""The interface of all style families: sites, a style, and the plain network that it is frozen to.

A feed-forward style method needs global statistics at a few layers, its *sites*. Once these statistics are
known, each site is a constant affine map, and the method is a local convolutional network that two integers
describe: ``halo`` (how far an output cell sees, in pixels) and ``stride`` (the lattice on which the network
is translation-equivariant).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from urst_tiles.errors import BadInput, BadPlan
from urst_tiles.geometry import Box
from urst_tiles.histogram import Bins, Histogram
from urst_tiles.moments import Moments
from urst_tiles.storage.publish import publish

Float = NDArray[np.float64]
Precision = Literal["float32", "bfloat16", "float16"]
State = dict[str, Tensor]

#: Pairs of a style and its weight in the mixture. A style is an image, float32 (h, w, 3) in 0..1, or the
#: tensors of a named style or checkpoint.
StyleImages = Sequence[tuple[NDArray[np.float32] | State, float]]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Site:
    """A layer where the network looks at the whole image, or where the style comes in.

    Attributes
    ----------
    name : unique within the family.
    channels : number of channels C of the features there.
    stride : pixels of the image per feature cell.
    eps : added to the variance, as in the original network.
    ddof : 0 for the biased variance (InstanceNorm2d), 1 for the unbiased variance (AdaIN, MicroAST), as in
        the original network.
    full : whether a covariance is needed instead of variances.
    measured : whether the site's map depends on the image; otherwise it depends on the style alone.
    halo : how far, in pixels beyond a stride cell of the network, the features there look; None for as far as
        the whole network.
    bins : where a `Histogram` is measured instead of `Moments`, its values.
    view : what is measured of the features, as a function (C, cells) -> (K, cells); None for the features.
    viewed : number of channels K of that; None for C.
    plain_bytes : measured peak bytes per pixel of ``forward`` in float32 up to this site; None for those of
        the whole pass.
    """

    name: str
    channels: int
    stride: int
    eps: float
    ddof: int
    full: bool = False
    measured: bool = True
    halo: int | None = None
    bins: Bins | None = None
    view: Callable[[Tensor], Tensor] | None = None
    viewed: int | None = None
    plain_bytes: float | None = None

    @property
    def measures(self) -> int:
        """The number of channels of the statistics."""
        return self.channels if self.viewed is None else self.viewed


@dataclass(frozen=True, eq=False)
class Affine:
    """The map y = scale x + shift over channels: ``scale`` is float64 (C,) or (C, C), ``shift`` is float64
    (C,)."""

    scale: Float
    shift: Float

    @classmethod
    def identity(cls, channels: int) -> Affine:
        """The map that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))

    def __call__(self, x: Tensor) -> Tensor:
        """The map applied to ``x`` (n, C, h, w), computed in the type of ``x``."""
        scale = torch.as_tensor(self.scale, dtype=x.dtype, device=x.device)
        shift = torch.as_tensor(self.shift, dtype=x.dtype, device=x.device)[:, None, None]
        y = torch.einsum("dc,nchw->ndhw", scale, x) if scale.ndim == 2 else x * scale[:, None, None]
        return y + shift if self.shift.any() else y

    def blend(self, alpha: float) -> Affine:
        """The mixture of this map, weight alpha, and the identity, weight 1 - alpha."""
        scale = alpha * self.scale
        identity = np.eye(len(self.shift)) if scale.ndim == 2 else np.ones(len(self.shift))
        return Affine(scale + (1.0 - alpha) * identity, alpha * self.shift)


@dataclass(frozen=True, eq=False)
class Curves:
    """A map of each channel by itself, given by a table: ``table`` is float32 (C, N), the new value of each
    of N values at equal distances from 0 to 1.

    Where a site's statistics are a histogram, it may stand in the place of an `Affine`.
    """

    table: NDArray[np.float32]

    @classmethod
    def identity(cls, channels: int, count: int) -> Curves:
        """The map that changes nothing."""
        return cls(np.tile(np.linspace(0.0, 1.0, count, dtype=np.float32), (channels, 1)))

    def __call__(self, x: Tensor) -> Tensor:
        """The map applied to ``x`` (n, C, h, w); each value becomes that of the nearest in the table."""
        top = self.table.shape[1] - 1
        table = torch.from_numpy(self.table).to(x)
        at = (x * top).round_().clamp_(0, top).to(torch.int32)
        return torch.stack([table[c][at[:, c]] for c in range(len(table))], 1)

    def blend(self, alpha: float) -> Curves:
        """The mixture of this map, weight alpha, and the identity, weight 1 - alpha."""
        same = np.linspace(0.0, 1.0, self.table.shape[1])
        return Curves((alpha * self.table + (1.0 - alpha) * same).astype(np.float32))


#: A function of (a site, its input (n, C, h, w)) that gives the site's output, of the same shape.
At = Callable[[Site, Tensor], Tensor]

#: A pass that stops at each site: it yields the site with its input, is sent the site's output, and returns
#: what ``Style.forward`` does.
Steps = Generator[tuple[Site, Tensor], Tensor, Tensor]

#: Statistics that stand for those of a site that is not measured.
NOTHING = Moments.empty(0)


@runtime_checkable
class Style(Protocol):
    """A family's weights with a style; the statistics of the image are not yet known."""

    name: str
    sites: tuple[Site, ...]
    halo: int
    stride: int
    minimum: int
    #: Measured peak bytes per pixel of ``forward`` in float32, without weights.
    plain_bytes: float

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights, the style's features and alpha."""

    def forward(self, x: Tensor, at: At) -> Tensor:
        """Run the un-tiled network: (n, 3, h, w) float32 in 0..1 -> same shape, not clamped.

        A network that paints levels also takes the channels of `urst_tiles.source.levels` behind these three.
        ``at`` is called at each site in order, and the network continues with its result.
        """

    def affine(self, site: Site, moments: Moments) -> Affine:
        """The constant map that ``site`` becomes for these statistics, which are ignored where it is not
        measured."""

    def state(self) -> tuple[State, dict[str, Any]]:
        """Tensors and JSON-able settings from which the family's ``restore`` rebuilds this style."""


@runtime_checkable
class SteppedStyle(Style, Protocol):
    """A style whose pass can stop at each site, so that several passes run side by side."""

    #: As ``plain_bytes``, where the passes of a few windows each go from site to site together.
    stepped_bytes: float

    def steps(self, x: Tensor) -> Steps:
        """``forward`` as a pass that stops at each site."""


def run_through(steps: Steps, at: At) -> Tensor:
    """Run a pass to its end, with the function ``at`` at each site."""
    site, x = next(steps)
    while True:
        try:
            site, x = steps.send(at(site, x))
        except StopIteration as end:
            return end.value


class LocalNet(nn.Module):
    """A plain local convolutional network: (n, 3, h, w) float32 in 0..1 -> same shape, not clamped.

    ``h`` and ``w`` must be multiples of ``stride`` and at least ``minimum``.
    """

    family: str
    halo: int
    stride: int
    minimum: int
    #: Whether the output equals the input, so that a caller may skip the conversion of types.
    passthrough: bool = False
    #: Whether a window may be cut in two without changing its result.
    splittable: bool = True
    #: Whether an output pixel depends on the input pixel at its place alone, whatever is around it.
    pointwise: bool = False
    #: Whether, besides, each channel of it depends on the same channel alone.
    channelwise: bool = False
    #: How many bands the input has, and the output.
    reads: int = 3
    bands: int = 3
    #: Whether pixels are floats in a unit of their own, in and out, and no fractions of a range.
    as_is: bool = False
    #: Whether ``forward`` takes a third argument, the parts of the windows that are needed, to save work.
    selective: bool = False

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """Run on windows ``x``. ``boxes`` are their absolute positions in the image, which matter where the
        network varies over the image."""
        raise NotImplementedError

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured peak bytes of device memory per pixel of the windows, without weights, with input and
        output."""
        raise NotImplementedError

    def to_precision(self, precision: Precision) -> LocalNet:
        """The same network, computing in ``precision`` in those layers where this does not visibly change the
        output.

        Input and output stay float32.
        """
        raise NotImplementedError

    def saved(self) -> tuple[State, dict[str, Any]]:
        """Tensors and JSON-able values from which ``load_frozen`` restores this network."""
        raise NotImplementedError

    def save(self, path: Path, more: State | None = None, **facts: Any) -> None:
        """Write a safetensors file from which alone ``load_frozen`` restores this network.

        ``more`` are tensors and ``facts`` JSON-able values about the network that are saved with it.
        """
        tensors, values = self.saved()
        tensors, values = {**tensors, **(more or {})}, {**values, **facts}
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        tensors.setdefault("format", torch.ones((), dtype=torch.int64))
        publish(path, save(tensors, metadata={"urst_tiles": json.dumps(values, sort_keys=True)}))


class Stylised(LocalNet):
    """What all networks of a single style share: halo, stride and minimum, and the way they are saved.

    Parameters
    ----------
    style : the style.
    affines : the constant map of each site by name; None where every window uses its own statistics.
    precision : type for the layers that may compute in 16 bit.
    """

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
        """Register a convolution as the buffers ``name_weight``, channels_last, and ``name_bias``."""
        values = torch.from_numpy(np.ascontiguousarray(weight)).to(dtype)
        self.register_buffer(f"{name}_weight", values.contiguous(memory_format=torch.channels_last))
        self.register_buffer(f"{name}_bias", torch.from_numpy(bias).to(bias_dtype or dtype))

    def to_precision(self, precision: Precision) -> LocalNet:
        return type(self)(self.style, self.affines, precision)

    def saved(self) -> tuple[State, dict[str, Any]]:
        """The style's state and, if they are constant, the maps of its sites."""
        tensors, values = saved_style(self.style)
        for name, affine in (self.affines or {}).items():
            parts = {f.name: getattr(affine, f.name) for f in fields(affine)}
            tensors |= {f"site.{name}.{part}": torch.from_numpy(np.array(v)) for part, v in parts.items()}
        return tensors, values | {"own_statistics": self.affines is None}


class Frozen(Stylised):
    """A style's own forward with constant affine maps, always float32: the reference for the faster forms."""

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        assert self.affines is not None
        affines = self.affines
        return self.style.forward(x, lambda site, t: affines[site.name](t))

    def bytes_per_pixel(self, precision: Precision) -> float:
        return self.style.plain_bytes


def frozen_affines(style: Style, moments: Mapping[str, Moments]) -> dict[str, Affine]:
    """The constant map of every site, by the site's name.

    Raises
    ------
    BadPlan : statistics are missing at a site, or have another number of channels.
    """
    affines = {}
    for site in style.sites:
        if not site.measured:
            affines[site.name] = style.affine(site, NOTHING)
            continue
        if site.name not in moments:
            raise BadPlan(f"{style.name} needs statistics at {site.name}, got {sorted(moments) or 'none'}")
        if moments[site.name].channels != site.measures:
            got = moments[site.name].channels
            raise BadPlan(
                f"{style.name} has {site.measures} channels at {site.name}, got statistics of {got}"
            )
        affines[site.name] = style.affine(site, moments[site.name])
    return affines


def neutral_moments(style: Style) -> dict[str, Any]:
    """Statistics that make the map of every site harmless, by the site's name."""
    return {site.name: neutral(site) for site in style.sites}


def neutral(site: Site) -> Any:
    """Statistics of mean 0 and variance 1, or a histogram that counts nothing."""
    if site.bins:
        return Histogram.empty(site.measures, site.bins)
    unit = np.eye(site.measures) if site.full else np.ones(site.measures)
    return Moments(2.0, np.zeros(site.measures), unit)


def statistics_of(site: Site, cells: Tensor, weights: Float | None = None) -> Any:
    """What is measured at a site: `Moments`, or a `Histogram`.

    Parameters
    ----------
    cells : the features there, (C, cells), on any device.
    weights : float64, (cells,), the weight of each cell; None where all are 1.
    """
    seen = (cells if site.view is None else site.view(cells)).cpu().numpy()
    if site.bins:
        return Histogram.of(seen, site.bins, weights)
    return Moments.of(seen, weights, full=site.full)


def check_affines(style: Style, affines: Mapping[str, Affine]) -> None:
    """Raise BadPlan unless there is exactly one map per site."""
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
    """The styles with their weights scaled to a sum of 1.

    Raises
    ------
    BadInput : a weight is negative, or they do not sum to more than 0.
    """
    total = float(sum(weight for _, weight in styles))
    if not styles or not total > 0 or any(weight < 0 for _, weight in styles):
        raise BadInput(
            f"style weights must not be negative and sum to more than 0, got {[w for _, w in styles]}"
        )
    return [(style, weight / total) for style, weight in styles]


def style_tensor(image: NDArray[np.float32] | State, minimum: int) -> Tensor:
    """A style image (h, w, 3) as float32 (1, 3, h, w).

    Raises
    ------
    BadInput : the image has another shape, is smaller than ``minimum`` on a side, or is no image but tensors.
    """
    if isinstance(image, Mapping):
        raise BadInput("this model has no named styles; give a style image")
    if image.ndim != 3 or image.shape[2] != 3:
        raise BadInput(f"a style image must be (height, width, 3), got {image.shape}")
    if min(image.shape[:2]) < minimum:
        got = f"{image.shape[1]} x {image.shape[0]}"
        raise BadInput(f"a style image must be at least {minimum} px on each side, got {got}")
    return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None].contiguous()


def mixture(styles: StyleImages, minimum: int) -> list[tuple[Tensor, float]]:
    """Style images as float32 (1, 3, h, w), with weights that sum to 1.

    Raises
    ------
    BadInput : as `shares` and `style_tensor`.
    """
    return [(style_tensor(image, minimum), share) for image, share in shares(styles)]


def one_checkpoint(model: str, states: Mapping[str, State], styles: StyleImages) -> State:
    """The checkpoint that is the style of ``model``: under "" in ``states``, otherwise the only style.

    Raises
    ------
    BadInput : several styles are given, or an image.
    """
    checkpoint = states[""] if "" in states else styles[0][0]
    if "" not in states and len(styles) != 1 or not isinstance(checkpoint, Mapping):
        raise BadInput(
            f"--model {model} has its style in its weights: give --style one checkpoint (.pth, .model)"
        )
    return checkpoint


def checked_alpha(alpha: float) -> float:
    """``alpha`` as a float; BadInput unless it lies in 0..1."""
    if not 0.0 <= alpha <= 1.0:
        raise BadInput(f"--alpha must lie in 0..1, got {alpha}")
    return float(alpha)


def digest(state: State, settings: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the names, shapes, types and bytes of the tensors, and of the settings."""
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        sha.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        sha.update(values.numpy().tobytes())
    return sha.hexdigest()


def saved_style(style: Style) -> tuple[State, dict[str, Any]]:
    """The style's tensors, and its family and settings as JSON-able values."""
    tensors, settings = style.state()
    return dict(tensors), {"family": style.name, "settings": settings}
