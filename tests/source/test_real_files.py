"""Real files against independent readers: GDAL (through rasterio) and libvips."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import pyvips
import rasterio

from urst_tiles.api.stylize import stylize
from urst_tiles.geometry import Box
from urst_tiles.source import Source, open_source

GEOTIFFS = [
    "large_image__rgb_geotiff.tiff",
    "rasterio__RGB.byte.tif",
    "rasterio__RGBA.byte.tif",
    "rasterio__RGBA.uint16.tif",
    "rasterio__all-nodata.tif",
    "rasterio__alpha.tif",
    "rasterio__cogeo.tif",
    "rasterio__shade.tif",
    "rio-cogeo__image_colormap.tif",
    "rio-cogeo__image_rgb_mask.tif",
    "rio-tiler__cog_gcps.tif",
    "rio-tiler__cog_int16.tif",
    "rio-tiler__cog_rgb_mask.tif",
    "rio-tiler__mosaic_cog1.tif",
    "rio-tiler__mosaic_cog2.tif",
    "rio-tiler__pix4d_alpha_nodata.tif",
]

#: A stretch that leaves integers as they are (or moves int16 to where uint16 begins).
EXACT = {"uint8": "0,255", "uint16": "0,65535", "int16": "-32768,32767"}


def prepared(path: Path, folder: Path, **options: object) -> Source:
    return open_source(path, **options).prepare(folder, thumbnail=128)  # type: ignore[arg-type]


def whole(source: Source) -> np.ndarray:
    return source.read(Box(0, 0, *source.shape))


@pytest.mark.parametrize("name", GEOTIFFS)
def test_a_geotiff_reads_as_gdal_reads_it(name: str, inputs: Path, tmp_path: Path) -> None:
    path = inputs / "geotiff" / name
    with rasterio.open(path) as gdal:
        stretch = EXACT[gdal.dtypes[0]]
        mask, raw = gdal.dataset_mask(), gdal.read()
        palette = gdal.colormap(1) if gdal.colorinterp[0].name == "palette" else None
    source = prepared(path, tmp_path, stretch=stretch)
    pixels = whole(source)
    if palette is not None:
        table = np.array([palette[i][:3] for i in range(256)], np.uint8)
        expected = table[raw[0]]
    else:
        bands = raw[:3] if len(raw) >= 3 else raw[[0, 0, 0]]
        expected = np.moveaxis(bands, 0, -1)
    if expected.dtype == np.int16:
        expected = (expected.astype(np.int32) + 32768).astype(np.uint16)
    valid = np.ones(source.shape, bool) if source.channels == 3 else pixels[..., 3] > 0
    assert source.shape == mask.shape
    np.testing.assert_array_equal(valid, mask > 0)
    if (
        "cogeo" in name and "rasterio" in name
    ):  # JPEG with subsampled chroma: libraries upsample it in their own ways
        difference = np.abs(pixels[..., :3][valid].astype(int) - expected[valid])
        assert difference.mean() < 0.5 and difference.max() <= 16
    else:
        np.testing.assert_array_equal(pixels[..., :3][valid], expected[valid])


@pytest.mark.parametrize("name", ["rio-cogeo__image_nan.tif", "rio-cogeo__image_float.tif"])
def test_floats_are_stretched_and_nan_is_invalid(name: str, inputs: Path, tmp_path: Path) -> None:
    path = inputs / "geotiff" / name
    with rasterio.open(path) as gdal:
        raw = gdal.read(1)
    source = prepared(path, tmp_path, stretch="0,1")
    pixels = whole(source)
    assert source.dtype == np.uint16 and source.channels == 4
    finite = np.isfinite(raw)
    np.testing.assert_array_equal(pixels[..., 3] == 65535, finite)
    np.testing.assert_array_equal(
        pixels[..., 0][finite], np.rint(np.clip(raw[finite], 0, 1) * 65535).astype(np.uint16)
    )


VIPS_FILES = [
    "scan/image-tiff__planar-rgb-u8.tif",
    "scan/image-tiff__rgb-3c-16b.tiff",
    "scan/libvips__sample.tif",
    "scan/ocrd_SBB0000F29300010000_FILE_0002_IMAGE.tif",
    "scan/libvips__indexed.png",
    "slide/libvips__CMU-1-Small-Region.svs",
    "photo/aukerman_ortho.png",
    "photo/brighton_DJI_0018.JPG",
    "photo/nasa_pia19808.webp",
    "geotiff/rasterio__cogeo.tif",
    "geotiff/rio-cogeo__image_colormap.tif",
    "scan/image-tiff__quad-jpeg.tif",
]


@pytest.mark.parametrize("name", VIPS_FILES)
def test_a_file_reads_as_libvips_reads_it(name: str, inputs: Path, tmp_path: Path) -> None:
    source = prepared(inputs / name, tmp_path, stretch="0,65535")
    pixels = whole(source)
    expected = pyvips.Image.new_from_file(str(inputs / name)).autorot().numpy()
    assert source.shape == expected.shape[:2]
    np.testing.assert_array_equal(pixels[..., :3], expected[..., :3])
    if expected.shape[-1] == 4:
        np.testing.assert_array_equal(pixels[..., 3], expected[..., 3])


def test_black_marble_opens_fast_and_reads_as_libvips_reads_it(inputs: Path) -> None:
    path = inputs / "geotiff" / "nasa_black_marble_2012_z7_32768_bigtiff_jpeg_3857.tif"
    source = open_source(path)
    assert source.shape == (32768, 32768) and source.random_access and source.spool_bytes == 0
    assert source.reader_bytes < 64e6
    image = pyvips.Image.new_from_file(str(path), fail_on="warning")
    for box in (Box(12000, 17000, 12700, 17900), Box(32000, 32000, 32768, 32768), Box(0, 0, 1, 1)):
        expected = pyvips.Region.new(image).fetch(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)
        np.testing.assert_array_equal(
            source.read(box), np.frombuffer(expected, np.uint8).reshape(*box.shape, 3)
        )


def test_cmyk_goes_through_its_profile(inputs: Path, tmp_path: Path) -> None:
    path = inputs / "scan" / "image-tiff__tiled-cmyk-i8.tif"
    source = prepared(path, tmp_path)
    image = pyvips.Image.new_from_file(str(path))
    image = image.cast("uchar").copy(interpretation="cmyk") if image.format == "uchar" else image
    assert source.channels == 3 and source.dtype == np.uint8
    raw = image.numpy().view(np.uint8)
    ink = pyvips.Image.new_from_array(raw).copy(interpretation="cmyk")
    expected = ink.icc_transform("srgb", input_profile="cmyk").numpy()
    np.testing.assert_array_equal(whole(source), expected)


def test_every_input_survives_pickling_and_reads_the_same_in_parts(inputs: Path, tmp_path: Path) -> None:
    for path in sorted(inputs.glob("*/*")):
        if path.stat().st_size > 4e6:
            continue
        source = prepared(path, tmp_path / path.name)
        again = pickle.loads(pickle.dumps(source))
        height, width = source.shape
        box = Box(height // 3, width // 4, height // 3 + min(200, height // 2), width // 4 + width // 2)
        np.testing.assert_array_equal(again.read(box), whole(source)[box.slices])
        assert again.fingerprint == source.fingerprint == open_source(path).fingerprint


def test_what_travels_along(inputs: Path) -> None:
    info = open_source(inputs / "geotiff" / "rasterio__RGB.byte.tif").info
    assert {tag.code for tag in info.geo} >= {33550, 33922, 34735} and info.nodata == "0"
    assert info.validity == "nodata"
    slide = open_source(inputs / "slide" / "libvips__CMU-1-Small-Region.svs").info
    assert slide.microns_per_pixel == pytest.approx((0.499, 0.499))
    scan = open_source(inputs / "scan" / "ocrd_SBB0000F29300010000_FILE_0002_IMAGE.tif").info
    assert scan.icc is not None and scan.pixels_per_cm == pytest.approx((118.11, 118.11), rel=1e-3)
    assert open_source(inputs / "geotiff" / "rasterio__cogeo.tif").info.validity == "mask"
    assert open_source(inputs / "geotiff" / "rasterio__RGBA.uint16.tif").info.validity == "alpha"


#: Files whose pixels are compared through a whole run of the network ``identity``: what GDAL reads of the
#: output is what it reads of the input, in every way that the formats share.
IDENTITY = [f"geotiff/{name}" for name in GEOTIFFS] + [
    "scan/image-tiff__planar-rgb-u8.tif",
    "scan/image-tiff__rgb-3c-16b.tiff",
    "scan/libvips__sample.tif",
    "scan/libvips__indexed.png",
    "photo/nasa_pia19808.webp",
    "slide/libvips__CMU-1-Small-Region.svs",
]


def as_read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Colours, (h, w, 3), of any integer type, and validity, as GDAL reads them."""
    with rasterio.open(path) as file:
        raw, valid = np.moveaxis(file.read(), 0, -1), file.dataset_mask() > 0
        if file.colorinterp[0].name == "palette":
            table = np.array([file.colormap(1)[i][:3] for i in sorted(file.colormap(1))], np.uint8)
            return table[raw[..., 0]], valid
    return (raw[..., :3] if raw.shape[-1] >= 3 else raw[..., [0, 0, 0]]), valid


