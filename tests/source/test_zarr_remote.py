"""OME-Zarr at addresses: from a server of HTTP and one of S3 on this machine alone."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import file_server
import numpy as np
import pytest
import tifffile
import zarr
from helpers import picture
from zarr_files import NAMES, ome

import urst_tiles as ut
from urst_tiles.errors import BadInput, DamagedFile, MissingFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.source.contents import contents_of
from urst_tiles.source.remote import Address
from urst_tiles.source.zarr_remote import is_zarr_address, spread

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}
RGB = ["FF0000", "00FF00", "0000FF", ""]

#: An image as t, c, z, y, x.
CUBE = np.random.default_rng(0).integers(0, 65536, (2, 4, 3, 100, 75)).astype(np.uint16)


def read(path: str, **chosen: object) -> np.ndarray:
    source = open_source(path, stretch="0,65535", **chosen)
    return source.read(Box(0, 0, *source.shape))


@pytest.mark.parametrize("version, shards", [("0.4", 1), ("0.5", 1), ("0.5", 2)])
def test_channels_planes_and_levels(version: str, shards: int, served: tuple[Path, str]) -> None:
    folder, address = served
    ome(folder / "a.ome.zarr", [CUBE, CUBE[..., ::2, ::2]], "tczyx", version, shards=shards)
    url = f"{address}/a.ome.zarr"
    source = open_source(url)
    assert str(source.path) == url and source.files == () and source.random_access
    assert source.told == (
        "z 2 of 3, t 1 of 2; channels 3 (TRITC), 2 (FITC) and 1 (DAPI) of 4 as red, green and blue"
    )
    assert source.overviews == [(50, 38)] and source.info.microns_per_pixel == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(read(url), np.moveaxis(CUBE[0, [2, 1, 0], 1], 0, -1))
    chosen = read(f"{url}/", channels=("Cy5", 2, "DAPI"), page=6, level=1)  # t 2, z 3
    np.testing.assert_array_equal(chosen, np.moveaxis(CUBE[1, [3, 1, 0], 2, ::2, ::2], 0, -1))
    found = contents_of(Address(url))
    assert len(found.pages) == 6 and [c.name for c in found.channels] == NAMES
    with pytest.raises(BadInput, match="no channel 'GFP'"):
        open_source(url, channels=("GFP",))
    local = open_source(folder / "a.ome.zarr", stretch="0,65535")
    assert source.reader_bytes > local.reader_bytes
    again = pickle.loads(pickle.dumps(source))
    assert again.fingerprint == open_source(url).fingerprint == source.fingerprint


def test_a_name_without_a_suffix(served: tuple[Path, str]) -> None:
    folder, address = served
    pixels = picture(130, 170)
    zarr.create_array(folder / "plain", shape=pixels.shape, dtype="u1", chunks=(50, 50, 3))[:] = pixels
    np.testing.assert_array_equal(read(f"{address}/plain"), pixels)


def test_a_job(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    pixels = picture(300, 260)
    ome(folder / "a.zarr", [np.moveaxis(pixels, -1, 0)], "cyx", "0.5", RGB, shards=2)
    ut.stylize(f"{address}/a.zarr", tmp_path / "out.tif", None, **SMALL)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)


@pytest.mark.parametrize("name", ["a.zarr", "plain.zarr"])  # told by ETags, and by content
def test_another_content_is_another_image(name: str, served: tuple[Path, str]) -> None:
    folder, address = served
    ome(folder / name, [CUBE[0, 0, 0]], "yx", "0.5")
    before = open_source(f"{address}/{name}")
    zarr.open_group(folder / name, mode="r+")["0"][70, 70] ^= 1
    assert open_source(f"{address}/{name}").fingerprint != before.fingerprint
    with pytest.raises(DamagedFile, match="was changed while in use"):
        before.read(Box(0, 0, 9, 9))


def test_chunks_that_are_not_stored_have_the_fill_value(served: tuple[Path, str]) -> None:
    folder, address = served
    ome(folder / "a.zarr", [np.zeros((130, 90), np.uint8)], "yx", "0.5")
    assert not (folder / "a.zarr" / "0" / "c").exists()
    assert not read(f"{address}/a.zarr").any()


def test_what_is_not_there_or_not_allowed(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    with pytest.raises(
        MissingFile, match=r"there is no Zarr at .*none\.zarr: .*zarr\.json.* check the address"
    ):
        open_source(f"{address}/none.zarr")
    with pytest.raises(MissingFile, match=r"secret\.zarr may not be read .*AWS_NO_SIGN_REQUEST"):
        open_source(f"{address}/secret.zarr")
    with pytest.raises(MissingFile, match=r"broken\.zarr/zarr\.json cannot be reached .*500"):
        open_source(f"{address}/broken.zarr")
    with pytest.raises(MissingFile, match=r"cannot be reached"):
        open_source("http://127.0.0.1:9/a.zarr")
    with pytest.raises(BadInput, match=r"query"):
        open_source(f"{address}/a.zarr?x=1")
    with pytest.raises(BadInput, match=r"gs://bucket/a\.zarr needs a library .*gcsfs"):
        open_source("gs://bucket/a.zarr")


def test_what_fails_while_it_is_read(served: tuple[Path, str]) -> None:
    folder, address = served
    path = ome(folder / "a.zarr", [CUBE[0, 0, 0]], "yx", "0.4")
    source = open_source(f"{address}/a.zarr")
    chunk = path / "0" / "1.1"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(DamagedFile, match="was changed while in use"):
        source.read(Box(0, 0, 100, 75))
    with pytest.raises(DamagedFile, match="cannot be decoded"):
        read(f"{address}/a.zarr")


def test_a_server_that_gives_whole_files_only(served: tuple[Path, str]) -> None:
    folder, address = served
    ome(folder / "whole.zarr", [CUBE[0, 0, 0]], "yx", "0.5", shards=2)
    source = open_source(f"{address}/whole.zarr", stretch="0,65535")
    with pytest.raises(BadInput, match="gives no parts of files"):
        source.read(Box(0, 0, 9, 9))
    np.testing.assert_array_equal(source.read(Box(0, 0, 100, 75))[..., 0], CUBE[0, 0, 0])  # whole shards


def test_codecs_of_a_server_that_run_code_are_refused(served: tuple[Path, str]) -> None:
    folder, address = served
    zarr.create_array(folder / "a.zarr", shape=(9, 9), dtype="u1", zarr_format=2)[:] = 1
    metadata = json.loads((folder / "a.zarr" / ".zarray").read_text())
    (folder / "a.zarr" / ".zarray").write_text(json.dumps(metadata | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(BadInput, match=r"a\.zarr has the codec pickle"):
        open_source(f"{address}/a.zarr")


def test_metadata_are_asked_for_once(served: tuple[Path, str], http: tuple[Path, str]) -> None:
    """A server cannot tell one thing when codecs are checked, and another when they are made."""
    folder, address = served
    ome(folder / "a.zarr", [CUBE[0, 0, 0]], "yx", "0.4")
    file_server.asked(http[0])
    read(f"{address}/a.zarr")
    asked = file_server.asked(http[0])
    opened = [line for line in asked if line.endswith("0/.zarray")]
    assert len(opened) == 2  # when the header was read, and when pixels were
    assert len([line for line in asked if line.startswith("HEAD")]) == 2 * 4


def test_a_folder_of_this_machine_leads_to_no_server(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    ome(folder / "a.zarr", [CUBE[0, 0, 0]], "yx", "0.5")
    path = Path(shutil.copytree(folder / "a.zarr", tmp_path / "b.zarr"))
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = f"{address}/a.zarr/0"
    (path / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(DamagedFile, match="no array of Zarr"):
        open_source(path)


def test_s3(tmp_path: Path, keys: None) -> None:
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("images")
    pixels = picture(300, 260)
    path = ome(tmp_path / "a.zarr", [np.moveaxis(pixels, -1, 0)], "cyx", "0.5", RGB, shards=2)
    store.put(str(path), "images/a.zarr", recursive=True)
    np.testing.assert_array_equal(read("s3://images/a.zarr"), pixels)
    before = open_source("s3://images/a.zarr")
    ut.stylize("s3://images/a.zarr", tmp_path / "out.tif", None, **SMALL)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)
    store.pipe("images/a.zarr/0/c/1/0/0", store.cat("images/a.zarr/0/c/0/0/0"))
    assert open_source("s3://images/a.zarr").fingerprint != before.fingerprint
    with pytest.raises(MissingFile, match=r"there is no Zarr at s3://images/none\.zarr"):
        open_source("s3://images/none.zarr")


def test_s3_by_the_words_of_gdal(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    store = s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=s3)
    store.mkdir("open", acl="public-read")
    path = ome(tmp_path / "a.zarr", [CUBE[0, 0, 0]], "yx", "0.4")
    store.put(str(path), "open/a.zarr", recursive=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_S3_ENDPOINT", s3.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(MissingFile, match=r"open/a\.zarr may not be read .*AWS_NO_SIGN_REQUEST"):
        open_source("s3://open/a.zarr")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    np.testing.assert_array_equal(read("s3://open/a.zarr")[..., 0], CUBE[0, 0, 0])
    s3fs.S3FileSystem.clear_instance_cache()


def test_names_of_addresses() -> None:
    for name in ("https://h/a.zarr", "s3://b/x/A.OME.ZARR/0", "gs://b/c", "https://h/a.zarr?x=1"):
        assert is_zarr_address(Address(name))
    for name in ("https://h/a.tif", "https://h/get?id=1", "/vsis3/b/a.zarr", "/vsicurl/https://h/a.zarr"):
        assert not is_zarr_address(Address(name))


def test_places_are_spread_over_the_lattice() -> None:
    assert list(spread([range(2), range(1, 3)], 9)) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    many = list(spread([range(1000), range(3, 4), range(1000)], 64))
    assert len(set(many)) == 64 and many[0] == (0, 3, 0) and many[-1] == (999, 3, 999)
