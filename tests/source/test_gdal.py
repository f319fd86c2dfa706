"""Images that GDAL reads: pixels, validity, georeferencing and metadata are those of rasterio."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers import picture
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.shutil import copy
from rasterio.transform import Affine

import urst_tiles as ut
from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import gdal, gdal_facts, open_source
from urst_tiles.source.contents import contents_of
from urst_tiles.source.gdal_names import word_of

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

#: A pixel of the tiles of the web at zoom 16, in metres.
WEB = 156543.03392804097 / 2**16

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}

#: Driver -> suffix and options with which it writes a copy without loss.
DRIVERS: dict[str, tuple[str, dict[str, str]]] = {
    "ENVI": ("dat", {}), "HFA": ("img", {}), "GPKG": ("gpkg", {"TILE_FORMAT": "PNG"}),
    "MBTiles": ("mbtiles", {}), "JP2OpenJPEG": ("jp2", {"QUALITY": "100", "REVERSIBLE": "YES"}),
    "VRT": ("vrt", {}), "BMP": ("bmp", {}), "PCIDSK": ("pix", {}), "Zarr": ("zarr", {}), "MRF": ("mrf", {}),
    "ERS": ("ers", {}), "PDS4": ("xml", {}), "VICAR": ("vic", {}), "RRASTER": ("grd", {}), "KRO": ("kro", {}),
    "SGI": ("rgb", {}), "EHdr": ("bil", {}), "RMF": ("rsw", {}),
}  # fmt: skip

#: What a writing of rasterio changes in an open dataset.
Dress = Callable[[Any], None]


def tiff(path: Path, pixels: np.ndarray, dress: Dress = lambda data: None, **options: Any) -> Path:
    """A GeoTIFF of pixels (h, w, bands), in the tiles of the web."""
    placed = {"crs": "EPSG:3857", "transform": Affine(WEB, 0, 0, 0, -WEB, 0)}
    shape = {"height": pixels.shape[0], "width": pixels.shape[1], "count": pixels.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype, **shape | placed | options) as data:
        data.write(np.moveaxis(pixels, -1, 0))
        dress(data)
    return path


def vrt(path: Path, pixels: np.ndarray, dress: Dress = lambda data: None, **options: Any) -> Path:
    """A virtual dataset over such a GeoTIFF, which has everything that GDAL can say of an image."""
    copy(tiff(path.with_suffix(".tif"), pixels, dress, **options), path, driver="VRT")
    return path


def read(path: Path | str, **chosen: Any) -> np.ndarray:
    source = open_source(path, **chosen)
    return source.read(Box(0, 0, *source.shape))


@contextmanager
def by_rasterio(path: Path) -> Iterator[Any]:
    with rasterio.open(path) as data:
        yield data


def assert_as_rasterio(path: Path, output: Path) -> None:
    """An output made with the network identity has the pixels, the mask and the place of its input."""
    with by_rasterio(path) as before, by_rasterio(output) as after:
        rgb = [before.colorinterp.index(c) + 1 for c in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
               if c in before.colorinterp] or [1, 2, 3]  # fmt: skip
        mask = before.dataset_mask()
        np.testing.assert_array_equal(after.dataset_mask() > 0, mask > 0)
        seen = mask > 0
        for band, wanted in enumerate(rgb, 1):
            np.testing.assert_array_equal(after.read(band)[seen], before.read(wanted)[seen])
        copy(path, output.with_name("plain.tif"), driver="GTiff")
        with by_rasterio(output.with_name("plain.tif")) as plain:  # which may write the system in other words
            assert after.crs == plain.crs
        assert after.transform.almost_equals(before.transform, 1e-9)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_format_that_gdal_writes(tmp_path: Path, driver: str) -> None:
    suffix, options = DRIVERS[driver]
    pixels = picture(300, 260)
    source = tiff(tmp_path / "source.tif", pixels)
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / f"image.{suffix}"
    copy(source, path, driver=driver, **options)
    ut.stylize(path, tmp_path / "out.tif", None, **SMALL)
    with by_rasterio(path) as data:
        assert data.driver == driver
    assert_as_rasterio(path, tmp_path / "out.tif")


def test_nitf(tmp_path: Path) -> None:
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500000, 0, -10, 5200000)}
    copy(tiff(tmp_path / "a.tif", picture(200, 150), **place), tmp_path / "a.ntf", driver="NITF")
    ut.stylize(tmp_path / "a.ntf", tmp_path / "out.tif", None, **SMALL)
    with by_rasterio(tmp_path / "out.tif") as data:
        assert data.crs == "EPSG:32632"
        np.testing.assert_allclose(data.transform[:6], (10, 0, 500000, 0, -10, 5200000), atol=1e-3)
        np.testing.assert_array_equal(np.moveaxis(data.read(), 0, -1), picture(200, 150))


def test_nodata_of_one_value_and_of_one_for_each_band(tmp_path: Path) -> None:
    pixels = picture(80, 90)
    pixels[10:20, 10:30] = 7
    pixels[40:50, 10:30] = (7, 8, 9)
    one = vrt(tmp_path / "one.vrt", pixels, nodata=7)
    np.testing.assert_array_equal(read(one)[..., 3] > 0, rasterio.open(one).dataset_mask() > 0)
    assert open_source(one).info.validity == "nodata" and open_source(one).info.nodata == "7"
    each = tmp_path / "each.vrt"
    parts = one.read_text().split("<NoDataValue>7</NoDataValue>")
    marks = [f"<NoDataValue>{n}</NoDataValue>" for n in (7, 8, 9)]
    each.write_text("".join(a + b for a, b in zip(parts, [*marks, ""], strict=True)))
    assert rasterio.open(each).nodatavals == (7, 8, 9)
    valid = read(each)[..., 3] > 0
    np.testing.assert_array_equal(valid, rasterio.open(each).dataset_mask() > 0)
    assert not valid[45, 15] and valid[15, 15]
    ut.stylize(each, tmp_path / "out.tif", None, **SMALL)
    np.testing.assert_array_equal(rasterio.open(tmp_path / "out.tif").dataset_mask() > 0, valid)


@pytest.mark.parametrize("inside", [True, False])
def test_masks_in_the_file_and_beside_it(tmp_path: Path, inside: bool) -> None:
    pixels = picture(80, 90)
    shown = np.ones((80, 90), bool)
    shown[:, 30:60] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        path = vrt(tmp_path / "a.vrt", pixels, lambda data: data.write_mask(shown))
    if not inside:
        copy(tmp_path / "a.tif", tmp_path / "a.img", driver="HFA")
        shutil.copy(tmp_path / "a.tif.msk", tmp_path / "a.img.msk")
        path = tmp_path / "a.img"
        assert tmp_path / "a.img.msk" in open_source(path).files
    found = read(path)
    np.testing.assert_array_equal(found[..., 3] > 0, shown)
    np.testing.assert_array_equal(found[shown][:, :3], pixels[shown])
    assert open_source(path).info.validity == "mask"


def test_alpha_keeps_its_grades(tmp_path: Path) -> None:
    pixels = np.concatenate([picture(80, 90), picture(80, 90, 1)[..., :1]], -1)
    path = vrt(tmp_path / "a.vrt", pixels, photometric="RGB", alpha="YES")
    np.testing.assert_array_equal(read(path), pixels)
    assert open_source(path).info.validity == "alpha"


def test_colours_are_those_that_gdal_names(tmp_path: Path) -> None:
    pixels = np.concatenate([picture(80, 90), picture(80, 90, 1)[..., :1]], -1)

    def dress(data: Any) -> None:
        data.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
        data.descriptions = ("B02", "B03", "B04", "B08")

    path = vrt(tmp_path / "a.vrt", pixels, dress)
    np.testing.assert_array_equal(read(path), pixels[..., [2, 1, 0]])
    np.testing.assert_array_equal(read(path, bands=("B8", "B4", "B3")), pixels[..., [3, 2, 1]])
    assert "bands 3 (B04), 2 (B03) and 1 (B02)" in open_source(path).told
    assert [band.name for band in contents_of(path).bands] == ["B02", "B03", "B04", "B08"]
    with pytest.raises(BadInput, match="has no band 'B12'"):
        open_source(path, bands=("B12",))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    entries = picture(80, 90)[..., :1] % 4
    colours = {0: (10, 20, 30, 255), 1: (200, 0, 0, 255), 2: (0, 200, 0, 255), 3: (0, 0, 0, 0)}
    path = vrt(tmp_path / "a.vrt", entries, lambda data: data.write_colormap(1, colours))
    found, table = read(path), np.array([colours[i] for i in range(4)], np.uint8)
    if found.shape[-1] == 3:  # a TIFF keeps no alpha of its palette
        table = table[:, :3]
    np.testing.assert_array_equal(found, table[entries[..., 0]])
    text = path.read_text().replace('c1="0" c2="0" c3="0" c4="255"', 'c1="0" c2="0" c3="0" c4="0"')
    path.write_text(text)
    found = read(path)
    np.testing.assert_array_equal(found[..., 3] == 0, entries[..., 0] == 3)


def test_scale_and_offset_are_applied(tmp_path: Path) -> None:
    """A negative scale turns a picture of depths into one of heights; values of --stretch are physical."""
    values = (picture(80, 90)[..., :1].astype(np.int16)) * 100

    def dress(data: Any) -> None:
        data.scales, data.offsets = (-0.01,), (100.0,)

    path = vrt(tmp_path / "a.vrt", values, dress)
    source = open_source(path, stretch="0,100")
    assert source.file_dtype == np.float32
    physical = values[..., 0] * -0.01 + 100
    wanted = np.clip(np.rint(physical / 100 * 65535), 0, 65535)
    assert np.abs(source.read(Box(0, 0, 80, 90))[..., 0] - wanted).max() <= 1


def test_overviews_serve_thumbnails_and_hold_their_masks(tmp_path: Path) -> None:
    pixels = picture(512, 700)
    path = tmp_path / "a.img"
    copy(tiff(tmp_path / "a.tif", pixels), path, driver="HFA")
    with rasterio.open(path, "r+") as data:
        data.build_overviews([2, 4])
    source = open_source(path)
    assert source.overviews == [(256, 350), (128, 175)]
    small = source.prepare(None, thumbnail=30)
    assert small.thumbnail_origin == "overview 175 x 128 of the file"
    assert np.abs(small.thumbnail.astype(float).mean() - pixels.mean()) < 4
    whole = open_source(path, overviews=False).prepare(None, thumbnail=30)
    assert whole.thumbnail_origin == "one streamed pass"


def test_points_polynomials_and_items_are_carried(tmp_path: Path) -> None:
    corners = [(0, 0, 11.0, 47.0), (0, 90, 11.5, 47.1), (80, 0, 11.0, 46.5)]
    points = [GroundControlPoint(row, col, x, y, 0.0) for row, col, x, y in corners]

    def with_points(data: Any) -> None:
        data.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
        data.update_tags(PLATFORM="Sentinel", STATISTICS_MEAN="3")

    path = vrt(tmp_path / "a.vrt", picture(80, 90), with_points, crs=None, transform=None)
    ut.stylize(path, tmp_path / "out.tif", None, **SMALL)
    with by_rasterio(tmp_path / "out.tif") as data:
        found, system = data.gcps
        assert system.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y) for p in found] == corners
        assert data.tags()["PLATFORM"] == "Sentinel" and "STATISTICS_MEAN" not in data.tags()
    numbers = [float(i) for i in range(1, 21)]
    rpcs = RPC(100, 10, 47, 5, numbers, numbers, 40, 45, 11, 5, numbers, numbers, 45, 46, 0.5, 0.25)
    path = vrt(
        tmp_path / "b.vrt", picture(80, 90), lambda d: setattr(d, "rpcs", rpcs), crs=None, transform=None
    )
    ut.stylize(path, tmp_path / "out2.tif", None, **SMALL)
    with by_rasterio(path) as before, by_rasterio(tmp_path / "out2.tif") as after:
        assert before.rpcs.to_dict() == after.rpcs.to_dict()


def test_a_point_is_no_area(tmp_path: Path) -> None:
    path = vrt(tmp_path / "a.vrt", picture(80, 90), lambda d: d.update_tags(AREA_OR_POINT="Point"))
    ut.stylize(path, tmp_path / "out.tif", None, **SMALL)
    with by_rasterio(path) as before, by_rasterio(tmp_path / "out.tif") as after:
        assert after.tags()["AREA_OR_POINT"] == before.tags()["AREA_OR_POINT"] == "Point"
        assert after.transform.almost_equals(before.transform)


def test_a_picture_that_lies_nowhere_has_no_place(tmp_path: Path) -> None:
    """GDAL's driver of Netpbm leaves the transform that a picture does not have as it finds it in memory."""
    for name in ("a.ppm", "a.pgm"):
        Image.fromarray(picture(80, 90) if name == "a.ppm" else picture(80, 90)[..., 0]).save(tmp_path / name)
        assert open_source(tmp_path / name).info.geo == ()
        np.testing.assert_array_equal(read(tmp_path / name)[..., 0], picture(80, 90)[..., 0])
    (tmp_path / "a.wld").write_text("10\n0\n0\n-10\n5\n-5\n")
    geo = {tag.code: tag.value for tag in open_source(tmp_path / "a.ppm").info.geo}
    assert geo[33550][:2] == (10.0, 10.0) and geo[33922][3:5] == (0.0, 0.0)


