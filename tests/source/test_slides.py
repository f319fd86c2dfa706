"""Slides that OpenSlide reads, and levels: of slides, of TIFFs, and of what GDAL reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import rasterio
from helpers import geotiff, picture
from rasterio.shutil import copy
from slide_files import write_dicom, write_ndpi

import urst_tiles as ut
from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source, slides
from urst_tiles.source import openslide as by_openslide
from urst_tiles.source.contents import contents_of
from urst_tiles.source.level import reduced
from urst_tiles.tiff.metadata import Info, Tag

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}


def whole(path: Path, level: int = 0) -> np.ndarray:
    """A level of a slide by OpenSlide itself, uint8 (h, w, 4)."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))


def read(path: Path, **chosen: object) -> np.ndarray:
    source = open_source(path, **chosen)
    return source.read(Box(0, 0, *source.shape))


@pytest.fixture
def ndpi(tmp_path: Path) -> Path:
    return write_ndpi(tmp_path / "a.ndpi", picture(512, 768))


def test_a_slide_of_hamamatsu(ndpi: Path, tmp_path: Path) -> None:
    source = open_source(ndpi)
    assert source.shape == (512, 768) and source.overviews[0] == (256, 384) and source.random_access
    np.testing.assert_array_equal(read(ndpi), whole(ndpi))
    np.testing.assert_array_equal(source.read(Box(100, 33, 411, 702)), whole(ndpi)[100:411, 33:702])
    assert source.info.microns_per_pixel == pytest.approx((0.25, 0.25)) and source.info.magnification == 20
    page = contents_of(ndpi).pages[0]
    assert page.shape == (512, 768) and len(page.levels) == len(source.overviews)
    ut.stylize(ndpi, tmp_path / "out.tif", None, **SMALL)
    with rasterio.open(tmp_path / "out.tif") as data:
        np.testing.assert_array_equal(np.moveaxis(data.read(), 0, -1), whole(ndpi)[..., :3])
    with openslide.OpenSlide(tmp_path / "out.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
    with pytest.raises(BadInput, match="has no page 'macro'"):  # never taken for the slide
        open_source(ndpi, page="macro")


def test_a_slide_is_known_by_its_tags(ndpi: Path, tmp_path: Path) -> None:
    shutil.copy(ndpi, tmp_path / "b.tif")
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), whole(ndpi))
    assert contents_of(tmp_path / "b.tif").pages[0].shape == (512, 768)


def test_what_the_scanner_left_out_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "slide").mkdir()
    pixels = picture(200, 300)
    path = write_dicom(tmp_path / "slide" / "a.dcm", pixels, without={3, 6})
    found = read(path)
    np.testing.assert_array_equal(found, whole(path))
    gone = np.zeros((200, 300), bool)
    gone[:64, 192:256] = gone[64:128, 64:128] = True
    np.testing.assert_array_equal(found[..., 3] == 0, gone)
    assert np.abs(found[..., :3].astype(int) - pixels)[~gone].mean() < 3
    ut.stylize(path, tmp_path / "out.tif", None, **SMALL)
    with rasterio.open(tmp_path / "out.tif") as data:
        np.testing.assert_array_equal(data.dataset_mask() == 0, gone)
    source = open_source(path)
    assert source.info.microns_per_pixel == pytest.approx((0.5, 0.5)) and source.info.magnification == 20


def test_a_file_of_the_same_slide_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(200, 300))
    (tmp_path / "b.dcm").write_bytes(bytes(128) + b"DICM")
    assert set(by_openslide.files_of(path)) == {path, tmp_path / "b.dcm"}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"1")
    (tmp_path / "m.mrxs").write_bytes(b"1")
    assert by_openslide.files_of(tmp_path / "m.mrxs") == (
        tmp_path / "m.mrxs",
        tmp_path / "m" / "Data0000.dat",
    )
    (tmp_path / "v.jpg").write_bytes(b"1")
    (tmp_path / "v.vms").write_text("[Virtual Microscope Specimen]\nImageFile=v.jpg\nMapFile=gone.jpg\n")
    assert by_openslide.files_of(tmp_path / "v.vms") == (tmp_path / "v.vms", tmp_path / "v.jpg")


def test_a_cut_slide_is_damaged(ndpi: Path, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(200, 300))
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises((DamagedFile, BadInput), match=r"a\.dcm"):
        read(path)


