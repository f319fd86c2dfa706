"""What microscopes and slide scanners write into a TIFF's description: pixel size, magnification, facts.

Programs recognise such files by their description, and then expect a whole structure of pages behind it. So
the facts are taken out here, and the structure is never written again: an output that began with "Aperio"
would be opened as a slide of that maker.

References: OME-XML 2016-06; OpenSlide's pages on its formats; ImageJ's ``TiffDecoder``; Leica's and Philips's
XML as OpenSlide reads them (``openslide-vendor-leica.c``, ``openslide-vendor-philips-tiff.c``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from urst_tiles.lengths import METRES
from urst_tiles.tiff.elements import Element, each, elements
from urst_tiles.tiff.metadata import aperio_resolution, sane_resolution

#: OpenSlide's name for the magnification of the objective.
OBJECTIVE = "openslide.objective-power"


@dataclass(frozen=True)
class Described:
    """What a structured description says.

    Attributes
    ----------
    kind : whose structure it is, in words.
    pixels_per_cm : (y, x) resolution, or None.
    magnification : of the objective, or None.
    description : the part that is plain text, or None.
    date : when the image was taken, as TIFF writes it ("2024:05:01 10:00:00"), or None.
    items : further facts by name.
    """

    kind: str
    pixels_per_cm: tuple[float, float] | None = None
    magnification: float | None = None
    description: str | None = None
    date: str | None = None
    items: Mapping[str, str] = field(default_factory=dict)


def described(text: str | None, shape: tuple[int, int], density: tuple[float, float]) -> Described | None:
    """The facts of a structured description; None for plain text.

    Parameters
    ----------
    text : the description.
    shape : (height, width) in pixels of the image that it belongs to.
    density : (y, x), the numbers of TIFF's tags 283 and 282, whose unit ImageJ tells in its description.
    """
    text = (text or "").strip()
    if not text:
        return None
    if text.startswith("Aperio"):
        return _aperio(text)
    if text.startswith("ImageJ="):
        return _imagej(text, density)
    if text.startswith("<"):
        return _xml(text, shape)
    for kind, pattern in _STRUCTURES.items():
        if pattern.search(text):
            return Described(kind)
    return None


#: Descriptions that other programs take for a structure of the file, beside the ones above.
_STRUCTURES = {
    "tifffile": re.compile(r'\A(\{.*"shape":|shape=\()', re.DOTALL),
    "ScanImage": re.compile(r"\A(state\.|SI\.)|scanimage\.SI"),
    "AstroTIFF": re.compile(r"\ASIMPLE "),
    "EPICS areaDetector": re.compile(r"\AEPICS areaDetector\Z"),
    "Hamamatsu's streak camera": re.compile(r"\A\[[^\]]{0,31}\],"),
    "Ventana": re.compile(r"\A(Label[ _]Image|Probability_Image|Thumbnail|level=\d+ mag=)"),
    "JSON": re.compile(r"\A[{\[].*[}\]]\Z", re.DOTALL),
}


def _aperio(text: str) -> Described:
    """The pairs NAME = VALUE between bars, under the names that OpenSlide gives them."""
    pairs = [part.partition("=") for part in re.split(r"[|\r\n]", text) if "=" in part]
    items = {f"aperio.{name.strip()}": value.strip() for name, _, value in pairs if name.strip()}
    magnification = _number(items.get("aperio.AppMag"))
    date = re.fullmatch(r"(\d\d)/(\d\d)/(\d\d)", items.get("aperio.Date", ""))
    time = items.get("aperio.Time", "")
    stamp = None
    if date and re.fullmatch(r"\d\d:\d\d:\d\d", time):
        stamp = f"20{date[3]}:{date[1]}:{date[2]} {time}"  # the first ScanScope is of 2001
    return Described("Aperio", aperio_resolution(text), magnification, None, stamp, items)


def _imagej(text: str, density: tuple[float, float]) -> Described:
    """Lines NAME=VALUE; the resolution tags are pixels for each unit."""
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    unit = pairs.get("unit", "").replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    y_unit = pairs.get("yunit", unit).replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    cm = _metres(y_unit) * 100, _metres(unit) * 100
    found = sane_resolution(density[0] / cm[0], density[1] / cm[1]) if all(cm) else None
    return Described("ImageJ", found)


def _xml(text: str, shape: tuple[int, int]) -> Described:
    """OME-XML, or the XML of Philips, Leica, Ventana or anybody else."""
    found = elements(text)
    root = found[0].path[0] if found else ""
    if root == "OME":
        return _ome(found, shape)
    if root == "DataObject":
        return _philips(found)
    if root == "scn":
        return _leica(found)
    return ventana(text) or Described("XML")


def _ome(found: Sequence[Element], shape: tuple[int, int]) -> Described:
    """The facts of the image whose size is that of the page, or of the first one."""
    images = each(found, "OME", "Image")
    if not images:
        return Described("OME-XML")
    sized = [one for one in images if (_of(one, "Pixels", "SizeY"), _of(one, "Pixels", "SizeX")) == shape]
    image = (sized or images)[0]
    size = [
        _of(image, "Pixels", f"PhysicalSize{axis}")
        * _metres(_attributes(image, "Pixels").get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "YX"
    ]
    size = size if all(size) else [max(size)] * 2  # one of the two may be missing
    texts = {element.path[2]: element.text.strip() for element in image if len(element.path) == 3}
    return Described(
        "OME-XML",
        sane_resolution(0.01 / size[0], 0.01 / size[1]) if all(size) else None,
        _ome_magnification(found, image),
        texts.get("Description") or _attributes(image, "Image").get("Name") or None,
        tiff_date(texts.get("AcquisitionDate", "")),
    )


def _ome_magnification(found: Sequence[Element], image: Sequence[Element]) -> float | None:
    """NominalMagnification of the objective that the image names, or of the only one."""
    objectives = [element.attributes for element in found if element.path[-1] == "Objective"]
    names = [e.attributes.get("ID") for e in image if e.path[-1] in ("ObjectiveSettings", "ObjectiveRef")]
    chosen = [one for one in objectives if one.get("ID") in names] or (
        objectives if len(objectives) == 1 else []
    )
    return _number(chosen[0].get("NominalMagnification")) if chosen else None


def _philips(found: Sequence[Element]) -> Described:
    """DICOM_PIXEL_SPACING of the largest level (row, then column, in mm) and the objective's power."""
    values = list[tuple[str, str]]()
    for element in found:
        if element.path[-1] == "Attribute":
            values.append((element.attributes.get("Name", ""), element.text.strip()))
    spacings = [re.findall(r"[\d.eE+-]+", text) for name, text in values if name == "DICOM_PIXEL_SPACING"]
    sizes = [[_number(word) or 0.0 for word in words] for words in spacings if len(words) == 2]
    finest = min((size for size in sizes if all(size)), default=None)
    made = next((text for name, text in values if name == "DICOM_DERIVATION_DESCRIPTION"), "")
    power = re.match(r"(?:[^=]*=[^-]*-)*?levels=(\d{1,3})\b", made)  # the first number, if it is no size
    resolution = sane_resolution(10 / finest[0], 10 / finest[1]) if finest else None
    return Described("Philips", resolution, _number(power[1] if power and int(power[1]) <= 200 else None))


