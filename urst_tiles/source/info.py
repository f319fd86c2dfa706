"""The metadata of an image file that its output takes over, from tags, header fields and sidecar files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput
from urst_tiles.source.containers import Carried, carried_by
from urst_tiles.source.esri_wkt import prj_block
from urst_tiles.source.sidecars import Sidecars
from urst_tiles.tiff import exif, microscopes, texts
from urst_tiles.tiff.directory import Directory, numbers_in
from urst_tiles.tiff.georeference import completed
from urst_tiles.tiff.header import Order, read_header
from urst_tiles.tiff.metadata import (
    GEO_CODES,
    GEO_TAGS,
    POSITION_TAGS,
    RPC,
    Info,
    Tag,
    Validity,
    clean_gdal_metadata,
    geo_tag,
    is_measured,
    is_rgb_profile,
    item_of,
    sane_resolution,
    tag_resolution,
    with_items,
    with_world_file,
)
from urst_tiles.tiff.microscopes import OBJECTIVE, Described
from urst_tiles.tiff.types import fractions

#: The item of GDAL's metadata that keeps a description which other programs would take for a structure.
SOURCE_DESCRIPTION = "SOURCE_IMAGEDESCRIPTION"

#: The longest such description that is kept.
MOST_DESCRIPTION = 1 << 16

#: The longest value of a tag that is remembered for other files.
MOST_SHARED_BYTES = 1 << 12

#: Tags that describe the old file or its pixels, which the new file tells itself, or that are taken over in
#: another way: sizes, strips and tiles, colours, JPEG's tables, resolution, software, and GDAL's.
OWN_TAGS = {
    *range(254, 267), 270, 273, 274, *range(277, 285), *range(288, 294), 296, 297, 301, 305, *range(317, 329),
    330, *range(332, 348), *range(512, 522), 529, 530, 531, 532, 559, 34665, 34675, 34853, 42112, 42113,
    50674, *range(32995, 32999), 37439, 65449,
}  # fmt: skip

#: Tags of other programs, in words.
NAMES = {
    texts.PHOTOSHOP: "Photoshop's image resources", 37724: "Photoshop's layers", 50838: "ImageJ's own tags",
    50839: "ImageJ's own tags", 34412: "the metadata of Zeiss's LSM", 33628: "the metadata of MetaMorph",
    33629: "the metadata of MetaMorph", 51023: "the metadata of MicroManager", 50706: "what makes it a DNG",
}  # fmt: skip


def tiff_info(
    main: Directory, validity: Validity, sidecars: Sidecars, orientation: int, first: Directory | None = None
) -> Info:
    """The metadata in the main directory of a TIFF.

    Parameters
    ----------
    main : the directory of the image at full resolution.
    validity : the way in which the source marks pixels as valid or invalid.
    sidecars : the files beside the image.
    orientation : 1 to 8, as TIFF's tag 274.
    first : the first directory of the file, where OME-XML describes all of them.

    Raises
    ------
    BadInput : the GDAL metadata is not safe to read, or the georeferencing makes no sense.
    """
    pam = sidecars.pam
    facts = _facts(main, first or main)
    profile = main.raw(34675) or None
    info = Info(
        geo=georeference(main, sidecars),
        icc=profile if profile and is_rgb_profile(profile) and main.number(262) != 5 else None,
        gdal_metadata=clean_gdal_metadata(main.text(42112), str(main.path)),
        nodata=pam.bands.nodata or main.text(42113),
        validity=validity,
    )
    block, carried = _tiff_exif(main), _tiff_texts(main, facts)
    info = replace(
        info,
        exif=block.exif,
        gps=block.gps,
        tags=carried,
        lost=_lost(main, facts, carried, block.lost, pam.lost, _prj_lost(info.geo, sidecars)),
    )
    items = [*exif.items(block), *pam.items]
    return _with_facts(_with_tiff_resolution(info, main, facts, orientation), main, facts, items)


def georeference(main: Directory, sidecars: Sidecars) -> tuple[Tag, ...]:
    """The georeferencing of a TIFF and of the files beside it, as GeoTIFF tags; BadInput where it makes no
    sense."""
    geo = with_world_file(tuple(_tag(main, code) for code in _geo_codes(main)), sidecars.world)
    return _placed(geo, sidecars)


def _placed(geo: tuple[Tag, ...], sidecars: Sidecars) -> tuple[Tag, ...]:
    """The georeferencing of an image, completed by its world file already, with what else lies beside it. A
    ``.prj`` comes last: its reference system counts where nothing else tells one."""
    tags = completed(geo, sidecars.pam, sidecars.rpc)
    if sidecars.prj is None or any(tag.code in GEO_CODES for tag in tags):
        return tags
    if not any(tag.code in POSITION_TAGS for tag in tags):
        return tags
    keys = geo_tags(prj_block(sidecars.prj)[0], str(sidecars.prj_path), GEO_CODES)
    return tuple(sorted((*tags, *keys), key=lambda tag: tag.code))


def _prj_lost(geo: Sequence[Tag], sidecars: Sidecars) -> list[str]:
    """Why the reference system of a ``.prj`` is not taken over, if nothing else tells one."""
    if sidecars.prj is None or any(tag.code in GEO_CODES for tag in geo):
        return []
    return [said] if (said := prj_block(sidecars.prj)[1]) else []


def _geo_codes(main: Directory) -> list[int]:
    """The codes of the georeferencing that the directory has; rational polynomials have 92 numbers."""
    codes = [code for code in GEO_TAGS if code in main.entries]
    return codes + ([RPC] if RPC in main.entries and main.entries[RPC].count == 92 else [])


def _facts(main: Directory, first: Directory) -> Described | None:
    """What a microscope wrote into the description of the main directory, or of the first one."""
    density = _rational(main, 283), _rational(main, 282)
    for directory in (main, first):
        found = microscopes.described(directory.short_text(texts.DESCRIPTION), main.shape, density)
        if found is not None:
            break
    packet = microscopes.ventana(main.short_text(texts.XMP) or first.short_text(texts.XMP))
    lens = _rational(main, 65421)  # SourceLens of Hamamatsu's NDPI
    if found is None and packet is None and lens > 0:
        return Described("Hamamatsu", magnification=lens)
    return packet or found


def _with_tiff_resolution(info: Info, main: Directory, facts: Described | None, orientation: int) -> Info:
    """The info with the resolution: what the description says comes before the tags."""
    if facts is not None and facts.pixels_per_cm is not None:
        return replace(info, pixels_per_cm=_turned(facts.pixels_per_cm, orientation))
    unit = main.number(296, 2)
    found = tag_resolution(_rational(main, 283), _rational(main, 282), unit)
    return replace(
        info,
        pixels_per_cm=_turned(found, orientation),
        in_inches=unit == 2 and found is not None,
        measured=is_measured(found, unit == 2),
    )


def _with_facts(
    info: Info, main: Directory, facts: Described | None, items: list[tuple[str, str, str]]
) -> Info:
    """The info with ``items`` of GDAL's metadata, and with those that the description says."""
    if facts is not None:
        items += [(name, "", text) for name, text in facts.items.items()]
        original = main.short_text(texts.DESCRIPTION)
        if original and original != facts.description and _keeps_original(facts, original):
            items.append((SOURCE_DESCRIPTION, "", original))
    power = facts.magnification if facts is not None else None
    if power is not None:
        items.append((OBJECTIVE, "", f"{power:g}"))
    xml = with_items(info.gdal_metadata, items) if items else info.gdal_metadata
    return replace(info, gdal_metadata=xml, magnification=power or _power(xml))


