"""The families of networks, by the names of their models.

With any of them, a style is built from weights and style images, and frozen to a plain local network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from urst_tiles import weights as table
from urst_tiles.errors import BadInput
from urst_tiles.nets import (
    adain,
    cascade,
    cin,
    colour,
    fast,
    ghiasi,
    identity,
    linear,
    lite,
    microast,
    module,
    msgnet,
    multimodal,
    named_styles,
    painter,
    style_rows,
    wct,
)
from urst_tiles.nets.base import (
    Affine,
    Frozen,
    LocalNet,
    Precision,
    State,
    Style,
    StyleImages,
    frozen_affines,
    neutral_moments,
)
from urst_tiles.nets.cascade import Cascade, CascadeStyle
from urst_tiles.nets.colour import stain
from urst_tiles.nets.composition import Composition, Subject
from urst_tiles.nets.frozen.adain import FrozenAdaIN
from urst_tiles.nets.frozen.colour import FrozenColour
from urst_tiles.nets.frozen.fast import FrozenFast
from urst_tiles.nets.frozen.lite import FrozenLite
from urst_tiles.nets.frozen.microast import FrozenMicroAST
from urst_tiles.nets.frozen.multimodal import FrozenMultimodal
from urst_tiles.nets.frozen.painter import FrozenPainter
from urst_tiles.nets.frozen.wct import FrozenWCT
from urst_tiles.nets.module.style import FrozenModule
from urst_tiles.nets.own_statistics import OwnStatistics


@dataclass(frozen=True, kw_only=True)
class Family:
    """The constants and functions of a family.

    Attributes
    ----------
    name : the family's name.
    halo, stride, minimum : in pixels, as in `LocalNet`.
    build : (states by file name, style images, alpha) -> Style.
    restore : (tensors, settings) of ``Style.state`` -> Style.
    frozen : (style, maps by site) -> the plain network.
    seeded : (seed, width) -> states by file name, with random weights that keep the signal alive.
    check : (state, file name, path); raises BadWeights for wrong keys or shapes.
    precisions : device type -> the fastest precision that keeps the float32 output.
    load_style : path -> tensors, for families whose style is a checkpoint and no image.
    style_named : a word -> tensors, for families whose styles are all in their weights and have names;
        ``build`` checks the name.
    takes_style : False where the style is in the network's weights, and ``build`` takes no styles.
    needs_style : False where ``build`` accepts styles, and does without them too.
    paints_levels : whether the network learned to paint each level of a picture over the one above.
    learns : whether a style, besides its name, may be a file that `urst_tiles.learn` made of a painting, or
        an image.
    methods : for families whose style is a look (`urst_tiles.nets.colour.look`) their methods, the first of
        which is the default.
    """

    name: str
    halo: int
    stride: int
    minimum: int
    build: Callable[..., Style]
    restore: Callable[[State, Mapping[str, Any]], Style]
    frozen: Callable[[Any, Mapping[str, Affine]], LocalNet]
    seeded: Callable[[int, float], dict[str, State]]
    check: Callable[[State, str, Path], None]
    precisions: Mapping[str, Precision]
    load_style: Callable[[Path], State] | None = None
    style_named: Callable[[str], State] | None = None
    takes_style: bool = True
    needs_style: bool = True
    paints_levels: bool = False
    learns: bool = False
    methods: tuple[str, ...] = ()


def _family(
    module: Any,
    frozen: Callable[..., LocalNet],
    best: Precision = "float32",
    *,
    name: str = "",
    variant: str = "",
    load_style: Callable[[Path], State] | None = None,
    style_named: Callable[[str], State] | None = None,
    needs_style: bool = True,
    paints_levels: bool = False,
    learns: bool = False,
) -> Family:
    """The family of a module of this package; ``best`` is its fastest precision that keeps the float32
    output.

    In a module that holds several families, the functions take ``variant`` as their first argument, and
    constants may be dicts by variant.
    """

    def bound(function: Callable[..., Any]) -> Callable[..., Any]:
        return partial(function, variant) if variant else function

    def size(constant: int | Mapping[str, int]) -> int:
        return constant[variant] if isinstance(constant, Mapping) else constant

    return Family(
        name=name or module.NAME,
        halo=size(module.HALO),
        stride=size(module.STRIDE),
        minimum=size(module.MINIMUM),
        build=bound(module.build),
        restore=module.restore,
        frozen=frozen,
        seeded=bound(module.seeded),
        check=bound(module.check),
        precisions={"cpu": best, "cuda": best},
        load_style=load_style,
        style_named=style_named,
        needs_style=needs_style,
        paints_levels=paints_levels,
        learns=learns,
        methods=getattr(module, "METHODS", ()),
    )


MODELS: dict[str, Family] = {
    "lite": _family(lite, FrozenLite, "bfloat16"),
    "painter": _family(
        painter,
        FrozenPainter,
        "bfloat16",
        style_named=style_rows.style_named,
        paints_levels=True,
        learns=True,
    ),
    "microast": _family(microast, FrozenMicroAST, "bfloat16"),
    "adain": _family(adain, FrozenAdaIN, "bfloat16"),
    "fast": _family(fast, FrozenFast, load_style=fast.load_style),
    "cin": _family(cin, FrozenFast, style_named=style_rows.style_named),
    "ghiasi": _family(ghiasi, FrozenFast),
    "multimodal": _family(multimodal, FrozenMultimodal, load_style=multimodal.load_style),
    "msgnet": _family(msgnet, Frozen),
    "linear-r31": _family(linear, Frozen, name="linear-r31", variant="r31"),
    "linear-r41": _family(linear, Frozen, name="linear-r41", variant="r41"),
    "wct": _family(wct, FrozenWCT, name="wct", variant="wct"),
    "wct-16x": _family(wct, FrozenWCT, name="wct-16x", variant="wct-16x"),
    "wct-3": _family(wct, FrozenWCT, name="wct-3", variant="wct-3"),
    "colour": _family(colour, FrozenColour),
    "stain": _family(stain, FrozenColour, needs_style=False),
    "identity": _family(identity, identity.frozen, needs_style=False),
}


def family(model: str) -> Family:
    """The family of the model ``model``; BadInput for an unknown name."""
    if module.is_module(model):
        return _users(model)
    if model not in MODELS:
        allowed = f"{', '.join(MODELS)}, or package.module:function"
        raise BadInput(f"there is no model {model!r}; --model must be one of {allowed}")
    return MODELS[model]


def _users(model: str) -> Family:
    """The family of a user's module, "package.module:function"; its halo, stride and minimum are measured
    when it is built."""
    return Family(
        name=model,
        halo=0,
        stride=1,
        minimum=1,
        build=partial(module.build, model),
        restore=partial(module.restore, model),
        frozen=FrozenModule,
        seeded=partial(module.seeded, model),
        check=partial(module.check, model),
        precisions={"cpu": "float32", "cuda": "float32"},
        takes_style=False,
    )


def build(model: str, weights: Path | None, styles: StyleImages, alpha: float = 1.0) -> Style:
    """A style with the weights of a folder.

    Parameters
    ----------
    model : key of ``MODELS``, or "package.module:function", which is imported and called and needs no folder.
    weights : folder with one subfolder per model; None for URST_TILES_WEIGHTS or the user's cache.
    styles : images, float32 (h, w, 3) in 0..1, with their weights in the mixture.
    alpha : strength, 0..1.

    Raises
    ------
    MissingFile : a file of weights is missing.
    BadWeights : a file has the wrong content.
    BadInput : the model is unknown, or the styles do not suit it.
    """
    chosen = family(model)
    states = {}
    for file, path in (table.find(model, weights) if model in MODELS else {}).items():
        states[file] = table.load(path, table.entry(model).inside or None)
        with table.as_bad_weights(path):
            chosen.check(states[file], file, path)
    if model == lite.NAME and any(isinstance(style, Mapping) for style, _ in styles):
        named_styles.check_weights(states[lite.FILE])
    return chosen.build(states, styles, alpha)


def seeded(
    model: str, styles: StyleImages, alpha: float = 1.0, *, width: float = 1 / 8, seed: int = 0
) -> Style:
    """A style of the same topology, ``width`` times as wide, with random weights that keep the signal alive,
    for tests."""
    chosen = family(model)
    return chosen.build(chosen.seeded(seed, width), styles, alpha)


def freeze(style: Subject, moments: Mapping[str, Any] | None) -> LocalNet:
    """The plain local network that a style becomes for given statistics of the image.

    Parameters
    ----------
    style : the style or composition.
    moments : maps the name of each measured site to its ``Moments`` or, for a composition, to its
        ``MemberMoments``. With None every window uses its own statistics; a composition then has the identity
        at every site.

    Raises
    ------
    BadPlan : statistics are missing at a site, or have another number of channels.
    """
    if isinstance(style, Composition):
        return style.frozen(moments, freeze)
    if moments is None and not isinstance(style, identity.IdentityStyle):
        return OwnStatistics(style)
    return frozen(style, frozen_affines(style, moments or {}))


def frozen(style: Style, affines: Mapping[str, Affine]) -> LocalNet:
    """The plain local network of a style, given the map of every site."""
    if not isinstance(style, CascadeStyle):
        return family(style.name).frozen(style, affines)
    passes = {
        scale: frozen(style.inner, style.of_scale(scale, affines)) for scale in cascade.scales(style.factor)
    }
    return Cascade(style, affines, passes)


def neutral_net(style: Subject) -> LocalNet:
    """A network of the style's size and speed with a harmless map at every site, for use before anything is
    measured."""
    return freeze(style, None if isinstance(style, Composition) else neutral_moments(style))


def best_precision(model: str, device: str) -> Precision:
    """The precision of ``--precision auto``: the fastest that keeps the float32 output on this device.
    bfloat16 is taken only where the device computes it fast."""
    kind = str(device).split(":")[0]
    best = family(model).precisions.get(kind, "float32")
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if kind == "cuda"
        else cpu_multiplies_bfloat16()
    )
    return best if fast else "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 dot products. Other processors emulate bfloat16, which is slower
    than float32."""
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
