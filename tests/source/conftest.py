"""Servers that the tests of images at addresses share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import file_server
import pytest
import s3_server


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    folder = tmp_path_factory.mktemp("served")
    with file_server.serving(folder) as address:
        yield folder, address


@pytest.fixture
def served(http: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A new folder, and the address at which it is served."""
    folder, address = http
    (folder / tmp_path.name).mkdir()
    return folder / tmp_path.name, f"{address}/{tmp_path.name}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server on this machine."""
    with s3_server.serving(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture
def keys(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for that server."""
    pairs = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (pairs | {"AWS_ENDPOINT_URL": s3}).items():
        monkeypatch.setenv(name, value)
