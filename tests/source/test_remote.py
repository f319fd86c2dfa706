"""Images at addresses, on S3 and in archives, which GDAL reads: from small servers on this machine alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import geotiff, picture
from rasterio.shutil import copy

import urst_tiles as ut
from urst_tiles.errors import BadInput, DamagedFile, MissingFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.source.contents import contents_of
from urst_tiles.source.remote import Address, place_of
from urst_tiles.storage.names import remote_name

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}


def test_a_tiff_at_an_address(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    geotiff(folder / "a b.tif", picture(300, 260))
    url = f"{address}/a%20b.tif"
    source = open_source(url)
    assert str(source.path) == url and source.files == () and source.random_access
    np.testing.assert_array_equal(source.read(Box(7, 11, 290, 250)), picture(300, 260)[7:290, 11:250])
    ut.stylize(url, tmp_path / "out.tif", None, **SMALL)
    with rasterio.open(folder / "a b.tif") as before, rasterio.open(tmp_path / "out.tif") as after:
        np.testing.assert_array_equal(after.read(), before.read())
        assert after.crs == before.crs and after.transform == before.transform
    assert contents_of(Path(url)).pages[0].shape == (300, 260)


@pytest.mark.slow
def test_saved_jobs_and_tables_take_addresses(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, address = served
    geotiff(folder / "a.tif", picture(300, 260))
    Path("jobs.toml").write_text(
        f'inputs="{address}/a.tif"\noutput="{{stem}}_out.tif"\n[options]\nmodel="identity"\n'
        "tile=128\nblock=512\nthumbnail=64\n"
    )
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "urst_tiles"]
    subprocess.run([*command, "run", "jobs.toml"], check=True, env=environment, capture_output=True)
    flags = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    for call in (
        ["plan", f"{address}/a.tif", "b.tif", *flags, "--save", "JOB"],
        ["work", "JOB"],
        ["assemble", "JOB"],
    ):
        done = subprocess.run([*command, *call], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in ("a_out.tif", "b.tif"):
        with rasterio.open(name) as data:
            np.testing.assert_array_equal(np.moveaxis(data.read(), 0, -1), picture(300, 260))


def test_what_has_no_random_access_is_spooled(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    geotiff(tmp_path / "a.tif", picture(300, 260))
    copy(tmp_path / "a.tif", folder / "a.png", driver="PNG")
    source = open_source(f"{address}/a.png")
    assert not source.random_access
    source = source.prepare(tmp_path / "job", thumbnail=32)
    np.testing.assert_array_equal(source.read(Box(0, 0, 300, 260)), picture(300, 260))


def test_another_content_at_the_same_address_is_another_image(served: tuple[Path, str]) -> None:
    folder, address = served
    geotiff(folder / "a.tif", picture(300, 260))
    before = open_source(f"{address}/a.tif")
    assert open_source(f"{address}/a.tif").fingerprint == before.fingerprint
    pixels = picture(300, 260)
    pixels[150, 131] ^= 1  # between the samples, and told by the server
    geotiff(folder / "a.tif", pixels)
    assert open_source(f"{address}/a.tif").fingerprint != before.fingerprint
    with pytest.raises(DamagedFile, match="was changed while in use"):
        before.read(Box(0, 0, 300, 260))


def test_what_is_not_there(served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "text.tif").write_text("no image")
    with pytest.raises(MissingFile, match=r"there is nothing at .*none\.tif .*404"):
        open_source(f"{address}/none.tif")
    with pytest.raises(MissingFile, match="no image that GDAL can read at"):
        open_source(f"{address}/text.tif")
    with pytest.raises(MissingFile, match="cannot be reached"):
        open_source("http://127.0.0.1:9/a.tif")


def test_a_file_of_this_machine_leads_to_no_server(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    geotiff(folder / "a.tif", picture(90, 80))
    copy(folder / "a.tif", folder / "a.vrt", driver="VRT")
    np.testing.assert_array_equal(  # the user typed an address
        open_source(f"{address}/a.vrt").read(Box(0, 0, 90, 80)), picture(90, 80)
    )
    text = (folder / "a.vrt").read_text()
    for name in (f"/vsicurl/{address}/a.tif", f"/vsizip//vsicurl/{address}/a.zip/a.tif", f"{address}/a.tif"):
        (tmp_path / "far.vrt").write_text(re.sub(r">[^<>]*a\.tif<", f">{name}<", text))
        with pytest.raises(BadInput, match="on a network"):
            open_source(tmp_path / "far.vrt")


def test_the_file_systems_of_gdal_are_closed_to_files_of_this_machine(served: tuple[Path, str]) -> None:
    """Also where no name is looked at by us, as in formats that name others in ways of their own."""
    from urst_tiles.source.gdal import Unrecognised, open_dataset

    folder, address = served
    geotiff(folder / "shut.tif", picture(90, 80))
    name = f"/vsicurl/{address}/shut.tif"
    with pytest.raises((Unrecognised, DamagedFile)):
        open_dataset(Path("x.tif"), name, remote=False)
    assert open_dataset(Path("x.tif"), name, remote=True).shape == (90, 80)


def test_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geotiff(tmp_path / "a.tif", picture(90, 80))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "in/a.tif")
    monkeypatch.chdir(tmp_path)
    for name in (f"/vsizip/{tmp_path}/a.zip/in/a.tif", "/vsizip/a.zip/in/a.tif", "/vsizip/a.zip"):
        source = open_source(name)
        np.testing.assert_array_equal(source.read(Box(0, 0, 90, 80)), picture(90, 80))
        assert source.files == (tmp_path / "a.zip",)


def test_s3(tmp_path: Path, s3: str, keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    gdals = {"AWS_S3_ENDPOINT": s3.removeprefix("http://"), "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    for name, value in gdals.items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem()
    store.mkdir("images")
    store.put(str(geotiff(tmp_path / "a.tif", picture(300, 260))), "images/a.tif")
    source = open_source("s3://images/a.tif")
    np.testing.assert_array_equal(source.read(Box(0, 0, 300, 260)), picture(300, 260))
    source = open_source("/vsis3/images/a.tif")
    np.testing.assert_array_equal(source.read(Box(0, 0, 9, 9)), picture(300, 260)[:9, :9])
    with pytest.raises(MissingFile, match="AWS_ACCESS_KEY_ID"):
        open_source("s3://images/none.tif")


def test_s3_by_the_words_of_botocore(tmp_path: Path, s3: str, keys: None) -> None:
    """`keys` names the server as fsspec's library knows it; GDAL has other words."""
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("others")
    store.put(str(geotiff(tmp_path / "a.tif", picture(300, 260))), "others/a.tif")
    for name in ("s3://others/a.tif", "s3a://others/a.tif"):
        np.testing.assert_array_equal(open_source(name).read(Box(0, 0, 300, 260)), picture(300, 260))


