"""What a file carries arrives in the output: the table of ``docs/formats.md``, in each container."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import carriers
import imagecodecs
import openslide
import pytest
import pyvips
import rasterio
import tifffile
from carriers import GPS, IPTC, TEXTS, TRUE_EXIF

import urst_tiles as ut
from urst_tiles.source import open_source
from urst_tiles.source.containers import carried_by

OPTIONS: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "precision": "float32"}

MAKERS: dict[str, Callable[[Path], Path]] = {
    "tiff": lambda folder: carriers.tiff(folder / "in.tif"),
    "big-endian tiff": lambda folder: carriers.tiff(folder / "in.tif", order=">"),
    "jpeg": lambda folder: carriers.jpeg(folder / "in.jpg"),
    "big-endian jpeg": lambda folder: carriers.jpeg(folder / "in.jpg", order=">"),
    "png": lambda folder: carriers.png(folder / "in.png"),
    "webp": lambda folder: carriers.webp(folder / "in.webp"),
}

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The output of every container."""
    made = {}
    for name, maker in MAKERS.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
        source = maker(folder)
        ut.stylize(source, folder / "out.tif", source, **OPTIONS)
        made[name] = folder / "out.tif"
    return made


@pytest.mark.parametrize("container", MAKERS)
def test_texts(outputs: dict[str, Path], container: str) -> None:
    tags = carriers.pages(outputs[container]).tags
    assert {code: tags[code].value for code in TEXTS} == TEXTS


@pytest.mark.parametrize("container", MAKERS)
def test_exif_with_gps(outputs: dict[str, Path], container: str) -> None:
    tags = carriers.pages(outputs[container]).tags
    exif, gps = tags[34665].value, tags[34853].value
    assert exif["ExposureTime"] == (1, 250) and exif["DateTimeOriginal"] == "2024:05:01 10:00:00"
    assert exif["ISOSpeedRatings"] == 200 and len(exif) == len(TRUE_EXIF)
    assert gps["GPSLatitude"] == (46, 1, 50, 1, 333855, 10000) and gps["GPSLongitudeRef"] == "W"
    assert len(gps) == len(GPS)
    with rasterio.open(outputs[container]) as data:
        assert data.tags()["EXIF_GPSLatitude"] == "(46) (50) (33.3855)"
        assert data.tags()["EXIF_ExposureTime"] == "(0.004)"


@pytest.mark.parametrize("container", MAKERS)
def test_xmp_without_what_is_false(outputs: dict[str, Path], container: str) -> None:
    xmp = bytes(carriers.pages(outputs[container]).tags[700].value)
    assert "Ann Müller".encode() in xmp and b'tiff:Make="ACME > all"' in xmp and b'xmp:Rating="5"' in xmp
    assert b"Orientation" not in xmp and b"As " not in xmp and b"<xmp:Thumbnails" not in xmp


@pytest.mark.parametrize("container", [name for name in MAKERS if name != "webp"])
def test_iptc(outputs: dict[str, Path], container: str) -> None:
    image = pyvips.Image.new_from_file(str(outputs[container]), fail_on="warning")
    assert bytes(image.get("iptc-data")).rstrip(b"\0") == IPTC


@pytest.mark.parametrize("container", MAKERS)
def test_a_density_stays_one_and_is_never_called_microns(outputs: dict[str, Path], container: str) -> None:
    page = carriers.pages(outputs[container])
    assert (page.tags[282].value, page.tags[283].value, page.tags[296].value) == ((300, 1), (300, 1), 2)
    assert open_source(outputs[container]).info.microns_per_pixel is None
    with rasterio.open(outputs[container]) as data:
        assert data.tags()["TIFFTAG_XRESOLUTION"] == "300"


@pytest.mark.parametrize("container", MAKERS)
def test_other_programs_open_it_as_what_it_is(outputs: dict[str, Path], container: str) -> None:
    path = outputs[container]
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
    with tifffile.TiffFile(path) as tif:
        assert not tif.flags & {"ome", "svs", "imagej", "shaped", "philips", "scn", "bif"}
    with warnings.catch_warnings(), rasterio.open(path) as data:
        warnings.simplefilter("error")
        assert data.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "Scene 7" and data.driver == "GTiff"


@pytest.mark.parametrize("container", MAKERS)
def test_what_is_lost_is_said(container: str, tmp_path: Path) -> None:
    lost = ", ".join(open_source(MAKERS[container](tmp_path)).info.lost)
    assert "maker's note" in lost and "white balance" in lost
    assert ("thumbnail" in lost) == ("tiff" not in container)


