"""The choice of the bands of a file that become the colours of the picture.

What a band is, is told by the photometric interpretation of the file, and for single bands by GDAL's metadata
(TIFF tag 42112): an item with the role "colorinterp" gives its colour, one with the role "description" its
name, and CENTRAL_WAVELENGTH_UM, in the domain IMAGERY, its wavelength (GDAL, "Raster Data Model").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from urst_tiles.tiff.choice import COLOURS, EVERY, Names, Word, colour_numbers, first_word, number_of, said
from urst_tiles.tiff.elements import elements
from urst_tiles.tiff.georeference import PamBands

#: The wavelengths in micrometres that count as red, green and blue, (from, to), and the middle that is
#: preferred: that of Sentinel-2's bands 4, 3 and 2.
WAVELENGTHS = {"red": (0.6, 0.7, 0.665), "green": (0.5, 0.6, 0.56), "blue": (0.43, 0.5, 0.49)}

#: Names of bands that only a certain family of satellites has, of whose bands 4, 3 and 2 are red, green and
#: blue: Sentinel-2 (and Landsat 8 and 9, whose bands 10 and 11 are thermal).
SENTINEL = {"b8a", "b9", "b10", "b11", "b12"}


@dataclass(frozen=True)
class Band:
    """A band of a file.

    Attributes
    ----------
    name : its name, such as "B4", or None.
    colour : what it stands for, in GDAL's words in small letters, such as "red", "nir", "alpha" or "gray";
        None where nothing says it.
    wavelength : its central wavelength in micrometres, or None.
    """

    name: str | None = None
    colour: str | None = None
    wavelength: float | None = None

    @property
    def names(self) -> Names:
        """What a user may call the band."""
        return Names(self.name, (self.colour,) if self.colour else ())


def plabands_of(count: int, is_rgb: bool) -> list[Band]:
    """Bands of which nothing is told, except that the first three are red, green and blue."""
    return [Band(colour=COLOURS[i] if is_rgb and i < 3 else None) for i in range(count)]


def gdal_bands(bands: Sequence[Band], xml: str | None) -> list[Band]:
    """The bands with what GDAL's metadata (the XML of TIFF tag 42112) tells of each.

    XML that makes no sense tells nothing.
    """
    told = list(bands)
    for item in elements(xml):
        sample = item.attributes.get("sample", "")
        if item.path != ("GDALMetadata", "Item") or not re.fullmatch("[0-9]{1,6}", sample):
            continue
        number = int(sample)
        if number < len(told) and item.text:
            told[number] = _told(told[number], item.attributes, item.text)
    return told


def pam_bands(bands: Sequence[Band], pam: PamBands) -> list[Band]:
    """The bands with what GDAL's file NAME.aux.xml tells of each; it comes before the file itself, as in
    GDAL."""
    told = list(bands)
    for number, name, colour in pam.told:
        if number <= len(told):
            for role, text in (("description", name), ("colorinterp", colour)):
                if text:
                    told[number - 1] = _told(told[number - 1], {"role": role}, text)
    return told


def _told(band: Band, attributes: dict[str, str], text: str) -> Band:
    """The band with what one item of GDAL's metadata tells of it."""
    role, name = attributes.get("role", "").lower(), attributes.get("name", "").upper()
    if role == "description":
        return replace(band, name=text)
    if role == "colorinterp":
        word = text.lower()
        return replace(band, colour=None if word in ("undefined", "palette") else word)
    if name == "CENTRAL_WAVELENGTH_UM":
        try:
            return replace(band, wavelength=float(text))
        except ValueError:
            return band
    return band


def choose_bands(path: Path, wanted: Sequence[Word] | None, bands: Sequence[Band] | int) -> list[int]:
    """The numbers of the colour bands to read, counted from 0: three, or a single band for a grey picture; or
    as many as were chosen.

    Parameters
    ----------
    path : the file, for messages.
    wanted : the bands that the user chose, by numbers counted from 1 or by names, as in
        ``--bands 3,2,1`` or ``--bands B4,B3,B2``; `EVERY` for all. None chooses those that the file calls
        red, green and blue, by their colour, by their names or by their wavelengths; else the first three, or
        the first if there are fewer than three.
    bands : the colour bands in the file; a number stands for so many of an RGB picture.

    Raises
    ------
    BadInput : the file does not have all of the bands ``wanted``.
    """
    if isinstance(bands, int):
        bands = plabands_of(bands, True)
    if wanted is None:
        return _default(bands)
    if tuple(wanted) == EVERY:
        return list(range(len(bands)))
    return [number_of(path, "band", word, [band.names for band in bands]) for word in wanted]


def _default(bands: Sequence[Band]) -> list[int]:
    """The bands that are read if the user chooses none."""
    if len(bands) < 3:
        return [0]
    for find in (_by_colour, _by_name, _by_wavelength, _by_satellite):
        found = find(bands)
        if found is not None:
            return found
    return [0, 1, 2]


def _by_colour(bands: Sequence[Band]) -> list[int] | None:
    return colour_numbers([band.colour for band in bands])


def _by_name(bands: Sequence[Band]) -> list[int] | None:
    return colour_numbers([(band.name or "").strip().casefold() for band in bands])


def _by_wavelength(bands: Sequence[Band]) -> list[int] | None:
    """The bands nearest to red, green and blue, if there is one of each."""
    found = []
    for low, high, middle in WAVELENGTHS.values():
        near = {i: abs(w - middle) for i, band in enumerate(bands) if low <= (w := _microns(band)) < high}
        if not near:
            return None
        found.append(min(near, key=near.__getitem__))
    return found


def _microns(band: Band) -> float:
    """The wavelength of a band in micrometres, from its tag or its name ("665 nm"); 0 if unknown."""
    if band.wavelength is not None:
        return band.wavelength
    match = re.search(r"(?<![0-9.])(\d{3,5}(?:\.\d+)?)\s*nm\b", band.name or "")
    return float(match.group(1)) / 1000 if match else 0.0


def _by_satellite(bands: Sequence[Band]) -> list[int] | None:
    """Bands 4, 3 and 2 where the names are those of Sentinel-2, or of Landsat 8 and 9."""
    first = [first_word((band.name or "").strip().casefold()) for band in bands]
    padded = {"b02", "b03", "b04"} <= set(first)  # as in the names of Sentinel-2's files
    words = [re.sub(r"(?<=b)0+(?=[0-9])", "", word) for word in first]
    told = padded or SENTINEL & set(words) or ("b8" in words and "b1" not in words)
    return [words.index(w) for w in ("b4", "b3", "b2")] if told and {"b4", "b3", "b2"} <= set(words) else None


def bands_said(bands: Sequence[Band], picks: Sequence[int]) -> str:
    """What becomes red, green and blue, or grey; empty where all bands are read in their order."""
    if list(picks) == list(range(len(bands))):
        return ""
    return said("band", [Names(band.name or band.colour) for band in bands], picks)
