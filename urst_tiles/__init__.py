"""Style transfer at any resolution: it turns a gigapixel image into a stylised pyramidal TIFF.

It takes bounded memory and leaves no seams::

    import urst_tiles as ut

    ut.stylize("scene.tif", "stylised.tif", style="painting.jpg")

This call consists of six others, each usable alone: `open_source`, `measure`, `freeze`, `make_plan`,
`run_blocks` and `assemble`.

Importing the package is fast, because torch, dask and pyvips are loaded only when they are first needed.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any


def _public_names() -> dict[str, str]:
    """Each public name and the module that it comes from, as the stub ``__init__.pyi`` lists them."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [statement for statement in stub.body if isinstance(statement, ast.ImportFrom)]
    return {alias.name: str(line.module) for line in imports for alias in line.names}


_MODULE_OF = _public_names()
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