def test_tiff_alone_has_pages_and_hosts(outputs: dict[str, Path]) -> None:
    tags = carriers.pages(outputs["tiff"]).tags
    assert tags[285].value == "page one" and tags[316].value == "a host"


def test_comments_and_keywords_are_items_as_gdal_names_them(outputs: dict[str, Path]) -> None:
    with rasterio.open(outputs["jpeg"]) as data:
        assert data.tags()["COMMENT"] == "a comment"
    with rasterio.open(outputs["png"]) as data:
        assert data.tags()["Note"] == "a note of no standard keyword"


def test_texts_of_png(tmp_path: Path) -> None:
    """Keywords where there is no EXIF."""
    path = tmp_path / "a.png"
    pyvips.Image.black(64, 64, bands=3).copy(interpretation="srgb").write_to_file(str(path), keep="none")
    texts = {"Author": "Ann Müller", "Copyright": "(c) ACME", "Creation Time": "Wed, 1 May 2024 10:00:00 GMT"}
    data = path.read_bytes()
    for keyword, text in texts.items():
        body = b"iTXt" + keyword.encode() + b"\0\0\0\0\0" + text.encode()
        data = (
            data[:33]
            + struct.pack(">I", len(body) - 4)
            + body
            + struct.pack(">I", zlib.crc32(body))
            + data[33:]
        )
    path.write_bytes(data)
    found = {tag.code: tag.value for tag in open_source(path).info.tags}
    assert found == {
        306: b"2024:05:01 10:00:00\0", 315: "Ann Müller\0".encode(), 33432: b"(c) ACME\0"
    }  # fmt: skip


def test_the_turned_picture_is_not_turned_again(tmp_path: Path) -> None:
    for name, path in (
        ("jpeg", carriers.jpeg(tmp_path / "in.jpg", orientation=6)),
        ("tiff", carriers.tiff(tmp_path / "in.tif", orientation=6)),
    ):
        ut.stylize(path, tmp_path / f"{name}.tif", path, **OPTIONS)
        page = carriers.pages(tmp_path / f"{name}.tif")
        assert page.shape == (96, 64, 3) and 274 not in page.tags
        assert b"Orientation" not in bytes(page.tags[700].value)


@pytest.mark.parametrize(
    ("jfif", "dpi", "expected"),
    [
        (b"\1\1\x2c\1\x2c", 72, 300.0),  # what JFIF states; 72 in EXIF stands for unknown
        (b"\0\0\1\0\1", 72, None),  # the shape of pixels alone
        (b"", 72, None),
        (b"\1\0\x48\0\x48", 72, 72.0),
        (b"\1\0\x48\0\x48", 600, 600.0),  # EXIF comes first
        (b"\2\0\x0a\0\x0a", 72, None),  # what libvips writes for unknown
    ],
)
def test_the_density_of_a_photo(jfif: bytes, dpi: int, expected: float | None, tmp_path: Path) -> None:
    info = open_source(carriers.jpeg(tmp_path / "a.jpg", jfif=jfif, dpi=dpi)).info
    found = info.pixels_per_cm and round(info.pixels_per_cm[0] * 2.54, 6)
    assert found == expected and info.microns_per_pixel is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_no_pixel_size_is_invented(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    pyvips.Image.black(64, 64, bands=3).copy(interpretation="srgb").write_to_file(str(path))
    assert open_source(path).info.microns_per_pixel is None
    path = tmp_path / "plain.png"
    path.write_bytes(imagecodecs.png_encode(carriers.picture(64, 64)))
    assert open_source(path).info.pixels_per_cm is None


def test_boxes_of_jpeg_2000(tmp_path: Path) -> None:
    """The boxes themselves: not every libvips reads the pixels."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + kind + body

    numbers = struct.pack(">4H2b", 40, 1, 20, 1, 5, 5)  # 4e6 rows and 2e6 columns per metre
    uuids = {b"JpgTiffExif->JP2": b"exif", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): carriers.XMP}
    data = box(b"jP  ", b"\r\n\x87\n") + box(b"jp2h", box(b"res ", box(b"resc", numbers)))
    data += b"".join(box(b"uuid", name + body) for name, body in uuids.items()) + box(b"jp2c", b"\0" * 9)
    (tmp_path / "a.jp2").write_bytes(data)
    found = carried_by(tmp_path / "a.jp2", "jp2kload", pyvips.Image.black(1, 1))
    assert (found.exif, found.xmp, found.pixels_per_cm) == (b"exif", carriers.XMP, (40000.0, 20000.0))
    assert not found.in_inches
