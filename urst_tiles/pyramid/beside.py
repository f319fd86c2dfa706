"""Where a PNG, JPEG or WebP lies on the ground, in files beside it: a world file, ``.prj``, ``.aux.xml``.

References: GDAL's pages on PAM and on world files; GeoTIFF 1.1 (OGC 19-008r4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from urst_tiles.pyramid.formats import Format
from urst_tiles.source.esri_wkt import prj_text, wkt_of
from urst_tiles.source.gdal import INSTALL, library
from urst_tiles.tiff.georeference import RPC_NAMES, RPC_POLYNOMIALS
from urst_tiles.tiff.metadata import GEO_KEYS, RPC, Info, Tag, items_of

#: ModelPixelScale, ModelTiepoint, ModelTransformation.
_SCALE, _TIEPOINT, _MATRIX = 33550, 33922, 34264

#: Geo keys: whether a coordinate is that of a pixel's corner (1) or centre (2), a geographic and a projected
#: reference system by its code of EPSG. The value 32767 stands for a system of the user's own.
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED, _OWN = 1025, 2048, 3072, 32767

Affine = tuple[float, float, float, float, float, float]


def files_beside(chosen: Format, output: Path, info: Info) -> dict[Path, bytes]:
    """The files beside ``output`` that hold its georeference and items of GDAL's metadata, with their
    content; none where there is nothing to say, or the format has no such files."""
    if chosen.georeference != "beside":
        return {}
    world, pam, *prj = chosen.sidecars(output)
    affine = affine_of(info)
    files = {world: _world_file(affine)} if affine else {}
    text, system = _pam(info, affine), prj_text(info.geo) if affine else None
    files |= {pam: text.encode()} if text else {}
    return files | ({prj[0]: f"{system}\n".encode()} if prj and system else {})


def keys_of(info: Info) -> dict[int, int]:
    """The geo keys whose value is a number, by their code."""
    numbers = next((tag.value for tag in info.geo if tag.code == GEO_KEYS), ())
    assert not isinstance(numbers, str | bytes)
    rows = [numbers[at : at + 4] for at in range(4, len(numbers) - 3, 4)]
    return {int(code): int(value) for code, place, _, value in rows if place == 0}


def epsg_of(info: Info) -> int | None:
    """The code of EPSG of the reference system; None where there is none, or it has no code."""
    keys = keys_of(info)
    code = keys.get(_PROJECTED) or (keys.get(_GEOGRAPHIC) if _PROJECTED not in keys else None)
    return code if code and code != _OWN else None


def lost_beside(info: Info) -> list[str]:
    """What the files beside a picture cannot tell of its georeference, in words."""
    says = any(tag.code in (GEO_KEYS, 34736, 34737) for tag in info.geo)
    if not (says and keys_of(info)) or (affine_of(info) and prj_text(info.geo)):
        return []
    if epsg_of(info) is None:
        return ["the CRS, which has no EPSG code"]
    if library() is None and affine_of(info):
        return [f"the CRS in a .prj, which needs rasterio ({INSTALL}); it is in .aux.xml"]
    return []


def affine_of(info: Info) -> Affine | None:
    """(a, b, x, d, e, y) of the map from (column, row) of a pixel's corner to (a column + b row + x,
    d column + e row + y); None where the tags hold no such map."""
    tags: dict[int, Tag] = {tag.code: tag for tag in info.geo}
    half = 0.5 if keys_of(info).get(_RASTER_TYPE) == 2 else 0.0
    if _MATRIX in tags:
        m = _numbers(tags[_MATRIX])
        a, b, x, d, e, y = m[0], m[1], m[3], m[4], m[5], m[7]
    elif _SCALE in tags and _TIEPOINT in tags and len(_numbers(tags[_TIEPOINT])) == 6:
        (width, height), point = _numbers(tags[_SCALE])[:2], _numbers(tags[_TIEPOINT])
        a, b, d, e = width, 0.0, 0.0, -height
        x, y = point[3] - point[0] * a, point[4] - point[1] * e
    else:
        return None
    return a, b, x - half * (a + b), d, e, y - half * (d + e)


def _numbers(tag: Tag) -> list[float]:
    assert not isinstance(tag.value, str | bytes)
    return [float(value) for value in tag.value]


def _world_file(affine: Affine) -> bytes:
    """The six lines A, D, B, E, C, F of a world file; C and F are the centre of the upper left pixel."""
    a, b, x, d, e, y = affine
    lines = a, d, b, e, x + (a + b) / 2, y + (d + e) / 2
    return "".join(f"{number!r}\n" for number in lines).encode()


def _pam(info: Info, affine: Affine | None) -> str | None:
    """The text of a file ``.aux.xml``; None where there is nothing to say."""
    lines = [*_reference(info), *_transform(affine), *_points(info), *_rpc(info), *_items(info)]
    return "<PAMDataset>\n" + "".join(f"  {line}\n" for line in lines) + "</PAMDataset>\n" if lines else None


def place_lines(info: Info) -> Iterator[str]:
    """The same lines about where a picture lies, but for rational polynomials; a reference system without a
    code of EPSG is told by its WKT. GDAL's virtual datasets have them, too."""
    if epsg_of(info) is None and not _ground_points(info) and (system := wkt_of(info.geo)):
        yield f"<SRS>{escape(system)}</SRS>"
    yield from (*_reference(info), *_transform(affine_of(info)), *_points(info))