def per_cm(file: rasterio.DatasetReader) -> list[float]:
    """Pixels per centimetre, across and down; none where the file does not tell a size of its pixels."""
    tags = file.tags()
    unit = {"2": 2.54, "3": 1.0}.get(tags.get("TIFFTAG_RESOLUTIONUNIT", "1")[0])
    sides = [tags.get(f"TIFFTAG_{side}RESOLUTION", "0") for side in "XY"]
    return [float(side) / unit for side in sides if unit and float(side) > 0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", IDENTITY)
def test_the_output_of_identity_is_the_input(name: str, inputs: Path, tmp_path: Path) -> None:
    path, output = inputs / name, tmp_path / "out.tif"
    colours, valid = as_read(path)
    style = tmp_path / "style.png"  # any: this network takes no notice of it
    pyvips.Image.black(64, 64, bands=3).write_to_file(str(style))
    depth = "uint8" if colours.dtype == np.uint8 else "uint16"
    stylize(path, output, style, model="identity", stretch=EXACT[colours.dtype.name], dtype=depth)
    found, marked = as_read(output)
    assert found.shape == colours.shape
    np.testing.assert_array_equal(marked, valid)
    if colours.dtype != np.uint8:
        colours = colours.astype(float) - np.iinfo(colours.dtype).min
    assert found.dtype == depth
    difference = np.abs(found.astype(float) - colours)[valid]
    lossy = name in ("geotiff/rasterio__cogeo.tif", "photo/nasa_pia19808.webp") or name.endswith(".svs")
    assert difference.max(initial=0) <= (16 if lossy else 1) and (not valid.any() or difference.mean() <= 0.5)
    with rasterio.open(path) as before, rasterio.open(output) as after:
        assert after.crs == before.crs
        if before.crs is not None:
            assert after.transform.almost_equals(before.transform)
        if before.crs is None and path.suffix != ".svs":  # whose pixel size comes from its description
            assert per_cm(after) == pytest.approx(per_cm(before), rel=1e-3)
