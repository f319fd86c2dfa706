"""The table of formats in docs/formats.md: each row is tried on a file that is made here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from format_files import PLACES
from format_rows import OUT, REFUSED, ROWS, Row, text_of_output
from helpers import picture
from s3_server import serving

from urst_tiles.api.stylize import stylize_on
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.options import Options
from urst_tiles.pyramid.formats import FORMATS
from urst_tiles.source import gdal, gdal_facts, open_source, slides
from urst_tiles.source import open as opening_module
from urst_tiles.source import openslide as by_openslide
from urst_tiles.source.vips import LOADERS
from urst_tiles.workers.run import Cluster, plain

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "formats.md"

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}

#: A stretch that leaves samples of each type as they are, up to a factor.
STRETCH = {"uint8": "0,255", "uint16": "0,65535", "int16": "0,65535", "float32": "0,1"}

#: The opener of each reader.
READERS = {
    "TiffOpener": "own reader", "VipsOpener": "libvips", "GdalOpener": "GDAL", "SlideOpener": "OpenSlide",
    "ZarrOpener": "zarr", "MosaicOpener": "own mosaic", "JoinedOpener": "own reader, or GDAL",
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server of this machine, which is also one of HTTP."""
    with serving(tmp_path_factory.mktemp("server") / "log") as found:
        yield found


@pytest.fixture
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which that server is found, for the rows that need it."""
    if not ROWS[request.node.callspec.params["name"]].server:
        return
    found = request.getfixturevalue("address")
    settings = {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_S3_ENDPOINT": found.removeprefix("http://"), "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ENDPOINT_URL": found,
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@contextmanager
def in_this_thread(**options: Any) -> Iterator[Cluster]:
    """In place of a dask cluster, which takes longer to start than a small job."""
    yield Cluster(plain)


def samples(row: Row, dtype: str) -> np.ndarray:
    """A made-up picture in a type of samples."""
    pixels = picture(192, 320)  # MIRAX wants whole squares of 64, GeoPackage more than a tile of 256
    pixels = np.ascontiguousarray(pixels[..., 0]) if row.grey else pixels
    if dtype == "uint16":
        return pixels.astype(np.uint16) * 257
    return (pixels / np.float32(255)).astype(np.float32) if dtype == "float32" else pixels.astype(dtype)


def expected(row: Row, path: Path | str, pixels: np.ndarray) -> np.ndarray:
    """The colours, (h, w, 3), that a picture of these samples has: in 8 bits, or in 16."""
    right = pixels if row.right is None else row.right(Path(path))
    right = np.repeat(right[..., None], 3, -1) if right.ndim == 2 else right
    if right.dtype.kind == "f":
        right = np.rint(np.clip(right.astype(np.float64), 0, 1) * 65535)
    return right.astype(np.uint8 if right.dtype == np.uint8 else np.uint16)


def is_lacking(row: Row, path: Path | str) -> bool:
    """Whether the libvips here was built without a format, which is then refused in a sentence."""
    if not row.where:
        return False
    try:
        open_source(path)
    except BadInput as error:
        assert re.search("cannot be read here: libvips reads it where it was built to", str(error))
        return True
    return False


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("name", ROWS)
def test_a_format_is_read(name: str, tmp_path: Path) -> None:
    """A whole job with a network that changes nothing: pixels, place, levels, and who reads."""
    row = ROWS[name]
    (tmp_path / "in").mkdir()
    path, dtype = row.write(tmp_path / "in", pixels := samples(row, row.types[0])), row.types[0]
    if is_lacking(row, path):
        return
    source, output = open_source(path), tmp_path / "out.tif"
    assert READERS[type(source._facts.opener).__name__] == row.by
    assert bool(source.overviews) == bool(row.levels)
    options = Options(**SMALL, stretch=STRETCH[dtype], dtype="uint8" if dtype == "uint8" else "uint16")
    stylize_on(path, output, None, options, opening=in_this_thread)
    right = expected(row, path, pixels)
    found = tifffile.imread(output, key=0)[..., :3]
    assert found.dtype == right.dtype
    np.testing.assert_array_equal(found, right)
    with rasterio.open(output) as out:
        assert out.transform.is_identity != bool(row.place)
        assert not row.place or out.transform.almost_equals(PLACES[row.at]["transform"], 1e-6)


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, row in ROWS.items() for dtype in row.types[1:]]
)
def test_samples_of_other_types_are_read(name: str, dtype: str, tmp_path: Path) -> None:
    row = ROWS[name]
    (tmp_path / "in").mkdir()
    path = row.write(tmp_path / "in", pixels := samples(row, dtype))
    if not is_lacking(row, path):
        source = open_source(path, stretch=STRETCH[dtype]).prepare(tmp_path / "job", thumbnail=64)
        found = source.read(Box(0, 0, *source.shape))[..., :3]
        np.testing.assert_array_equal(found, expected(row, path, pixels))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.extra and not row.server])
def test_without_its_extra_a_format_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the extra that the table names."""
    row = ROWS[name]
    path = row.write(tmp_path, samples(row, row.types[0]))
    for module in (gdal, gdal_facts, opening_module) if row.extra == "gdal" else (by_openslide,):
        monkeypatch.setattr(module, "library", lambda: None)
    monkeypatch.setattr(slides, "openslide", by_openslide.library)
    with pytest.raises(BadInput, match=rf"pip install 'urst-tiles\[{row.extra}\]'"):
        open_source(path)


@pytest.mark.parametrize("name", REFUSED)
def test_a_format_that_is_not_read_is_refused(name: str, tmp_path: Path) -> None:
    """In one sentence that says what the file is, and what to do."""
    row = REFUSED[name]
    path = row.write(tmp_path)
    with pytest.raises(BadInput) as refused:
        open_source(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)
    assert re.search(row.words, str(refused.value)), refused.value


def table(heading: str) -> list[str]:
    """The rows of the first table below a heading of the document, without its head."""
    text = DOCUMENT.read_text().partition(f"\n### {heading}\n")[2]
    lines = [line for line in text.partition("\n#")[0].splitlines() if line.startswith("|")]
    return lines[2:]


def test_the_tables_of_the_document_are_these_rows() -> None:
    """Rows that are tried and rows that are promised are the same, in each cell."""
    rows = [row.text(name) for name, row in (*ROWS.items(), *REFUSED.items())]
    assert table("In") == rows, "\n" + "\n".join(rows)
    assert len(ROWS) >= 45 and list(OUT) == list(FORMATS)
    outputs = [text_of_output(name) for name in FORMATS]
    assert table("Out") == outputs, "\n" + "\n".join(outputs)


def test_what_libvips_may_have_is_what_it_is_asked_for() -> None:
    loaders = {
        "jpeg-xl": "jxl",
        "pfm": "ppm",
        "radiance": "rad",
        "fits": "fits",
        "openexr": "openexr",
        "nifti": "nifti",
    }
    assert {name for name, row in ROWS.items() if row.where} == set(loaders)
    assert {f"{loader}load" for loader in loaders.values()} < set(LOADERS)
