"""Pixel size and magnification as microscopes tell them, and the structures that are not written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

import urst_tiles as ut
from urst_tiles.source import open_source
from urst_tiles.tiff.microscopes import described, elements, tiff_date, ventana

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PIXELS = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)

APERIO = (
    "Aperio Image Library v11.2.1\r\n46000x32914 [42673,5576 2220x2967] (240x240) JPEG/RGB Q=30"
    "|AppMag = 20|Date = 12/29/09|Time = 09:59:15|MPP = 0.4990|User = b414003d"
)

PHILIPS = """<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">
<Attribute Name="DICOM_DERIVATION_DESCRIPTION" PMSVR="IString">tiff-rows=7-levels=40,10003,10002</Attribute>
<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">&quot;0.0005&quot; &quot;0.0005&quot;</Attribute>
<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">&quot;0.00025&quot; &quot;0.0002&quot;</Attribute>
</DataObject>"""

LEICA = """<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection><image><scanSettings>
<objectiveSettings><objective>40</objective></objectiveSettings></scanSettings></image></collection></scn>"""

VENTANA = '<Metadata><iScan ScanRes="0.25" Magnification="40" UnitNumber="7"/></Metadata>'


def ome(*images: str, more: str = "") -> str:
    """OME-XML of images, each given as the attributes and the children of its Pixels."""
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    return f'<?xml version="1.0" encoding="UTF-8"?><OME {space}>{more}{"".join(images)}</OME>'


def image(attributes: str, more: str = "", name: str = "scan", size: tuple[int, int] = (64, 96)) -> str:
    sizes = f'SizeX="{size[1]}" SizeY="{size[0]}"'
    return f'<Image ID="Image:0" Name="{name}">{more}<Pixels ID="Pixels:0" {sizes} {attributes}/></Image>'


def written(path: Path, description: str | None = None, **options: Any) -> Path:
    """A TIFF whose description is exactly this."""
    settings: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    tags = [] if description is None else [(270, 2, None, description.encode() + b"\0", True)]
    tifffile.imwrite(path, PIXELS, **(settings | {"extratags": tags} | options))
    return path


NM, UM = 'PhysicalSizeX="250" PhysicalSizeXUnit="nm" ', 'PhysicalSizeX="0.25" PhysicalSizeY="0.5"'

SIZES: dict[str, tuple[dict[str, Any], tuple[float, float] | None]] = {
    "OME, microns by default": ({"description": ome(image(UM))}, (0.5, 0.25)),
    "OME, nanometres": (
        {"description": ome(image(NM + 'PhysicalSizeY="0.0005" PhysicalSizeYUnit="mm"'))}, (0.5, 0.25)
    ),
    "OME, one axis": ({"description": ome(image('PhysicalSizeX="0.25"'))}, (0.25, 0.25)),
    "OME, pixels": ({"description": ome(image('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"'))}, None),
    "OME, the second image": (
        {"description": ome(image('PhysicalSizeX="9"', size=(5, 5)), image(UM))}, (0.5, 0.25)
    ),
    "OME, damaged": ({"description": ome(image(UM)).replace("</OME>", "</OM>")}, None),
    "OME, with entities": (
        {"description": '<!DOCTYPE OME [<!ENTITY a "b">]>' + ome(image(UM)).partition("?>")[2]}, None
    ),
    "ImageJ, microns": ({"description": "ImageJ=1.53c\nunit=\\u00B5m\n", "resolution": (4, 2)}, (0.5, 0.25)),
    "ImageJ, inches": (
        {"description": "ImageJ=1.53c\nunit=inch\n", "resolution": (101600, 50800)}, (0.5, 0.25)
    ),
    "ImageJ, pixels": ({"description": "ImageJ=1.53c\nunit=pixel\n", "resolution": (4, 2)}, None),
    "unit 5, micrometres": ({"resolution": (4, 2), "resolutionunit": 5}, (0.5, 0.25)),
    "unit 4, millimetres": ({"resolution": (4000, 2000), "resolutionunit": 4}, (0.5, 0.25)),
    "centimetres": ({"resolution": (40000, 20000), "resolutionunit": 3}, (0.5, 0.25)),
    "inches of a microscope": ({"resolution": (101600, 50800), "resolutionunit": 2}, (0.5, 0.25)),
    "inches of a print": ({"resolution": (300, 300), "resolutionunit": 2}, None),
    "no unit": ({"resolution": (4, 2), "resolutionunit": 1}, None),
    "Aperio": ({"description": APERIO}, (0.499, 0.499)),
    "Aperio before the tags": (
        {"description": APERIO, "resolution": (72, 72), "resolutionunit": 2}, (0.499, 0.499)
    ),
    "Philips": ({"description": PHILIPS}, (0.25, 0.2)),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_pixel_sizes_of_microscopes(name: str, tmp_path: Path) -> None:
    options, expected = SIZES[name]
    found = open_source(written(tmp_path / "a.tif", **options)).info.microns_per_pixel
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))


OBJECTIVES = '<Instrument ID="I:0"><Objective ID="O:0" NominalMagnification="20"/>{}</Instrument>'
SECOND = '<Objective ID="O:1" NominalMagnification="63"/>'

POWERS: dict[str, tuple[str, float | None]] = {
    "the only objective of OME": (ome(image(UM), more=OBJECTIVES.format("")), 20.0),
    "the one that OME names": (
        ome(image(UM, '<ObjectiveSettings ID="O:1"/>'), more=OBJECTIVES.format(SECOND)), 63.0
    ),
    "one of two that OME does not name": (ome(image(UM), more=OBJECTIVES.format(SECOND)), None),
    "Aperio": (APERIO, 20.0), "Philips": (PHILIPS, 40.0), "Leica": (LEICA, 40.0),
    "none": ("a plain description", None),
}  # fmt: skip


@pytest.mark.parametrize("name", POWERS)
def test_magnification(name: str, tmp_path: Path) -> None:
    description, expected = POWERS[name]
    assert open_source(written(tmp_path / "a.tif", description)).info.magnification == expected


def test_facts_arrive_and_no_false_structure(tmp_path: Path) -> None:
    text = ome(
        image(UM, "<AcquisitionDate>2024-05-01T10:00:00</AcquisitionDate><Description>A slice</Description>")
    )
    for name, description, plain in (("ome", text, "A slice"), ("svs", APERIO, ""), ("philips", PHILIPS, "")):
        path, out = written(tmp_path / f"{name}.tif", description), tmp_path / f"{name}_out.tif"
        ut.stylize(path, out, path, model="identity", tile=128, block=256, precision="float32")
        with tifffile.TiffFile(out) as tif:
            assert not tif.flags & {"ome", "svs", "philips", "shaped", "imagej"}
            assert tif.pages.first.description == plain
        with rasterio.open(out) as data:
            assert data.tags()["SOURCE_IMAGEDESCRIPTION"].split() == description.split()
        before, after = open_source(path).info, open_source(out).info
        assert after.microns_per_pixel == pytest.approx(before.microns_per_pixel)
        assert after.magnification == before.magnification
    with rasterio.open(tmp_path / "svs_out.tif") as data:
        assert data.tags()["aperio.AppMag"] == "20" and data.tags()["openslide.objective-power"] == "20"
        assert data.tags()["TIFFTAG_DATETIME"] == "2009:12:29 09:59:15"
    with rasterio.open(tmp_path / "ome_out.tif") as data:
        assert data.tags()["TIFFTAG_DATETIME"] == "2024:05:01 10:00:00"


def test_what_tifffile_notes_for_itself_is_no_description(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(64, 64), photometric="rgb")
    info = open_source(tmp_path / "a.tif").info
    assert (info.tags, info.gdal_metadata, info.lost) == ((), None, ())


def test_ventana() -> None:
    facts = ventana(VENTANA)
    assert facts is not None and facts.pixels_per_cm == (40000.0, 40000.0) and facts.magnification == 40
    assert facts.items["ventana.UnitNumber"] == "7"
    assert ventana("<x/>") is None and ventana(None) is None


def test_odd_texts_are_no_structure() -> None:
    for text in (None, "", "  ", "A < B", "scene 7", "[sic]"):
        assert described(text, (1, 1), (0.0, 0.0)) is None or text == "[sic]"
    assert list(elements("<a>" * 1000)) == [] and list(elements("<a><b>x</a></b>")) == []
    assert tiff_date("2024-05-01") == "2024:05:01 00:00:00" and tiff_date("yesterday") is None
