"""Which colours samples are: values are those of the reader that knows the colour space best."""

from __future__ import annotations

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
from meaning import ALPHA, APERIO, HEIGHT, HOLE, RGB, WIDTH, X, Y, assert_near, gdal, make, read, write
from rasterio.enums import ColorInterp

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.source import open_source
from urst_tiles.source.picture import read_picture

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


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
    (33003, 6, False, True), (34712, 6, False, True), (33004, 6, False, True), (33003, 2, False, True),
    (33005, 6, False, False), (33003, 2, True, False), (34712, 2, True, False), (34712, 6, True, False),
])  # fmt: skip
def test_other_writers_of_jpeg_2000(
    compression: int, photometric: int, mct: bool, is_ycbcr: bool, tmp_path: Path
) -> None:
    """33003 and 33005 tell the colour space, else tag 262; a transform of the stream is undone already."""
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
    if "_259" in tags or not tags:
        assert_near(read(path), RGB, 2 if across * down == 1 else 12)
    if down < 4 or across == 4:  # GDAL's library reads no others
        # It rounds twice where black and white are not the ends of the range.
        assert_near(read(path), gdal(path)[0][..., :3], 3 if "_532" in tags else 1)


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
