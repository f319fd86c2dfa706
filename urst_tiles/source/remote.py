"""Images that lie at an address: what GDAL calls them, and what their server tells of them."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PosixPath

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.storage.names import archive_of, remote_name

#: How long a server may take to answer, in seconds.
PATIENCE = 30

#: Answers of a server that mean that there is nothing.
NOTHING = (404, 410)


class Address(PosixPath):
    """An address in place of a path: its text has the two slashes that `pathlib` merges into one."""

    def __str__(self) -> str:
        text = remote_name(super().__str__())
        return text[0] if text else super().__str__()

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> Address:
        """The address itself, which is absolute."""
        return self


@dataclass(frozen=True)
class Place:
    """Where an image lies that is no file by its own name: what GDAL calls it, and the archive on this
    machine that it is in; None at an address."""

    path: Address
    name: str
    archive: Path | None = None


def place_of(path: str | os.PathLike[str]) -> Place | None:
    """Where the image lies that a name leads to; None for a name of a file of this machine.

    A file that exists is read, whatever its name.
    """
    if os.path.lexists(path):
        return None
    named, inner = remote_name(path), archive_of(path)
    if named is not None:
        return Place(Address(named[0]), named[1])
    if inner is None:
        return None
    around = (one for one in (Path(inner[1]), *Path(inner[1]).parents) if one.is_file())
    archive = next(around, None)
    return None if archive is None else Place(Address(os.fspath(path)), inner[0], archive)


def is_place(path: str | os.PathLike[str]) -> bool:
    """Whether a name may lead to an image although it is that of no file: an address, or a folder."""
    return place_of(path) is not None or (bool(os.fspath(path)) and os.path.isdir(path))


def state_of(path: Path) -> tuple[str, ...]:
    """Size, ETag and time of the last change of what lies at an address, as far as its server tells them.

    Only servers of HTTP are asked; empty for any other, and for those that do not answer the question.

    Raises
    ------
    MissingFile : there is nothing at that address, or no server.
    """
    url = str(path).removeprefix("/vsicurl/")
    if not url.lower().startswith(("http://", "https://")):
        return ()
    try:
        return head(url)
    except urllib.error.HTTPError as error:
        if error.code in NOTHING:
            raise MissingFile(f"there is nothing at {path} (the server says {error.code})") from None
        return ()  # servers may not allow the question, or want to know who asks: GDAL's affair
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error
        raise MissingFile(f"{path} cannot be reached: {why}; check the address and the network") from None
    except ValueError as error:
        raise BadInput(f"{path} is no address: {error}") from None


def head(url: str) -> tuple[str, str, str]:
    """Size, ETag and time of the last change of a file, as a server of HTTP tells them; "" for what it does
    not. The errors are those of `urllib.request.urlopen`."""
    question = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(question, timeout=PATIENCE) as answer:
        told = answer.headers.get
        return told("Content-Length", ""), told("ETag", ""), told("Last-Modified", "")
