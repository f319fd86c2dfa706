"""Which pixels are valid, and which samples are a picture at all: as GDAL says, or the stream itself."""

from __future__ import annotations

import logging
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from meaning import ALPHA, HOLE, RGB, X, Y, gdal, make, read, write

from urst_tiles.cli import main
from urst_tiles.errors import BadInput
from urst_tiles.source import open_source
from urst_tiles.source.valid import has_data, nodata_value
from urst_tiles.tiff.types import ASCII

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


# --- validity in the streams

LERCS = ["LERC", "LERC_DEFLATE", "LERC_ZSTD"]
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


@pytest.mark.parametrize("compress", LERCS)
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("tiled", [True, False])
def test_lerc_of_rgba(compress: str, interleave: str, tiled: bool, tmp_path: Path) -> None:
    """GDAL stores alpha of 0 and 255 as three bands and a mask."""
    bands = np.concatenate([np.moveaxis(RGB, -1, 0), ALPHA[None]])
    options = {"compress": compress, "interleave": interleave, "photometric": "RGB", "alpha": "YES"}
    path = make(tmp_path / "a.tif", bands, **options, **(TILED if tiled else {}))
    found, (expected, _) = read(path), gdal(path)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[..., 3], ALPHA)
    assert open_source(path).info.validity == "alpha"


@pytest.mark.parametrize("compress", LERCS)
@pytest.mark.parametrize("alpha", ["opaque", "none", "partial", "premultiplied"])
def test_lerc_of_other_alpha(compress: str, alpha: str, tmp_path: Path) -> None:
    values = {"opaque": ALPHA | 255, "none": ALPHA * 0, "partial": np.maximum(ALPHA, 77)}.get(alpha, ALPHA)
    bands = np.concatenate([np.moveaxis(RGB, -1, 0), values[None]])
    kind = "PREMULTIPLIED" if alpha == "premultiplied" else "YES"
    path = make(tmp_path / "a.tif", bands, compress=compress, photometric="RGB", alpha=kind)
    found = read(path)
    np.testing.assert_array_equal(found[..., 3], values)
    np.testing.assert_array_equal(found[values == 255][..., :3], RGB[values == 255])