def texts_lines(info: Info, more: dict[str, str]) -> Iterator[str]:
    """The lines about GDAL's metadata, and about further items by their names."""
    yield from (*_items(info), *(_domain("", more) if more else ()))


def _reference(info: Info) -> Iterator[str]:
    if (code := epsg_of(info)) is not None and not _ground_points(info):
        order = "1,2" if _PROJECTED in keys_of(info) else "2,1"
        yield f'<SRS dataAxisToSRSAxisMapping="{order}">EPSG:{code}</SRS>'


def _transform(affine: Affine | None) -> Iterator[str]:
    if affine:
        a, b, x, d, e, y = affine
        yield f"<GeoTransform>{', '.join(repr(n) for n in (x, a, b, y, d, e))}</GeoTransform>"


def _ground_points(info: Info) -> list[float]:
    """The numbers of ground control points, six for each; empty where the tags hold none."""
    points = next((_numbers(tag) for tag in info.geo if tag.code == _TIEPOINT), [])
    has_map = any(tag.code in (_SCALE, _MATRIX) for tag in info.geo)
    return [] if has_map else points


def _points(info: Info) -> Iterator[str]:
    points = _ground_points(info)
    if points:
        code = epsg_of(info)
        yield f'<GCPList Projection="EPSG:{code}">' if code else "<GCPList>"
        for at in range(0, len(points), 6):
            column, row, _, x, y, z = points[at : at + 6]
            yield (
                f'  <GCP Id="{at // 6 + 1}" Pixel="{column!r}" Line="{row!r}" X="{x!r}" Y="{y!r}" Z="{z!r}"/>'
            )
        yield "</GCPList>"


def _rpc(info: Info) -> Iterator[str]:
    tag = next((tag for tag in info.geo if tag.code == RPC), None)
    if tag is None:
        return
    numbers = _numbers(tag)
    single = dict(zip(("ERR_BIAS", "ERR_RAND", *RPC_NAMES), numbers, strict=False))
    values = {name: repr(number) for name, number in single.items()}
    for i, name in enumerate(RPC_POLYNOMIALS):
        values[name] = " ".join(repr(n) for n in numbers[12 + 20 * i : 32 + 20 * i])
    yield from _domain("RPC", values)


def _items(info: Info) -> Iterator[str]:
    domains: dict[str, dict[str, str]] = {}
    for name, domain, text in items_of(info.gdal_metadata):
        domains.setdefault(domain, {})[name] = text
    for domain, values in sorted(domains.items()):
        yield from _domain(domain, values)


def _domain(domain: str, values: dict[str, str]) -> Iterator[str]:
    yield f"<Metadata{f' domain={quoteattr(domain)}' if domain else ''}>"
    for name, text in values.items():
        yield f"  <MDI key={quoteattr(name)}>{escape(text)}</MDI>"
    yield "</Metadata>"
