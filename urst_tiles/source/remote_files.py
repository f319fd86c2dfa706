"""Files at addresses that fsspec knows (http, s3, gs, az, ...): their content, and how it is recognised."""

from __future__ import annotations

import hashlib
import urllib.error
from typing import Any

from urst_tiles.errors import BadInput, MissingFile, in_one_line
from urst_tiles.source.remote import NOTHING, head
from urst_tiles.storage.addresses import fsspec_options, not_installed

#: How many bytes of a file enter a fingerprint if its server tells nothing of it but the size.
SAMPLE_BYTES = 1 << 16

#: What stores call the checksum or the version of an object, and the time of its last change.
CHECKSUMS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "generation")
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")

#: That there is no such file.
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class RemoteFiles:
    """Files of one server, by their addresses. Small ones are asked for once, and kept.

    Attributes
    ----------
    refused : why the server did not let a file be read, of the last one that it did not; empty if there was
        none.
    """

    def __init__(self, address: str) -> None:
        self._files = file_system(address)
        self._kept: dict[str, bytes | None] = {}
        self.refused = ""

    def read(self, address: str, most: int) -> bytes | None:
        """The content of a file; None where there is none, where it has more than ``most`` bytes, or where
        the server does not let it be read: stores that may not be listed say so of what is not there, too.

        Raises
        ------
        MissingFile : the server does not answer.
        """
        if address not in self._kept:
            self._kept[address] = self._read(address, most)
        return self._kept[address]

    def _read(self, address: str, most: int) -> bytes | None:
        try:
            data = self._bytes(address, 0, most + 1)
        except ABSENT:
            return None
        except Exception as error:  # of whatever store
            if not is_refusal(error):
                raise unreachable(address, error) from None
            self.refused = in_one_line(error)
            return None
        return data if len(data) <= most else None

    def _bytes(self, address: str, start: int | None, stop: int | None) -> bytes:
        """Bytes ``start`` to ``stop`` of a file; the errors are those of its store."""
        found: bytes = self._files.cat_file(self._files._strip_protocol(address), start=start, end=stop)
        return found

    def part(self, address: str, start: int | None, stop: int | None) -> bytes | None:
        """Bytes ``start`` to ``stop`` of a file, or all of it for None; None where there is no such file.

        ``start`` is counted from the end of the file if it is below 0.

        Raises
        ------
        MissingFile : the server does not answer, or does not let it be read.
        BadInput : the server gives whole files only.
        """
        try:
            data = self._bytes(address, start, stop)
        except ABSENT:
            return None
        except Exception as error:  # of whatever store
            raise unreachable(address, error) from None
        most = None if start is None else -start if start < 0 else None if stop is None else stop - start
        if most is not None and len(data) > most:
            raise BadInput(
                f"{address}: its server gives no parts of files, which shards need; download the image, and"
                " give its path"
            )
        return data

    def state(self, address: str) -> str:
        """What the server tells of a file, as a text that is another once its content is; "absent" where
        there is none, "refused" where it may not be read. Raises MissingFile as `read`."""
        try:
            told = _told_by_http(address) if address.lower().startswith("http") else self._told(address)
            if told is not None:
                return repr(told)
            return hashlib.sha256(self._bytes(address, 0, SAMPLE_BYTES)).hexdigest()
        except ABSENT:
            return "absent"
        except Exception as error:  # of whatever store
            if is_refusal(error):
                return "refused"
            raise unreachable(address, error) from None

    def _told(self, address: str) -> tuple[str, ...] | None:
        """Size and checksum of an object, or the time of its last change; None if the store tells neither."""
        info = self._files.info(self._files._strip_protocol(address))
        for names in (CHECKSUMS, TIMES):
            if found := [f"{name}={info[name]}" for name in names if info.get(name)]:
                return str(info.get("size")), *found
        return None


def _told_by_http(address: str) -> tuple[str, ...] | None:
    """The same of a file on a server of HTTP; None also if it does not answer the question."""
    try:
        size, tag, time = head(address)
    except urllib.error.HTTPError as error:
        if error.code in NOTHING:
            raise FileNotFoundError(address) from None
        return None
    return (size, tag or time) if tag or time else None


def file_system(address: str) -> Any:
    """fsspec's file system for an address.

    Raises
    ------
    BadInput : the library that fsspec needs for it is not installed, or it knows no such scheme.
    """
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(address, **fsspec_options(address))[0]
    except ImportError as error:
        raise not_installed(address, error) from None
    except Exception as error:  # of whatever store
        raise unreachable(address, error) from None


def is_refusal(error: Exception) -> bool:
    """Whether a server refuses what it was asked for, or asks who wants to know."""
    status = getattr(error, "status", None)
    return isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__


def unreachable(address: str, error: Exception) -> MissingFile:
    """The error for a file that a server does not give."""
    if is_refusal(error):
        return refusal(address, in_one_line(error))
    return MissingFile(
        f"{address} cannot be reached ({in_one_line(error)}); check the address and the network, and give the"
        " same command again"
    )


def refusal(address: str, why: str) -> MissingFile:
    """The error for an address whose server wants to know who asks."""
    return MissingFile(
        f"{address} may not be read ({why}); give the credentials that fsspec finds (AWS_ACCESS_KEY_ID and"
        " so on), or AWS_NO_SIGN_REQUEST=YES for a public bucket"
    )