def test_without_the_extra_the_refusal_names_it(ndpi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_openslide, "library", lambda: None)
    monkeypatch.setattr(slides, "openslide", lambda: None)
    with pytest.raises(BadInput, match=r"Hamamatsu.*pip install 'urst-tiles\[slides\]'"):
        open_source(ndpi)


def test_a_level_of_a_slide(ndpi: Path, tmp_path: Path) -> None:
    half = open_source(ndpi, level=1)
    assert half.shape == (256, 384) and half.info.magnification == 10
    assert half.info.microns_per_pixel == pytest.approx((0.5, 0.5))
    np.testing.assert_array_equal(read(ndpi, level=1), whole(ndpi, 1))
    np.testing.assert_array_equal(read(ndpi, magnification=10.3), whole(ndpi, 1))
    assert open_source(ndpi).fingerprint != half.fingerprint
    assert open_source(ndpi, level=0).fingerprint == open_source(ndpi).fingerprint
    with pytest.raises(
        BadInput, match=r"no level of magnification 7, .*0 \(768 x 512, 20x\), 1 \(384 x 256, 10x\)"
    ):
        open_source(ndpi, magnification=7)
    with pytest.raises(BadInput, match="has no level 9"):
        open_source(ndpi, level=9)
    ut.stylize(ndpi, tmp_path / "out.tif", None, level=1, **SMALL)
    with openslide.OpenSlide(tmp_path / "out.tif") as slide:
        assert slide.dimensions == (384, 256)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


@pytest.mark.parametrize("driver", ["COG", "HFA"])
def test_a_level_lies_where_the_image_lies(driver: str, tmp_path: Path) -> None:
    pixels = picture(1024, 1400)
    geotiff(tmp_path / "a.tif", pixels)
    path = tmp_path / ("b.tif" if driver == "COG" else "b.img")
    copy(tmp_path / "a.tif", path, driver=driver)
    if driver == "HFA":
        with rasterio.open(path, "r+") as data:
            data.build_overviews([2, 4])
    source = open_source(path, level=1).prepare(tmp_path / "job", thumbnail=32)
    with rasterio.open(path, OVERVIEW_LEVEL=0) as data:
        assert source.shape == data.shape == (512, 700)
        np.testing.assert_array_equal(
            source.read(Box(0, 0, 512, 700))[..., :3], np.moveaxis(data.read(), 0, -1)
        )
        ut.stylize(path, tmp_path / "out.tif", None, level=1, **SMALL)
        with rasterio.open(tmp_path / "out.tif") as out:
            assert out.transform.almost_equals(data.transform, 1e-9) and out.crs == data.crs
    with pytest.raises(BadInput, match="does not tell its magnification"):
        open_source(path, magnification=10)


def test_both_names_of_a_level_are_one_too_many() -> None:
    for wrong in ({"level": 1, "magnification": 10.0}, {"level": -1}, {"magnification": 0.0}):
        with pytest.raises(BadInput, match="--level|--magnification"):
            ut.Options(**wrong)


def test_places_on_the_ground_of_pixels_that_are_points() -> None:
    """The centre of the first pixel of a level of half the size is the corner of four pixels."""
    keys = Tag(34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 2))
    scale, tie = Tag(33550, 12, 3, (10.0, 10.0, 0.0)), Tag(33922, 12, 6, (0.0, 0.0, 0.0, 500.0, 900.0, 0.0))
    geo = {tag.code: tag.value for tag in reduced(Info(geo=(scale, tie, keys)), 2, 2).geo}
    assert geo[33550] == (20.0, 20.0, 0.0) and geo[33922][:2] == (-0.25, -0.25)
    x = geo[33922][3] + (0 - geo[33922][0]) * geo[33550][0]
    assert x == 500 + 5
    matrix = Tag(34264, 12, 16, (10.0, 1.0, 0, 500.0, 2.0, -10.0, 0, 900.0, *[0.0] * 7, 1.0))
    (found,) = (tag for tag in reduced(Info(geo=(keys, matrix)), 2, 2).geo if tag.code == 34264)
    assert found.value[:4] == (20.0, 2.0, 0, 505.5) and found.value[4:8] == (4.0, -20.0, 0, 896.0)