def test_many_threads_read_the_same_pixels(tmp_path: Path) -> None:
    pixels = picture(1100, 1300)
    copy(tiff(tmp_path / "a.tif", pixels), tmp_path / "a.jp2", driver="JP2OpenJPEG", QUALITY="100",
         REVERSIBLE="YES", BLOCKXSIZE="256", BLOCKYSIZE="256")  # fmt: skip
    source = open_source(tmp_path / "a.jp2").prepare(None, thumbnail=64)
    np.testing.assert_array_equal(source.read(Box(0, 0, 1100, 1300)), pixels)
    np.testing.assert_array_equal(source.read(Box(1001, 77, 1093, 1211)), pixels[1001:1093, 77:1211])


def test_another_file_of_a_virtual_dataset_is_another_image(tmp_path: Path) -> None:
    path = vrt(tmp_path / "a.vrt", picture(80, 90))
    before = open_source(path)
    assert set(before.files) == {path, tmp_path / "a.tif"}
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata>'
        "</PAMRasterBand></PAMDataset>"
    )
    assert open_source(path).fingerprint == before.fingerprint  # statistics make no other image
    prepared = before.prepare(tmp_path / "job", thumbnail=32)
    tiff(tmp_path / "a.tif", picture(80, 90, 5))
    assert open_source(path).fingerprint != before.fingerprint
    with pytest.raises(DamagedFile, match="was changed while in use"):
        prepared.read(Box(0, 0, 80, 90))


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    copy(tiff(tmp_path / "a.tif", picture(300, 260)), tmp_path / "a.jp2", driver="JP2OpenJPEG")
    whole = (tmp_path / "a.jp2").read_bytes()
    (tmp_path / "b.jp2").write_bytes(whole[:120])
    with pytest.raises((DamagedFile, BadInput), match=r"b\.jp2"):
        open_source(tmp_path / "b.jp2")
    path = vrt(tmp_path / "c.vrt", picture(80, 90))
    path.write_text(path.read_text().replace(">c.tif<", ">gone.tif<"))
    with pytest.raises(DamagedFile, match=r"c\.vrt names .*gone\.tif, which does not exist"):
        open_source(path)
    (tmp_path / "gone.tif").write_bytes((tmp_path / "c.tif").read_bytes()[:30])
    with pytest.raises(DamagedFile, match=r"gone\.tif"):
        open_source(path)


