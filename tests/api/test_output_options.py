"""Options of an output in the words of GDAL, and what is suggested."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from helpers import geotiff, picture
from rasterio.shutil import copy


@pytest.mark.parametrize(
    ("flag", "word", "same"),
    [("--predictor", "2", "yes"), ("--predictor", "STANDARD", "yes"), ("--predictor", "1", "no"),
     ("--bigtiff", "IF_NEEDED", "if-needed"), ("--bigtiff", "YES", "yes"), ("--compression", "LZW", "lzw"),
     ("--overview-resampling", "NEAREST", "nearest")],
)  # fmt: skip
def test_words_of_gdal(run, tmp_path: Path, flag: str, word: str, same: str) -> None:
    geotiff(tmp_path / "in.tif", picture(300, 400))
    for name, value in (("a.tif", word), ("b.tif", same)):
        done = run("stylize", tmp_path / "in.tif", tmp_path / name, "--model", "identity", flag, value)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff == (word != "IF_NEEDED")
        assert (file.pages.first.predictor == 1) == (word == "1")


def test_words_that_are_none(run, tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", picture(60, 50))
    for flag, word in (("--predictor", "3"), ("--bigtiff", "IF_SAFER"), ("--overview-resampling", "cubic")):
        done = run("stylize", tmp_path / "in.tif", tmp_path / "a.tif", "--model", "identity", flag, word)
        assert done.returncode == 2 and f"{flag} must be one of " in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "a.tif").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.jpg", True), ("tiles.tif", True), ("strips.tif", True), ("a.vrt", False), ("a.ntf", True),
     ("folder", True), ("deflate.tif", False), ("a.jp2", False)],
)  # fmt: skip
def test_whatever_is_compressed_as_jpeg_is_told_what_would_be_smaller(
    run, tmp_path: Path, name: str, said: bool
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        geotiff(path / "1.tif", picture(300, 400), compression="jpeg")
    elif name.endswith(".tif"):
        options = {"compression": "deflate"} if name == "deflate.tif" else {"compression": "jpeg"}
        more = {"tile": None, "rowsperstrip": 64} if name == "strips.tif" else {}
        geotiff(path, picture(300, 400), **options, **more)
    else:
        geotiff(tmp_path / "in.tif", picture(300, 400))
        driver = {".jpg": "JPEG", ".vrt": "VRT", ".ntf": "NITF", ".jp2": "JP2OpenJPEG"}[path.suffix]
        copy(tmp_path / "in.tif", path, driver=driver, **({"IC": "C3"} if driver == "NITF" else {}))
    done = run("plan", path, tmp_path / "out.tif", "--model", "identity")
    assert done.returncode == 0 and done.stderr.count("compressed as JPEG: with --comp") == said, done.stderr
    done = run("plan", path, tmp_path / "out.tif", "--model", "identity", "--dtype", "uint16")
    assert "compressed as JPEG" not in done.stderr, done.stderr


def test_tiles_for_viewers_are_called_what_they_are_where_they_are_read(run, tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", picture(60, 50))
    for name, words in (("a.dzi", "Deep Zoom image"), ("a.iiif", "an IIIF image")):
        done = run("stylize", tmp_path / "in.tif", tmp_path / name, "--model", "identity")
        assert done.returncode == 0, done.stderr
        for command in (["info"], ["stylize"]):
            more = [] if command == ["info"] else [tmp_path / "b.tif", "--model", "identity"]
            done = run(*command, tmp_path / name, *more)
            assert done.returncode == 2 and words in done.stderr, done.stderr
            assert "that they were made from" in done.stderr or "these were made from" in done.stderr


def test_a_folder_with_something_else_is_refused_before_any_work(run, tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", picture(60, 50))
    for name, more in (("a.ome.zarr", []), ("b.iiif", []), ("c", ["--format", "iiif"]), ("d.dzi", [])):
        folder = tmp_path / (name if name != "d.dzi" else "d_files")
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        for flags in ([], ["--overwrite"]):
            done = run("stylize", tmp_path / "in.tif", tmp_path / name, "--model", "identity", *more, *flags)
            assert done.returncode == 2, done.stderr
            assert f"{folder.name} is a folder with something else in it" in done.stderr
            assert sorted(path.name for path in folder.iterdir()) == ["notes.txt"]
    assert not list(tmp_path.glob("*.job"))


def test_a_slash_behind_an_output_that_is_a_folder(run, tmp_path: Path) -> None:
    """As a shell completes it."""
    geotiff(tmp_path / "in.tif", picture(60, 50))
    for name, more in (("a.ome.zarr", []), ("b.iiif", []), ("c", ["--format", "ome.zarr"])):
        done = run("stylize", tmp_path / "in.tif", f"{tmp_path}/{name}/", "--model", "identity", *more)
        assert done.returncode == 0, done.stderr
        assert run("validate", f"{tmp_path}/{name}/").returncode == 0
    for name in ("d.png/", "e/", "f.dzi/", "./"):
        done = run("stylize", tmp_path / "in.tif", f"{tmp_path}/{name}", "--model", "identity")
        assert done.returncode == 2 and "is a folder; name a file in it" in done.stderr, done.stderr