def _keeps_original(facts: Described, original: str) -> bool:
    return facts.kind != "tifffile" and len(original) <= MOST_DESCRIPTION


def _power(xml: str | None) -> float | None:
    """The magnification that an earlier output has in GDAL's metadata."""
    try:
        value = float(item_of(xml, OBJECTIVE) or 0)
    except ValueError:
        return None
    return value if 0 < value < 1e6 else None


def _tiff_exif(main: Directory) -> exif.Exif:
    """The EXIF and the GPS directory that the main directory leads to."""
    offsets = [main.number(code) for code in (exif.EXIF_IFD, exif.GPS_IFD)]
    if not any(offsets):
        return exif.Exif()
    return exif.from_offsets(main.file, *offsets, header=read_header(main.file))


def _tiff_texts(main: Directory, facts: Described | None) -> tuple[Tag, ...]:
    """The tags of text that the output takes over."""
    found: dict[int, Tag | None] = {}
    codes = (*texts.TEXTS, *texts.WINDOWS_TEXTS, texts.XMP, texts.IPTC, texts.PHOTOSHOP, texts.GEO_METADATA)
    values = {code: main.raw(code) for code in codes if main.has_short(code)}
    for code in (*texts.TEXTS, *texts.WINDOWS_TEXTS):
        found[code] = texts.text_tag(code, values.get(code, b""))
    if facts is not None:
        found[texts.DESCRIPTION] = texts.text_tag(texts.DESCRIPTION, (facts.description or "").encode())
        found[texts.DATE_TIME] = found[texts.DATE_TIME] or texts.text_tag(
            texts.DATE_TIME, (facts.date or "").encode()
        )
    found |= _blocks(values.get(texts.XMP, b""), values.get(texts.IPTC) or values.get(texts.PHOTOSHOP, b""))
    found[texts.GEO_METADATA] = texts.bytes_tag(texts.GEO_METADATA, values.get(texts.GEO_METADATA, b""))
    return _tags(found)


