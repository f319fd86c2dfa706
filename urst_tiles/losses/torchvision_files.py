"""Access to torchvision's models. It is imported only when a model is asked for, since the package does not
depend on it."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from urst_tiles.errors import BadInput

#: Operators that torchvision describes on import. They are missing where its compiled part does not fit the
#: build of torch; the models used here do not call them.
_MISSING = ("nms", "qnms")


@cache
def models() -> ModuleType:
    """The module ``torchvision.models``; BadInput where torchvision is not installed."""
    try:
        return _imported()
    except ImportError as error:
        raise BadInput(
            f"this backbone needs torchvision ({error}): pip install 'urst-tiles[train]'"
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare()
    return _imported()


def _imported() -> ModuleType:
    import torchvision.models

    return torchvision.models


#: Declarations last as long as their library object, so it is held here.
_declared: list[torch.library.Library] = []


def _declare() -> None:
    """Declare to torch the signatures of the operators that torchvision describes on import."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _MISSING:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
