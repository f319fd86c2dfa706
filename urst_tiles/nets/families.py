"""The families of networks: a dict from a model's name to what the package needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from urst_tiles import weights as table
from urst_tiles.errors import BadInput
from urst_tiles.nets import (
    adain,
    cin,
    fast,
    identity,
    linear,
    lite,
    microast,
    module,
    msgnet,
    multimodal,
    wct,
)
from urst_tiles.nets.base import (
    Affine,
    Frozen,
    LocalNet,
    Precision,
    State,
    Style,
)


@dataclass(frozen=True)
class Family:
    """What a family gives the house.

    Attributes
    ----------
    build : (states by file name, style images, alpha) -> Style.
    restore : (tensors, settings) of ``Style.state`` -> Style.
    frozen : (style, maps by site) -> the plain network.
    seeded : (seed, width) -> states by file name with random weights that keep the signal alive.
    check : (state, file name, path) raises BadWeights for wrong keys or shapes.
    precisions : device type -> fastest precision that keeps the float32 picture.
    load_style : path -> tensors, for families whose style is a checkpoint and no image.
    style_named : a word -> tensors, for families whose styles are all in their weights, where a word names
        one; ``build`` knows which there are.
    takes_style : False where the style is in the network, and ``build`` is given none.
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


def _check_microast(state: State, file: str, path: Path) -> None:
    table.check_keys(state, microast.shapes()[file], path)


def _check_adain(state: State, file: str, path: Path) -> None:
    needed = {key: t for key, t in state.items() if file == adain.DECODER or key not in adain.BEYOND}
    table.check_keys(needed, adain.shapes(adain.width_of(state, file))[file], path)


def _check_lite(state: State, file: str, path: Path) -> None:
    table.check_keys(state, lite.shapes(), path)


def _family(
    module: Any,
    frozen: Callable[..., LocalNet],
    best: Precision = "float32",
    check: Callable[[State, str, Path], None] | None = None,
    load_style: Callable[[Path], State] | None = None,
    style_named: Callable[[str], State] | None = None,
) -> Family:
    """A family that is one module, and its own fastest form."""
    return Family(
        module.NAME,
        module.HALO,
        module.STRIDE,
        module.MINIMUM,
        module.build,
        module.restore,
        frozen,
        module.seeded,
        check or module.check,
        _everywhere(best),
        load_style,
        style_named,
    )


def _variant(
    module: Any, name: str, variant: str, frozen: Callable[..., LocalNet], size: tuple[int, int, int]
) -> Family:
    """A family that is one of several in a module, whose functions take ``variant`` first."""
    halo, stride, minimum = size
    return Family(
        name,
        halo,
        stride,
        minimum,
        partial(module.build, variant),
        module.restore,
        frozen,
        partial(module.seeded, variant),
        partial(module.check, variant),
        _everywhere("float32"),
    )


def _linear(layer: str) -> Family:
    size = linear.HALO[layer], linear.STRIDE[layer], linear.MINIMUM[layer]
    return _variant(linear, f"linear-{layer}", layer, Frozen, size)


def _wct(name: str) -> Family:
    return _variant(wct, name, name, wct.FrozenWCT, (wct.HALO, wct.STRIDE, wct.MINIMUM))


def _everywhere(best: Precision) -> dict[str, Precision]:
    return {"cpu": best, "cuda": best}


MODELS: dict[str, Family] = {
    "lite": _family(lite, lite.FrozenLite, "bfloat16", check=_check_lite),
    "microast": _family(microast, microast.FrozenMicroAST, "bfloat16", check=_check_microast),
    "adain": _family(adain, adain.FrozenAdaIN, "bfloat16", check=_check_adain),
    "fast": _family(fast, fast.FrozenFast, load_style=fast.load_style),
    "cin": _family(cin, fast.FrozenFast, style_named=cin.style_named),
    "multimodal": _family(multimodal, multimodal.FrozenMultimodal, load_style=multimodal.load_style),
    "msgnet": _family(msgnet, Frozen),
    "linear-r31": _linear("r31"),
    "linear-r41": _linear("r41"),
    "wct": _wct("wct"),
    "wct-16x": _wct("wct-16x"),
    "identity": _family(
        identity, lambda style, affines: identity.IdentityNet(), check=lambda state, file, path: None
    ),
}


def family(model: str) -> Family:
    """The family called ``model``; BadInput for an unknown name."""
    if module.is_module(model):
        return _users(model)
    if model not in MODELS:
        known = f"{', '.join(MODELS)}, or package.module:function"
        raise BadInput(f"there is no model {model!r}; --model must be one of {known}")
    return MODELS[model]


def _users(model: str) -> Family:
    """A user's module, "package.module:function"; halo, stride and minimum are measured when it is built."""
    return Family(
        model,
        0,
        1,
        1,
        partial(module.build, model),
        partial(module.restore, model),
        module.FrozenModule,
        partial(module.seeded, model),
        partial(module.check, model),
        {"cpu": "float32", "cuda": "float32"},
        takes_style=False,
    )
