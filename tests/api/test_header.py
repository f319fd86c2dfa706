"""What cannot be written into the output is found with the plan, before anything is computed."""

from __future__ import annotations

import struct
from importlib import import_module
from pathlib import Path

import pytest
import tifffile
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.errors import BadInput

OPTIONS = {"model": "identity", "tile": 128, "block": 256, "precision": "float32"}


@pytest.mark.parametrize(
    "error", [ValueError("odd"), TypeError("odd"), struct.error("odd"), OverflowError("odd")]
)
def test_metadata_that_cannot_be_written_ends_the_job_before_it_begins(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    geotiff(tmp_path / "in.tif", picture(300, 200))
    monkeypatch.setattr(import_module("urst_tiles.pyramid.assemble"), "info_fields", refuse)
    monkeypatch.setattr("urst_tiles.api.stylize._run", lambda *_: pytest.fail("the job began"))
    with pytest.raises(BadInput, match=r"in\.tif: its metadata cannot be written into the output \(odd\)"):
        ut.stylize(tmp_path / "in.tif", tmp_path / "out.tif", tmp_path / "in.tif", **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_odd_metadata_goes_through_a_whole_job(tmp_path: Path) -> None:
    """Georeferencing in floats and an absurd resolution: mended, left out, and never a traceback."""
    tags = [(33550, 11, 3, (10.0, 10.0, 0.0), True), (33922, 11, 6, (0.0, 0, 0, 500, 5200, 0), True),
            (270, 2, None, "Aperio x|MPP = " + "9" * 350 + "|", True)]  # fmt: skip
    geotiff(tmp_path / "in.tif", picture(300, 200), extratags=tags)
    ut.stylize(tmp_path / "in.tif", tmp_path / "out.tif", tmp_path / "in.tif", **OPTIONS)
    assert ut.validate(tmp_path / "out.tif").valid
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        written = tif.pages.first.tags
        assert written[33550].value == (10.0, 10.0, 0.0) and written[33550].dtype == 12
        assert 282 not in written
