"""torchvision's models, imported only by whoever asks for one: the package does not depend on it."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from urst_tiles.errors import BadInput

#: Operators that torchvision describes on import, missing where its compiled part does not fit torch's build.
#: No model of ours calls them.
_MISSING = ("nms", "qnms")


@cache
def models() -> ModuleType:
    """``torchvision.models``; BadInput where torchvision is not installed."""
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


_declared: list[torch.library.Library] = []


def _declare() -> None:
    """Give torch the signatures that torchvision expects to find; they live as long as the library object."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _MISSING:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
