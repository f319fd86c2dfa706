"""Addresses of object stores: the same variables of the environment serve fsspec and GDAL."""

from __future__ import annotations

import pytest

from urst_tiles.storage import addresses
from urst_tiles.storage.addresses import fsspec_options, gdal_options, not_installed

#: All variables that are looked at.
KNOWN = (
    "AWS_S3_ENDPOINT AWS_HTTPS AWS_VIRTUAL_HOSTING AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_NO_SIGN_REQUEST"
    " GS_NO_SIGN_REQUEST CPL_GS_ENDPOINT STORAGE_EMULATOR_HOST AZURE_STORAGE_CONNECTION_STRING"
    " AZURE_STORAGE_ACCOUNT AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCESS_KEY AZURE_STORAGE_ACCOUNT_KEY"
    " AZURE_NO_SIGN_REQUEST"
)


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN.split():
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "told", "options"),
    [
        ("s3://b/a", {"AWS_S3_ENDPOINT": "h:1", "AWS_HTTPS": "NO"}, {"endpoint_url": "http://h:1"}),
        ("s3a://b/a", {"AWS_S3_ENDPOINT": "h"}, {"endpoint_url": "https://h"}),
        ("s3://b/a", {"AWS_S3_ENDPOINT": "h", "AWS_ENDPOINT_URL": "http://i"}, {}),
        ("gs://b/a", {"CPL_GS_ENDPOINT": "http://h:1/"}, {"endpoint_url": "http://h:1"}),
        ("gcs://b/a", {"CPL_GS_ENDPOINT": "http://h", "STORAGE_EMULATOR_HOST": "http://i"}, {}),
        ("az://c/a", {"AZURE_STORAGE_ACCOUNT": "a"}, {"account_name": "a"}),
        ("abfss://c/a", {"AZURE_STORAGE_ACCESS_KEY": "k"}, {"account_key": "k"}),
        ("az://c/a", {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_ACCOUNT_NAME": "b"}, {}),
        ("az://c/a", {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_CONNECTION_STRING": "x"}, {}),
        ("memory://a", {"AWS_S3_ENDPOINT": "h"}, {}),
    ],
)
def test_what_gdal_is_told_counts_for_fsspec(
    address: str, told: dict[str, str], options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert fsspec_options(address) == {"use_listings_cache": False, **options}


@pytest.mark.parametrize(
    ("address", "variable", "option"),
    [
        ("s3://b/a", "AWS_NO_SIGN_REQUEST", {"anon": True}),
        ("gs://b/a", "GS_NO_SIGN_REQUEST", {"token": "anon"}),
        ("az://b/a", "AZURE_NO_SIGN_REQUEST", {"anon": True}),
    ],
)
def test_credentials_are_forgone_for_reading_alone(
    address: str, variable: str, option: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fsspec_options(address)
    monkeypatch.setenv(variable, "YES")
    assert fsspec_options(address) == plain | option
    assert fsspec_options(address, write=True) == plain


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ({}, {}),
        (
            {"AWS_ENDPOINT_URL": "http://h:1"},
            {"AWS_S3_ENDPOINT": "h:1", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"},
        ),
        (
            {
                "AWS_ENDPOINT_URL": "http://h",
                "AWS_ENDPOINT_URL_S3": "https://i/",
                "AWS_VIRTUAL_HOSTING": "TRUE",
            },
            {"AWS_S3_ENDPOINT": "i", "AWS_HTTPS": "YES"},
        ),
        ({"AWS_ENDPOINT_URL": "http://h", "AWS_S3_ENDPOINT": "i"}, {}),
        ({"STORAGE_EMULATOR_HOST": "http://h:1"}, {"CPL_GS_ENDPOINT": "http://h:1/"}),
        ({"STORAGE_EMULATOR_HOST": "h:1"}, {"CPL_GS_ENDPOINT": "http://h:1/"}),
        ({"STORAGE_EMULATOR_HOST": "h:1", "CPL_GS_ENDPOINT": "http://i/"}, {}),
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "k"},
            {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_ACCESS_KEY": "k"},
        ),
    ],
)
def test_what_fsspec_is_told_counts_for_gdal(
    told: dict[str, str], options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert gdal_options() == options


def test_a_library_that_is_missing_is_a_command_of_pip() -> None:
    said = {
        scheme: str(not_installed(f"{scheme}://b/a", ImportError("Please\ninstall it")))
        for scheme in ("s3", "gs", "gcs", "az", "abfs", "oss")
    }
    assert said["gs"] == (
        "gs://b/a needs a library that is not installed (Please install it): pip install 'urst-tiles[remote]'"
        " gcsfs"
    )
    assert said["s3"].endswith("pip install 'urst-tiles[remote]'")
    for scheme, name in (("gcs", "gcsfs"), ("az", "adlfs"), ("abfs", "adlfs"), ("oss", "ossfs")):
        assert said[scheme].endswith(f"'urst-tiles[remote]' {name}")
    assert set(addresses.LIBRARIES.values()) >= {"gcsfs", "adlfs"}