def test_a_damaged_source_of_a_virtual_dataset_stays_damaged(tmp_path: Path) -> None:
    """GDAL says once that it cannot be read, and returns zeros after that."""
    pixels = picture(600, 700)
    path = vrt(tmp_path / "a.vrt", pixels, compress="deflate", tiled=True, blockxsize=256, blockysize=256)
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(200_000)
        file.write(bytes(300_000))
    source = open_source(path)
    for _ in range(3):
        with pytest.raises(DamagedFile, match="GDAL says"):
            source.read(Box(0, 0, 600, 700))


def test_no_code_and_no_network_in_virtual_datasets(tmp_path: Path) -> None:
    path = vrt(tmp_path / "a.vrt", picture(80, 90))
    told = path.read_text()
    python = told.replace(
        '<VRTRasterBand dataType="Uint8" band="1"',
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand"',
    ).replace('<VRTRasterBand dataType="Byte" band="1"',
              '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand"')  # fmt: skip
    code = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode><![CDATA[\ndef f(*a, **k):\n  open('{tmp_path}/ran', 'w')\n]]>"
        "</PixelFunctionCode>"
    )
    head, _, tail = python.partition("<SimpleSource>")
    assert "VRTDerivedRasterBand" in head
    (tmp_path / "code.vrt").write_text(f"{head}{code}<SimpleSource>{tail}")
    with rasterio.Env(GDAL_VRT_ENABLE_PYTHON="YES"), pytest.raises(DamagedFile):
        read(tmp_path / "code.vrt")
    assert not (tmp_path / "ran").exists()
    for name in ("/vsicurl/http://127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif", "WMS:http://127.0.0.1:9/"):
        (tmp_path / "net.vrt").write_text(told.replace(">a.tif<", f">{name}<"))
        with pytest.raises(BadInput, match=r"net\.vrt leads to .*on a network"):
            open_source(tmp_path / "net.vrt")
    (tmp_path / "far.xml").write_text("<GDAL_WMS><Service name='TMS'/></GDAL_WMS>")
    (tmp_path / "inner.vrt").write_text(told.replace(">a.tif<", ">far.xml<"))
    (tmp_path / "outer.vrt").write_text(told.replace(">a.tif<", ">inner.vrt<"))
    for name in ("far.xml", "outer.vrt"):
        with pytest.raises(BadInput, match="on a network"):
            open_source(tmp_path / name)


