"""What a virtual dataset (VRT) of this machine names: files of this machine that are there, and no network.

GDAL's file systems on networks are closed for files of this machine (`urst_tiles.source.gdal`). What is left
are drivers that fetch by themselves, in a virtual dataset that names their files or their names: it is
refused, since only an address that the user types is fetched.

A source that cannot be opened is told here, before anything is read: GDAL says it once in a process and
returns zeros without a word after that (measured with GDAL 3.10 and rasterio 1.4).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.source.gdal import REFUSED, Unrecognised, open_dataset
from urst_tiles.tiff.budget import MOST_TEXT_BYTES
from urst_tiles.tiff.elements import elements

#: Elements of virtual datasets that name a file, or a dataset.
NAMING = frozenset(["SourceFilename", "SourceDataset", "SourceVRTBand", "Source", "DstDSName", "FileName"])

#: Names that lead to a network.
_NETWORK = re.compile(
    r"\s*(?:/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|[a-z][a-z0-9+.-]+://|<|(?:"
    + "|".join(sorted(REFUSED))
    + r"):)|.*(?:/vsi(?:curl|s3|gs|az)|https?://)",
    re.IGNORECASE | re.DOTALL,
)

#: Names that only GDAL knows, such as those of subdatasets and of files in archives.
_DRIVER = re.compile(r"[A-Za-z0-9_]+:|/vsi|<")

#: The beginnings of files of drivers that fetch.
_FETCHING = re.compile(rb"<(?:GDAL_WMT?S|WCS_GDAL|GDALTileIndexDataset|WMT_MS_Capabilities|TileMap\b)")

#: How many files a virtual dataset may name, by way of others too.
MOST_NAMED = 1 << 17

#: Bytes at the beginning of a file that tell a virtual dataset.
START = 2048

#: Of how many named files each is opened, to see that it can be.
MOST_OPENED = 256


def check_sources(path: Path) -> None:
    """Check a file of this machine, and the files that it names, if it is a virtual dataset.

    Raises
    ------
    BadInput : one of them leads to an image on a network.
    DamagedFile : one that is named does not exist or cannot be opened.
    """
    seen, waiting = {path: False}, [path]
    while waiting:
        one = waiting.pop()
        for name in _named(one, path):
            if name not in seen:
                seen[name] = True
                waiting.append(name)
        if len(seen) > MOST_NAMED:
            raise BadInput(f"{path} names more than {MOST_NAMED} files; make a file of it first")
    if len(seen) <= MOST_OPENED:
        for name in [name for name, inside in seen.items() if inside]:
            try:
                open_dataset(name, str(name), remote=False).close()
            except Unrecognised as error:
                raise DamagedFile(f"{path} names {name}; {error}") from None


def _named(file: Path, first: Path) -> list[Path]:
    """The files of this machine that a virtual dataset names; none for any other file."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(START)
            if _FETCHING.search(start):
                raise BadInput(_refusal(first, str(file)))
            whole = start + opened.read(MOST_TEXT_BYTES) if b"<VRTDataset" in start else b""
    except OSError:  # of the first file GDAL will tell
        return []
    found = []
    for element in elements(whole.decode("utf-8", "replace")) if whole else ():
        if element.name not in NAMING or not element.text:
            continue
        if _NETWORK.match(element.text):
            raise BadInput(_refusal(first, element.text))
        beside = element.attributes.get("relativeToVRT") == "1" or "relativetoVRT" in element.attributes
        name = Path(os.path.abspath(file.parent / element.text if beside else element.text))
        if name.is_file():
            found.append(name)
        elif not os.path.lexists(name) and not _DRIVER.match(element.text):
            raise DamagedFile(f"{first} names {name}, which does not exist; put that file back")
    return found


def _refusal(path: Path, name: str) -> str:
    return (
        f"{path} leads to {name[:200]}, on a network, and files of this machine lead to none; give that"
        " address itself, or download it"
    )