@pytest.mark.parametrize("compress", LERCS)
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("holes", ["in all bands", "in a band"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_lerc_of_nan(
    compress: str, tiled: bool, dtype: str, holes: str, interleave: str, tmp_path: Path
) -> None:
    bands = np.moveaxis(RGB.astype(dtype), -1, 0).copy()
    bands[slice(None) if holes == "in all bands" else 1, HOLE] = np.nan
    options = {"compress": compress, "interleave": interleave} | (TILED if tiled else {})
    path = make(tmp_path / "a.tif", bands, **options)
    found = read(path)
    np.testing.assert_array_equal(found[..., 3], np.where(HOLE, 0, 65535))
    np.testing.assert_array_equal(found[~HOLE][..., :3], RGB[~HOLE])


@pytest.mark.parametrize("behind", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4"])
def test_lerc_of_integers(behind: int, dtype: str, tmp_path: Path) -> None:
    """GDAL's library drops the mask of integers and reads 0 there; Esri's own readers do not."""
    pack: Callable[[bytes], bytes] = [bytes, zlib.compress, imagecodecs.zstd_encode][behind]
    values, kind = (X + Y).astype(dtype), np.dtype(dtype)
    tags = {"_259": 34887, "_339": 2 if kind.kind == "i" else 1, "_50674": (4, behind)}
    for mask, channels in ((~HOLE, 4), (None, 3)):
        stream = pack(imagecodecs.lerc_encode(values, masks=mask))
        path = write(tmp_path / f"{channels}.tif", stream, 1, (8 * kind.itemsize,), **tags)
        found = read(path)
        assert found.shape[-1] == channels
        if mask is not None:
            np.testing.assert_array_equal(found[..., 3] > 0, mask)
            np.testing.assert_array_equal(found[mask][..., 0], values[mask])
            assert open_source(path).info.validity == "mask"


ENCODERS: dict[int, Callable[[np.ndarray], bytes]] = {
    50001: lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    50002: lambda pixels: imagecodecs.jpegxl_encode(pixels, lossless=True),
    52546: lambda pixels: imagecodecs.jpegxl_encode(pixels, lossless=True),
    33004: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0),
    34712: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"),
}  # fmt: skip


@pytest.mark.parametrize("compression", ENCODERS)
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("colours", [3, 1])
def test_alpha_in_streams(compression: int, listed: bool, colours: int, tmp_path: Path) -> None:
    """It counts, whether or not the directory lists the band."""
    if compression == 50001 and colours == 1:
        pytest.skip("WebP has three bands of colour")
    pixels = np.ascontiguousarray(np.dstack([RGB[..., :colours], np.maximum(ALPHA, 9)]))
    bits = (8,) * (colours + listed)
    more = {"_338": 2} if listed else {}
    path = write(
        tmp_path / "a.tif",
        ENCODERS[compression](pixels),
        2 if colours == 3 else 1,
        bits,
        _259=compression,
        **more,
    )
    found = read(path)
    np.testing.assert_array_equal(
        found, np.dstack([np.broadcast_to(pixels[..., :colours], RGB.shape), pixels[..., -1]])
    )
    assert open_source(path).info.validity == "alpha"
    opaque = ENCODERS[compression](np.ascontiguousarray(pixels[..., :colours]))
    path = write(tmp_path / "b.tif", opaque, 2 if colours == 3 else 1, (8,) * colours, _259=compression)
    assert read(path).shape[-1] == 3


@pytest.mark.parametrize("mode", ["palette", "grey", "rgb", "grey16"])
def test_transparent_colours_of_png(mode: str, tmp_path: Path) -> None:
    """The chunk tRNS; the wanted pixels are those that GDAL takes for invalid."""
    from PIL import Image

    path, options = (
        tmp_path / "a.png",
        {"palette": bytes([0, 255]), "grey": 5, "rgb": (195, 65, 5), "grey16": 500},
    )
    image = Image.fromarray({"rgb": RGB, "grey16": (X * 100).astype(np.uint16)}.get(mode, X.astype(np.uint8)))
    if mode == "palette":
        image = Image.fromarray(HOLE.astype(np.uint8) ^ 1).convert("P")
        image.putpalette([1, 2, 3, 40, 50, 60])
    image.save(path, transparency=options[mode])
    np.testing.assert_array_equal(read(path)[..., 3] > 0, gdal(path)[1])
    assert not gdal(path)[1].all()


# --- nodata

LARGEST = 3.4028234663852886e38
NODATA: dict[str, list[tuple[str, list[float]]]] = {
    "float32": [(text, [-LARGEST, -3.4e38, -1e38, 1e38, 5, 0]) for text in
                ("-3.4e+38", "-3.40282e+38", "-3.4028234663852886e+38", "-3.40282346638529e+38", "-1e38")]
             + [("1e20", [1e20, 1.000001e20, 1.00001e20, -1e20]), ("0.1", [0.1, 0.1000001, 0]),
                ("-9999", [-9999, -9999.002, -9999.004, -9999.006, -9998]), ("0", [0, -0.0, 1e-45, 1e-38]),
                ("nan", [1, 0]), ("-9999,5", [-9999, -9999.5]), ("5 m", [5, 0]), ("-1e39", [-LARGEST, 0])],
    "float64": [("-3.4e+38", [-LARGEST, -3.4e38, 0]), ("-3.40282346638529e+38", [-LARGEST, 0]),
                ("-9999", [-9999.002, -9999.004, -9999.006]), ("0.1", [0.1, np.float32(0.1), 0.1000001])],
    "uint8": [(text, [0, 1, 7, 10, 254, 255]) for text in
              ("255", "256", "-1", "-9999", "254.5", "255.4", "-0.4", "0.5", "1e1", "1e3", " 7", "nan")],
    "int16": [(text, [-32768, 0, 1, 2, 32767]) for text in
              ("-32768", "-32769", "1.5", "-1.5", "32767.0", "-3.4e38")],
    "uint16": [(text, [0, 65535]) for text in ("65535", "65536", "-1", "65535.0", "-32768")],
    "int32": [(text, [-2147483648, 0, 2147483647]) for text in ("-2147483648", "4294967295", "2147483647")],
    "uint32": [(text, [0, 4294967295]) for text in ("4294967295", "4294967296", "-1")],
    "int64": [("9223372036854775807", [2**63 - 1, 2**63 - 2, -(2**63)]), ("1.5", [1, 2])],
    "uint64": [("18446744073709551615", [2**64 - 1, 2**64 - 2, 0])],
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "text", "values"), [(d, *case) for d in NODATA for case in NODATA[d]])
def test_nodata_is_compared_as_in_gdal(dtype: str, text: str, values: list[float], tmp_path: Path) -> None:
    row = np.array(values, dtype)[None]
    path = tmp_path / "a.tif"
    tags = [(42113, ASCII, len(text) + 1, text, True)]
    tifffile.imwrite(
        path, row, photometric="minisblack", extratags=tags, tile=(16, 16), compression="deflate"
    )
    expected = gdal(path)[1][0]
    np.testing.assert_array_equal(has_data(row[..., None], nodata_value(text, row.dtype))[0], expected)
    found = read(path)
    np.testing.assert_array_equal(
        found[0, :, 3] > 0 if found.shape[-1] == 4 else found[0, :, 0] >= 0, expected
    )


def test_a_nodata_text_that_says_nothing() -> None:
    kind = np.dtype(np.float32)
    assert nodata_value(None, kind) is None and nodata_value("none", kind) is None
    largest = nodata_value("-1.797693134862316e+308", np.dtype(np.float64))  # two digits too few
    assert largest == -np.finfo(np.float64).max


@pytest.mark.parametrize("name", ["nodata", "nan", "alpha"])
def test_an_image_without_a_valid_pixel_is_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    if name == "alpha":
        tifffile.imwrite(path, np.dstack([RGB, ALPHA * 0]), photometric="rgb", extrasamples="unassalpha")
    else:
        value = -9999 if name == "nodata" else np.nan
        make(path, np.full((1, 64, 96), value, np.float32), nodata=-9999)
    with caplog.at_level(logging.WARNING, "urst_tiles"):
        assert not read(path)[..., 3].any()
    assert [r.getMessage() for r in caplog.records if r.name == "urst_tiles.told"] == [
        f"{path} has no valid pixel: alpha, mask or nodata mark all of it as invalid"
    ]
    caplog.clear()
    make(path, np.arange(64 * 96, dtype=np.float32).reshape(1, 64, 96), nodata=0)
    assert read(path)[..., 3].any() and not [r for r in caplog.records if r.name == "urst_tiles.told"]


def test_the_command_line_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path / "a.tif", np.zeros((3, 64, 96), np.uint8), nodata=0, photometric="RGB")
    make(tmp_path / "style.tif", np.moveaxis(RGB, -1, 0), photometric="RGB")
    output = str(tmp_path / "out.tif")
    status = main(
        ["stylize", str(path), output, "--style", str(tmp_path / "style.tif"), "--model", "identity"]
    )
    assert status == 0 and not gdal(Path(output))[1].any()
    assert capsys.readouterr().err.splitlines() == [
        f"urst-tiles: {path} has no valid pixel: alpha, mask or nodata mark all of it as invalid"
    ]