def test_without_the_extra_the_refusal_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = vrt(tmp_path / "a.vrt", picture(80, 90))
    for module in (gdal, gdal_facts):
        monkeypatch.setattr(module, "library", lambda: None)
    with pytest.raises(BadInput, match=r"pip install 'urst-tiles\[gdal\]'"):
        open_source(path)
    with pytest.raises(BadInput, match=r"pip install 'urst-tiles\[gdal\]'"):
        open_source("https://127.0.0.1:9/a.tif")


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A GeoPackage of three images, two of which have the same size."""
    path = tmp_path / "tables.gpkg"
    for i, (name, side) in enumerate((("small", 40), ("large", 90), ("other", 90))):
        more = {"APPEND_SUBDATASET": "YES"} if i else {}
        one = tiff(tmp_path / f"{name}.tif", picture(side, side, i))
        copy(one, path, driver="GPKG", TILE_FORMAT="PNG", RASTER_TABLE=name, **more)
    return path


def test_subdatasets_are_pages(tables: Path) -> None:
    pages = contents_of(tables).pages
    assert [page.name.lower() for page in pages] == ["small", "large", "other"]
    assert [page.shape for page in pages] == [(40, 40), (90, 90), (90, 90)]
    source = open_source(tables)
    assert source.shape == (90, 90) and source.told.lower() == "page 2 (large) of 3"
    for number, page in enumerate(pages, 1):
        expected = picture(*page.shape, number - 1)
        word = page.name if number == 2 else number
        np.testing.assert_array_equal(read(tables, page=word)[..., :3], expected)
    with pytest.raises(BadInput, match="has no page 'none'"):
        open_source(tables, page="none")


def test_names_of_subdatasets() -> None:
    names = {
        'NETCDF:"/a b/c:d.nc":temp': "temp", 'HDF5:"/a/b.h5"://group/data': "group/data",
        "SENTINEL2_L1C:/a/MTD_MSIL1C.xml:10m:EPSG_32632": "10m:EPSG_32632", "GPKG:/a/b.gpkg:TABLE": "TABLE",
        'ZARR:"/a/b.zarr":/0/1': "0/1", "NITF_IM:2:/a/b.ntf": "",
    }  # fmt: skip
    assert {name: word_of(name) for name in names} == names


@pytest.mark.parametrize("driver", ["ENVI", "HFA"])
def test_one_band_becomes_three_channels(driver: str, tmp_path: Path) -> None:
    """Also where bands are read straight into pixels."""
    grey = picture(90, 70)[..., :1]
    copy(tiff(tmp_path / "a.tif", grey), tmp_path / "a.img", driver=driver)
    np.testing.assert_array_equal(read(tmp_path / "a.img"), np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(read(tmp_path / "a.img", bands=("all",)), grey)


def test_a_thread_that_decodes_has_the_options_of_what_it_reads() -> None:
    """It stays in those for files of this machine, and leaves them for an address."""

    def allowed(remote: bool) -> tuple[str | None, int]:
        with gdal.environment(remote):
            return rasterio.env.get_gdal_config("CPL_VSIL_CURL_ALLOWED_FILENAME"), id(rasterio.env.local._env)

    with ThreadPoolExecutor(1, thread_name_prefix="urst-decode") as pool:
        found = [pool.submit(allowed, remote).result() for remote in (False, False, True, False, True)]
        assert not pool.submit(lambda: rasterio.env.hasenv()).result()
    local = "/nothing/on/the/network"
    assert [option for option, _ in found] == [local, local, None, local, None]
    assert found[0][1] == found[1][1]
    assert allowed(False)[0] == local and not rasterio.env.hasenv()
