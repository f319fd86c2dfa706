"""Addresses of object stores: how fsspec and GDAL reach them, from the same environment variables.

GDAL reads images at addresses, and fsspec reads OME-Zarr there and writes outputs; each knows variables of
its own. Here what is told to one of them is told to the other, so that one set of variables serves reading
and writing. A variable of a library's own always counts first.

References: "GDAL Virtual File Systems" (/vsis3/, /vsigs/, /vsiaz/), and the documentation of botocore, gcsfs
and adlfs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from urst_tiles.errors import BadInput, in_one_line

#: Tells options of fsspec, by their names.
Told = Callable[[], Iterator[tuple[str, Any]]]

#: What pip installs so that fsspec reaches a store, by the scheme of its addresses.
LIBRARIES = {
    "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "oss": "ossfs",
    "sftp": "paramiko", "ssh": "paramiko", "hdfs": "pyarrow", "smb": "smbprotocol",
}  # fmt: skip


def scheme_of(address: str) -> str:
    """The scheme of an address, such as ``s3``, without capitals."""
    return address.partition("://")[0].lower()


def is_store(address: str) -> bool:
    """Whether a text is an address of an object store, or of another store that fsspec writes to."""
    return "://" in address and scheme_of(address) in ("s3", "s3a", "memory", *LIBRARIES)


def not_installed(address: str, error: Exception) -> BadInput:
    """The error for an address whose library fsspec misses, with the command that installs it."""
    more = LIBRARIES.get(scheme_of(address))
    command = f"pip install 'urst-tiles[remote]'{f' {more}' if more else ''}"
    return BadInput(f"{address} needs a library that is not installed ({in_one_line(error)}): {command}")


def fsspec_options(address: str, *, write: bool = False) -> dict[str, Any]:
    """The options with which fsspec's file system of an address is made: no list of names is kept, so that
    what others have written meanwhile is seen, and what only GDAL's variables tell.

    ``write`` is whether something is written there: then variables that forgo credentials, as for the reading
    of public images, do not count.
    """
    options: dict[str, Any] = {"use_listings_cache": False}
    scheme = scheme_of(address)
    if scheme in ("http", "https"):
        options["client_kwargs"] = {"trust_env": True}  # proxies
    for schemes, told, anonymous in STORES:
        if scheme in schemes:
            options |= dict(told())
            if not write and _is_yes(anonymous[0]):
                options |= anonymous[1]
    return options


def _amazon() -> Iterator[tuple[str, Any]]:
    host = os.environ.get("AWS_S3_ENDPOINT")
    if host and not _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        plain = os.environ.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "OFF", "0")
        yield "endpoint_url", host if "://" in host else f"{'http' if plain else 'https'}://{host}"


def _google() -> Iterator[tuple[str, Any]]:
    host = os.environ.get("CPL_GS_ENDPOINT")
    if host and not _first("STORAGE_EMULATOR_HOST"):
        yield "endpoint_url", host.rstrip("/")


def _azure() -> Iterator[tuple[str, Any]]:
    if _first("AZURE_STORAGE_CONNECTION_STRING"):
        return  # says it all, to both
    if (name := os.environ.get("AZURE_STORAGE_ACCOUNT")) and not _first("AZURE_STORAGE_ACCOUNT_NAME"):
        yield "account_name", name
    if (key := os.environ.get("AZURE_STORAGE_ACCESS_KEY")) and not _first("AZURE_STORAGE_ACCOUNT_KEY"):
        yield "account_key", key


#: The schemes of Amazon's, Google's and Azure's stores, what fsspec is told of each, and the variable that
#: forgoes credentials with the option of fsspec that does.
STORES: tuple[
    tuple[tuple[str, ...], Callable[[], Iterator[tuple[str, Any]]], tuple[str, dict[str, Any]]], ...
] = (
    (("s3", "s3a"), _amazon, ("AWS_NO_SIGN_REQUEST", {"anon": True})),
    (("gs", "gcs"), _google, ("GS_NO_SIGN_REQUEST", {"token": "anon"})),
    (("az", "abfs", "abfss"), _azure, ("AZURE_NO_SIGN_REQUEST", {"anon": True})),
)


def gdal_options() -> dict[str, str]:
    """The options of GDAL that only variables of fsspec's libraries tell."""
    told = dict(_for_gdal())
    return {name: value for name, value in told.items() if name not in os.environ}


def _for_gdal() -> Iterator[tuple[str, str]]:
    address = _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if address and "AWS_S3_ENDPOINT" not in os.environ:
        yield "AWS_S3_ENDPOINT", address.partition("://")[2].rstrip("/") or address
        yield "AWS_HTTPS", "NO" if scheme_of(address) == "http" else "YES"
        yield "AWS_VIRTUAL_HOSTING", "FALSE"  # as botocore does at other hosts than Amazon's
    if host := _first("STORAGE_EMULATOR_HOST"):
        yield "CPL_GS_ENDPOINT", f"{host if '://' in host else f'http://{host}'}/"
    for name, other in (("ACCOUNT", "ACCOUNT_NAME"), ("ACCESS_KEY", "ACCOUNT_KEY")):
        if value := _first(f"AZURE_STORAGE_{other}"):
            yield f"AZURE_STORAGE_{name}", value


def _first(*names: str) -> str:
    """The first of these environment variables that is set and not empty; else an empty text."""
    return next((value for name in names if (value := os.environ.get(name))), "")


def _is_yes(name: str) -> bool:
    """Whether an environment variable says yes in GDAL's words."""
    return os.environ.get(name, "").upper() in ("YES", "TRUE", "ON", "1")
