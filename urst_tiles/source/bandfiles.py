"""Bands that are files of their own: names of files beside INPUT, and the assets of a STAC item.

Reference: SpatioTemporal Asset Catalog, item specification 1.1, with the extension EO for names of bands.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source.members import AnyPath
from urst_tiles.storage.names import missing, require_file
from urst_tiles.tiff.choice import COLOURS

#: A STAC item has at most so many bytes.
MOST_ITEM_BYTES = 16 << 20

#: Suffixes of image files, by which a word is taken for the name of a file.
IMAGES = (".tif", ".tiff", ".btf", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".vrt", ".img")

#: The asset that is read of an item that has none for red, green and blue.
VISUAL = "visual"

#: The band files of an image: what each is called, and its path.
Named = tuple[tuple[str, Path], ...]


def band_files(name: AnyPath, bands: Sequence[int | str] | None) -> Named | None:
    """The files that hold the bands of an image, one each; None if the image is no such set of files.

    Parameters
    ----------
    name : a folder, or a file in the folder of the bands; or a STAC item, whose assets are the bands.
    bands : one or three names: of files, of assets, or such a part of the names of files as ``B04``, where
        ``name`` is the folder or one of three such files. None takes the assets red, green and blue of an
        item, or else its asset ``visual``.

    Raises
    ------
    MissingFile : there is no such file.
    BadInput : an asset lies elsewhere than on this machine, or the item has no such asset.
    """
    path = Path(name)
    if is_item(path):
        return tuple(_assets(path.absolute(), bands))
    words = [word for word in bands or () if isinstance(word, str)]
    if not words or len(words) != len(bands or ()) or not os.path.lexists(path):
        return None
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    if any(word.lower().endswith(IMAGES) or (folder / word).is_file() for word in words):
        return tuple((word, _file(folder / word)) for word in words)
    found = _called(folder, words)
    one_of_three = found is not None and len(found) == 3 and path.absolute() in [file for _, file in found]
    return found if path.is_dir() or one_of_three else None


def is_item(path: Path) -> bool:
    """Whether a path is that of a JSON file, which can only be a STAC item."""
    return path.suffix.lower() in (".json", ".geojson") and os.path.isfile(path)


def _file(path: Path) -> Path:
    require_file(path, "file of a band")
    return path


def _called(folder: Path, words: Sequence[str]) -> Named | None:
    """The files of a folder whose names have these words as parts, as B04 is one of T32UQD_B04_10m.jp2; None
    unless there is exactly one file for each word."""
    found = []
    try:
        names = [name for name in os.listdir(folder) if name.lower().endswith(IMAGES)]
    except OSError:
        return None  # which is said when the folder is opened
    for word in words:
        parts = {n: re.split(r"[^A-Za-z0-9]+", Path(n).stem.casefold()) for n in names}
        fitting = [n for n in names if word.casefold() in parts[n] and not n.startswith(".")]
        if len(fitting) != 1:
            return None
        found.append((word, folder / fitting[0]))
    return tuple(found) if len({path for _, path in found}) == len(words) else None


def _assets(path: Path, bands: Sequence[int | str] | None) -> Iterator[tuple[str, Path]]:
    """What each asset is called that is read of an item, and its file."""
    assets = _read_item(path)
    names = list(bands) if bands else _default(assets)
    if not names:
        raise BadInput(
            f"{path} has no assets red, green and blue; choose with --bands among {_listed(assets)}"
        )
    for name in names:
        key = _key(assets, str(name))
        if key is None:
            raise BadInput(f"{path} has no asset {name}; it has {_listed(assets)}")
        yield str(name), _local(path, key, assets[key])


def _listed(assets: dict[str, Any]) -> str:
    return ", ".join(list(assets)[:40]) or "none"


def _read_item(path: Path) -> dict[str, Any]:
    """The assets of a STAC item by their keys. Raises BadInput if the file is none."""
    if path.stat().st_size > MOST_ITEM_BYTES:
        raise BadInput(f"{path} has more than {MOST_ITEM_BYTES >> 20} MB; it is no STAC item")
    try:
        item = json.loads(path.read_bytes())
    except OSError as error:
        raise MissingFile(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is no image and no STAC item: it cannot be read as JSON") from None
    assets = item.get("assets") if isinstance(item, dict) and "stac_version" in item else None
    if not isinstance(assets, dict) or item.get("type") != "Feature":
        raise BadInput(f"{path} is JSON, but no STAC item with assets; name an image file, or an item")
    return {str(key): asset for key, asset in assets.items() if isinstance(asset, dict)}


def _default(assets: dict[str, Any]) -> list[str]:
    if all(_key(assets, colour) is not None for colour in COLOURS):
        return list(COLOURS)
    return [VISUAL] if VISUAL in assets else []


def _key(assets: dict[str, Any], name: str) -> str | None:
    """The key of the asset that is called so: its key, or else the name or the common name of its band."""
    for key in assets:
        if key.casefold() == name.casefold():
            return key
    fitting = [key for key, asset in assets.items() if name.casefold() in _names(asset)]
    return fitting[0] if fitting else None


def _names(asset: dict[str, Any]) -> set[str]:
    """The names of the band of an asset that has a single one."""
    for field in ("eo:bands", "bands"):
        bands = asset.get(field)
        if isinstance(bands, list) and len(bands) == 1 and isinstance(bands[0], dict):
            known = (bands[0].get(name) for name in ("name", "common_name", "eo:common_name"))
            return {name.casefold() for name in known if isinstance(name, str)}
    return set()


def _local(path: Path, key: str, asset: dict[str, Any]) -> Path:
    """The file of an asset. Raises BadInput if it lies on another machine."""
    href = asset.get("href")
    if not isinstance(href, str) or not href or "\0" in href:
        raise BadInput(f"{path}: its asset {key} has no href")
    if re.match(r"file://(localhost)?/", href, re.IGNORECASE):
        href = unquote(re.sub(r"^[^:]+://(localhost)?", "", href))
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", href) or href.startswith("/vsi"):
        raise BadInput(
            f"{path}: its asset {key} lies at {href}, and files on other machines are not read; download"
            " it, and write the path of the copy into the item"
        )
    file = path.parent / href
    if not file.is_file():
        raise missing(file, f"file of the asset {key} of {path}:")
    return file
