"""Names of reference systems, rational polynomials and control points arrive as GDAL reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import geotiff, picture
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine

import urst_tiles as ut
from urst_tiles.source import open_source
from urst_tiles.tiff.georeference import epsg_keys, read_pam, rpc_text_tag

OPTIONS = {"model": "identity", "tile": 128, "block": 256, "precision": "float32"}

WKT = (
    'PROJCS["Österreich / Süd",GEOGCS["MGI größer",DATUM["Militärgeographisches Institut",'
    'SPHEROID["Bessel 1841",6377397.155,299.1528128]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",13.3333],'
    'PARAMETER["scale_factor",1],PARAMETER["false_easting",450000],PARAMETER["false_northing",-5000000],'
    'UNIT["metre",1]]'
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def made(path: Path, **more: object) -> Path:
    """A GeoTIFF by GDAL."""
    settings = {
        "driver": "GTiff",
        "height": 64,
        "width": 96,
        "count": 3,
        "dtype": "uint8",
        "photometric": "RGB",
    }
    with rasterio.open(path, "w", **(settings | more)) as data:
        data.write(np.moveaxis(picture(64, 96), -1, 0))
    return path


def stylized(path: Path) -> Path:
    out = path.with_name("out.tif")
    ut.stylize(path, out, path, overwrite=True, **OPTIONS)
    return out


def test_names_of_a_crs_arrive_byte_for_byte(tmp_path: Path) -> None:
    path = made(tmp_path / "in.tif", crs=CRS.from_wkt(WKT), transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    with rasterio.open(path) as before, rasterio.open(stylized(path)) as after:
        assert before.crs == after.crs and "Österreich / Süd" in after.crs.to_wkt()
    latin = "größer|".encode("latin-1")
    keys = (34735, 3, 8, (1, 1, 0, 1, 1026, 34737, len(latin), 0), True)
    geotiff(path, picture(64, 96), extratags=[keys, (34737, 2, None, latin + b"\0", True)])
    assert latin in stylized(path).read_bytes()


def rpc() -> RPC:
    numbers = [round(0.001 * i, 3) for i in range(20)]
    divisors = [1.0, *numbers[1:]]
    places = {"lat_off": 40, "long_off": 10, "height_off": 100, "line_off": 32, "samp_off": 48}
    scales = {"lat_scale": 0.1, "long_scale": 0.1, "height_scale": 500, "line_scale": 32, "samp_scale": 48}
    tops = {"line_num_coeff": numbers, "samp_num_coeff": numbers}
    bottoms = {"line_den_coeff": divisors, "samp_den_coeff": divisors}
    return RPC(**places, **scales, **tops, **bottoms, err_bias=1.5, err_rand=0.5)


def numbers_of(found: RPC | None) -> dict[str, list[float]]:
    """The numbers of an RPC by GDAL's names."""
    return {
        name: [float(word) for word in text.split()]
        for name, text in (found.to_gdal() if found else {}).items()
    }


def text_of(values: RPC, sidecar: str) -> str:
    """The text of a sidecar of RPC."""
    found = values.to_gdal()
    if sidecar.endswith(("TXT", "txt")):
        lines = [f"{name}: {text} units" for name, text in found.items() if "COEFF" not in name]
        for name, text in found.items():
            if "COEFF" in name:
                lines += [f"{name}_{i}: {word}" for i, word in enumerate(text.split(), 1)]
        return "\n".join(lines)
    names = {"OFF": "Offset", "SCALE": "Scale"}
    lines = ['satId = "QB02";', "BEGIN_GROUP = IMAGE"]
    for name, text in found.items():
        first, *rest = name.lower().split("_")
        if "coeff" in rest:
            lines.append(f"{first}{rest[0].title()}Coef = (\n {', '.join(text.split())});")
        else:
            lines.append(f"{first}{names.get(rest[0].upper(), rest[0].title())} = {text};")
    return "\n".join([*lines, "END_GROUP = IMAGE", "END;"])


@pytest.mark.parametrize("sidecar", ["", "in_RPC.TXT", "in_rpc.txt", "in.RPB"])
def test_rpc_arrive(sidecar: str, tmp_path: Path) -> None:
    path = made(tmp_path / "in.tif")
    if sidecar:
        (tmp_path / sidecar).write_text(text_of(rpc(), sidecar))
    else:
        with rasterio.open(path, "r+") as data:
            data.rpcs = rpc()
    with rasterio.open(stylized(path)) as after:
        found = after.rpcs
    assert numbers_of(found) == numbers_of(rpc())
    assert not sidecar or tmp_path / sidecar in open_source(path).files


