"""Any image-to-image module as a style: its norms frozen, its halo and stride measured.

CycleGAN's, CUT's and pix2pix's generators are the case to serve. The module must be local but for its sites:
instance norms, batch norms without running statistics, group norms, and AdaIN-like modules that the caller
names.

A module has no name that another process could find, so it comes in one of two ways: as
"package.module:function", which is imported and called wherever the network is needed, or from
`from_module`, which lends it a name in this process.

The name always comes from the user: a saved network that names a function is loaded only by a call that names
the same function (`urst_tiles.nets.saved`).

References
----------
1. J.-Y. Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
   ICCV 2017: a residual generator with instance norms, pixels in -1..1.
2. P. Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017: a U-Net.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from urst_tiles.errors import BadInput, BadWeights, UrstError
from urst_tiles.nets.base import State, StyleImages, checked_alpha
from urst_tiles.nets.module.probe import Footprint
from urst_tiles.nets.module.sites import Sites, shallow
from urst_tiles.nets.module.style import ModuleStyle, Range, prepared

#: The modules that `from_module` gave a name in this process.
_HERE: dict[str, ModuleStyle] = {}

#: What is known of the module that is made again, so that it is not measured again.
_KNOWN: ContextVar[Footprint | None] = ContextVar("known", default=None)
#: Whether `from_module` runs inside a function that will be found by its own name.
_CALLED: ContextVar[bool] = ContextVar("called", default=False)


def from_module(
    net: nn.Module,
    *,
    range: Range = (0.0, 1.0),
    sites: Sites | None = None,
    name: str | None = None,
    alpha: float = 1.0,
) -> ModuleStyle:
    """A module as a style: `stylize` takes it in the place of a style image.

    Parameters
    ----------
    net : (n, 3, h, w) -> (n, 3, h, w), made of local layers and norms; it is copied, not changed.
    range : what its input and output pixels span; (-1, 1) for CycleGAN, CUT and pix2pix.
    sites : class of an AdaIN-like module -> function of (module, ``Moments`` of its features) that gives the
        ``Affine`` it becomes.
    name : "package.module:function" where other processes find it, if that gives the same module; any other
        word is for the eye.
    alpha : strength, 0..1.

    Raises
    ------
    BadInput : naming the layer that cannot be local, or what else cannot be; all is measured here.
    """
    copied = shallow if _CALLED.get() else copy.deepcopy  # what was made for us need not lie here twice
    style = ModuleStyle(prepared(net, copied), range, sites or {}, name, alpha, _KNOWN.get())
    if not _CALLED.get():
        _HERE[style.name] = style
    return style


def is_module(model: str) -> bool:
    """Whether ``model`` names a user's module and no family of ours."""
    return ":" in model


def only_here(model: str) -> bool:
    """Whether ``model`` is a name that `from_module` made up: no other process can find what it means."""
    where, _, function = model.partition(":")
    return where == "module" and not function.isidentifier()


def find(model: str) -> ModuleStyle:
    """The module called ``model``: of this process, or imported and made by its function.

    This runs the user's own code.

    Raises
    ------
    BadInput : one sentence for whatever went wrong there.
    """
    if model in _HERE:
        return _HERE[model].at(_HERE[model].alpha)
    where, _, function = model.partition(":")
    if only_here(model):
        raise BadInput(
            f"{model} lives in the process that called from_module; where others are to run it, give"
            " --model package.module:function"
        )
    made = _called(model, _imported(model, where), function)
    if isinstance(made, ModuleStyle):
        return made.at(made.alpha, model)
    if not isinstance(made, nn.Module):
        raise BadInput(f"--model {model} must give a torch.nn.Module, got a {type(made).__name__}")
    return ModuleStyle(prepared(made, shallow), (0.0, 1.0), {}, model, 1.0, _KNOWN.get())


def _imported(model: str, where: str) -> Any:
    """The Python module ``where``, from the places on ``sys.path`` alone."""
    try:
        return import_module(where)
    except ModuleNotFoundError as error:
        hint = "; put its folder on PYTHONPATH" if error.name == where.partition(".")[0] else ""
        raise BadInput(f"--model {model}: cannot import {where!r}: {_text(error)}{hint}") from error
    except Exception as error:
        raise BadInput(f"--model {model}: cannot import {where!r}: {_text(error)}") from error


def _called(model: str, module: Any, function: str) -> Any:
    """What the function gives, or the module that stands there ready."""
    if not hasattr(module, function):
        raise BadInput(f"--model {model}: {module.__name__} has no {function!r}")
    found = getattr(module, function)
    if isinstance(found, ModuleStyle | nn.Module):
        return found
    if not callable(found):
        raise BadInput(f"--model {model} must name a function, got a {type(found).__name__}")
    try:
        with _setting(_CALLED, True):
            return found()
    except UrstError:
        raise
    except Exception as error:
        raise BadInput(f"--model {model} raised {_text(error)}") from error


def _text(error: Exception) -> str:
    """An error of the user's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


# What a family is made of


def build(model: str, states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> ModuleStyle:
    """The module at ``alpha`` times its own strength; it takes neither weights nor style images."""
    if states or styles:
        raise BadInput(f"--model {model} has its style in its weights; leave out --style")
    style = find(model)
    return style.at(style.alpha * checked_alpha(alpha))


def seeded(model: str, seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """No weights beside those that the function gives."""
    return {}


def check(model: str, state: State, file: str, path: Path) -> None:
    """Nothing lies in the weights folder: the function knows its weights."""
    raise BadWeights(f"{path}: --model {model} takes no weights; its function loads them")


def restore(model: str, state: State, settings: Mapping[str, Any]) -> ModuleStyle:
    """The inverse of ``ModuleStyle.state``: the code is found by name, the weights are those kept.

    Raises
    ------
    BadInput, BadWeights : the module is not to be found here, or is another now.
    """
    with _setting(_KNOWN, Footprint.of(settings["footprint"])):
        style = find(model)
    return style.with_state(state, settings)


@contextmanager
def _setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """A context variable has ``value`` here."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