@pytest.mark.parametrize("scheme", ["gs", "gcs", "az", "abfs", "abfss"])
def test_google_and_azure(
    scheme: str, tmp_path: Path, http: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ask a server of HTTP for BUCKET/NAME; Azure's addresses begin with an account."""
    folder, address = http
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setenv("GS_NO_SIGN_REQUEST", "YES")
    account = f"AccountName=me;AccountKey=a2V5;BlobEndpoint={address}/me"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{account}")
    bucket = folder / ("bucket" if scheme.startswith("g") else "me/bucket")
    bucket.mkdir(parents=True, exist_ok=True)
    geotiff(bucket / "a b.tif", picture(300, 260))
    ut.stylize(f"{scheme}://bucket/a b.tif", tmp_path / "out.tif", None, **SMALL)
    with rasterio.open(bucket / "a b.tif") as before, rasterio.open(tmp_path / "out.tif") as after:
        np.testing.assert_array_equal(after.read(), before.read())
        assert after.crs == before.crs and after.transform == before.transform


def test_names_of_addresses(tmp_path: Path) -> None:
    assert remote_name("https:/host/a.tif?x=1&y=2") == (
        "https://host/a.tif?x=1&y=2",
        "/vsicurl/https://host/a.tif?x=1&y=2",
    )
    assert remote_name("/here/s3:/bucket/a.tif") == ("s3://bucket/a.tif", "/vsis3/bucket/a.tif")
    assert remote_name("/vsicurl/https:/host/a.tif") == ("/vsicurl/https://host/a.tif",) * 2
    for name in ("a.tif", "/data/a.tif", "file:///a.tif", "gopher://a/b", "/vsimem/a.tif"):
        assert remote_name(name) is None
    place = place_of("https://host/a.tif")
    assert place is not None and isinstance(place.path, Address)
    assert str(place.path) == str(place.path.absolute()) == "https://host/a.tif"
    named = tmp_path / "https:" / "host"
    named.mkdir(parents=True)
    assert place_of(named) is None  # what exists is read