def test_half_an_rpc_is_none() -> None:
    text = text_of(rpc(), "a.RPB")
    assert rpc_text_tag(text) is not None
    assert rpc_text_tag(text.replace("lineScale", "other")) is None and rpc_text_tag("") is None


POINTS = [
    GroundControlPoint(row, column, 500000 + 10 * column, 5e6 - 10 * row, 7.0)
    for row, column in ((0, 0), (0, 96), (64, 0), (64, 96), (30, 40))
]


def test_ground_control_points_arrive(tmp_path: Path) -> None:
    path = made(tmp_path / "in.tif")
    with rasterio.open(path, "r+") as data:
        data.gcps = POINTS, CRS.from_epsg(32632)
    with rasterio.open(path) as before, rasterio.open(stylized(path)) as after:
        (old, crs), (new, same) = before.gcps, after.gcps
        assert [(p.row, p.col, p.x, p.y, p.z) for p in new] == [(p.row, p.col, p.x, p.y, p.z) for p in old]
        assert crs == same and len(new) == 5


@pytest.mark.parametrize("kind", ["transform", "points", "rpc"])
def test_pam_says_what_gdal_says(kind: str, tmp_path: Path) -> None:
    """The .aux.xml that GDAL writes beside a PNG, which can hold nothing of this itself."""
    path, crs = tmp_path / "in.png", CRS.from_epsg(32632)
    settings = {"transform": Affine(10, 0, 5e5, 0, -20, 5e6), "crs": crs} if kind == "transform" else {}
    with rasterio.open(
        path, "w", driver="PNG", height=64, width=96, count=3, dtype="uint8", **settings
    ) as data:
        data.write(np.moveaxis(picture(64, 96), -1, 0))
        if kind == "points":
            data.gcps = POINTS, crs
        if kind == "rpc":
            data.rpcs = rpc()
        data.update_tags(ACQUISITION="2024-05-01")
    assert (tmp_path / "in.png.aux.xml").exists()
    with rasterio.open(path) as before, rasterio.open(stylized(path)) as after:
        assert after.transform == before.transform and after.crs == before.crs
        assert len(after.gcps[0]) == len(before.gcps[0]) and after.gcps[1] == before.gcps[1]
        assert numbers_of(after.rpcs) == numbers_of(before.rpcs)
        assert (after.rpcs is not None) == (kind == "rpc")
        assert after.tags()["ACQUISITION"] == "2024-05-01"


def test_pam_comes_before_the_file(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "in.tif", picture(64, 96))
    place = "<PAMDataset><GeoTransform> 1.0, 2.0, 0.0, 3.0, 0.0, -4.0</GeoTransform></PAMDataset>"
    (tmp_path / "in.tif.aux.xml").write_text(place)
    with rasterio.open(path) as before, rasterio.open(stylized(path)) as after:
        assert after.transform == before.transform and after.transform.a == 2 and after.crs == before.crs


def test_statistics_alone_are_nothing_and_the_rest_is_said(tmp_path: Path) -> None:
    path, pam = geotiff(tmp_path / "in.tif", picture(64, 96)), tmp_path / "in.tif.aux.xml"
    band = '<PAMRasterBand band="1">{}<Metadata><MDI key="STATISTICS_MEAN">7</MDI></Metadata></PAMRasterBand>'
    pam.write_text(f"<PAMDataset>{band.format('')}</PAMDataset>")
    assert pam not in open_source(path).files and open_source(path).info.lost == ()
    srs = f"<SRS>{WKT}</SRS>"
    pam.write_text(f"<PAMDataset>{srs}{band.format('<NoDataValue>0</NoDataValue>')}</PAMDataset>")
    lost = ", ".join(open_source(path).info.lost)
    assert (
        "gdal_edit -a_srs" in lost and open_source(path).info.nodata == "0" and pam in open_source(path).files
    )
    for text in ("", "no xml", "<other/>", '<!DOCTYPE a [<!ENTITY b "c">]><PAMDataset/>'):
        assert read_pam(text) == read_pam("")


def test_codes_of_epsg() -> None:
    for code, kind, key in ((32632, 1, 3072), (4326, 2, 2048)):
        (tag,) = epsg_keys(CRS.from_epsg(code).to_wkt())
        assert tag.value[7] == kind and tag.value[12] == key and tag.value[15] == code
    assert epsg_keys(WKT) == () and epsg_keys("") == ()
