"""One file for each band, named by files or as the assets of a STAC item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, one_sentence, picture, sha
from mosaics import KEYS, placed, tile

import urst_tiles as ut
from urst_tiles.geometry import Box

WHOLE = Box(0, 0, 300, 400)
NAMES = ("B04", "B03", "B02")
FLAGS = ("--model", "identity", "--tile", "128", "--block", "512", "--thumbnail", "64")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return picture(300, 400).astype(np.uint16) * 40


def bands(folder: Path, scene: np.ndarray, **options: Any) -> Path:
    """A folder with a file for each band, and one of a band that nobody asks for."""
    folder.mkdir()
    options = {"photometric": "minisblack", "extratags": placed(0, 0)} | options
    for number, name in enumerate(NAMES):
        geotiff(folder / f"T32_{name}_10m.tif", np.ascontiguousarray(scene[..., number]), **options)
    geotiff(folder / "T32_B08_10m.tif", np.ascontiguousarray(scene[..., 0]), **options)
    return folder


def files(names: tuple[str, ...] = NAMES) -> tuple[str, ...]:
    return tuple(f"T32_{name}_10m.tif" for name in names)


@pytest.mark.parametrize("nodata", [False, True])
@pytest.mark.parametrize("strips", [False, True])
def test_files_of_one_band_are_one_image(
    scene: np.ndarray, tmp_path: Path, nodata: bool, strips: bool
) -> None:
    """The same as one file of three bands, in pixels, validity, stretch and place."""
    scene = scene.copy()
    scene[10:60, 20:70] = 0
    scene[100:120, 20:70, 1] = 0  # one band alone: this is no hole
    more = {"extratags": [*placed(0, 0), *[(42113, "s", 0, "0", True)] * nodata]}
    more |= {"tile": None, "rowsperstrip": 16} if strips else {}
    folder = bands(tmp_path / "s2", scene, **more)
    one = ut.open_source(geotiff(tmp_path / "one.tif", scene, **more)).prepare(tmp_path / "1", thumbnail=64)
    named = [(folder, files()), (folder / "T32_B08_10m.tif", files()), (folder, NAMES)]
    for path, chosen in (*named, (folder / "T32_B04_10m.tif", NAMES)):
        source = ut.open_source(path, bands=chosen).prepare(tmp_path / "3", thumbnail=64)
        assert (source.channels, source.info.validity) == (one.channels, one.info.validity)
        assert source.info.geo == one.info.geo and source.info.nodata == one.info.nodata
        assert source.stretch == one.stretch and "bands of one image" in source.made_of
        np.testing.assert_array_equal(source.read(WHOLE), one.read(WHOLE))
    turned = ut.open_source(folder, bands=files()[::-1]).prepare(tmp_path / "4", thumbnail=64)
    np.testing.assert_array_equal(turned.read(WHOLE)[..., :3], one.read(WHOLE)[..., 2::-1])
    assert turned.fingerprint != source.fingerprint


def test_one_file_is_grey(scene: np.ndarray, tmp_path: Path) -> None:
    folder = bands(tmp_path / "s2", scene)
    pixels = ut.open_source(folder, bands=["T32_B04_10m.tif"], stretch="0,65535").read(WHOLE)
    np.testing.assert_array_equal(pixels, np.repeat(scene[..., :1], 3, -1))


def item(path: Path, assets: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": assets}))
    return path


def test_assets_of_a_stac_item(scene: np.ndarray, tmp_path: Path) -> None:
    folder = bands(tmp_path / "s2", scene)
    expected = ut.open_source(folder, bands=files()).read(WHOLE)
    colours = ("red", "green", "blue")
    hrefs = [f"./s2/{files()[0]}", f"s2/{files()[1]}", f"file://{folder}/{files()[2]}"]
    keyed = {colour: {"href": href} for colour, href in zip(colours, hrefs, strict=True)}
    band = [{"eo:bands": [{"name": n, "common_name": c}]} for n, c in zip(NAMES, colours, strict=True)]
    named = {f"image{k}": {"href": hrefs[k]} | band[k] for k in range(3)}
    for assets, chosen in (
        (keyed, ("red", "green", "blue")),
        (keyed, None),
        (named, colours),
        (named, None),
        (named, ("b04", "b03", "b02")),
        (named, ("image0", "image1", "image2")),
    ):
        source = ut.open_source(item(tmp_path / "item.json", assets), bands=chosen)
        np.testing.assert_array_equal(source.read(WHOLE), expected)
    geotiff(tmp_path / "tci.tif", picture(300, 400))
    assets = {"thumbnail": {"href": "https://e.org/t.png"}, "visual": {"href": "tci.tif"}}
    source = ut.open_source(item(tmp_path / "item.json", assets))
    np.testing.assert_array_equal(source.read(WHOLE), picture(300, 400))


def test_a_job_and_its_resume(scene: np.ndarray, tmp_path: Path, run) -> None:
    folder = bands(tmp_path / "s2", scene)
    flags = (*FLAGS, "--bands", ",".join(files()), "--stretch", "0,65535")
    assert run("stylize", folder, folder / "out.tif", *flags).returncode == 0
    with rasterio.open(folder / "out.tif") as after, rasterio.open(folder / files()[0]) as before:
        np.testing.assert_array_equal(after.read().transpose(1, 2, 0), scene)
        assert (after.crs, after.transform) == (before.crs, before.transform)
    assert run("info", folder, "--bands", ",".join(files())).returncode == 0
    assert run("plan", folder, tmp_path / "o.tif", *flags, "--save", tmp_path / "j").returncode == 0
    old = (folder / files()[1]).read_bytes()
    tile(folder / files()[1], scene[..., 0] ^ 1, 0, 0, 300, 400, photometric="minisblack")
    assert "planned" in run("work", tmp_path / "j").stderr
    (folder / files()[1]).write_bytes(old)
    assert run("work", tmp_path / "j").returncode == run("assemble", tmp_path / "j").returncode == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), scene)


def test_a_file_that_changes_is_noticed(scene: np.ndarray, tmp_path: Path) -> None:
    folder = bands(tmp_path / "s2", scene)
    source = ut.open_source(folder, bands=files(), stretch="0,65535")
    source.read(WHOLE)
    tile(folder / files()[2], scene[..., 0] ^ 1, 0, 0, 300, 400, photometric="minisblack")
    with pytest.raises(ut.DamagedFile, match="changed"):
        source.read(WHOLE)


def test_bands_that_make_no_image(scene: np.ndarray, tmp_path: Path) -> None:
    folder = bands(tmp_path / "s2", scene)
    grey = np.ascontiguousarray(scene[..., 0])
    other = folder / "B05.tif"
    spoilt = [
        (grey[:150, :200], {"extratags": placed(0, 0, 20.0)}, "resolution|20 x 20"),
        (grey[:150], {}, "cover each other"),
        (grey, {"extratags": placed(0, 7)}, "cover each other"),
        (grey, {"extratags": placed(0, 0.5)}, "cover each other"),
        (grey, {"extratags": placed(0, 0, keys=(*KEYS[:-1], 32633))}, "EPSG:32633"),
        (grey.astype(np.float32), {}, "float32"),
        (grey, {"extratags": ()}, "no georeferencing"),
    ]
    for pixels, options, words in spoilt:
        geotiff(other, pixels, **({"photometric": "minisblack", "extratags": placed(0, 0)} | options))
        with pytest.raises(ut.BadInput, match=words) as refused:
            ut.open_source(folder, bands=(files()[0], "B05.tif", files()[1]))
        assert "B05.tif" in str(refused.value)
        if options != {"extratags": ()}:
            assert "gdalwarp" in str(refused.value) and files()[0] in str(refused.value)
    geotiff(other, scene)
    with pytest.raises(ut.BadInput, match=r"B05.tif has several bands.*gdal_translate -b"):
        ut.open_source(folder, bands=("B05.tif", *files()[:2]))
    with pytest.raises(ut.MissingFile, match=r"no file of a band .*none\.tif"):
        ut.open_source(folder, bands=("none.tif", *files()[:2]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("no image and no STAC item",)),
        ("[]", ("no STAC item",)),
        ('{"type": "FeatureCollection", "stac_version": "1.0.0", "assets": {}}', ("no STAC item",)),
        ('{"type": "Feature", "stac_version": "1.0.0", "assets": {}}', ("no asset red", "none")),
        ('{"type": "Feature", "stac_version": "1.0.0", "assets": {"red": {"href": "no.tif"}}}', ("no.tif",)),
        (
            '{"type": "Feature", "stac_version": "1.0.0", "assets": {"red": {"href": "https://e.org/r.tif"}}}',
            ("red", "https://e.org/r.tif", "download"),
        ),
        ('{"type": "Feature", "stac_version": "1.0.0", "assets": {"red": {"href": "s3://b/r"}}}', ("s3://b/r",)),
        ('{"type": "Feature", "stac_version": "1.0.0", "assets": {"red": {}}}', ("no href",)),
    ],
)  # fmt: skip
def test_items_that_are_refused(tmp_path: Path, run, text: str, words: tuple[str, ...]) -> None:
    (tmp_path / "item.json").write_text(text)
    done = run("stylize", tmp_path / "item.json", tmp_path / "o.tif", *FLAGS, "--bands", "red,green,blue")
    one_sentence(done, 2, "item.json", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["item.json"]


def test_files_that_have_no_place_may_be_bands(scene: np.ndarray, tmp_path: Path) -> None:
    folder = bands(tmp_path / "s2", scene, extratags=())
    source = ut.open_source(folder, bands=files(), stretch="0,65535")
    np.testing.assert_array_equal(source.read(WHOLE), scene)
    assert not source.info.geo and sha(folder / files()[0])


def test_parts_of_names_are_not_looked_for_where_a_file_has_these_bands(
    scene: np.ndarray, tmp_path: Path
) -> None:
    """A file that is none of those that fit, and one band, which may be a band of the file itself."""
    folder = bands(tmp_path / "s2", scene)
    with pytest.raises(ut.BadInput, match="no band 'B04'"):
        ut.open_source(folder / "T32_B08_10m.tif", bands=NAMES)
    with pytest.raises(ut.BadInput, match="no band 'B04'"):
        ut.open_source(folder / "T32_B04_10m.tif", bands=["B04"])
