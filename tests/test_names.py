"""The public names: all there, each documented, and the README's own program runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import urst_tiles as ut


@pytest.mark.parametrize("name", sorted(ut.__all__))
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert (getattr(ut, name).__doc__ or "").strip()
    assert name in dir(ut)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        _ = ut.nosuch


def test_the_readmes_program_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers import geotiff, picture

    from urst_tiles.source.picture import write_png

    program = re.search(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert program is not None
    geotiff(tmp_path / "scene.tif", picture(300, 400))
    write_png(tmp_path / "painting.jpg", picture(100, 100, seed=1))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(program[1].replace('"stylised.tif")', '"again.tif")'), "README.md", "exec"), names)
    assert ut.validate(tmp_path / "again.tif").valid


def test_no_public_name_is_a_modules_name() -> None:
    """Importing a module sets its name on the package, and would hide the public one."""
    modules = {path.stem for path in Path(ut.__file__).parent.iterdir()}
    assert not modules & set(ut.__all__)
