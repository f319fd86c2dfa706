"""What the studio shows, as a layer over any map: tiles XYZ, and the capabilities of a WMTS that has them.

References: OGC 07-057r7 (WMTS 1.0.0), RESTful encoding; OGC 17-083r2 for the set of tiles.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.kept import Kept
from urst_tiles.source.mercator import HALF, SIDE, MapLayer, layer_of
from urst_tiles.source.picture import encoded_png
from urst_tiles.studio.asked import Asked
from urst_tiles.studio.pictures import Pictures, Shown

#: How many layers are remembered.
LAYERS = 8

#: The scale denominator of zoom 0, in the standard's pixels of 0.28 mm.
SCALE = 2 * HALF / SIDE / 0.00028


class Layers:
    """The looks of the studio as layers of tiles."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._layers: Kept[MapLayer] = Kept(LAYERS)

    def layer(self, look: Asked) -> MapLayer:
        """Where the image of a look lies. Raises BadInput if it says no such thing."""
        source = self._pictures.ground(look)
        key = look.image, look.side, source.fingerprint
        return self._layers.made(key, lambda: layer_of(source))

    def tile(self, look: Asked, z: int, x: int, y: int) -> Shown:
        """A tile of a look, transparent where there is no image.

        Raises
        ------
        UrstError : there is no such tile, or the image has no place on the ground or cannot be read.
        """
        approximate = False

        def read(halvings: int, box: Box) -> NDArray[np.uint8]:
            nonlocal approximate
            pixels, approximate = self._pictures.pixels(look.painting, halvings, box)
            return pixels

        made = self.layer(look).tile(z, x, y, read)
        if made is None:
            made = np.zeros((SIDE, SIDE, 4), np.uint8)
        return Shown(encoded_png(made, compression=1), "image/png", approximate)


def address_of(base: str, look: Asked) -> str:
    """The address of the tiles of a look, with {z}, {x} and {y} for what programs put there."""
    return f"{base}xyz/{look.state}/{{z}}/{{x}}/{{y}}.png"


def capabilities(base: str, look: Asked, layer: MapLayer) -> str:
    """The capabilities of a WMTS of a look, as XML.

    Parameters
    ----------
    base : the address of the studio, which ends in ``/``.
    """
    west, south, east, north = layer.bounds
    title = escape(f"{look.image} in {look.style}" if look.style else look.image)
    tiles = address_of(base, look).format(z="{TileMatrix}", x="{TileCol}", y="{TileRow}")
    matrices = "".join(_matrix(z) for z in range(layer.zoom + 1))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Capabilities xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1"
 xmlns:xlink="http://www.w3.org/1999/xlink" version="1.0.0">
<ows:ServiceIdentification><ows:Title>urst-tiles studio</ows:Title><ows:ServiceType>OGC WMTS</ows:ServiceType>
<ows:ServiceTypeVersion>1.0.0</ows:ServiceTypeVersion></ows:ServiceIdentification>
<Contents>
<Layer><ows:Title>{title}</ows:Title>
<ows:WGS84BoundingBox><ows:LowerCorner>{west!r} {south!r}</ows:LowerCorner>
<ows:UpperCorner>{east!r} {north!r}</ows:UpperCorner></ows:WGS84BoundingBox>
<ows:Identifier>painting</ows:Identifier>
<Style isDefault="true"><ows:Identifier>default</ows:Identifier></Style>
<Format>image/png</Format>
<TileMatrixSetLink><TileMatrixSet>WebMercatorQuad</TileMatrixSet></TileMatrixSetLink>
<ResourceURL format="image/png" resourceType="tile" template="{escape(tiles)}"/></Layer>
<TileMatrixSet><ows:Identifier>WebMercatorQuad</ows:Identifier>
<ows:SupportedCRS>urn:ogc:def:crs:EPSG::3857</ows:SupportedCRS>
<WellKnownScaleSet>urn:ogc:def:wkss:OGC:1.0:GoogleMapsCompatible</WellKnownScaleSet>
{matrices}</TileMatrixSet>
</Contents>
<ServiceMetadataURL xlink:href="{escape(base)}wmts/{look.state}/WMTSCapabilities.xml"/>
</Capabilities>
"""


def _matrix(z: int) -> str:
    """The tiles of a zoom, as XML."""
    return (
        f"<TileMatrix><ows:Identifier>{z}</ows:Identifier>"
        f"<ScaleDenominator>{SCALE / (1 << z)!r}</ScaleDenominator>"
        f"<TopLeftCorner>{-HALF!r} {HALF!r}</TopLeftCorner>"
        f"<TileWidth>{SIDE}</TileWidth><TileHeight>{SIDE}</TileHeight>"
        f"<MatrixWidth>{1 << z}</MatrixWidth><MatrixHeight>{1 << z}</MatrixHeight></TileMatrix>\n"
    )