def test_a_few_valid_pixels_that_the_overview_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.zeros((1, 2000, 2000), np.uint8)
    values[0, 1001, 1003] = 9
    path = make(tmp_path / "a.tif", values, nodata=0, **TILED)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([4])
    made = open_source(path).prepare(None, thumbnail=100)
    assert made.thumbnail[..., 3].any() and made.thumbnail_origin == "one streamed pass"
    assert not caplog.records


# --- samples that are no picture


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_samples_are_refused_with_a_command_that_works(dtype: str, tmp_path: Path) -> None:
    folder = tmp_path / "radar scenes"
    folder.mkdir()
    path, values = folder / "a b.tif", np.random.default_rng(1).normal(size=(1, 64, 96)) * 100 + 50j
    with rasterio.open(path, "w", driver="GTiff", height=64, width=96, count=1, dtype=dtype) as file:
        file.write(values.astype(np.complex64))
    with pytest.raises(BadInput, match="complex numbers") as caught:
        open_source(path)
    command = shlex.split(str(caught.value).split("first: ")[1])
    assert command[:3] == ["gdal_translate", "-ot", "Float32"]
    with rasterio.open(command[3]) as file, rasterio.open(path) as original:
        np.testing.assert_allclose(file.read(), np.abs(original.read()), rtol=1e-6)
