"""The reference system in a .prj beside a picture and its world file: written, and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import rasterio
import tifffile
from helpers import picture
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window

import urst_tiles as ut
from urst_tiles.source import esri_wkt
from urst_tiles.source.part import part_of
from urst_tiles.tiff.georeference import epsg_keys

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "blocksize": 128, "thumbnail": 64}
LAEA = "+proj=laea +lat_0=47 +lon_0=9 +x_0=1000 +y_0=2000 +ellps=GRS80 +units=m"
SYSTEMS = [
    "EPSG:32632",
    "EPSG:4326",
    "EPSG:3857",
    "EPSG:25832",
    "EPSG:26918",
    "EPSG:2154",
    "EPSG:32755",
    LAEA,
]

#: A box inside of `scene` in LAEA.
DEGREES = (8.9895, 46.9765, 8.9925, 46.979)

#: Those of the quick tests: a name of ESRI's, degrees, one that PROJ must find, one without a code.
BRIEF = ("EPSG:32632", "EPSG:4326", "EPSG:2154", LAEA)


def scene(folder: Path, system: str, name: str = "scene.tif") -> Path:
    size = 0.001 if CRS.from_user_input(system).is_geographic else 10.0
    profile = {"count": 3, "dtype": "uint8", "crs": system, "transform": Affine(size, 0, 7, 0, -size, 47)}
    with rasterio.open(folder / name, "w", driver="GTiff", height=90, width=120, **profile) as file:
        file.write(picture(90, 120).transpose(2, 0, 1))
    return folder / name


def system_of(path: Path, folder: Path) -> Any:
    """The reference system that the output of a picture has, as GDAL reads it."""
    out = folder / "again.tif"
    ut.stylize(path, out, None, **SMALL, overwrite=True)
    with rasterio.open(out) as file:
        return file.crs


@pytest.mark.parametrize(
    "system", [one if one in BRIEF else pytest.param(one, marks=pytest.mark.slow) for one in SYSTEMS]
)
def test_a_picture_tells_its_system_without_gdals_file(tmp_path: Path, system: str) -> None:
    wanted = CRS.from_user_input(system)
    path, name = scene(tmp_path, system), {"EPSG:4326": "out.jpg", LAEA: "out.webp"}.get(system, "out.png")
    ut.stylize(path, tmp_path / name, None, **SMALL)
    text = (tmp_path / "out.prj").read_text()
    assert text.strip() == wanted.to_wkt(version="WKT1_ESRI") or system == LAEA
    (tmp_path / f"{name}.aux.xml").unlink(missing_ok=True)
    found = system_of(tmp_path / name, tmp_path)
    assert found.to_epsg() == wanted.to_epsg() and (system != LAEA or "azimuthal" in found.to_wkt().lower())
    assert ut.open_source(tmp_path / name).info.lost == ()


@pytest.mark.parametrize("system", SYSTEMS[:5] + SYSTEMS[6:7])
def test_names_of_esri_need_no_rasterio(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CRS.from_user_input(system).to_wkt(version="WKT1_ESRI")
    monkeypatch.setattr(esri_wkt, "library", lambda: None)
    assert esri_wkt._by_name(text) == epsg_keys(f'{text[:6]}["",AUTHORITY["EPSG","{system.split(":")[1]}"]]')
    assert esri_wkt._by_name(text) and esri_wkt.prj_text(esri_wkt._by_name(text)) is None


def world(folder: Path, prj: str, suffix: str = ".png") -> Path:
    path = folder / f"in{suffix}"
    pyvips.Image.new_from_array(picture(90, 120)).write_to_file(str(path))
    path.with_suffix({".png": ".pgw", ".tif": ".tfw"}[suffix]).write_text("10\n0\n0\n-10\n500005\n5199995\n")
    path.with_suffix(".prj").write_text(prj)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_prj_of_another_program_is_read(tmp_path: Path, suffix: str) -> None:
    path = world(tmp_path, CRS.from_epsg(2154).to_wkt(version="WKT1_ESRI"), suffix)
    source = ut.open_source(path)
    assert path.with_suffix(".prj") in source.files
    assert system_of(path, tmp_path).to_epsg() == 2154
    before = source.fingerprint
    path.with_suffix(".prj").write_text(CRS.from_epsg(32632).to_wkt())
    assert ut.open_source(path).fingerprint != before
    assert system_of(path, tmp_path).to_epsg() == 32632
    path.with_suffix(".pgw" if suffix == ".png" else ".tfw").unlink()
    assert path.with_suffix(".prj") not in ut.open_source(path).files  # a shapefile's, perhaps


def test_a_box_in_degrees_of_an_image_whose_system_gdal_does_not_see(tmp_path: Path) -> None:
    """That of a .prj, and that of a mosaic, which is no file."""
    whole = scene(tmp_path, LAEA)
    wanted = part_of(ut.open_source(whole), bbox=DEGREES, bbox_crs="EPSG:4326")
    assert wanted is not None and 0 < wanted.box.area < 90 * 120
    ut.stylize(whole, tmp_path / "out.png", None, **SMALL)
    (tmp_path / "out.png.aux.xml").unlink(missing_ok=True)
    (tmp_path / "tiles").mkdir()
    with rasterio.open(whole) as file:
        for number, x in enumerate((0, 70)):
            part = Window(x, 0, 70 if not x else 50, 90)
            place = {"width": part.width, "transform": Affine(10, 0, 7 + 10 * x, 0, -10, 47)}
            with rasterio.open(tmp_path / "tiles" / f"{number}.tif", "w", **file.profile | place) as tile:
                tile.write(file.read(window=part))
    for path in (tmp_path / "out.png", tmp_path / "tiles"):
        source = ut.open_source(path)
        assert source.shape == (90, 120)
        assert part_of(source, bbox=DEGREES, bbox_crs="EPSG:4326") == wanted


def test_what_is_no_wkt_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("Projection UTM\nZone 32\n", "PROJCS[nonsense", 'PROJCS["a",GEOGCS["b"]]', ""):
        info = ut.open_source(world(tmp_path, text)).info
        assert info.lost == ("the CRS of its .prj, which is no WKT",), text
        assert {tag.code for tag in info.geo} == {33550, 33922}
    own = world(tmp_path, CRS.from_epsg(2154).to_wkt(version="WKT1_ESRI"))
    esri_wkt.prj_block.cache_clear()
    monkeypatch.setattr(esri_wkt, "library", lambda: None)
    (said,) = ut.open_source(own).info.lost
    assert "needs rasterio" in said and "pip install" in said
    esri_wkt.prj_block.cache_clear()


def test_the_files_own_system_and_gdals_file_come_first(tmp_path: Path) -> None:
    path = world(tmp_path, CRS.from_epsg(2154).to_wkt(version="WKT1_ESRI"))
    path.with_name("in.png.aux.xml").write_text(
        "<PAMDataset><SRS dataAxisToSRSAxisMapping='1,2'>EPSG:32633</SRS></PAMDataset>"
    )
    assert system_of(path, tmp_path).to_epsg() == 32633
    tiff = scene(tmp_path, "EPSG:32632", "own.tif")
    tiff.with_suffix(".tfw").write_text("1\n0\n0\n-1\n5\n5\n")
    tiff.with_suffix(".prj").write_text(CRS.from_epsg(2154).to_wkt())
    assert system_of(tiff, tmp_path).to_epsg() == 32632


def test_the_prj_of_a_shapefile_stays(tmp_path: Path) -> None:
    path = scene(tmp_path, "EPSG:32632")
    (tmp_path / "out.shp").write_bytes(b"shapes")
    (tmp_path / "out.prj").write_text("theirs")
    ut.stylize(path, tmp_path / "out.png", None, **SMALL)
    tifffile.imwrite(tmp_path / "plain.tif", np.full((60, 80, 3), 99, np.uint8), photometric="rgb")
    ut.stylize(tmp_path / "plain.tif", tmp_path / "out.png", None, **SMALL, overwrite=True)
    assert (tmp_path / "out.prj").read_text() == "theirs" and not (tmp_path / "out.pgw").exists()
    (tmp_path / "out.shp").unlink()
    (tmp_path / "out.tfw").write_text("theirs")
    ut.stylize(path, tmp_path / "out.webp", None, **SMALL)
    assert (tmp_path / "out.prj").read_text() == "theirs"
    for suffix in (".tfw", ".wpw"):
        (tmp_path / "out").with_suffix(suffix).unlink()
    with pytest.raises(ut.BadInput, match=r"out\.prj exists"):
        ut.stylize(path, tmp_path / "out.jpg", None, **SMALL)
    ut.stylize(path, tmp_path / "out.png", None, **SMALL, overwrite=True)
    assert "UTM_Zone_32N" in (tmp_path / "out.prj").read_text()
    ut.stylize(tmp_path / "plain.tif", tmp_path / "out.png", None, **SMALL, overwrite=True)
    assert not (tmp_path / "out.prj").exists()
