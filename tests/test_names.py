"""What `import urst_tiles` exports: all of it is there, lazily, and nothing private."""

from __future__ import annotations

import pytest

import urst_tiles


@pytest.mark.parametrize("name", urst_tiles.__all__)
def test_every_exported_name_is_there_and_explained(name: str) -> None:
    thing = getattr(urst_tiles, name)
    assert not name.startswith("_")
    assert thing.__doc__


def test_nothing_is_exported_twice() -> None:
    assert len(set(urst_tiles.__all__)) == len(urst_tiles.__all__)


def test_the_main_names_are_among_them() -> None:
    main = {"stylize", "preview", "open_source", "measure", "freeze", "run_blocks", "assemble", "map_blocks"}
    assert main <= set(urst_tiles.__all__)


def test_they_are_listed_by_dir() -> None:
    assert set(urst_tiles.__all__) <= set(dir(urst_tiles))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = urst_tiles.no_such_name
