"""A finished painting says what made it, and the image that it was made from is found by that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.api.result import Finished, open_result
from urst_tiles.geometry import Box
from urst_tiles.pyramid.provenance import provenance_of

#: An affine network of colours alone, which is quick.
FAST = {"model": "colour", "block": 256, "blocksize": 128}

NAMES = ("out.tif", "out.ome.tif", "out.ome.zarr", "out.dzi")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    tifffile.imwrite(folder / "reference.tif", picture(64, 64, seed=3), photometric="rgb")
    return geotiff(folder / "scene.tif", picture(300, 420))


def made(scene: Path, name: str, **options: object) -> Path:
    output = scene.parent / name
    ut.stylize(scene, output, str(scene.parent / "reference.tif"), **FAST, overwrite=True, **options)
    return output


def opened(path: Path, tmp_path: Path, root: Path | None = None, **words: Path) -> Finished:
    return open_result(path, root or path.parent, folder=tmp_path / "work", **words)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_found_by_what_the_output_says(scene: Path, name: str, tmp_path: Path) -> None:
    output = made(scene, name)
    found = opened(output, tmp_path)
    assert found.input is not None and found.input.path == scene and found.said == ""
    assert found.style == "reference.tif" and found.pixels.shape == (300, 420)
    assert found.made is not None and found.made["source"] == ut.open_source(scene).fingerprint
    whole = Box(0, 0, 300, 420)
    wanted = tifffile.imread(made(scene, "right.tif"), key=0).astype(int)
    seen = found.pixels.read(0, whole).astype(int)
    assert abs(seen - wanted).mean() < (12 if name == "out.dzi" else 1e-9) and wanted.std() > 10
    small = found.pixels.read(1, Box(0, 0, 150, 210)).astype(int)
    means = wanted.reshape(150, 2, 210, 2, 3).mean((1, 3))
    assert abs(small - means).mean() < (12 if name == "out.dzi" else 0.6)
    part = found.pixels.read(0, Box(100, 120, 260, 300))
    np.testing.assert_array_equal(part, seen[100:260, 120:300])


def test_an_input_of_another_name_in_another_folder_is_found(tmp_path: Path) -> None:
    for folder in ("images/north", "out/made"):
        (tmp_path / folder).mkdir(parents=True)
    tifffile.imwrite(tmp_path / "reference.tif", picture(64, 64, seed=3), photometric="rgb")
    source = geotiff(tmp_path / "images" / "north" / "a.tif", picture(130, 140))
    geotiff(tmp_path / "images" / "north" / "b.tif", picture(130, 140, seed=1))
    output = tmp_path / "out" / "made" / "painted.tif"
    ut.stylize(source, output, str(tmp_path / "reference.tif"), **FAST)
    found = opened(output, tmp_path, tmp_path)
    assert found.input is not None and found.input.path == source
    alone = opened(output, tmp_path, tmp_path / "out")  # nothing outside of the root is looked at
    assert alone.input is None and "was not found in the folder out." in alone.said


def test_a_link_that_leads_out_is_no_input(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    output = tmp_path / "root" / "scene.painted.tif"
    output.write_bytes(made(scene, "out.tif").read_bytes())
    (tmp_path / "root" / "scene.tif").symlink_to(scene)
    assert opened(output, tmp_path).input is None
    (tmp_path / "root" / "scene.tif").unlink()
    (tmp_path / "root" / "other.tif").write_bytes(scene.read_bytes())
    assert opened(output, tmp_path).input is not None


def test_an_input_that_was_edited_is_not_taken_for_it(scene: Path, tmp_path: Path) -> None:
    source = geotiff(tmp_path / "scene.tif", picture(200, 220))
    output = tmp_path / "scene.painted.tif"
    ut.stylize(source, output, str(scene.parent / "reference.tif"), **FAST)
    geotiff(source, picture(200, 220, seed=5))
    found = opened(output, tmp_path)
    assert found.input is None
    assert found.said.endswith("; scene.tif is another, or was edited since.")
    with pytest.raises(ut.BadInput, match="is not the image that"):
        opened(output, tmp_path, input=source)


def test_a_part_lies_beside_that_part(scene: Path, tmp_path: Path) -> None:
    output = made(scene, "part.tif", region=(100, 40, 200, 150))
    found = opened(output, tmp_path)
    assert found.input is not None and found.input.shape == found.pixels.shape == (150, 200)
    wanted = tifffile.imread(scene)[40:190, 100:300]
    np.testing.assert_array_equal(found.input.read(Box(0, 0, 150, 200)), wanted)


def test_sixteen_bits_are_shown_as_they_are_stored(scene: Path, tmp_path: Path) -> None:
    source = geotiff(tmp_path / "deep.tif", picture(200, 220).astype(np.uint16) * 9)
    output = tmp_path / "deep.out.tif"
    ut.stylize(source, output, str(scene.parent / "reference.tif"), **FAST, stretch="0,3000")
    found = opened(output, tmp_path)
    stored = tifffile.imread(output, key=0)
    assert stored.dtype == np.uint16
    box = Box(0, 0, 200, 220)
    np.testing.assert_array_equal(found.pixels.read(0, box), (stored >> 8).astype(np.uint8))
    assert found.input is not None and found.input.stretch_text == "0,3000"


def test_what_says_nothing_is_said(scene: Path, tmp_path: Path) -> None:
    for name in NAMES:
        output = made(scene, name, provenance=False)
        assert provenance_of(output) is None
        assert "does not say what it was made from" in opened(output, tmp_path).said
    assert opened(output, tmp_path, input=scene).input is not None
    with pytest.raises(ut.BadInput, match="has 420 x 300 px, and reference.tif 64 x 64"):
        opened(output, tmp_path, input=scene.parent / "reference.tif")
    assert provenance_of(scene) is None and provenance_of(scene.parent) is None
    other = tmp_path / "other.dzi"
    for text in ("", "<Image/>", "<?URST_TILES [?><Image/>", "<?URST_TILES [1]?>", "\0"):
        other.write_text(text)
        assert provenance_of(other) is None
        with pytest.raises(ut.DamagedFile, match="describes no Deep Zoom image"):
            opened(other, tmp_path)


def test_a_damaged_tile_of_a_deep_zoom_image_is_named(scene: Path, tmp_path: Path) -> None:
    output = made(scene, "out.dzi")
    found = opened(output, tmp_path)
    tile = output.with_name("out_files") / "9" / "1_0.jpg"
    content = tile.read_bytes()
    for wrong in (content[:100], b"", (tile.parent / "3_2.jpg").read_bytes()):
        tile.write_bytes(wrong)
        with pytest.raises(ut.DamagedFile, match=r"9/1_0\.jpg"):
            found.pixels.read(0, Box(0, 0, 200, 200))
    tile.unlink()
    with pytest.raises(ut.DamagedFile, match=r"9/1_0\.jpg.*cannot be read"):
        found.pixels.read(0, Box(0, 0, 200, 200))
