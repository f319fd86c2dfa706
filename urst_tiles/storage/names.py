"""Names of files: what a name says that leads to no file, and names of what lies beside a file.

A file that exists is read, whatever its name. The rules here are for a name that leads to nothing. It may be
an address, a name of GDAL's, a path of Windows or something that only a shell understands; then the sentence
says so, and not that there is no such file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from urst_tiles.errors import BadInput, MissingFile

#: How many bytes a name may have on the usual file systems.
NAME_MAX = 255

#: ``https://...``, also with the slashes that `pathlib` merges, and after the folder that made it absolute.
_URL = re.compile(r"(?:^|.*?/)([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)

#: GDAL's virtual file systems, as ``/vsicurl/...``.
_VIRTUAL = re.compile(r"/vsi[a-z0-9_]+/")

#: The beginning of an address whose slashes `pathlib` has merged.
_MERGED = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]+:)/+")

#: GDAL's virtual file systems on networks, by the schemes of addresses that they stand for.
REMOTE = {
    "http": "vsicurl/http://", "https": "vsicurl/https://", "ftp": "vsicurl/ftp://", "s3": "vsis3/",
    "s3a": "vsis3/", "gs": "vsigs/", "gcs": "vsigs/", "az": "vsiaz/", "abfs": "vsiadls/", "abfss": "vsiadls/",
    "oss": "vsioss/", "swift": "vsiswift/",
}  # fmt: skip
_REMOTE = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(?:_streaming)?/")

#: GDAL's virtual file systems inside archives.
_ARCHIVE = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)(.*)", re.DOTALL)

#: GDAL's drivers whose names stand before that of a data set, as in ``GTIFF_DIR:2:a.tif``.
_DATASET = re.compile(
    r"(?:^|.*/)((?:GTIFF_DIR|GTIFF_RAW|NETCDF|HDF4|HDF4_SDS|HDF4_EOS|HDF5|BAG|ZARR|GPKG|MBTILES|NITF_IM|JP2OPENJPEG"
    r"|SENTINEL[12]_\w+|DERIVED_SUBDATASET|RASTERLITE2?|WMS|WCS|WMTS|STACIT|STACTA|EEDAI|OGCAPI|PG|VRT|COG|GTIFF)"
    r":.*)",
    re.DOTALL | re.IGNORECASE,
)

#: A drive or a share of Windows.
_WINDOWS = re.compile(r"(?:^|.*?/)([A-Za-z]:[\\/].*|\\\\.*)", re.DOTALL)

#: The options of libvips, and the page numbers of ImageMagick, behind a name.
_OPTIONS = re.compile(r"(.+)(\[[^\[\]]*\])", re.DOTALL)


def require_file(path: str | os.PathLike[str], what: str = "file") -> os.stat_result:
    """The state of the file ``path``, which may be a symbolic link to it.

    Parameters
    ----------
    path : what the user named.
    what : what it was to be, in words, as in "style image".

    Raises
    ------
    MissingFile : it does not exist, or this user may not reach it; the message says why, and what to do.
    BadInput : it is a folder, or a device, a pipe or a socket.
    """
    if not os.fspath(path):
        raise BadInput(f"the name of the {what} is empty; give its path")
    try:
        state = os.stat(path)
    except PermissionError:
        raise MissingFile(f"{path} may not be read by this user; change the rights of its folder") from None
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path, what) from None
    except (OSError, ValueError) as error:
        said = address(path) or f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise MissingFile(said) from None
    if stat.S_ISDIR(state.st_mode):
        raise BadInput(f"{path} is a folder; name the {what} in it")
    if not stat.S_ISREG(state.st_mode):
        raise BadInput(
            f"{path} is no regular file (but a device, a pipe or a socket); copy the {what} into one"
        )
    return state


def missing(path: str | os.PathLike[str], what: str = "file") -> MissingFile:
    """The error for ``path``, which does not exist and was to be a ``what``."""
    said = address(path)
    return MissingFile(said or f"there is no {what} {os.fspath(path)}{reason(path)}")


def address(path: str | os.PathLike[str], *, output: bool = False) -> str | None:
    """The sentence about a name that is no path of a file system here, or None if it is one.

    ``output`` is whether it names a file to be written.
    """
    text = os.fspath(path)
    if found := _VIRTUAL.match(text):
        text = _MERGED.sub(r"\1//", text)
        return (
            f"{text} is a name on GDAL's virtual file system {found[0]}, not on this one; {_instead(output)}"
        )
    if found := _WINDOWS.match(text):
        return f"{found[1]} is a path of Windows; paths here are like /mnt/c/folder/file.tif"
    found = _URL.match(text)
    if found and not os.path.isdir(text[: found.end(1) + 1]):
        if found[1].lower() == "file":
            return f"file:///{found[2]} is a URL; give the path alone: /{found[2]}"
        return f"{found[1]}://{found[2]} is an address and no file of this machine; {_instead(output)}"
    if found := _DATASET.match(text):
        way = (
            "write a file" if output else f"make a file of it first, as by gdal_translate '{found[1]}' a.tif"
        )
        return f"{found[1]} is a name that only GDAL knows; {way}, and give its path"
    if text == "-" or (not output and os.path.basename(text) == "-"):
        if output:
            return (
                "- would be standard output, which cannot be rewound; name a file (./- for one of that name)"
            )
        return "- would be standard input, which is not read; save it to a file, and give the path of that"
    return None


def remote_name(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """An address as the user wrote it, and what GDAL calls it; None where GDAL's file systems on networks
    have no such scheme.

    ``s3://bucket/a.tif`` is ``/vsis3/bucket/a.tif``; GDAL's own names, also those of archives on a network,
    stay as they are. Slashes that `pathlib` merged are two again.
    """
    text = os.fspath(path)
    inner = archive_of(text)
    if _REMOTE.match(inner[1] if inner else text):
        text = _MERGED.sub(r"\1//", text)
        return text, text
    found = _URL.match(text)
    if not found or found[1].lower() not in REMOTE or os.path.isdir(text[: found.end(1) + 1]):
        return None
    return f"{found[1]}://{found[2]}", f"/{REMOTE[found[1].lower()]}{found[2]}"


def archive_of(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """GDAL's name of a file in an archive, and the absolute name of the archive with that of the file behind
    it; None for any other name. ``/vsizip/a.zip/b.tif`` is relative, unless only ``/a.zip`` exists."""
    found = _ARCHIVE.fullmatch(os.fspath(path))
    if not found:
        return None
    rest = found[2] if found[2].startswith("/") else f"/{found[2]}"
    if _REMOTE.match(rest):
        return found[1] + rest, rest
    first = os.path.abspath(found[2].lstrip("/").split("/")[0])
    rest = os.path.abspath(found[2].lstrip("/")) if os.path.lexists(first) else rest
    return found[1] + rest, rest


def _instead(output: bool) -> str:
    """What to do, as remote files are neither read nor written."""
    if output:
        return "outputs are not written there; name a file here, and upload it when it is finished"
    return "it cannot be read from there; download or unpack it, or mount the place, and give its path"


def reason(path: str | os.PathLike[str]) -> str:
    """Why there is nothing at ``path``, as far as the file system tells; empty if it does not."""
    return next(_reasons(Path(path)), "")


def _reasons(path: Path) -> Iterator[str]:
    for one in (path, *path.parents):
        if os.path.islink(one) and not os.path.exists(one):
            yield f": {one} is a symbolic link to {os.readlink(one)}, which does not exist"
        elif one != path and os.path.lexists(one) and not os.path.isdir(one):
            yield f": {one} is a file and no folder"
    if (found := _OPTIONS.fullmatch(str(path))) and os.path.isfile(found[1]):
        yield f"; give {found[1]} without {found[2]}, since options of libvips are not read in names"
    if said := from_home(path):
        yield said
    if "\\" in path.name and os.path.exists(str(path).replace("\\", "/")):
        yield f"; did you mean {str(path).replace(chr(92), '/')}?"


def from_home(path: Path) -> str:
    """A remark on ``~`` or ``~name`` in a path, with what a shell makes of it; empty if it has neither."""
    for index, part in enumerate(path.parts):
        if part.startswith("~") and os.path.expanduser(part) != part:
            whole = os.path.expanduser(os.path.join(*path.parts[index:]))
            return f"; only a shell replaces ~, and only at the start of a word: give {whole}"
    return ""


def beside(path: Path, ending: str) -> Path:
    """The file or folder in the folder of ``path`` whose name is that of ``path`` and an ``ending``.

    If that would be longer than ``NAME_MAX`` bytes, the name of ``path`` is cut between two characters, and
    eight digits of its SHA-256 tell it apart from others.
    """
    name = os.fsencode(path.name)
    if len(name) + len(ending) <= NAME_MAX:
        return path.with_name(path.name + ending)
    digits = hashlib.sha256(name).hexdigest()[:8]
    return path.with_name(f"{cut(path.name, NAME_MAX - len(ending) - 9)}-{digits}{ending}")


def cut(name: str, most: int) -> str:
    """A name, of which at most the first ``most`` bytes are kept; no character of UTF-8 is cut in two."""
    data = os.fsencode(name)
    if len(data) <= most:
        return name
    while most and data[most] & 0xC0 == 0x80:
        most -= 1
    return os.fsdecode(data[:most])
