"""TIFFs of every make: layouts, codecs, dtypes, meanings. What was written is read; libvips agrees."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import rasterio
import tifffile

from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.source import Source, open_source
from urst_tiles.source.tiff import TiffReader
from urst_tiles.source.vips import VipsReader
from urst_tiles.tiff.choice import Choice

RANDOM = np.random.default_rng(5)
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]


#: A place on earth, so that GDAL does not warn.
PLACE = [(33550, 12, 3, (1.0, 1.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5.0, 5.0, 0.0), True)]


def pixels_of(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return RANDOM.random(shape).astype(kind)
    limits = np.iinfo(kind)
    return RANDOM.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


def write(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    settings = {
        "tile": (64, 48),
        "photometric": "rgb" if pixels.ndim == 3 else "minisblack",
        "metadata": None,
    }
    tifffile.imwrite(path, pixels, **(settings | options))
    return path


def read(path: Path, folder: Path, **options: Any) -> np.ndarray:
    source = open_source(path, **options).prepare(folder / f"{path.name}.job", thumbnail=32)
    return source.read(Box(0, 0, *source.shape))


@pytest.mark.parametrize("tile", [(64, 48), None])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "compression,predictor", [(None, None), ("deflate", None), ("deflate", 2), ("lzw", 2), ("zstd", None)]
)
def test_layouts(
    tile: tuple[int, int] | None,
    planar: str,
    order: str,
    compression: str | None,
    predictor: int | None,
    tmp_path: Path,
) -> None:
    expected = pixels_of((130, 101, 3))
    stored = expected if planar == "contig" else np.moveaxis(expected, -1, 0)
    path = write(
        tmp_path / "a.tif",
        stored,
        tile=tile,
        planarconfig=planar,
        byteorder=order,
        compression=compression,
        predictor=predictor,
        rowsperstrip=None if tile else 16,
        bigtiff=order == ">",
    )
    source = open_source(path)
    assert source.random_access == (tile is not None) and source.channels == 3 and source.dtype == np.uint8
    np.testing.assert_array_equal(read(path, tmp_path), expected)
    if compression != "zstd" and not (tile and planar == "separate"):  # which libvips cannot read
        reference = VipsReader(path, "tiffload", None).cell(Box(3, 5, 120, 90))
        np.testing.assert_array_equal(reference.colour, expected[3:120, 5:90])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression,predictor", [(None, None), ("deflate", True), ("deflate", None)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_dtypes(
    dtype: str, compression: str | None, predictor: bool | None, order: str, tmp_path: Path
) -> None:
    values = pixels_of((70, 90), dtype)
    path = write(tmp_path / "a.tif", values, compression=compression, predictor=predictor, byteorder=order)
    low, high = (
        (0.0, 1.0) if values.dtype.kind == "f" else map(float, (np.iinfo(dtype).min, np.iinfo(dtype).max))
    )
    found = read(path, tmp_path, stretch=f"{low},{high}")
    assert open_source(path).file_dtype == values.dtype
    if dtype == "uint8":
        expected = values.astype(np.float64)
    else:
        expected = (values.astype(np.float64) - low) / (high - low) * 65535
    assert found.dtype == (np.uint8 if dtype == "uint8" else np.uint16)
    for band in range(3):
        np.testing.assert_allclose(found[..., band], expected, atol=0.51)
    assert found.shape[-1] == (4 if values.dtype.kind == "f" else 3)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_few_bits_fill_the_range(bits: int, white_is_zero: bool, tmp_path: Path) -> None:
    values = RANDOM.integers(0, 1 << bits, (64, 48), dtype=np.uint8)
    packed = np.packbits(
        ((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(64, -1).astype(np.uint8), axis=1
    )
    path = _raw_tiff(tmp_path / "a.tif", packed.tobytes(), 48, 64, bits, 0 if white_is_zero else 1)
    found = read(path, tmp_path)[..., 0]
    expected = values.astype(int) * 255 // ((1 << bits) - 1)
    np.testing.assert_array_equal(found, 255 - expected if white_is_zero else expected)
    np.testing.assert_array_equal(found, pyvips.Image.new_from_file(str(path)).numpy())


def _raw_tiff(path: Path, data: bytes, width: int, height: int, bits: int, photometric: int) -> Path:
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 0), (277, 3, 1), (278, 4, height), (279, 4, len(data))]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHI", code, kind, 1) + struct.pack("<I", start if code == 273 else value)
        for code, kind, value in tags
    )
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)
    return path


def test_bands_are_chosen(tmp_path: Path) -> None:
    five = pixels_of((64, 48, 5))
    path = write(
        tmp_path / "a.tif", five, photometric="minisblack", extrasamples=[0, 0, 0, 0], planarconfig="contig"
    )
    assert open_source(path).channels == 3
    np.testing.assert_array_equal(read(path, tmp_path), five[..., :3])
    np.testing.assert_array_equal(read(path, tmp_path, bands=(5, 1, 2)), five[..., [4, 0, 1]])
    np.testing.assert_array_equal(read(path, tmp_path, bands=(4,)), five[..., [3, 3, 3]])
    np.testing.assert_array_equal(read(path, tmp_path, bands=(5, 2)), five[..., [4, 1]])
    np.testing.assert_array_equal(read(path, tmp_path, bands=("all",)), five)
    assert open_source(path, bands=(5, 2)).info.chosen == "bands 5 and 2 of 5"
    for wrong in ((0, 1, 2), (1, 2, 6), (1, 9)):
        with pytest.raises(BadInput, match="--bands"):
            open_source(path, bands=wrong)


def test_a_fourth_band_is_alpha_only_where_the_file_says_so(tmp_path: Path) -> None:
    four = pixels_of((64, 48, 4))
    plain = write(tmp_path / "plain.tif", four, extrasamples=[0])
    alpha = write(tmp_path / "alpha.tif", four, extrasamples=[2])
    np.testing.assert_array_equal(read(plain, tmp_path), four[..., :3])
    np.testing.assert_array_equal(read(alpha, tmp_path), four)
    assert open_source(alpha).info.validity == "alpha" and open_source(plain).info.validity == "none"


def test_associated_alpha_is_undone(tmp_path: Path) -> None:
    colour, alpha = pixels_of((64, 48, 3)), pixels_of((64, 48, 1))
    stored = np.concatenate([np.rint(colour * (alpha / 255.0)).astype(np.uint8), alpha], -1)
    path = write(tmp_path / "a.tif", stored, extrasamples=[1])
    found = read(path, tmp_path)
    np.testing.assert_array_equal(found[..., 3:], alpha)
    solid = alpha[..., 0] > 128
    assert np.abs(found[..., :3][solid].astype(int) - colour[solid]).max() <= 1


def test_grey_with_alpha(tmp_path: Path) -> None:
    two = pixels_of((64, 48, 2), "uint16")
    path = write(tmp_path / "a.tif", two, photometric="minisblack", extrasamples=[2], planarconfig="contig")
    found = read(path, tmp_path, stretch="0,65535")
    np.testing.assert_array_equal(found, two[..., [0, 0, 0, 1]])


def test_a_palette_is_expanded(tmp_path: Path) -> None:
    values, table = pixels_of((64, 48)), pixels_of((3, 256), "uint16")
    path = write(tmp_path / "a.tif", values, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read(path, tmp_path), (table >> 8).astype(np.uint8).T[values])
    np.testing.assert_array_equal(read(path, tmp_path), pyvips.Image.new_from_file(str(path)).numpy())


@pytest.mark.parametrize(
    "dtype,nodata",
    [("uint8", "0"), ("uint16", "7"), ("int16", "-9999"), ("float32", "-3.4028234663852886e+38")],
)
@pytest.mark.parametrize("tile", [(64, 48), None])
def test_nodata_is_invalid_where_all_bands_have_it(
    dtype: str, nodata: str, tile: Any, tmp_path: Path
) -> None:
    values = pixels_of((70, 90, 3), dtype)
    values[10:30, 20:50] = np.dtype(dtype).type(nodata)
    values[40, 40, 0] = np.dtype(dtype).type(nodata)
    path = write(
        tmp_path / "a.tif", values, tile=tile, extratags=[(42113, 2, len(nodata) + 1, nodata, True), *PLACE]
    )
    found = read(path, tmp_path)
    with rasterio.open(path) as gdal:
        np.testing.assert_array_equal(found[..., 3] > 0, gdal.dataset_mask() > 0)
    assert open_source(path).info.nodata == nodata and open_source(path).info.validity == "nodata"


def test_nodata_the_dtype_cannot_hold_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of((64, 48)), extratags=[(42113, 2, 6, "-9999", True)])
    assert open_source(path).channels == 3


def sparse(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """A GDAL file in which tiles of zeros were never written."""
    height, width, count = values.shape
    settings: dict[str, Any] = {"driver": "GTiff", "height": height, "width": width, "count": count}
    settings |= {
        "dtype": values.dtype,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "SPARSE_OK": "TRUE",
    }
    settings |= {"compress": "deflate", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    with rasterio.open(path, "w", **(settings | profile)) as file:
        file.write(np.moveaxis(values, -1, 0)[:, :64, :64], window=rasterio.windows.Window(0, 0, 64, 64))
    return path


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_sparse_tiles_are_nodata(interleave: str, tmp_path: Path) -> None:
    values = pixels_of((150, 130, 3))
    path = sparse(tmp_path / "a.tif", values, interleave=interleave)
    found = read(path, tmp_path)
    assert found.shape[-1] == 4 and open_source(path).info.validity == "mask"
    np.testing.assert_array_equal(found[:64, :64, :3], values[:64, :64])
    inside = np.zeros((150, 130), bool)
    inside[:64, :64] = True
    np.testing.assert_array_equal(found[..., 3] == 255, inside)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside(tiled: bool, internal: bool, tmp_path: Path) -> None:
    values, mask = pixels_of((150, 130, 3)), RANDOM.integers(0, 2, (150, 130)).astype(bool)
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=150, width=130, count=3, dtype="uint8",
                      transform=rasterio.Affine(10, 0, 0, 0, -10, 0), **options) as file,
    ):  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
        file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() != internal
    found = read(tmp_path / "a.tif", tmp_path)
    np.testing.assert_array_equal(found[..., 3], mask * np.uint8(255))
    np.testing.assert_array_equal(found[..., :3], values)
    source = open_source(tmp_path / "a.tif")
    assert source.info.validity == "mask" and source.random_access == tiled


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of((64, 48)))
    write(tmp_path / "a.tif.msk", pixels_of((32, 32)))
    with pytest.raises(BadInput, match="another size"):
        open_source(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tile", [(64, 48), None])
def test_orientation(orientation: int, tile: Any, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tif", pixels_of((130, 101, 3)), tile=tile, extratags=[(274, 3, 1, orientation, True)]
    )
    source = open_source(path).prepare(tmp_path, thumbnail=40)
    expected = pyvips.Image.new_from_file(str(path)).autorot().numpy()
    assert source.shape == expected.shape[:2]
    np.testing.assert_array_equal(source.read(Box(0, 0, *source.shape)), expected)
    box = Box(17, 23, 91, 77)
    np.testing.assert_array_equal(source.read(box), expected[box.slices])
    shrunk = pyvips.Image.new_from_array(expected).shrink(
        expected.shape[1] / source.thumbnail.shape[1], expected.shape[0] / source.thumbnail.shape[0]
    )
    assert (
        abs(source.thumbnail.astype(float).mean() - shrunk.avg()) < 2
        and min(source.thumbnail.shape[:2]) == 40
    )


def test_orientation_of_a_georeferenced_file_is_left_alone(tmp_path: Path) -> None:
    tags = [(274, 3, 1, 6, True), (33550, 12, 3, (1.0, 1.0, 0.0), True)]
    path = write(tmp_path / "a.tif", pixels_of((130, 101, 3)), extratags=tags)
    assert open_source(path).shape == (130, 101)


@pytest.mark.parametrize("subifds", [True, False])
def test_overviews_are_found(subifds: bool, tmp_path: Path) -> None:
    values = pixels_of((400, 300, 3))
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        options: dict[str, Any] = {"tile": (64, 48), "photometric": "rgb", "metadata": None}
        file.write(values, subifds=2 if subifds else None, **options)
        file.write(values[::2, ::2], subfiletype=1, **options)
        file.write(values[::4, ::4], subfiletype=1, **options)
        file.write(pixels_of((90, 90, 3)), subfiletype=0, **options)
    source = open_source(tmp_path / "a.tif")
    assert source.overviews == [(200, 150), (100, 75)]
    assert source.prepare(None, thumbnail=30).thumbnail_origin == "overview 150 x 200 of the file"
    assert source.prepare(None, thumbnail=50).thumbnail_origin == "one streamed pass"
    closed = open_source(tmp_path / "a.tif", overviews=False)
    assert closed.prepare(None, thumbnail=30).thumbnail_origin == "one streamed pass"


@pytest.mark.parametrize("options", [{}, {"rgbjpeg": True}, {"Q": 95}])
def test_jpeg_tiles_agree_with_libvips(options: dict[str, Any], tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(200), np.arange(180))[..., None] * [0.6, 0.4, 0.3]
    path = tmp_path / "a.tif"
    image = pyvips.Image.new_from_array(np.clip(ramp, 0, 255).astype(np.uint8))
    settings: dict[str, Any] = {
        "tile": True,
        "tile_width": 64,
        "tile_height": 64,
        "compression": "jpeg",
        "Q": 85,
    }
    image.tiffsave(str(path), **(settings | options))
    np.testing.assert_array_equal(read(path, tmp_path), pyvips.Image.new_from_file(str(path)).numpy())


def test_lab_goes_through_libvips(tmp_path: Path) -> None:
    image = (
        pyvips.Image.new_from_array(pixels_of((200, 180, 3))).copy(interpretation="srgb").colourspace("lab")
    )
    path = tmp_path / "a.tif"
    image.cast("float").tiffsave(str(path), tile=True, tile_width=64, tile_height=64)
    source = open_source(path)
    assert source.random_access
    found = read(path, tmp_path)
    assert found.shape[:2] == (200, 180)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of((64, 48, 3)))
    source = open_source(path)
    write(path, pixels_of((64, 48, 3)))
    with pytest.raises(OSError, match="changed while in use"):
        source.read(Box(0, 0, 10, 10))


def test_reading_outside_is_refused(tmp_path: Path) -> None:
    source: Source = open_source(write(tmp_path / "a.tif", pixels_of((64, 48, 3))))
    for box in (Box(0, 0, 65, 10), Box(-1, 0, 5, 5), Box(3, 3, 3, 9)):
        with pytest.raises(ValueError, match="inside"):
            source.read(box)


def test_a_huge_strip_stored_as_it_is_is_read_in_pieces(tmp_path: Path) -> None:
    expected = pixels_of((900, 2000, 3))
    path = write(tmp_path / "a.tif", expected, tile=None, rowsperstrip=900)
    source = open_source(path).prepare(tmp_path, thumbnail=64)
    np.testing.assert_array_equal(source.read(Box(0, 0, 900, 2000)), expected)
    planes = write(
        tmp_path / "b.tif",
        np.moveaxis(pixels_of((3000, 2000, 3)), -1, 0),
        tile=None,
        rowsperstrip=3000,
        planarconfig="separate",
    )
    np.testing.assert_array_equal(read(planes, tmp_path), tifffile.imread(planes).transpose(1, 2, 0))


def test_memory_does_not_grow_with_the_width(tmp_path: Path) -> None:
    tile = np.repeat(np.repeat(pixels_of((32, 32, 3)), 8, 0), 8, 1)
    peaks = []
    for width in (2048, 65536):
        path = tmp_path / f"{width}.tif"
        with tifffile.TiffWriter(path) as file:
            tiles = (tile for _ in range(width // 256 * 4))
            file.write(tiles, shape=(1024, width, 3), dtype="uint8", tile=(256, 256), compression="deflate",
                       photometric="rgb", metadata=None)  # fmt: skip
        peaks.append(int(subprocess.check_output([sys.executable, "-c", PEAK, str(path)])))
    assert peaks[1] - peaks[0] < 12_000_000, peaks


#: Peak memory of reading a file from left to right.
PEAK = """
import resource, sys
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
source = open_source(sys.argv[1])
for x in range(0, source.shape[1], 1024):
    source.read(Box(0, x, 1024, x + 1024))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.parametrize("options", [{}, {"tile": None, "rowsperstrip": 20}, {"compression": "deflate"}])
