"""What samples mean: values and valid pixels are those of the reader that knows the format best."""

from __future__ import annotations

import logging
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import pyvips
import rasterio
import rasterio.shutil
import tifffile
from rasterio.enums import ColorInterp

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.source.picture import read_picture
from urst_tiles.source.valid import has_data, nodata_value
from urst_tiles.tiff.types import ASCII, LONG, RATIONAL, RATIONALS, SHORT, SRATIONAL, TYPES, UNDEFINED
from urst_tiles.tiff.writing import DirectoryField, directory, header

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

HEIGHT, WIDTH = 64, 96
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([200 - X, 60 + Y, (X + Y) // 2], -1).astype(np.uint8)
HOLE = (X - 40) ** 2 + (Y - 30) ** 2 < 300
ALPHA = np.where(HOLE, 0, 255).astype(np.uint8)
APERIO = b"Aperio Image Library v11|AppMag = 20|MPP = 0.4990\0"

#: The TIFF types of the tags that the files of these tests have, where it is not SHORT.
KINDS = {273: LONG, 279: LONG, 324: LONG, 325: LONG,
         270: ASCII, 42113: ASCII, 34675: UNDEFINED, 529: RATIONAL, 532: RATIONAL, 433: SRATIONAL,
         50674: LONG, 513: LONG, 514: LONG, 519: LONG, 520: LONG, 521: LONG}  # fmt: skip


def write(
    path: Path,
    data: bytes,
    photometric: int,
    bits: tuple[int, ...] = (8, 8, 8),
    tiled: bool = False,
    **more: Any,
) -> Path:
    """A BigTIFF of one strip or tile of HEIGHT x WIDTH; further tags are given as ``_CODE=values``."""
    values: dict[int, Any] = {
        256: WIDTH,
        257: HEIGHT,
        258: bits,
        259: 1,
        262: photometric,
        277: len(bits),
        284: 1,
    }
    values |= (
        {322: WIDTH, 323: HEIGHT, 324: 16, 325: len(data)}
        if tiled
        else {273: 16, 278: HEIGHT, 279: len(data)}
    )
    values |= {int(name[1:]): value for name, value in more.items()}
    fields = []
    for code, value in values.items():
        kind = KINDS.get(code, SHORT)
        raw = value if isinstance(value, bytes) else np.array(value, f"<{TYPES[kind]}").tobytes()
        each = np.dtype(TYPES[kind]).itemsize * (2 if kind in RATIONALS else 1)
        fields.append(DirectoryField(code, kind, len(raw) // each, raw))
    place = 16 + (len(data) + 7 & ~7)
    path.write_bytes(header(place) + data.ljust(place - 16, b"\0") + b"".join(directory(fields, place, 0)))
    return path


def read(path: Path, stretch: str = "0,65535") -> np.ndarray:
    """All pixels, RGB or RGBA; values of 16 bits stay as they are."""
    source = open_source(path, stretch=stretch).prepare(path.parent / f"{path.name}.job")
    return source.read(Box(0, 0, *source.shape))


def gdal(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All bands as GDAL reads them, (h, w, bands), and the pixels that are valid for it, bool, (h, w)."""
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1), file.dataset_mask() > 0


def make(path: Path, bands: np.ndarray, **options: Any) -> Path:
    """A GeoTIFF as GDAL writes it, of (bands, h, w)."""
    count, height, width = bands.shape
    kind = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype.name}
    with rasterio.open(path, "w", **kind, **options) as file:
        file.write(bands)
    return path


def assert_near(found: np.ndarray, expected: np.ndarray, most: int = 1) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= most


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
    assert [r.getMessage() for r in caplog.records] == [
        f"{path} has no valid pixel: alpha, mask or nodata mark all of it as invalid"
    ]
    caplog.clear()
    make(path, np.arange(64 * 96, dtype=np.float32).reshape(1, 64, 96), nodata=0)
    assert read(path)[..., 3].any() and not caplog.records


def test_a_few_valid_pixels_that_the_overview_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.zeros((1, 2000, 2000), np.uint8)
    values[0, 1001, 1003] = 9
    path = make(tmp_path / "a.tif", values, nodata=0, **TILED)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([4])
    made = open_source(path).prepare(None, thumbnail=100)
    assert made.thumbnail[..., 3].any() and made.thumbnail_origin == "one streamed pass"
    assert not caplog.records


# --- colour spaces


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """YCbCr, uint8, of ITU-R BT.601 in full range, as in JPEG."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    both = np.stack([y, 128 + (blue - y) / 1.772, 128 + (red - y) / 1.402], -1)
    return np.clip(np.rint(both), 0, 255).astype(np.uint8)


def slide(path: Path, stream: bytes, compression: int, photometric: int, **more: Any) -> Path:
    return write(path, stream, photometric, tiled=True, _254=0, _259=compression, **{"_270": APERIO} | more)


def openslide_pixels(path: Path) -> np.ndarray:
    with openslide.OpenSlide(path) as file:
        return np.asarray(file.read_region((0, 0), 0, (WIDTH, HEIGHT)))[..., :3]


@pytest.mark.parametrize("photometric", [2, 6])
@pytest.mark.parametrize("subsampling", [None, (1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("compression", [33003, 33005])
def test_aperio_tells_the_colour_space_by_the_compression(
    photometric: int, subsampling: tuple[int, int] | None, compression: int, tmp_path: Path
) -> None:
    stored = ycbcr(RGB) if compression == 33003 else RGB
    stream = imagecodecs.jpeg2k_encode(stored, level=0, mct=False, codecformat="j2k")
    more = {} if subsampling is None else {"_530": subsampling}
    path = slide(tmp_path / "a.svs", stream, compression, photometric, **more)
    found = read(path)
    assert_near(found, openslide_pixels(path))
    assert_near(found, RGB, 2)


def test_aperio_with_fewer_colour_differences(tmp_path: Path) -> None:
    with_420 = tmp_path / "a.jp2"
    source = make(tmp_path / "a.tif", np.moveaxis(RGB, -1, 0), photometric="RGB")
    rasterio.shutil.copy(source, with_420, driver="JP2OpenJPEG", YCBCR420="YES", QUALITY="100")
    data = with_420.read_bytes()
    stream = data[data.find(b"\xff\x4f\xff\x51") :]
    path = slide(tmp_path / "a.svs", stream, 33003, 6, _530=(2, 2))
    assert_near(read(path), openslide_pixels(path))
    assert_near(read(path), RGB, 8)
    steps = bytearray(stream)
    steps[46:48] = steps[49:51] = b"\x01\x02"
    with pytest.raises(BadInput, match=r"steps of \(1, 2\) pixels"):
        read(slide(tmp_path / "b.svs", bytes(steps), 33003, 6))


@pytest.mark.parametrize(("compression", "photometric", "mct", "is_ycbcr"), [
    (33003, 6, False, True), (34712, 6, False, True), (33004, 6, False, True), (33003, 2, False, False),
    (33003, 2, True, False), (34712, 2, True, False), (34712, 6, True, False),
])  # fmt: skip
def test_other_writers_of_jpeg_2000(
    compression: int, photometric: int, mct: bool, is_ycbcr: bool, tmp_path: Path
) -> None:
    """What tag 262 says counts; the stream's own colour transform is YCbCr that its decoder undoes."""
    stored = ycbcr(RGB) if is_ycbcr else RGB
    stream = imagecodecs.jpeg2k_encode(stored, level=0, mct=mct, codecformat="j2k")
    path = slide(tmp_path / "a.tif", stream, compression, photometric, _270=b"made by another program\0")
    assert_near(read(path), RGB, 2)


def packed(pixels: np.ndarray, across: int, down: int) -> bytes:
    """YCbCr in data units (TIFF 6.0, section 21); pixels below and beside the image repeat the last ones."""
    high, wide = -(-pixels.shape[0] // down), -(-pixels.shape[1] // across)
    more = (high * down - pixels.shape[0], wide * across - pixels.shape[1])
    units = np.pad(pixels, ((0, more[0]), (0, more[1]), (0, 0)), "edge")
    units = units.reshape(high, down, wide, across, 3).swapaxes(1, 2)
    chroma = np.rint(units[..., 1:].mean((2, 3)))
    return np.concatenate([units[..., 0].reshape(high, wide, -1), chroma], -1).astype(np.uint8).tobytes()


@pytest.mark.parametrize("across", [1, 2, 4])
@pytest.mark.parametrize("down", [1, 2, 4])
@pytest.mark.parametrize("tags", [
    {}, {"_259": 5}, {"_259": 8}, {"_529": (2126, 10000, 7152, 10000, 722, 10000)},
    {"_532": (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1)},
])  # fmt: skip
def test_stored_ycbcr(across: int, down: int, tags: dict[str, Any], tmp_path: Path) -> None:
    encode: dict[int, Callable[[bytes], bytes]] = {5: imagecodecs.lzw_encode, 8: zlib.compress}
    stored = packed(ycbcr(RGB) if "_532" not in tags else ycbcr(RGB) // 2 + 60, across, down)
    data = encode.get(tags.get("_259", 1), bytes)(stored)
    path = write(tmp_path / "a.tif", data, 6, **{"_530": (across, down)} | tags)
    found, (expected, _) = read(path), gdal(path)
    assert_near(found, expected[..., :3])
    if set(tags) <= {"_259"} and across * down == 1:
        assert_near(found, RGB, 2)


def test_stored_ycbcr_whose_subsampling_is_not_told(tmp_path: Path) -> None:
    """It is 2 x 2 (TIFF 6.0, section 21)."""
    path = write(tmp_path / "a.tif", packed(ycbcr(RGB), 2, 2), 6)
    assert_near(read(path), gdal(path)[0])


@pytest.mark.parametrize("tag", [{"_530": (3, 1)}, {"_529": (1, 0, 1, 1, 1, 1)}, {"_532": (1, 0) * 6}])
def test_ycbcr_that_makes_no_sense(tag: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="YCbCr"):
        open_source(write(tmp_path / "a.tif", packed(ycbcr(RGB), 2, 2), 6, **tag))


def lab_image() -> np.ndarray:
    """L*, a* and b*, float, (h, w, 3): white, black, greys and colours."""
    lightness = X * 100 / (WIDTH - 1)
    return np.stack([lightness, np.where(Y < 8, 0, Y - 32.0), np.where(Y < 8, 0, 20 - X / 4)], -1)


def srgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """sRGB, uint8, by CIE 15 and IEC 61966-2-1, with the white of the light source as white."""
    light = (lab[..., 0] + 16) / 116
    cube = np.stack([light + lab[..., 1] / 500, light, light - lab[..., 2] / 200], -1)
    xyz = np.where(cube > 6 / 29, cube**3, (cube - 4 / 29) * 3 * (6 / 29) ** 2) * (0.95047, 1.0, 1.08883)
    rgb = xyz @ np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]).T
    rgb = np.clip(rgb, 0, 1)
    return np.rint(255 * np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)).astype(
        np.uint8
    )


def stored_lab(lab: np.ndarray, photometric: int, bits: int) -> np.ndarray:
    """Samples of CIELab (8), ICCLab (9) and ITULab (10), written anew from their specifications."""
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    if photometric == 8:
        stored = [lab[..., 0] / 100 * top, lab[..., 1] * unit % 2**bits, lab[..., 2] * unit % 2**bits]
    elif photometric == 9:
        light = top if bits == 8 else 0xFF00
        stored = [lab[..., 0] / 100 * light, (lab[..., 1] + 128) * unit, (lab[..., 2] + 128) * unit]
    else:
        stored = [
            lab[..., 0] / 100 * top,
            lab[..., 1] / 170 * top + 128 * unit,
            lab[..., 2] / 200 * top + 96 * unit,
        ]
    return np.rint(np.stack(stored, -1)).astype(f"u{bits // 8}")


@pytest.mark.parametrize("photometric", [8, 9, 10])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab(photometric: int, bits: int, tmp_path: Path) -> None:
    lab = lab_image()
    path = write(tmp_path / "a.tif", stored_lab(lab, photometric, bits).tobytes(), photometric, (bits,) * 3)
    found = read(path)
    assert found.dtype == np.uint8
    assert_near(found, srgb_of_lab(lab), 9 if bits == 8 else 3)
    assert np.abs(found.astype(int) - srgb_of_lab(lab)).mean() < (1 if bits == 8 else 0.3)
    np.testing.assert_array_equal(found[0, -1], [255, 255, 255])
    if photometric == 8 and bits == 16:
        image = pyvips.Image.new_from_file(str(path))
        assert image.interpretation == "labs"
        assert_near(found, image.colourspace("srgb").numpy())


def test_lab_with_alpha_and_a_range_of_its_own(tmp_path: Path) -> None:
    lab = lab_image()
    pixels = np.dstack([stored_lab(lab, 9, 8), ALPHA])
    path = write(tmp_path / "a.tif", pixels.tobytes(), 9, (8,) * 4, _338=2)
    np.testing.assert_array_equal(read(path)[..., 3], ALPHA)
    ranges = (0, 1, 100, 1, -128, 1, 127, 1, -128, 1, 127, 1)
    path = write(tmp_path / "b.tif", stored_lab(lab, 9, 8).tobytes(), 10, _433=ranges)
    assert_near(read(path), read(tmp_path / "a.tif")[..., :3])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_min_is_white(bits: int, alpha: bool, tmp_path: Path) -> None:
    """The largest value of the samples is black, whatever container they come in."""
    top = 2**bits - 1
    values = (X * top // (WIDTH - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    found = []
    for photometric in (0, 1):
        stored = values if photometric else top - values
        bands = (
            np.stack([stored, np.where(HOLE, 0, top).astype(values.dtype)], -1)
            if alpha
            else stored[..., None]
        )
        data = (
            bands.tobytes()
            if bits in (8, 16)
            else imagecodecs.packints_encode(bands.reshape(HEIGHT, -1), bits)
        )
        more = {"_338": 2} if alpha else {}
        found.append(
            read(write(tmp_path / f"{photometric}.tif", data, photometric, (bits,) * (1 + alpha), **more))
        )
    np.testing.assert_array_equal(found[0], found[1])
    expected = np.rint(values * (255 / top)) if bits <= 8 else values
    np.testing.assert_array_equal(found[0][..., 0], expected)
    if alpha:
        np.testing.assert_array_equal(found[0][..., 3], np.where(HOLE, 0, 255 if bits <= 8 else 65535))


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_profile_of_grey(bits: int, photometric: int, tmp_path: Path) -> None:
    """The wanted values are those of libvips' conversion of the same profile."""
    top, depth = 2**bits - 1, 8 if bits <= 8 else 16
    values = (X * top // (WIDTH - 1)).astype(f"u{depth // 8}")
    profile = imagecodecs.cms_profile("gray", gamma=1.0)
    data = values.tobytes() if bits in (8, 16) else imagecodecs.packints_encode(values, bits)
    path = write(tmp_path / "a.tif", data, photometric, (bits,), _34675=profile)
    grey = values if photometric else top - values
    image = pyvips.Image.new_from_array(np.rint(grey * ((2**depth - 1) / top)).astype(values.dtype))
    image = image.copy(interpretation="b-w" if depth == 8 else "grey16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    found = read(path)
    np.testing.assert_array_equal(found, image.icc_transform("srgb", embedded=True, depth=depth).numpy())
    assert (
        abs(int(found[0, WIDTH // 2 if photometric else WIDTH // 2 - 1, 0]) / (2**depth - 1) - 0.737) < 0.03
    )
    assert open_source(path).info.icc is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_profile_of_grey_in_other_formats(suffix: str, alpha: bool, tmp_path: Path) -> None:
    if alpha and suffix == ".jpg":
        pytest.skip("JPEG has no alpha")
    path, profile = tmp_path / f"a{suffix}", imagecodecs.cms_profile("gray", gamma=1.0)
    image = pyvips.Image.new_from_array((X * 2).astype(np.uint8))
    if alpha:
        image = image.bandjoin(pyvips.Image.new_from_array(ALPHA))
    image = image.copy(interpretation="b-w")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.write_to_file(str(path))
    expected = pyvips.Image.new_from_file(str(path)).icc_transform("srgb", embedded=True)
    np.testing.assert_array_equal(read(path)[..., :3], expected.numpy()[..., :3])
    if alpha:
        np.testing.assert_array_equal(read(path)[..., 3], ALPHA)
    else:
        assert_near(read_picture(path, HEIGHT) * 255, expected.numpy())


def test_a_profile_that_is_not_of_grey_changes_no_grey(tmp_path: Path) -> None:
    for profile in (b"", b"nonsense" * 30, imagecodecs.cms_profile("srgb")):
        path = write(
            tmp_path / "a.tif",
            X.astype(np.uint8).tobytes(),
            1,
            (8,),
            **{"_34675": profile} if profile else {},
        )
        np.testing.assert_array_equal(read(path)[..., 0], X)


PALETTE = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2], 0)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("compression", [1, 5, 8])
def test_palette_and_alpha(kind: int, planar: int, compression: int, tmp_path: Path) -> None:
    """As in GDAL, a further band of no kind is no alpha; indices are never multiplied by alpha."""
    alpha = np.maximum(ALPHA, 77)
    data = np.stack([X, alpha], -1 if planar == 1 else 0).astype(np.uint8).tobytes()
    if planar == 2:
        compression = 1
    encode: dict[int, Callable[[bytes], bytes]] = {5: imagecodecs.lzw_encode, 8: zlib.compress}
    more: dict[str, Any] = {"_273": (16, 16 + X.size), "_279": (X.size, X.size)} if planar == 2 else {}
    path = write(tmp_path / "a.tif", encode.get(compression, bytes)(data), 3, (8, 8), _259=compression,
                 _320=PALETTE * 257, _338=kind, _284=planar, **more)  # fmt: skip
    found = read(path)
    np.testing.assert_array_equal(found[..., :3], np.moveaxis(PALETTE[:, X], 0, -1))
    with rasterio.open(path) as file:
        assert (file.colorinterp[1] == ColorInterp.alpha) == (found.shape[-1] == 4)
    if kind:
        np.testing.assert_array_equal(found[..., 3], alpha)


def test_a_palette_of_4_bits_and_alpha(tmp_path: Path) -> None:
    bands = np.stack([X % 16, np.where(HOLE, 0, 5)], -1).astype(np.uint8).reshape(HEIGHT, -1)
    path = write(tmp_path / "a.tif", imagecodecs.packints_encode(bands, 4), 3, (4, 4),
                 _320=PALETTE[:, :256:17] * 257, _338=2)  # fmt: skip
    found = read(path)
    np.testing.assert_array_equal(found[..., :3], np.moveaxis(PALETTE[:, X % 16 * 17], 0, -1))
    np.testing.assert_array_equal(found[..., 3], np.where(HOLE, 0, 85))


@pytest.mark.parametrize("photometric", [2, 5, 1])
def test_associated_alpha(photometric: int, tmp_path: Path) -> None:
    """Colours are divided by alpha before anything else is done with them."""
    colours = {2: RGB, 5: np.dstack([255 - RGB, X * 0]), 1: RGB[..., :1]}[photometric].astype(np.uint8)
    alpha = np.where(HOLE, 100, 255).astype(np.uint8)
    stored = np.rint(colours * (alpha[..., None] / 255)).astype(np.uint8)
    bits = (8,) * (colours.shape[-1] + 1)
    found = read(write(tmp_path / "a.tif", np.dstack([stored, alpha]).tobytes(), photometric, bits, _338=1))
    plain = read(write(tmp_path / "b.tif", np.dstack([colours, alpha]).tobytes(), photometric, bits, _338=2))
    assert_near(found, plain, 3)


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
