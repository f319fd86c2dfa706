"""Imports go down only (the floors of the house), and every room imports only what it may."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import urst_tiles

PACKAGE = Path(urst_tiles.__file__).parent

TORCH = {"numpy", "torch", "safetensors"}
DASK = {"dask", "distributed", "dask_cuda", "dask_jobqueue"}

#: Floor -> its rooms, each with what it may import besides the standard library. Lower floors first; a floor
#: stands on those that `BELOW` names, and each room is a folder or a module of the package.
FLOORS: dict[str, dict[str, set[str]]] = {
    "ground": {
        "errors": set(),
        "cgroups": set(),
        "geometry": set(),
        "progress": set(),
        "kept": set(),
        "storage": {"upath"},
        "moments": {"numpy"},
        "histogram": {"numpy"},
        "lengths": set(),
        "overlap": {"numpy"},
        "adjustment": {"numpy"},
        "field": {"numpy"},
        "machine": {"numpy", "dask", "distributed"},
    },
    "records": {"options": set(), "plan": set()},
    "job": {"job": set()},
    "tiff": {"tiff": {"numpy", "tifffile", "imagecodecs"}},
    "images": {
        "source": {"numpy", "fsspec", "openslide", "pylibCZIrw", "pyvips", "rasterio", "zarr"},
        "pyramid": {"numpy", "tifffile", "imagecodecs", "google_crc32c"},
    },
    "networks": {
        "weights": TORCH,
        "nets": TORCH,
        "losses": TORCH | {"torchvision"},
    },
    "workers": {"workers": DASK | {"psutil", "torch"}},
    "engine": {"engine": {"imagecodecs", "numpy", "torch"}},
    "learning": {"learning": TORCH},
    "choices": {"recipe": {"numpy", "torch"}, "budget": set(), "encoding": {"numpy"}, "planning": {"numpy"}},
    "api": {"api": {"numpy", "dask"}},
    "studio": {"studio": {"numpy", "starlette", "uvicorn"}},
    "roof": {"cli": set(), "__init__": set(), "__main__": set()},
}

#: Each floor stands on these.
BELOW: dict[str, tuple[str, ...]] = {
    "ground": (),
    "records": ("ground",),
    "job": ("ground", "records"),
    "tiff": ("ground",),
    "images": ("ground", "tiff"),
    "networks": ("ground",),
    "workers": ("ground",),
    "engine": ("ground", "records", "images", "networks", "workers"),
    "learning": ("ground", "images", "networks"),
    "choices": ("ground", "records", "job", "images", "networks", "engine"),
    "api": (
        "ground",
        "records",
        "job",
        "images",
        "networks",
        "workers",
        "engine",
        "learning",
        "choices",
    ),
    "studio": ("ground", "records", "images", "networks", "engine", "api"),
    "roof": ("ground", "records", "job", "images", "networks", "workers", "engine", "api", "studio"),
}

FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
ALLOWED = {room: allowed for rooms in FLOORS.values() for room, allowed in rooms.items()}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(module: Path) -> frozenset[str]:
    """Dotted names of all that a module imports, inside functions and for type checkers too."""
    return frozenset(_imports(ast.parse(module.read_text())))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports: write urst_tiles. in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def module_named(name: str) -> Path | None:
    """The file behind ``urst_tiles.room.module.Name``; None for other packages and for the package itself."""
    parts = name.split(".")
    while parts[0] == "urst_tiles" and len(parts) > 1:
        path = PACKAGE.joinpath(*parts[1:])
        if path.is_dir():
            return path / "__init__.py"
        if path.with_suffix(".py").exists():
            return path.with_suffix(".py")
        parts.pop()
    return None


def rooms_imported(module: Path) -> set[str]:
    return {room_of(other) for name in imports(module) if (other := module_named(name))}


def packages_imported(module: Path) -> set[str]:
    tops = {name.split(".")[0] for name in imports(module)}
    return tops - set(sys.stdlib_module_names) - {"urst_tiles"}


ids = [str(module.relative_to(PACKAGE)) for module in MODULES]


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_every_room_has_a_floor(module: Path) -> None:
    assert room_of(module) in FLOOR_OF, "a new room: decide in this test which floor it is on"


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_imports_go_down_only(module: Path) -> None:
    floor = FLOOR_OF[room_of(module)]
    wrong = {room for room in rooms_imported(module) if FLOOR_OF[room] not in (floor, *BELOW[floor])}
    assert not wrong, f"{floor} must not import {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_a_room_imports_only_what_it_may(module: Path) -> None:
    wrong = packages_imported(module) - ALLOWED[room_of(module)]
    assert not wrong, f"{room_of(module)} must not import {sorted(wrong)}"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not even with an import inside a function, or one for type checkers alone."""
    edges = {
        module: {other for name in imports(module) if (other := module_named(name))} for module in MODULES
    }
    resting: set[Path] = set()
    while settled := {module for module, others in edges.items() if others <= resting} - resting:
        resting |= settled
    circle = sorted(str(module.relative_to(PACKAGE)) for module in set(edges) - resting)
    assert not circle


def test_no_two_classes_have_the_same_name() -> None:
    """A name that is read in a traceback or searched for leads to one class."""
    modules: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.ClassDef):
                modules.setdefault(node.name, []).append(str(module.relative_to(PACKAGE)))
    assert not {name: where for name, where in modules.items() if len(where) > 1}


def test_the_package_never_imports_its_garden() -> None:
    garden = {"pipelines", "benchmarks", "tests"}
    assert not {name for module in MODULES for name in imports(module) if name.split(".")[0] in garden}
