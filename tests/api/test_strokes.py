"""``--stroke LENGTH``: the size of a pixel from what the file tells, and the levels that follow from it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tifffile

import urst_tiles as ut
from urst_tiles.api.stylize import open_job
from urst_tiles.errors import BadInput
from urst_tiles.nets.painter import stroke_width
from urst_tiles.options import Options
from urst_tiles.source.pixel_size import pixel_size

STYLE = "monet-water-lilies"
SIDE = 512


def geo_tags(epsg, scale, corner, *, geographic=False):
    """Tags that place an image whose pixels are ``scale`` units wide and high."""
    keys = (
        1,
        1,
        0,
        3,
        1024,
        0,
        1,
        2 if geographic else 1,
        1025,
        0,
        1,
        1,
        2048 if geographic else 3072,
        0,
        1,
        epsg,
    )
    return [
        (33550, "d", 3, (scale, scale, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, *corner, 0.0), True),
        (34735, "H", 16, keys, True),
    ]


@pytest.fixture
def image(tmp_path):
    def write(name="image.tif", side=SIDE, **settings):
        path = tmp_path / name
        pixels = np.zeros((side, side, 3), np.uint8)
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **settings)
        return path

    return write


def side_of(path, **choice):
    return pixel_size(ut.open_source(path, **choice), "--stroke 1m").side


def test_the_size_on_the_ground(image):
    """Of UTM, of feet, of degrees at 60 degrees north, and of Web Mercator there, against known values."""
    utm = image(extratags=geo_tags(32632, 2.0, (500_000, 5_300_000)))
    assert side_of(utm) == pytest.approx(2 / 0.9996, rel=1e-3)  # the scale of UTM at its middle meridian
    feet = image("feet.tif", extratags=geo_tags(2263, 10.0, (980_000, 200_000)))  # New York, US survey feet
    assert side_of(feet) == pytest.approx(3.048, rel=1e-3)
    arc = 1 / 3600
    degrees = image("deg.tif", extratags=geo_tags(4326, arc, (10, 60 + SIDE / 2 * arc), geographic=True))
    y, x = pixel_size(ut.open_source(degrees), "--stroke 1m").metres
    assert y == pytest.approx(111_412 / 3600, rel=1e-3) and x == pytest.approx(55_800 / 3600, rel=1e-3)
    north = 8_399_737.9  # of latitude 60 in Web Mercator, which stretches the ground twice there
    web = image("web.tif", extratags=geo_tags(3857, 10.0, (1_000_000, north + 5 * SIDE)))
    assert side_of(web) == pytest.approx(5.0, rel=0.01)


def test_a_resolution_and_a_level(image, tmp_path):
    printed = image("print.tif", resolution=(300, 300), resolutionunit="INCH")
    assert side_of(printed) == pytest.approx(0.0254 / 300)
    scanned = image("scan.tif", resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    assert side_of(scanned) == pytest.approx(0.5e-6)
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        for number, side in enumerate((SIDE, SIDE // 2)):
            file.write(
                np.zeros((side, side, 3), np.uint8), tile=(256, 256), photometric="rgb", subfiletype=number,
                resolution=(20_000 >> number, 20_000 >> number), resolutionunit="CENTIMETER",
            )  # fmt: skip
    assert side_of(path, level=1) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    "tags",
    [
        [],
        [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)],
        [(33922, "d", 24, tuple(float(i * j) for i in (1, 2, 3, 5) for j in range(6)), True)],
    ],
)
def test_a_file_without_a_size_is_named(image, tags):
    path = image(extratags=tags)
    with pytest.raises(BadInput, match=r"image\.tif does not tell how large its pixels are.*--stroke 9m"):
        open_job(path, path.with_name("out.tif"), STYLE, Options(model="painter", stroke="9m"))
    assert not path.with_name("out.tif.job").exists()


def test_the_coarsest_strokes_have_the_length(image, caplog):
    """At 2 m per pixel; the line says levels, ratio and width, also where the length is out of reach."""
    path = image(extratags=geo_tags(32632, 2.0, (500_000, 5_300_000)))
    lengths = [f"{2 * stroke_width(n):g}m" for n in (1, 2, 3, 4)]
    for length, levels in [*zip(lengths, (1, 2, 3, 4), strict=True), ("1nm", 1), ("900km", 4)]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "urst_tiles.told"):
            plan = open_job(path, path.with_name("out.tif"), STYLE, Options(model="painter", stroke=length))[
                4
            ]
        assert plan.levels == levels
        (line,) = [line for line in caplog.messages if "--stroke" in line]
        assert f"--stroke {length}: {levels} level" in line and f"(as --stroke {2 ** (levels - 1)})" in line
        width = 2 / 0.9996 * stroke_width(levels)  # by the scale of the projection there
        assert f"about {width:.3g} m wide" in line and "2 m per pixel" in line
    numbered = open_job(path, path.with_name("out.tif"), STYLE, Options(model="painter", stroke=4))[4]
    like = open_job(path, path.with_name("out.tif"), STYLE, Options(model="painter", stroke=lengths[2]))[4]
    assert like.fingerprint == numbered.fingerprint


@pytest.mark.parametrize("model", ["lite", "colour"])
def test_a_length_is_for_the_painter(image, model):
    path = image(extratags=geo_tags(32632, 2.0, (500_000, 5_300_000)))
    style = STYLE if model == "lite" else path
    with pytest.raises(BadInput, match="--stroke"):
        open_job(path, path.with_name("out.tif"), style, Options(model=model, stroke="9m"))
