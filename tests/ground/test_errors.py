"""The error tree as its docstring draws it."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest
import tblib.pickling_support

from urst_tiles import errors

TREE = {
    "UrstError": (),
    "BadInput": ("UrstError", "ValueError"),
    "MissingFile": ("FileNotFoundError", "BadInput"),
    "BadWeights": ("BadInput",),
    "BadPlan": ("BadInput",),
    "DoesNotFit": ("BadPlan", "MemoryError"),
    "DamagedFile": ("UrstError", "OSError"),
    "DiskFull": ("UrstError", "OSError"),
    "JobError": ("UrstError", "RuntimeError"),
    "JobDiffers": ("JobError",),
    "JobBusy": ("JobError",),
    "BlocksFailed": ("UrstError", "RuntimeError"),
}
CLASSES = dict(inspect.getmembers(errors, inspect.isclass))


def test_the_tree_is_this_and_no_other() -> None:
    bases = {name: tuple(b.__name__ for b in cls.__bases__) for name, cls in CLASSES.items()}
    assert bases == {**TREE, "UrstError": ("Exception",)}


def test_the_drawing_shows_every_error_with_its_builtin() -> None:
    drawn = dict(re.findall(r"── (\w+)(?: \((\w+)\))?", errors.__doc__ or ""))
    assert drawn == {
        name: next((b for b in bases if not b.startswith(tuple(CLASSES))), "")
        for name, bases in TREE.items()
        if bases
    }


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_the_sentence_survives_a_pickle(cls: type[errors.UrstError]) -> None:
    """A worker's sentence must reach the user: dask pickles errors as tblib does."""
    tblib.pickling_support.install()
    error = pickle.loads(pickle.dumps(cls("scene.tif is not an image; give a TIFF")))
    assert type(error) is cls
    assert str(error) == "scene.tif is not an image; give a TIFF"