def test_pixels_are_read_straight_into_an_array(options: dict[str, Any], tmp_path: Path) -> None:
    """As the samples of a cell, at full size and in overviews; never where samples are not the colours."""
    pixels = pixels_of((150, 130, 3))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        settings = {"tile": (64, 48), "photometric": "rgb", "metadata": None} | options
        tiff.write(pixels, **settings)
        tiff.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **settings)
    reader = TiffReader(path, Choice())
    assert reader.into is not None
    for level, whole in ((0, pixels), (1, pixels[::2, ::2])):
        for box in (Box(0, 0, *whole.shape[:2]), Box(3, 40, 70, 65), Box(64, 48, 65, 49)):
            out = np.zeros((box.y1 - box.y0 + 2, box.x1 - box.x0 + 3, 3), np.uint8)
            reader.into(box, level, out[1:-1, 2:-1])
            np.testing.assert_array_equal(out[1:-1, 2:-1], whole[box.slices])
            np.testing.assert_array_equal(out[1:-1, 2:-1], reader.cell(box, level).colour)
            assert not (out[0].any() or out[-1].any() or out[:, :2].any() or out[:, -1].any())
    assert TiffReader(path, Choice(bands=(3, 2, 1))).into is None
    for other in (
        {"extrasamples": ["unassalpha"]},
        {"planarconfig": "separate"},
        {"photometric": "separated"},
    ):
        shape = (3, 90, 70) if "planarconfig" in other else (90, 70, 4)
        assert TiffReader(write(tmp_path / "b.tif", pixels_of(shape), **other), Choice()).into is None
    white = write(tmp_path / "c.tif", pixels_of((90, 70)), photometric="miniswhite")
    assert TiffReader(white, Choice()).into is None
    nodata = write(tmp_path / "d.tif", pixels, extratags=[(42113, 2, 1, "0", True)])
    assert TiffReader(nodata, Choice()).into is None


def test_files_that_differ_in_size_alone_are_decoded_by_their_own(tmp_path: Path) -> None:
    """What tifffile makes of a directory is shared by files whose directories are the same to it."""
    for number, shape in enumerate([(70, 50), (41, 50), (70, 33), (70, 50), (129, 97)]):
        for compression in ("deflate", "lzw", None):
            options = {"tile": None, "rowsperstrip": 32, "compression": compression, "predictor": number == 3}
            if compression is None:
                del options["predictor"]
            pixels = pixels_of((*shape, 3))
            path = write(tmp_path / f"{number}-{compression}.tif", pixels, **options)
            np.testing.assert_array_equal(read(path, tmp_path), pixels)
