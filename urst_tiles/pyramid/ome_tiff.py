"""OME-XML for an OME-TIFF: what its readers (Bio-Formats, QuPath, tifffile) must know of its only image.

The overviews lie in SubIFDs of the image, so the one directory of the chain is the one TiffData element.
Reference: the OME model 2016-06, and "OME-TIFF specification" 6.3 (docs.openmicroscopy.org).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from urst_tiles.geometry import Grid
from urst_tiles.pyramid.encode import Encoding
from urst_tiles.tiff.metadata import Info
from urst_tiles.tiff.texts import DESCRIPTION
from urst_tiles.tiff.writing import DirectoryField, text

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"

#: The name space of the UUIDs, which follow from the picture so that equal jobs give equal bytes.
_OURS = uuid.uuid5(uuid.NAMESPACE_URL, _SCHEMA)


def with_ome_xml(
    fields: Sequence[DirectoryField], grid: Grid, encoding: Encoding, info: Info
) -> list[DirectoryField]:
    """The fields of metadata with OME-XML as ImageDescription; a description becomes that of the image."""
    said = next((field.data for field in fields if field.code == DESCRIPTION), b"")
    description = said.rstrip(b"\0").decode("utf-8", "replace")
    xml = ome_xml(grid, encoding, info, description)
    return [*(field for field in fields if field.code != DESCRIPTION), text(DESCRIPTION, xml)]


def ome_xml(grid: Grid, encoding: Encoding, info: Info, description: str = "") -> str:
    """The OME-XML of an image that is stored as one RGB plane, or as one of RGBA."""
    samples, microns = encoding.samples, info.microns_per_pixel
    size = ""
    if microns:
        y, x = microns
        size = (
            f' PhysicalSizeX="{x!r}" PhysicalSizeXUnit="\u00b5m" PhysicalSizeY="{y!r}"'
            ' PhysicalSizeYUnit="\u00b5m"'
        )
    bits = {"uint8": 8, "uint16": 16}[encoding.dtype]
    pixels = (
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type={quoteattr(encoding.dtype)} BigEndian="false"'
        f' Interleaved="true" SignificantBits="{bits}" SizeX="{grid.width}" SizeY="{grid.height}"'
        f' SizeC="{samples}" SizeZ="1" SizeT="1"{size}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="{samples}"><LightPath/></Channel>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels>'
    )
    power = info.magnification
    lens = instrument = ""
    if power:
        instrument = (
            '<Instrument ID="Instrument:0"><Objective ID="Objective:0:0"'
            f' NominalMagnification="{power!r}"/></Instrument>'
        )
        lens = '<InstrumentRef ID="Instrument:0"/><ObjectiveSettings ID="Objective:0:0"/>'
    told = f"<Description>{escape(description)}</Description>" if description else ""
    image = f'<Image ID="Image:0">{told}{lens}{pixels}</Image>'
    own = uuid.uuid5(_OURS, instrument + image)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/ome.xsd" UUID="urn:uuid:{own}">{instrument}{image}</OME>'
    )
