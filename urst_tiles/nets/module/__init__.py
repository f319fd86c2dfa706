"""Any PyTorch module that maps an image to an image, as a style: its norms are frozen, and its halo and
stride are measured.

The intended modules are generators such as those of CycleGAN, CUT and pix2pix. Every layer of the module must
be local, except its sites: instance norms, batch norms without running statistics, group norms, and
AdaIN-like modules that the caller names.

Other processes must be able to find the module too. It is therefore given in one of two ways: as
"package.module:function", which is imported and called wherever the network is needed, or through
`from_module`, which gives it a name that is valid in this process only.

The name always comes from the user: a saved network that names a function is loaded only by a call that names
the same function (`urst_tiles.nets.saved`).

References
----------
1. J.-Y. Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV
   2017: a residual generator with instance norms and pixels in -1..1.
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
from urst_tiles.nets.module.probe import ProbedFootprint
from urst_tiles.nets.module.sites import Sites, shallow
from urst_tiles.nets.module.style import ModuleStyle, Range, prepared

#: The modules that `from_module` gave a name in this process.
_HERE: dict[str, ModuleStyle] = {}

#: The saved footprint of a module that is being restored, so that it is not measured again.
_KNOWN: ContextVar[ProbedFootprint | None] = ContextVar("known", default=None)
#: Whether `from_module` runs inside a function that `find` called by name: no name must be made up then.
_CALLED: ContextVar[bool] = ContextVar("called", default=False)


def from_module(
    net: nn.Module,
    *,
    range: Range = (0.0, 1.0),
    sites: Sites | None = None,
    name: str | None = None,
    alpha: float = 1.0,
) -> ModuleStyle:
    """A module as a style. `stylize` takes it as its ``style`` argument, where a style image would otherwise
    be given.

    Parameters
    ----------
    net : a module that maps (n, 3, h, w) to (n, 3, h, w), made of local layers and norms. It is copied and
        not changed.
    range : (low, high) of the module's input and output pixels; (-1, 1) for CycleGAN, CUT and pix2pix.
    sites : maps each class of AdaIN-like modules to a function of (module, ``Moments`` of its input features)
        that returns the ``Affine`` which replaces the module.
    name : "package.module:function" by which other processes find the same module; any other word only makes
        the style's name easier to read.
    alpha : strength, 0..1.

    Raises
    ------
    BadInput : the module cannot run in tiles, and the message names the layer that is not local; or an
        argument is wrong. The module is measured here, so the error comes from this call.
    """
    copied = shallow if _CALLED.get() else copy.deepcopy  # a module made for this call needs no second copy
    style = ModuleStyle(prepared(net, copied), range, sites or {}, name, alpha, _KNOWN.get())
    if not _CALLED.get():
        _HERE[style.name] = style
    return style


def is_module(model: str) -> bool:
    """Whether ``model`` names a user's module ("package.module:function") and not a family of this
    package."""
    return ":" in model


def only_here(model: str) -> bool:
    """Whether ``model`` is a name that `from_module` made up, so that no other process can find its
    module."""
    where, _, function = model.partition(":")
    return where == "module" and not function.isidentifier()


def find(model: str) -> ModuleStyle:
    """The style of the module called ``model``: from this process, or imported and made by its function.

    This runs the user's own code.

    Raises
    ------
    BadInput : the name cannot be found, the user's code raised, or it did not give a module; the message is
        one sentence.
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
    """Import the Python module ``where``, from the places on ``sys.path`` alone."""
    try:
        return import_module(where)
    except ModuleNotFoundError as error:
        hint = "; put its folder on PYTHONPATH" if error.name == where.partition(".")[0] else ""
        raise BadInput(f"--model {model}: cannot import {where!r}: {_text(error)}{hint}") from error
    except Exception as error:
        raise BadInput(f"--model {model}: cannot import {where!r}: {_text(error)}") from error


def _called(model: str, module: Any, function: str) -> Any:
    """What the function of that name returns; if the name is a module or style and not a function, that
    object itself."""
    if not hasattr(module, function):
        raise BadInput(f"--model {model}: {module.__name__} has no {function!r}")
    named = getattr(module, function)
    if isinstance(named, ModuleStyle | nn.Module):
        return named
    if not callable(named):
        raise BadInput(f"--model {model} must name a function, got a {type(named).__name__}")
    try:
        with _setting(_CALLED, True):
            return named()
    except UrstError:
        raise
    except Exception as error:
        raise BadInput(f"--model {model} raised {_text(error)}") from error


def _text(error: Exception) -> str:
    """An error of the user's code as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


# The functions of a `Family`, as the other modules of this package have them


def build(model: str, states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> ModuleStyle:
    """The style of the module, its strength multiplied by ``alpha``.

    Raises
    ------
    BadInput : weights or style images are given, which a module does not take; or as `find`.
    """
    if states or styles:
        raise BadInput(f"--model {model} has its style in its weights; leave out --style")
    style = find(model)
    return style.at(style.alpha * checked_alpha(alpha))


def seeded(model: str, seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """An empty dict, since the function that makes the module gives the weights too."""
    return {}


def check(model: str, state: State, file: str, path: Path) -> None:
    """Raise BadWeights, since a module takes no files from the weights folder."""
    raise BadWeights(f"{path}: --model {model} takes no weights; its function loads them")


def restore(model: str, state: State, settings: Mapping[str, Any]) -> ModuleStyle:
    """The inverse of ``ModuleStyle.state``: the code is found by name, the weights are the saved ones.

    Raises
    ------
    BadInput : the module cannot be found in this process.
    BadWeights : the module has changed, so that the saved weights do not fit it.
    """
    with _setting(_KNOWN, ProbedFootprint.of(settings["footprint"])):
        style = find(model)
    return style.with_state(state, settings)


@contextmanager
def _setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Give a context variable ``value`` within the ``with`` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
