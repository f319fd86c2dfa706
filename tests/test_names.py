"""The public names: all there, each documented, and the README's own program runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
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


def revealed(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """What mypy says of each ``ut.NAME``: its type, or an error.

    mypy does not follow imports of other packages here, which saves most of a minute: their types are Any,
    those of this package are not.
    """
    others = ("torch", "torchvision", "numpy", "tifffile", "zarr", "safetensors", "dask", "distributed")
    sections = "".join(f"[mypy-{other}.*]\nfollow_imports = skip\n" for other in others)
    (folder / "mypy.ini").write_text(f"[mypy]\nignore_missing_imports = true\n{sections}")
    program = ["import urst_tiles as ut", *(f"reveal_type(ut.{name})" for name in names)]
    (folder / "program.py").write_text("\n".join(program))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "program.py"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
    note = r"^program\.py:(\d+): ((?:note: Revealed type is|error:) .*)$"
    by_line = dict(re.findall(note, said, re.MULTILINE))
    return {name: by_line[str(number)] for number, name in enumerate(names, 2)}


def test_every_public_name_has_a_type_for_type_checkers(tmp_path: Path) -> None:
    untyped = "open_source.nosuch", "map_blocks(None, None)", "stylise"
    types = revealed(tmp_path, [*ut.__all__, *untyped])
    missing = {name for name, said in types.items() if said.endswith('is "Any"') or "error:" in said}
    assert missing == set(untyped), {name: types[name] for name in missing ^ set(untyped)}


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
