"""What cannot be written into the output is found with the plan, before anything is computed."""

from __future__ import annotations

import hashlib
import json
import struct
from importlib import import_module
from pathlib import Path

import pytest
import rasterio
import tifffile
from helpers import geotiff, picture, sha

import urst_tiles as ut
from urst_tiles.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

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
    monkeypatch.setattr("urst_tiles.api.stylize.run_job", lambda *_, **__: pytest.fail("the job began"))
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


def told(path: Path) -> tuple[dict[str, object] | None, str]:
    """What an output says of how it was made, and its tag Software."""
    with rasterio.open(path) as data:
        tags = data.tags()
    made = tags.get("URST_TILES")
    return made and json.loads(made), tags.get("TIFFTAG_SOFTWARE", "")


def test_the_output_says_what_made_it(tmp_path: Path) -> None:
    scene = geotiff(tmp_path / "in.tif", picture(300, 200))
    options = {"tile": 128, "block": 256, "precision": "float32", "alpha": 0.5}
    ut.stylize(scene, tmp_path / "out.tif", scene, model="lite", **options)
    made, software = told(tmp_path / "out.tif")
    assert made is not None and software == f"urst-tiles {made['urst-tiles']}"
    assert made["model"] == "lite" and made["options"]["alpha"] == "0.5"  # type: ignore[index]
    (style,) = made["styles"]  # type: ignore[misc]
    assert style == {
        "name": "in.tif",
        "sha256": hashlib.sha256(scene.read_bytes()).hexdigest(),
        "weight": 1.0,
    }
    weights = Path(ut.__file__).parent / "trained" / "lite.safetensors"
    assert made["weights"] == {"lite.safetensors": sha(weights)}
    text = json.dumps(made)
    assert str(tmp_path) not in text and ut.open_source(scene).fingerprint in text


def test_a_named_style_is_named(tmp_path: Path) -> None:
    scene = geotiff(tmp_path / "in.tif", picture(64, 64))
    ut.stylize(scene, tmp_path / "out.tif", "hokusai-wave", tile=128, block=256)
    made, _ = told(tmp_path / "out.tif")
    assert made is not None and made["styles"] == [{"name": "hokusai-wave", "weight": 1.0}]


def test_equal_jobs_tell_the_same_and_none_if_asked(tmp_path: Path) -> None:
    scene = geotiff(tmp_path / "in.tif", picture(300, 200))
    bytes_of = {}
    for name, provenance in (("a", True), ("b", True), ("quiet", False)):
        (tmp_path / name).mkdir()
        output = tmp_path / name / f"{name}.tif"
        ut.stylize(scene, output, scene, provenance=provenance, **OPTIONS)
        bytes_of[name] = output.read_bytes()
    assert bytes_of["a"] == bytes_of["b"] and told(tmp_path / "quiet" / "quiet.tif") == (None, "")
    assert b"urst-tiles" not in bytes_of["quiet"]
    ut.stylize(tmp_path / "a" / "a.tif", tmp_path / "again.tif", scene, provenance=False, **OPTIONS)
    assert told(tmp_path / "again.tif") == (None, "")  # what made the input did not make this
