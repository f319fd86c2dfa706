"""What travels beside the pixels."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
import pyvips
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.pyramid.levels import info_fields, resolution_fields
from urst_tiles.source import open_source
from urst_tiles.tiff.metadata import (
    LEAST_RESOLUTION,
    MOST_RESOLUTION,
    Info,
    Tag,
    aperio_resolution,
    clean_gdal_metadata,
    is_rgb_profile,
    sane_resolution,
    tag_resolution,
    with_world_file,
    world_file_tags,
)


def gdal(*items: str) -> str:
    return "<GDALMetadata>\n" + "".join(f"  {item}\n" for item in items) + "</GDALMetadata>"


def test_what_new_pixels_make_false_goes() -> None:
    kept = '<Item name="AREA_OR_POINT">Area</Item>', '<Item name="CREDIT">NASA &amp; friends</Item>'
    gone = (
        '<Item name="STATISTICS_MEAN" sample="0">12.5</Item>',
        '<Item name="STATISTICS_MAXIMUM">255</Item>',
        '<Item name="OFFSET" sample="0" role="offset">3</Item>',
        '<Item name="SCALE" sample="0" role="scale">0.1</Item>',
        '<Item name="DESCRIPTION" sample="1" role="description">NIR</Item>',
        '<Item name="wavelength">842</Item>',
        '<Item name="INTERLEAVE" domain="IMAGE_STRUCTURE">PIXEL</Item>',
        '<Item name="BANDNAME_2">green</Item>',
    )
    cleaned = clean_gdal_metadata(gdal(kept[0], *gone, kept[1]))
    assert cleaned is not None
    assert all(item in cleaned for item in kept) and cleaned.count("<Item") == 2
    assert clean_gdal_metadata(cleaned) == cleaned
    assert clean_gdal_metadata(gdal(*gone)) is None
    assert clean_gdal_metadata(None) is None and clean_gdal_metadata("no xml <") is None


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=40))
def test_text_survives(text: str) -> None:
    cleaned = clean_gdal_metadata(gdal(f'<Item name="NOTE">{escape(text)}</Item>'))
    assert cleaned is not None and f">{escape(text)}</Item>" in cleaned


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE x [<!ENTITY a "ha">]>',
        '<?xml version="1.0"?><!DOCTYPE GDALMetadata SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://example.org/x"> %p;]>',
    ],
)
def test_entities_are_refused(head: str) -> None:
    with pytest.raises(BadInput, match=r"scene\.tif.*entities"):
        clean_gdal_metadata(head + gdal('<Item name="A">b</Item>'), "scene.tif")


def test_resolution() -> None:
    assert tag_resolution(300.0, 600.0, 2) == pytest.approx((118.11, 236.22), rel=1e-4)
    assert tag_resolution(100.0, 100.0, 3) == (100.0, 100.0)
    for nothing in ((72.0, 72.0, 1), (0.0, 1.0, 2), (float("nan"), 1.0, 3), (float("inf"), 1.0, 3)):
        assert tag_resolution(*nothing) is None


def test_aperio() -> None:
    text = "Aperio Image Library v11.2.1\n46000x32914|AppMag = 20|MPP = 0.4990|Left = 25.6"
    assert aperio_resolution(text) == pytest.approx((20040.08, 20040.08), rel=1e-6)
    for wrong in (None, "", "Leica |MPP = 0.5", "Aperio |MPP = 0", "Aperio |MPP = 1.2.3", "Aperio"):
        assert aperio_resolution(wrong) is None


def test_a_world_file_says_what_gdal_says(tmp_path: Path) -> None:
    for name, text in {
        "north": "10\n0\n0\n-10\n500005\n5199995\n",
        "turned": "8\n6\n6\n-8\n500000\n5200000\n",
    }.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, np.zeros((64, 64), np.uint8), tile=(64, 64), metadata=None)
        path.with_suffix(".tfw").write_text(text)
        with rasterio.open(path) as file:
            expected = file.transform
        tags = open_source(path).info.geo
        plain = tmp_path / f"{name}_tags.tif"
        extra = [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in tags]
        tifffile.imwrite(plain, np.zeros((64, 64), np.uint8), metadata=None, extratags=extra)
        with rasterio.open(plain) as file:
            assert file.transform.almost_equals(expected)


def test_the_file_comes_before_its_world_file() -> None:
    own = (Tag(33550, 12, 3, (1.0, 1.0, 0.0)),)
    assert with_world_file(own, "10\n0\n0\n-10\n5\n5\n") == own
    keys = (Tag(34735, 3, 4, (1, 1, 0, 0)),)
    assert [tag.code for tag in with_world_file(keys, "10\n0\n0\n-10\n5\n5\n")] == [33550, 33922, 34735]
    for wrong in ("", "1 2 3", "a b c d e f", "0 0 0 0 0 0", "nan 0 0 1 0 0"):
        assert world_file_tags(wrong) == ()


def test_profiles_travel_only_with_rgb(tmp_path: Path) -> None:
    pixels = pyvips.Image.new_from_array(np.full((64, 64, 3), 99, np.uint8)).copy(interpretation="srgb")
    path = tmp_path / "a.png"
    pixels.icc_transform("p3", input_profile="srgb").write_to_file(str(path))
    profile = open_source(path).info.icc
    assert profile is not None and is_rgb_profile(profile)
    assert not is_rgb_profile(b"") and not is_rgb_profile(b"GRAY" * 64)


def test_resolution_turns_with_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.zeros((64, 96), np.uint8)
    for orientation, expected in ((1, (50.0, 100.0)), (6, (100.0, 50.0))):
        tifffile.imwrite(path, pixels, tile=(64, 64), metadata=None, resolution=(100, 50), resolutionunit=3,
                         extratags=[(274, 3, 1, orientation, True)])  # fmt: skip
        assert open_source(path).info.pixels_per_cm == pytest.approx(expected)


ODD: dict[str, tuple[tuple[int, int, int | None, object, bool], str | tuple[object, ...]]] = {
    "floats instead of doubles": ((33550, 11, 3, (1.5, 2.5, 0.0), True), (12, (1.5, 2.5, 0.0))),
    "fractions instead of doubles": ((33550, 5, 3, (3, 2, 5, 2, 0, 1), True), (12, (1.5, 2.5, 0.0))),
    "fractions of nothing": ((33550, 5, 3, (3, 0, 5, 2, 0, 0), True), (12, (0.0, 2.5, 0.0))),
    "whole numbers instead of doubles": ((34736, 4, 2, (7, 9), True), (12, (7.0, 9.0))),
    "doubles instead of keys": ((34735, 12, 4, (1.0, 1.0, 0.0, 0.0), True), (3, (1, 1, 0, 0))),
    "bytes instead of text": ((34737, 1, 4, b"abc|", True), (2, "abc|")),
    "keys with a half": ((34735, 12, 4, (1.5, 1.0, 0.0, 0.0), True), "tiffset -u 34735"),
    "keys that are no numbers": ((34735, 12, 4, (float("nan"),) * 4, True), "tiffset -u 34735"),
    "keys of 32 bits": ((34735, 4, 4, (1 << 20, 1, 0, 0), True), "tiffset -u 34735"),
    "text instead of numbers": ((33922, 2, 6, "absurd", True), "tiffset -u 33922"),
    "numbers instead of text": ((34737, 12, 2, (1.0, 2.0), True), "tiffset -u 34737"),
    "places of SubIFDs that are no places": ((330, 12, 1, 3.5, True), "tag 330 must hold whole numbers"),
    "SubIFDs that are fractions": ((330, 5, 2, (1, 2, 3, 4), True), "tag 330 must hold whole numbers"),
    "SubIFDs that are text": ((330, 2, 8, "absurd!", True), "tag 330 must hold whole numbers"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_types_are_mended_or_named_when_the_file_is_opened(name: str, tmp_path: Path) -> None:
    tag, expected = ODD[name]
    path = tmp_path / "a.tif"
    options = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "extratags": [(65000, *tag[1:])]}
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), **options)
    entry = struct.pack("<HH", 65000, tag[1])
    path.write_bytes(path.read_bytes().replace(entry, struct.pack("<HH", *tag[:2]), 1))
    if isinstance(expected, str):
        with pytest.raises((BadInput, DamagedFile), match=expected) as caught:
            open_source(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    else:
        (found,) = open_source(path).info.geo
        assert (found.dtype, found.value) == expected
        info_fields(open_source(path).info)


@pytest.mark.parametrize("microns", ["9" * 350, "1e300", "1e-300", "1e-12", "0." + "0" * 340 + "1", "1e999"])
def test_an_absurd_resolution_is_none(microns: str) -> None:
    assert aperio_resolution(f"Aperio x|MPP = {microns}|") is None
    assert tag_resolution(float(microns), 100.0, 3) is None


@pytest.mark.parametrize("per_cm", [LEAST_RESOLUTION, 1.0, 25.4, MOST_RESOLUTION])
def test_a_resolution_that_is_taken_over_can_be_written_at_every_level(per_cm: float) -> None:
    for level in range(32):
        x, y, _ = resolution_fields(Info(pixels_per_cm=sane_resolution(per_cm, per_cm)), level)
        assert all(part > 0 for field in (x, y) for part in struct.unpack("<II", field.data))