def _blocks(xmp: bytes, iptc: bytes) -> dict[int, Tag | None]:
    """The tags of XMP and IPTC."""
    return {
        texts.XMP: texts.bytes_tag(texts.XMP, texts.clean_xmp(xmp) or b""),
        texts.IPTC: texts.bytes_tag(texts.IPTC, texts.iptc_of(iptc)),
    }


def _tags(found: Mapping[int, Tag | None]) -> tuple[Tag, ...]:
    return tuple(tag for _, tag in sorted(found.items()) if tag is not None)


def _lost(
    main: Directory, facts: Described | None, carried: Iterable[Tag], *more: Iterable[str]
) -> tuple[str, ...]:
    """What the output does not take over from a TIFF, in words."""
    kept = {tag.code for tag in carried} | set(_geo_codes(main)) | OWN_TAGS
    empty = {code for code in main.entries if not main.entries[code].count}
    gone = sorted(code for code in main.entries.keys() - kept - empty if not _is_blank(main, code))
    if facts is not None and facts.kind in ("Ventana", "Hamamatsu"):
        gone = [code for code in gone if code != texts.XMP and code < 65000]
    words = [NAMES[code] for code in gone if code in NAMES]
    numbers = [str(code) for code in gone if code not in NAMES]
    if numbers:
        rest = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
        words.append(f"TIFF tag{'s' * (len(numbers) > 1)} {', '.join(numbers[:8])}{rest}")
    original = main.short_text(texts.DESCRIPTION)
    if facts is not None and original and len(original) > MOST_DESCRIPTION:
        words.append(f"all but the main facts of its {facts.kind}")
    return tuple(dict.fromkeys([*words, *(word for words_of in more for word in words_of)]))


def _is_blank(main: Directory, code: int) -> bool:
    """Whether a tag of text holds nothing but spaces and zeros."""
    return main.has_short(code, 1024) and main.entries[code].dtype == 2 and not main.raw(code).strip(b"\0 ")


def vips_info(
    path: Path, loader: str, image: Any, validity: Validity, sidecars: Sidecars, orientation: int
) -> Info:
    """The metadata of any other image, which the libvips loader ``loader`` opened as ``image``."""
    carried = carried_by(path, loader, image)
    block, pam = exif.of_block(carried.exif), sidecars.pam
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
    profile = bytes(profile) if profile is not None else None
    resolution, in_inches = _photo_resolution(carried, block)
    items = [*exif.items(block), *pam.items, *((name, "", text) for name, text in carried.items.items())]
    xml = with_items(None, items)
    geo = _placed(with_world_file(geo_tags(carried.geotiff, str(path)), sidecars.world), sidecars)
    return Info(
        geo=geo,
        icc=profile if profile and is_rgb_profile(profile) and image.interpretation != "cmyk" else None,
        pixels_per_cm=_turned(resolution, orientation),
        in_inches=in_inches,
        measured=not in_inches,
        magnification=_power(xml),
        gdal_metadata=xml,
        validity=validity,
        tags=_photo_texts(carried, block),
        exif=block.exif,
        gps=block.gps,
        lost=tuple(dict.fromkeys([*block.lost, *carried.lost, *pam.lost, *_prj_lost(geo, sidecars)])),
    )