def _leica(found: Sequence[Element]) -> Described:
    """The strongest objective: the others are of the overview. The pixel size is in TIFF's own tags."""
    powers = [_number(element.text) for element in found if element.path[-1] == "objective"]
    return Described("Leica", None, max((power for power in powers if power), default=None))


def ventana(xml: str | None) -> Described | None:
    """The facts of Ventana's XML, which lies in the tag of XMP; None for any other text."""
    if not xml or "iScan" not in xml:
        return None
    scans = [element.attributes for element in elements(xml) if element.path[-1] == "iScan"]
    if not scans:
        return None
    microns = _number(scans[0].get("ScanRes"))
    per_cm = 1e4 / microns if microns else 0.0
    items = {f"ventana.{name}": value for name, value in scans[0].items()}
    return Described(
        "Ventana", sane_resolution(per_cm, per_cm), _number(scans[0].get("Magnification")), items=items
    )


def tiff_date(text: str) -> str | None:
    """A date of ISO 8601 ("2024-05-01T10:00:00Z") as TIFF writes it; None for any other text."""
    match = re.match(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?))?", text.strip())
    if not match:
        return None
    time = match[4] or "00:00:00"
    return f"{match[1]}:{match[2]}:{match[3]} {time if len(time) == 8 else time + ':00'}"


def _attributes(image: Sequence[Element], name: str) -> Mapping[str, str]:
    return next((element.attributes for element in image if element.path[-1] == name), {})


def _of(image: Sequence[Element], name: str, attribute: str) -> float:
    return _number(_attributes(image, name).get(attribute)) or 0.0


def _metres(unit: str) -> float:
    """Metres in a unit; 0 for one that is no length, as "pixel" and "reference frame"."""
    unit = unit.strip()
    return METRES.get(unit) or METRES.get(unit.lower(), 0.0)


def _number(text: object) -> float | None:
    """The positive, finite number that a text is; else None."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if 0 < value < 1e300 else None
