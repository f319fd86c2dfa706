"""Georeferencing beside the image: rational polynomials (RPC) and GDAL's PAM files as GeoTIFF tags.

References: "RPCs in GeoTIFF" (geotiff.maptools.org/rpc_prop.html); GDAL's RFC 22 and its pages on PAM and on
the GTiff driver; GeoTIFF 1.1 (OGC 19-008r4).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from urst_tiles.tiff.elements import Element, elements
from urst_tiles.tiff.metadata import GEO_CODES, POSITION_TAGS, RPC, Tag, affine_tags, stays_true
from urst_tiles.tiff.types import DOUBLE, SHORT

#: GDAL's names of the numbers of the tag in their order, and those of the four polynomials of 20 numbers.
RPC_NAMES = (
    "LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF", "LINE_SCALE", "SAMP_SCALE", "LAT_SCALE",
    "LONG_SCALE", "HEIGHT_SCALE",
)  # fmt: skip
RPC_POLYNOMIALS = ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF")

#: DigitalGlobe's names in its .RPB files, by GDAL's.
_RPB_NAMES = {
    "LINE_OFF": "lineOffset", "SAMP_OFF": "sampOffset", "LAT_OFF": "latOffset", "LONG_OFF": "longOffset",
    "HEIGHT_OFF": "heightOffset", "LINE_SCALE": "lineScale", "SAMP_SCALE": "sampScale",
    "LAT_SCALE": "latScale", "LONG_SCALE": "longScale", "HEIGHT_SCALE": "heightScale",
    "LINE_NUM_COEFF": "lineNumCoef", "LINE_DEN_COEFF": "lineDenCoef", "SAMP_NUM_COEFF": "sampNumCoef",
    "SAMP_DEN_COEFF": "sampDenCoef",
    "ERR_BIAS": "errBias", "ERR_RAND": "errRand",
}  # fmt: skip

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def rpc_tag(values: Mapping[str, str]) -> Tag | None:
    """The tag from GDAL's items of the domain RPC; None where one is missing or no number.

    A polynomial is one item of 20 numbers (``LINE_NUM_COEFF``) or 20 items (``LINE_NUM_COEFF_1`` and so on).
    The errors of bias and of randomness are -1 where they are not told, which stands for unknown.
    """
    numbers = [_first(values.get(name, "-1")) for name in ("ERR_BIAS", "ERR_RAND")]
    numbers += [_first(values.get(name, "")) for name in RPC_NAMES]
    for name in RPC_POLYNOMIALS:
        text = values.get(name) or " ".join(values.get(f"{name}_{i}", "") for i in range(1, 21))
        found = [float(word) for word in _NUMBER.findall(text)]
        numbers += found if len(found) == 20 else [math.nan]
    if len(numbers) != 92 or not all(map(math.isfinite, numbers)):
        return None
    return Tag(RPC, DOUBLE, 92, tuple(numbers))


def _first(text: str) -> float:
    found = _NUMBER.search(text)
    return float(found[0]) if found else math.nan


def rpc_text_tag(text: str) -> Tag | None:
    """The tag from a file ``_RPC.TXT`` (lines NAME: VALUE UNIT) or ``.RPB`` (NAME = VALUE;)."""
    pairs = dict(re.findall(r"^\s*(\w+)\s*[:=]\s*(\([^)]*\)|[^;\r\n]*)", text, re.MULTILINE))
    named = {name: pairs[other] for name, other in _RPB_NAMES.items() if other in pairs}
    return rpc_tag(named or pairs)


@dataclass(frozen=True)
class PamBands:
    """What GDAL's file NAME.aux.xml says about the bands of the image.

    Attributes
    ----------
    nodata : the nodata value of the first band that has one, or None. It comes before that of the image file.
    told : (number from 1, description, colour interpretation) of bands; either text may be empty.
    """

    nodata: str | None = None
    told: tuple[tuple[int, str, str], ...] = ()


NO_BANDS = PamBands()


@dataclass(frozen=True)
class Pam:
    """What GDAL's file NAME.aux.xml says about the image.

    Attributes
    ----------
    position : tags that say where the pixels lie: scale and tiepoint, a matrix, or ground control points.
    keys : the coordinate reference system as geo keys.
    rpc : rational polynomials.
    items : items of metadata, (name, domain, text).
    bands : what it says of the bands.
    lost : what is not taken over, in words.
    """

    position: tuple[Tag, ...] = ()
    keys: tuple[Tag, ...] = ()
    rpc: Tag | None = None
    items: tuple[tuple[str, str, str], ...] = ()
    bands: PamBands = NO_BANDS
    lost: tuple[str, ...] = field(default=())


def read_pam(text: str) -> Pam:
    """What the text of a file NAME.aux.xml says; nothing where it is not PAM.

    Statistics, histograms and other facts about the old pixels are left out. A reference system is taken over
    where it has a code of EPSG; its text (WKT) has no place in a TIFF.
    """
    found = elements(text)
    if not found or found[0].path != ("PAMDataset",):
        return Pam()
    domains = _domains(found)
    position, reference = _position(found)
    keys = epsg_keys(reference) if reference else ()
    lost = []
    if reference and not keys:
        lost = ["the CRS of its .aux.xml, which has no EPSG code (write it with gdal_edit -a_srs)"]
    items = tuple(
        (name, domain, value)
        for domain, pairs in domains.items()
        for name, value in pairs.items()
        if domain != "RPC" and not domain.startswith("xml:") and stays_true({"name": name, "domain": domain})
    )
    return Pam(position, keys, rpc_tag(domains.get("RPC", {})), items, _bands(found), tuple(lost))


def _bands(found: Sequence[Element]) -> PamBands:
    """What is said of the bands."""
    nodata: str | None = None
    bands: list[tuple[int, str, str]] = []
    for element in found:
        match element.path[1:]:
            case ("PAMRasterBand",):
                word = element.attributes.get("band", "")
                bands.append((int(word) if re.fullmatch("[0-9]{1,6}", word) else 0, "", ""))
            case ("PAMRasterBand", "NoDataValue"):
                nodata = nodata or element.text.strip() or None
            case ("PAMRasterBand", "Description"):
                bands[-1] = (bands[-1][0], element.text, bands[-1][2])
            case ("PAMRasterBand", "ColorInterp"):
                bands[-1] = (*bands[-1][:2], element.text)
    return PamBands(nodata, tuple(band for band in bands if band[0] and any(band[1:])))


def _domains(found: Sequence[Element]) -> dict[str, dict[str, str]]:
    """The items of metadata of the data set, not of its bands, by domain and name."""
    domains: dict[str, dict[str, str]] = {}
    domain = ""
    for element in found:
        if element.path == ("PAMDataset", "Metadata"):
            domain = element.attributes.get("domain", "")
        elif element.path == ("PAMDataset", "Metadata", "MDI"):
            domains.setdefault(domain, {})[element.attributes.get("key", "")] = element.text
    return domains


def _position(found: Sequence[Element]) -> tuple[tuple[Tag, ...], str]:
    """The tags that say where the pixels lie, and the text (WKT) of the reference system."""
    texts = {element.path[1]: element for element in found if len(element.path) == 2}
    reference = _reference(texts["SRS"]) if "SRS" in texts else ""
    numbers = (
        [float(word) for word in _NUMBER.findall(texts["GeoTransform"].text)]
        if "GeoTransform" in texts
        else []
    )
    if len(numbers) == 6:
        x, a, b, y, d, e = numbers
        return affine_tags(a, b, x, d, e, y), reference
    points = [e.attributes for e in found if e.path[1:] == ("GCPList", "GCP")]
    values = [
        _first(one.get(name, "0")) for one in points for name in ("Pixel", "Line", "Zero", "X", "Y", "Z")
    ]
    if values and all(map(math.isfinite, values)):
        lists = texts.get("GCPList")
        inside = "".join(e.text for e in found if e.path[1:] == ("GCPList", "SRS"))
        reference = reference or inside or (lists.attributes.get("Projection", "") if lists else "")
        return (Tag(33922, DOUBLE, len(values), tuple(values)),), reference
    return (), reference


def _reference(element: Element) -> str:
    """The WKT of a reference system; of one that is told as ``EPSG:CODE``, as much of it as has the code.

    Of geographic systems GDAL says that its first axis is the second of the data.
    """
    code = re.fullmatch(r"\s*EPSG:(\d{4,5})\s*", element.text)
    if not code:
        return element.text
    geographic = element.attributes.get("dataAxisToSRSAxisMapping", "").startswith("2,1")
    return f'{"GEOGCS" if geographic else "PROJCS"}["",AUTHORITY["EPSG","{code[1]}"]]'


def epsg_keys(wkt: str) -> tuple[Tag, ...]:
    """The geo keys of a reference system in WKT that names its code of EPSG; empty for any other.

    A compound system is not taken over, since its code is that of no horizontal system.
    """
    text = wkt.strip()
    kind = re.match(r"(PROJCS|PROJCRS|PROJECTEDCRS|GEOGCS|GEOGCRS|GEOGRAPHICCRS)\s*\[", text)
    code = re.search(r'(?:AUTHORITY\["EPSG",\s*"?|ID\["EPSG",\s*)(\d{4,5})"?\]\s*\]\Z', text)
    if not kind or not code or int(code[1]) > 65535:
        return ()
    projected = kind[1].startswith("PROJ")
    keys = (1, 1, 0, 3, 1024, 0, 1, 1 if projected else 2, 1025, 0, 1, 1, 3072 if projected else 2048, 0, 1)
    return (Tag(34735, SHORT, 16, (*keys, int(code[1]))),)


def completed(geo: Sequence[Tag], pam: Pam, rpc: Tag | None) -> tuple[Tag, ...]:
    """The tags of a file with what lies beside it: PAM comes before it, as in GDAL, RPC after."""
    tags = {tag.code: tag for tag in geo}
    if pam.position:
        tags = {code: tag for code, tag in tags.items() if code not in POSITION_TAGS}
    if pam.keys:
        tags = {code: tag for code, tag in tags.items() if code not in GEO_CODES}
    tags |= {tag.code: tag for tag in (*pam.position, *pam.keys)}
    for other in (pam.rpc, rpc):
        if other is not None:
            tags.setdefault(RPC, other)
    return tuple(sorted(tags.values(), key=lambda tag: tag.code))