def _photo_texts(carried: Carried, block: exif.Exif) -> tuple[Tag, ...]:
    """The tags of text: those of EXIF, and for what they do not tell those of the format itself."""
    found: dict[int, Tag | None] = {}
    for code in (*texts.TEXTS, *texts.WINDOWS_TEXTS):
        old = block.main.get(code)
        found[code] = texts.text_tag(code, old.value if old and isinstance(old.value, bytes) else b"")
        found[code] = found[code] or texts.text_tag(code, carried.texts.get(code, b""))
    return _tags(found | _blocks(carried.xmp, carried.iptc))


def _photo_resolution(carried: Carried, block: exif.Exif) -> tuple[tuple[float, float] | None, bool]:
    """(y, x) in pixels per cm, and whether that is a density for screens and printing.

    72 pixels per inch in EXIF stand for an unknown resolution (EXIF 2.32, section 4.6.4), and so does 1 pixel
    per mm in files that libvips wrote.
    """
    values = [exif.numbers(block.main.get(code)) for code in (283, 282, 296)]
    if values[0] and values[1]:
        y, x, unit = values[0][0], values[1][0], int(values[2][0]) if values[2] else 2
        found = tag_resolution(y, x, unit)
        unknown = (y, x, unit) == (72, 72, 2) or (found and np.allclose(found, 10.0, rtol=1e-3))
        if found and not unknown:
            return found, not is_measured(found, in_inches=True)
    if carried.pixels_per_cm is None:
        return None, False
    return sane_resolution(*carried.pixels_per_cm), carried.in_inches


def geo_tags(block: bytes, name: str, codes: Sequence[int] = GEO_TAGS) -> tuple[Tag, ...]:
    """The tags ``codes`` in a small GeoTIFF in memory, as in the box of a JPEG 2000 file called ``name``."""
    tags = exif.of_block(block).main
    found = [(tags[code], exif.numbers(tags[code])) for code in codes if code in tags]
    return tuple(
        geo_tag(tag.code, np.array(numbers) if numbers else None, bytes(tag.value), name)  # type: ignore[arg-type]
        for tag, numbers in found
    )


def _tag(main: Directory, code: int) -> Tag:
    """A GeoTIFF tag of the directory. Raises BadInput where its value makes no sense."""
    entry, raw = main.entries[code], main.raw(code)
    shared = None
    if code in GEO_CODES and len(raw) <= MOST_SHARED_BYTES:
        shared = _shared_tag(code, entry.dtype, main.order, raw)
    return shared or geo_tag(code, _numbers(main, code), raw, str(main.path))


@lru_cache(maxsize=64)
def _shared_tag(code: int, dtype: int, order: Order, raw: bytes) -> Tag | None:
    """A tag of a reference system, which all files of an image share; None where its value makes no sense."""
    try:
        return geo_tag(code, _plain(numbers_in(raw, dtype, order)), raw, "")
    except BadInput:
        return None


def _numbers(main: Directory, code: int) -> NDArray[Any] | None:
    """The numbers of a tag, (count,); None for text and bytes."""
    return _plain(main.array(code))


def _plain(values: NDArray[Any]) -> NDArray[Any] | None:
    """The numbers of a value, (count,); None for text and bytes.

    Fractions are divided, and are 0 where the divisor is 0.
    """
    if values.dtype.kind == "S":
        return None
    return fractions(values) if values.ndim == 2 else values


def _rational(main: Directory, code: int) -> float:
    """The value of a tag that holds a fraction or a number; 0.0 if it holds neither."""
    numbers = _numbers(main, code)
    return float(numbers[0]) if numbers is not None and numbers.size else 0.0


def _turned(resolution: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """(y, x) resolution as shown; orientations from 5 on exchange rows and columns."""
    return resolution[::-1] if resolution is not None and orientation >= 5 else resolution
